"""Reductions of a source over blocks of rows: statistics, downsampled weights, and the difference of heads."""

import dataclasses
from typing import Any

import numpy as np

from limelight._attention_statistics import AttentionStatistics, block_edges, check_statistics_arguments
from limelight._distributions import entropy, jensen_shannon, top_k
from limelight._indexing import resolve_indices
from limelight.maps.sources import QKSource, RowBlock, Source, StatisticsSource, iter_row_blocks, require_weights


@dataclasses.dataclass(frozen=True, eq=False)
class DownsampledWeights:
    """Means and maxima of blocks of weights. Means alone hide spikes: a single strong weight vanishes among thousands.

    Args:
        means: (B, n, t, s).
        maxima: (B, n, t, s).
        row_edges, column_edges: the queries and keys at which the blocks begin and end, (t + 1,) and (s + 1,).
    """

    means: np.ndarray
    maxima: np.ndarray
    row_edges: np.ndarray
    column_edges: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Difference:
    r"""Jensen-Shannon divergences between the heads of two maps, and which head of one matches which of the other.

    $$D(p, q) = H\big(\tfrac{p + q}{2}\big) - \tfrac{H(p) + H(q)}{2}$$ in nats, at most $\ln 2$: the mean over all rows in
    which both have weights.

    Args:
        matrix: (N, N'), each head of the first map against each of the second.
        pairs: (n, 2), the matching of heads with the smallest sum of divergences: heads have no order of their own, and two
            trainings of a model permute them.
    """

    matrix: np.ndarray
    pairs: np.ndarray

    @property
    def divergence(self) -> np.ndarray:
        """The divergence of each matched pair of heads, (n,)."""
        return self.matrix[self.pairs[:, 0], self.pairs[:, 1]]

    @property
    def same_index(self) -> np.ndarray:
        """The divergence of heads with the same index, (min(N, N'),)."""
        return np.diagonal(self.matrix)


def compute_statistics(source: Source, num_top_keys: int, num_blocks: int) -> AttentionStatistics:
    """Compute the statistics of a source; see `AttentionMap.statistics`."""
    check_statistics_arguments(num_top_keys, num_blocks)
    *lead, heads, rows, columns = source.shape
    k = min(num_top_keys, columns)
    blocks = _Blocks((*lead, heads), block_edges(rows, num_blocks), block_edges(columns, num_blocks))
    per_row = (*lead, heads, rows)
    entropies, logsumexp, distance, mass = (np.zeros(per_row, np.float32) for _ in range(4))
    top_keys = np.full((*per_row, num_top_keys), -1, np.int32)
    top_weights = np.zeros((*per_row, num_top_keys), np.float32)
    received = np.zeros((*lead, heads, columns), np.float64)
    for block in iter_row_blocks(source, np.arange(heads), np.arange(rows)):
        target, weights = (*block.example, slice(None), block.part), block.weights
        entropies[target] = entropy(weights)
        logsumexp[target] = block.logsumexp
        top_weights[target][..., :k], top_keys[target][..., :k] = top_k(weights, k)
        distances = np.abs(source.mask.distances(block.rows, columns)).astype(np.float32)
        distance[target] = np.einsum("nts,ts->nt", weights, distances)
        mass[target] = weights.sum(axis=-1)
        received[block.example] += weights.sum(axis=1, dtype=np.float64)
        blocks.add(block)
    return AttentionStatistics(
        entropy=entropies,
        logsumexp=logsumexp,
        top_keys=top_keys,
        top_weights=top_weights,
        distance=distance,
        received=received.astype(np.float32),
        block_sums=blocks.sums.astype(np.float32),
        mass=mass,
        row_edges=blocks.row_edges,
        column_edges=blocks.column_edges,
        block_max=blocks.maxima,
    )


def compute_downsampled(source: Source, heads: Any, rows: Any, columns: Any, num_blocks: int) -> DownsampledWeights:
    """Downsample a region of a source; see `AttentionMap.downsample`."""
    if num_blocks < 1:
        raise ValueError(f"`num_blocks` must be at least 1. Received: num_blocks={num_blocks}.")
    row_edges, column_edges = (
        start + block_edges(stop - start, num_blocks)
        for start, stop in (
            _resolve_run(rows, source.shape[-2], "rows"),
            _resolve_run(columns, source.shape[-1], "columns"),
        )
    )
    heads = resolve_indices(heads, source.shape[-3], "heads")
    blocks = _Blocks((*source.shape[:-3], len(heads)), row_edges, column_edges)
    whole = column_edges[-1] - column_edges[0] == source.shape[-1]
    region = None if whole else slice(int(column_edges[0]), int(column_edges[-1]))
    for block in iter_row_blocks(source, heads, np.arange(row_edges[0], row_edges[-1]), columns=region):
        blocks.add(block)
    sizes = np.diff(row_edges)[:, None] * np.diff(column_edges)
    return DownsampledWeights((blocks.sums / sizes).astype(np.float32), blocks.maxima, row_edges, column_edges)


