"""Comparison of two models on the same test examples, trained once or with several seeds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from limelight._formatting import METRICS, to_finite
from limelight.evaluate import validation
from limelight.evaluate._crossed import behrens_fisher_half_width, behrens_fisher_p_value, variance_components
from limelight.evaluate.estimates import (
    Estimate,
    bca,
    check_confidence,
    clip_interval,
    compute_in_chunks,
    jackknife_weights,
    resample_counts,
    widen_constant,
    wilson,
)
from limelight.evaluate.metrics import (
    PROBABILITY_METRICS,
    WeightedMetric,
    label_scores,
    probability_losses,
    probability_score,
    regression_losses,
    regression_statistics,
    value_range,
)
from limelight.evaluate.translations import (
    TRANSLATION_METRICS,
    check_references,
    sentence_statistics,
    translation_metric,
)

_REGRESSION_METRICS = ("mse", "rmse", "mae", "mape", "smape", "r2")


@dataclass(frozen=True)
class Comparison:
    """The difference between two models on one metric.

    Args:
        metric: Name of the metric, a key of `METRICS`.
        names: Names of the first and the second model.
        first: Value of the first model; over seeds, its mean with the t interval over seeds.
        second: Value of the second model.
        difference: first - second, with its interval.
        p_value: Two-sided p value of the hypothesis that there is no difference; NaN if undefined.
        test: Name of the test that gave the p value.
        n: Number of test examples.
        seeds: Number of trainings of each model; 1 for a comparison of two sets of predictions.
        first_values: Metric of the first model, one value for each seed.
        second_values: Metric of the second model, one value for each seed.
        num_tests: Number of tests that the p value is corrected for (see `holm`); the interval is never corrected.
    """

    metric: str
    names: tuple[str, str]
    first: Estimate
    second: Estimate
    difference: Estimate
    p_value: float
    test: str
    n: int
    seeds: int = 1
    first_values: tuple[float, ...] = ()
    second_values: tuple[float, ...] = ()
    num_tests: int = 1

    @property
    def shown(self) -> bool:
        """True if a difference could be shown: the interval excludes 0 and p is below 1 - confidence."""
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or math.isnan(self.p_value):
            return False
        return (low > 0 or high < 0) and self.p_value < 1 - self.difference.confidence

    def to_dict(self) -> dict[str, Any]:
        """Return values that JSON can hold."""
        return {
            "metric": self.metric,
            "names": list(self.names),
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
            "difference": self.difference.to_dict(),
            "p_value": to_finite(self.p_value),
            "test": self.test,
            "n": self.n,
            "seeds": self.seeds,
            "first_values": [to_finite(value) for value in self.first_values],
            "second_values": [to_finite(value) for value in self.second_values],
            "num_tests": self.num_tests,
            "shown": self.shown,
        }


def paired(
    y_true: Any,
    first: Any,
    second: Any,
    *,
    metric: str = "accuracy",
    classes: Sequence[Any] | None = None,
    unit: str = "word",
    names: tuple[str, str] = ("first", "second"),
    confidence: float = 0.95,
    resamples: int = 1000,
    permutations: int = 4999,
    seed: int = 0,
) -> Comparison:
    """Compare two models' predictions of the same test examples.

    The interval of the difference is a paired BCa bootstrap: both models are evaluated on the same resampled examples. The p
    value is that of McNemar's exact test for accuracy, and of a permutation test for any other metric, which swaps the two
    models' predictions of an example at random.

    Args:
        y_true: True classes (n,); true values for a regression metric; or references for a metric of translations, one string or
            a list of strings for each source.
        first: Predictions of the first model: labels (n,), probabilities (n, K) or (n,), values, or translations.
        second: Predictions of the second model.
        metric: A key of `METRICS`. Ranking and calibration metrics need probabilities.
        classes: Class names; by default 0 to K - 1 for probabilities, or the sorted labels that occur.
        unit: Of translations, what an error is counted in: "word" or "character".
        names: Names of the two models.
        confidence: Level of the interval.
        resamples: Number of bootstrap resamples.
        permutations: Number of permutations.
        seed: Seed of the resamples and the permutations.

    Raises:
        ValueError: The metric is unknown, the shapes do not match, or the metric needs probabilities and received labels.

    Example:
        >>> result = paired([0, 1, 1, 0, 1], [0, 1, 1, 0, 1], [0, 1, 0, 0, 0], names=("attention", "pooling"))
        >>> round(result.difference.value, 3), result.p_value, result.test
        (0.4, 0.5, 'exact McNemar')

    McNemar, Psychometrika 12 (1947), 153-157; Dror et al., "The hitchhiker's guide to testing statistical significance
    in NLP" (ACL 2018), for the permutation test.
    """
    check_confidence(confidence, resamples)
    predictions = _check_predictions(y_true, [first, second], metric, classes, unit)
    n = predictions.n
    first_metric, second_metric = predictions.metrics()

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        a, b = first_metric(weights), second_metric(weights)
        return {"first": a, "second": b, "difference": a - b}

    values = {name: float(value[0]) for name, value in statistics(np.ones((1, n))).items()}
    resampled = compute_in_chunks(statistics, resample_counts(n, resamples, np.random.default_rng(seed)))
    estimates = {name: Estimate(value, None, None, "one example", n, confidence) for name, value in values.items()}
    if n > 1:
        jackknife = compute_in_chunks(statistics, jackknife_weights(n, resamples))
        for name, value in values.items():
            estimate = Estimate(value, *bca(value, resampled[name], jackknife[name], confidence), n, confidence)
            estimates[name] = widen_constant(estimate, predictions.bounds, n)
    if metric == "accuracy":
        correct = [labels == predictions.y_true for labels in predictions.y_pred]
        for name, each in zip(("first", "second"), correct, strict=True):
            estimates[name] = wilson(int(each.sum()), n, confidence)
        p_value, test = _mcnemar_test(*correct), "exact McNemar"
    else:
        p_value = _permutation_test(predictions.pooled_metric(), n, permutations, np.random.default_rng(seed + 1))
        test = f"paired permutation, {permutations} permutations"
    return Comparison(
        metric, names, estimates["first"], estimates["second"], estimates["difference"], p_value, test, n,
        first_values=(values["first"],), second_values=(values["second"],),
    )  # fmt: skip


def over_seeds(values: Sequence[float], *, confidence: float = 0.95, metric: str | None = None) -> Estimate:
    """Return the mean over seeds with its t interval.

    It measures the randomness of training, not of the choice of test examples: do not confuse it with the interval over
    examples. Equal values have no interval: a few trainings that agree do not show that training is not random.

    Args:
        values: A metric, one value for each seed. If one is NaN, so is the mean: a failed training is never left out
            silently.
        confidence: Level of the interval.
        metric: A key of `METRICS`: the interval does not leave its range.

    Raises:
        ValueError: `values` is empty or not one-dimensional.

    Example:
        >>> print(over_seeds([0.75, 0.76, 0.77]))
        0.760 (95 % CI 0.735 to 0.785)
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"`values` must be one number for each seed. Received: {values!r}.")
    n, mean = len(array), float(array.mean())
    if not math.isfinite(mean):
        return Estimate(
            math.nan, None, None, f"undefined for {int((~np.isfinite(array)).sum())} of {n} seeds", n, confidence
        )
    if n < 2:
        return Estimate(mean, None, None, "1 seed: the variation between seeds is unknown", n, confidence)
    if np.ptp(array) <= 1e-12 * abs(mean):
        return Estimate(mean, None, None, f"all {n} seeds have the same value", n, confidence)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * array.std(ddof=1) / math.sqrt(n))
    estimate = Estimate(mean, mean - half, mean + half, f"t over {n} seeds", n, confidence)
    return estimate if metric is None else clip_interval(estimate, value_range(metric, num_classes=3))


