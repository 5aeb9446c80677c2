"""Attention weights as distributions over keys, in numpy: softmax with a mask, entropy, divergence, the largest weights."""

from typing import Any

import numpy as np


def softmax(scores: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Compute a masked softmax over the last axis.

    Args:
        scores: (..., S).
        mask: bool, broadcastable to the scores; True means *may attend*. None permits everything.

    Returns:
        The weights (..., S), and the log of the sum of exponentials of each row (...). A row that permits nothing has weights 0
        and -inf.
    """
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    maximum = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    maximum = np.where(np.isfinite(maximum), maximum, 0)
    exponentials = np.exp(scores - maximum)
    total = exponentials.sum(axis=-1, keepdims=True)
    weights = exponentials / np.where(total == 0, 1, total)
    with np.errstate(divide="ignore"):
        return weights, (np.log(total) + maximum)[..., 0]


def entropy(weights: Any, *, normalized: bool = False, counts: Any = None) -> np.ndarray:
    r"""Return the entropy of weights in nats, $-\sum_j w_j \log w_j$ over the last axis, with $0 \log 0 = 0$.

    Args:
        weights: Weights (..., S), rows summing to one. A row of zeros (nothing to attend to) has entropy 0.
        normalized: Divide by log n, so that uniform weights have entropy 1; 0 if n is 1.
        counts: n (...), the number of keys that each row may attend to; by default S, which is too large for padded rows.

    Example:
        >>> entropy([[0.5, 0.5], [1.0, 0.0]], normalized=True)
        array([1., 0.])
    """
    weights = np.asarray(weights)
    weights = weights.astype(np.promote_types(weights.dtype, np.float32), copy=False)
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    nats = 0.0 - (weights * logs).sum(axis=-1)
    if not normalized:
        return nats
    n = np.broadcast_to(weights.shape[-1] if counts is None else np.asarray(counts), nats.shape)
    return np.divide(nats, np.log(np.maximum(n, 2)), out=np.zeros_like(nats), where=n > 1)


def distance(weights: Any, shift: int = 0) -> np.ndarray:
    r"""Return the mean distance between each query and the keys that it attends to: $\sum_j w_{ij} |i + \mathrm{shift} - j|$.

    Args:
        weights: Weights (..., T, S).
        shift: The key position of the first query: S - T if queries and keys are aligned at the end.

    Returns:
        Distances (..., T) in tokens.

    Example:
        >>> distance([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])
        array([0., 1., 2.])
    """
    weights = np.asarray(weights, dtype=np.float64)
    query_positions, key_positions = np.arange(weights.shape[-2])[:, None] + shift, np.arange(weights.shape[-1])
    return (weights * np.abs(query_positions - key_positions)).sum(-1)


def jensen_shannon(first: Any, second: Any) -> np.ndarray:
    r"""Return the Jensen-Shannon divergence of distributions over the last axis, in nats: 0 to $\log 2$.

    $$D(p, q) = H\big(\tfrac{p + q}{2}\big) - \tfrac{H(p) + H(q)}{2}$$

    It is the divergence itself; `scipy.spatial.distance.jensenshannon` is its square root.

    Example:
        >>> float(jensen_shannon([1.0, 0.0], [0.0, 1.0]).round(3))
        0.693
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return np.maximum(entropy((first + second) / 2) - (entropy(first) + entropy(second)) / 2, 0.0)


def total_variation(first: Any, second: Any) -> np.ndarray:
    r"""Return the total variation distance of distributions, $\frac12 \sum_k |p_k - q_k|$ over the last axis: 0 to 1.

    Example:
        >>> float(total_variation([0.9, 0.1], [0.6, 0.4]).round(3))
        0.3
    """
    return np.abs(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)).sum(-1) / 2


def top_k(weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k largest weights of each row (..., S), largest first, and their indices; the first of equals comes first.

    A weight of 0 has index -1.
    """
    if k < weights.shape[-1]:
        indices = np.argpartition(-weights, k - 1, axis=-1)[..., :k]
        indices.sort(axis=-1)
    else:
        indices = np.broadcast_to(np.arange(k), (*weights.shape[:-1], k))
    values = np.take_along_axis(weights, indices, axis=-1)
    order = np.argsort(-values, axis=-1, kind="stable")
    indices, values = (np.take_along_axis(array, order, axis=-1) for array in (indices, values))
    return values, np.where(values > 0, indices, -1).astype(np.int32)
