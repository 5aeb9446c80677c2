"""Metrics of classifiers and regressors, each with its interval.

The functions below `regression` compute metrics of weighted examples, for all rows of weights at once: the bootstrap and
the permutation test call them with thousands of rows.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limelight._formatting import METRICS
from limelight.evaluate import validation
from limelight.evaluate.estimates import (
    Estimate,
    block_jackknife,
    bootstrap,
    check_confidence,
    clip_interval,
    widen_constant,
    wilson,
)

# Takes weights (R, n) of n examples, returns the metric of each row of weights (R,).
WeightedMetric = Callable[[np.ndarray], np.ndarray]

PROBABILITY_METRICS = ("roc_auc", "average_precision", "log_loss", "brier", "calibration_error")

_UNBOUNDED = ("log_loss", "mse", "rmse", "mae", "mape", "mase", "pinball", "error_rate")


def value_range(metric: str, num_classes: int = 2) -> tuple[float, float]:
    """Return the smallest and the largest possible value of a metric, a key of `METRICS`.

    Example:
        >>> value_range("accuracy"), value_range("r2")
        ((0.0, 1.0), (-inf, 1.0))
    """
    if metric == "r2":
        return -math.inf, 1.0
    if metric == "smape" or (metric == "brier" and num_classes > 2):
        return 0.0, 2.0
    return 0.0, math.inf if metric in _UNBOUNDED else 1.0


@dataclass(frozen=True)
class Reliability:
    """The reliability curve: the mean confidence, accuracy and number of examples of each bin of equal mass."""

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Return lists that JSON can hold."""
        return {
            "confidence": self.confidence.tolist(),
            "accuracy": self.accuracy.tolist(),
            "count": self.count.tolist(),
        }


@dataclass(frozen=True)
class ClassificationResult:
    """The result of `classification`.

    Args:
        classes: Names of the K classes.
        n: Number of examples.
        metrics: Name to `Estimate`; `result["accuracy"]` is short for `result.metrics["accuracy"]`.
        per_class: Class name to its precision, recall and F1, each an `Estimate`.
        confusion: Counts (K, K): row the true class, column the predicted one.
        reliability: The reliability curve of the predicted class's probability.
    """

    classes: tuple[str, ...]
    n: int
    metrics: Mapping[str, Estimate]
    per_class: Mapping[str, Mapping[str, Estimate]]
    confusion: np.ndarray
    reliability: Reliability

    @property
    def support(self) -> np.ndarray:
        """Number of examples of each class (K,)."""
        return self.confusion.sum(1)

    def __getitem__(self, metric: str) -> Estimate:
        return self.metrics[metric]

    def to_dict(self) -> dict[str, Any]:
        """Return values that JSON can hold."""
        support = dict(zip(self.classes, self.support.tolist(), strict=True))
        return {
            "n": self.n,
            "classes": list(self.classes),
            "metrics": {name: estimate.to_dict() for name, estimate in self.metrics.items()},
            "per_class": {
                name: {"support": support[name], **{key: value.to_dict() for key, value in scores.items()}}
                for name, scores in self.per_class.items()
            },
            "confusion": self.confusion.tolist(),
            "reliability": self.reliability.to_dict(),
        }


@dataclass(frozen=True)
class RegressionResult:
    """The result of `regression`: the number of examples and its metrics by name.

    They are `mse`, `rmse`, `mae`, `mape`, `smape` and `r2`, and `mase` and `pinball` if their arguments were given.
    """

    n: int
    metrics: Mapping[str, Estimate]

    def __getitem__(self, metric: str) -> Estimate:
        return self.metrics[metric]

    def to_dict(self) -> dict[str, Any]:
        """Return values that JSON can hold."""
        return {"n": self.n, "metrics": {name: estimate.to_dict() for name, estimate in self.metrics.items()}}