def paired_over_seeds(
    y_true: Any,
    first: Sequence[Any],
    second: Sequence[Any],
    *,
    metric: str = "accuracy",
    classes: Sequence[Any] | None = None,
    unit: str = "word",
    names: tuple[str, str] = ("first", "second"),
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    r"""Compare two models, each trained with several seeds, on the same test examples.

    Seeds and examples are crossed samples: every trained model predicts every example. With D the mean over S seeds of the
    difference of the metric, and T_df independent t variables, the p value is

        P(|sqrt(a) T_f + sqrt(b) T_(n - 1)| >= |D|),     a = max(M, F) / S,     b = max(C, 0)

    and the interval holds the differences that it does not reject (Behrens and Fisher). As in the estimator of Obuchowski and
    Rockette, where several readers read the same medical images,

    - M is the variance of the metric between seeds, summed over both models, with f = (S - 1)(1 + (w - 1)^4 / 2) degrees of
      freedom, where Welch's would be (S - 1) w, with w between 1 and 2; these would not hold the level.
    - C is the covariance over the n examples between the differences of two seeds.
    - F = V / n - C is the variance between seeds that the choice of examples alone must give, with V the variance of the
      differences of single examples, to which two more differences as large as the largest are added (Bonett and Price). It
      is a floor: three seeds whose metrics agree by chance do not show that training is not random.

    A metric that is a mean over examples (accuracy, log loss, Brier score, MSE, MAE, MAPE) has exact variances; for any other
    one, the values of single examples are the pseudo-values of a jackknife. The level is held (a table of simulations is in
    docs/evaluation.md); with two or three seeds the test is conservative. If every example differs by the same amount at
    every seed, the p value is at least that of a sign test. If both models always predict the same, the interval is Wilson's.
    No interval leaves the range of the metric. With one seed the result is that of `paired`.

    Args:
        y_true: True classes or values (n,).
        first: Predictions of the first model, one array for each seed (see `paired`).
        second: Predictions of the second model, in the same order of seeds.
        metric: A key of `METRICS`.
        classes: Class names, as in `paired`.
        unit: As in `paired`.
        names: Names of the two models.
        confidence: Level of the interval.
        resamples: With one seed, number of resamples; else the largest number of groups of examples that the jackknife
            leaves out in turn.
        seed: Seed of the resampling with one seed.

    Raises:
        ValueError: The models have different numbers of seeds, or as in `paired`.

    Example:
        >>> y_true = [0, 1, 1, 0, 1, 0]
        >>> first = [[0, 1, 1, 0, 1, 0], [0, 1, 1, 0, 1, 1]]
        >>> second = [[0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 1, 1]]
        >>> result = paired_over_seeds(y_true, first, second)
        >>> result.seeds, round(result.difference.value, 3)
        (2, 0.167)

    Obuchowski and Rockette, Communications in Statistics: Simulation and Computation 24 (1995), 285-308; Fisher, Annals of
    Eugenics 6 (1935), 391-398, after Behrens (1929); Welch, Biometrika 29 (1938), 350-362; Bonett and Price, Journal of
    Educational and Behavioral Statistics 37 (2012), 479-488.
    """
    if len(first) != len(second) or len(first) == 0:
        raise ValueError(
            f"Both models must have the same number of seeds, at least 1. Received: {len(first)} and {len(second)}. "
            "Compare the seeds that both have."
        )
    if len(first) == 1:
        return paired(
            y_true, first[0], second[0], metric=metric, classes=classes, unit=unit, names=names, confidence=confidence,
            resamples=resamples, seed=seed,
        )  # fmt: skip
    check_confidence(confidence, resamples)
    predictions = _check_predictions(y_true, [*first, *second], metric, classes, unit)
    n, seeds = predictions.n, len(first)
    values, example_values = predictions.example_values(resamples)
    difference, p_value = _compare_crossed(values, example_values, predictions.bounds, n, confidence)
    means = [
        over_seeds(each.tolist(), confidence=confidence, metric=metric) for each in (values[:seeds], values[seeds:])
    ]
    return Comparison(
        metric, names, means[0], means[1], difference, p_value, "Behrens-Fisher over seeds and examples", n, seeds,
        tuple(values[:seeds].tolist()), tuple(values[seeds:].tolist()),
    )  # fmt: skip


def _mcnemar_test(first: np.ndarray, second: np.ndarray) -> float:
    """Return the exact two-sided p value of McNemar's test of two arrays of correct predictions (n,); 1 if they are equal."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def _permutation_test(pooled: WeightedMetric, n: int, permutations: int, rng: np.random.Generator) -> float:
    """Return the two-sided p value of a permutation test that swaps the two models' predictions of single examples."""

    def difference(first: np.ndarray) -> np.ndarray:
        return pooled(np.hstack([first, 1 - first])) - pooled(np.hstack([1 - first, first]))

    observed = abs(float(difference(np.ones((1, n)))[0]))
    if math.isnan(observed):
        return math.nan
    rows, extreme, done = max(1, 2_000_000 // n), 0, 0
    while done < permutations:
        rows = min(rows, permutations - done)
        permuted = difference(rng.integers(2, size=(rows, n)).astype(np.float64))
        extreme += int((np.abs(permuted) >= observed * (1 - 1e-9) - 1e-12).sum())
        done += rows
    return (extreme + 1) / (permutations + 1)


def _compare_crossed(
    values: np.ndarray, example_values: np.ndarray, bounds: tuple[float, float], n: int, confidence: float
) -> tuple[Estimate, float]:
    """Return the mean difference with its interval over seeds and examples, and its p value.

    Args:
        values: The metric of the first model at each seed, then of the second (2 S,).
        example_values: For each of them, values of the examples whose mean it is (2 S, n).
        bounds: The smallest and largest possible difference.
        n: Number of examples.
        confidence: Level of the interval.
    """
    seeds = len(values) // 2
    mean = float(np.mean(values[:seeds] - values[seeds:]))
    if n < 2:
        return Estimate(mean, None, None, "one example", n, confidence), 1.0 if math.isfinite(mean) else math.nan
    if not math.isfinite(mean):
        return Estimate(mean, None, None, "undefined on these examples", n, confidence), math.nan
    if not np.isfinite(example_values).all():
        return Estimate(mean, None, None, "undefined without one of the examples", n, confidence), math.nan
    method = f"Behrens-Fisher over {seeds} seeds and {n} examples"
    first, second = example_values[:seeds], example_values[seeds:]
    differences = first - second
    if not differences.any():
        return widen_constant(Estimate(mean, mean, mean, method, n, confidence), bounds, n), 1.0
    components = variance_components(first, second)
    half, p_value = behrens_fisher_half_width(components, confidence), float(behrens_fisher_p_value(components))
    if np.ptp(differences) < 1e-12 * np.abs(differences).max():
        p_value = max(p_value, 2.0 ** (1 - n))  # of a sign test
    return clip_interval(Estimate(mean, mean - half, mean + half, method, n, confidence), bounds), p_value


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for multiple tests by Holm's step-down method; NaN stays NaN and is not counted.

    Args:
        p_values: The uncorrected p values of one family of tests.

    Raises:
        ValueError: A p value is not between 0 and 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    array = np.asarray(p_values, dtype=np.float64)
    if np.any((array < 0) | (array > 1)):
        raise ValueError(f"`p_values` must lie between 0 and 1. Received: {list(p_values)}.")
    defined = np.flatnonzero(~np.isnan(array))
    order = defined[np.argsort(array[defined], kind="stable")]
    scaled = array[order] * np.arange(len(order), 0, -1)
    corrected = array.copy()
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected.tolist()


@dataclass(frozen=True)
class _Predictions:
    """Predictions of M models on the same examples, and the metric to compute from them.

    Args:
        y_true: True classes (n,) or values (n, D).
        y_pred: For each model its labels (n,), probabilities (n, K) or values (n, D).
        build: Takes true classes or values and predictions, returns the metric as a function of weights.
        bounds: The smallest and largest possible difference of two models.
        losses: Takes the same, returns the values of the examples (n,) if the metric is their mean; None if it is not.
    """

    y_true: np.ndarray
    y_pred: tuple[np.ndarray, ...]
    build: Callable[[np.ndarray, np.ndarray], WeightedMetric]
    bounds: tuple[float, float]
    losses: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

    @property
    def n(self) -> int:
        """Number of test examples."""
        return len(self.y_true)

    def metrics(self) -> list[WeightedMetric]:
        """Return the metric of each model as a function of weights (R, n)."""
        return [self.build(self.y_true, y_pred) for y_pred in self.y_pred]

    def example_values(self, groups: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the metric of each model (M,), and values of the examples (M, n) whose mean it is.

        If the metric is not a mean they are pseudo-values of the jackknife, of at most `groups` groups of examples; NaN if the
        metric is undefined without a group.
        """
        if self.losses is not None:
            values = np.stack([self.losses(self.y_true, y_pred) for y_pred in self.y_pred]).astype(np.float64)
            return values.mean(1), values
        metrics = self.metrics()

        def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
            return {"values": np.stack([metric(weights) for metric in metrics], axis=1)}

        values = statistics(np.ones((1, self.n)))["values"][0]
        if self.n < 2:
            return values, values[:, None]
        left_out = compute_in_chunks(statistics, jackknife_weights(self.n, groups))["values"].T  # (M, groups)
        pseudo_values = (left_out.shape[1] - 1) * (left_out.mean(1, keepdims=True) - left_out)
        return values, values[:, None] + pseudo_values

    def pooled_metric(self) -> WeightedMetric:
        """Return the metric of all models' predictions together as a function of weights (R, M * n)."""
        return self.build(np.concatenate([self.y_true] * len(self.y_pred)), np.concatenate(self.y_pred))


def _check_predictions(
    y_true: Any, predictions: Sequence[Any], metric: str, classes: Sequence[Any] | None, unit: str = "word"
) -> _Predictions:
    """Check the predictions of several models and prepare a metric of them.

    Args:
        y_true: True classes (n,) or values (n,).
        predictions: For each model labels (n,), probabilities (n, K) or (n,), or values.
        metric: A key of `METRICS`.
        classes: Class names, or None to infer them.
        unit: "word" or "character", for translations.
    """
    comparable = [name for name in METRICS if name not in ("mase", "pinball")]
    if metric not in comparable:
        hint = " Compare the mean absolute error instead of MASE, which is scaled by a constant." * (metric == "mase")
        raise ValueError(f"`metric` must be one of {', '.join(comparable)}. Received: {metric!r}.{hint}")
    largest = value_range(metric)[1] - value_range(metric)[0]
    bounds = -largest, largest
    if metric in TRANSLATION_METRICS:
        references = check_references(y_true)
        values = tuple(sentence_statistics(metric, references, prediction, unit) for prediction in predictions)
        build = translation_metric(metric, unit)
        losses = (lambda _, p: p[:, 0]) if metric == "exact_match" else None
        return _Predictions(np.zeros(len(references)), values, lambda _, p: build(p), bounds, losses)
    if metric in _REGRESSION_METRICS:
        pairs = [validation.check_values(y_true, prediction) for prediction in predictions]
        values = tuple(prediction for _, prediction in pairs)
        losses = (lambda t, p: regression_losses(t, p)[metric]) if metric in ("mse", "mae", "mape", "smape") else None
        return _Predictions(
            pairs[0][0], values, lambda t, p: _select(metric, regression_statistics(t, p)), bounds, losses
        )
    arrays = [np.asarray(prediction) for prediction in predictions]
    names = validation.check_class_names(classes if classes is not None else _infer_classes(y_true, arrays))
    targets = validation.check_labels(y_true, names, "y_true")
    if metric in PROBABILITY_METRICS:
        eps = max(validation.machine_epsilon(array) for array in arrays)
        probabilities = tuple(_check_probabilities(array, names, len(targets), metric) for array in arrays)
        losses = (lambda t, p: probability_losses(metric, t, p, eps)) if metric in ("log_loss", "brier") else None
        return _Predictions(targets, probabilities, lambda t, p: probability_score(metric, t, p, eps), bounds, losses)
    labels = tuple(_check_labels(array, names, len(targets)) for array in arrays)
    losses = np.equal if metric == "accuracy" else None
    return _Predictions(targets, labels, lambda t, p: _select(metric, label_scores(t, p, len(names))), bounds, losses)


def _select(metric: str, statistics: Callable[[np.ndarray], dict[str, np.ndarray]]) -> WeightedMetric:
    return lambda weights: statistics(weights)[metric]


def _infer_classes(y_true: Any, arrays: list[np.ndarray]) -> list[Any]:
    """Return one class for each column of probabilities, or the labels that occur."""
    columns = {array.shape[1] for array in arrays if array.ndim == 2 and array.shape[1] > 1}
    if columns:
        return list(range(max(columns)))
    targets = np.asarray(y_true)
    if targets.dtype.kind in "USOT":
        return sorted({str(value) for array in [targets, *arrays] for value in array.ravel().tolist()})
    if any(array.dtype.kind == "f" for array in arrays):
        return [0, 1]
    largest = max(int(array.max()) for array in [targets, *arrays] if array.size)
    return list(range(max(2, largest + 1)))


def _check_probabilities(array: np.ndarray, names: tuple[str, ...], n: int, metric: str) -> np.ndarray:
    if array.dtype.kind != "f":
        raise ValueError(
            f"{METRICS[metric].label} needs probabilities, shape (n, K) or (n,). Received: dtype {array.dtype}. "
            "Pass what the model predicts before argmax."
        )
    return validation.check_probabilities(array, len(names), n, "prediction")


def _check_labels(array: np.ndarray, names: tuple[str, ...], n: int) -> np.ndarray:
    if array.dtype.kind == "f":
        return validation.check_probabilities(array, len(names), n, "prediction").argmax(1)
    labels = validation.check_labels(array, names, "prediction")
    if len(labels) != n:
        raise ValueError(f"There must be one prediction for each of {n} examples. Received: {len(labels)}.")
    return labels
