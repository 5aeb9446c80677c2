"""Metrics against scikit-learn."""

import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as oracle

from limelight import evaluate
from limelight.evaluate.metrics import classification_statistics

pytestmark = pytest.mark.backend_free


def simulated(random: np.random.Generator, n: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and probabilities that know something of it, with ties."""
    truth = random.integers(classes, size=n)
    logits = np.round(random.normal(size=(n, classes)), 1)
    logits[np.arange(n), truth] += 1.0
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return truth, probabilities


@pytest.mark.parametrize("classes", [2, 5])
def test_every_metric_is_that_of_scikit_learn(random, classes):
    truth, probabilities = simulated(random, 211, classes)
    names = [f"class {k}" for k in range(classes)]
    result = evaluate.classification(truth, probabilities, names, resamples=100)
    predicted = probabilities.argmax(1)
    expected = {
        "accuracy": oracle.accuracy_score(truth, predicted),
        "log_loss": oracle.log_loss(truth, probabilities),
        "brier": oracle.brier_score_loss(truth, probabilities if classes > 2 else probabilities[:, 1]),
    }
    for average in ("macro", "weighted"):
        scores = oracle.precision_recall_fscore_support(truth, predicted, average=average)
        expected |= {f"{k}_{average}": v for k, v in zip(("precision", "recall", "f1"), scores[:3], strict=True)}
    if classes == 2:
        expected["roc_auc"] = oracle.roc_auc_score(truth, probabilities[:, 1])
        expected["average_precision"] = oracle.average_precision_score(truth, probabilities[:, 1])
    else:
        one_hot = np.eye(classes)[truth]
        expected["roc_auc"] = oracle.roc_auc_score(truth, probabilities, multi_class="ovr")
        expected["average_precision"] = oracle.average_precision_score(one_hot, probabilities)
    found = {name: result[name].value for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)
    assert np.array_equal(result.confusion, oracle.confusion_matrix(truth, predicted))
    scores = oracle.precision_recall_fscore_support(truth, predicted)
    for row, name in enumerate(names):
        ours = [result.per_class[name][metric].value for metric in ("precision", "recall", "f1")]
        assert ours == pytest.approx([score[row] for score in scores[:3]])
        assert result.support[row] == scores[3][row]


def test_a_result_is_ready_for_json(random):
    truth, probabilities = simulated(random, 53, 3)
    result = evaluate.classification(truth, probabilities, ["a", "b", "c"], resamples=100)
    kept = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert kept["metrics"]["accuracy"]["value"] == result["accuracy"].value
    assert kept["confusion"] == result.confusion.tolist()


def test_weighted_metrics_are_those_of_repeated_examples(random):
    """What the bootstrap computes with counts is what scikit-learn computes of the drawn examples."""
    truth, probabilities = simulated(random, 97, 3)
    statistics = classification_statistics(truth, probabilities, 1e-15)
    counts = random.multinomial(97, np.ones(97) / 97, size=5).astype(float)
    found = statistics(counts)
    for row, count in enumerate(counts.astype(int)):
        drawn_truth, drawn = np.repeat(truth, count), np.repeat(probabilities, count, axis=0)
        predicted, one_hot = drawn.argmax(1), np.eye(3)[drawn_truth]
        expected = {
            "accuracy": oracle.accuracy_score(drawn_truth, predicted),
            "f1_macro": oracle.f1_score(drawn_truth, predicted, average="macro"),
            "f1_weighted": oracle.f1_score(drawn_truth, predicted, average="weighted"),
            "roc_auc": oracle.roc_auc_score(drawn_truth, drawn, multi_class="ovr"),
            "average_precision": oracle.average_precision_score(one_hot, drawn),
            "log_loss": oracle.log_loss(drawn_truth, drawn),
        }
        assert {name: found[name][row] for name in expected} == pytest.approx(expected, abs=1e-12)
        precision = oracle.precision_score(drawn_truth, predicted, average=None, labels=[0, 1, 2])
        assert found["precision"][row] == pytest.approx(precision)


def area(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the share of pairs of a positive and a negative that are in order, ties half."""
    apart = scores[truth == 1][:, None] - scores[truth == 0]
    return float(((apart > 0) + (apart == 0) / 2).mean())


def test_intervals_are_near_those_of_scipy(random):
    truth, probabilities = simulated(random, 151, 2)
    result = evaluate.classification(truth, probabilities, ["no", "yes"], resamples=2000)
    assert result["roc_auc"].value == pytest.approx(area(truth, probabilities[:, 1]))
    expected = stats.bootstrap(
        (truth, probabilities[:, 1]), area, paired=True, vectorized=False, n_resamples=2000, random_state=1
    )
    found = result["roc_auc"]
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.01)
    assert found.method == "BCa bootstrap, 2000 resamples"
    assert result["accuracy"].method == "Wilson"
    assert found.n == 151


