"""Metrics compared with scikit-learn."""

import contextlib
import json
import math

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter
from sklearn import metrics as sklearn_metrics

from limelight import evaluate
from limelight.evaluate.metrics import classification_statistics

pytestmark = pytest.mark.backend_free


def simulate(random: np.random.Generator, n: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return true classes and y_proba that are correlated with them, with ties."""
    y_true = random.integers(classes, size=n)
    logits = np.round(random.normal(size=(n, classes)), 1)
    logits[np.arange(n), y_true] += 1.0
    y_proba = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return y_true, y_proba


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_equal_scikit_learn(random, classes):
    y_true, y_proba = simulate(random, 211, classes)
    names = [f"class {k}" for k in range(classes)]
    result = evaluate.classification(y_true, y_proba, names, resamples=100)
    predicted = y_proba.argmax(1)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(y_true, predicted),
        "log_loss": sklearn_metrics.log_loss(y_true, y_proba),
        "brier": sklearn_metrics.brier_score_loss(y_true, y_proba if classes > 2 else y_proba[:, 1]),
    }
    for average in ("macro", "weighted"):
        scores = sklearn_metrics.precision_recall_fscore_support(y_true, predicted, average=average)
        expected |= {f"{k}_{average}": v for k, v in zip(("precision", "recall", "f1"), scores[:3], strict=True)}
    if classes == 2:
        expected["roc_auc"] = sklearn_metrics.roc_auc_score(y_true, y_proba[:, 1])
        expected["average_precision"] = sklearn_metrics.average_precision_score(y_true, y_proba[:, 1])
    else:
        one_hot = np.eye(classes)[y_true]
        expected["roc_auc"] = sklearn_metrics.roc_auc_score(y_true, y_proba, multi_class="ovr")
        expected["average_precision"] = sklearn_metrics.average_precision_score(one_hot, y_proba)
    found = {name: result[name].value for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)
    assert np.array_equal(result.confusion, sklearn_metrics.confusion_matrix(y_true, predicted))
    scores = sklearn_metrics.precision_recall_fscore_support(y_true, predicted)
    for row, name in enumerate(names):
        ours = [result.per_class[name][metric].value for metric in ("precision", "recall", "f1")]
        assert ours == pytest.approx([score[row] for score in scores[:3]])
        assert result.support[row] == scores[3][row]


def test_result_is_json_serializable(random):
    y_true, y_proba = simulate(random, 53, 3)
    result = evaluate.classification(y_true, y_proba, ["a", "b", "c"], resamples=100)
    stored = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert stored["metrics"]["accuracy"]["value"] == result["accuracy"].value
    assert stored["confusion"] == result.confusion.tolist()


def test_weighted_metrics_equal_those_of_repeated_examples(random):
    """Metrics with counts as weights equal those that scikit-learn computes from the resampled examples."""
    y_true, y_proba = simulate(random, 97, 3)
    statistics = classification_statistics(y_true, y_proba, 1e-15)
    counts = random.multinomial(97, np.ones(97) / 97, size=5).astype(float)
    found = statistics(counts)
    for row, count in enumerate(counts.astype(int)):
        resampled_true, resampled_proba = np.repeat(y_true, count), np.repeat(y_proba, count, axis=0)
        predicted, one_hot = resampled_proba.argmax(1), np.eye(3)[resampled_true]
        expected = {
            "accuracy": sklearn_metrics.accuracy_score(resampled_true, predicted),
            "f1_macro": sklearn_metrics.f1_score(resampled_true, predicted, average="macro"),
            "f1_weighted": sklearn_metrics.f1_score(resampled_true, predicted, average="weighted"),
            "roc_auc": sklearn_metrics.roc_auc_score(resampled_true, resampled_proba, multi_class="ovr"),
            "average_precision": sklearn_metrics.average_precision_score(one_hot, resampled_proba),
            "log_loss": sklearn_metrics.log_loss(resampled_true, resampled_proba),
        }
        assert {name: found[name][row] for name in expected} == pytest.approx(expected, abs=1e-12)
        precision = sklearn_metrics.precision_score(resampled_true, predicted, average=None, labels=[0, 1, 2])
        assert found["precision"][row] == pytest.approx(precision)


def pairwise_auc(y_true: np.ndarray, scores: np.ndarray) -> float:
    """Return the fraction of pairs of a positive and a negative that are ordered correctly; ties count half."""
    differences = scores[y_true == 1][:, None] - scores[y_true == 0]
    return float(((differences > 0) + (differences == 0) / 2).mean())


def test_intervals_are_close_to_scipy(random):
    y_true, y_proba = simulate(random, 151, 2)
    result = evaluate.classification(y_true, y_proba, ["no", "yes"], resamples=2000)
    assert result["roc_auc"].value == pytest.approx(pairwise_auc(y_true, y_proba[:, 1]))
    expected = stats.bootstrap(
        (y_true, y_proba[:, 1]), pairwise_auc, paired=True, vectorized=False, n_resamples=2000, random_state=1
    )
    found = result["roc_auc"]
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.01)
    assert found.method == "BCa bootstrap, 2000 resamples"
    assert result["accuracy"].method == "Wilson"
    assert found.n == 151


def test_calibration_error_by_hand():
    """Four examples in bins of their own confidence: gaps 0.9-1, 0.8-0, 0.7-1 and 0.6-1."""
    result = evaluate.classification([1, 0, 1, 1], [0.9, 0.8, 0.7, 0.6], ["no", "yes"], resamples=100)
    assert result["calibration_error"].value == pytest.approx((0.1 + 0.8 + 0.3 + 0.4) / 4)
    assert result.reliability.confidence == pytest.approx([0.6, 0.7, 0.8, 0.9])
    assert result.reliability.accuracy.tolist() == [1, 1, 0, 1]


def test_bins_have_equal_mass(random):
    y_true, y_proba = simulate(random, 301, 2)
    y_proba = random.dirichlet([1, 1], size=301)
    curve = evaluate.classification(y_true, y_proba, ["no", "yes"], resamples=100).reliability
    assert curve.count.sum() == 301
    assert len(curve.count) == 15
    assert set(curve.count) == {20, 21}
    order = np.argsort(y_proba.max(1))
    lowest = order[: curve.count[0]]
    assert curve.confidence[0] == pytest.approx(y_proba.max(1)[lowest].mean())
    assert curve.accuracy[0] == pytest.approx((y_proba.argmax(1) == y_true)[lowest].mean())


def test_equal_confidences_share_a_bin():
    result = evaluate.classification([1] * 30 + [0] * 10, [0.75] * 40, ["no", "yes"], resamples=100)
    assert result.reliability.count.tolist() == [40]
    assert result["calibration_error"].value == 0.0


def test_macro_means_exclude_absent_classes(random):
    y_true, y_proba = simulate(random, 83, 4)
    y_true[y_true == 2] = 1
    result = evaluate.classification(y_true, y_proba, list("abcd"), resamples=100)
    predicted = y_proba.argmax(1)
    expected = sklearn_metrics.precision_recall_fscore_support(y_true, predicted, labels=[0, 1, 3], average="macro")[:3]
    assert [result[f"{name}_macro"].value for name in ("precision", "recall", "f1")] == pytest.approx(expected)
    absent = result.per_class["c"]
    assert absent["precision"].value == 0.0
    assert math.isnan(absent["recall"].value)
    assert absent["recall"].to_dict()["value"] is None
    areas = [sklearn_metrics.roc_auc_score(y_true == k, y_proba[:, k]) for k in (0, 1, 3)]
    assert result["roc_auc"].value == pytest.approx(np.mean(areas))


def test_ranking_metrics_of_one_class_are_undefined(random):
    result = evaluate.classification([1] * 7, random.uniform(size=7), ["no", "yes"], resamples=100)
    assert math.isnan(result["roc_auc"].value)
    assert result["roc_auc"].method == "undefined on these examples"
    assert 0 <= result["accuracy"].value <= 1
    json.dumps(result.to_dict(), allow_nan=False)


def test_one_example_has_no_intervals():
    result = evaluate.classification([1], [0.9], ["no", "yes"], resamples=100)
    assert result["log_loss"].value == pytest.approx(-np.log(0.9))
    assert result["log_loss"].low is None
    assert result["log_loss"].method == "one example"


def test_accepted_forms_of_labels_and_probabilities(random):
    y_true, y_proba = simulate(random, 61, 2)
    names = ["bad", "good"]
    forms = [
        (y_true, y_proba),
        (np.array(names)[y_true], y_proba[:, 1]),
        (np.array(names, dtype=object)[y_true].tolist(), y_proba[:, 1:]),
        (y_true.astype(bool), y_proba),
        (y_true[:, None], y_proba),
    ]
    found = [evaluate.classification(*form, names, resamples=100).to_dict()["metrics"]["log_loss"] for form in forms]
    assert [each["value"] for each in found] == pytest.approx([found[0]["value"]] * 5)


def test_log_loss_of_a_certain_mistake_equals_scikit_learn():
    y_proba = np.array([[1.0, 0.0], [0.5, 0.5]], dtype=np.float32)
    found = evaluate.classification([1, 0], y_proba, ["no", "yes"], resamples=100)["log_loss"].value
    assert found == pytest.approx(sklearn_metrics.log_loss([1, 0], y_proba), rel=1e-6)


@pytest.mark.parametrize(
    ("y_true", "y_proba", "classes", "message"),
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
def test_invalid_predictions_raise(y_true, y_proba, classes, message):
    with pytest.raises(ValueError, match=message):
        evaluate.classification(y_true, y_proba, classes)


def test_float16_rounding_is_accepted(random):
    y_proba = random.dirichlet(np.ones(5), size=67).astype(np.float16)
    result = evaluate.classification(random.integers(5, size=67), y_proba, list("abcde"), resamples=100)
    assert np.isfinite(result["log_loss"].value)


def test_regression_equals_scikit_learn(random):
    y_true = random.normal([3, 30], size=(89, 2))
    y_pred = y_true + random.normal(size=(89, 2))
    result = evaluate.regression(y_true, y_pred, resamples=200)
    expected = {
        "mse": sklearn_metrics.mean_squared_error(y_true, y_pred),
        "rmse": sklearn_metrics.root_mean_squared_error(y_true.ravel(), y_pred.ravel()),
        "mae": sklearn_metrics.mean_absolute_error(y_true, y_pred),
        "mape": sklearn_metrics.mean_absolute_percentage_error(y_true, y_pred),
        "r2": sklearn_metrics.r2_score(y_true, y_pred, multioutput="variance_weighted"),
    }
    assert {name: result[name].value for name in expected} == pytest.approx(expected)
    assert all(result[name].low < expected[name] < result[name].high for name in expected)
    json.dumps(result.to_dict(), allow_nan=False)


def test_undefined_mape_and_r2():
    result = evaluate.regression([0.0, 0.0, 0.0], [1.0, 2.0, 3.0], resamples=100)
    assert result["mape"].method == "undefined: a true value is 0"
    assert math.isnan(result["r2"].value)
    assert result["mae"].value == 2.0


def test_r2_of_large_values_with_small_variance(random):
    y_true = 1e8 + random.normal(size=101)
    y_pred = y_true + 0.1 * random.normal(size=101)
    assert evaluate.regression(y_true, y_pred)["r2"].value == pytest.approx(
        sklearn_metrics.r2_score(y_true, y_pred), rel=1e-6
    )


@pytest.mark.parametrize(("y_true", "y_pred", "message"), [
    ([1.0, 2.0], [1.0], r"the same shape .*Received: \(2,\) and \(1,\)"),
    ([], [], r"n > 0. Received: \(0,\)"),
    ([1.0, np.inf], [1.0, 1.0], "`y_true` must be finite. Received: 1 NaN or infinite of 2"),
    ([1.0, 1.0], [1.0, np.nan], "`y_pred` must be finite"),
])  # fmt: skip
def test_invalid_regression_values_raise(y_true, y_pred, message):
    with pytest.raises(ValueError, match=message):
        evaluate.regression(y_true, y_pred)


@pytest.mark.parametrize("y_true", [[1, 1, 1], [0, 0, 0]])
def test_one_class_has_no_ranking_metrics_and_no_intervals(y_true):
    found = evaluate.classification(y_true, [0.2, 0.6, 0.7], ["no", "yes"])
    for metric in ("roc_auc", "average_precision"):
        assert math.isnan(found[metric].value)
        assert found[metric].low is None


def test_perfect_predictions_have_the_interval_of_wilson():
    """20 examples of class 0 and 5 of class 1, all right: the errors of 5 examples are half of a macro mean."""
    y_true = np.repeat([0, 1], [20, 5])
    result = evaluate.classification(y_true, np.eye(2)[y_true], ["a", "b"])
    z2 = stats.norm.ppf(0.975) ** 2
    assert result["accuracy"].low == pytest.approx(25 / (25 + z2))
    assert result["f1_weighted"].low == pytest.approx(25 / (25 + z2))
    assert result["f1_macro"].low == pytest.approx(1 - z2 / (5 + z2) / 2)
    assert result["roc_auc"].low == pytest.approx(5 / (5 + z2))
    assert result.per_class["a"]["f1"].low == pytest.approx(20 / (20 + z2))
    assert result.per_class["b"]["recall"].low == pytest.approx(5 / (5 + z2))
    assert {result[name].high for name in ("accuracy", "f1_macro", "roc_auc")} == {1.0}
    assert "all resamples have the same value" in result["f1_macro"].method


def test_perfect_predictions_of_groups_permit_the_errors_of_as_many_examples():
    values = np.arange(1.0, 13.0)
    z2 = stats.norm.ppf(0.975) ** 2
    for settings, count in (({"groups": np.repeat([0, 1, 2], 4)}, 3), ({"block_length": 2}, 6), ({}, 12)):
        estimate = evaluate.regression(values, values, **settings)["smape"]
        assert (estimate.low, estimate.high) == (0, pytest.approx(2 * z2 / (count + z2)))


def test_constant_error_without_bounds_has_no_interval():
    result = evaluate.regression([1.0, 2.0, 4.0], [2.0, 3.0, 5.0])
    assert (result["mae"].value, result["mae"].low, result["mae"].high) == (1.0, None, None)
    assert result["mae"].method == "all resamples have the same value"


def test_forecast_metrics_equal_their_definitions(random):
    y_true, y_pred = random.normal(size=(2, 23, 3))
    y_true[0], y_pred[0] = 0, 0
    naive = random.uniform(1, 2, size=23)
    result = evaluate.regression(y_true, y_pred, naive_error=naive, quantile=0.9)
    smape, mase, pinball = [], [], []
    for row in range(23):
        for truth, forecast in zip(y_true[row], y_pred[row], strict=True):
            size = abs(truth) + abs(forecast)
            smape.append(2 * abs(truth - forecast) / size if size else 0)
            mase.append(abs(truth - forecast) / naive[row])
            pinball.append(0.9 * (truth - forecast) if truth > forecast else 0.1 * (forecast - truth))
    assert result["smape"].value == pytest.approx(np.mean(smape))
    assert result["mase"].value == pytest.approx(np.mean(mase))
    assert result["pinball"].value == pytest.approx(np.mean(pinball))
    assert "mase" not in evaluate.regression(y_true, y_pred).metrics
    assert evaluate.paired(y_true, y_pred, y_pred + 1, metric="smape").first.value == pytest.approx(np.mean(smape))


def test_interval_over_series_is_that_of_their_means(random):
    """Seven series of five equal errors are seven numbers, with a t interval."""
    errors = random.uniform(1, 2, size=7)
    groups = np.repeat(list("abcdefg"), 5)
    estimate = evaluate.regression(np.zeros(35), np.repeat(errors, 5), groups=groups)["mae"]
    expected = stats.t.interval(0.95, 6, errors.mean(), stats.sem(errors))
    assert (estimate.low, estimate.high) == pytest.approx(expected)
    assert estimate.method == "jackknife over 7 units, t"
    in_time = evaluate.regression(np.zeros(35), np.repeat(errors, 5), block_length=5)["mae"]
    assert (in_time.low, in_time.high) == pytest.approx(expected)


def test_interval_over_blocks_covers_where_that_over_examples_does_not():
    random, hits = np.random.default_rng(3), {None: 0, 40: 0}
    for _ in range(60):
        errors = lfilter([1.0], [1.0, -0.9], random.normal(size=600))[200:]
        for length in hits:
            with pytest.warns(match="`block_length`") if length is None else contextlib.nullcontext():
                estimate = evaluate.regression(np.zeros(400), errors, block_length=length, resamples=100)["mse"]
            assert estimate.low is not None
            hits[length] += estimate.low <= 1 / (1 - 0.81) <= estimate.high
    assert hits[None] < 36
    assert hits[40] > 48


def test_correlated_errors_are_announced(random):
    errors = lfilter([1.0], [1.0, -0.9], random.normal(size=(100, 3)), axis=0)
    centred = errors - errors.mean(axis=0)
    lag = sum(centred[i] @ centred[i - 1] for i in range(1, 100)) / sum(row @ row for row in centred)
    with pytest.warns(match=rf"\(lag 1: {lag:.2f}\)"):
        evaluate.regression(np.zeros((100, 3)), errors, resamples=100)
    # Warnings are errors here: independent and constant errors, and few examples, pass.
    for independent in (random.permutation(errors), np.ones((100, 3)), np.arange(19.0)[:, None]):
        evaluate.regression(np.zeros_like(independent), independent, resamples=100)


@pytest.mark.parametrize(("settings", "message"), [
    ({"groups": [0, 1], "block_length": 2}, "not both"),
    ({"groups": [0, 1]}, r"`groups` must have one name for each of 4 examples. Received: shape \(2,\)"),
    ({"block_length": 5}, "`block_length` must be a number of examples from 1 to 4. Received: 5"),
    ({"naive_error": 0.0}, "`naive_error` must be one positive number.*Received: 0.0"),
    ({"quantile": 90}, "`quantile` must lie between 0 and 1. Received: 90"),
])  # fmt: skip
def test_invalid_settings_of_a_forecast_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        evaluate.regression(np.arange(4.0), np.arange(4.0), **settings)
