"""Which heads are alike."""

from collections.abc import Mapping

import numpy as np

from limelight.maps import AttentionMap
from limelight.maps.difference import between


def similarity(maps: Mapping[str, AttentionMap]) -> tuple[list[tuple[str, int]], np.ndarray]:
    r"""The Jensen-Shannon divergence between every two heads: 0 for heads that attend alike, at most $\ln 2$.

    Args:
        maps: maps over the same queries and keys.

    Returns:
        The heads as (map's key, number), and the divergences (H, H), the mean over queries.

    Raises:
        ValueError: maps of different examples, queries or keys.

    References:
        Clark et al. 2019, arXiv:1906.04341, section 6.
    """
    heads = [(key, head) for key, seen in maps.items() for head in range(seen.heads)]
    rows = [[between(first, second).matrix for second in maps.values()] for first in maps.values()]
    matrix = np.block(rows) if rows else np.zeros((0, 0))
    return heads, (matrix + matrix.T) / 2


def clusters(divergences: np.ndarray, count: int) -> np.ndarray:
    """Groups of heads that attend alike, by joining the two nearest groups until `count` are left (average linkage).

    Args:
        divergences: (H, H), from `similarity`.
        count: the number of groups, 1 to H.

    Returns:
        (H,) the group of each head, from 0, in the order in which they first come.

    Raises:
        ValueError: a matrix that is not square, or a count that cannot be.

    Example:
        >>> import numpy as np
        >>> from limelight import analysis
        >>> analysis.clusters(np.array([[0.0, 0.6, 0.1], [0.6, 0.0, 0.5], [0.1, 0.5, 0.0]]), 2).tolist()
        [0, 1, 0]
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    divergences = np.asarray(divergences, float)
    if divergences.ndim != 2 or divergences.shape[0] != divergences.shape[1]:
        raise ValueError(f"`divergences` must be a square matrix. Received: shape {divergences.shape}.")
    if not 1 <= count <= len(divergences):
        raise ValueError(f"`count` must lie in 1 .. {len(divergences)}. Received: count={count}.")
    if len(divergences) == 1:
        return np.zeros(1, int)
    symmetric = (divergences + divergences.T) / 2
    np.fill_diagonal(symmetric, 0)
    groups = fcluster(linkage(squareform(symmetric), "average"), count, "maxclust")
    first = {group: place for place, group in enumerate(dict.fromkeys(groups.tolist()))}
    return np.array([first[group] for group in groups.tolist()])
