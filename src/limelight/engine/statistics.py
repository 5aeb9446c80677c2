"""Statistics of attention, in one pass over blocks of whole rows."""

import dataclasses
from typing import Any

from keras import ops

from limelight._attention_statistics import AttentionStatistics, block_edges, check_statistics_arguments
from limelight.core.block import Block, Slice
from limelight.core.shapes import is_one
from limelight.engine import backend, thresholds
from limelight.engine.call import AttentionCall
from limelight.engine.dense import apply_weights
from limelight.engine.reductions import ReducedBlock, sum_rows
from limelight.masks import static_max, static_min


def compute_statistics(
    call: AttentionCall, value: Any, *, top_k: int, num_blocks: int, align: str | None = None
) -> AttentionStatistics:
    """Compute the statistics of a call, and its output if there are values; each with leading axes (B, N).

    Args:
        call: The attention call.
        value: The values (B, K, S, V), or None.
        top_k: The number of keys of each query.
        num_blocks: The largest number of coarse blocks along an axis.
        align: "start" or "end" to measure distances by indices aligned there, whatever the positions; None to use positions.

    Raises:
        ValueError: `top_k` or `num_blocks` is below 1.
    """
    check_statistics_arguments(top_k, num_blocks)
    if call.is_broadcast:
        call, value = _expand_batch(call, value)
    fields = backend.active().attention_statistics(
        call,
        value,
        scores_per_block=thresholds.current(call.query).statistics_scores_per_block,
        top_k=top_k,
        num_blocks=num_blocks,
        align=align,
    )
    row_edges, column_edges = StatisticsSpec.from_call(call, top_k, num_blocks, align).edges
    fields = {name: ops.stop_gradient(tensor) for name, tensor in fields.items()}
    return AttentionStatistics(**fields, row_edges=row_edges, column_edges=column_edges)


def _expand_batch(call: AttentionCall, value: Any) -> tuple[AttentionCall, Any]:
    """Repeat queries, or keys and values, that serve all examples."""
    batch = max(call.query.shape[0], call.key.shape[0])
    query, key, value = (
        None if tensor is None else ops.broadcast_to(tensor, (batch, *tuple(ops.shape(tensor))[1:]))
        for tensor in (call.query, call.key, value)
    )
    return dataclasses.replace(call, query=query, key=key, block=call.block.replace(batch=Slice(batch))), value


