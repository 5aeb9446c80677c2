"""Agreement between two rankings of the same tokens."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from limelight.evaluate.estimates import Estimate, average_groups, bootstrap_means


def agreement(
    first: Sequence[Any],
    second: Sequence[Any],
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return the mean over examples of Kendall's tau-b between two rankings of an example's tokens, with its interval.

    Ties are counted as ties. Tokens whose score is NaN in either ranking (special tokens) are left out. An example in which a
    ranking is constant has no tau; the method says how many were left out.

    Args:
        first: For each example scores (T,), such as attention weights.
        second: The same, such as gradients or `leave_one_out`.
        groups: The group of each example, whose mean then counts as one.
        confidence: Level of the interval.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: The rankings have different numbers of examples or of tokens.

    Example:
        >>> agreement([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]], [[1, 2, 3], [5, 5, 9]]).value
        1.0

    Jain and Wallace, "Attention is not explanation" (arXiv:1902.10186). The mean tau is returned instead of their fraction
    of significant taus, which grows with the length of the text.
    """
    taus = kendall_taus(first, second)
    of_groups = average_groups(taus, groups)
    defined = of_groups[np.isfinite(of_groups)]
    if not defined.size:
        return Estimate(math.nan, None, None, "undefined: every ranking is constant", 0, confidence)
    bounds = {"tau": (-1.0, 1.0)}
    mean: Estimate = bootstrap_means(
        {"tau": defined}, bounds=bounds, confidence=confidence, resamples=resamples, seed=seed
    )["tau"]
    num_undefined = int((~np.isfinite(taus)).sum())
    note = f", {num_undefined} of {len(taus)} examples without a tau left out" if num_undefined else ""
    return Estimate(mean.value, mean.low, mean.high, mean.method + note, len(defined), confidence)


def kendall_taus(first: Sequence[Any], second: Sequence[Any]) -> np.ndarray:
    """Return tau-b of each example (n,); NaN where a ranking is constant. Arguments are those of `agreement`."""
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"`first` and `second` must rank the same number of examples, at least 1. "
            f"Received: {len(first)}, {len(second)}."
        )
    return np.array([_kendall_tau(*pair, index) for index, pair in enumerate(zip(first, second, strict=True))])


def _kendall_tau(first: Any, second: Any, index: int) -> float:
    """Return tau-b of two rankings of one example; NaN if one of them is constant."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"Both must rank the same tokens (T,). Received: {a.shape} and {b.shape} in example {index}.")
    defined = ~(np.isnan(a) | np.isnan(b))
    a, b = a[defined], b[defined]
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(stats.kendalltau(a, b, variant="b").statistic)
