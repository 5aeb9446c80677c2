"""The formula: all scores at once, one block of them, or selected rows.

It is the reference for every other implementation, and the fastest one for short inputs.
"""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from limelight._indexing import resolve_indices
from limelight.core.block import Block, Slice
from limelight.core.precision import accumulation_dtype, upcast
from limelight.core.random import dropout_mask
from limelight.core.shapes import broadcast_length, broadcast_to, size_of
from limelight.engine import thresholds
from limelight.engine.call import AttentionCall
from limelight.scores import Dot


def compute_output(call: AttentionCall, value: Any, *, dropout: float = 0.0, seed: Any = None) -> Any:
    """Compute the output (B, N, T, V) of a call for values (B, K, S, V)."""
    value = repeat_heads(value, call.query)
    return ops.cast(apply_weights(compute_weights(call), value, call.block, dropout, seed), value.dtype)


def compute_weights(call: AttentionCall) -> Any:
    """Compute all weights, (B, N, T, S), in float32 or wider."""
    scores = call.score(call.query, repeat_heads(call.key, call.query), block=call.block)
    mask = None if call.mask is None else call.mask(call.block)
    # Either of the scores and the query may have length 1 along the batch and the heads.
    batch, heads = (broadcast_length(scores, call.query, axis) for axis in (0, 1))
    scores = broadcast_to(scores, (batch, heads, call.block.rows.length, call.block.columns.length))
    return call.normalizer(scores, mask, block=call.block)


