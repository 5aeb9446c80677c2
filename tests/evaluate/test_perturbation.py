"""Leave-one-out and permuted attention."""

import numpy as np
import pytest
from scipy import stats

from limelight import evaluate

pytestmark = pytest.mark.backend_free


def test_leave_one_out_by_hand():
    def predict(batch):
        positive = np.array([0.1 + 0.1 * example.sum() for example in batch])
        return np.stack([1 - positive, positive], axis=1)

    examples = [np.array([1, 2, 3]), np.array([4]), np.array([0, 5])]
    deleted = evaluate.leave_one_out(predict, examples)
    assert [each.round(6).tolist() for each in deleted] == [[0.1, 0.2, 0.3], [0.4], [0.0, 0.5]]
    replaced = evaluate.leave_one_out(predict, examples, perturbation=evaluate.Replace(1))
    assert [each.round(6).tolist() for each in replaced] == [[0.0, 0.1, 0.2], [0.3], [0.1, 0.4]]


def test_occlusion_and_signed_changes_by_hand():
    def predict(batch):
        positive = np.array([0.1 + 0.1 * example.sum() for example in batch])
        return np.stack([1 - positive, positive], axis=1)

    example = [np.array([1, 2, 3])]
    # Windows of two: 1, 12, 23, 3, each token in two of them.
    occluded = evaluate.leave_one_out(predict, example, width=2, perturbation=evaluate.Replace(0))[0]
    np.testing.assert_allclose(occluded, [(0.1 + 0.3) / 2, (0.3 + 0.5) / 2, (0.5 + 0.3) / 2])
    signed = evaluate.leave_one_out(predict, [np.array([2, -1, 4])], signed=True, perturbation=evaluate.Replace(0))[0]
    np.testing.assert_allclose(signed, [0.2, -0.1, 0.4])
    with pytest.raises(ValueError, match=r"`width` must be at least 1.*Received: width=0"):
        evaluate.leave_one_out(predict, example, width=0)


def test_permutation_test_of_heads_and_values():
    received = []

    def predict_with_attention(example, weights):
        received.append(weights)
        return weights[:, 0, 0, :1] * 2

    attention = [np.array([[[0.9, 0.1]], [[0.3, 0.7]]])]
    medians = evaluate.permutation_test(predict_with_attention, attention, permutations=51, output="values", seed=2)
    assert received[0].shape == (52, 2, 1, 2)
    # Each head is permuted on its own.
    assert len({tuple(row.ravel()) for row in received[0]}) == 4
    assert medians[0] in (0.0, pytest.approx(1.6))


def test_permutation_test_by_hand(random):
    """A permutation of two tokens is the identity or a swap; the model returns its attention as probabilities."""

    def predict_with_attention(example, weights):
        return np.hstack([weights, np.zeros((len(weights), 1))]) if example else weights @ np.full((2, 3), 1 / 3)

    medians = evaluate.permutation_test(predict_with_attention, [[0.9, 0.1], [0.9, 0.1]], permutations=101, seed=2)
    assert medians[0] == pytest.approx(0)
    assert medians[1] in (0.0, pytest.approx(0.8))
    received = []
    evaluate.permutation_test(
        lambda example, weights: received.append(weights) or np.ones((len(weights), 2)) / 2,
        [[0.5, 0.3, 0.2]],
        permutations=300,
    )
    assert np.array_equal(received[0][0], [0.5, 0.3, 0.2])
    orders, counts = np.unique(received[0][1:], axis=0, return_counts=True)
    assert len(orders) == 6
    assert stats.chisquare(counts).pvalue > 1e-3


def test_permuted_weights_stay_where_they_may_be():
    received = []
    attention = [np.array([[0.5, 0.3, 0.0, 0.2], [0.9, 0.0, 0.1, 0.0]])]
    permitted = [np.array([[True, True, False, True], [True, False, True, False]])]
    evaluate.permutation_test(
        lambda example, weights: received.append(weights) or np.ones((len(weights), 2)) / 2,
        attention, permitted=permitted, permutations=200,
    )  # fmt: skip
    first, second = received[0][:, 0], received[0][:, 1]
    assert not received[0][:, ~permitted[0]].any()
    assert len(np.unique(first, axis=0)) == 6
    assert len(np.unique(second, axis=0)) == 2
    assert np.allclose(np.sort(first, axis=1), [0.0, 0.2, 0.3, 0.5])


def test_permutation_test_checks_the_shape_of_predictions():
    with pytest.raises(ValueError, match=r"m = 101. Received: shape \(2, 2\)"):
        evaluate.permutation_test(lambda example, weights: np.eye(2), [[0.5, 0.5]])
