"""One finished study and one cache of compiled programs for all tests of the command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import reviews

PERSISTENT_CACHE = Path(__file__).parents[2] / ".pytest_cache" / "jax-cli"


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The environment of a command that trains. One backend is enough to test the command line."""
    base = tmp_path_factory.getbasetemp()
    # The folder of an xdist worker is inside that of the run.
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    # A copy of what an earlier run compiled: a killed process leaves damaged entries in its cache.
    if PERSISTENT_CACHE.exists() and not (base / "compiled").exists():
        shutil.copytree(PERSISTENT_CACHE, base / "compiled")
    return {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_COMPILATION_CACHE_DIR": str(base / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        # Other caches of XLA would add the folder's path to the keys.
        "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
    }


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
def finished(start, environment):
    """A finished study in the default folder, whose accuracy is below the required one."""
    process = start("--require-accuracy", "1.0")
    stdout, stderr = process.communicate()
    if not PERSISTENT_CACHE.exists():
        # Rename a complete copy, so that the folder is never half written.
        copy = Path(shutil.copytree(environment["JAX_COMPILATION_CACHE_DIR"], f"{PERSISTENT_CACHE}-{os.getpid()}"))
        copy.rename(PERSISTENT_CACHE)
    return SimpleNamespace(returncode=process.returncode, stdout=stdout, stderr=stderr)
