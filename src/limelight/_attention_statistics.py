"""The statistics of attention weights, whether a backend or numpy computes them."""

from typing import Any, NamedTuple

import numpy as np


class AttentionStatistics(NamedTuple):
    r"""Statistics of attention weights $w_{ij}$ that grow with the number of queries and keys, not with their product.

    In the result of `limelight.attention_statistics` the fields are tensors of the backend, with the leading axes (...) of the
    query in place of (B, N); in that of `AttentionMap.statistics` they are numpy arrays.

    Args:
        entropy: $-\sum_j w_{ij} \log w_{ij}$ in nats, (B, N, T).
        logsumexp: the log of the sum of exponentials of each row's scores, (B, N, T); -inf in a row that permits nothing; NaN
            where the normalizer takes no exponentials, or where only weights were captured.
        top_keys: the keys of the largest weights of each query, largest first, (B, N, T, k) int32; -1 where fewer than k keys
            have a weight.
        top_weights: those weights, (B, N, T, k); 0 where there is none.
        distance: $\sum_j w_{ij} |i - j|$ where queries and keys count from the same start, (B, N, T).
        received: $\sum_i w_{ij}$, the mass that each key receives, (B, N, S).
        block_sums: $\sum w_{ij}$ over coarse blocks of queries and keys, (B, N, t, s).
        mass: $\sum_j w_{ij}$, (B, N, T): 1, or 0 in a row that permits nothing.
        row_edges, column_edges: the borders of the coarse blocks, (t + 1,) and (s + 1,).
        block_max: the largest $w_{ij}$ of each coarse block, (B, N, t, s). Means alone hide spikes.
        output: $\sum_j w_{ij} v_j$, (B, N, T, V), where values were passed; else None.
    """

    entropy: Any
    logsumexp: Any
    top_keys: Any
    top_weights: Any
    distance: Any
    received: Any
    block_sums: Any
    mass: Any
    row_edges: Any
    column_edges: Any
    block_max: Any
    output: Any = None

    @property
    def tail_mass(self) -> np.ndarray:
        """The mass of each row outside its `top_keys`, as numpy (B, N, T)."""
        return np.maximum(np.asarray(self.mass) - np.asarray(self.top_weights).sum(axis=-1), 0)

    @property
    def block_means(self) -> np.ndarray:
        """The mean weight of each coarse block, as numpy (B, N, t, s)."""
        rows, columns = (np.diff(np.asarray(edges)).astype(np.float32) for edges in (self.row_edges, self.column_edges))
        return np.asarray(self.block_sums) / (rows[:, None] * columns)


def block_edges(length: int, num_blocks: int) -> np.ndarray:
    """Return the borders (n + 1,) of at most `num_blocks` blocks of nearly equal size."""
    count = max(1, min(num_blocks, length))
    return (np.arange(count + 1) * length) // count


def check_statistics_arguments(top_k: int, num_blocks: int) -> None:
    """Check the arguments that every form of the statistics takes.

    Raises:
        ValueError: a number is below 1.
    """
    if top_k < 1 or num_blocks < 1:
        raise ValueError(
            f"`top_k` and `num_blocks` must be at least 1. Received: top_k={top_k}, num_blocks={num_blocks}."
        )
