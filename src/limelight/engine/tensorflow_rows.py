"""TensorFlow: blocks of whole rows, computed one after another and again in the backward pass.

Eagerly the loop is Python's, in a graph it is `tf.while_loop`. There a block takes only the columns that its rows may attend to,
however many these are, save under XLA, which must know sizes when it compiles.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from limelight.engine import held
from limelight.engine.block import block, mixture
from limelight.engine.sizes import sizes
from limelight.engine.tensorflow_lengths import known, largest, lengths, smallest, under_xla
from limelight.engine.tensorflow_softmax import Veil, product, same, unscaled
from limelight.noise import keep
from limelight.normalizers import Softmax, softmax
from limelight.product import wide
from limelight.question import Question
from limelight.scores import Dot
from limelight.tile import Span, Tile


def output(question: Question, value: Any, *, size: int, dropout: float = 0.0, seed: Any = None) -> Any:
    """The output (B, N, T, V) of a prepared question for values (B, K, S, V), in blocks of about so many scores."""
    return _output(question, value, size, dropout, seed)


# AutoGraph would rewrite every line of this and of the parts, for seconds and to no end: no `if` here is about a tensor.
@tf.autograph.experimental.do_not_convert
def _output(question: Question, value: Any, size: int, dropout: float, seed: Any) -> Any:
    question, factor = unscaled(question)
    skeleton, tensors = held.take(question)

    @tf.custom_gradient
    def attend(query: Any, key: Any, value: Any, *tensors: Any) -> Any:
        path = Rows(question, query, key, value, size, dropout, seed, factor)
        with skeleton.filled(question, tensors) as asked:
            outputs = path.forward(asked)

        @tf.autograph.experimental.do_not_convert
        def backward(slope: Any) -> Any:
            return path.backward(functools.partial(skeleton.filled, question), tensors, outputs, slope)

        return outputs, backward

    return attend(question.query, question.key, value, *tensors)


# Turning keys or values for fewer blocks than this costs as much as it gains.
WORTH = 4


class Rows:
    """How the blocks lie, and the two passes over them.

    Args:
        question: what is asked.
        query, key, value: its tensors, as the gradient sees them.
        size: about how many scores a block has.
        dropout, seed: of the weights.
        factor: what queries are multiplied by.
    """

    def __init__(
        self,
        question: Question,
        query: Any,
        key: Any,
        value: Any,
        size: int,
        dropout: float,
        seed: Any,
        factor: float = 1.0,
    ) -> None:
        self.query, self.key, self.value, self.dropout, self.seed = query, key, value, dropout, seed
        self.dtype, self.factor = wide(query.dtype), factor
        self.b, self.n, self.t, self.h = lengths(query)
        self.k, self.s = lengths(key)[1:3]
        found = sizes(question, size)
        self.cb, self.cn = found.batch, found.heads
        self.ck = max(1, self.cn * self.k // self.n)
        self.bt = smallest(found.rows, self.t)
        self.inner = self.n // (self.k // self.ck) // self.cn  # blocks of heads that share keys
        self.across = -(-self.t // self.bt)
        self.units = self.b // self.cb * (self.k // self.ck)
        self.width = static_width(question, self.bt, self.t, self.s)

    def tile(self, question: Question, unit: Any, number: Any) -> Tile:
        """The block with a number among those of a unit of examples and key heads, with the columns that it needs."""
        per = self.k // self.ck
        head, row = number // self.across, number % self.across
        start = 0 if isinstance(self.t, int) and self.bt == self.t else smallest(row * self.bt, self.t - self.bt)
        tile = question.tile.replace(
            batch=Span(self.b, unit // per * self.cb, self.cb),
            heads=Span(self.n, unit % per * self.ck * (self.n // self.k) + head * self.cn, self.cn),
            rows=Span(self.t, start, self.bt),
            columns=Span(self.s),
        )
        if question.mask is None or question.normalizer.linked_rows or (self.width is None and under_xla()):
            return tile
        first, last = question.mask.columns(tile)
        if self.width is not None:
            return tile.replace(columns=Span(self.s, smallest(first, self.s - self.width), self.width))
        # At least one column, which the mask forbids anyhow: an empty row has no largest score.
        first = smallest(first, self.s - 1)
        return tile.replace(columns=Span(self.s, first, largest(last - first, 1)))

    def compute(self, question: Question, tile: Tile, query: Any, key: Any, value: Any, turned: Any = None) -> Any:
        """The output of a block, (b, n, t, V) in float32 or wider; from keys that are turned already, where they are."""
        shared = self.shared(value)
        if type(question.normalizer) is not Softmax:
            weights = block(question, tile, query, self.shared(key)).weights
            return mixture(weights, shared, tile, self.dropout, self.seed)
        veil = Veil(question.mask, tile)
        weights = softmax(veil.over(self.logits(question, tile, query, key, turned)))
        return veil.answered(mixture(weights, shared, tile, self.dropout, self.seed))

    def turned(self, question: Question, tensor: Any) -> Any:
        """Keys or values (b, k, H, s) of a unit, turned once for its blocks, where these need all columns; otherwise None.

        A product with them is a tenth to a sixth quicker than with (b, k, s, H). A piece of them would be a copy.
        """
        blocks = self.inner * self.across
        if question.mask is not None or type(question.normalizer) is not Softmax or type(question.score) is not Dot:
            return None
        if isinstance(blocks, int) and blocks < WORTH:
            return None
        return tf.linalg.matrix_transpose(tf.cast(tensor, self.dtype))

    def shared(self, tensor: Any) -> Any:
        """Keys or values of a block for each of its heads, or of one head for all."""
        return tf.repeat(tensor, self.cn // self.ck, axis=1) if 1 < self.ck < self.cn else tensor

    def pull(
        self, question: Question, tile: Tile, sources: list[Any], outputs: Any, slope: Any, turned: tuple[Any, Any]
    ) -> list[Any]:
        """The gradients of a block by its queries, keys and values, the latter two turned, (b, k, H, s), and learned tensors."""
        query, key, value, *_ = sources
        if type(question.normalizer) is Softmax:
            return self.pull_softmax(question, tile, sources, outputs, slope, turned)
        with tf.GradientTape() as tape:
            tape.watch(sources)
            found = self.compute(question, tile, query, key, value)
        return flipped(tape.gradient(found, sources, slope, unconnected_gradients=tf.UnconnectedGradients.ZERO))

    def pull_softmax(
        self, question: Question, tile: Tile, sources: list[Any], outputs: Any, slope: Any, turned: tuple[Any, Any]
    ) -> list[Any]:
        """The same for softmax, by hand: a third of the passes over the block that a tape makes.

        The tape only follows scores that are no bare products. Where a product has the weights turned, it is the few rows of the
        other side that are: what packs the weights for the product reads them as they lie.
        """
        query, key, value, *_ = sources
        keys, values = turned
        veil, bare = Veil(question.mask, tile), type(question.score) is Dot
        slope = veil.answered(slope)
        along = tf.reduce_sum(slope * tf.cast(outputs, self.dtype), axis=-1, keepdims=True)
        with contextlib.nullcontext() if bare else tf.GradientTape() as tape:
            if tape is not None:
                tape.watch(sources)
            scores = self.logits(question, tile, query, key, keys)
        weights = kept = softmax(veil.over(scores))
        if self.dropout:
            factor = keep(self.seed, self.dropout, tile, self.dtype)
            kept = weights * factor
            by_logits = product(slope, tf.cast(self.shared(value), self.dtype)) * factor - along
        elif values is None:
            by_logits = product(slope, tf.cast(self.shared(value), self.dtype)) - along
        else:
            by_logits = tf.matmul(tf.concat([slope, -along], axis=-1), self.shared(values))
        by_value = self.summed(tf.matmul(slope, kept, transpose_a=True))
        by_scores = tf.cast(weights * by_logits, scores.dtype)
        if tape is None:
            by_query = tf.matmul(by_scores, tf.cast(self.shared(key), self.dtype))
            by_key = tf.matmul(tf.cast(query, self.dtype), by_scores, transpose_a=True)
            return [by_query, self.summed(by_key), by_value, *(tf.zeros_like(source) for source in sources[3:])]
        more = flipped(tape.gradient(scores, sources, by_scores, unconnected_gradients=tf.UnconnectedGradients.ZERO))
        return [*more[:2], by_value, *more[3:]]

    def logits(self, question: Question, tile: Tile, query: Any, key: Any, turned: Any = None) -> Any:
        """What the exponential is taken of, (b, n, t, s)."""
        if turned is not None:
            return tf.matmul(tf.cast(query, self.dtype), self.shared(turned))
        key = self.shared(key)
        if type(question.score) is Dot:
            return product(tf.cast(query, self.dtype), tf.cast(key, self.dtype))
        return question.normalizer.logits(question.score(query, key, tile=tile), tile=tile)

    def summed(self, by_heads: Any) -> Any:
        """Gradients by keys or values, (b, ck, H, s), from those of each head, (b, cn, H, s)."""
        if self.ck == self.cn:
            return by_heads
        shape = (self.cb, self.ck, self.cn // self.ck, by_heads.shape[2], tf.shape(by_heads)[3])
        return tf.reduce_sum(tf.reshape(by_heads, shape), axis=2)

    def asked(self, tile: Tile) -> Any:
        """A tile's queries, scaled."""
        query = self.rows(self.query, tile)
        return query if self.factor == 1 else tf.cast(query, self.dtype) * self.factor

    def rows(self, tensor: Any, tile: Tile) -> Any:
        """A tile's rows of a tensor (B, N, T, ...)."""
        shape = (self.cb, self.cn, tile.rows.size, tensor.shape[-1])
        start = (tile.batch.start, tile.heads.start, tile.rows.start, 0)
        return tf.ensure_shape(tf.slice(tensor, start, shape), [known(length) for length in shape])

    def unit(self, tensor: Any, unit: Any) -> Any:
        """The examples and heads (cb, ck, S, H) of a unit of keys or values (B, K, S, H)."""
        shape = (self.cb, self.ck, self.s, tensor.shape[-1])
        # Either all heads or one example: no element moves. A piece of the first axis is no copy, one of another axis is.
        units = tf.reshape(tensor, (-1, *shape))
        return tf.ensure_shape(tf.reshape(units[unit], shape), [known(length) for length in shape])

    def columns(self, tensor: Any, tile: Tile) -> Any:
        """A tile's columns of a unit of keys or values (cb, ck, S, H)."""
        span = tile.columns
        if span.whole or not (same(self.cb, 1) and same(self.ck, 1)):
            return span.of(tensor, 2)
        width = tensor.shape[-1]
        piece = tf.slice(tf.reshape(tensor, (self.s, width)), (span.start, 0), (span.size, width))
        return tf.reshape(piece, (1, 1, span.size, width))

    def forward(self, question: Question) -> Any:
        """The output (B, N, T, V)."""
        each = self.inner * self.across

        def unit(index: Any, found: tf.TensorArray) -> tuple[tf.TensorArray]:
            keys, values = self.unit(self.key, index), self.unit(self.value, index)
            turned = self.turned(question, keys)

            def step(number: Any, found: tf.TensorArray) -> tuple[tf.TensorArray]:
                tile = self.tile(question, index, number)
                key, value = (self.columns(tensor, tile) for tensor in (keys, values))
                more = self.compute(question, tile, self.asked(tile), key, value, turned)
                return (found.write(index * each + number, tf.cast(more, self.value.dtype)),)

            return loop(each, step, (found,))

        (found,) = loop(self.units, unit, (self.blocks(self.units * each, self.value),))
        return self.joined(found.stack(), self.value.shape[-1])

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

    def backward(self, filled: Callable[[Any], Any], tensors: Any, outputs: Any, slope: Any) -> list[Any]:
        """The gradients by queries, keys, values, and the tensors that the parts hold."""
        learned = [index for index, tensor in enumerate(tensors) if tensor.dtype.is_floating]
        each = self.inner * self.across

        def unit(index: Any, by_query: Any, by_key: Any, by_value: Any, by_tensors: Any) -> tuple:
            keys, values = self.unit(self.key, index), self.unit(self.value, index)
            with filled(tensors) as question:
                turned = self.turned(question, keys), self.turned(question, with_ones(values))

            def step(number: Any, by_query: Any, by_key: Any, by_value: Any, by_tensors: Any) -> tuple:
                with filled(tensors) as question:
                    tile = self.tile(question, index, number)
                query = self.asked(tile)
                key, value = (self.columns(tensor, tile) for tensor in (keys, values))
                rows = self.fresh(tf.cast(self.rows(slope, tile), self.dtype), number)
                sources = [query, key, value, *(tensors[place] for place in learned)]
                with filled(tensors) as question:
                    by_rows, *more = self.pull(question, tile, sources, self.rows(outputs, tile), rows, turned)
                by_key, by_value = added(by_key, more[0], tile.columns), added(by_value, more[1], tile.columns)
                by_tensors = [total + new for total, new in zip(by_tensors, more[2:], strict=True)]
                by_rows = by_rows if self.factor == 1 else by_rows * self.factor
                by_query = by_query.write(index * each + number, tf.cast(by_rows, self.query.dtype))
                return by_query, by_key, by_value, by_tensors

            sums = [tf.zeros((self.cb, self.ck, tensor.shape[-1], self.s), self.dtype) for tensor in (keys, values)]
            by_query, *sums, by_tensors = loop(each, step, (by_query, *sums, by_tensors))
            by_key, by_value = (
                store.write(index, tf.cast(tf.linalg.matrix_transpose(total), store.dtype))
                for store, total in zip((by_key, by_value), sums, strict=True)
            )
            return by_query, by_key, by_value, by_tensors

        shapes = [(self.cb, self.ck, known(self.s), tensor.shape[-1]) for tensor in (self.key, self.value)]
        state = (
            self.blocks(self.units * each, self.query),
            tf.TensorArray(self.key.dtype, self.units, element_shape=shapes[0]),
            tf.TensorArray(self.value.dtype, self.units, element_shape=shapes[1]),
            [tf.zeros_like(tensors[index]) for index in learned],
        )
        by_query, by_key, by_value, by_tensors = loop(self.units, unit, state)
        remaining = iter(by_tensors)
        return [
            self.joined(by_query.stack(), self.h),
            *(self.gathered(store.stack()) for store in (by_key, by_value)),
            *(next(remaining) if index in learned else None for index in range(len(tensors))),
        ]

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


