"""TensorFlow: attention in blocks of whole rows, computed one after another and again in the backward pass."""

import contextlib
import dataclasses
from typing import Any

import tensorflow as tf

from limelight.core.block import Block
from limelight.core.random import dropout_mask
from limelight.engine.call import AttentionCall
from limelight.engine.dense import apply_weights, compute_block_weights
from limelight.engine.partition import StaticParts, combine, partition
from limelight.engine.tensorflow.grid import AppliedMask, Grid, add_columns, loop
from limelight.engine.tensorflow.tracing import static_length
from limelight.normalizers import Softmax, softmax
from limelight.scores import Dot


# AutoGraph would rewrite every line of this and of the parts, which takes seconds. No `if` here depends on a tensor.
@tf.autograph.experimental.do_not_convert
def compute_output(
    call: AttentionCall, value: Any, *, scores_per_block: int, dropout: float = 0.0, seed: Any = None
) -> Any:
    """Compute the output (B, N, T, V) of a prepared call for values (B, K, S, V), in blocks of about so many scores."""
    call, factor = move_scale_to_query(call)
    static, tensors = partition(call)

    @tf.custom_gradient
    def attend(query: Any, key: Any, value: Any, *tensors: Any) -> Any:
        passes = Blockwise(call, query, key, value, scores_per_block, dropout, seed, factor)
        with combine(static, tensors, call) as combined:
            outputs = passes.forward(combined)

        @tf.autograph.experimental.do_not_convert
        def backward(grad_output: Any) -> Any:
            return passes.backward(call, static, tensors, outputs, grad_output)

        return outputs, backward

    return attend(call.query, call.key, value, *tensors)


def move_scale_to_query(call: AttentionCall) -> tuple[AttentionCall, float]:
    """Return the call with an unscaled dot product, and the factor by which to multiply its queries instead."""
    score, normalizer = call.score, call.normalizer
    if type(score) is not Dot or type(normalizer) is not Softmax:
        return call, 1.0
    factor = score.factor(call.query.shape[-1]) / normalizer.temperature
    return dataclasses.replace(call, score=Dot(scale=1.0), normalizer=Softmax()), factor


