"""Agreement of rankings, and entropy and distances of distributions."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance as scipy_distance

from limelight import evaluate

pytestmark = pytest.mark.backend_free


def tau_b(first: np.ndarray, second: np.ndarray) -> float:
    """Return Kendall's tau-b by its definition: concordant minus discordant pairs, over pairs that are not tied."""
    concordance = first_untied = second_untied = 0
    for i in range(len(first)):
        for j in range(i):
            a, b = np.sign(first[i] - first[j]), np.sign(second[i] - second[j])
            concordance += a * b
            first_untied += a * a
            second_untied += b * b
    return concordance / np.sqrt(first_untied * second_untied)


def test_agreement_is_the_mean_tau_b(random):
    first = [np.round(random.uniform(size=size), 1) for size in (5, 11, 17, 23)]
    second = [np.round(scores + random.normal(0, 0.3, size=len(scores)), 1) for scores in first]
    estimate = evaluate.agreement(first, second)
    assert estimate.value == pytest.approx(np.mean([tau_b(a, b) for a, b in zip(first, second, strict=True)]))
    assert estimate.low < estimate.value < estimate.high
    assert estimate.n == 4


def test_the_interval_of_tau_stays_within_its_range():
    estimate = evaluate.agreement([[1, 2, 3]] * 4, [[1, 2, 3], [1, 3, 2], [3, 2, 1], [1, 2, 3]])
    taus = [1, 1 / 3, -1, 1]
    half = stats.t.ppf(0.975, 3) * stats.sem(taus)
    assert np.mean(taus) - half < -1
    assert np.mean(taus) + half > 1
    assert (estimate.value, estimate.low, estimate.high) == (pytest.approx(1 / 3), -1, 1)
    equal = evaluate.agreement([[1, 2, 3]] * 2, [[1, 2, 3]] * 2)
    others = stats.norm.ppf(0.975) ** 2 / (2 + stats.norm.ppf(0.975) ** 2)
    assert (equal.value, equal.low, equal.high) == (1, pytest.approx(1 - 2 * others), 1)


def test_constant_rankings_are_excluded():
    estimate = evaluate.agreement([[1, 2, 3], [1, 1, 1], [1], [3, 2, 1]], [[1, 2, 3], [1, 2, 3], [1], [1, 2, 3]])
    assert estimate.value == 0.0
    assert estimate.n == 2
    assert estimate.method.endswith("2 of 4 examples without a tau left out")
    undefined = evaluate.agreement([[1, 1]], [[1, 2]])
    assert np.isnan(undefined.value)
    assert undefined.method == "undefined: every ranking is constant"


def test_rankings_of_different_tokens_raise():
    with pytest.raises(ValueError, match=r"Received: \(2,\) and \(3,\) in example 0"):
        evaluate.agreement([[1, 2]], [[1, 2, 3]])
    with pytest.raises(ValueError, match="Received: 1, 0"):
        evaluate.agreement([[1, 2]], [])


def test_tokens_without_a_score_have_no_rank():
    first, second = [np.nan, 0.3, 0.1, 0.2, 0.9], [0.9, 3.0, np.nan, 5.0, 1.0]
    assert evaluate.agreement([first], [second]).value == pytest.approx(
        tau_b(np.array([0.3, 0.2, 0.9]), np.array([3, 5, 1]))
    )


def test_entropy_equals_scipy(random):
    weights = random.dirichlet(np.ones(7), size=(2, 3))
    weights[0, 0] = np.eye(7)[2]
    assert evaluate.entropy(weights) == pytest.approx(stats.entropy(weights, axis=-1))
    assert evaluate.entropy(weights, normalized=True) == pytest.approx(stats.entropy(weights, axis=-1) / np.log(7))
    padded = np.zeros((2, 5))
    padded[0, :3], padded[1, :1] = 1 / 3, 1
    assert evaluate.entropy(padded, normalized=True, counts=[3, 1]) == pytest.approx([1, 0])
    assert evaluate.entropy(np.zeros(5)).tolist() == 0


def test_distance_by_hand():
    weights = np.zeros((2, 5))
    weights[0, 4], weights[1, [0, 2]] = 1.0, 0.5
    assert evaluate.distance(weights).tolist() == [4, 1]
    assert evaluate.distance(weights, shift=3).tolist() == [1, 3]


def test_distances_equal_scipy(random):
    first, second = random.dirichlet(np.ones(5), size=(2, 11))
    squared = [scipy_distance.jensenshannon(a, b) ** 2 for a, b in zip(first, second, strict=True)]
    assert evaluate.jensen_shannon(first, second) == pytest.approx(squared)
    assert float(evaluate.jensen_shannon([1, 0], [0, 1])) == pytest.approx(np.log(2))
    assert float(evaluate.jensen_shannon(first[0], first[0])) == 0.0
    expected = [scipy_distance.cityblock(a, b) / 2 for a, b in zip(first, second, strict=True)]
    assert evaluate.total_variation(first, second) == pytest.approx(expected)
