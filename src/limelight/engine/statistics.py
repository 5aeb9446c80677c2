"""What a block of whole rows contributes to a survey, on any backend."""

import dataclasses
from typing import Any

from keras import ops

from limelight import _attention_statistics
from limelight.core.block import Block
from limelight.engine.call import AttentionCall
from limelight.engine.dense_block import mixture
from limelight.engine.reductions import PASSES, Passes, Weighed
from limelight.masks.static_shapes import larger, smaller


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What a survey is to hold.

    Args:
        top_k: how many keys of each query.
        rows, columns: how many queries and keys there are in all; ints, or scalar tensors.
        row_cells, column_cells: how many coarse blocks there are along either.
        align: "start" or "end", where queries and keys are counted from there; None where they have positions.
    """

    top_k: int
    rows: Any
    columns: Any
    row_cells: Any
    column_cells: Any
    align: str | None = None

    @classmethod
    def of(cls, call: AttentionCall, top_k: int, num_blocks: int, align: str | None) -> "Plan":
        """The plan for a question, with at most so many coarse blocks along an axis."""
        rows, columns = call.block.rows.total, call.block.columns.total
        return cls(top_k, rows, columns, smaller(num_blocks, rows), smaller(num_blocks, columns), align)

    @property
    def edges(self) -> tuple[Any, Any]:
        """MaskFunction the coarse blocks of rows, and those of columns, begin and end."""
        return edges(self.rows, self.row_cells), edges(self.columns, self.column_cells)

    def reach(self, size: Any) -> Any:
        """How many coarse blocks of rows a block of so many rows touches at most."""
        if not isinstance(self.rows, int) or not isinstance(size, int):
            return self.row_cells
        cell = self.rows // self.row_cells
        if self.rows % self.row_cells == 0 and self.rows % size == 0:
            if cell % size == 0:
                return 1
            if size % cell == 0:
                return size // cell
        return min(self.row_cells, (size - 1) // cell + 2)


def edges(length: Any, count: Any) -> Any:
    """Borders of blocks of nearly equal size, (count + 1,); numpy where they are known."""
    if isinstance(length, int):
        return _attention_statistics.edges(length, count)
    return ops.arange(count + 1, dtype="int32") * length // count


def cell_of(index: Any, length: Any, count: Any) -> Any:
    """The coarse block in which an index lies."""
    return ((index + 1) * count - 1) // length


def said(weighed: Weighed, value: Any, plan: Plan, passes: Passes = PASSES) -> dict[str, Any]:
    """What there is to say of each row of a block whose columns have values (b, k, s, V) or None: (b, n, t, ...) by name."""
    raised, block = weighed.raised, weighed.block
    rows = {
        "entropy": weighed.entropy,
        "logsumexp": weighed.logsumexp,
        "top_keys": ops.where(weighed.largest > 0, weighed.places + ops.cast(block.columns.start, "int32"), -1),
        "top_weights": weighed.largest,
        "distance": weighed.shared(passes.apart(raised, *positions(block, plan, raised.dtype)))[..., 0],
        "mass": weighed.mass,
    }
    if value is not None:
        rows["output"] = ops.cast(weighed.shared(mixture(raised, value, block)), value.dtype)
    return rows


def positions(block: Block, plan: Plan, dtype: Any) -> tuple[Any, Any, Any]:
    """Positions of a tile's queries, (..., t, 1), and keys, (..., s), as numbers of a dtype.

    And the column that stands at the position of the first query, where both are counted one by one; else None.
    """
    align = plan.align or ("end" if block.given_query_positions is None and block.given_key_positions is None else None)
    if align is None:
        queries, keys, place = block.query_positions(), block.key_positions(), None
    else:
        shift = block.offset if align == "end" else 0
        queries, keys = (
            ops.expand_dims(block.rows.to_indices() + ops.cast(shift, "int32"), -1),
            block.columns.to_indices(),
        )
        place = block.rows.start + shift - block.columns.start
    # Cast before they are as many as the weights. Up to 16 million both are exact in float32.
    return ops.cast(queries, dtype), ops.cast(keys, dtype), place


def gathered(weighed: Weighed, counted: Any, reach: Any, plan: Plan, passes: Passes = PASSES) -> tuple[Any, Any, Any]:
    """What a block contributes to its keys and coarse blocks.

    Args:
        weighed: its weights.
        counted: bool (t,), False for rows that another block contributes; None for none.
        reach: of how many coarse blocks of rows, from that of the first row on, there may be something.
        plan: what the survey is to hold.
        passes: the backend's.

    Returns:
        The mass of each key (b, n, s); sums and maxima (b, n, reach, column_cells) of the coarse blocks.
    """
    block, raised = weighed.block, weighed.raised
    rows = block.rows.to_indices()
    first = cell_of(rows[0], plan.rows, plan.row_cells)
    share = ops.ones_like(raised[..., :1]) if weighed.share is None else weighed.share
    share = ops.swapaxes(share, -1, -2)
    if counted is not None:
        share = ops.where(counted, share, 0.0)
    if not alone(reach):
        places = cell_of(rows, plan.rows, plan.row_cells) - first
        chosen = ops.expand_dims(ops.arange(reach, dtype="int32"), -1) == places
        share = ops.where(chosen, share, 0.0)
    sums = passes.summed(share, raised)
    return (
        ops.sum(sums, axis=-2),
        ops.sum(by_columns(sums, block, plan), axis=-1),
        peaks(weighed, rows, first, reach, plan),
    )


def alone(reach: Any) -> bool:
    """Whether the rows of a block lie in one coarse block."""
    return isinstance(reach, int) and reach == 1


def peaks(weighed: Weighed, rows: Any, first: Any, reach: Any, plan: Plan) -> Any:
    """The largest weights (b, n, reach, column_cells) in coarse blocks, from that of the first row on."""
    block, raised = weighed.block, weighed.raised
    by_rows = (
        (lambda weights: ops.max(weights, axis=-2, keepdims=True))
        if alone(reach)
        else lambda weights: row_peaks(weights, rows, first, reach, plan)
    )
    if even(block, raised.shape[-1], plan):
        # Columns first: there is less to multiply, and runs of columns lie together.
        known = weighed.peaks is not None and weighed.peaks.shape[-1] % plan.column_cells == 0
        found = ops.max(by_columns(weighed.peaks if known else raised, block, plan), axis=-1)
        return by_rows(weighed.shared(found))
    return ops.max(by_columns(by_rows(weighed.shared(raised)), block, plan), axis=-1)


def even(block: Block, columns: Any, plan: Plan) -> bool:
    """Whether a tile has all columns, and as many in each coarse block."""
    return (
        block.columns.is_full
        and all(isinstance(count, int) for count in (columns, plan.column_cells))
        and (columns % plan.column_cells == 0)
    )


def row_peaks(weights: Any, rows: Any, first: Any, reach: Any, plan: Plan) -> Any:
    """The largest weights (b, n, reach, s) that coarse blocks of rows, from a first one on, have in each column."""
    b, n, t, s = tuple(ops.shape(weights))
    num_blocks = first + ops.arange(reach, dtype="int32")
    begin = ops.maximum(num_blocks * plan.rows // plan.row_cells, rows[0])
    end = ops.minimum((num_blocks + 1) * plan.rows // plan.row_cells, rows[-1] + 1)
    most = smaller(t, -(-plan.rows // plan.row_cells))
    places = ops.minimum(begin[:, None] + ops.arange(most, dtype="int32"), end[:, None] - 1) - rows[0]
    places = ops.reshape(ops.clip(places, 0, t - 1), (-1,))
    picked = ops.reshape(ops.take(weights, places, axis=-2), (b, n, reach, most, s))
    return ops.where((begin < end)[:, None], ops.max(picked, axis=-2), 0.0)


def by_columns(sums: Any, block: Block, plan: Plan) -> Any:
    """Numbers (b, n, c, s) of each column by coarse blocks of columns: (b, n, c, column_cells, widest), 0 where there is none."""
    b, n, c, s = tuple(ops.shape(sums))
    count = plan.column_cells
    if even(block, s, plan):
        return ops.reshape(sums, (b, n, c, count, s // count))
    num_blocks = ops.arange(count, dtype="int32")
    begin, end = num_blocks * plan.columns // count, (num_blocks + 1) * plan.columns // count
    places = begin[:, None] + ops.arange(-(-plan.columns // count), dtype="int32")
    here = places - ops.cast(block.columns.start, "int32")
    there = ops.logical_and(ops.logical_and(here >= 0, here < s), places < end[:, None])
    taken = ops.take(sums, ops.reshape(ops.clip(here, 0, larger(s, 1) - 1), (-1,)), axis=-1)
    return ops.where(there, ops.reshape(taken, (b, n, c, count, -1)), 0.0)
