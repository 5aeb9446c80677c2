"""`limelight study`: its output, its repairs and its exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import reviews
from limelight.cli import main

pytestmark = [pytest.mark.backend_free, pytest.mark.slow, pytest.mark.subprocess]

OUT = Path("limelight-study", "reviews")


@pytest.fixture
def study(workspace, monkeypatch, capsys):
    """Run the command in this process; return its exit code, stdout and stderr."""
    monkeypatch.chdir(workspace)

    def run(*arguments):
        code = main([*reviews.COMMAND, *arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def results(workspace, finished):
    """The results of the finished study."""
    return json.loads((workspace / OUT / "results.json").read_text(encoding="utf-8"))


def test_a_study_prints_its_runs_its_verdict_and_its_report(workspace, finished):
    lines = finished.stderr.splitlines()
    assert lines[0] == "task: classify, because the labels are classes (--task sets another)"
    assert lines[1] == f"reviews: {lines[1].split(': ')[1]}"
    runs = [line.split(":")[0] for line in lines if "-seed" in line]
    assert runs == ["linear-seed1", "attention-seed1", "mean-seed1"]
    assert "validation accuracy" in lines[-3]
    assert "Traceback" not in finished.stderr
    assert finished.stdout.endswith(f"\n\nReport: {OUT / 'report.html'}\n")
    assert "LSTM + attention" in finished.stdout
    assert "No claim about the accuracy of attention can be made: " in finished.stdout
    assert "\nClass shares " in finished.stdout
    assert (workspace / OUT / "report.html").is_file()


def test_repairs_are_printed_with_their_counts(results, finished):
    assert sum(results["data"]["counts"].values()) == 60
    assert len(results["data"]["repairs"]) >= 3
    for repair in results["data"]["repairs"]:
        assert f"\n  {repair['what']}: {repair['count']}\n" in finished.stderr


def test_an_accuracy_below_the_required_one_exits_with_4_after_everything_is_written(results, finished):
    accuracy = results["models"][0]["metrics"]["accuracy"]["value"]
    assert accuracy < 1
    assert finished.returncode == 4
    assert finished.stderr.endswith(
        f"\nlimelight: The attention model's mean test accuracy is {100 * accuracy:.1f} %, below the required 100 %.\n"
    )


def test_json_prints_only_the_results(study, workspace, finished, monkeypatch):
    monkeypatch.setenv("LIMELIGHT_REQUIRE_ACCURACY", "0")
    code, stdout, stderr = study("--json", "--quiet")
    assert (code, stderr) == (0, "")
    written = json.loads((workspace / OUT / "results.json").read_text(encoding="utf-8"))
    assert json.loads(stdout) == written
    assert written["settings"]["require_accuracy"] == 0


def test_another_configuration_is_one_line_that_names_the_differences(study, finished):
    code, _, stderr = study("--units", "3")
    assert code == 2
    assert stderr.splitlines()[-1] == (
        f"limelight: {OUT} holds a study with units 2, not 3. Use --fresh to replace it, or another --out to keep it."
    )


def test_a_loss_that_is_not_finite_is_one_line(study, workspace):
    code, stdout, stderr = study("--learning-rate", "1e38", "--out", "lost")
    assert (code, stdout) == (3, "")
    assert stderr.splitlines()[-1].startswith("limelight: The loss must stay finite. It became nan in epoch 1, ")
    assert "Traceback" not in stderr
    # The runs that were finished before are kept.
    assert [path.name for path in (workspace / "lost" / "runs").iterdir()] == ["linear-seed1"]


def test_a_closed_pipe_does_not_end_a_study(start, workspace, finished):
    # As in `limelight study ... 2>&1 | head -1`: everything is written, and the required accuracy is checked.
    (workspace / OUT / "report.html").unlink()
    with start("--require-accuracy", "1.0", stderr=subprocess.STDOUT) as process:
        process.stdout.readline()
        process.stdout.close()
    assert process.returncode == 4
    assert (workspace / OUT / "report.html").is_file()


def test_a_closed_pipe_for_json_does_not_end_a_study(study, workspace, finished, monkeypatch):
    (workspace / OUT / "report.html").unlink()
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        code, _, _ = study("--require-accuracy", "1.0", "--json")
    assert code == 4
    assert (workspace / OUT / "report.html").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_results_to_a_full_disk_are_one_line(study, finished, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        code, _, stderr = study("--json", "--quiet")
    assert code == 3
    assert stderr.startswith("limelight: No space left")
    assert stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_version_to_a_full_disk_is_one_line(environment):
    # Unbuffered, argparse itself hides that it could not print.
    environment = {name: value for name, value in environment.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "limelight", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
    assert process.returncode == 3
    assert process.stderr.startswith("limelight: No space left")
    assert process.stderr.count("\n") == 1
