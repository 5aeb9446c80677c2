"""JAX: cuDNN's kernel for the softmax of dot products in half precision, on NVIDIA's GPUs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax import lax

from limelight.engine.call import AttentionCall
from limelight.engine.jax import blockwise
from limelight.engine.mask_decomposition import decompose_mask
from limelight.normalizers import Softmax
from limelight.scores import Dot

HALF_DTYPES = ("float16", "bfloat16")
# The kernel takes vectors of a size, and sequences of a length, that are multiples of these.
SIZE_MULTIPLE, LENGTH_MULTIPLE = 8, 2


def matches(call: AttentionCall) -> bool:
    """Return True if the parts of a prepared call are those of the kernel."""
    if type(call.score) is not Dot or type(call.normalizer) is not Softmax:
        return False
    return decompose_mask(call.mask, call.block).rest is None


def supports(call: AttentionCall, value: Any = None) -> bool:
    """Return True if the kernel takes a prepared call and values (B, K, S, V), which are like the keys if None."""
    value = call.key if value is None else value
    dtype = keras.backend.standardize_dtype(value.dtype)
    if dtype not in HALF_DTYPES or not matches(call):
        return False
    query_shape, key_shape = (tuple(length or 1 for length in x.shape) for x in (call.query, call.key))
    # Keras may infer shapes symbolically, which the check below cannot take; nothing is computed then.
    is_static = all(isinstance(length, int) for length in (*query_shape, *key_shape))
    return is_static and supports_shapes(query_shape, key_shape, value.shape[-1], dtype)


@functools.cache
def supports_shapes(query_shape: tuple, key_shape: tuple, value_size: int, dtype: str) -> bool:
    """Ask JAX whether the kernel takes these shapes, (B, N, T, H) and (B, K, S, H), without computing anything."""
    shapes = (query_shape, key_shape, (*key_shape[:3], value_size))
    inputs = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    lengths = jax.ShapeDtypeStruct(query_shape[:1], "int32")

    def loss(query: Any, key: Any, value: Any, lengths: Any) -> Any:
        return jnp.sum(call_kernel(query, key, value, lengths, scale=1.0, causal=True, implementation="cudnn"))

    try:
        jax.eval_shape(jax.grad(loss, argnums=(0, 1, 2)), *inputs, lengths)
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    return True


def compute_output(call: AttentionCall, value: Any, *, scores_per_block: int, implementation: str) -> Any:
    """Compute the output (B, N, T, V) of a prepared call for values (B, K, S, V).

    Args:
        call: The prepared call.
        value: The values.
        scores_per_block: The size of blocks, which replace the kernel if causal attention has padding before or between keys.
        implementation: "cudnn", or "xla" for JAX's own formula.
    """
    mask = decompose_mask(call.mask, call.block)
    score: Any = call.score
    normalizer: Any = call.normalizer
    scale = score.factor(call.query.shape[-1]) / normalizer.temperature
    run = functools.partial(call_kernel, scale=scale, causal=mask.is_causal, implementation=implementation)
    query, key = call.query.astype(value.dtype), call.key.astype(value.dtype)
    if mask.keys is None:
        output = run(query, key, value, None)
    else:
        permitted = jnp.broadcast_to(mask.keys(call.block), (key.shape[0], 1, 1, key.shape[2]))[:, 0, 0]
        lengths = jnp.sum(permitted, axis=-1, dtype="int32")
        if mask.is_causal:
            is_prefix = jnp.all(permitted == (jnp.arange(key.shape[2]) < lengths[:, None]))
            output = lax.cond(
                is_prefix,
                lambda: run(query, key, value, lengths),
                lambda: blockwise.compute_output(call, value, scores_per_block=scores_per_block),
            )
        else:
            # The order of keys does not matter, so that the permitted ones can come first, as the kernel needs them.
            order = jnp.argsort(~permitted, axis=-1, stable=True)[:, None, :, None]
            key, value = (jnp.take_along_axis(tensor, order, axis=2) for tensor in (key, value))
            output = run(query, key, value, lengths)
    if mask.queries is not None:
        output = jnp.where(mask.queries(call.block), output, jnp.zeros((), output.dtype))
    return output


def call_kernel(
    query: Any, key: Any, value: Any, lengths: Any, *, scale: float, causal: bool, implementation: Any
) -> Any:
    """Compute the output (B, N, T, V) from the first `lengths` (B,) keys of each example, or from all if None."""
    (batch, _, rows, query_size), columns, value_size = query.shape, key.shape[2], value.shape[-1]
    size = round_up(max(query_size, value_size), SIZE_MULTIPLE)
    if lengths is None and columns % LENGTH_MULTIPLE:
        lengths = jnp.full((batch,), columns, "int32")

    def pad(tensor: Any) -> Any:
        length = tensor.shape[2]
        widths = [(0, 0), (0, 0), (0, round_up(length, LENGTH_MULTIPLE) - length), (0, size - tensor.shape[3])]
        return jnp.swapaxes(jnp.pad(tensor, widths), 1, 2)

    output = jax.nn.dot_product_attention(
        *(pad(tensor) for tensor in (query, key, value)),
        scale=scale,
        is_causal=causal,
        # The result for an example without keys is not documented: it gets one key, and its output is zeroed below.
        key_value_seq_lengths=None if lengths is None else jnp.maximum(lengths, 1),
        implementation=implementation,
    )
    output = jnp.swapaxes(output, 1, 2)[:, :, :rows, :value_size]
    if lengths is None:
        return output
    return jnp.where((lengths > 0)[:, None, None, None], output, jnp.zeros((), output.dtype))


def round_up(number: int, multiple: int) -> int:
    """Round a number up to a multiple."""
    return number + -number % multiple
