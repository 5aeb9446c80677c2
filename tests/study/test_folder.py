"""The output folder: one writer, complete runs, other files untouched."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from limelight.study import UsageError
from limelight.study.folder import StudyFolder

pytestmark = pytest.mark.backend_free

CONFIGURATION = {"data": "abc", "units": 7, "learning_rate": 0.001}
PREDICTIONS = {"test": np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]])}


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def write_model(path: Path) -> None:
    path.write_bytes(b"weights")


def write_run(out: Path, model: str = "attention", seed: int = 2):
    with StudyFolder(out) as folder:
        folder.claim(CONFIGURATION)
        return folder.save_run(model, seed, {"seconds": 1.5, "history": {"loss": [0.7]}}, PREDICTIONS, write_model)


def test_save_and_load_a_run(out):
    write_run(out)
    with StudyFolder(out) as folder:
        folder.claim(CONFIGURATION)
        run = folder.load_run("attention", 2)
        assert run is not None
        assert run.name == "attention-seed2"
        assert run.summary == {"seconds": 1.5, "history": {"loss": [0.7]}}
        np.testing.assert_array_equal(run.predictions["test"], PREDICTIONS["test"])
        assert run.keras_model is not None
        assert run.keras_model.read_bytes() == b"weights"
        assert folder.load_run("attention", 3) is None
        assert folder.load_run("mean", 2) is None


def test_a_run_without_a_keras_model(out):
    with StudyFolder(out) as folder:
        folder.claim(CONFIGURATION)
        assert folder.save_run("linear", 1, {}, PREDICTIONS).keras_model is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", b"{"),
        ("run.json", b"[]"),
        ("run.json", b'{"sha256": {"predictions.npz": "0"}, "summary": {}}'),
        ("run.json", None),
        ("predictions.npz", b"PK\x03\x04"),
        ("predictions.npz", None),
        ("model.keras", b"other weights"),
    ],
)
def test_a_damaged_run_is_not_loaded(out, name, content):
    write_run(out)
    damaged = out / "runs" / "attention-seed2" / name
    damaged.unlink()
    if content is not None:
        damaged.write_bytes(content)
    with StudyFolder(out) as folder:
        assert folder.load_run("attention", 2) is None


def test_another_configuration_is_refused_with_the_differences(out):
    write_run(out)
    with (
        StudyFolder(out) as folder,
        pytest.raises(UsageError, match=r"holds a study with units 7, not 11\. Use --fresh to .* or another --out"),
    ):
        folder.claim({**CONFIGURATION, "units": 11})
    with StudyFolder(out) as folder:
        assert folder.load_run("attention", 2) is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingerprint": "b", "order_of_rows": "d", "test": 0.3}, "holds a study with test 0.2, not 0.3. Use"),
        ({"fingerprint": "b", "order_of_rows": "d"}, "a study with fingerprint a, not b; order of rows c, not d. Use"),
        ({"order_of_rows": "d", "group": "who", "units": 3}, "a study with group None, not who; units 7, not 3. Use"),
        ({"test": 0.3, "text": "review"}, None),
    ],
)
def test_a_setting_that_changes_the_split_is_named_in_place_of_the_hashes(out, changes, message):
    configuration = {
        **CONFIGURATION,
        "fingerprint": "a",
        "order_of_rows": "c",
        "group": None,
        "text": None,
        "test": 0.2,
    }
    with StudyFolder(out) as folder:
        folder.claim(configuration)
        if message is None:
            folder.claim({**configuration, **changes})
            return
        with pytest.raises(UsageError, match=re.escape(message)):
            folder.claim({**configuration, **changes})


def test_fresh_removes_the_study_and_keeps_other_files(out):
    write_run(out)
    (out / "report.html").write_text("old")
    (out / "notes.txt").write_text("mine")
    with StudyFolder(out) as folder:
        folder.claim({**CONFIGURATION, "units": 11}, fresh=True)
        assert folder.load_run("attention", 2) is None
    assert sorted(path.name for path in out.iterdir()) == [".lock", "notes.txt", "runs", "study.json"]
    assert json.loads((out / "study.json").read_text())["configuration"]["units"] == 11


@pytest.mark.parametrize("name", ["thesis.tex", "report.html", "runs", "study.json"])
def test_a_folder_with_other_files_is_refused_untouched(out, name):
    out.mkdir()
    if name == "runs":
        (out / name / "mine").mkdir(parents=True)
    else:
        (out / name).write_text('{"mine": 1}')
    with pytest.raises(UsageError, match=rf"empty folder or the folder of an earlier study\. .* holds '{name}'"):
        StudyFolder(out).__enter__()
    assert [path.name for path in out.iterdir()] == [name]


def test_a_file_is_refused(out):
    out.write_text("mine")
    with pytest.raises(UsageError, match=r"--out must be a folder\. .*out is a file"):
        StudyFolder(out).check()


def test_checking_creates_nothing(out):
    StudyFolder(out).check()
    assert not out.exists()


def test_stale_temporaries_are_removed(out):
    write_run(out)
    for folder in (out, out / "runs" / "attention-seed2"):
        (folder / ".limelight-tmp-1.keras").write_bytes(b"half")
    with StudyFolder(out) as folder:
        folder.claim(CONFIGURATION)
        assert folder.load_run("attention", 2) is not None
    assert not list(out.rglob(".limelight-tmp-*"))


def test_a_study_that_died_before_its_configuration_leaves_a_free_folder(out):
    (out / "runs").mkdir(parents=True)
    (out / ".lock").write_text("1")
    (out / ".limelight-tmp-1.json").write_text("{")
    with StudyFolder(out) as folder:
        folder.claim(CONFIGURATION)
    assert sorted(path.name for path in out.iterdir()) == [".lock", "runs", "study.json"]


@pytest.mark.subprocess
def test_two_processes_cannot_lock_one_folder(out):
    program = "import sys; from limelight.study.folder import StudyFolder; StudyFolder(sys.argv[1]).__enter__()"
    with StudyFolder(out):
        second = subprocess.run([sys.executable, "-c", program, str(out)], capture_output=True, text=True)
    assert f"Another process (id {os.getpid()}) is writing to {out}. Wait until it ends" in second.stderr
    assert second.returncode == 1
    with StudyFolder(out):
        pass