def compute_difference(first: Source, second: Source) -> Difference:
    """Compare each head of one source with each head of another; see `AttentionMap.diff`."""
    from scipy.optimize import linear_sum_assignment

    second = require_weights(second)
    heads, other_heads = np.arange(first.shape[-3]), np.arange(second.shape[-3])
    sums, count = np.zeros((2, len(heads), len(other_heads)))
    for block in iter_row_blocks(first, heads, np.arange(first.shape[-2])):
        other, _ = second.row_weights(block.example, other_heads, block.rows)
        for head, weights in enumerate(block.weights):
            divergence = jensen_shannon(weights[None], other)  # (N', r)
            both = (weights.sum(-1) > 0)[None] & (other.sum(-1) > 0)
            sums[head] += np.where(both, divergence, 0).sum(axis=-1)
            count[head] += both.sum(axis=-1)
    matrix = np.where(count > 0, sums / np.maximum(count, 1), 0.0)
    return Difference(matrix, np.stack(linear_sum_assignment(matrix), axis=-1))


def find_finite_examples(source: Source) -> np.ndarray:
    """Return which examples have no weight that is NaN or infinity, (B,).

    Weights are computed only where queries and keys, bias or captured weights leave a doubt: a mask may hide those.
    """
    is_finite = _are_surely_finite(source)
    if isinstance(source, StatisticsSource):
        return is_finite
    heads, rows = (np.arange(length) for length in source.shape[-3:-1])
    for example in np.flatnonzero(~is_finite):
        with np.errstate(over="ignore", invalid="ignore"):
            blocks = iter_row_blocks(source, heads, rows, np.array([example]))
            is_finite[example] = all(np.isfinite(block.weights).all() for block in blocks)
    return is_finite


def _are_surely_finite(source: Source) -> np.ndarray:
    """Return of which examples all weights are finite, whatever the mask, (B,)."""
    batch = source.shape[0]
    if not isinstance(source, QKSource):
        # Inside a model the mass is 1 wherever the mask permits a key.
        values = source.entropy if isinstance(source, StatisticsSource) else source.array
        return np.asarray(np.isfinite(values).reshape(batch, -1).all(axis=-1))
    # The largest score that could be: NaN if there is a NaN.
    query, key = (_largest(array.reshape(batch, -1)) for array in (source.query, source.key))
    if source.vector is None:
        bound = query * key * source.query.shape[-1]
    else:
        bound = query + key + np.abs(source.vector).sum(dtype=np.float64)
    bound = bound * abs(source.scale)
    if source.bias is not None:
        # Of a bias, minus infinity is a mask.
        bias = np.where(np.isneginf(source.bias), 0, source.bias)
        bound = bound + _largest(bias.reshape(len(bias), -1))
    return bound < np.finfo(np.float32).max


def _largest(array: np.ndarray) -> np.ndarray:
    return np.maximum(array.max(axis=-1, initial=0), -array.min(axis=-1, initial=0)).astype(np.float64)


class _Blocks:
    """Sums and maxima of the weights over coarse blocks between the edges, accumulated over blocks of rows."""

    def __init__(self, lead: tuple[int, ...], row_edges: np.ndarray, column_edges: np.ndarray) -> None:
        shape = (*lead, len(row_edges) - 1, len(column_edges) - 1)
        self.row_edges, self.column_edges = row_edges, column_edges
        self.sums, self.maxima = np.zeros(shape), np.zeros(shape, np.float32)

    def add(self, block: RowBlock) -> None:
        starts = self.column_edges[:-1] - self.column_edges[0]
        sums = np.add.reduceat(block.weights, starts, axis=-1, dtype=np.float64)  # (n, r, s)
        maxima = np.maximum.reduceat(block.weights, starts, axis=-1)
        row_blocks = np.searchsorted(self.row_edges, block.rows, side="right") - 1
        for index in np.unique(row_blocks):
            target, rows = (*block.example, slice(None), index), row_blocks == index
            self.sums[target] += sums[:, rows].sum(axis=1)
            self.maxima[target] = np.maximum(self.maxima[target], maxima[:, rows].max(axis=1))


def _resolve_run(selection: Any, length: int, name: str) -> tuple[int, int]:
    """Return where a selection of neighbours starts and stops.

    Raises:
        ValueError: the selection is empty, or no slice of step 1.
    """
    start, stop, step = selection.indices(length) if isinstance(selection, slice) else (0, length, 1)
    if (selection is not None and not isinstance(selection, slice)) or step != 1 or stop <= start:
        raise ValueError(f"`{name}` must be a non-empty slice of step 1. Received: {selection!r} of length {length}.")
    return start, stop
