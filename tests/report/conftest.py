"""A study and maps to report, and a browser for each module that asks for one."""

from collections.abc import Iterator
from typing import Any

import pytest

from browsing import Tab, open_browser, open_tab
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium."""
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    """A tab of desktop size; after the test its console must be empty."""
    with open_tab(browser) as tab:
        yield tab
