"""Statistics of an attention that grow with its length, not with the square of it."""

from typing import TYPE_CHECKING

import numpy as np

from limelight._attention_statistics import AttentionStatistics, check, edges

if TYPE_CHECKING:
    from limelight.maps._attention_map import AttentionMap


def taken(seen: "AttentionMap", top_k: int, num_blocks: int) -> AttentionStatistics:
    """The survey of a map, in one pass over blocks of rows."""
    check(top_k, num_blocks)
    *lead, heads, rows, columns = seen.shape
    kept = min(top_k, columns)
    row_edges, column_edges = edges(rows, num_blocks), edges(columns, num_blocks)
    per_row = (*lead, heads, rows)
    entropy, logsumexp, distance, mass = (np.zeros(per_row, np.float32) for _ in range(4))
    top_keys, top_weights = np.full((*per_row, top_k), -1, np.int32), np.zeros((*per_row, top_k), np.float32)
    received = np.zeros((*lead, heads, columns), np.float64)
    coarse = np.zeros((*lead, heads, len(row_edges) - 1, len(column_edges) - 1), np.float64)
    peaks = np.zeros(coarse.shape, np.float32)
    shift = seen.source.allowed.shift
    for example, picked, weights, total in seen.blocks():
        entropy[example][:, picked] = row_entropy(weights)
        logsumexp[example][:, picked] = total
        top_keys[example][:, picked, :kept], top_weights[example][:, picked, :kept] = top(weights, kept)
        apart = np.abs(np.arange(columns)[None] - (picked[:, None] + shift)).astype(np.float32)
        distance[example][:, picked] = np.einsum("nts,ts->nt", weights, apart)
        mass[example][:, picked] = weights.sum(axis=-1)
        received[example] += weights.sum(axis=1, dtype=np.float64)
        by_column = np.add.reduceat(weights, column_edges[:-1], axis=-1, dtype=np.float64)  # (n, r, s)
        places = np.searchsorted(row_edges, picked, side="right") - 1
        gather(coarse[example], places, by_column, np.add)
        gather(peaks[example], places, np.maximum.reduceat(weights, column_edges[:-1], axis=-1), np.maximum)
    mass_of_keys, sums = received.astype(np.float32), coarse.astype(np.float32)
    return AttentionStatistics(
        entropy, logsumexp, top_keys, top_weights, distance, mass_of_keys, sums, mass, row_edges, column_edges, peaks
    )


def gather(blocks: np.ndarray, places: np.ndarray, rows: np.ndarray, how: np.ufunc) -> None:
    """Reduce rows (n, r, s) into the blocks (n, t, s) at their places (r,), in place."""
    for place in np.unique(places):
        blocks[:, place] = how(blocks[:, place], how.reduce(rows[:, places == place], axis=1))


def row_entropy(weights: np.ndarray) -> np.ndarray:
    """Entropy in nats of each row of weights (..., S)."""
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    return -(weights * logs).sum(axis=-1)


def top(weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The places and values of the largest weights of each row, largest first; the lower place first among equals.

    -1 for none.
    """
    if count < weights.shape[-1]:
        some = np.argpartition(-weights, count - 1, axis=-1)[..., :count]
        some.sort(axis=-1)
    else:
        some = np.broadcast_to(np.arange(count), (*weights.shape[:-1], count))
    values = np.take_along_axis(weights, some, axis=-1)
    order = np.argsort(-values, axis=-1, kind="stable")
    places, values = (np.take_along_axis(array, order, axis=-1) for array in (some, values))
    return np.where(values > 0, places, -1).astype(np.int32), values
