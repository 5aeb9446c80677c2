"""A question about some of its heads, rows and columns, so that their weights cost only what they are."""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from limelight.core.block import Slice
from limelight.engine import dense, thresholds
from limelight.engine.call import AttentionCall


def chosen(call: AttentionCall, heads: Any, rows: Any, columns: Any) -> Any:
    """The weights (B, n, t, s) of heads, rows and columns as a user chooses them, with the axes that the queries had before.

    Raises:
        ValueError: heads are chosen of queries that have no axis for them.
    """
    if heads is not None and len(call.lead) < 2:
        raise ValueError(
            f"`heads` can be chosen of queries (..., N, T, H) with an axis for heads. Received: heads={heads!r} with queries of "
            f"{len(call.lead) + 2} axes. Leave `heads` out."
        )
    given = {"heads": heads, "rows": rows, "columns": columns}
    spans = (call.block.heads, call.block.rows, call.block.columns)
    found = weights(
        call, *(selection(one, span.total, name) for (name, one), span in zip(given.items(), spans, strict=True))
    )
    lead = call.lead if heads is None or len(call.lead) < 2 else (*call.lead[:-1], found.shape[1])
    return found if len(lead) == 2 else ops.reshape(found, (*lead, *tuple(ops.shape(found))[2:]))


def weights(call: AttentionCall, heads: Any, rows: Any, columns: Any) -> Any:
    """The weights (B, n, t, s) of chosen heads, rows and columns; each None, for all, or a list of ints.

    Whole rows are computed, because a row is normalised as a whole, but only those that are chosen; where columns are chosen too,
    some rows at a time, so that no more than these and the result are held.
    """
    # The weights of a query that depend on those before it need all of these.
    later = rows if call.normalizer.linked_rows else None
    call = narrowed(call, heads, None if later is not None else rows)
    found = dense.weights(call) if columns is None else in_blocks(call, columns)
    return found if later is None else ops.take(found, ops.convert_to_tensor(later, dtype="int32"), axis=-2)


def narrowed(call: AttentionCall, heads: Any, rows: Any) -> AttentionCall:
    """The question of some heads and rows."""
    call = call.prepared()
    query, key, block = call.query, call.key, call.block
    if heads is not None:
        count, kept = query.shape[1], key.shape[1]
        query, block = (
            ops.take(query, np.array(heads, "int32"), axis=1),
            block.replace(heads=Slice(count, indices=heads)),
        )
        if kept > 1:
            key = ops.take(key, np.array(heads, "int32") // (count // kept), axis=1)
    if rows is not None:
        query = ops.take(query, np.array(rows, "int32"), axis=2)
        block = block.replace(rows=Slice(block.rows.total, indices=rows))
    return dataclasses.replace(call, query=query, key=key, block=block)


def in_blocks(call: AttentionCall, columns: list[int]) -> Any:
    """The weights of a narrowed question at some columns, from whole rows of which few are held at a time."""
    (batch, heads, count, _), total = call.query.shape, call.key.shape[2]
    places = ops.convert_to_tensor(columns, dtype="int32")
    if count is None or total is None or call.normalizer.linked_rows:
        return ops.take(dense.weights(call), places, axis=-1)
    step = max(1, thresholds.current(call.query).scores_per_block // ((batch or 1) * heads * total * call.score.cost))
    if step >= count:
        return ops.take(dense.weights(call), places, axis=-1)
    rows = call.block.rows
    chosen = ops.convert_to_tensor(list(range(count)) if rows.indices is None else rows.indices, dtype="int32")

    def block(start: Any) -> Any:
        here = Slice(count, start, step)
        block = call.block.replace(rows=Slice(rows.total, indices=here.of(chosen, 0)))
        part = dataclasses.replace(call, query=here.of(call.query, 2), block=block)
        return ops.take(dense.weights(part), places, axis=-1)

    blocks = -(-count // step)
    # The last block is moved back to end with the rows.
    starts = np.minimum(np.arange(blocks) * step, count - step).astype("int32")
    found = ops.moveaxis(ops.map(block, ops.convert_to_tensor(starts)), 0, 2)  # (B, n, blocks, t, s)
    lead, width = tuple(ops.shape(found))[:2], len(columns)
    first, last = found[:, :, :-1], found[:, :, -1, blocks * step - count :]
    return ops.concatenate([ops.reshape(first, (*lead, (blocks - 1) * step, width)), last], axis=2)


def selection(chosen: Any, length: Any, what: str) -> list[int] | None:
    """Indices from None (all), an int, a slice, or a list of ints or bools.

    Raises:
        IndexError: an index outside 0 .. length - 1 (negative ones count from the end).
        TypeError: anything else, or anything that depends on a length that is not known.
    """
    if chosen is None:
        return None
    if not isinstance(length, int):
        raise TypeError(
            f"`{what}` can be chosen where their number is known. Received: {chosen!r} of an unknown length."
        )
    if isinstance(chosen, slice):
        return list(range(length))[chosen]
    indices = np.atleast_1d(np.asarray(chosen))
    if indices.dtype == bool and indices.shape == (length,):
        return np.flatnonzero(indices).tolist()
    if indices.ndim > 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise TypeError(f"`{what}` must be an int, a slice, a list of ints or {length} bools. Received: {chosen!r}.")
    if ((indices < -length) | (indices >= length)).any():
        raise IndexError(f"`{what}` must lie in 0 .. {length - 1}. Received: {chosen!r}.")
    return [int(index) % length for index in indices]
