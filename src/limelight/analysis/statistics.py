"""What each head does, in one number or one for each key. All go through the weights in blocks, at any length."""

import numpy as np

from limelight.maps import AttentionMap
from limelight.maps.statistics import row_entropy


def entropy(seen: AttentionMap, normalized: bool = False) -> np.ndarray:
    r"""How spread out each head's attention is: $-\sum_j w_{ij} \log w_{ij}$ in nats, the mean over queries.

    Args:
        seen: the map.
        normalized: whether each row is divided by the largest entropy that it could have, the log of the number of keys that it
            gives any weight; then 0 is one key alone and 1 is all alike.

    Returns:
        (N,). Queries without attention (padding) do not count, and for `normalized` neither do those with a single key.

    Example:
        >>> import numpy as np
        >>> from limelight import AttentionMap, analysis
        >>> print(analysis.entropy(AttentionMap.of(np.full((2, 4), 0.25)), normalized=True))
        [1.]
    """
    total, count = np.zeros(seen.heads), np.zeros(seen.heads)
    for _, _, weights, _ in seen.blocks():
        rows, keys = row_entropy(weights), (weights > 0).sum(axis=-1)
        counted = keys > (1 if normalized else 0)
        rows = rows / np.log(np.maximum(keys, 2)) if normalized else rows
        total += np.where(counted, rows, 0).sum(axis=-1)
        count += counted.sum(axis=-1)
    return mean(total, count)


def distance(seen: AttentionMap) -> np.ndarray:
    r"""How far each head looks: $\sum_j w_{ij} |i - j|$ in positions, the mean over queries.

    Queries count from the first key, or end with the last one where the layer aligns them so.

    Returns:
        (N,). Queries without attention do not count.
    """
    total, count = np.zeros(seen.heads), np.zeros(seen.heads)
    columns, shift = np.arange(seen.shape[-1]), seen.source.allowed.shift
    for _, rows, weights, _ in seen.blocks():
        apart = np.abs(columns[None] - (rows[:, None] + shift))
        total += np.einsum("nts,ts->n", weights.astype(np.float64), apart)
        count += (weights.sum(axis=-1) > 0).sum(axis=-1)
    return mean(total, count)


def received(seen: AttentionMap) -> np.ndarray:
    r"""How much attention each key gets from those queries that may look at it.

    $$\alpha_j = \frac{1}{|\{i : w_{ij} > 0\}|} \sum_i w_{ij}$$

    Returns:
        (B, N, S). For causal attention this is the importance score of Gu et al. 2024.

    References:
        Gu et al. 2024, arXiv:2410.10781.
    """
    shape = (*seen.shape[:-2], seen.shape[-1])
    total, count = np.zeros(shape), np.zeros(shape)
    for example, _, weights, _ in seen.blocks():
        total[example] += weights.sum(axis=1, dtype=np.float64)
        count[example] += (weights > 0).sum(axis=1)
    return mean(total, count)


def sinks(seen: AttentionMap, threshold: float = 0.3) -> np.ndarray:
    """Which keys are sinks: keys that get more than their share, whatever the query.

    Args:
        seen: the map.
        threshold: what `received` must exceed.

    Returns:
        bool (B, N, S). A key that fewer than two queries may look at is none.

    References:
        Xiao et al. 2023, arXiv:2309.17453; the threshold of 0.3 is that of Gu et al. 2024, arXiv:2410.10781.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"`threshold` must be in (0, 1). Received: threshold={threshold}.")
    count = np.zeros((*seen.shape[:-2], seen.shape[-1]))
    for example, _, weights, _ in seen.blocks():
        count[example] += (weights > 0).sum(axis=1)
    return (received(seen) > threshold) & (count > 1)


def mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Sums divided by counts; 0 where nothing was counted."""
    return total / np.where(count > 0, count, 1)
