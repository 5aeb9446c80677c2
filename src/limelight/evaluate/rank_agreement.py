"""Does attention agree with other accounts of what mattered, and does it matter to the prediction at all?"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from limelight.evaluate.distributions import total_variation
from limelight.evaluate.estimates import Estimate, bootstrap
from limelight.evaluate.perturbation import Delete, Replace

# Examples of any lengths, each (T, ...), to their probabilities (m, K). A trained model in inference mode: no dropout.
Predict = Callable[[list[np.ndarray]], Any]

# The number of an example and weights (m, T) that are forced on its attention, to probabilities (m, K).
Reweigh = Callable[[int, np.ndarray], Any]

BATCH = 1024  # examples predicted at a time


def predicted(predict: Predict, examples: Sequence[np.ndarray]) -> np.ndarray:
    """Return probabilities (m, K) of examples, a thousand at a time.

    Raises:
        ValueError: Not one row for each example, or values that are no probabilities.
    """
    parts = []
    for start in range(0, len(examples), BATCH):
        batch = list(examples[start : start + BATCH])
        part = np.asarray(predict(batch), dtype=np.float64)
        if part.ndim != 2 or len(part) != len(batch) or part.shape[1] < 2:
            raise ValueError(
                f"`predict` must return probabilities (m, K), one row for each of m = {len(batch)} examples, K > 1. "
                f"Received: shape {part.shape}. For one sigmoid p return [1 - p, p]."
            )
        if not np.isfinite(part).all() or part.min() < 0 or np.abs(part.sum(1) - 1).max() > 1e-3:
            raise ValueError(
                "`predict` must return probabilities, rows summing to 1. "
                f"Received: values from {part.min():.4g} to {part.max():.4g}, sums from {part.sum(1).min():.4g} to "
                f"{part.sum(1).max():.4g}."
            )
        parts.append(part)
    return np.concatenate(parts)


def leave_one_out(
    predict: Predict, examples: Sequence[Any], *, removal: Delete | Replace | None = None
) -> list[np.ndarray]:
    """Return for each token how far the prediction moves when that token alone is taken away.

    Args:
        predict: Takes a list of examples (T, ...), returns probabilities (m, K).
        examples: The examples, arrays (T, ...).
        removal: How a token is taken away; `Delete()` by default.

    Returns:
        For each example an array (T,): the total variation distance of its prediction with and without the token.

    Example:
        >>> def predict(batch):
        ...     share = np.array([np.mean(example == 7) for example in batch])
        ...     return np.stack([1 - share, share], axis=1)
        >>> leave_one_out(predict, [np.array([7, 1])])[0]
        array([0.5, 0.5])
    """
    removal = removal or Delete()
    arrays = [np.asarray(example) for example in examples]
    base = predicted(predict, arrays)
    without = [removal(array, np.arange(len(array)) != place) for array in arrays for place in range(len(array))]
    moved = predicted(predict, without) if without else np.zeros((0, base.shape[1]))
    owner = np.repeat(np.arange(len(arrays)), [len(array) for array in arrays])
    found = total_variation(moved, base[owner])
    return np.split(found, np.cumsum([len(array) for array in arrays])[:-1])


def agreement(
    first: Sequence[Any],
    second: Sequence[Any],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return the mean over examples of Kendall's tau-b between two rankings of an example's tokens, with its interval.

    Ties are counted as ties. Examples in which a ranking is constant have no tau; the method says how many were left out.

    Args:
        first: For each example scores (T,), such as attention weights.
        second: The same, such as gradients or `leave_one_out`.
        confidence: Level of the interval.
        resamples: Number of bootstrap resamples of the examples.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: Numbers of examples or of tokens that differ.

    Example:
        >>> agreement([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]], [[1, 2, 3], [5, 5, 9]]).value
        1.0

    Jain and Wallace, "Attention is not explanation" (arXiv:1902.10186). The mean tau is given instead of their share of
    significant taus, which grows with the length of the text.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"There must be as many first as second rankings, at least 1. Received: {len(first)}, {len(second)}."
        )
    taus = []
    for place, (one, two) in enumerate(zip(first, second, strict=True)):
        a, b = np.asarray(one, dtype=np.float64), np.asarray(two, dtype=np.float64)
        if a.shape != b.shape or a.ndim != 1:
            raise ValueError(
                f"Both must rank the same tokens (T,). Received: {a.shape} and {b.shape} in example {place}."
            )
        constant = len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0
        taus.append(math.nan if constant else float(stats.kendalltau(a, b, variant="b").statistic))
    known = np.array([tau for tau in taus if math.isfinite(tau)])
    if not known.size:
        return Estimate(math.nan, None, None, "undefined: every ranking is constant", 0, confidence)
    found = bootstrap(
        lambda weights: {"tau": weights @ known / weights.sum(1)},
        len(known), confidence=confidence, resamples=resamples, seed=seed,
    )["tau"]  # fmt: skip
    left_out = len(taus) - len(known)
    note = f"{found.method}, {left_out} of {len(taus)} examples without a tau left out" if left_out else found.method  # type: ignore[union-attr]
    return Estimate(found.value, found.low, found.high, note, len(known), confidence)  # type: ignore[union-attr]


def permutation_test(
    reweigh: Reweigh, attention: Sequence[Any], *, permutations: int = 100, seed: int = 0
) -> np.ndarray:
    """Return for each example how far its prediction moves when its attention weights change places.

    A small value says that the prediction does not depend on which token has which weight.

    Args:
        reweigh: Takes the number of an example and weights (m, T) forced on its attention, returns probabilities (m, K).
        attention: For each example its attention weights (T,).
        permutations: Number of permutations of each.
        seed: Seed of the permutations.

    Returns:
        For each example the median over permutations of the total variation distance to its own prediction (N,).

    Example:
        >>> values = np.array([0.0, 1.0])
        >>> def reweigh(example, weights):
        ...     share = weights @ values
        ...     return np.stack([1 - share, share], axis=1)
        >>> permutation_test(reweigh, [[0.5, 0.5]])
        array([0.])

    Jain and Wallace (arXiv:1902.10186), section 4.2.1.
    """
    random, found = np.random.default_rng(seed), []
    for place, own in enumerate(attention):
        weights = np.asarray(own, dtype=np.float64)
        tried = np.vstack([weights, random.permuted(np.tile(weights, (permutations, 1)), axis=1)])
        chances = np.asarray(reweigh(place, tried), dtype=np.float64)
        if chances.ndim != 2 or len(chances) != len(tried):
            raise ValueError(
                f"`reweigh` must return probabilities (m, K) for weights (m, T), m = {len(tried)}. "
                f"Received: shape {chances.shape}."
            )
        found.append(np.median(total_variation(chances[1:], chances[0])))
    return np.array(found)