def test_calibration_by_hand():
    """Four examples in bins of their own confidence: gaps 0.9-1, 0.8-0, 0.7-1 and 0.6-1."""
    result = evaluate.classification([1, 0, 1, 1], [0.9, 0.8, 0.7, 0.6], ["no", "yes"], resamples=100)
    assert result["calibration_error"].value == pytest.approx((0.1 + 0.8 + 0.3 + 0.4) / 4)
    assert result.reliability.confidence == pytest.approx([0.6, 0.7, 0.8, 0.9])
    assert result.reliability.accuracy.tolist() == [1, 1, 0, 1]


def test_bins_hold_the_same_number_of_examples(random):
    truth, probabilities = simulated(random, 301, 2)
    probabilities = random.dirichlet([1, 1], size=301)
    curve = evaluate.classification(truth, probabilities, ["no", "yes"], resamples=100).reliability
    assert curve.count.sum() == 301
    assert len(curve.count) == 15
    assert set(curve.count) == {20, 21}
    order = np.argsort(probabilities.max(1))
    lowest = order[: curve.count[0]]
    assert curve.confidence[0] == pytest.approx(probabilities.max(1)[lowest].mean())
    assert curve.accuracy[0] == pytest.approx((probabilities.argmax(1) == truth)[lowest].mean())


def test_equal_confidences_share_a_bin():
    result = evaluate.classification([1] * 30 + [0] * 10, [0.75] * 40, ["no", "yes"], resamples=100)
    assert result.reliability.count.tolist() == [40]
    assert result["calibration_error"].value == 0.0


def test_a_class_that_does_not_occur_is_left_out_of_macro_means(random):
    truth, probabilities = simulated(random, 83, 4)
    truth[truth == 2] = 1
    result = evaluate.classification(truth, probabilities, list("abcd"), resamples=100)
    predicted = probabilities.argmax(1)
    expected = oracle.precision_recall_fscore_support(truth, predicted, labels=[0, 1, 3], average="macro")[:3]
    assert [result[f"{name}_macro"].value for name in ("precision", "recall", "f1")] == pytest.approx(expected)
    absent = result.per_class["c"]
    assert absent["precision"].value == 0.0
    assert math.isnan(absent["recall"].value)
    assert absent["recall"].to_dict()["value"] is None
    areas = [oracle.roc_auc_score(truth == k, probabilities[:, k]) for k in (0, 1, 3)]
    assert result["roc_auc"].value == pytest.approx(np.mean(areas))


def test_a_test_part_of_one_class_has_no_ranking(random):
    result = evaluate.classification([1] * 7, random.uniform(size=7), ["no", "yes"], resamples=100)
    assert math.isnan(result["roc_auc"].value)
    assert result["roc_auc"].method == "undefined on these examples"
    assert 0 <= result["accuracy"].value <= 1
    json.dumps(result.to_dict(), allow_nan=False)


def test_one_example_has_values_and_no_intervals():
    result = evaluate.classification([1], [0.9], ["no", "yes"], resamples=100)
    assert result["log_loss"].value == pytest.approx(-np.log(0.9))
    assert result["log_loss"].low is None
    assert result["log_loss"].method == "one example"


def test_truth_can_be_names_and_probabilities_of_the_second_class(random):
    truth, probabilities = simulated(random, 61, 2)
    names = ["bad", "good"]
    forms = [
        (truth, probabilities),
        (np.array(names)[truth], probabilities[:, 1]),
        (np.array(names, dtype=object)[truth].tolist(), probabilities[:, 1:]),
        (truth.astype(bool), probabilities),
        (truth[:, None], probabilities),
    ]
    found = [evaluate.classification(*form, names, resamples=100).to_dict()["metrics"]["log_loss"] for form in forms]
    assert [each["value"] for each in found] == pytest.approx([found[0]["value"]] * 5)


def test_a_certain_mistake_costs_what_scikit_learn_says():
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5]], dtype=np.float32)
    found = evaluate.classification([1, 0], probabilities, ["no", "yes"], resamples=100)["log_loss"].value
    assert found == pytest.approx(oracle.log_loss([1, 0], probabilities), rel=1e-6)


