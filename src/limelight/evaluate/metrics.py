"""How good are the predictions? Metrics of classifiers and regressors, each with its interval."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limelight.evaluate import checks, scoring
from limelight.evaluate.estimates import Estimate, bootstrap, check_confidence, wilson


@dataclass(frozen=True)
class Metric:
    """How a metric is called, which way is better, and whether it is read as a percentage."""

    label: str
    higher_is_better: bool = True
    percent: bool = False


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("accuracy", percent=True),
    "precision_macro": Metric("precision (macro)"),
    "recall_macro": Metric("recall (macro)"),
    "f1_macro": Metric("F1 (macro)"),
    "precision_weighted": Metric("precision (weighted)"),
    "recall_weighted": Metric("recall (weighted)"),
    "f1_weighted": Metric("F1 (weighted)"),
    "roc_auc": Metric("ROC AUC"),
    "average_precision": Metric("average precision"),
    "log_loss": Metric("log loss", higher_is_better=False),
    "brier": Metric("Brier score", higher_is_better=False),
    "calibration_error": Metric("calibration error", higher_is_better=False),
    "mse": Metric("mean squared error", higher_is_better=False),
    "rmse": Metric("root mean squared error", higher_is_better=False),
    "mae": Metric("mean absolute error", higher_is_better=False),
    "mape": Metric("mean absolute percentage error", higher_is_better=False, percent=True),
    "r2": Metric("R2"),
}

PROBABILITY_METRICS = ("roc_auc", "average_precision", "log_loss", "brier", "calibration_error")


@dataclass(frozen=True)
class Reliability:
    """The reliability curve: for each bin of equal mass its mean confidence, its accuracy and its number of examples."""

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists that are ready for JSON."""
        return {
            "confidence": self.confidence.tolist(),
            "accuracy": self.accuracy.tolist(),
            "count": self.count.tolist(),
        }


@dataclass(frozen=True)
class ClassificationResult:
    """What `classification` found.

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
        """How many examples each class has."""
        return self.confusion.sum(1)

    def __getitem__(self, metric: str) -> Estimate:
        return self.metrics[metric]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that are ready for JSON."""
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
    """What `regression` found: the number of examples and, by name, `mse`, `rmse`, `mae`, `mape` and `r2`."""

    n: int
    metrics: Mapping[str, Estimate]

    def __getitem__(self, metric: str) -> Estimate:
        return self.metrics[metric]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that are ready for JSON."""
        return {"n": self.n, "metrics": {name: estimate.to_dict() for name, estimate in self.metrics.items()}}


def classification_statistics(
    truth: np.ndarray, probabilities: np.ndarray, smallest: float
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return all metrics of a classifier over weighted examples; `probabilities` are (n, K) and sum to one."""
    labels = scoring.label_scores(truth, probabilities.argmax(1), probabilities.shape[1])
    single = {name: probability_score(name, truth, probabilities, smallest) for name in PROBABILITY_METRICS}
    return lambda weights: {**labels(weights), **{name: metric(weights) for name, metric in single.items()}}


