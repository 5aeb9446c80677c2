"""Atomic writes leave the old file or the new one, also after kill -9 and on a full disk."""

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from limelight import _files

pytestmark = pytest.mark.backend_free

WRITER = textwrap.dedent("""
    import os, sys, zipfile
    from limelight import _files

    # Big enough that a kill lands in the middle of a write.
    content = os.urandom(8 << 20)
    while True:
        with _files.atomic_write(sys.argv[1]) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr("content", content)
        print("written", flush=True)
""")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_contents_are_written(tmp_path):
    _files.write_bytes(tmp_path / "a.bin", b"\x00\xff")
    _files.write_text(tmp_path / "new" / "b.txt", "γράμμα\n")
    _files.write_json(tmp_path / "c.json", {"text": "</script>", "value": 0.1})

    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff"
    assert (tmp_path / "new" / "b.txt").read_bytes() == "γράμμα\n".encode()
    assert json.loads((tmp_path / "c.json").read_text(encoding="utf-8")) == {"text": "</script>", "value": 0.1}
    assert names(tmp_path) == ["a.bin", "c.json", "new"]


def test_json_without_an_expression_raises(tmp_path):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        _files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert (tmp_path / "a.json").read_text() == "old"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_keeps_the_old_file_and_removes_the_temporary_one(tmp_path, error):
    def write_half() -> None:
        with _files.atomic_write(tmp_path / "a.keras") as temporary:
            temporary.write_text("half of the n")
            assert temporary.parent == tmp_path
            assert temporary.suffix == ".keras"
            raise error

    (tmp_path / "a.keras").write_text("old")
    with pytest.raises(error):
        write_half()
    assert (tmp_path / "a.keras").read_text() == "old"
    assert names(tmp_path) == ["a.keras"]


def test_file_modes(tmp_path):
    (tmp_path / "by open").write_text("")
    _files.write_text(tmp_path / "a", "new")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "by open").stat().st_mode)
    (tmp_path / "a").chmod(0o640)
    _files.write_text(tmp_path / "a", "newer")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a.txt")
    _files.write_text(tmp_path / "link", "through")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a.txt").read_text() == "through"


def test_only_temporary_files_are_removed(tmp_path):
    with _files.atomic_write(tmp_path / "a.npz") as temporary:
        stale = temporary.with_name(temporary.name.replace(".npz", "0.npz"))
        stale.write_bytes(b"half")
        assert _files.is_temporary(stale)
    (tmp_path / ".limelight").write_text("mine")
    (tmp_path / "tmp-1").write_text("mine")
    assert _files.remove_temporary_files(tmp_path) == 1
    assert names(tmp_path) == [".limelight", "a.npz", "tmp-1"]
    assert _files.remove_temporary_files(tmp_path / "not there") == 0


def test_a_killed_writer_leaves_a_complete_file(tmp_path):
    target = tmp_path / "a.zip"
    for delay in (0.003, 0.011, 0.029):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            try:
                writer.wait(delay)
            except subprocess.TimeoutExpired:
                writer.send_signal(signal.SIGKILL)
        assert writer.returncode == -signal.SIGKILL
        with zipfile.ZipFile(target) as archive:
            assert archive.testzip() is None
    _files.remove_temporary_files(tmp_path)
    assert names(tmp_path) == ["a.zip"]


def test_a_full_disk_keeps_the_old_file(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"old")
    program = "import sys; from limelight import _files; _files.write_bytes(sys.argv[1], bytes(2 << 20))"
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.bin")],
        # The kernel refuses every byte past the first megabyte of a file, as a full disk does.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert result.returncode == 1
    assert "OSError" in result.stderr
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_only_regular_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match="can only replace a regular file"):
            _files.write_text(tmp_path / name, "x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert names(tmp_path) == ["folder", "pipe"]