@pytest.mark.parametrize(
    ("truth", "probabilities", "classes", "message"),
    [
        ([0, 1], [[0.5, 0.5]], "ab", r"one row for each of 2 examples.*shape \(1, 2\)"),
        ([0, 1], [[0.2, 0.3, 0.5]] * 2, "ab", r"one column for each of 2 classes.*shape \(2, 3\)"),
        ([0, 1], [[0.5, 0.5], [np.nan, 0.5]], "ab", "1 of 2 rows with NaN or infinity, the first is row 1"),
        ([0, 1], [[2.0, -1.0]] * 2, "ab", "between 0 and 1. Received: -1 to 2. Apply softmax"),
        ([0, 1], [[0.9, 0.8]] * 2, "ab", "must sum to 1. Received: row 0 sums to 1.7"),
        ([0, 2], [[0.5, 0.5]] * 2, "ab", "indices from 0 to 1.*Received: 0 to 2"),
        ([0.5, 1], [[0.5, 0.5]] * 2, "ab", "class indices or names"),
        ([np.nan, 1], [[0.5, 0.5]] * 2, "ab", "class indices or names"),
        (["a", "z"], [[0.5, 0.5]] * 2, "ab", r"names out of `classes` \['a', 'b'\]. Received also: \['z'\]"),
        ([], np.zeros((0, 2)), "ab", r"one class for each example.*Received: \(0,\)"),
        ([0], [[1.0]], "a", "two or more different names"),
        ([0], [[0.5, 0.5]], "aa", "two or more different names"),
        ([0, 1], [["x", "y"]] * 2, "ab", "must be numbers"),
    ],
)
def test_what_is_no_prediction_is_an_error(truth, probabilities, classes, message):
    with pytest.raises(ValueError, match=message):
        evaluate.classification(truth, probabilities, classes)


def test_rounding_of_half_precision_is_no_error(random):
    probabilities = random.dirichlet(np.ones(5), size=67).astype(np.float16)
    result = evaluate.classification(random.integers(5, size=67), probabilities, list("abcde"), resamples=100)
    assert np.isfinite(result["log_loss"].value)


def test_regression_is_that_of_scikit_learn(random):
    truth = random.normal(3, size=(89, 2))
    prediction = truth + random.normal(size=(89, 2))
    result = evaluate.regression(truth, prediction, resamples=200)
    expected = {
        "mse": oracle.mean_squared_error(truth, prediction),
        "rmse": oracle.root_mean_squared_error(truth.ravel(), prediction.ravel()),
        "mae": oracle.mean_absolute_error(truth, prediction),
        "mape": oracle.mean_absolute_percentage_error(truth, prediction),
        "r2": oracle.r2_score(truth.ravel(), prediction.ravel()),
    }
    assert {name: result[name].value for name in expected} == pytest.approx(expected)
    assert all(result[name].low < expected[name] < result[name].high for name in expected)
    json.dumps(result.to_dict(), allow_nan=False)


def test_an_undefined_share_or_r2_says_so():
    result = evaluate.regression([0.0, 0.0, 0.0], [1.0, 2.0, 3.0], resamples=100)
    assert result["mape"].method == "undefined: a true value is 0"
    assert math.isnan(result["r2"].value)
    assert result["mae"].value == 2.0


def test_r2_of_large_numbers_that_vary_little_is_defined(random):
    truth = 1e8 + random.normal(size=101)
    prediction = truth + 0.1 * random.normal(size=101)
    assert evaluate.regression(truth, prediction)["r2"].value == pytest.approx(
        oracle.r2_score(truth, prediction), rel=1e-6
    )


@pytest.mark.parametrize(("truth", "prediction", "message"), [
    ([1.0, 2.0], [1.0], r"one shape .*Received: \(2,\) and \(1,\)"),
    ([], [], r"n > 0. Received: \(0,\)"),
    ([1.0, np.inf], [1.0, 1.0], "`truth` must be finite. Received: 1 NaN or infinite of 2"),
    ([1.0, 1.0], [1.0, np.nan], "`prediction` must be finite"),
])  # fmt: skip
def test_what_is_no_regression_is_an_error(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        evaluate.regression(truth, prediction)


@pytest.mark.parametrize("truth", [[1, 1, 1], [0, 0, 0]])
def test_ranking_is_undefined_where_there_is_one_class(truth):
    found = evaluate.classification(truth, [0.2, 0.6, 0.7], ["no", "yes"])
    for metric in ("roc_auc", "average_precision"):
        assert math.isnan(found[metric].value)
        assert found[metric].low is None
