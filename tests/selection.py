"""Selection of the tests to run: everything on one backend, less on the others."""

import os

# `make test` runs all tests on this backend, the quickest one. On the others it leaves out those marked `full`.
FULL_BACKEND = "torch"


def runs_everything() -> bool:
    """Return True under `make test-all`."""
    return os.environ.get("LIMELIGHT_TESTS") == "all"


def is_full() -> bool:
    """Return True if tests marked `full` run in this process: on `FULL_BACKEND`, and on every backend under `make test-all`."""
    return os.environ["KERAS_BACKEND"] == FULL_BACKEND or runs_everything()
