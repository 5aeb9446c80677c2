"""JAX: blocks of whole rows, for every score and every normalizer.

A block is computed again in the backward pass (`jax.checkpoint`), so that nothing of size T x S is kept. All of JAX's
transformations apply: higher derivatives, `vmap`, `jit`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from limelight.core.block import Block, Slice
from limelight.engine.call import AttentionCall
from limelight.engine.dense import BlockWeights, apply_weights, compute_block_weights, prepare_for_blocks
from limelight.engine.thresholds import BlockSizes, choose_block_sizes

# A function of a block, the values of its columns, its new rows and a carry. It returns an output for each row, (b, n, t, ...),
# and the next carry. New rows are None for all, or bool (t,): a last block that was moved back repeats rows of the block before.
Visit = Callable[[BlockWeights, Any, Any, Any], tuple[Any, Any]]

# A mask under which blocks of rows need less than this fraction of the columns is worth several loops of different widths.
MAX_LOOP_FRACTION = 0.8
NUM_LOOPS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """A loop over blocks of rows of the same size, whose columns have the same width. Sizes must be known at compilation.

    Args:
        size: The number of rows in a block.
        width: The number of columns in a block.
        row_starts, column_starts: The first row and column of each block.
        new_starts: The first row of each block that is not in the block before; None if that is always the first row.
    """

    size: int
    width: int
    row_starts: np.ndarray
    column_starts: np.ndarray
    new_starts: np.ndarray | None


def compute_output(
    call: AttentionCall, value: Any, seed: Any = None, *, scores_per_block: int, dropout: float = 0.0
) -> Any:
    """Compute the output (B, N, T, V) of a call for values (B, K, S, V), in blocks of about so many scores."""

    def visit(weights: BlockWeights, value: Any, is_new: Any, carry: Any) -> tuple[Any, Any]:
        return apply_weights(weights.weights, value, weights.block, dropout, seed).astype(value.dtype), carry

    return scan_blocks(prepare_for_blocks(call), value, visit, (), scores_per_block)[0]


def scan_blocks(call: AttentionCall, value: Any, visit: Visit, init: Any, scores_per_block: int) -> tuple[Any, Any]:
    """Scan over all blocks of a prepared call.

    Args:
        call: The prepared call.
        value: (B, K, S, V), or None.
        visit: The function of each block.
        init: The initial carry of each head of each example, a pytree of arrays without axes for these.
        scores_per_block: About how many scores a block has.

    Returns:
        The outputs of all rows, (B, N, T, ...), and the last carry of each head, (B, N, ...).
    """
    query, key = call.query, call.key
    b, n = query.shape[:2]
    k = key.shape[1]
    sizes = choose_block_sizes(call, scores_per_block)
    cb, cn = sizes.batch, sizes.heads
    ck = max(1, cn * k // n)
    blocks_per_key_head = n // (k // ck) // cn
    loops = plan_loops(call, sizes)
    init = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (cb, cn, *jnp.shape(leaf))), init)

    def scan_units(_: None, inputs: tuple) -> tuple[None, Any]:
        unit, queries, keys, values = inputs
        example, key_head = unit // (k // ck) * cb, unit % (k // ck) * ck

        def scan_heads(_: None, inputs: tuple) -> tuple[None, Any]:
            index, queries = inputs
            head = key_head * (n // k) + index * cn
            block = call.block.replace(batch=Slice(b, example, cb), heads=Slice(n, head, cn))
            return None, scan_rows(call, block, queries, keys, values, visit, init, loops)

        return None, lax.scan(scan_heads, None, (jnp.arange(blocks_per_key_head), queries))[1]

    # A unit is a block of examples and of key heads with all query heads that share them.
    num_units = b // cb * (k // ck)
    queries = query.reshape(b // cb, cb, k // ck, blocks_per_key_head, cn, *query.shape[2:])
    queries = jnp.moveaxis(queries, 1, 3).reshape(num_units, blocks_per_key_head, cb, cn, *query.shape[2:])
    keys, values = (
        None
        if tensor is None
        else jnp.moveaxis(tensor.reshape(b // cb, cb, k // ck, ck, *tensor.shape[2:]), 1, 2).reshape(
            num_units, cb, ck, *tensor.shape[2:]
        )
        for tensor in (key, value)
    )
    _, results = lax.scan(scan_units, None, (jnp.arange(num_units), queries, keys, values))

    def restore_batch_and_heads(leaf: Any) -> Any:
        leaf = leaf.reshape(b // cb, k // ck, blocks_per_key_head, cb, cn, *leaf.shape[4:])
        return jnp.moveaxis(leaf, 3, 1).reshape(b, n, *leaf.shape[5:])

    return jax.tree.map(restore_batch_and_heads, results)


def scan_rows(
    call: AttentionCall, block: Block, queries: Any, keys: Any, values: Any, visit: Visit, carry: Any, loops: list[Loop]
) -> tuple[Any, Any]:
    """Scan over the blocks of rows of some examples and heads."""
    t, s, cn = call.query.shape[2], keys.shape[2], queries.shape[1]
    if 1 < keys.shape[1] < cn:
        keys = jnp.repeat(keys, cn // keys.shape[1], axis=1)
        values = None if values is None else jnp.repeat(values, cn // values.shape[1], axis=1)
    # Transposed once for all blocks, not in each product.
    transposed_keys = jnp.swapaxes(keys, -1, -2)
    outputs = []
    for loop in loops:

        def step(carry: Any, starts: tuple, loop: Loop = loop) -> tuple[Any, Any]:
            row, column, new_start = starts
            columns = Slice(s, column, loop.width) if loop.width < s else Slice(s)
            step_block = block.replace(rows=Slice(t, row, loop.size), columns=columns)
            query = lax.dynamic_slice_in_dim(queries, row, loop.size, 2) if loop.size < t else queries
            key = jnp.swapaxes(columns.take(transposed_keys, 3), -1, -2)
            value = None if values is None else columns.take(values, 2)
            is_new = None if loop.new_starts is None else row + jnp.arange(loop.size) >= new_start
            output, carry = visit(compute_block_weights(call, step_block, query, key), value, is_new, carry)
            return carry, output

        # Under `scan`, XLA does not share the recomputation with the first computation (`prevent_cse`).
        recomputed = jax.checkpoint(step, prevent_cse=False)
        new_starts = loop.row_starts if loop.new_starts is None else loop.new_starts
        carry, output = lax.scan(recomputed, carry, (loop.row_starts, loop.column_starts, new_starts))
        outputs.append(output)
    # The number of new rows in the last block of each loop.
    last_sizes = [None if loop.new_starts is None else int(t - loop.new_starts[-1]) for loop in loops]
    return jax.tree.map(lambda *leaves: concatenate_rows(leaves, last_sizes), *outputs), carry


def concatenate_rows(leaves: tuple, last_sizes: list[int | None]) -> Any:
    """Return rows (b, n, T, ...) from blocks (count, b, n, t, ...) of several loops.

    Args:
        leaves: The blocks of each loop.
        last_sizes: The number of rows to take from the end of each loop's last block; None for all.
    """
    pieces = []
    for leaf, last_size in zip(leaves, last_sizes, strict=True):
        blocks = jnp.moveaxis(leaf, 0, 2)  # (b, n, count, t, ...)
        parts = [blocks] if last_size is None else [blocks[:, :, :-1], blocks[:, :, -1:, -last_size:]]
        pieces += [part.reshape(*part.shape[:2], -1, *part.shape[4:]) for part in parts]
    return jnp.concatenate(pieces, axis=2) if len(pieces) > 1 else pieces[0]


def plan_loops(call: AttentionCall, sizes: BlockSizes) -> list[Loop]:
    """Group the blocks of rows into loops. If the mask knows them, rows that need few columns go together."""
    t, s = call.query.shape[2], call.key.shape[2]
    size = min(sizes.rows, t)
    count = -(-t // size)
    starts = [min(index * size, t - size) for index in range(count)]
    ranges = static_kv_ranges(call, starts, size)
    groups = [range(count * index // NUM_LOOPS, count * (index + 1) // NUM_LOOPS) for index in range(NUM_LOOPS)]
    groups = [group for group in groups if group]
    if sum(len(group) * max_width(ranges, group) for group in groups) >= MAX_LOOP_FRACTION * count * s:
        groups, ranges = [range(count)], [(0, s)] * count
    elif len({max_width(ranges, group) for group in groups}) == 1:
        groups = [range(count)]
    loops = []
    for group in groups:
        width = max_width(ranges, group)
        has_overlap = t % size and group[-1] == count - 1
        loops.append(
            Loop(
                size,
                width,
                row_starts=np.array([starts[index] for index in group]),
                column_starts=np.array([min(ranges[index][0], s - width) for index in group]),
                new_starts=np.array([index * size for index in group]) if has_overlap else None,
            )
        )
    return loops


def static_kv_ranges(call: AttentionCall, starts: list[int], size: int) -> list[tuple[int, int]]:
    """Return the range of columns that each block of rows may attend to; all columns if that is unknown at compilation."""
    t, s = call.query.shape[2], call.key.shape[2]
    full, ranges = [(0, s)] * len(starts), []
    if call.mask is None or call.normalizer.needs_all_rows:
        return full
    for row in starts:
        first, last = call.mask.kv_range(call.block.replace(rows=Slice(t, row, size)))
        if not isinstance(first, int) or not isinstance(last, int):
            return full
        ranges.append((first, last))
    return ranges


def max_width(ranges: list[tuple[int, int]], group: range) -> int:
    """Return the largest width of the ranges of a group, at least 1."""
    return max(1, *(ranges[index][1] - ranges[index][0] for index in group))
