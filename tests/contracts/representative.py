"""The selection of cases: all on one backend, those of representative mechanisms on the others."""

from collections.abc import Iterable
from typing import Any

import pytest

from contracts.cases import Case

# Cases that run every test on every backend. The others run every test on one backend, and on all backends those that compare
# values and gradients with the oracle; `make test-all` runs everything everywhere.
REPRESENTATIVE = {
    "defaults",
    "additive",
    "alibi",
    "and",
    "blocks of two",
    "cosine",
    "gaussian over padding",
    "learned sink",
    "monotonic",
    "entmax near softmax",
    "relative bias",
    "rotary scaled by YaRN",
    "segments",
    "soft cap",
    "top k of sparsemax",
}


def full(*values: Any) -> Any:
    """Mark the values of one case of a parametrized test `full`."""
    return pytest.param(*values, marks=pytest.mark.full)


def parametrize(cases: Iterable[Case], names: set[str] = REPRESENTATIVE) -> pytest.MarkDecorator:
    """Parametrize a test by cases; mark those without one of the names `full`."""
    marks = {True: (), False: (pytest.mark.full,)}
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=case.name, marks=marks[case.name in names]) for case in cases]
    )
