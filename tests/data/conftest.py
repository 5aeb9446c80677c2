"""One fetch of the named data sets for all tests."""

import os

import pytest


@pytest.fixture(scope="session")
def fetched(tmp_path_factory):
    """The cache of the named data sets: the user's where `LIMELIGHT_CACHE` is set, else one for this run and its workers."""
    if os.environ.get("LIMELIGHT_CACHE"):
        yield os.environ["LIMELIGHT_CACHE"]
        return
    base = tmp_path_factory.getbasetemp()
    # A worker's own folder lies in that of the run.
    cache = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "limelight-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMELIGHT_CACHE", str(cache))
        yield str(cache)
