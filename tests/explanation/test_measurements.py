"""Estimates over examples of an explanation."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from limelight.explanation.measurements import _bound_distances, _mean, _share

STATISTICS = {"resamples": 100, "seed": 0}


@pytest.mark.parametrize("rows", [[[1, 1], [1, 1]], [[1, 0], [1, 1], [0, 0]], [[0, 0], [0, 0], [0, 0]]])
def test_a_share_of_groups_has_the_interval_of_as_many_trials(rows):
    shares = np.mean(rows, axis=1)
    subject = SimpleNamespace(groups=np.repeat(np.arange(len(rows)), 2))
    estimate = _share(np.ravel(rows).astype(bool), subject)
    expected = proportion_confint(shares.sum(), len(rows), method="wilson")
    assert estimate.value == pytest.approx(shares.mean())
    assert (estimate.low, estimate.high) == pytest.approx(expected)
    assert estimate.high - estimate.low > 0.5
    assert (estimate.n, estimate.method) == (len(rows), "Wilson, with groups as trials")
    single = _share(np.ravel(rows).astype(bool), SimpleNamespace(groups=None))
    assert (single.n, single.method) == (2 * len(rows), "Wilson")


@pytest.mark.parametrize(("output", "largest"), [("probabilities", 1.0), ("values", math.inf)])
def test_a_mean_distance_is_never_negative(output, largest):
    subject = SimpleNamespace(groups=[0, 0, 1, 2], output=output)
    estimate = _mean(np.array([0.0, 0.0, 0.0, 0.9]), _bound_distances(subject), subject, STATISTICS)
    # t with 2 degrees of freedom of the means 0, 0 and .9 of groups.
    high = 0.3 + 4.30265273 * 0.3
    assert (estimate.value, estimate.low) == (pytest.approx(0.3), 0)
    assert estimate.high == pytest.approx(min(high, largest))
