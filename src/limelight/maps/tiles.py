"""A region of the weights at any zoom."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from limelight._attention_statistics import edges
from limelight.maps.statistics import gather
from limelight.maps.stored_mask import selection

if TYPE_CHECKING:
    from limelight.maps._attention_map import AttentionMap


@dataclasses.dataclass(frozen=True, eq=False)
class Tile:
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


def taken(seen: "AttentionMap", rows: Any, columns: Any, heads: Any, num_blocks: int) -> Tile:
    """The tile of a region of a map."""
    if num_blocks < 1:
        raise ValueError(f"`num_blocks` must be at least 1. Received: num_blocks={num_blocks}.")
    first_row, last_row = region(rows, seen.shape[-2], "rows")
    first_column, last_column = region(columns, seen.shape[-1], "columns")
    row_edges = first_row + edges(last_row - first_row, num_blocks)
    column_edges = first_column + edges(last_column - first_column, num_blocks)
    count = len(selection(heads, seen.heads, "heads"))
    shape = (*seen.shape[:-3], count, len(row_edges) - 1, len(column_edges) - 1)
    sums, maxima = np.zeros(shape), np.zeros(shape, np.float32)
    for example, picked, weights, _ in seen.blocks(heads, slice(first_row, last_row)):
        part = weights[..., first_column:last_column]
        places = np.searchsorted(row_edges, picked, side="right") - 1
        inner = column_edges[:-1] - first_column
        gather(sums[example], places, np.add.reduceat(part, inner, axis=-1, dtype=np.float64), np.add)
        gather(maxima[example], places, np.maximum.reduceat(part, inner, axis=-1), np.maximum)
    sizes = np.diff(row_edges)[:, None] * np.diff(column_edges)[None]
    return Tile((sums / sizes).astype(np.float32), maxima, row_edges, column_edges)


def region(chosen: Any, length: int, what: str) -> tuple[int, int]:
    """MaskFunction a slice of step 1 begins and ends.

    Raises:
        ValueError: not such a slice, or an empty one.
    """
    first, last, step = chosen.indices(length) if isinstance(chosen, slice) else (0, length, 1)
    if (chosen is not None and not isinstance(chosen, slice)) or step != 1 or last <= first:
        raise ValueError(f"`{what}` must be a slice of step 1 with something in it. Received: {chosen!r} of {length}.")
    return first, last
