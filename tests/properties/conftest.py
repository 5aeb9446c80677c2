"""Properties are examined on few shapes, but with every part: on JAX most of the time goes into compiling."""

from collections.abc import Iterator

import pytest

from compiling import quickly


@pytest.fixture(autouse=True, scope="module")
def _quickly() -> Iterator[None]:
    with quickly():
        yield
