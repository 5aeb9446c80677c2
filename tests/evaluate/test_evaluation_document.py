"""The examples in docs/evaluation.md."""

import doctest
from pathlib import Path

import pytest

pytestmark = pytest.mark.backend_free


def test_examples_give_the_printed_output():
    document = Path(__file__).parents[2] / "docs" / "evaluation.md"
    failed, attempted = doctest.testfile(
        str(document), module_relative=False, encoding="utf-8", optionflags=doctest.ELLIPSIS
    )
    assert attempted > 15
    assert failed == 0