def probability_score(
    metric: str, truth: np.ndarray, probabilities: np.ndarray, smallest: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Return one of `PROBABILITY_METRICS` over weighted examples."""
    rows, count = np.arange(len(truth)), probabilities.shape[1]
    if metric == "roc_auc":
        return scoring.one_against_rest(scoring.roc_auc, truth, probabilities)
    if metric == "average_precision":
        return scoring.one_against_rest(scoring.average_precision, truth, probabilities)
    if metric == "log_loss":
        return scoring.mean(-np.log(np.clip(probabilities[rows, truth], smallest, 1.0)))
    if metric == "brier":
        squares = (probabilities - (truth[:, None] == np.arange(count))) ** 2
        return scoring.mean(squares[:, 1] if count == 2 else squares.sum(1))
    predicted = probabilities.argmax(1)
    return scoring.calibration_error(predicted == truth, probabilities[rows, predicted])


def regression_statistics(truth: np.ndarray, prediction: np.ndarray) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return all metrics of a regressor over weighted examples; both arrays are (n, D)."""
    error, centred = prediction - truth, truth - truth.mean()
    share = np.full(len(truth), np.nan) if np.any(truth == 0) else np.abs(error / truth).mean(1)
    squares, sizes = (error**2).mean(1), np.abs(error).mean(1)
    level, spread = centred.mean(1), (centred**2).mean(1)
    least = 1e-12 * float(spread.mean())  # below it a resample holds equal values, up to rounding

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(1)
        mse = weights @ squares / total
        variance = weights @ spread / total - (weights @ level / total) ** 2
        return {
            "mse": mse,
            "rmse": np.sqrt(mse),
            "mae": weights @ sizes / total,
            "mape": weights @ share / total,
            "r2": 1 - scoring.ratio(mse, np.where(variance > least, variance, 0.0)),
        }

    return statistics


def classification(
    truth: Any,
    probabilities: Any,
    classes: Sequence[Any],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> ClassificationResult:
    """Measure a classifier, each metric with its interval over examples.

    Accuracy has Wilson's interval; every other metric a BCa bootstrap interval over examples (percentile where BCa is
    undefined; `Estimate.method` says which). The predicted class is the one of the largest probability, the first of
    equals.

    - Precision is 0 for a class that is never predicted. Macro means and one-against-rest means run over the classes
      that occur in `truth`; a class that does not occur has no recall.
    - ROC AUC and average precision: of the second class where there are two, else the mean of one against the rest.
      They are undefined (NaN, no interval) where `truth` holds one class.
    - Log loss clips probabilities from below at the machine epsilon of their dtype, as scikit-learn does.
    - Brier score: mean of (p - y)^2 for two classes; the sum over classes of it for more.
    - Calibration error: 15 bins of equal mass, fixed before resampling, over the predicted class's probability.

    Args:
        truth: True classes (n,): integers that index `classes`, or names out of `classes`.
        probabilities: Probabilities (n, K), rows summing to one within 0.001, or (n,) or (n, 1) of the second of two
            classes.
        classes: The K class names, in the order of the columns.
        confidence: Level of the intervals.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        A `ClassificationResult`.

    Raises:
        ValueError: Shapes disagree, a probability is NaN or outside 0 to 1, rows do not sum to one, a class is unknown.

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
    names = checks.class_names(classes)
    true = checks.labels(truth, names, "truth")
    smallest = checks.smallest(probabilities)
    shares = checks.probabilities(probabilities, len(names), len(true), "probabilities")
    predicted, n = shares.argmax(1), len(true)
    found = bootstrap(
        classification_statistics(true, shares, smallest), n, confidence=confidence, resamples=resamples, seed=seed
    )
    per_class = {
        name: {metric: found[metric][k] for metric in ("precision", "recall", "f1")}  # type: ignore[index]
        for k, name in enumerate(names)
    }
    metrics = {name: found[name] for name in METRICS if name in found}
    metrics["accuracy"] = wilson(int((predicted == true).sum()), n, confidence)
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(confusion, (true, predicted), 1)
    curve = reliability_curve(predicted == true, shares[np.arange(n), predicted])
    return ClassificationResult(names, n, metrics, per_class, confusion, curve)  # type: ignore[arg-type]


def reliability_curve(correct: np.ndarray, confidence: np.ndarray, bins: int = 15) -> Reliability:
    """Return mean confidence and accuracy in bins of equal mass.

    Args:
        correct: Whether each prediction was right (n,).
        confidence: Its probability (n,).
        bins: Largest number of bins; equal confidences share one.
    """
    member = scoring.equal_mass_bins(confidence, bins)
    count = np.bincount(member)
    return Reliability(
        np.bincount(member, confidence) / count, np.bincount(member, correct.astype(np.float64)) / count, count
    )


def regression(
    truth: Any, prediction: Any, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> RegressionResult:
    """Measure a regressor: MSE, RMSE, MAE, MAPE and R2, each with a BCa bootstrap interval over examples.

    MAPE is a share (0.1 is 10 %) and undefined where a true value is 0; R2 is undefined where all true values are equal.

    Args:
        truth: True values (n,) or (n, ...), whose trailing axes belong to one example and are resampled with it.
        prediction: Predicted values of the same shape.
        confidence: Level of the intervals.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: Shapes disagree, or a value is not finite.

    Example:
        >>> regression([1.0, 2.0, 4.0], [1.0, 3.0, 3.0])["mae"].value
        0.6666666666666666
    """
    true, predicted = checks.values(truth, prediction)
    found = bootstrap(
        regression_statistics(true, predicted), len(true), confidence=confidence, resamples=resamples, seed=seed
    )
    metrics = {name: estimate for name, estimate in found.items() if isinstance(estimate, Estimate)}
    if math.isnan(metrics["mape"].value):
        metrics["mape"] = Estimate(math.nan, None, None, "undefined: a true value is 0", len(true), confidence)
    return RegressionResult(len(true), metrics)
