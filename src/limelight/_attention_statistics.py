"""What there is to know of an attention without holding its weights, whoever computes it: a backend, or numpy."""

from typing import Any, NamedTuple

import numpy as np


class AttentionStatistics(NamedTuple):
    r"""What there is to know of weights $w_{ij}$ without holding them.

    Of `limelight.attention_statistics` its fields are tensors of the backend, with the leading axes (...) of the query in place of (B, N); of
    `AttentionMap.survey` they are numpy arrays.

    Args:
        entropy: $-\sum_j w_{ij} \log w_{ij}$ in nats, (B, N, T).
        logsumexp: the log of the sum of exponentials of each row's scores, (B, N, T), -inf in a row that permits nothing; NaN
            where weights are no exponentials of scores, or only weights were captured.
        top_keys: the keys of the largest weights of each query, largest first, (B, N, T, k) int32; -1 where fewer than k keys
            have a weight.
        top_weights: those weights, (B, N, T, k); 0 where there is none.
        distance: $\sum_j w_{ij} |i - j|$ where queries and keys count from the same start, (B, N, T).
        received: $\sum_i w_{ij}$, the mass that each key receives, (B, N, S).
        block_sums: $\sum w_{ij}$ over coarse blocks of queries and keys, (B, N, t, s).
        mass: $\sum_j w_{ij}$, (B, N, T): 1, or 0 in a row that permits nothing.
        row_edges, column_edges: where the blocks of `block_sums` begin and end, (t + 1,) and (s + 1,).
        block_max: the largest $w_{ij}$ of the same blocks, (B, N, t, s). Their means alone hide spikes.
        output: $\sum_j w_{ij} v_j$, (B, N, T, V), where values were given; else None.
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
        """The mass of each row that `top_keys` do not show, as numpy (B, N, T)."""
        return np.maximum(np.asarray(self.mass) - np.asarray(self.top_weights).sum(axis=-1), 0)

    @property
    def block_means(self) -> np.ndarray:
        """The mean weight of each coarse block, as numpy (B, N, t, s)."""
        rows, columns = (np.diff(np.asarray(one)).astype(np.float32) for one in (self.row_edges, self.column_edges))
        return np.asarray(self.block_sums) / (rows[:, None] * columns)


def edges(length: Any, num_blocks: int) -> Any:
    """Borders of at most `num_blocks` blocks of nearly equal size: (n + 1,)."""
    count = max(1, min(num_blocks, length))
    return (np.arange(count + 1) * length) // count


def check(top_k: int, num_blocks: int) -> None:
    """Raise where a survey is asked for with numbers that make none."""
    if top_k < 1 or num_blocks < 1:
        raise ValueError(
            f"`top_k` and `num_blocks` must be at least 1. Received: top_k={top_k}, num_blocks={num_blocks}."
        )
