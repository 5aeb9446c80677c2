"""Agreement of rankings, leaving one out, permuted attention, and distances of distributions."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance as oracle

from limelight import evaluate

pytestmark = pytest.mark.backend_free


def tau_b(first: np.ndarray, second: np.ndarray) -> float:
    """Return Kendall's tau-b by its definition: pairs in order less pairs out of order, over pairs that are not tied."""
    order = one = two = 0
    for i in range(len(first)):
        for j in range(i):
            a, b = np.sign(first[i] - first[j]), np.sign(second[i] - second[j])
            order, one, two = order + a * b, one + a * a, two + b * b
    return order / np.sqrt(one * two)


def test_agreement_is_the_mean_tau_with_ties_counted(random):
    first = [np.round(random.uniform(size=size), 1) for size in (5, 11, 17, 23)]
    second = [np.round(one + random.normal(0, 0.3, size=len(one)), 1) for one in first]
    found = evaluate.agreement(first, second)
    assert found.value == pytest.approx(np.mean([tau_b(a, b) for a, b in zip(first, second, strict=True)]))
    assert found.low < found.value < found.high
    assert found.n == 4


def test_constant_rankings_are_left_out_and_counted():
    found = evaluate.agreement([[1, 2, 3], [1, 1, 1], [1], [3, 2, 1]], [[1, 2, 3], [1, 2, 3], [1], [1, 2, 3]])
    assert found.value == 0.0
    assert found.n == 2
    assert found.method.endswith("2 of 4 examples without a tau left out")
    nothing = evaluate.agreement([[1, 1]], [[1, 2]])
    assert np.isnan(nothing.value)
    assert nothing.method == "undefined: every ranking is constant"


def test_rankings_of_other_tokens_are_errors():
    with pytest.raises(ValueError, match=r"Received: \(2,\) and \(3,\) in example 0"):
        evaluate.agreement([[1, 2]], [[1, 2, 3]])
    with pytest.raises(ValueError, match="Received: 1, 0"):
        evaluate.agreement([[1, 2]], [])


def test_leaving_one_out_by_hand():
    def predict(batch):
        share = np.array([0.1 + 0.1 * example.sum() for example in batch])
        return np.stack([1 - share, share], axis=1)

    examples = [np.array([1, 2, 3]), np.array([4]), np.array([0, 5])]
    deleted = evaluate.leave_one_out(predict, examples)
    assert [each.round(6).tolist() for each in deleted] == [[0.1, 0.2, 0.3], [0.4], [0.0, 0.5]]
    replaced = evaluate.leave_one_out(predict, examples, removal=evaluate.Replace(1))
    assert [each.round(6).tolist() for each in replaced] == [[0.0, 0.1, 0.2], [0.3], [0.1, 0.4]]


def test_permuted_attention_by_hand(random):
    """Two tokens: a permutation changes nothing or swaps; three classes; a model whose output is its attention."""

    def reweigh(example, weights):
        return np.hstack([weights, np.zeros((len(weights), 1))]) if example else weights @ np.full((2, 3), 1 / 3)

    found = evaluate.permutation_test(reweigh, [[0.9, 0.1], [0.9, 0.1]], permutations=101, seed=2)
    assert found[0] == pytest.approx(0)
    assert found[1] in (0.0, pytest.approx(0.8))
    asked = []
    evaluate.permutation_test(
        lambda example, weights: asked.append(weights) or np.ones((len(weights), 2)) / 2,
        [[0.5, 0.3, 0.2]],
        permutations=300,
    )
    assert np.array_equal(asked[0][0], [0.5, 0.3, 0.2])
    orders, counts = np.unique(asked[0][1:], axis=0, return_counts=True)
    assert len(orders) == 6
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_reweighing_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r"m = 101. Received: shape \(2, 2\)"):
        evaluate.permutation_test(lambda example, weights: np.eye(2), [[0.5, 0.5]])


def test_entropy_is_that_of_scipy(random):
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


def test_distances_of_distributions(random):
    first, second = random.dirichlet(np.ones(5), size=(2, 11))
    squared = [oracle.jensenshannon(a, b) ** 2 for a, b in zip(first, second, strict=True)]
    assert evaluate.jensen_shannon(first, second) == pytest.approx(squared)
    assert float(evaluate.jensen_shannon([1, 0], [0, 1])) == pytest.approx(np.log(2))
    assert float(evaluate.jensen_shannon(first[0], first[0])) == 0.0
    expected = [oracle.cityblock(a, b) / 2 for a, b in zip(first, second, strict=True)]
    assert evaluate.total_variation(first, second) == pytest.approx(expected)
