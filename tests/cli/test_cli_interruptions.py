"""A study that is interrupted, killed, or finds the disk full breaks no file, and the same command goes on."""

import json
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

import reviews
from limelight.study.folder import StudyFolder

pytestmark = [pytest.mark.backend_free, pytest.mark.slow]


@pytest.fixture(scope="module")
def start(tmp_path_factory, compiled):
    """Starts the study of small reviews in a folder, each time the same command."""
    folder = tmp_path_factory.mktemp("interruptions")
    reviews.write(folder / "reviews.csv")
    command = [sys.executable, "-m", "limelight", "study", "reviews.csv", "--seeds", "2", *reviews.flags(), "--json"]

    def started(out, **options):
        return subprocess.Popen(
            [*command, "--out", out], cwd=folder, env=compiled, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    started.folder = folder
    return started


def heard(process, name):
    """Wait until the process tells of a run."""
    for line in process.stderr:
        if line.startswith(name):
            return
    pytest.fail(f"the study ended without {name}")


def finished_runs(out):
    """The runs that a folder holds; every file of it is whole."""
    names = []
    for path in sorted((out / "runs").iterdir()):
        if not (path / "run.json").exists():
            continue
        with StudyFolder(out) as folder:
            model, _, seed = path.name.rpartition("-seed")
            assert folder.finished(model, int(seed)) is not None
        names.append(path.name)
    for path in out.rglob("*.npz"):
        np.load(path, allow_pickle=False).close()
    for path in out.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    return names


def timeless(text):
    """Results without what differs between two ways to the same end: how long it took, and where."""
    results = json.loads(text)
    results["settings"]["out"] = results["command"] = None
    for model in results["models"]:
        for run in model["runs"]:
            run["seconds"] = None
    return results


def test_a_study_goes_on_after_a_full_disk_a_kill_and_a_signal(start):
    undisturbed = start("undisturbed")
    expected, _ = undisturbed.communicate()
    assert undisturbed.returncode == 0
    out = start.folder / "out"

    # No file can grow past 12 kB: the predictions fit, the model does not.
    full = start("out", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000)))
    stdout, stderr = full.communicate()
    assert (full.returncode, stdout) == (3, "")
    assert stderr.splitlines()[-1].startswith("limelight: no room is left")
    assert stderr.endswith(". Finished runs are kept: make room, and the same command goes on.\n")
    assert "Traceback" not in stderr
    assert finished_runs(out) == ["linear-seed1"]
    assert not list(out.rglob(".limelight-tmp-*"))

    for signum, code, last in (
        (signal.SIGINT, 130, "attention-seed1"),
        (signal.SIGKILL, -signal.SIGKILL, "mean-seed1"),
    ):
        process = start("out")
        heard(process, last)
        process.send_signal(signum)
        stdout, stderr = process.communicate()
        assert (process.returncode, stdout) == (code, "")
        assert "Traceback" not in stderr
        assert "Exception ignored" not in stderr
        assert last in finished_runs(out)
        assert not (out / "report.html").exists()
        if signum == signal.SIGINT:
            assert (
                stderr.splitlines()[-1] == "limelight: interrupted. Finished runs are kept: the same command goes on."
            )

    final = start("out")
    stdout, stderr = final.communicate()
    assert final.returncode == 0
    assert stderr.count("kept from before") >= 4
    assert timeless(stdout) == timeless(expected)
    assert (out / "report.html").is_file()
    assert not list(out.rglob(".limelight-tmp-*"))


def test_two_studies_cannot_write_one_folder(start):
    with StudyFolder(start.folder / "held"):
        second = start("held")
        stdout, stderr = second.communicate()
    assert (second.returncode, stdout) == (2, "")
    assert stderr.splitlines()[-1] == (
        f"limelight: another process (id {os.getpid()}) is writing held. Wait until it ends, or use another --out."
    )
