"""Statistics of each head, for a head or for each of its keys, and clusters of similar heads. Maps are read in blocks."""

from collections.abc import Mapping

import numpy as np

from limelight import _distributions
from limelight.maps import AttentionMap


def entropy(attention_map: AttentionMap, normalized: bool = False) -> np.ndarray:
    r"""Return how spread out each head's attention is: $-\sum_j w_{ij} \log w_{ij}$ in nats, the mean over queries.

    Args:
        attention_map: the map.
        normalized: divide each row by the largest entropy that it could have, the log of the number of keys with any weight;
            then 0 is one key alone and 1 is uniform.

    Returns:
        (N,). Queries without attention (padding) do not count, and for `normalized` neither do those with a single key.

    Example:
        >>> import numpy as np
        >>> from limelight import AttentionMap, analysis
        >>> print(analysis.entropy(AttentionMap.from_weights(np.full((2, 4), 0.25)), normalized=True))
        [1.]
    """
    total, count = np.zeros((2, attention_map.num_heads))
    for block in attention_map.iter_blocks():
        rows, keys = _distributions.entropy(block.weights), (block.weights > 0).sum(axis=-1)
        counted = keys > (1 if normalized else 0)
        rows = rows / np.log(np.maximum(keys, 2)) if normalized else rows
        total += np.where(counted, rows, 0).sum(axis=-1)
        count += counted.sum(axis=-1)
    return divide(total, count)


def distance(attention_map: AttentionMap) -> np.ndarray:
    r"""Return how far each head looks: $\sum_j w_{ij} |i - j|$ in positions, the mean over queries.

    Positions of queries and keys are aligned at the start, or at the end where the layer aligns them so.

    Returns:
        (N,). Queries without attention do not count.
    """
    total, count = np.zeros((2, attention_map.num_heads))
    for block in attention_map.iter_blocks():
        distances = np.abs(attention_map.source.mask.distances(block.rows, attention_map.shape[-1]))
        total += np.einsum("nts,ts->n", block.weights.astype(np.float64), distances)
        count += (block.weights.sum(axis=-1) > 0).sum(axis=-1)
    return divide(total, count)


def received(attention_map: AttentionMap) -> np.ndarray:
    r"""Return how much attention each key receives from those queries that may attend to it.

    $$\alpha_j = \frac{1}{|\{i : w_{ij} > 0\}|} \sum_i w_{ij}$$

    Returns:
        (B, N, S). For causal attention this is the importance score of Gu et al. 2024.

    References:
        Gu et al. 2024, arXiv:2410.10781.
    """
    return divide(*_sum_columns(attention_map))


def sinks(attention_map: AttentionMap, threshold: float = 0.3) -> np.ndarray:
    """Find attention sinks: keys that receive more than their share, whatever the query.

    Args:
        attention_map: the map.
        threshold: a key is a sink if `received` exceeds this, in (0, 1).

    Returns:
        bool (B, N, S). A key that fewer than two queries may attend to is no sink.

    Raises:
        ValueError: the threshold is not in (0, 1).

    References:
        Xiao et al. 2023, arXiv:2309.17453; the threshold of 0.3 is that of Gu et al. 2024, arXiv:2410.10781.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"`threshold` must be in (0, 1). Received: threshold={threshold}.")
    total, count = _sum_columns(attention_map)
    return (divide(total, count) > threshold) & (count > 1)


def head_divergences(maps: Mapping[str, AttentionMap]) -> tuple[list[tuple[str, int]], np.ndarray]:
    r"""Return the Jensen-Shannon divergence between every two heads: 0 for heads that attend alike, at most $\ln 2$.

    Args:
        maps: maps over the same queries and keys.

    Returns:
        The heads as (map's key, index), and the divergences (H, H), the mean over queries.

    Raises:
        ValueError: the maps have different examples, queries or keys.

    References:
        Clark et al. 2019, arXiv:1906.04341, section 6.
    """
    heads = [(key, head) for key, attention_map in maps.items() for head in range(attention_map.num_heads)]
    blocks = [[first.diff(second).matrix for second in maps.values()] for first in maps.values()]
    matrix = np.block(blocks) if blocks else np.zeros((0, 0))
    return heads, (matrix + matrix.T) / 2


def cluster_heads(divergences: np.ndarray, num_clusters: int) -> np.ndarray:
    """Cluster heads that attend alike: agglomerative clustering with average linkage.

    Args:
        divergences: (H, H), from `head_divergences`.
        num_clusters: the number of clusters, 1 to H.

    Returns:
        (H,) the cluster of each head, numbered from 0 by first occurrence.

    Raises:
        ValueError: the matrix is not square, or `num_clusters` is not in 1 .. H.

    Example:
        >>> import numpy as np
        >>> from limelight import analysis
        >>> analysis.cluster_heads(np.array([[0.0, 0.6, 0.1], [0.6, 0.0, 0.5], [0.1, 0.5, 0.0]]), 2).tolist()
        [0, 1, 0]
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    divergences = np.asarray(divergences, float)
    if divergences.ndim != 2 or divergences.shape[0] != divergences.shape[1]:
        raise ValueError(f"`divergences` must be a square matrix. Received: shape {divergences.shape}.")
    if not 1 <= num_clusters <= len(divergences):
        raise ValueError(f"`num_clusters` must lie in 1 .. {len(divergences)}. Received: num_clusters={num_clusters}.")
    if len(divergences) == 1:
        return np.zeros(1, int)
    symmetric = (divergences + divergences.T) / 2
    np.fill_diagonal(symmetric, 0)
    labels = fcluster(linkage(squareform(symmetric), "average"), num_clusters, "maxclust").tolist()
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.array([numbers[label] for label in labels])


def divide(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Divide sums by counts; 0 where the count is 0."""
    return total / np.where(count > 0, count, 1)


def _sum_columns(attention_map: AttentionMap) -> tuple[np.ndarray, np.ndarray]:
    """Return the mass that each key receives and the number of queries that give it any, (B, N, S) each."""
    total, count = np.zeros((2, *attention_map.shape[:-2], attention_map.shape[-1]))
    for block in attention_map.iter_blocks():
        total[block.example] += block.weights.sum(axis=1, dtype=np.float64)
        count[block.example] += (block.weights > 0).sum(axis=1)
    return total, count
