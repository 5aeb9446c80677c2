"""Agreement of rankings with marked tokens, by hand and against scikit-learn."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, f1_score

from limelight import evaluate

pytestmark = pytest.mark.backend_free


def test_measures_by_hand():
    marks = [[False, True, True, False, False, False], [True, False, False, False, True, False]]
    # A third of the tokens is marked, so that two are chosen: 1 and 2 of the first example, 0 and 1 of the second.
    scores = [[0.1, 0.9, 0.8, 0.3, 0.0, 0.2], [0.9, 0.8, 0.1, 0.0, 0.2, 0.3]]
    result = evaluate.plausibility({"a": scores}, marks, resamples=100)["a"]
    assert result["token_f1"].value == pytest.approx((1 + 0.5) / 2)
    # The span (0, 2) covers the marked (0, 1) by one half; the marked (4, 5) is not found: one of one and two spans.
    assert result["iou_f1"].value == pytest.approx((1 + 2 / 3) / 2)
    assert result["auprc"].value == pytest.approx((1 + average_precision_score(marks[1], scores[1])) / 2)
    assert result["auprc"].n == 2


def test_measures_of_random_rankings(random):
    marks = [random.uniform(size=size) < 0.3 for size in (11, 7, 13, 5, 17)]
    marks[3][:] = False  # an example without a mark does not count
    scores = [random.normal(size=len(each)) for each in marks]
    result = evaluate.plausibility({"a": scores}, marks, resamples=100)["a"]
    counted = [index for index in range(5) if marks[index].any()]
    share = np.mean([marks[index].mean() for index in counted])
    expected = []
    for index in counted:
        chosen = np.zeros(len(scores[index]), bool)
        chosen[np.argsort(-scores[index])[: int(np.ceil(share * len(scores[index])))]] = True
        expected.append(f1_score(marks[index], chosen))
    assert result["token_f1"].value == pytest.approx(np.mean(expected))
    aps = [average_precision_score(marks[index], scores[index]) for index in counted]
    assert result["auprc"].value == pytest.approx(np.mean(aps))


def test_random_orders_stand_beside_the_rankings():
    marks = [np.array([False, True, False, True, False]), np.array([True, False, False, False])]
    scores = [[0.1, 0.9, np.nan, 0.8, 0.3], [0.4, 0.1, 0.2, 0.3]]
    result = evaluate.plausibility({"a": scores}, marks, draws=600, resamples=100)
    # The token without a score is never chosen: four tokens of each example, of which two and one are marked.
    truths = [[False, True, True, False], marks[1]]
    expected = [
        np.mean([average_precision_score(truth, order) for order in itertools.permutations(range(4))])
        for truth in truths
    ]
    assert result["random"]["auprc"].value == pytest.approx(np.mean(expected), abs=0.02)
    # 3 of 8 tokens are marked, so that two are chosen: on average 1 of them is right in the first example, 0.5 in the second.
    assert result["random"]["token_f1"].value == pytest.approx((2 * 1 / 4 + 2 * 0.5 / 3) / 2, abs=0.02)
    alone = evaluate.plausibility({"a": scores}, marks, draws=0, resamples=100)
    assert alone == {"a": result["a"]}
    own = evaluate.plausibility({"random": scores}, marks, resamples=100)
    assert own["random"]["auprc"] == result["a"]["auprc"]


def test_mistakes():
    with pytest.raises(ValueError, match=r"must mark a token of at least one example\. Received: none"):
        evaluate.plausibility({"a": [[1.0, 2.0]]}, [[False, False]])
    with pytest.raises(
        ValueError, match=r"'a' must have a score for each token of `marks`\. Received: shapes \(3,\) and \(2,\)"
    ):
        evaluate.plausibility({"a": [[1.0, 2.0, 3.0]]}, [[False, True]])


def test_intervals_stay_within_0_and_1():
    marks = [[True, False, False]] * 3
    estimates = evaluate.plausibility({"attention": [[3, 2, 1], [3, 2, 1], [2, 3, 1]]}, marks, draws=0)["attention"]
    assert estimates["auprc"].value == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert estimates["auprc"].low == pytest.approx(5 / 6 - stats.t.ppf(0.975, 2) * stats.sem([1, 1, 0.5]))
    assert {name: estimate.high for name, estimate in estimates.items()} == dict.fromkeys(estimates, 1)
    assert estimates["token_f1"].low == 0
    equal = evaluate.plausibility({"attention": [[3, 2, 1]] * 3}, marks, draws=0)["attention"]["auprc"]
    z2 = stats.norm.ppf(0.975) ** 2
    assert (equal.low, equal.high) == (pytest.approx(3 / (3 + z2)), 1)


def test_tokens_without_a_score_are_left_out():
    scores, marks = [[0.1, 0.9, 0.8, 0.3]], [[False, True, False, True]]
    expected = evaluate.plausibility({"a": scores}, marks, resamples=100)["a"]
    around = [[np.nan, *scores[0], np.nan]], [[True, *marks[0], False]]
    result = evaluate.plausibility({"a": around[0]}, around[1], resamples=100)["a"]
    assert {name: each.value for name, each in result.items()} == {name: each.value for name, each in expected.items()}
