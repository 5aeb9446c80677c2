"""An interrupted or killed study, or a full disk, damages no file, and the same command continues the study."""

import json
import os
import resource
import signal

import numpy as np
import pytest

from limelight.study.folder import StudyFolder

pytestmark = [pytest.mark.backend_free, pytest.mark.slow, pytest.mark.subprocess]


def wait_for(process, name):
    """Wait until the process prints the line of a run."""
    for line in process.stderr:
        if line.startswith(name):
            return
    pytest.fail(f"the study ended without {name}")


def stored_runs(out):
    """Return the names of the runs in a folder, after checking that every file is intact."""
    names = []
    for path in sorted((out / "runs").iterdir()):
        if not (path / "run.json").exists():
            continue
        with StudyFolder(out) as folder:
            model, _, seed = path.name.rpartition("-seed")
            assert folder.load_run(model, int(seed)) is not None
        names.append(path.name)
    for path in out.rglob("*.npz"):
        np.load(path, allow_pickle=False).close()
    for path in out.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    return names


def reproducible(results):
    """Return the results without what differs between two equal studies: durations, folder and requirement."""
    results = {**results, "command": None, "settings": {**results["settings"], "out": None, "require_accuracy": None}}
    for model in results["models"]:
        for run in model["runs"]:
            run["seconds"] = None
    return results


def test_a_study_continues_after_a_full_disk_an_interruption_and_a_kill(start, workspace, finished):
    undisturbed = json.loads((workspace / "limelight-study" / "reviews" / "results.json").read_text(encoding="utf-8"))
    out = workspace / "out"
    arguments = ["--out", "out", "--json"]

    # No file can grow beyond 12 kB: the predictions fit, the model does not.
    full = start(*arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000)))
    stdout, stderr = full.communicate()
    assert (full.returncode, stdout) == (3, "")
    assert stderr.splitlines()[-1].startswith("limelight: No space left")
    assert stderr.endswith(". Finished runs are kept. Free some space and run the same command to continue.\n")
    assert "Traceback" not in stderr
    assert stored_runs(out) == ["linear-seed1"]
    assert not list(out.rglob(".limelight-tmp-*"))

    for signum, code, last_run in (
        (signal.SIGINT, 130, "attention-seed1"),
        (signal.SIGKILL, -signal.SIGKILL, "mean-seed1"),
    ):
        process = start(*arguments)
        wait_for(process, last_run)
        process.send_signal(signum)
        stdout, stderr = process.communicate()
        assert (process.returncode, stdout) == (code, "")
        assert "Traceback" not in stderr
        assert "Exception ignored" not in stderr
        assert last_run in stored_runs(out)
        assert not (out / "report.html").exists()
        if signum == signal.SIGINT:
            assert stderr.splitlines()[-1] == (
                "limelight: Interrupted. Finished runs are kept. Run the same command to continue."
            )

    last = start(*arguments)
    stdout, stderr = last.communicate()
    assert last.returncode == 0
    assert stderr.count("stored earlier") == 3
    assert reproducible(json.loads(stdout)) == reproducible(undisturbed)
    assert (out / "report.html").is_file()
    assert not list(out.rglob(".limelight-tmp-*"))


def test_two_studies_cannot_write_to_one_folder(start, workspace):
    with StudyFolder(workspace / "locked"):
        second = start("--out", "locked")
        stdout, stderr = second.communicate()
    assert (second.returncode, stdout) == (2, "")
    assert stderr.splitlines()[-1] == (
        f"limelight: Another process (id {os.getpid()}) is writing to locked. Wait until it ends, or use another --out."
    )
