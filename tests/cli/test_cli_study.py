"""`limelight study` as it is typed: what it prints, what it repairs, and the exit codes of a study that ran."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import reviews

pytestmark = [pytest.mark.backend_free, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with reviews that need every repair there is."""
    folder = tmp_path_factory.mktemp("cli")
    path = reviews.write(folder / "reviews.csv")
    first = path.read_text(encoding="utf-8").splitlines()[2]
    with path.open("a", encoding="utf-8") as stream:
        # A repeated row, a row without a text, one without a label, and one with too few fields.
        stream.write(f"{first}\n,good\na film,\nlonely\n")
    return folder


@pytest.fixture(scope="module")
def study(place, compiled):
    """Runs the command on the reviews, in a process of its own."""

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "limelight", "study", "reviews.csv", "--seeds", "1", *reviews.flags(), *arguments],
            capture_output=True,
            text=True,
            cwd=place,
            env={**compiled, **environment},
        )

    return run


@pytest.fixture(scope="module")
def done(study):
    return study("--require-accuracy", "1.0")


def test_a_study_prints_its_runs_its_verdict_and_its_report(place, done):
    lines = done.stderr.splitlines()
    assert lines[0] == f"reviews: {lines[0].split(': ')[1]}"
    runs = [line.split(":")[0] for line in lines if "-seed" in line]
    assert runs == ["linear-seed1", "attention-seed1", "mean-seed1"]
    assert "validation accuracy" in lines[-3]
    assert "Traceback" not in done.stderr
    report = Path("limelight-study", "reviews", "report.html")
    assert done.stdout.endswith(f"\n\nReport: {report}\n")
    assert "LSTM + attention" in done.stdout
    assert "accuracy could be shown" in done.stdout or "accuracy from" in done.stdout
    assert (place / report).is_file()


def test_repairs_are_stated_with_their_count(place, done):
    results = json.loads((place / "limelight-study" / "reviews" / "results.json").read_text(encoding="utf-8"))
    assert sum(results["data"]["counts"].values()) == 60
    assert len(results["data"]["repairs"]) >= 3
    for repair in results["data"]["repairs"]:
        assert f"reviews: {repair['count']} {repair['what']}\n" in done.stderr


def test_a_quality_gate_ends_with_4_after_everything_is_written(place, done):
    results = json.loads((place / "limelight-study" / "reviews" / "results.json").read_text(encoding="utf-8"))
    accuracy = results["models"][0]["metrics"]["accuracy"]["value"]
    assert accuracy < 1
    assert done.returncode == 4
    assert done.stderr.endswith(
        f"\nlimelight: the attention model's mean test accuracy is {100 * accuracy:.1f} %, below the required 100 %.\n"
    )


def test_json_prints_the_results_and_nothing_else(study, place, done):
    again = study("--json", "--quiet", LIMELIGHT_REQUIRE_ACCURACY="0")
    assert (again.returncode, again.stderr) == (0, "")
    written = json.loads((place / "limelight-study" / "reviews" / "results.json").read_text(encoding="utf-8"))
    assert json.loads(again.stdout) == written
    assert written["settings"]["require_accuracy"] == 0


def test_another_configuration_is_one_line_that_says_what_differs(study, done):
    other = study("--units", "3")
    assert other.returncode == 2
    assert other.stderr.splitlines()[-1] == (
        f"limelight: {Path('limelight-study', 'reviews')} holds a study with units 2, not 3. Use --fresh to replace it, or "
        "another --out to keep it."
    )


def test_a_lost_loss_is_one_line(study, place):
    lost = study("--learning-rate", "1e38", "--out", "lost")
    assert lost.returncode == 3
    assert lost.stdout == ""
    assert lost.stderr.splitlines()[-1].startswith("limelight: The loss must stay a number. It became nan in epoch 1, ")
    assert "Traceback" not in lost.stderr
    # What was finished before stays.
    assert [path.name for path in (place / "lost" / "runs").iterdir()] == ["linear-seed1"]


def test_whoever_reads_no_further_does_not_end_a_study(place, compiled, done):
    # As `limelight study ... 2>&1 | head -1` does: the rest is done all the same, and the quality asked for.
    command = [sys.executable, "-m", "limelight", "study", "reviews.csv", "--seeds", "1", *reviews.flags()]
    for more in ([], ["--json"]):
        with subprocess.Popen(
            [*command, "--out", "unheard", "--require-accuracy", "1.0", *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=place,
            env=compiled,
        ) as process:
            process.stdout.readline()
            process.stdout.close()
        assert process.returncode == 4
    assert (place / "unheard" / "report.html").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_disk_behind_what_is_printed_is_one_line(place, compiled, done):
    # Unbuffered, argparse itself keeps quiet about what it could not print.
    compiled = {name: value for name, value in compiled.items() if name != "PYTHONUNBUFFERED"}
    for arguments in (["--version"], ["study", "reviews.csv", "--seeds", "1", *reviews.flags(), "--json", "--quiet"]):
        with open("/dev/full", "w") as full:
            finished = subprocess.run(
                [sys.executable, "-m", "limelight", *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                cwd=place,
                env=compiled,
            )
        assert finished.returncode == 3
        assert finished.stderr.startswith("limelight: no room is left")
        assert finished.stderr.count("\n") == 1
