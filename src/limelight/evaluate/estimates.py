"""Estimates with confidence intervals: a bootstrap over examples that resamples weights.

A resample of n examples is a row of n counts. A metric is a function of weighted examples and computes all rows of counts
at once: a thousand resamples of a dozen metrics take about a second.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from limelight._formatting import format_decimals, to_finite

# Takes weights of examples (R, n), returns the values of each metric, (R,) or (R, K).
Statistics = Callable[[np.ndarray], dict[str, np.ndarray]]

_CHUNK = 2_000_000  # number of counts in memory: 16 MB of float64
# With fewer examples the resamples of a mean are too few different ones, and many are nearly constant.
_MIN_STUDENTIZED = 10


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Args:
        value: The point estimate; NaN if the metric is undefined on these examples.
        low: Lower end of the interval, or None if there is none.
        high: Upper end of the interval, or None if there is none.
        method: The method that gave the interval, or the reason why there is none.
        n: Number of units (examples or seeds).
        confidence: The level of the interval.

    Example:
        >>> print(Estimate(0.774, 0.748, 0.798, "Wilson", 1061))
        0.774 (95 % CI 0.748 to 0.798)
    """

    value: float
    low: float | None
    high: float | None
    method: str
    n: int
    confidence: float = 0.95

    def to_dict(self) -> dict[str, Any]:
        """Return values that JSON can hold; an undefined number is None."""
        return {
            "value": to_finite(self.value),
            "low": to_finite(self.low),
            "high": to_finite(self.high),
            "confidence": self.confidence,
            "method": self.method,
            "n": self.n,
        }

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"undefined ({self.method})"
        if self.low is None or self.high is None:
            return f"{format_decimals(self.value)} (no interval: {self.method})"
        value, low, high = map(format_decimals, (self.value, self.low, self.high))
        return f"{value} ({100 * self.confidence:g} % CI {low} to {high})"


def check_confidence(confidence: float, resamples: int) -> None:
    """Check a confidence level and a number of resamples.

    Raises:
        ValueError: `confidence` is not between 0 and 1, or `resamples` is below 100.
    """
    if not 0 < confidence < 1:
        raise ValueError(
            f"`confidence` must lie between 0 and 1. Received: {confidence}. Use 0.95 for a 95 % interval."
        )
    if resamples < 100:
        raise ValueError(
            f"`resamples` must be at least 100. Received: {resamples}. Use 1000 or more for reported numbers."
        )


def wilson(successes: float, n: int, confidence: float = 0.95) -> Estimate:
    """Return a proportion with Wilson's score interval.

    Args:
        successes: Number of successes; of a mean of n shares their sum. The shares of groups vary at most as much as single
            trials do, so the interval is then conservative, however alike the members of a group are.
        n: Number of trials, at least 1.
        confidence: Level of the interval.

    Example:
        >>> print(wilson(8, 10))
        0.800 (95 % CI 0.490 to 0.943)
    """
    # scipy's interval takes whole numbers of successes only.
    share, z = successes / n, float(stats.norm.ppf((1 + confidence) / 2))
    center = (successes + z**2 / 2) / (n + z**2)
    half = z * math.sqrt(n * share * (1 - share) + z**2 / 4) / (n + z**2)
    low, high = (0.0 if share == 0 else center - half), (1.0 if share == 1 else center + half)
    return Estimate(share, low, high, "Wilson", n, confidence)


def unseen_share(n: float, confidence: float) -> float:
    """Return how frequent what none of n examples shows may be, by Wilson's interval: z^2 / (n + z^2).

    At 95 % it is about 3.8 / n, which is close to the rule of three for each of the two sides.
    """
    z = float(stats.norm.ppf((1 + confidence) / 2))
    return z**2 / (n + z**2)


def clip_interval(estimate: Estimate, bounds: tuple[float, float]) -> Estimate:
    """Return the estimate with an interval that holds no value outside `bounds`."""
    if estimate.low is None or estimate.high is None:
        return estimate
    low, high = (min(max(end, bounds[0]), bounds[1]) for end in (estimate.low, estimate.high))
    return dataclasses.replace(estimate, low=low, high=high)


