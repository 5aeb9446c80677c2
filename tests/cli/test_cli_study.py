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


def test_a_forecast_is_found_studied_and_predicted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [f"{1990 + step // 12}-{step % 12 + 1:02d},{20 + step % 12 + step % 5}" for step in range(72)]
    Path("sea.csv").write_text("month,sst\n" + "\n".join(rows) + "\n")
    small = "--past 12 --horizon 3 --epochs 1 --epoch-steps 1 --units 2 --seeds 1 --examples 1 --explain 4"
    assert main(["study", "sea.csv", *small.split()]) == 0
    out, err = capsys.readouterr()
    assert err.splitlines()[0] == "task: forecast, because --horizon is given (--task sets another)"
    assert "mean absolute scaled error (95 % interval)" in out
    assert "\nSeasonal naive " in out
    assert "\nCannot tell. No claim about the mean absolute scaled error of attention can be made: " in out
    explanation = json.loads(Path("limelight-study/sea/results.json").read_text())["explanation"]
    assert f"\n{explanation['verdict'][0]}\n\nReport: " in out
    assert main(["predict", "limelight-study/sea/model.keras", "sea.csv"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header == "series,time,forecast_0.1,forecast_0.5,forecast_0.9"
    assert [row.split(",")[:2] for row in rows] == [["sst", "1996-01"], ["sst", "1996-02"], ["sst", "1996-03"]]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--task", "forecast", "--width", "8"], 2, "--width is a setting of --task classify or regress or translate."),
        (["--task", "predict"], 2, "--task must be classify, regress, translate or forecast. Received: 'predict'."),
        (["--task", "translate"], 3, "'sea.csv' must have exactly one column with a usual name for the source"),
        (["--value", "price"], 3, "'value' must name a column of 'sea.csv'. There is no column 'price'."),
        (["--quantiles", "a,b"], 2, "--quantiles must be numbers with commas between them. Received: 'a,b'."),
        (["--horizon", "30"], 3, "A series must be longer than twice the horizon"),
    ],
)
def test_wrong_settings_of_a_task_are_one_line(tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    rows = [f"{1990 + step // 12}-{step % 12 + 1:02d},{20 + step % 12}" for step in range(48)]
    Path("sea.csv").write_text("month,sst\n" + "\n".join(rows) + "\n")
    assert main(["study", "sea.csv", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"limelight: {message}")
    assert err.count("\n") == 1
    assert not Path("limelight-study").exists()
