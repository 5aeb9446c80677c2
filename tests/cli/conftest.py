"""One cache of compiled programs for every process that these tests start."""

import os

import pytest


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """The environment of a command that trains: one backend is enough to see what the command line does."""
    base = tmp_path_factory.getbasetemp()
    # A worker's own folder lies in that of the run.
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    return {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_COMPILATION_CACHE_DIR": str(base / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
