"""One finished study for all tests of the command line."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

import reviews


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The environment of a command that trains. On JAX it has a cache of its own: a killed process leaves damaged entries."""
    return {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A folder with reviews that need several kinds of repair."""
    folder = tmp_path_factory.mktemp("cli")
    path = reviews.write(folder / "reviews.csv")
    first = path.read_text(encoding="utf-8").splitlines()[2]
    with path.open("a", encoding="utf-8") as stream:
        # A duplicate row, a row without a text, one without a label, and one with too few fields.
        stream.write(f"{first}\n,good\na film,\nlonely\n")
    return folder


@pytest.fixture(scope="session")
def start(workspace, environment):
    """Start a study of the reviews in another process."""

    def start_process(*arguments, **options):
        return subprocess.Popen(
            [sys.executable, "-m", "limelight", *reviews.COMMAND, *arguments],
            cwd=workspace,
            env=environment,
            **{"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    return start_process


@pytest.fixture(scope="session")
def finished(start):
    """A finished study in the default folder, whose accuracy is below the required one."""
    process = start("--require-accuracy", "1.0")
    stdout, stderr = process.communicate()
    return SimpleNamespace(returncode=process.returncode, stdout=stdout, stderr=stderr)
