"""A study and maps to report."""

from typing import Any

import pytest

from limelight.maps import AttentionMaps
from report.studies import make_maps, make_results


@pytest.fixture
def results() -> dict[str, Any]:
    """A whole study of movie reviews, fresh for each test."""
    return make_results()


@pytest.fixture
def maps() -> AttentionMaps:
    """Three layers of self-attention and a pooling on three reviews."""
    return make_maps()