def classification(
    y_true: Any,
    y_proba: Any,
    classes: Sequence[Any],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> ClassificationResult:
    """Compute the metrics of a classifier, each with its interval over examples.

    Accuracy has Wilson's interval; every other metric has a BCa bootstrap interval over examples (percentile if BCa is
    undefined; `Estimate.method` names the method). The predicted class has the largest probability, the first one if several
    are equal.

    - Precision is 0 for a class that is never predicted. Macro means and one-vs-rest means are taken over the classes
      that occur in `y_true`; a class that does not occur has no recall.
    - ROC AUC and average precision: of the second class if there are two, else the one-vs-rest mean. They are undefined
      (NaN, no interval) if `y_true` has one class only.
    - Log loss clips probabilities from below at the machine epsilon of their dtype, as scikit-learn does.
    - Brier score: mean of (p - y)^2 for two classes; its sum over classes for more.
    - Calibration error: 15 bins of equal mass, fixed before resampling, over the predicted class's probability.

    Args:
        y_true: True classes (n,): integers that index `classes`, or names out of `classes`.
        y_proba: Probabilities (n, K), rows summing to one within 0.001, or (n,) or (n, 1) of the second of two
            classes.
        classes: The K class names, in the order of the columns.
        confidence: Level of the intervals.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        A `ClassificationResult`.

    Raises:
        ValueError: The shapes do not match, a probability is NaN or outside 0 to 1, a row does not sum to one, or a class is
            unknown.

    Example:
        >>> result = classification([0, 1, 1, 0], [0.1, 0.9, 0.4, 0.2], ["bad", "good"])
        >>> result["accuracy"].value
        0.75
        >>> result.confusion
        array([[2, 0],
               [1, 1]])

    Guo et al., "On calibration of modern neural networks" (arXiv:1706.04599); Nixon et al., "Measuring calibration in
    deep learning" (arXiv:1904.01685), for bins of equal mass.
    """
    check_confidence(confidence, resamples)
    names = validation.check_class_names(classes)
    labels = validation.check_labels(y_true, names, "y_true")
    eps = validation.machine_epsilon(y_proba)
    probabilities = validation.check_probabilities(y_proba, len(names), len(labels), "y_proba")
    predicted, n = probabilities.argmax(1), len(labels)
    statistics = classification_statistics(labels, probabilities, eps)
    intervals = bootstrap(statistics, n, confidence=confidence, resamples=resamples, seed=seed)
    estimates: dict[str, Any] = widen_constant_metrics(intervals, labels, predicted, len(names))
    per_class = {
        name: {metric: estimates[metric][k] for metric in ("precision", "recall", "f1")} for k, name in enumerate(names)
    }
    metrics = {name: estimates[name] for name in METRICS if name in estimates}
    metrics["accuracy"] = wilson(int((predicted == labels).sum()), n, confidence)
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    curve = reliability_curve(predicted == labels, probabilities[np.arange(n), predicted])
    return ClassificationResult(names, n, metrics, per_class, confusion, curve)


def widen_constant_metrics(
    estimates: Mapping[str, Estimate | list[Estimate]], y_true: np.ndarray, y_pred: np.ndarray, num_classes: int
) -> dict[str, Estimate | list[Estimate]]:
    """Return the estimates with an interval of some width where all resamples have the same value (see `widen_constant`).

    A mean over classes may hide the errors of the rarest class, of weight 1 / K among the K classes that occur; the metrics of
    one class are those of its own examples.

    Args:
        estimates: The bootstrap intervals of `classification_statistics`.
        y_true: True classes (n,).
        y_pred: Predicted classes (n,) or (S, n).
        num_classes: Number of classes.
    """
    support = np.bincount(y_true, minlength=num_classes)
    predicted = np.bincount(y_pred.ravel(), minlength=num_classes) * y_true.size / y_pred.size
    occurring = support[support > 0]
    widened: dict[str, Estimate | list[Estimate]] = {}
    for name, estimate in estimates.items():
        bounds = value_range(name, num_classes)
        if isinstance(estimate, list):
            sizes = predicted if name == "precision" else support
            widened[name] = [widen_constant(e, bounds, max(n, 1)) for e, n in zip(estimate, sizes, strict=True)]
        elif name.endswith("_macro") or name in ("roc_auc", "average_precision"):
            share = 1.0 if name == "roc_auc" and num_classes == 2 else 1 / len(occurring)
            widened[name] = widen_constant(estimate, bounds, int(occurring.min()), share)
        else:
            widened[name] = widen_constant(estimate, bounds, y_true.size)
    return widened


def reliability_curve(correct: np.ndarray, confidence: np.ndarray, bins: int = 15) -> Reliability:
    """Return mean confidence and accuracy in bins of equal mass.

    Args:
        correct: True for each correct prediction (n,).
        confidence: The probability of each prediction (n,).
        bins: Largest number of bins; equal confidences share a bin.
    """
    bin_of_example = equal_mass_bins(confidence, bins)
    count = np.bincount(bin_of_example)
    accuracy = np.bincount(bin_of_example, correct.astype(np.float64)) / count
    return Reliability(np.bincount(bin_of_example, confidence) / count, accuracy, count)


def regression(
    y_true: Any,
    y_pred: Any,
    *,
    groups: Any = None,
    block_length: int | None = None,
    naive_error: Any = None,
    quantile: float | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> RegressionResult:
    """Compute MSE, RMSE, MAE, MAPE, sMAPE and R2 of a regressor, each with an interval over examples.

    Independent examples have a BCa bootstrap interval. Examples of one series, or windows that overlap, are not independent:
    their interval would be far too short. Give `groups` or `block_length`: whole series, or blocks of consecutive examples, are
    then left out in turn (`Estimate.method` says so). Without either, a warning says if the errors of neighbours are correlated.

    - MAPE is a fraction (0.1 is 10 %) and undefined if a true value is 0.
    - R2 is one minus the MSE over the variance of the true values, each output with its own mean; undefined if that is 0.
    - sMAPE is the mean of 2 |y - p| / (|y| + |p|), from 0 to 2, and 0 where both are 0.
    - MASE is the mean of |y - p| / `naive_error`.
    - Pinball loss is the mean of max(q (y - p), (q - 1) (y - p)) for a forecast p of the quantile q.

    Args:
        y_true: True values (n,) or (n, ...), whose trailing axes belong to one example and are resampled with it.
        y_pred: Predicted values of the same shape.
        groups: The series of each example (n,), if the examples are from several independent series.
        block_length: Number of consecutive examples in a block, if the examples are in the order of time. Longer
            than the horizon and several times as long as errors
            stay correlated; fewer than ten blocks give a wide interval.
        naive_error: For MASE, the mean absolute error of a naive forecast on the training part: one number, or one for each
            example (n,).
        quantile: For the pinball loss, the quantile that `y_pred` forecasts.
        confidence: Level of the intervals.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: The shapes do not match, a value is not finite, both `groups` and `block_length` are given, `naive_error` is
            not positive, or `quantile` is not between 0 and 1.

    Example:
        >>> regression([1.0, 2.0, 4.0], [1.0, 3.0, 3.0])["mae"].value
        0.6666666666666666

    Hyndman and Koehler, International Journal of Forecasting 22 (2006), 679-688, for MASE; Koenker and Bassett, Econometrica
    46 (1978), 33-50, for the pinball loss.
    """
    targets, predictions = validation.check_values(y_true, y_pred)
    n = len(targets)
    check_confidence(confidence, resamples)
    base, extra = regression_statistics(targets, predictions), {}
    if naive_error is not None:
        extra["mase"] = np.abs(targets - predictions).mean(1) / validation.check_naive_error(naive_error, n)
    if quantile is not None:
        validation.check_quantile(quantile)
        errors = targets - predictions
        extra["pinball"] = np.maximum(quantile * errors, (quantile - 1) * errors).mean(1)

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        return base(weights) | {name: weights @ losses / weights.sum(1) for name, losses in extra.items()}

    units = validation.check_units(groups, block_length, n)
    metrics: dict[str, Any]
    if units is None:
        _warn_of_serial_errors(predictions - targets)
        metrics = dict(bootstrap(statistics, n, confidence=confidence, resamples=resamples, seed=seed))
    else:
        intervals = block_jackknife(statistics, units, confidence=confidence)
        metrics = {name: clip_interval(estimate, value_range(name)) for name, estimate in intervals.items()}
    size = n if units is None else len(np.unique(units))
    metrics = {name: widen_constant(estimate, value_range(name), size) for name, estimate in metrics.items()}
    if math.isnan(metrics["mape"].value):
        metrics["mape"] = Estimate(math.nan, None, None, "undefined: a true value is 0", n, confidence)
    return RegressionResult(n, metrics)


def _warn_of_serial_errors(errors: np.ndarray) -> None:
    """Warn if the errors (n, D) of neighbouring examples are correlated, by four standard errors or more."""
    n, centred = len(errors), errors - errors.mean(0)
    variance = float((centred**2).sum())
    if n < 20 or variance <= 1e-12 * float((errors**2).sum()):
        return
    correlation = float((centred[1:] * centred[:-1]).sum()) / variance
    if correlation > max(0.3, 4 / math.sqrt(n)):
        warnings.warn(
            f"The errors of neighbouring examples are correlated (lag 1: {correlation:.2f}). If the examples are in the order of "
            "time, or overlap, the intervals are too short. Give `block_length`, or `groups` for several series.",
            stacklevel=3,
        )


def classification_statistics(
    y_true: np.ndarray, y_proba: np.ndarray, eps: float
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return all metrics of a classifier as a function of weights (R, n); `y_proba` (n, K) has rows that sum to one.

    `eps` clips the probabilities in the log loss from below.
    """
    label_metrics = label_scores(y_true, y_proba.argmax(1), y_proba.shape[1])
    probability_metrics = {name: probability_score(name, y_true, y_proba, eps) for name in PROBABILITY_METRICS}
    return lambda weights: {
        **label_metrics(weights),
        **{name: metric(weights) for name, metric in probability_metrics.items()},
    }


def probability_score(metric: str, y_true: np.ndarray, y_proba: np.ndarray, eps: float) -> WeightedMetric:
    """Return one of `PROBABILITY_METRICS` as a function of weights (R, n)."""
    if metric == "roc_auc":
        return one_vs_rest(roc_auc_score, y_true, y_proba)
    if metric == "average_precision":
        return one_vs_rest(average_precision_score, y_true, y_proba)
    if metric in ("log_loss", "brier"):
        return weighted_mean(probability_losses(metric, y_true, y_proba, eps))
    predicted = y_proba.argmax(1)
    return calibration_error(predicted == y_true, y_proba[np.arange(len(y_true)), predicted])


def probability_losses(metric: str, y_true: np.ndarray, y_proba: np.ndarray, eps: float) -> np.ndarray:
    """Return the log loss or the Brier score of each example (n,)."""
    if metric == "log_loss":
        return -np.log(np.clip(y_proba[np.arange(len(y_true)), y_true], eps, 1.0))
    squares = (y_proba - (y_true[:, None] == np.arange(y_proba.shape[1]))) ** 2
    return squares[:, 1] if y_proba.shape[1] == 2 else squares.sum(1)


def regression_statistics(y_true: np.ndarray, y_pred: np.ndarray) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return all metrics of a regressor as a function of weights (R, n); both arrays are (n, D)."""
    losses, centred = regression_losses(y_true, y_pred), y_true - y_true.mean(0)
    centred_squares = (centred**2).mean(1)
    min_variance = 1e-12 * float(centred_squares.mean())  # below it, the values of a resample are equal up to rounding

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(1)
        means = {name: weights @ loss / total for name, loss in losses.items()}
        mse = means["mse"]
        variance = weights @ centred_squares / total - ((weights @ centred / total[:, None]) ** 2).mean(1)
        return {
            **means,
            "rmse": np.sqrt(mse),
            "r2": 1 - divide(mse, np.where(variance > min_variance, variance, 0.0)),
        }

    return statistics


def regression_losses(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, np.ndarray]:
    """Return the squared, absolute, percentage and symmetric percentage errors of each example (n,), from arrays (n, D)."""
    errors = y_pred - y_true
    percentages = np.full(errors.shape, np.nan) if np.any(y_true == 0) else np.abs(errors / y_true)
    sizes = np.abs(y_true) + np.abs(y_pred)
    symmetric = 2 * divide(np.abs(errors), sizes, 0.0)
    losses = {"mse": errors**2, "mae": np.abs(errors), "mape": percentages, "smape": symmetric}
    return {name: loss.mean(1) for name, loss in losses.items()}


def divide(numerator: np.ndarray, denominator: np.ndarray, zero_division: float = np.nan) -> np.ndarray:
    """Return numerator / denominator, and `zero_division` if the denominator is 0."""
    out = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), zero_division)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis without NaNs; NaN if all are NaN (`np.nanmean` would warn)."""
    defined = np.isfinite(values)
    return divide(np.where(defined, values, 0.0).sum(-1), defined.sum(-1).astype(np.float64))


def weighted_mean(losses: np.ndarray) -> WeightedMetric:
    """Return the weighted mean of the losses of examples (n,) as a function of weights (R, n)."""
    return lambda weights: weights @ losses / weights.sum(1)


def roc_auc_score(positive: np.ndarray, scores: np.ndarray) -> WeightedMetric:
    """Return the weighted area under the ROC curve: the probability that a positive is ranked above a negative.

    Ties count half. The weights are (n, R): sums along examples are then sums of rows, which is several times as fast.
    """
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    positives = np.flatnonzero(positive)
    num_below = np.searchsorted(scores[negatives], scores[positives], side="left")
    num_below_or_tied = np.searchsorted(scores[negatives], scores[positives], side="right")

    def area(columns: np.ndarray) -> np.ndarray:
        weights = columns[positives]
        cumulative = np.zeros((len(negatives) + 1, columns.shape[1]))
        np.cumsum(columns[negatives], axis=0, out=cumulative[1:])
        wins = (weights * (cumulative[num_below] + cumulative[num_below_or_tied])).sum(0) / 2
        return divide(wins, weights.sum(0) * cumulative[-1])

    return area


def average_precision_score(positive: np.ndarray, scores: np.ndarray) -> WeightedMetric:
    """Return the weighted average precision: the sum over thresholds of the gain in recall times the precision.

    The weights are (n, R), as for `roc_auc_score`.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.flatnonzero(positive[order])
    num_hits = np.searchsorted(hits, ends, side="right")
    raises_recall = np.diff(num_hits, prepend=0) > 0  # the other thresholds add nothing to the sum
    ends, num_hits = ends[raises_recall], num_hits[raises_recall]

    def area(columns: np.ndarray) -> np.ndarray:
        ranked = columns[order]
        true_positives = np.cumsum(ranked[hits], axis=0)[num_hits - 1]
        if not len(true_positives):
            return np.full(columns.shape[1], np.nan)
        precision = divide(true_positives, np.cumsum(ranked, axis=0)[ends], 0.0)
        gains = np.diff(true_positives, axis=0, prepend=0.0)
        has_negatives = ranked.sum(0) > true_positives[-1]  # else there is nothing to rank
        return np.where(has_negatives, divide((gains * precision).sum(0), true_positives[-1]), np.nan)

    return area


def one_vs_rest(
    score: Callable[[np.ndarray, np.ndarray], WeightedMetric], y_true: np.ndarray, y_proba: np.ndarray
) -> WeightedMetric:
    """Return a ranking metric: of the second class if there are two, else the mean over the classes that occur."""
    num_classes = y_proba.shape[1]
    chosen = [1] if num_classes == 2 else [k for k in range(num_classes) if np.any(y_true == k)]
    areas = [score(y_true == k, y_proba[:, k]) for k in chosen]

    def mean_area(weights: np.ndarray) -> np.ndarray:
        columns = np.ascontiguousarray(weights.T)
        return mean_of_defined(np.stack([area(columns) for area in areas], axis=1))

    return mean_area


def label_scores(
    y_true: np.ndarray, y_pred: np.ndarray, num_classes: int
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return accuracy and precision, recall and F1: per class, macro (classes in `y_true`) and weighted (by support)."""
    classes = np.arange(num_classes)
    is_true = (y_true[:, None] == classes).astype(np.float64)
    is_predicted = (y_pred[:, None] == classes).astype(np.float64)

    def compute(weights: np.ndarray) -> dict[str, np.ndarray]:
        hits, support, predicted = weights @ (is_true * is_predicted), weights @ is_true, weights @ is_predicted
        occurs = support > 0
        per_class = {
            "precision": divide(hits, predicted, 0.0),
            "recall": divide(hits, support),
            "f1": divide(2 * hits, support + predicted, 0.0),
        }
        scores = {"accuracy": hits.sum(1) / weights.sum(1)}
        for name, value in per_class.items():
            scores[name] = np.where(occurs | (predicted > 0), value, np.nan)
            scores[f"{name}_macro"] = mean_of_defined(np.where(occurs, value, np.nan))
            scores[f"{name}_weighted"] = (np.where(occurs, value, 0.0) * support).sum(1) / support.sum(1)
        return scores

    return compute


def equal_mass_bins(confidence: np.ndarray, bins: int = 15) -> np.ndarray:
    """Return the bin of each example: up to `bins` bins of nearly the same number of examples.

    Examples of equal confidence share a bin: a bin ends only where the confidence changes.
    """
    order = np.argsort(confidence, kind="stable")
    bin_of_rank = np.arange(len(order)) * bins // len(order)
    _, group = np.unique(confidence[order], return_inverse=True)
    first = np.searchsorted(group, group, side="left")
    bin_of_example = np.empty(len(order), dtype=np.int64)
    bin_of_example[order] = np.unique(bin_of_rank[first], return_inverse=True)[1]
    return bin_of_example


def calibration_error(correct: np.ndarray, confidence: np.ndarray, bins: int = 15) -> WeightedMetric:
    """Return the expected calibration error: sum over bins of their fraction of examples times |accuracy - confidence|."""
    bin_of_example = equal_mass_bins(confidence, bins)
    gaps = np.zeros((len(bin_of_example), bin_of_example.max() + 1))
    gaps[np.arange(len(bin_of_example)), bin_of_example] = correct - confidence
    return lambda weights: np.abs(weights @ gaps).sum(1) / weights.sum(1)