def repeat_heads(tensor: Any, query: Any) -> Any:
    """Repeat keys or values (B, K, S, H) for N query heads. K = 1 broadcasts and is left alone."""
    heads, num_kv_heads = size_of(query, 1), size_of(tensor, 1)
    return tensor if num_kv_heads in (1, heads) else ops.repeat(tensor, heads // num_kv_heads, axis=1)


def apply_weights(weights: Any, value: Any, block: Block, dropout: float = 0.0, seed: Any = None) -> Any:
    """Average values (b, k, s, V) by weights (b, n, t, s) after dropout: (b, n, t, V) in float32 or wider."""
    if dropout:
        weights = weights * dropout_mask(seed, dropout, block, weights.dtype)
    return ops.matmul(weights, ops.cast(value, accumulation_dtype(value.dtype)))


@dataclasses.dataclass(frozen=True, eq=False)
class BlockWeights:
    """The scores and weights of a block of rows. Its columns include all that the rows may attend to.

    Args:
        block: The place of the scores.
        scores: (b, n, t, s), before the mask.
        mask: Bool, broadcastable to the scores, or None.
        weights: (b, n, t, s).
    """

    block: Block
    scores: Any
    mask: Any
    weights: Any


def prepare_for_blocks(call: AttentionCall) -> AttentionCall:
    """Prepare a call for computation in blocks. The queries are scaled once, because they are fewer than the scores."""
    call = call.prepare()
    score = call.score
    if type(score) is not Dot:
        return call
    query = upcast(call.query) * score.factor(call.query.shape[-1])
    return dataclasses.replace(call, query=query, score=Dot(scale=1.0))


def compute_block_weights(call: AttentionCall, block: Block, query: Any, key: Any) -> BlockWeights:
    """Compute a block from its queries (b, n, t, H) and its keys (b, k, s, H), where k is n or 1."""
    scores = call.score(query, key, block=block)
    slices = (block.batch, block.heads, block.rows, block.columns)
    scores = ops.broadcast_to(scores, tuple(part.length for part in slices))
    mask = None if call.mask is None else call.mask(block)
    return BlockWeights(block, scores, mask, call.normalizer(scores, mask, block=block))


def select_weights(call: AttentionCall, heads: Any, rows: Any, columns: Any) -> Any:
    """Compute the weights of heads, rows and columns as a user selects them, with the leading axes of the caller's queries.

    Args:
        call: The attention call.
        heads, rows, columns: None for all, an int, a slice, or a list of ints or bools.

    Returns:
        (..., n, t, s), or (..., t, s) for queries without an axis for heads.

    Raises:
        ValueError: `heads` is given for queries that have no axis for them.
        IndexError, TypeError: as `parse_index`.
    """
    leading_shape = call.leading_shape
    if heads is not None and len(leading_shape) < 2:
        raise ValueError(
            f"`heads` can be selected of queries (..., N, T, H) with an axis for heads. Received: heads={heads!r} with queries "
            f"of {len(leading_shape) + 2} axes. Leave `heads` out."
        )
    block = call.block
    weights = _compute_selection(
        call,
        parse_index(heads, block.heads.total, "heads"),
        parse_index(rows, block.rows.total, "rows"),
        parse_index(columns, block.columns.total, "columns"),
    )
    if heads is not None:
        leading_shape = (*leading_shape[:-1], weights.shape[1])
    if len(leading_shape) == 2:
        return weights
    return ops.reshape(weights, (*leading_shape, *tuple(ops.shape(weights))[2:]))


def _compute_selection(
    call: AttentionCall, heads: list[int] | None, rows: list[int] | None, columns: list[int] | None
) -> Any:
    """Compute the weights (B, n, t, s) of heads, rows and columns given by index, or of all for None.

    A row is normalized as a whole, so that whole rows are computed, but only the selected ones. If columns are selected too, few
    rows are held at a time.
    """
    # If weights depend on those of earlier queries, all rows are computed first and selected afterwards.
    rows_afterwards = rows if call.normalizer.needs_all_rows else None
    call = _select_heads_and_rows(call, heads, None if rows_afterwards is not None else rows)
    weights = compute_weights(call) if columns is None else _compute_columns(call, columns)
    if rows_afterwards is None:
        return weights
    return ops.take(weights, ops.convert_to_tensor(rows_afterwards, dtype="int32"), axis=-2)


def _select_heads_and_rows(call: AttentionCall, heads: list[int] | None, rows: list[int] | None) -> AttentionCall:
    call = call.prepare()
    query, key, block = call.query, call.key, call.block
    if heads is not None:
        num_heads, num_kv_heads = query.shape[1], key.shape[1]
        query = ops.take(query, np.array(heads, "int32"), axis=1)
        block = block.replace(heads=Slice(num_heads, indices=heads))
        if num_kv_heads > 1:
            key = ops.take(key, np.array(heads, "int32") // (num_heads // num_kv_heads), axis=1)
    if rows is not None:
        query = ops.take(query, np.array(rows, "int32"), axis=2)
        block = block.replace(rows=Slice(block.rows.total, indices=rows))
    return dataclasses.replace(call, query=query, key=key, block=block)


def _compute_columns(call: AttentionCall, columns: list[int]) -> Any:
    """Compute the weights of a call at some columns, from whole rows of which few are held at a time."""
    (batch, heads, num_rows, _), num_columns = call.query.shape, call.key.shape[2]
    column_indices = ops.convert_to_tensor(columns, dtype="int32")
    if num_rows is None or num_columns is None or call.normalizer.needs_all_rows:
        return ops.take(compute_weights(call), column_indices, axis=-1)
    scores_per_row = (batch or 1) * heads * num_columns * call.score.cost
    size = max(1, thresholds.current(call.query).scores_per_block // scores_per_row)
    if size >= num_rows:
        return ops.take(compute_weights(call), column_indices, axis=-1)
    rows = call.block.rows
    indices = list(range(num_rows)) if rows.indices is None else rows.indices
    row_indices = ops.convert_to_tensor(indices, dtype="int32")

    def compute_block(start: Any) -> Any:
        part = Slice(num_rows, start, size)
        block = call.block.replace(rows=Slice(rows.total, indices=part.take(row_indices, 0)))
        block_call = dataclasses.replace(call, query=part.take(call.query, 2), block=block)
        return ops.take(compute_weights(block_call), column_indices, axis=-1)

    num_blocks = -(-num_rows // size)
    # All blocks have the same size: the last one is moved back to end with the rows.
    starts = np.minimum(np.arange(num_blocks) * size, num_rows - size).astype("int32")
    blocks = ops.moveaxis(ops.map(compute_block, ops.convert_to_tensor(starts)), 0, 2)  # (B, n, blocks, t, s)
    shape = (*tuple(ops.shape(blocks))[:2], (num_blocks - 1) * size, len(columns))
    last_rows = blocks[:, :, -1, num_blocks * size - num_rows :]
    return ops.concatenate([ops.reshape(blocks[:, :, :-1], shape), last_rows], axis=2)


def parse_index(index: Any, length: Any, name: str) -> list[int] | None:
    """Return the selected indices, or None for all (see `resolve_indices`).

    Raises:
        IndexError: An index lies outside the axis.
        TypeError: The selection is of another kind, or the length is unknown.
    """
    if index is None:
        return None
    if not isinstance(length, int):
        raise TypeError(f"`{name}` can be selected if their number is known. Received: {index!r} of an unknown length.")
    return resolve_indices(index, length, name).tolist()
