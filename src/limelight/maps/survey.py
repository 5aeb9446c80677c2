"""Statistics of an attention that grow with its length, not with the square of it."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from limelight.maps.attention_map import AttentionMap


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    r"""What there is to know of weights $w_{ij}$ without holding them.

    Args:
        entropy: $-\sum_j w_{ij} \log w_{ij}$ in nats, (B, N, T).
        logsumexp: the log of the sum of exponentials of each row's scores, (B, N, T); NaN where only weights were captured, -inf
            in a row that permits nothing.
        top_keys: the keys of the largest weights of each query, largest first, (B, N, T, k) int32.
        top_weights: those weights, (B, N, T, k).
        distance: $\sum_j w_{ij} |i - j|$ where queries and keys count from the same start, (B, N, T).
        received: $\sum_i w_{ij}$, the mass that each key receives, (B, N, S).
        cells: $\sum w_{ij}$ over coarse blocks of queries and keys, (B, N, t, s).
        mass: $\sum_j w_{ij}$, (B, N, T): 1, or 0 in a row that permits nothing.
        row_edges, column_edges: where the blocks of `cells` begin and end, (t + 1,) and (s + 1,).
    """

    entropy: np.ndarray
    logsumexp: np.ndarray
    top_keys: np.ndarray
    top_weights: np.ndarray
    distance: np.ndarray
    received: np.ndarray
    cells: np.ndarray
    mass: np.ndarray
    row_edges: np.ndarray
    column_edges: np.ndarray

    @property
    def unseen(self) -> np.ndarray:
        """The mass of each row that `top_keys` do not show, (B, N, T)."""
        return np.maximum(self.mass - self.top_weights.sum(axis=-1), 0)


def edges(length: int, cells: int) -> np.ndarray:
    """Borders of at most `cells` blocks of nearly equal size: (n + 1,)."""
    count = max(1, min(cells, length))
    return (np.arange(count + 1) * length) // count


def taken(seen: "AttentionMap", top_k: int, cells: int) -> Survey:
    """The survey of a map, in one pass over blocks of rows."""
    if top_k < 1 or cells < 1:
        raise ValueError(f"`top_k` and `cells` must be at least 1. Received: top_k={top_k}, cells={cells}.")
    *lead, heads, rows, columns = seen.shape
    kept = min(top_k, columns)
    row_edges, column_edges = edges(rows, cells), edges(columns, cells)
    per_row = (*lead, heads, rows)
    entropy, logsumexp, distance, mass = (np.zeros(per_row, np.float32) for _ in range(4))
    top_keys, top_weights = np.zeros((*per_row, kept), np.int32), np.zeros((*per_row, kept), np.float32)
    received = np.zeros((*lead, heads, columns), np.float64)
    coarse = np.zeros((*lead, heads, len(row_edges) - 1, len(column_edges) - 1), np.float64)
    shift = seen.source.allowed.shift
    for example, picked, weights, total in seen.blocks():
        entropy[example][:, picked] = row_entropy(weights)
        logsumexp[example][:, picked] = total
        top_keys[example][:, picked], top_weights[example][:, picked] = top(weights, kept)
        apart = np.abs(np.arange(columns)[None] - (picked[:, None] + shift)).astype(np.float32)
        distance[example][:, picked] = np.einsum("nts,ts->nt", weights, apart)
        mass[example][:, picked] = weights.sum(axis=-1)
        received[example] += weights.sum(axis=1, dtype=np.float64)
        by_column = np.add.reduceat(weights, column_edges[:-1], axis=-1, dtype=np.float64)  # (n, r, s)
        places = np.searchsorted(row_edges, picked, side="right") - 1
        gather(coarse[example], places, by_column, np.add)
    narrow = [array.astype(np.float32) for array in (received, coarse)]
    return Survey(
        entropy, logsumexp, top_keys, top_weights, distance, narrow[0], narrow[1], mass, row_edges, column_edges
    )


def gather(cells: np.ndarray, places: np.ndarray, rows: np.ndarray, how: np.ufunc) -> None:
    """Reduce rows (n, r, s) into the cells (n, t, s) at their places (r,), in place."""
    for place in np.unique(places):
        cells[:, place] = how(cells[:, place], how.reduce(rows[:, places == place], axis=1))


def row_entropy(weights: np.ndarray) -> np.ndarray:
    """Entropy in nats of each row of weights (..., S)."""
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    return -(weights * logs).sum(axis=-1)


def top(weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The places and values of the largest weights of each row, largest first; the lower place first among equals."""
    if count < weights.shape[-1]:
        some = np.argpartition(-weights, count - 1, axis=-1)[..., :count]
        some.sort(axis=-1)
    else:
        some = np.broadcast_to(np.arange(count), (*weights.shape[:-1], count))
    values = np.take_along_axis(weights, some, axis=-1)
    order = np.argsort(-values, axis=-1, kind="stable")
    return np.take_along_axis(some, order, axis=-1).astype(np.int32), np.take_along_axis(values, order, axis=-1)
