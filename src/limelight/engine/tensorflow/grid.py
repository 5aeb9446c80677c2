"""TensorFlow: blocks of whole rows, their masks, and the loops over them.

Eagerly a loop is Python's, in a graph it is `tf.while_loop`. There a block has only the columns that its rows may attend to,
however many these are, except under XLA, which must know sizes when it compiles.

Each operation goes through memory. One that masks, scales or copies the scores costs as much as the softmax itself, and half as
much as the product of queries and keys. So queries are scaled in place of scores, and a mask is applied only to the columns that
it does not permit to all rows.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from limelight.core.block import Block, Slice
from limelight.core.precision import accumulation_dtype
from limelight.core.shapes import shape_of
from limelight.engine.call import AttentionCall
from limelight.engine.tensorflow.tracing import static_length, under_xla
from limelight.engine.thresholds import choose_block_sizes
from limelight.masks import Mask, static_max, static_min
from limelight.normalizers import MASK_VALUE, Softmax
from limelight.scores import Dot

# Transposing keys for fewer blocks than this costs as much as it gains.
MIN_BLOCKS_TO_TRANSPOSE = 4


class Grid:
    """Blocks of some examples, heads and rows, each with the columns that it needs.

    A unit is a block of examples and of key heads with all query heads that share them.

    Args:
        call: The attention call.
        query, key: Its tensors, as the gradient sees them.
        scores_per_block: About how many scores a block has.
    """

    def __init__(self, call: AttentionCall, query: Any, key: Any, scores_per_block: int) -> None:
        self.dtype = accumulation_dtype(query.dtype)
        self.b, self.n, self.t, self.h = shape_of(query)
        self.k, self.s = shape_of(key)[1:3]
        sizes = choose_block_sizes(call, scores_per_block)
        self.cb, self.cn = sizes.batch, sizes.heads
        self.ck = max(1, self.cn * self.k // self.n)
        self.bt = static_min(sizes.rows, self.t)
        self.inner = self.n // (self.k // self.ck) // self.cn  # blocks of heads that share keys
        self.across = -(-self.t // self.bt)  # blocks of rows
        self.units = self.b // self.cb * (self.k // self.ck)
        self.width = max_static_width(call, self.bt, self.t, self.s) if under_xla() else None

    def block(self, call: AttentionCall, unit: Any, number: Any) -> Block:
        """Return a block of a unit, with the columns that it needs."""
        units_per_example = self.k // self.ck
        head, row = number // self.across, number % self.across
        start = 0 if is_equal(self.bt, self.t) else static_min(row * self.bt, self.t - self.bt)
        first_head = unit % units_per_example * self.ck * (self.n // self.k) + head * self.cn
        block = call.block.replace(
            batch=Slice(self.b, unit // units_per_example * self.cb, self.cb),
            heads=Slice(self.n, first_head, self.cn),
            rows=Slice(self.t, start, self.bt),
            columns=Slice(self.s),
        )
        if call.mask is None or call.normalizer.needs_all_rows or (self.width is None and under_xla()):
            return block
        first, last = call.mask.kv_range(block)
        if self.width is not None:
            return block.replace(columns=Slice(self.s, static_min(first, self.s - self.width), self.width))
        # At least one column, even if the mask forbids it: an empty row has no maximum.
        first = static_min(first, self.s - 1)
        return block.replace(columns=Slice(self.s, first, static_max(last - first, 1)))

    def rows(self, tensor: Any, block: Block) -> Any:
        """Return the rows (b, n, t, ...) of a block of a tensor (B, N, T, ...)."""
        shape = (self.cb, self.cn, block.rows.size, tensor.shape[-1])
        start = (block.batch.start, block.heads.start, block.rows.start, 0)
        return tf.ensure_shape(tf.slice(tensor, start, shape), [static_length(length) for length in shape])

    def unit(self, tensor: Any, unit: Any) -> Any:
        """Return the examples and heads (cb, ck, S, H) of a unit of keys or values (B, K, S, H)."""
        shape = (self.cb, self.ck, self.s, tensor.shape[-1])
        # A unit has all heads, or one example: reshaping moves no element. A slice of the first axis is no copy, any other is.
        units = tf.reshape(tensor, (-1, *shape))
        return tf.ensure_shape(tf.reshape(units[unit], shape), [static_length(length) for length in shape])

    def columns(self, tensor: Any, block: Block) -> Any:
        """Return the columns of a block of a unit of keys or values (cb, ck, S, H)."""
        columns = block.columns
        if columns.is_full or not (is_equal(self.cb, 1) and is_equal(self.ck, 1)):
            return columns.take(tensor, 2)
        size = tensor.shape[-1]
        rows = tf.slice(tf.reshape(tensor, (self.s, size)), (columns.start, 0), (columns.size, size))
        return tf.reshape(rows, (1, 1, columns.size, size))

    def repeat_heads(self, tensor: Any) -> Any:
        """Repeat keys or values of a block for each of its query heads. A single key head broadcasts and is left alone."""
        return tf.repeat(tensor, self.cn // self.ck, axis=1) if 1 < self.ck < self.cn else tensor

    def transpose_key(self, call: AttentionCall, key: Any) -> Any:
        """Transpose the keys of a unit, (b, k, H, s), once for its blocks; None if these need some columns only.

        The product with transposed keys is 10 to 17 % faster. A slice of them would be a copy, unlike one of (b, k, s, H).
        """
        num_blocks = self.inner * self.across
        if call.mask is not None or type(call.normalizer) is not Softmax or type(call.score) is not Dot:
            return None
        if isinstance(num_blocks, int) and num_blocks < MIN_BLOCKS_TO_TRANSPOSE:
            return None
        return tf.linalg.matrix_transpose(tf.cast(key, self.dtype))

    def block_array(self, count: Any, like: Any) -> tf.TensorArray:
        """Return an array for one block of rows of each step of a loop."""
        shape = (static_length(self.cb), self.cn, static_length(self.bt), like.shape[-1])
        return tf.TensorArray(like.dtype, count, element_shape=shape)

    def concat_rows(self, blocks: Any, size: int) -> Any:
        """Return (B, N, T, size) from blocks (units * inner * across, cb, cn, bt, size)."""
        per = self.k // self.ck
        blocks = tf.reshape(blocks, (self.b // self.cb, per, self.inner, self.across, self.cb, self.cn, self.bt, size))
        blocks = tf.transpose(blocks, (0, 4, 1, 2, 5, 3, 6, 7))
        rows = tf.reshape(blocks, (self.b, self.n, self.across * self.bt, size))
        if not self.has_overlap:
            return rows
        # The last block was moved back to end with the sequence: its first rows are repeated.
        before = (self.across - 1) * self.bt
        return tf.concat([rows[:, :, :before], rows[:, :, before + self.bt - (self.t - before) :]], axis=2)

    @property
    def has_overlap(self) -> bool:
        """True if the last block may repeat rows of the block before."""
        return not (isinstance(self.t, int) and isinstance(self.bt, int) and self.t % self.bt == 0)

    def zero_overlap(self, rows: Any, number: Any) -> Any:
        """Zero the rows of a block that the block before has too."""
        if not self.has_overlap:
            return rows
        row = number % self.across * self.bt
        indices = static_min(row, self.t - self.bt) + tf.range(self.bt)
        return tf.where((indices >= row)[:, None], rows, tf.zeros((), rows.dtype))

    def concat_units(self, units: Any) -> Any:
        """Return (B, K, S, H) from units (units, cb, ck, S, H)."""
        size = units.shape[-1]
        units = tf.reshape(units, (self.b // self.cb, self.k // self.ck, self.cb, self.ck, self.s, size))
        return tf.reshape(tf.transpose(units, (0, 2, 1, 3, 4, 5)), (self.b, self.k, self.s, size))


class AppliedMask:
    """A mask as it is applied to the scores of a block: between `begin` and `end`, all columns are permitted to all rows.

    Args:
        mask: The mask, or None.
        block: The block.

    Attributes:
        mask: bool (..., t, columns before `begin` and from `end` on), or None if everything is permitted.
    """

    def __init__(self, mask: Mask | None, block: Block) -> None:
        self.mask, self.begin, self.end, self.length = None, 0, 0, block.columns.length
        if mask is None:
            return
        if not under_xla():
            self._find_full_columns(mask, block)
        sides = [
            mask(block.replace(columns=Slice(block.columns.total, block.columns.start + begin, end - begin)))
            for begin, end in ((0, self.begin), (self.end, self.length))
            if not is_equal(begin, end)
        ]
        if sides:
            permitted = tf.concat(sides, axis=-1)
            self.mask = permitted[(None,) * (4 - len(permitted.shape))]

    def _find_full_columns(self, mask: Mask, block: Block) -> None:
        first, last = mask.kv_full_range(block)
        length = self.length if isinstance(self.length, int) else 0
        # A few permitted columns are not worth the operations that leave them out.
        if isinstance(first, int) and isinstance(last, int) and not 4 * (last - first) >= length > 0:
            return
        begin = static_max(first - block.columns.start, 0)
        self.begin = begin if is_equal(begin, 0) else static_min(begin, self.length)
        self.end = static_min(static_max(last - block.columns.start, self.begin), self.length)

    def apply(self, scores: Any) -> Any:
        """Set scores (b, n, t, s) to the lowest number where the mask forbids."""
        if self.mask is None:
            return scores
        lowest = tf.cast(MASK_VALUE, scores.dtype)
        if is_equal(self.begin, self.end):
            return tf.where(self.mask, scores, lowest)
        # An addition works in place.
        bias = tf.where(self.mask, tf.zeros((), scores.dtype), lowest)
        before, after = bias[:, :, :, : self.begin], bias[:, :, :, self.begin :]
        if is_equal(self.begin, 0):
            return scores + tf.pad(after, ((0, 0), (0, 0), (0, 0), (self.end, 0)))
        between = tf.zeros((*tf.unstack(tf.shape(bias))[:-1], self.end - self.begin), scores.dtype)
        return scores + tf.concat([before, between, after], axis=-1)

    def zero_empty_rows(self, rows: Any) -> Any:
        """Zero the rows (b, n, t, ...) that may attend to nothing, whose softmax is arbitrary."""
        if self.mask is None:
            return rows
        has_any = tf.reduce_any(self.mask, axis=-1, keepdims=True)
        if not is_equal(self.begin, self.end):
            has_any = tf.logical_or(has_any, self.end > self.begin)
        return tf.where(has_any, rows, tf.zeros((), rows.dtype))


def loop(count: Any, step: Callable[..., tuple], state: tuple) -> tuple:
    """Run `state = step(index, *state)` for each index below `count`."""
    if tf.executing_eagerly() or is_equal(count, 1):
        for index in range(int(count)):
            state = step(index, *state)
        return state
    return tf.while_loop(
        lambda index, *state: index < count,
        lambda index, *state: (index + 1, *step(index, *state)),
        (0, *state),
        parallel_iterations=1,
        maximum_iterations=count,
    )[1:]


def add_columns(total: Any, columns: Any, part: Slice) -> Any:
    """Add columns (b, k, H, s) to some of a total (b, k, H, S)."""
    columns = tf.cast(columns, total.dtype)
    if part.is_full:
        return total + columns
    first, last = part.start, part.start + part.size
    if under_xla():
        # Slices of a size that depends on the step cannot be compiled.
        columns_first = (3, 0, 1, 2)
        indices = tf.reshape(first + tf.range(part.size), (-1, 1))
        total = tf.tensor_scatter_nd_add(
            tf.transpose(total, columns_first), indices, tf.transpose(columns, columns_first)
        )
        return tf.transpose(total, (1, 2, 3, 0))
    pieces = [total[..., :first], total[..., first:last] + columns, total[..., last:]]
    return tf.ensure_shape(tf.concat(pieces, axis=-1), total.shape)


def max_static_width(call: AttentionCall, rows: Any, t: Any, s: Any) -> int | None:
    """Return the most columns that a block of rows needs; None if that is unknown at compilation."""
    if call.mask is None or not all(isinstance(length, int) for length in (rows, t, s)):
        return None
    widest = 1
    for start in range(0, t, rows):
        first, last = call.mask.kv_range(call.block.replace(rows=Slice(t, min(start, t - rows), rows)))
        if not isinstance(first, int) or not isinstance(last, int):
            return None
        widest = max(widest, last - first)
    return widest


def is_equal(left: Any, right: Any) -> bool:
    """Return True if two numbers are known to be equal."""
    return isinstance(left, int) and isinstance(right, int) and left == right