def widen_constant(estimate: Estimate, bounds: tuple[float, float], n: float, share: float = 1.0) -> Estimate:
    """Return the estimate with an interval of some width if it has none because all resamples have the same value.

    All resamples of a perfect prediction are perfect, and so are those of two equal predictions. The share of other examples
    that n examples without any still permit is Wilson's, and they may lie anywhere within the bounds. A metric without two finite
    bounds has no interval then.

    Args:
        estimate: An estimate with its interval.
        bounds: The smallest and largest possible value.
        n: Number of examples that could have shown an error.
        share: The weight of these examples in the metric: 1 / K if they are those of one of K classes.
    """
    if estimate.low is None or estimate.high is None or estimate.high - estimate.low > 1e-12:
        return estimate
    if not all(map(math.isfinite, bounds)):
        return dataclasses.replace(estimate, low=None, high=None, method="all resamples have the same value")
    value, others = estimate.value, share * unseen_share(n, estimate.confidence)
    low, high = (value + others * (end - value) for end in bounds)
    method = "Wilson, as all resamples have the same value"
    return clip_interval(dataclasses.replace(estimate, low=low, high=high, method=method), bounds)


def resample_counts(n: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield counts (chunk, n) of each example in each resample, in chunks that fit in memory."""
    rows = max(1, min(resamples, _CHUNK // n))
    for start in range(0, resamples, rows):
        chunk = min(rows, resamples - start)
        drawn = rng.integers(n, size=(chunk, n)) + n * np.arange(chunk)[:, None]
        yield np.bincount(drawn.ravel(), minlength=chunk * n).reshape(chunk, n).astype(np.float64)


def jackknife_weights(n: int, groups: int) -> Iterator[np.ndarray]:
    """Yield weights (chunk, n) of the jackknife: each row leaves out one of `groups` interleaved groups of examples.

    With as many groups as examples this is the ordinary jackknife. For a smooth statistic the grouped one has the same
    acceleration, because the skewness of group sums falls with the number of groups.
    """
    groups = min(n, groups)
    rows = max(1, min(groups, _CHUNK // n))
    group_of_example = np.arange(n) % groups
    for start in range(0, groups, rows):
        yield (group_of_example != np.arange(start, min(start + rows, groups))[:, None]).astype(np.float64)


def compute_in_chunks(statistics: Statistics, weights: Iterator[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the statistics of all chunks of weights, concatenated along the first axis."""
    chunks = [statistics(chunk) for chunk in weights]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def bca(
    value: float, resampled: np.ndarray, jackknife: np.ndarray, confidence: float = 0.95
) -> tuple[float | None, float | None, str]:
    """Return the bias-corrected and accelerated interval, or the percentile interval if that is undefined.

    Args:
        value: The statistic of the original examples.
        resampled: The statistic of each resample; NaN if it is undefined.
        jackknife: The statistic with each example (or group of examples) left out.
        confidence: Level of the interval.

    Returns:
        The ends of the interval, which reaches at least to `value`, and the name of the method. Both ends are None if fewer than
        half of the resamples have a value.

    Efron, "Better bootstrap confidence intervals", JASA 82 (1987), 171-185.
    """
    defined = resampled[np.isfinite(resampled)]
    if not math.isfinite(value) or 2 * defined.size < resampled.size or defined.size == 0:
        return None, None, "undefined in more than half of the resamples"
    note = f", {resampled.size} resamples"
    if defined.size < resampled.size:
        note += f" of which {resampled.size - defined.size} undefined"
    tail = (1 - confidence) / 2
    levels, method = np.array([tail, 1 - tail]), "percentile bootstrap"
    deviations = np.zeros(1)
    if np.isfinite(jackknife).any():
        deviations = np.nanmean(jackknife) - jackknife[np.isfinite(jackknife)]
    below = (np.count_nonzero(defined < value) + np.count_nonzero(defined <= value)) / (2 * defined.size)
    sum_of_squares = float((deviations**2).sum())
    if 0 < below < 1 and sum_of_squares > 1e-24:
        bias, acceleration = stats.norm.ppf(below), float((deviations**3).sum()) / (6 * sum_of_squares**1.5)
        shifted = bias + stats.norm.ppf(levels)
        adjusted = stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))
        if np.all(1 - acceleration * shifted > 0):
            levels, method = adjusted, "BCa bootstrap"
    low, high = np.quantile(defined, levels)
    # A statistic that is biased, such as a calibration error near 0, may lie outside its resamples.
    return min(float(low), value), max(float(high), value), method + note