def added(total: Any, more: Any, span: Span) -> Any:
    """A total (b, k, H, S) with more added in a run of columns."""
    more = tf.cast(more, total.dtype)
    if span.whole:
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


def with_ones(rows: Any) -> Any:
    """Rows (b, k, s, H) with a one after each, by which a product adds one more number to all of a row."""
    return tf.concat([rows, tf.ones_like(rows[..., :1])], axis=-1)


def flipped(gradients: list[Any]) -> list[Any]:
    """Gradients by queries, keys, values and more, those by keys and values (b, k, s, H) turned, (b, k, H, s)."""
    by_query, by_key, by_value, *more = gradients
    return [by_query, tf.linalg.matrix_transpose(by_key), tf.linalg.matrix_transpose(by_value), *more]


def static_width(question: Question, rows: Any, t: Any, s: Any) -> int | None:
    """The most columns that a block of rows needs, where that is known beforehand, and where sizes must be."""
    if question.mask is None or not under_xla() or not all(isinstance(length, int) for length in (rows, t, s)):
        return None
    most = 1
    for start in range(0, t, rows):
        first, last = question.mask.columns(question.tile.replace(rows=Span(t, min(start, t - rows), rows)))
        if not isinstance(first, int) or not isinstance(last, int):
            return None
        most = max(most, last - first)
    return most