@dataclasses.dataclass(frozen=True, eq=False)
class StatisticsSpec:
    """The contents of the statistics: their sizes and the alignment of positions.

    Args:
        top_k: The number of keys of each query.
        rows, columns: T and S; ints, or scalar tensors.
        num_row_blocks, num_column_blocks: The numbers of coarse blocks along them.
        align: "start" or "end" to measure distances by indices aligned there; None to use positions.
    """

    top_k: int
    rows: Any
    columns: Any
    num_row_blocks: Any
    num_column_blocks: Any
    align: str | None = None

    @classmethod
    def from_call(cls, call: AttentionCall, top_k: int, num_blocks: int, align: str | None) -> "StatisticsSpec":
        """Return the spec for a call, with at most `num_blocks` coarse blocks along an axis."""
        rows, columns = call.block.rows.total, call.block.columns.total
        return cls(top_k, rows, columns, static_min(num_blocks, rows), static_min(num_blocks, columns), align)

    @property
    def edges(self) -> tuple[Any, Any]:
        """The borders of the coarse blocks of rows and of columns; numpy if they are known."""
        return _edges(self.rows, self.num_row_blocks), _edges(self.columns, self.num_column_blocks)

    def positions(self, block: Block, dtype: Any) -> tuple[Any, Any]:
        """Return the positions of a block's queries (..., t, 1) and keys (..., 1, s) by which distances are measured."""
        if self.align is not None:
            block = dataclasses.replace(block, given_query_positions=None, given_key_positions=None)
        # Cast while they are few. float32 is exact up to 16 million.
        return ops.cast(block.query_positions(self.align or "end"), dtype), ops.cast(block.key_positions(), dtype)

    def row_block(self, row: Any) -> Any:
        """Return the index of the coarse block that a row lies in."""
        return ((row + 1) * self.num_row_blocks - 1) // self.rows

    def max_row_blocks(self, size: Any) -> Any:
        """Return the largest number of coarse blocks of rows that a block of `size` rows overlaps."""
        if not isinstance(self.rows, int) or not isinstance(size, int):
            return self.num_row_blocks
        coarse_size = self.rows // self.num_row_blocks
        if self.rows % self.num_row_blocks == 0 and self.rows % size == 0:
            if coarse_size % size == 0:
                return 1
            if size % coarse_size == 0:
                return size // coarse_size
        return min(self.num_row_blocks, (size - 1) // coarse_size + 2)


def _edges(length: Any, count: Any) -> Any:
    if isinstance(length, int):
        return block_edges(length, count)
    return ops.arange(count + 1, dtype="int32") * length // count


def row_statistics(reduced: ReducedBlock, value: Any, spec: StatisticsSpec, distances: Any = None) -> dict[str, Any]:
    """Return the statistics of each row of a block, (b, n, t, ...) by name.

    Args:
        reduced: The block.
        value: The values of its columns, (b, k, s, V), or None.
        spec: What the statistics contain.
        distances: The sum of each row of `reduced.unnormalized` times the distances, (b, n, t, 1); None to compute it.
    """
    unnormalized, block = reduced.unnormalized, reduced.block
    if distances is None:
        queries, keys = spec.positions(block, unnormalized.dtype)
        distances = sum_rows(unnormalized * ops.abs(queries - keys))
    top_keys = reduced.top_indices + ops.cast(block.columns.start, "int32")
    fields = {
        "entropy": reduced.entropy,
        "logsumexp": reduced.logsumexp,
        "top_keys": ops.where(reduced.top_values > 0, top_keys, -1),
        "top_weights": reduced.top_values,
        "distance": reduced.rescale(distances)[..., 0],
        "mass": reduced.mass,
    }
    if value is not None:
        fields["output"] = ops.cast(reduced.rescale(apply_weights(unnormalized, value, block)), value.dtype)
    return fields


def column_statistics(
    reduced: ReducedBlock, is_new: Any, max_row_blocks: Any, spec: StatisticsSpec
) -> tuple[Any, Any, Any]:
    """Return what a block contributes to the statistics of its keys and coarse blocks.

    Args:
        reduced: The block.
        is_new: bool (t,), False for rows that another block has counted; None if all are new.
        max_row_blocks: The number of coarse blocks of rows to return, from that of the first row on.
        spec: What the statistics contain.

    Returns:
        The mass of each key (b, n, s); sums and maxima (b, n, max_row_blocks, num_column_blocks) of the coarse blocks.
    """
    unnormalized = reduced.unnormalized
    rows = reduced.block.rows.to_indices()
    scale = ops.ones_like(unnormalized[..., :1]) if reduced.scale is None else reduced.scale
    scale = ops.swapaxes(scale, -1, -2)
    if is_new is not None:
        scale = ops.where(is_new, scale, 0.0)
    if not is_one(max_row_blocks):
        indices = spec.row_block(rows) - spec.row_block(rows[0])
        scale = ops.where(ops.expand_dims(ops.arange(max_row_blocks, dtype="int32"), -1) == indices, scale, 0.0)
    sums = ops.matmul(scale, unnormalized)  # (b, n, max_row_blocks, s)
    return (
        ops.sum(sums, axis=-2),
        ops.sum(split_columns(sums, reduced.block, spec), axis=-1),
        _coarse_maxima(reduced, rows, max_row_blocks, spec),
    )


def _coarse_maxima(reduced: ReducedBlock, rows: Any, max_row_blocks: Any, spec: StatisticsSpec) -> Any:
    """Return the largest weights (b, n, max_row_blocks, num_column_blocks) of coarse blocks."""

    def reduce_rows(weights: Any) -> Any:
        if is_one(max_row_blocks):
            return ops.max(weights, axis=-2, keepdims=True)
        return _max_by_row_blocks(weights, rows, max_row_blocks, spec)

    block, unnormalized = reduced.block, reduced.unnormalized
    if _divides_columns(block, unnormalized.shape[-1], spec):
        # Columns first: less has to be rescaled, and neighbours lie together in memory.
        return reduce_rows(reduced.rescale(ops.max(split_columns(unnormalized, block, spec), axis=-1)))
    return ops.max(split_columns(reduce_rows(reduced.rescale(unnormalized)), block, spec), axis=-1)


def _max_by_row_blocks(weights: Any, rows: Any, max_row_blocks: Any, spec: StatisticsSpec) -> Any:
    """Return the maxima (b, n, max_row_blocks, s) of weights (b, n, t, s) over coarse blocks of rows."""
    b, n, t, s = tuple(ops.shape(weights))
    indices = spec.row_block(rows[0]) + ops.arange(max_row_blocks, dtype="int32")
    begin = ops.maximum(indices * spec.rows // spec.num_row_blocks, rows[0])
    end = ops.minimum((indices + 1) * spec.rows // spec.num_row_blocks, rows[-1] + 1)
    size = static_min(t, -(-spec.rows // spec.num_row_blocks))
    gathered_rows = ops.minimum(begin[:, None] + ops.arange(size, dtype="int32"), end[:, None] - 1) - rows[0]
    gathered_rows = ops.reshape(ops.clip(gathered_rows, 0, t - 1), (-1,))
    gathered = ops.reshape(ops.take(weights, gathered_rows, axis=-2), (b, n, max_row_blocks, size, s))
    return ops.where((begin < end)[:, None], ops.max(gathered, axis=-2), 0.0)


def split_columns(tensor: Any, block: Block, spec: StatisticsSpec) -> Any:
    """Split the columns of (b, n, c, s) into coarse blocks: (b, n, c, num_column_blocks, size), zero-padded."""
    b, n, c, s = tuple(ops.shape(tensor))
    count = spec.num_column_blocks
    if _divides_columns(block, s, spec):
        return ops.reshape(tensor, (b, n, c, count, s // count))
    indices = ops.arange(count, dtype="int32")
    begin, end = indices * spec.columns // count, (indices + 1) * spec.columns // count
    columns = begin[:, None] + ops.arange(-(-spec.columns // count), dtype="int32")
    local = columns - ops.cast(block.columns.start, "int32")
    exists = ops.logical_and(ops.logical_and(local >= 0, local < s), columns < end[:, None])
    gathered = ops.take(tensor, ops.reshape(ops.clip(local, 0, static_max(s, 1) - 1), (-1,)), axis=-1)
    return ops.where(exists, ops.reshape(gathered, (b, n, c, count, -1)), 0.0)


def _divides_columns(block: Block, columns: Any, spec: StatisticsSpec) -> bool:
    """Return True if a block has all columns, and all coarse blocks have the same number of them."""
    count = spec.num_column_blocks
    return block.columns.is_full and isinstance(columns, int) and isinstance(count, int) and columns % count == 0
