"""One metric of several models on the same examples, ready to be resampled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limelight.evaluate import checks, scoring
from limelight.evaluate.metrics import METRICS, PROBABILITY_METRICS, probability_score, regression_statistics

# A metric over weighted examples: weights (R, n) to values (R,).
Measure = Callable[[np.ndarray], np.ndarray]

_NUMBERS = ("mse", "rmse", "mae", "mape", "r2")


@dataclass(frozen=True)
class Measures:
    """A metric of each model, and of several models' examples in one pool.

    Args:
        truth: True classes (n,) or values (n, D).
        predicted: For each model its labels (n,), probabilities (n, K) or values (n, D).
        build: Makes the metric from a truth and predictions of the same length.
    """

    truth: np.ndarray
    predicted: tuple[np.ndarray, ...]
    build: Callable[[np.ndarray, np.ndarray], Measure]

    @property
    def n(self) -> int:
        """Number of test examples."""
        return len(self.truth)

    @property
    def each(self) -> list[Measure]:
        """The metric of each model, over weights (R, n)."""
        return [self.build(self.truth, predicted) for predicted in self.predicted]

    def pooled(self) -> Measure:
        """Return the metric over weights (R, M * n) of all M models' examples, one model after the other."""
        return self.build(np.concatenate([self.truth] * len(self.predicted)), np.concatenate(self.predicted))


def measures(truth: Any, predictions: Sequence[Any], metric: str, classes: Sequence[Any] | None) -> Measures:
    """Check predictions and return a metric of each of them.

    Args:
        truth: True classes (n,) or values (n,).
        predictions: For each model labels (n,), probabilities (n, K) or (n,), or values.
        metric: A key of `METRICS`.
        classes: Class names, or None to find them.
    """
    if metric not in METRICS:
        raise ValueError(f"`metric` must be one of {', '.join(METRICS)}. Received: {metric!r}.")
    if metric in _NUMBERS:
        pairs = [checks.values(truth, prediction) for prediction in predictions]
        return Measures(
            pairs[0][0],
            tuple(prediction for _, prediction in pairs),
            lambda true, predicted: _only(metric, regression_statistics(true, predicted)),
        )
    arrays = [np.asarray(prediction) for prediction in predictions]
    names = checks.class_names(classes if classes is not None else _classes(truth, arrays))
    true = checks.labels(truth, names, "truth")
    if metric in PROBABILITY_METRICS:
        smallest = max(checks.smallest(array) for array in arrays)
        shares = tuple(_probabilities(array, names, len(true), metric) for array in arrays)
        return Measures(true, shares, lambda t, p: probability_score(metric, t, p, smallest))
    labels = tuple(_labels(array, names, len(true)) for array in arrays)
    return Measures(true, labels, lambda t, p: _only(metric, scoring.label_scores(t, p, len(names))))


def _only(metric: str, statistics: Callable[[np.ndarray], dict[str, np.ndarray]]) -> Measure:
    return lambda weights: statistics(weights)[metric]


def _classes(truth: Any, arrays: list[np.ndarray]) -> list[Any]:
    """Return the class names that predictions imply: a column each, or every label that occurs."""
    columns = {array.shape[1] for array in arrays if array.ndim == 2 and array.shape[1] > 1}
    if columns:
        return list(range(max(columns)))
    true = np.asarray(truth)
    if true.dtype.kind in "USOT":
        return sorted({str(value) for array in [true, *arrays] for value in array.ravel().tolist()})
    if any(array.dtype.kind == "f" for array in arrays):
        return [0, 1]
    top = max(int(array.max()) for array in [true, *arrays] if array.size)
    return list(range(max(2, top + 1)))


def _probabilities(array: np.ndarray, names: tuple[str, ...], n: int, metric: str) -> np.ndarray:
    if array.dtype.kind != "f":
        raise ValueError(
            f"{METRICS[metric].label} needs probabilities, shape (n, K) or (n,). Received: dtype {array.dtype}. "
            "Pass what the model predicts before argmax."
        )
    return checks.probabilities(array, len(names), n, "prediction")


def _labels(array: np.ndarray, names: tuple[str, ...], n: int) -> np.ndarray:
    if array.dtype.kind == "f":
        return checks.probabilities(array, len(names), n, "prediction").argmax(1)
    labels = checks.labels(array, names, "prediction")
    if len(labels) != n:
        raise ValueError(f"There must be one prediction for each of {n} examples. Received: {len(labels)}.")
    return labels
