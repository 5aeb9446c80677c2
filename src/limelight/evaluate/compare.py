"""Is one model better than another, over the same test examples and over several seeds?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from limelight.evaluate.estimates import (
    Estimate,
    bca,
    check_confidence,
    gather,
    left_out,
    plain,
    resampled_counts,
    wilson,
)
from limelight.evaluate.measures import Measure, Measures, measures


@dataclass(frozen=True)
class Comparison:
    """The difference between two models on one metric.

    Args:
        metric: Name of the metric, a key of `METRICS`.
        names: Names of the first and the second model.
        first: The first model's value; over seeds, its mean with the t interval over seeds.
        second: The same of the second model.
        difference: first - second, with its interval.
        p_value: Two-sided p value of the hypothesis that there is no difference; NaN where it is undefined.
        test: The test that gave the p value.
        n: Number of test examples.
        seeds: Number of trainings of each model; 1 for a comparison of two sets of predictions.
        first_values: The first model's metric, one for each seed.
        second_values: The same of the second model.
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

    @property
    def shown(self) -> bool:
        """Whether a difference could be shown: the interval leaves out 0 and p is below 1 - confidence."""
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or math.isnan(self.p_value):
            return False
        return (low > 0 or high < 0) and self.p_value < 1 - self.difference.confidence

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that are ready for JSON."""
        return {
            "metric": self.metric,
            "names": list(self.names),
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
            "difference": self.difference.to_dict(),
            "p_value": plain(self.p_value),
            "test": self.test,
            "n": self.n,
            "seeds": self.seeds,
            "first_values": [plain(value) for value in self.first_values],
            "second_values": [plain(value) for value in self.second_values],
            "shown": self.shown,
        }


def paired(
    truth: Any,
    first: Any,
    second: Any,
    *,
    metric: str = "accuracy",
    classes: Sequence[Any] | None = None,
    names: tuple[str, str] = ("first", "second"),
    confidence: float = 0.95,
    resamples: int = 1000,
    permutations: int = 4999,
    seed: int = 0,
) -> Comparison:
    """Compare two models' predictions of the same test examples.

    The interval of the difference is a paired BCa bootstrap: both models are measured on the same resampled examples. The p
    value is McNemar's exact one for accuracy; for any other metric that of a permutation test that swaps the two models'
    predictions of an example at random.

    Args:
        truth: True classes (n,), or true values for a metric of regression.
        first: The first model's predictions: labels (n,), probabilities (n, K) or (n,), or values.
        second: The second model's.
        metric: A key of `METRICS`. Metrics of ranking and calibration need probabilities.
        classes: Class names; by default 0 to K - 1 for probabilities, or the sorted labels that occur.
        names: Names of the two models.
        confidence: Level of the interval.
        resamples: Number of bootstrap resamples.
        permutations: Number of permutations.
        seed: Seed of both.

    Raises:
        ValueError: An unknown metric, shapes that disagree, labels where probabilities are needed.

    Example:
        >>> result = paired([0, 1, 1, 0, 1], [0, 1, 1, 0, 1], [0, 1, 0, 0, 0], names=("attention", "pooling"))
        >>> round(result.difference.value, 3), result.p_value, result.test
        (0.4, 0.5, 'exact McNemar')

    McNemar, Psychometrika 12 (1947), 153-157; Dror et al., "The hitchhiker's guide to testing statistical significance
    in NLP" (ACL 2018), for the permutation test.
    """
    check_confidence(confidence, resamples)
    prepared = measures(truth, [first, second], metric, classes)
    n = prepared.n
    ours, theirs = prepared.each

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        a, b = ours(weights), theirs(weights)
        return {"first": a, "second": b, "difference": a - b}

    point = {name: float(value[0]) for name, value in difference(np.ones((1, n))).items()}
    drawn = gather(difference, resampled_counts(n, resamples, np.random.default_rng(seed)))
    ends = {name: Estimate(value, None, None, "one example", n, confidence) for name, value in point.items()}
    if n > 1:
        left = gather(difference, left_out(n, resamples))
        for name, value in point.items():
            ends[name] = Estimate(value, *bca(value, drawn[name], left[name], confidence), n, confidence)
    if metric == "accuracy":
        right = [labels == prepared.truth for labels in prepared.predicted]
        ends |= {
            name: wilson(int(hit.sum()), n, confidence) for name, hit in zip(("first", "second"), right, strict=True)
        }
        p_value, test = _mcnemar(*right), "exact McNemar"
    else:
        p_value = _permutation(prepared.pooled(), n, permutations, np.random.default_rng(seed + 1))
        test = f"paired permutation, {permutations} permutations"
    values = (point["first"],), (point["second"],)
    return Comparison(metric, names, ends["first"], ends["second"], ends["difference"], p_value, test, n, 1, *values)


def over_seeds(values: Sequence[float], *, confidence: float = 0.95) -> Estimate:
    """Return the mean over seeds with its t interval.

    It says how much the result depends on the training's chance, and nothing about the choice of test examples: keep
    it apart from the interval over examples.

    Args:
        values: A metric, one for each seed. Where one is NaN the mean is: a training that failed is never left out in
            silence.
        confidence: Level of the interval.

    Raises:
        ValueError: No value, or not one number for each seed.

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
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * array.std(ddof=1) / math.sqrt(n))
    return Estimate(mean, mean - half, mean + half, f"t over {n} seeds", n, confidence)


