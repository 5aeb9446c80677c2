"""A number and how sure it is: estimates with intervals, by a bootstrap over examples that resamples weights.

A resample of n examples is a row of n counts. A metric is written once, for weighted examples, over all rows of counts
at the same time: that is what makes a thousand resamples of a dozen metrics a matter of a second.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

# A metric over weighted examples: weights of shape (R, n) to values of shape (R,) or (R, K).
Statistics = Callable[[np.ndarray], dict[str, np.ndarray]]

_CHUNK = 2_000_000  # counts held at a time: 16 MB of float64


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Args:
        value: The point estimate; NaN where the metric is undefined on these examples.
        low: Lower end of the interval, or None where there is none.
        high: Upper end of the interval, or None where there is none.
        method: How the interval was found, or why there is none.
        n: How many units (examples or seeds) it rests on.
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
        """Return plain values that are ready for JSON; an undefined number is None."""
        return {
            "value": plain(self.value),
            "low": plain(self.low),
            "high": plain(self.high),
            "confidence": self.confidence,
            "method": self.method,
            "n": self.n,
        }

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"undefined ({self.method})"
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (no interval: {self.method})"
        return f"{self.value:.3f} ({100 * self.confidence:g} % CI {self.low:.3f} to {self.high:.3f})"


def plain(value: float | None) -> float | None:
    """Return a float that JSON can hold: None for None, NaN and infinities."""
    return None if value is None or not math.isfinite(value) else float(value)


def check_confidence(confidence: float, resamples: int) -> None:
    """Raise where a confidence level or a number of resamples cannot be used."""
    if not 0 < confidence < 1:
        raise ValueError(
            f"`confidence` must lie between 0 and 1. Received: {confidence}. Use 0.95 for a 95 % interval."
        )
    if resamples < 100:
        raise ValueError(
            f"`resamples` must be at least 100. Received: {resamples}. Use 1000 or more for reported numbers."
        )


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Return a proportion with Wilson's score interval.

    Args:
        successes: Number of successes.
        n: Number of trials, at least 1.
        confidence: Level of the interval.

    Example:
        >>> print(wilson(8, 10))
        0.800 (95 % CI 0.490 to 0.943)
    """
    interval = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), "Wilson", n, confidence)


def resampled_counts(n: int, resamples: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield counts (chunk, n) of each example in each resample, in chunks that fit in memory."""
    rows = max(1, min(resamples, _CHUNK // n))
    for start in range(0, resamples, rows):
        chunk = min(rows, resamples - start)
        drawn = random.integers(n, size=(chunk, n)) + n * np.arange(chunk)[:, None]
        yield np.bincount(drawn.ravel(), minlength=chunk * n).reshape(chunk, n).astype(np.float64)


def left_out(n: int, groups: int) -> Iterator[np.ndarray]:
    """Yield weights (chunk, n) of the jackknife: each row leaves out one of `groups` interleaved groups of examples.

    With as many groups as examples it is the plain jackknife. For a smooth statistic the grouped one has the same
    acceleration, because the skewness of group sums falls as the number of groups does.
    """
    groups = min(n, groups)
    rows = max(1, min(groups, _CHUNK // n))
    member = np.arange(n) % groups
    for start in range(0, groups, rows):
        yield (member != np.arange(start, min(start + rows, groups))[:, None]).astype(np.float64)


def gather(statistics: Statistics, weights: Iterator[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the statistics of all chunks of weights, joined along the first axis."""
    parts = [statistics(chunk) for chunk in weights]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def bca(
    value: float, resampled: np.ndarray, jackknife: np.ndarray, confidence: float = 0.95
) -> tuple[float | None, float | None, str]:
    """Return the bias-corrected and accelerated interval, or the percentile interval where it is undefined.

    Args:
        value: The statistic on the examples as they are.
        resampled: The statistic on each resample; NaN where it was undefined.
        jackknife: The statistic with each example (or group of examples) left out.
        confidence: Level of the interval.

    Returns:
        The ends of the interval and the name of the method. Both ends are None where fewer than half of the resamples
        had a value.

    Efron, "Better bootstrap confidence intervals", JASA 82 (1987), 171-185.
    """
    good = resampled[np.isfinite(resampled)]
    if not math.isfinite(value) or 2 * good.size < resampled.size or good.size == 0:
        return None, None, "undefined in more than half of the resamples"
    note = f", {resampled.size} resamples"
    if good.size < resampled.size:
        note += f" of which {resampled.size - good.size} undefined"
    tail = (1 - confidence) / 2
    levels, name = np.array([tail, 1 - tail]), "percentile bootstrap"
    spread = np.nanmean(jackknife) - jackknife[np.isfinite(jackknife)] if np.isfinite(jackknife).any() else np.zeros(1)
    below = (np.count_nonzero(good < value) + np.count_nonzero(good <= value)) / (2 * good.size)
    scale = float((spread**2).sum())
    if 0 < below < 1 and scale > 1e-24:
        bias, acceleration = stats.norm.ppf(below), float((spread**3).sum()) / (6 * scale**1.5)
        shifted = bias + stats.norm.ppf(levels)
        adjusted = stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))
        if np.all(1 - acceleration * shifted > 0):
            levels, name = adjusted, "BCa bootstrap"
    low, high = np.quantile(good, levels)
    return float(low), float(high), name + note


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
        For each name an `Estimate`, or a list of K of them.
    """
    check_confidence(confidence, resamples)
    values = statistics(np.ones((1, n)))
    resampled = gather(statistics, resampled_counts(n, resamples, np.random.default_rng(seed)))
    jackknife = gather(statistics, left_out(n, resamples)) if n > 1 else values

    def estimate(value: float, drawn: np.ndarray, left: np.ndarray) -> Estimate:
        if not math.isfinite(value):
            return Estimate(math.nan, None, None, "undefined on these examples", n, confidence)
        if n < 2:
            return Estimate(float(value), None, None, "one example", n, confidence)
        return Estimate(float(value), *bca(float(value), drawn, left, confidence), n, confidence)

    estimates: dict[str, Estimate | list[Estimate]] = {}
    for name, value in values.items():
        drawn, left = resampled[name], jackknife[name]
        if value.ndim == 1:
            estimates[name] = estimate(value[0], drawn, left)
        else:
            estimates[name] = [estimate(value[0, k], drawn[:, k], left[:, k]) for k in range(value.shape[1])]
    return estimates
