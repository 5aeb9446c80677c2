"""TensorFlow: attention in blocks of whole rows, computed one after another and again in the backward pass."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from limelight.core.block import Block
from limelight.core.random import dropout_mask
from limelight.engine import partition
from limelight.engine.call import AttentionCall
from limelight.engine.dense_block import block_weights, mixture
from limelight.engine.tensorflow.grid import Grid, added, loop
from limelight.engine.tensorflow.lengths import known
from limelight.engine.tensorflow.softmax import Veil, product, unscaled
from limelight.normalizers import Softmax, softmax
from limelight.scores import Dot


def output(call: AttentionCall, value: Any, *, size: int, dropout: float = 0.0, seed: Any = None) -> Any:
    """The output (B, N, T, V) of a prepared question for values (B, K, S, V), in blocks of about so many scores."""
    return _output(call, value, size, dropout, seed)


# AutoGraph would rewrite every line of this and of the parts, for seconds and to no end: no `if` here is about a tensor.
@tf.autograph.experimental.do_not_convert
def _output(call: AttentionCall, value: Any, size: int, dropout: float, seed: Any) -> Any:
    call, factor = unscaled(call)
    skeleton, tensors = partition.take(call)

    @tf.custom_gradient
    def attend(query: Any, key: Any, value: Any, *tensors: Any) -> Any:
        path = Rows(call, query, key, value, size, dropout, seed, factor)
        with skeleton.filled(call, tensors) as asked:
            outputs = path.forward(asked)

        @tf.autograph.experimental.do_not_convert
        def backward(slope: Any) -> Any:
            return path.backward(functools.partial(skeleton.filled, call), tensors, outputs, slope)

        return outputs, backward

    return attend(call.query, call.key, value, *tensors)


class Rows(Grid):
    """The two passes over the blocks.

    Args:
        question: what is asked.
        query, key, value: its tensors, as the gradient sees them.
        size: about how many scores a block has.
        dropout, seed: of the weights.
        factor: what queries are multiplied by.
    """

    def __init__(
        self,
        call: AttentionCall,
        query: Any,
        key: Any,
        value: Any,
        size: int,
        dropout: float,
        seed: Any,
        factor: float = 1.0,
    ) -> None:
        self.query, self.key, self.value, self.dropout, self.seed = query, key, value, dropout, seed
        self.factor = factor
        super().__init__(call, query, key, size)

    def compute(self, call: AttentionCall, block: Block, query: Any, key: Any, value: Any, turned: Any = None) -> Any:
        """The output of a block, (b, n, t, V) in float32 or wider; from keys that are turned already, where they are."""
        shared = self.shared(value)
        if type(call.normalizer) is not Softmax:
            weights = block_weights(call, block, query, self.shared(key)).weights
            return mixture(weights, shared, block, self.dropout, self.seed)
        veil = Veil(call.mask, block)
        weights = softmax(veil.over(self.logits(call, block, query, key, turned)))
        return veil.answered(mixture(weights, shared, block, self.dropout, self.seed))

    def pull(
        self,
        call: AttentionCall,
        block: Block,
        sources: list[Any],
        outputs: Any,
        slope: Any,
        sides: tuple[Any, Any],
    ) -> list[Any]:
        """The gradients of a block by its queries, keys and values, the latter two turned, (b, k, H, s), and learned tensors."""
        query, key, value, *_ = sources
        if type(call.normalizer) is Softmax:
            return self.pull_softmax(call, block, sources, outputs, slope, sides)
        with tf.GradientTape() as tape:
            tape.watch(sources)
            found = self.compute(call, block, query, key, value)
        return flipped(tape.gradient(found, sources, slope, unconnected_gradients=tf.UnconnectedGradients.ZERO))

    def pull_softmax(
        self,
        call: AttentionCall,
        block: Block,
        sources: list[Any],
        outputs: Any,
        slope: Any,
        sides: tuple[Any, Any],
    ) -> list[Any]:
        """The same for softmax, by hand: a third of the passes over the block that a tape makes.

        The tape only follows scores that are no bare products. Where a product has the weights turned, it is the few rows of the
        other side that are: what packs the weights for the product reads them as they lie.

        Args:
            sides: the keys, turned, or None; and, where nothing is dropped, the values with a one after each, turned where keys
                are: the product then subtracts a number from each row on the way.
        """
        query, key, value, *_ = sources
        keys, ones = sides
        veil, bare = Veil(call.mask, block), type(call.score) is Dot
        slope = veil.answered(slope)
        along = tf.reduce_sum(slope * tf.cast(outputs, self.dtype), axis=-1, keepdims=True)
        with contextlib.nullcontext() if bare else tf.GradientTape() as tape:
            if tape is not None:
                tape.watch(sources)
            scores = self.logits(call, block, query, key, keys)
        weights = kept = softmax(veil.over(scores))
        if ones is not None:
            by_logits = tf.matmul(tf.concat([slope, -along], axis=-1), ones, transpose_b=keys is None)
        else:
            factor = dropout_mask(self.seed, self.dropout, block, self.dtype)
            kept = weights * factor
            by_logits = product(slope, tf.cast(self.shared(value), self.dtype)) * factor - along
        by_value = self.summed(tf.matmul(slope, kept, transpose_a=True))
        by_scores = tf.cast(weights * by_logits, scores.dtype)
        if tape is None:
            by_query = tf.matmul(by_scores, tf.cast(self.shared(key), self.dtype))
            by_key = tf.matmul(tf.cast(query, self.dtype), by_scores, transpose_a=True)
            return [by_query, self.summed(by_key), by_value, *(tf.zeros_like(source) for source in sources[3:])]
        more = flipped(tape.gradient(scores, sources, by_scores, unconnected_gradients=tf.UnconnectedGradients.ZERO))
        return [*more[:2], by_value, *more[3:]]

    def logits(self, call: AttentionCall, block: Block, query: Any, key: Any, turned: Any = None) -> Any:
        """What the exponential is taken of, (b, n, t, s)."""
        if turned is not None:
            return tf.matmul(tf.cast(query, self.dtype), turned)
        key = self.shared(key)
        if type(call.score) is Dot:
            return product(tf.cast(query, self.dtype), tf.cast(key, self.dtype))
        return call.normalizer.logits(call.score(query, key, block=block), block=block)

    def summed(self, by_heads: Any) -> Any:
        """Gradients by keys or values, (b, ck, H, s), from those of each head, (b, cn, H, s)."""
        if self.ck == self.cn:
            return by_heads
        shape = (self.cb, self.ck, self.cn // self.ck, by_heads.shape[2], tf.shape(by_heads)[3])
        return tf.reduce_sum(tf.reshape(by_heads, shape), axis=2)

    def asked(self, block: Block) -> Any:
        """A tile's queries, scaled."""
        query = self.rows(self.query, block)
        return query if self.factor == 1 else tf.cast(query, self.dtype) * self.factor

    def forward(self, call: AttentionCall) -> Any:
        """The output (B, N, T, V)."""
        each = self.inner * self.across

        def unit(index: Any, found: tf.TensorArray) -> tuple[tf.TensorArray]:
            keys, values = self.unit(self.key, index), self.unit(self.value, index)
            turned = self.turned(call, keys)

            def step(number: Any, found: tf.TensorArray) -> tuple[tf.TensorArray]:
                block = self.block(call, index, number)
                key, value = (self.columns(tensor, block) for tensor in (keys, values))
                more = self.compute(call, block, self.asked(block), key, value, turned)
                return (found.write(index * each + number, tf.cast(more, self.value.dtype)),)

            return loop(each, step, (found,))

        (found,) = loop(self.units, unit, (self.blocks(self.units * each, self.value),))
        return self.joined(found.stack(), self.value.shape[-1])

    def backward(self, filled: Callable[[Any], Any], tensors: Any, outputs: Any, slope: Any) -> list[Any]:
        """The gradients by queries, keys, values, and the tensors that the parts hold."""
        learned = [index for index, tensor in enumerate(tensors) if tensor.dtype.is_floating]
        each = self.inner * self.across

        def unit(index: Any, by_query: Any, by_key: Any, by_value: Any, by_tensors: Any) -> tuple:
            keys, values = self.unit(self.key, index), self.unit(self.value, index)
            with filled(tensors) as call:
                turned = self.turned(call, keys)
            ones = None if self.dropout else with_ones(tf.cast(values, self.dtype))
            if turned is not None and ones is not None:
                ones = tf.linalg.matrix_transpose(ones)

            def step(number: Any, by_query: Any, by_key: Any, by_value: Any, by_tensors: Any) -> tuple:
                with filled(tensors) as call:
                    block = self.block(call, index, number)
                query = self.asked(block)
                key, value = (self.columns(tensor, block) for tensor in (keys, values))
                rows = self.fresh(tf.cast(self.rows(slope, block), self.dtype), number)
                side = ones if ones is None or turned is not None else self.shared(self.columns(ones, block))
                sources = [query, key, value, *(tensors[place] for place in learned)]
                with filled(tensors) as call:
                    by_rows, *more = self.pull(call, block, sources, self.rows(outputs, block), rows, (turned, side))
                by_key, by_value = added(by_key, more[0], block.columns), added(by_value, more[1], block.columns)
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


def with_ones(rows: Any) -> Any:
    """Rows (b, k, s, H) with a one after each, by which a product adds one more number to all of a row."""
    return tf.concat([rows, tf.ones_like(rows[..., :1])], axis=-1)


def flipped(gradients: list[Any]) -> list[Any]:
    """Gradients by queries, keys, values and more, those by keys and values (b, k, s, H) turned, (b, k, H, s)."""
    by_query, by_key, by_value, *more = gradients
    return [by_query, tf.linalg.matrix_transpose(by_key), tf.linalg.matrix_transpose(by_value), *more]
