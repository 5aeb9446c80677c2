"""What one distribution of weights is like, and how far two lie apart."""

from typing import Any

import numpy as np


def entropy(weights: Any, *, normalized: bool = False, counts: Any = None) -> np.ndarray:
    r"""Return how spread out weights are: $-\sum_j a_j \log a_j$ over the last axis, with $0 \log 0 = 0$.

    Args:
        weights: Weights (..., S), rows summing to one. A row of zeros (nothing to attend to) has entropy 0.
        normalized: Divide by log n, so that 1 is uniform; 0 where n is 1.
        counts: n (...), the keys that each row may attend to; by default S, which padding makes too large.

    Example:
        >>> entropy([[0.5, 0.5], [1.0, 0.0]], normalized=True)
        array([1., 0.])
    """
    shares = np.asarray(weights, dtype=np.float64)
    found = -np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)), axis=-1) + 0.0
    if not normalized:
        return found
    n = np.broadcast_to(shares.shape[-1] if counts is None else np.asarray(counts), found.shape)
    return np.divide(found, np.log(np.maximum(n, 2)), out=np.zeros_like(found), where=n > 1)


def distance(weights: Any, shift: int = 0) -> np.ndarray:
    r"""Return how far each query looks on average: $\sum_j a_{ij} |i + \mathrm{shift} - j|$.

    Args:
        weights: Weights (..., T, S).
        shift: The key position of the first query: S - T where queries and keys end together.

    Returns:
        Distances (..., T) in tokens.

    Example:
        >>> distance([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])
        array([0., 1., 2.])
    """
    shares = np.asarray(weights, dtype=np.float64)
    rows, columns = np.arange(shares.shape[-2])[:, None] + shift, np.arange(shares.shape[-1])
    return (shares * np.abs(rows - columns)).sum(-1)


def total_variation(first: Any, second: Any) -> np.ndarray:
    r"""Return the total variation distance of distributions, $\frac12 \sum_k |p_k - q_k|$ over the last axis: 0 to 1.

    Example:
        >>> float(total_variation([0.9, 0.1], [0.6, 0.4]).round(3))
        0.3
    """
    return np.abs(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)).sum(-1) / 2


def jensen_shannon(first: Any, second: Any) -> np.ndarray:
    r"""Return the Jensen-Shannon divergence of distributions in nats, over the last axis: 0 to $\log 2$.

    It is the divergence itself; `scipy.spatial.distance.jensenshannon` is its square root.

    Example:
        >>> float(jensen_shannon([1.0, 0.0], [0.0, 1.0]).round(3))
        0.693
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return np.maximum(entropy((one + two) / 2) - (entropy(one) + entropy(two)) / 2, 0.0)
