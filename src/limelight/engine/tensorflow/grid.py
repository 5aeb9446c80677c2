"""TensorFlow: how blocks of whole rows lie, and the loops over them.

Eagerly a loop is Python's, in a graph it is `tf.while_loop`. There a block takes only the columns that its rows may attend to,
however many these are, save under XLA, which must know sizes when it compiles.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from limelight.core.block import Block, Slice
from limelight.core.precision import accumulation_dtype
from limelight.engine.block_sizes import sizes
from limelight.engine.call import AttentionCall
from limelight.engine.tensorflow.lengths import known, largest, lengths, smallest, under_xla
from limelight.engine.tensorflow.softmax import same
from limelight.normalizers import Softmax
from limelight.scores import Dot

# Turning keys for fewer blocks than this costs as much as it gains.
WORTH = 4


class Grid:
    """BigBird of some examples, heads and rows, each with the columns that it needs.

    Args:
        question: what is asked.
        query, key: its tensors, as the gradient sees them.
        size: about how many scores a block has.
    """

    def __init__(self, call: AttentionCall, query: Any, key: Any, size: int) -> None:
        self.dtype = accumulation_dtype(query.dtype)
        self.b, self.n, self.t, self.h = lengths(query)
        self.k, self.s = lengths(key)[1:3]
        found = sizes(call, size)
        self.cb, self.cn = found.batch, found.heads
        self.ck = max(1, self.cn * self.k // self.n)
        self.bt = smallest(found.rows, self.t)
        self.inner = self.n // (self.k // self.ck) // self.cn  # blocks of heads that share keys
        self.across = -(-self.t // self.bt)
        self.units = self.b // self.cb * (self.k // self.ck)
        self.width = static_width(call, self.bt, self.t, self.s)

    def block(self, call: AttentionCall, unit: Any, number: Any) -> Block:
        """The block with a number among those of a unit of examples and key heads, with the columns that it needs."""
        per = self.k // self.ck
        head, row = number // self.across, number % self.across
        start = 0 if isinstance(self.t, int) and self.bt == self.t else smallest(row * self.bt, self.t - self.bt)
        block = call.block.replace(
            batch=Slice(self.b, unit // per * self.cb, self.cb),
            heads=Slice(self.n, unit % per * self.ck * (self.n // self.k) + head * self.cn, self.cn),
            rows=Slice(self.t, start, self.bt),
            columns=Slice(self.s),
        )
        if call.mask is None or call.normalizer.linked_rows or (self.width is None and under_xla()):
            return block
        first, last = call.mask.kv_range(block)
        if self.width is not None:
            return block.replace(columns=Slice(self.s, smallest(first, self.s - self.width), self.width))
        # At least one column, which the mask forbids anyhow: an empty row has no largest score.
        first = smallest(first, self.s - 1)
        return block.replace(columns=Slice(self.s, first, largest(last - first, 1)))

    def rows(self, tensor: Any, block: Block) -> Any:
        """A tile's rows of a tensor (B, N, T, ...)."""
        shape = (self.cb, self.cn, block.rows.size, tensor.shape[-1])
        start = (block.batch.start, block.heads.start, block.rows.start, 0)
        return tf.ensure_shape(tf.slice(tensor, start, shape), [known(length) for length in shape])

    def unit(self, tensor: Any, unit: Any) -> Any:
        """The examples and heads (cb, ck, S, H) of a unit of keys or values (B, K, S, H)."""
        shape = (self.cb, self.ck, self.s, tensor.shape[-1])
        # Either all heads or one example: no element moves. A piece of the first axis is no copy, one of another axis is.
        units = tf.reshape(tensor, (-1, *shape))
        return tf.ensure_shape(tf.reshape(units[unit], shape), [known(length) for length in shape])

    def columns(self, tensor: Any, block: Block) -> Any:
        """A tile's columns of a unit of keys or values (cb, ck, S, H)."""
        span = block.columns
        if span.is_full or not (same(self.cb, 1) and same(self.ck, 1)):
            return span.of(tensor, 2)
        width = tensor.shape[-1]
        piece = tf.slice(tf.reshape(tensor, (self.s, width)), (span.start, 0), (span.size, width))
        return tf.reshape(piece, (1, 1, span.size, width))

    def shared(self, tensor: Any) -> Any:
        """Keys or values of a block for each of its heads, or of one head for all."""
        return tf.repeat(tensor, self.cn // self.ck, axis=1) if 1 < self.ck < self.cn else tensor

    def turned(self, call: AttentionCall, key: Any) -> Any:
        """Keys (b, k, H, s) of a unit, turned once for its blocks, where these need all columns; otherwise None.

        The product with them is a tenth to a sixth quicker. A piece of them would be a copy, as one of (b, k, s, H) is not.
        """
        blocks = self.inner * self.across
        if call.mask is not None or type(call.normalizer) is not Softmax or type(call.score) is not Dot:
            return None
        if isinstance(blocks, int) and blocks < WORTH:
            return None
        return tf.linalg.matrix_transpose(tf.cast(key, self.dtype))

    def blocks(self, count: Any, like: Any) -> tf.TensorArray:
        """Room for one block of rows for each step of a loop."""
        shape = (known(self.cb), self.cn, known(self.bt), like.shape[-1])
        return tf.TensorArray(like.dtype, count, element_shape=shape)

    def joined(self, blocks: Any, width: int) -> Any:
        """(B, N, T, width) from blocks (units * inner * across, cb, cn, bt, width)."""
        per = self.k // self.ck
        blocks = tf.reshape(blocks, (self.b // self.cb, per, self.inner, self.across, self.cb, self.cn, self.bt, width))
        blocks = tf.transpose(blocks, (0, 4, 1, 2, 5, 3, 6, 7))
        rows = tf.reshape(blocks, (self.b, self.n, self.across * self.bt, width))
        if isinstance(self.t, int) and isinstance(self.bt, int) and self.t % self.bt == 0:
            return rows
        # The last block was moved back to end with the sequence: its first rows are there twice.
        before = (self.across - 1) * self.bt
        return tf.concat([rows[:, :, :before], rows[:, :, before + self.bt - (self.t - before) :]], axis=2)

    def fresh(self, rows: Any, number: Any) -> Any:
        """Rows with zeros in place of those that the block before has had already."""
        if isinstance(self.t, int) and isinstance(self.bt, int) and self.t % self.bt == 0:
            return rows
        row = number % self.across * self.bt
        places = smallest(row, self.t - self.bt) + tf.range(self.bt)
        return tf.where((places >= row)[:, None], rows, tf.zeros((), rows.dtype))

    def gathered(self, units: Any) -> Any:
        """(B, K, S, H) from units (units, cb, ck, S, H)."""
        width = units.shape[-1]
        units = tf.reshape(units, (self.b // self.cb, self.k // self.ck, self.cb, self.ck, self.s, width))
        return tf.reshape(tf.transpose(units, (0, 2, 1, 3, 4, 5)), (self.b, self.k, self.s, width))


def loop(count: Any, step: Callable[..., tuple], state: tuple) -> tuple:
    """`state = step(index, *state)` so many times."""
    if tf.executing_eagerly() or same(count, 1):
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


def added(total: Any, more: Any, span: Slice) -> Any:
    """A total (b, k, H, S) with more added in a run of columns."""
    more = tf.cast(more, total.dtype)
    if span.is_full:
        return total + more
    first, last = span.start, span.start + span.size
    if under_xla():
        # Pieces of a size that depends on the step cannot be compiled.
        turn = (3, 0, 1, 2)
        places = tf.reshape(first + tf.range(span.size), (-1, 1))
        total = tf.tensor_scatter_nd_add(tf.transpose(total, turn), places, tf.transpose(more, turn))
        return tf.transpose(total, (1, 2, 3, 0))
    pieces = [total[..., :first], total[..., first:last] + more, total[..., last:]]
    return tf.ensure_shape(tf.concat(pieces, axis=-1), total.shape)


def static_width(call: AttentionCall, rows: Any, t: Any, s: Any) -> int | None:
    """The most columns that a block of rows needs, where that is known beforehand, and where sizes must be."""
    if call.mask is None or not under_xla() or not all(isinstance(length, int) for length in (rows, t, s)):
        return None
    most = 1
    for start in range(0, t, rows):
        first, last = call.mask.kv_range(call.block.replace(rows=Slice(t, min(start, t - rows), rows)))
        if not isinstance(first, int) or not isinstance(last, int):
            return None
        most = max(most, last - first)
    return most
