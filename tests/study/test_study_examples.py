"""Examples worth looking at: the surest right ones, the surest wrong ones, the least sure; none twice."""

import numpy as np
import pytest

from limelight.study.examples import RIGHT, UNCERTAIN, WRONG, choose

pytestmark = pytest.mark.backend_free

PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6], [0.05, 0.95], [0.35, 0.65], [0.52, 0.48]])
TRUTH = np.array([0, 0, 1, 1, 0, 1, 0])


def test_each_kind_is_what_it_says():
    chosen = choose(PROBABILITIES, TRUTH, 2)
    # The right ones take turns: surest of class 0, then of class 1, though another of class 0 is surer.
    assert chosen == {RIGHT: [0, 5], WRONG: [4, 2], UNCERTAIN: [6, 3]}


def test_no_example_is_shown_twice():
    chosen = choose(PROBABILITIES, TRUTH, 5)
    shown = [index for group in chosen.values() for index in group]
    assert sorted(shown) == list(range(7))
    assert chosen[WRONG] == [4, 2]


def test_none_can_be_asked_for():
    assert choose(PROBABILITIES, TRUTH, 0) == {RIGHT: [], WRONG: [], UNCERTAIN: []}