def block_jackknife(statistics: Statistics, units: np.ndarray, *, confidence: float = 0.95) -> dict[str, Estimate]:
    """Return each statistic with its interval over units, such as series or blocks of time, whose examples are dependent.

    Each of the B units is left out in turn; the interval is a t interval of the B pseudo-values. With few units, which is
    what dependent data have, it covers better than a bootstrap.

    Args:
        statistics: Takes weights of examples (R, n), returns values (R,).
        units: The unit of each example (n,).
        confidence: Level of the intervals.

    Politis and Romano (1994) and Kunsch, Annals of Statistics 17 (1989), 1217-1241, for blocks of time.
    """
    names, unit_of_example = np.unique(units, return_inverse=True)
    n, count = len(units), len(names)
    values = statistics(np.ones((1, n)))
    rows = max(1, _CHUNK // n)
    chunks = (
        (unit_of_example != np.arange(start, min(start + rows, count))[:, None]).astype(np.float64)
        for start in range(0, count, rows)
    )
    left_out = compute_in_chunks(statistics, chunks) if count > 1 else values
    estimates = {}
    for name, value in values.items():
        without = left_out[name]
        if not math.isfinite(value[0]):
            estimates[name] = Estimate(math.nan, None, None, "undefined on these examples", n, confidence)
        elif count < 2 or not np.isfinite(without).all():
            reason = "one unit" if count < 2 else "undefined without one of the units"
            estimates[name] = Estimate(float(value[0]), None, None, reason, n, confidence)
        else:
            error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
            half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * error
            ends = float(value[0]) - half, float(value[0]) + half
            estimates[name] = Estimate(float(value[0]), *ends, f"jackknife over {count} units, t", n, confidence)
    return estimates


def bootstrap(
    statistics: Statistics, n: int, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate | list[Estimate]]:
    """Return each statistic with its BCa interval over examples.

    Args:
        statistics: Takes weights of examples (R, n); returns values (R,), or (R, K) for K values at once.
        n: Number of examples.
        confidence: Level of the intervals.
        resamples: Number of resamples.
        seed: Seed of the resampling: the same seed gives the same interval.

    Returns:
        For each name an `Estimate`, or a list of K estimates.

    Raises:
        ValueError: `confidence` is not between 0 and 1, or `resamples` is below 100.
    """
    check_confidence(confidence, resamples)
    values = statistics(np.ones((1, n)))
    resampled = compute_in_chunks(statistics, resample_counts(n, resamples, np.random.default_rng(seed)))
    jackknife = compute_in_chunks(statistics, jackknife_weights(n, resamples)) if n > 1 else values

    def estimate(value: float, resampled: np.ndarray, jackknife: np.ndarray) -> Estimate:
        if not math.isfinite(value):
            return Estimate(math.nan, None, None, "undefined on these examples", n, confidence)
        if n < 2:
            return Estimate(float(value), None, None, "one example", n, confidence)
        return Estimate(float(value), *bca(float(value), resampled, jackknife, confidence), n, confidence)

    estimates: dict[str, Estimate | list[Estimate]] = {}
    for name, value in values.items():
        columns = (value[0], resampled[name].T, jackknife[name].T)
        estimates[name] = (
            estimate(*columns) if value.ndim == 1 else [estimate(*column) for column in zip(*columns, strict=True)]
        )
    return estimates


def bootstrap_means(
    values: Mapping[str, np.ndarray],
    *,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    r"""Return the mean over examples of each array with its studentized bootstrap interval (bootstrap-t).

    Of each resample the mean is divided by its own standard error, $t^* = (\bar x^* - \bar x) / s^*$, and the interval is
    $\bar x - t^*_{1 - \alpha / 2}\, s$ to $\bar x - t^*_{\alpha / 2}\, s$. Of skewed values it covers better than the BCa
    interval, which takes the variance of few examples as known. With fewer than 10 examples it is a t interval, and BCa where
    too many resamples are constant. No interval leaves the bounds of its values; if all values are equal, see `widen_constant`.

    Args:
        values: Arrays (n,), or (n, K) for K means at once.
        bounds: The smallest and largest possible value of arrays that have any, by their name.
        confidence: Level of the intervals.
        resamples: Number of resamples.
        seed: Seed of the resampling: the same seed gives the same interval.

    Returns:
        For each name an `Estimate`, or a list of K estimates.

    Raises:
        ValueError: `confidence` is not between 0 and 1, or `resamples` is below 100.

    Example:
        >>> print(bootstrap_means({"mean": np.arange(20.0)})["mean"])
        9.500 (95 % CI 6.983 to 12.286)

    References:
        Hall 1988, Annals of Statistics 16, 927-953.
    """
    check_confidence(confidence, resamples)
    columns = np.concatenate([np.reshape(each, (len(each), -1)) for each in values.values()], axis=1).astype(np.float64)
    n, means = len(columns), columns.mean(0)
    estimates: list[Estimate] = []
    if n < 2:
        estimates = [Estimate(float(mean), None, None, "one example", n, confidence) for mean in means]
    else:
        deviations = columns - means
        counts = list(resample_counts(n, resamples, np.random.default_rng(seed)))
        shifts = np.concatenate([chunk @ deviations for chunk in counts]) / n
        squares = np.concatenate([chunk @ deviations**2 for chunk in counts]) / n
        errors = np.sqrt(np.maximum(squares - shifts**2, 0.0) / (n - 1))
        for column, mean in enumerate(means):
            parts = (deviations[:, column], shifts[:, column], errors[:, column])
            estimates.append(Estimate(float(mean), *_studentized(float(mean), *parts, confidence), n, confidence))
    results, start = {}, 0
    for name, each in values.items():
        width = int(np.prod(np.shape(each)[1:], dtype=int))
        limits = (bounds or {}).get(name, (-math.inf, math.inf))
        for index in range(start, start + width):
            estimates[index] = clip_interval(widen_constant(estimates[index], limits, n), limits)
        results[name] = estimates[start] if np.ndim(each) == 1 else estimates[start : start + width]
        start += width
    return results


def _studentized(
    mean: float, deviations: np.ndarray, shifts: np.ndarray, errors: np.ndarray, confidence: float
) -> tuple[float | None, float | None, str]:
    """Return the interval of a mean and its method.

    Args:
        mean: The mean of the values.
        deviations: The values less their mean (n,).
        shifts: The mean of each resample, less that of the values (R,).
        errors: The standard error of each resample (R,).
        confidence: Level of the interval.
    """
    n, tail = len(deviations), (1 - confidence) / 2
    error = float(np.sqrt((deviations**2).sum() / (n * (n - 1))))
    if not math.isfinite(mean):
        return None, None, "undefined on these examples"
    if n < _MIN_STUDENTIZED:
        half = float(stats.t.ppf(1 - tail, n - 1)) * error
        return mean - half, mean + half, "t"
    constant = errors <= 1e-6 * error
    if np.mean(constant & (np.abs(shifts) > 0)) > tail / 2 or error <= 1e-12 * max(abs(mean), 1e-12):
        jackknife = mean - deviations / (n - 1)
        return bca(mean, mean + shifts, jackknife, confidence)
    ratios = shifts[~constant] / errors[~constant]
    low, high = mean - error * np.quantile(ratios, [1 - tail, tail])
    return float(low), float(high), f"studentized bootstrap, {len(shifts)} resamples"


def average_groups(values: np.ndarray, groups: Sequence[Any] | np.ndarray | None) -> np.ndarray:
    """Return the mean of each group of rows (G, ...), in the order of the sorted groups; the values themselves without groups.

    Rows that are NaN are left out; a group of them alone is NaN.
    """
    if groups is None:
        return values
    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    values = np.asarray(values, np.float64)
    defined = np.isfinite(values)
    sums, counts = (np.zeros((numbers.max() + 1, *values.shape[1:])) for _ in range(2))
    np.add.at(sums, numbers, np.where(defined, values, 0.0))
    np.add.at(counts, numbers, defined)
    return np.divide(sums, counts, out=np.full_like(sums, math.nan), where=counts > 0)