class Blockwise(Grid):
    """The forward and the backward pass.

    Args:
        call: The attention call.
        query, key, value: Its tensors, as the gradient sees them.
        scores_per_block: About how many scores a block has.
        dropout, seed: The fraction of weights to drop, and the seed of the call.
        factor: The factor by which to multiply queries.
    """

    def __init__(
        self,
        call: AttentionCall,
        query: Any,
        key: Any,
        value: Any,
        scores_per_block: int,
        dropout: float,
        seed: Any,
        factor: float,
    ) -> None:
        super().__init__(call, query, key, scores_per_block)
        self.query, self.key, self.value, self.dropout, self.seed = query, key, value, dropout, seed
        self.factor = factor

    def compute(
        self, call: AttentionCall, block: Block, query: Any, key: Any, value: Any, transposed_key: Any = None
    ) -> Any:
        """Compute the output of a block, (b, n, t, V) in float32 or wider."""
        value = self.repeat_heads(value)
        if type(call.normalizer) is not Softmax:
            weights = compute_block_weights(call, block, query, self.repeat_heads(key)).weights
            return apply_weights(weights, value, block, self.dropout, self.seed)
        mask = AppliedMask(call.mask, block)
        weights = softmax(mask.apply(self.logits(call, block, query, key, transposed_key)))
        return mask.zero_empty_rows(apply_weights(weights, value, block, self.dropout, self.seed))

    def logits(self, call: AttentionCall, block: Block, query: Any, key: Any, transposed_key: Any = None) -> Any:
        """Compute the argument of the exponential, (b, n, t, s), before the mask."""
        if transposed_key is not None:
            return tf.matmul(tf.cast(query, self.dtype), transposed_key)
        key = self.repeat_heads(key)
        if type(call.score) is Dot:
            return tf.matmul(tf.cast(query, self.dtype), tf.cast(key, self.dtype), transpose_b=True)
        return call.normalizer.logits(call.score(query, key, block=block), block=block)

    def scaled_query(self, block: Block) -> Any:
        """Return the queries of a block, multiplied by the factor."""
        query = self.rows(self.query, block)
        return query if self.factor == 1 else tf.cast(query, self.dtype) * self.factor

    def forward(self, call: AttentionCall) -> Any:
        """Compute the output (B, N, T, V)."""
        blocks_per_unit = self.inner * self.across

        def attend_unit(unit: Any, outputs: tf.TensorArray) -> tuple[tf.TensorArray]:
            keys, values = self.unit(self.key, unit), self.unit(self.value, unit)
            transposed_keys = self.transpose_key(call, keys)

            def step(number: Any, outputs: tf.TensorArray) -> tuple[tf.TensorArray]:
                block = self.block(call, unit, number)
                key, value = self.columns(keys, block), self.columns(values, block)
                output = self.compute(call, block, self.scaled_query(block), key, value, transposed_keys)
                return (outputs.write(unit * blocks_per_unit + number, tf.cast(output, self.value.dtype)),)

            return loop(blocks_per_unit, step, (outputs,))

        (outputs,) = loop(self.units, attend_unit, (self.block_array(self.units * blocks_per_unit, self.value),))
        return self.concat_rows(outputs.stack(), self.value.shape[-1])

    def backward(
        self, call: AttentionCall, static: StaticParts, tensors: Any, outputs: Any, grad_output: Any
    ) -> list[Any]:
        """Compute the gradients by queries, keys, values, and the tensors that the parts hold."""
        float_indices = [index for index, tensor in enumerate(tensors) if tensor.dtype.is_floating]
        blocks_per_unit = self.inner * self.across

        def differentiate_unit(unit: Any, grad_query: Any, grad_key: Any, grad_value: Any, grad_tensors: Any) -> tuple:
            keys, values = self.unit(self.key, unit), self.unit(self.value, unit)
            with combine(static, tensors, call) as combined:
                transposed_keys = self.transpose_key(combined, keys)
            values_and_ones = None if self.dropout else append_ones(tf.cast(values, self.dtype))
            if transposed_keys is not None and values_and_ones is not None:
                values_and_ones = tf.linalg.matrix_transpose(values_and_ones)

            def step(number: Any, grad_query: Any, grad_key: Any, grad_value: Any, grad_tensors: Any) -> tuple:
                with combine(static, tensors, call) as combined:
                    block = self.block(combined, unit, number)
                    inputs = [
                        self.scaled_query(block),
                        self.columns(keys, block),
                        self.columns(values, block),
                        *(tensors[index] for index in float_indices),
                    ]
                    ones = values_and_ones
                    if ones is not None and transposed_keys is None:
                        ones = self.repeat_heads(self.columns(ones, block))
                    grad_rows = self.zero_overlap(tf.cast(self.rows(grad_output, block), self.dtype), number)
                    grad_rows, more_key, more_value, *more = self.vjp(
                        combined, block, inputs, self.rows(outputs, block), grad_rows, transposed_keys, ones
                    )
                grad_rows = grad_rows if self.factor == 1 else grad_rows * self.factor
                grad_rows = tf.cast(grad_rows, self.query.dtype)
                return (
                    grad_query.write(unit * blocks_per_unit + number, grad_rows),
                    add_columns(grad_key, more_key, block.columns),
                    add_columns(grad_value, more_value, block.columns),
                    [total + gradient for total, gradient in zip(grad_tensors, more, strict=True)],
                )

            sums = [tf.zeros((self.cb, self.ck, tensor.shape[-1], self.s), self.dtype) for tensor in (keys, values)]
            grad_query, *sums, grad_tensors = loop(blocks_per_unit, step, (grad_query, *sums, grad_tensors))
            grad_key, grad_value = (
                units.write(unit, tf.cast(tf.linalg.matrix_transpose(total), units.dtype))
                for units, total in zip((grad_key, grad_value), sums, strict=True)
            )
            return grad_query, grad_key, grad_value, grad_tensors

        state = (
            self.block_array(self.units * blocks_per_unit, self.query),
            self.unit_array(self.key),
            self.unit_array(self.value),
            [tf.zeros_like(tensors[index]) for index in float_indices],
        )
        grad_query, grad_key, grad_value, grad_tensors = loop(self.units, differentiate_unit, state)
        remaining = iter(grad_tensors)
        return [
            self.concat_rows(grad_query.stack(), self.h),
            self.concat_units(grad_key.stack()),
            self.concat_units(grad_value.stack()),
            *(next(remaining) if index in float_indices else None for index in range(len(tensors))),
        ]

    def unit_array(self, like: Any) -> tf.TensorArray:
        """Return an array for the gradients by each unit of keys or values."""
        shape = (self.cb, self.ck, static_length(self.s), like.shape[-1])
        return tf.TensorArray(like.dtype, self.units, element_shape=shape)

    def vjp(
        self,
        call: AttentionCall,
        block: Block,
        inputs: list[Any],
        outputs: Any,
        grad_output: Any,
        transposed_key: Any,
        ones: Any,
    ) -> list[Any]:
        """Compute the gradients of a block by its inputs.

        Args:
            call: The attention call.
            block: The block.
            inputs: Queries, keys, values, and the float tensors of the parts.
            outputs: The outputs of the block.
            grad_output: Their gradient.
            transposed_key: The keys (b, k, H, s), or None.
            ones: The values with a one appended to each, transposed if `transposed_key` is given; None under dropout.

        Returns:
            The gradients, of which those by keys and values are transposed, (b, k, H, s).
        """
        if type(call.normalizer) is Softmax:
            return self.softmax_vjp(call, block, inputs, outputs, grad_output, transposed_key, ones)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            output = self.compute(call, block, *inputs[:3])
        zero = tf.UnconnectedGradients.ZERO
        return transpose_key_and_value(tape.gradient(output, inputs, grad_output, unconnected_gradients=zero))

    def softmax_vjp(
        self,
        call: AttentionCall,
        block: Block,
        inputs: list[Any],
        outputs: Any,
        grad_output: Any,
        transposed_key: Any,
        ones: Any,
    ) -> list[Any]:
        """Compute `vjp` for softmax, in a third of the passes over the block that a tape makes.

        A tape only follows scores that are more than dot products. In a product that needs the weights transposed, the few rows
        of the other factor are transposed instead, so that the weights are read in the order of memory.
        """
        query, key, value, *_ = inputs
        mask, is_dot_product = AppliedMask(call.mask, block), type(call.score) is Dot
        grad_output = mask.zero_empty_rows(grad_output)
        # The term of the softmax's gradient that all keys of a row share.
        delta = tf.reduce_sum(grad_output * tf.cast(outputs, self.dtype), axis=-1, keepdims=True)
        with contextlib.nullcontext() if is_dot_product else tf.GradientTape() as tape:
            if tape is not None:
                tape.watch(inputs)
            scores = self.logits(call, block, query, key, transposed_key)
        weights = dropped = softmax(mask.apply(scores))
        if ones is not None:
            # Appended to the factors, so that the product subtracts it on the way.
            grad_logits = tf.matmul(tf.concat([grad_output, -delta], axis=-1), ones, transpose_b=transposed_key is None)
        else:
            factors = dropout_mask(self.seed, self.dropout, block, self.dtype)
            dropped = weights * factors
            values = tf.cast(self.repeat_heads(value), self.dtype)
            grad_logits = tf.matmul(grad_output, values, transpose_b=True) * factors - delta
        grad_value = self.sum_heads(tf.matmul(grad_output, dropped, transpose_a=True))
        grad_scores = tf.cast(weights * grad_logits, scores.dtype)
        if tape is None:
            grad_query = tf.matmul(grad_scores, tf.cast(self.repeat_heads(key), self.dtype))
            grad_key = self.sum_heads(tf.matmul(tf.cast(query, self.dtype), grad_scores, transpose_a=True))
            return [grad_query, grad_key, grad_value, *(tf.zeros_like(tensor) for tensor in inputs[3:])]
        zero = tf.UnconnectedGradients.ZERO
        gradients = transpose_key_and_value(tape.gradient(scores, inputs, grad_scores, unconnected_gradients=zero))
        return [*gradients[:2], grad_value, *gradients[3:]]

    def sum_heads(self, gradient: Any) -> Any:
        """Sum gradients by the keys or values of each query head, (b, cn, H, s), over heads that share them: (b, ck, H, s)."""
        if self.ck == self.cn:
            return gradient
        shape = (self.cb, self.ck, self.cn // self.ck, gradient.shape[2], tf.shape(gradient)[3])
        return tf.reduce_sum(tf.reshape(gradient, shape), axis=2)


def append_ones(rows: Any) -> Any:
    """Append a one to each row (b, k, s, H), by which a product adds one more number to all of a row."""
    return tf.concat([rows, tf.ones_like(rows[..., :1])], axis=-1)


def transpose_key_and_value(gradients: list[Any]) -> list[Any]:
    """Transpose the gradients by keys and values, (b, k, s, H), among those by queries, keys, values and more."""
    grad_query, grad_key, grad_value, *grad_tensors = gradients
    return [grad_query, tf.linalg.matrix_transpose(grad_key), tf.linalg.matrix_transpose(grad_value), *grad_tensors]