def paired_over_seeds(
    truth: Any,
    first: Sequence[Any],
    second: Sequence[Any],
    *,
    metric: str = "accuracy",
    classes: Sequence[Any] | None = None,
    names: tuple[str, str] = ("first", "second"),
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    r"""Compare two models, each trained with several seeds, on the same test examples.

    Seeds and examples are both samples, and they are crossed: every training meets every example. With
    D_s the difference of the metric at seed s, and S seeds, the estimator of Obuchowski and Rockette (readers of medical
    images read the same cases, as trainings here classify the same examples) is

        mean D  +-  t(df) * sqrt(M / S + max(C, 0)),     1 / df = (a^2 / (S - 1) + b^2 / (n - 1)) / (a + b)^2

    where M is the variance of D_s between seeds and C the covariance over examples between two seeds' differences, found
    by resampling the n examples once for all seeds; a = M / S, b = max(C, 0), and df are Satterthwaite's (Hillis's leave out
    b^2 / (n - 1), as if C were known however few the examples). It is near its level at three seeds (a little below at two);
    a bootstrap over seeds is not, it sees two thirds of the variance of three. Where every example differs by the same at
    every seed, the p value is that of a sign test. One seed falls back on `paired`.

    Args:
        truth: True classes or values (n,).
        first: The first model's predictions, one array for each seed (see `paired`).
        second: The second model's, in the same order of seeds.
        metric: A key of `METRICS`.
        classes: Class names, as in `paired`.
        names: Names of the two models.
        confidence: Level of the interval.
        resamples: Number of resamples of the examples.
        seed: Seed of the resampling.

    Raises:
        ValueError: The two models have different numbers of seeds, or as in `paired`.

    Example:
        >>> truth = [0, 1, 1, 0, 1, 0]
        >>> first = [[0, 1, 1, 0, 1, 0], [0, 1, 1, 0, 1, 1]]
        >>> second = [[0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 1, 1]]
        >>> result = paired_over_seeds(truth, first, second)
        >>> result.seeds, round(result.difference.value, 3)
        (2, 0.167)

    Obuchowski and Rockette, Communications in Statistics: Simulation and Computation 24 (1995), 285-308; Hillis, Statistics
    in Medicine 26 (2007), 596-619; Satterthwaite, Biometrics Bulletin 2 (1946), 110-114.
    """
    if len(first) != len(second) or len(first) == 0:
        raise ValueError(
            f"Both models must have the same number of seeds, at least 1. Received: {len(first)} and {len(second)}. "
            "Compare the seeds that both have."
        )
    if len(first) == 1:
        same: dict[str, Any] = {"metric": metric, "classes": classes, "names": names, "seed": seed}
        return paired(truth, first[0], second[0], confidence=confidence, resamples=resamples, **same)
    check_confidence(confidence, resamples)
    prepared = measures(truth, [*first, *second], metric, classes)
    n, seeds = prepared.n, len(first)
    values, drawn = _resampled(prepared, resamples, np.random.default_rng(seed))
    ours, theirs = values[:seeds], values[seeds:]
    difference, p_value = _crossed(ours - theirs, drawn[:, :seeds] - drawn[:, seeds:], n, confidence)
    means = [over_seeds(model.tolist(), confidence=confidence) for model in (ours, theirs)]
    test = "t of Obuchowski and Rockette over seeds and examples"
    both = tuple(ours.tolist()), tuple(theirs.tolist())
    return Comparison(metric, names, means[0], means[1], difference, p_value, test, n, seeds, *both)


def _resampled(prepared: Measures, resamples: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the metric of each of M models (M,), and on resamples of the examples, the same for all models (R, M)."""
    single = prepared.each

    def each(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"values": np.stack([measure(weights) for measure in single], axis=1)}

    values = each(np.ones((1, prepared.n)))["values"][0]
    return values, gather(each, resampled_counts(prepared.n, resamples, random))["values"]


def _mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Return the exact two-sided p value of McNemar's test; 1 where the models never disagree about being right."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def _permutation(pooled: Measure, n: int, permutations: int, random: np.random.Generator) -> float:
    """Return the two-sided p value of swapping, example by example, which model made a prediction."""

    def difference(first: np.ndarray) -> np.ndarray:
        return pooled(np.hstack([first, 1 - first])) - pooled(np.hstack([1 - first, first]))

    observed = abs(float(difference(np.ones((1, n)))[0]))
    if math.isnan(observed):
        return math.nan
    rows, extreme, done = max(1, 2_000_000 // n), 0, 0
    while done < permutations:
        rows = min(rows, permutations - done)
        drawn = difference(random.integers(2, size=(rows, n)).astype(np.float64))
        extreme += int((np.abs(drawn) >= observed * (1 - 1e-9) - 1e-12).sum())
        done += rows
    return (extreme + 1) / (permutations + 1)


def _crossed(differences: np.ndarray, drawn: np.ndarray, n: int, confidence: float) -> tuple[Estimate, float]:
    """Return the mean difference with its interval over seeds and examples, and its p value.

    Args:
        differences: The difference at each seed (S,).
        drawn: The same on each resample of the examples (R, S).
        n: Number of examples.
        confidence: Level of the interval.
    """
    seeds, mean = len(differences), float(differences.mean())
    if n < 2:
        return Estimate(mean, None, None, "one example", n, confidence), 1.0 if math.isfinite(mean) else math.nan
    drawn = drawn[np.isfinite(drawn).all(1)]
    if not math.isfinite(mean) or len(drawn) < 2:
        return Estimate(mean, None, None, "undefined on these examples", n, confidence), math.nan
    between = float(differences.var(ddof=1))
    covariances = np.cov(drawn, rowvar=False)
    # A resample of n examples varies by (n - 1) / n of what another sample would.
    shared = max(float(covariances[~np.eye(seeds, dtype=bool)].mean()), 0.0) * n / (n - 1)
    variance = between / seeds + shared
    method = f"t over {seeds} seeds and {n} examples (Obuchowski and Rockette)"
    if variance <= 1e-24:
        return Estimate(mean, mean, mean, method, n, confidence), 1.0 if mean == 0 else 2.0 ** (1 - n)
    freedom = variance**2 / ((between / seeds) ** 2 / (seeds - 1) + shared**2 / (n - 1))
    error = math.sqrt(variance)
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return Estimate(mean, mean - half, mean + half, method, n, confidence), float(
        2 * stats.t.sf(abs(mean) / error, freedom)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's step-down method; NaN stays NaN and is not counted.

    Args:
        p_values: The raw p values of one family of tests.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    array = np.asarray(p_values, dtype=np.float64)
    if np.any((array < 0) | (array > 1)):
        raise ValueError(f"`p_values` must lie between 0 and 1. Received: {list(p_values)}.")
    known = np.flatnonzero(~np.isnan(array))
    order = known[np.argsort(array[known], kind="stable")]
    steps = array[order] * np.arange(len(order), 0, -1)
    corrected = array.copy()
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected.tolist()
