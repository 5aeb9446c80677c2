"""The examples of docs/evaluation.md give what the document says."""

import doctest
from pathlib import Path

import pytest

pytestmark = pytest.mark.backend_free


def test_the_document_says_what_happens():
    document = Path(__file__).parents[2] / "docs" / "evaluation.md"
    failed, tried = doctest.testfile(str(document), module_relative=False, encoding="utf-8")
    assert tried > 15
    assert failed == 0
