"""JAX: blocks of whole rows, for every score and every normalizer.

A block is computed again in the backward pass (`jax.checkpoint`), so that nothing of size T x S is kept, and everything that
JAX does to a function it does to this one: derivatives of derivatives, `vmap`, `jit`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from limelight.core.block import Block, Slice
from limelight.engine.block_sizes import Sizes, sizes
from limelight.engine.call import AttentionCall
from limelight.engine.dense_block import BlockWeights, block_weights, mixture, prepared

# From a block, the values at its columns and what was gathered so far: what there is to say of each row, (b, n, t, ...), and
# what is gathered now. The bools (t,) say which rows count: those of a last block that was moved back are there twice.
Visit = Callable[[BlockWeights, Any, Any, Any], tuple[Any, Any]]

# A mask that leaves less than this share of the columns to blocks of rows is worth several loops of different widths.
WORTHWHILE = 0.8
LOOPS = 4


def output(call: AttentionCall, value: Any, seed: Any = None, *, size: int, dropout: float = 0.0) -> Any:
    """The output (B, N, T, V) of a question for values (B, K, S, V), in blocks of about so many scores."""

    def visit(found: BlockWeights, value: Any, fresh: Any, gathered: Any) -> tuple[Any, Any]:
        return mixture(found.weights, value, found.block, dropout, seed).astype(value.dtype), gathered

    return walk(prepared(call), value, visit, (), size)[0]


def walk(call: AttentionCall, value: Any, visit: Visit, gathered: Any, size: int) -> tuple[Any, Any]:
    """Go through all blocks of a prepared question.

    Args:
        question: what is asked.
        value: (B, K, S, V), or None.
        visit: what is done with each block.
        gathered: what each head of each example starts with, arrays without axes for these.
        size: about how many scores a block has.

    Returns:
        What was said of each row, (B, N, T, ...), and what was gathered for each head, (B, N, ...).
    """
    query, key = call.query, call.key
    b, n = query.shape[:2]
    k = key.shape[1]
    block_size = sizes(call, size)
    cb, cn = block_size.batch, block_size.heads
    ck = max(1, cn * k // n)
    inner = n // (k // ck) // cn  # blocks of heads that share keys
    runs = layout(call, block_size)
    gathered = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (cb, cn, *jnp.shape(leaf))), gathered)

    def unit(_: None, given: tuple) -> tuple[None, Any]:
        number, queries, keys, values = given
        example, kept = number // (k // ck) * cb, number % (k // ck) * ck

        def heads(_: None, given: tuple) -> tuple[None, Any]:
            number, queries = given
            block = call.block.replace(batch=Slice(b, example, cb), heads=Slice(n, kept * (n // k) + number * cn, cn))
            return None, rows(call, block, queries, keys, values, visit, gathered, runs)

        return None, lax.scan(heads, None, (jnp.arange(inner), queries))[1]

    units = b // cb * (k // ck)
    split = lambda tensor, heads: tensor.reshape(b // cb, cb, k // ck, heads, *tensor.shape[2:])  # noqa: E731
    queries = split(query, n // (k // ck)).reshape(b // cb, cb, k // ck, inner, cn, *query.shape[2:])
    queries = jnp.moveaxis(queries, 1, 3).reshape(units, inner, cb, cn, *query.shape[2:])
    keys, values = (
        None if tensor is None else jnp.moveaxis(split(tensor, ck), 1, 2).reshape(units, cb, ck, *tensor.shape[2:])
        for tensor in (key, value)
    )
    _, found = lax.scan(unit, None, (jnp.arange(units), queries, keys, values))

    def joined(leaf: Any) -> Any:
        leaf = leaf.reshape(b // cb, k // ck, inner, cb, cn, *leaf.shape[4:])
        return jnp.moveaxis(leaf, 3, 1).reshape(b, n, *leaf.shape[5:])

    return jax.tree.map(joined, found)


def rows(
    call: AttentionCall,
    block: Block,
    queries: Any,
    keys: Any,
    values: Any,
    visit: Visit,
    gathered: Any,
    runs: list[tuple],
) -> tuple[Any, Any]:
    """Go through the blocks of rows of one tile of examples and heads."""
    t, s, cn = call.query.shape[2], keys.shape[2], queries.shape[1]
    if 1 < keys.shape[1] < cn:
        keys = jnp.repeat(keys, cn // keys.shape[1], axis=1)
        values = None if values is None else jnp.repeat(values, cn // values.shape[1], axis=1)
    # Turned once for all blocks, in whose products long rows of keys need not be turned then.
    turned, said = jnp.swapaxes(keys, -1, -2), []
    for size, width, starts, firsts, fresh in runs:

        def step(
            gathered: Any, given: tuple, size: int = size, width: int = width, fresh: Any = fresh
        ) -> tuple[Any, Any]:
            row, column, from_row = given
            here = block.replace(rows=Slice(t, row, size), columns=Slice(s, column, width) if width < s else Slice(s))
            q = lax.dynamic_slice_in_dim(queries, row, size, 2) if size < t else queries
            k = jnp.swapaxes(here.columns.of(turned, 3), -1, -2)
            v = None if values is None else here.columns.of(values, 2)
            counted = None if fresh is None else row + jnp.arange(size) >= from_row
            said, gathered = visit(block_weights(call, here, q, k), v, counted, gathered)
            return gathered, said

        # Computed again when its derivative is asked for; `scan` keeps the compiler from sharing it with the first time.
        again = jax.checkpoint(step, prevent_cse=False)
        gathered, found = lax.scan(again, gathered, (starts, firsts, starts if fresh is None else fresh))
        said.append((found, None if fresh is None else int(t - fresh[-1])))
    return jax.tree.map(
        lambda *leaves: whole(leaves, [last for _, last in said]), *(found for found, _ in said)
    ), gathered


def whole(leaves: tuple, lasts: list[int | None]) -> Any:
    """Rows (b, n, T, ...) from blocks (count, b, n, t, ...); of the last block of a run only the last rows may be new."""
    pieces = []
    for leaf, last in zip(leaves, lasts, strict=True):
        blocks = jnp.moveaxis(leaf, 0, 2)  # (b, n, count, t, ...)
        flat = lambda part: part.reshape(*part.shape[:2], -1, *part.shape[4:])  # noqa: E731
        pieces += [flat(blocks)] if last is None else [flat(blocks[:, :, :-1]), flat(blocks[:, :, -1:, -last:])]
    return jnp.concatenate(pieces, axis=2) if len(pieces) > 1 else pieces[0]


def layout(call: AttentionCall, block_size: Sizes) -> list[tuple]:
    """Runs of blocks of rows: their size, the width of their columns, where each begins, and from which row on it counts.

    Widths must be known when a loop is compiled. Where the mask knows them, rows that need few columns go together.
    """
    t, s = call.query.shape[2], call.key.shape[2]
    size = min(block_size.rows, t)
    count = -(-t // size)
    starts = [min(index * size, t - size) for index in range(count)]
    bounds = needed(call, starts, size)
    parts = [range(count * index // LOOPS, count * (index + 1) // LOOPS) for index in range(LOOPS)]
    parts = [part for part in parts if part]
    if sum(len(part) * widest(bounds, part) for part in parts) >= WORTHWHILE * count * s:
        parts, bounds = [range(count)], [(0, s)] * count
    elif len({widest(bounds, part) for part in parts}) == 1:
        parts = [range(count)]
    runs = []
    for part in parts:
        width = widest(bounds, part)
        firsts = np.array([min(bounds[index][0], s - width) for index in part])
        ragged = t % size and part[-1] == count - 1
        fresh = np.array([index * size for index in part]) if ragged else None
        runs.append((size, width, np.array([starts[index] for index in part]), firsts, fresh))
    return runs


def needed(call: AttentionCall, starts: list[int], size: int) -> list[tuple[int, int]]:
    """The first column that each block of rows may attend to, and that after the last; all where not known."""
    t, s = call.query.shape[2], call.key.shape[2]
    everything, bounds = [(0, s)] * len(starts), []
    if call.mask is None or call.normalizer.linked_rows:
        return everything
    for row in starts:
        first, last = call.mask.kv_range(call.block.replace(rows=Slice(t, row, size)))
        if not isinstance(first, int) or not isinstance(last, int):
            return everything
        bounds.append((first, last))
    return bounds


def widest(bounds: list[tuple[int, int]], part: range) -> int:
    """The largest width in a part, at least 1."""
    return max(1, *(bounds[index][1] - bounds[index][0] for index in part))
