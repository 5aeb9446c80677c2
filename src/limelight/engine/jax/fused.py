"""JAX: cuDNN's kernel for the softmax of dot products in half precision, on a GPU of NVIDIA's."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax import lax

from limelight.engine import placement
from limelight.engine.call import AttentionCall
from limelight.engine.jax import blockwise
from limelight.engine.mask_decomposition import divided
from limelight.normalizers import Softmax
from limelight.scores import Dot

HALVES = ("float16", "bfloat16")
# The kernel takes vectors whose size is a multiple of this, and lengths that are a multiple of that.
MULTIPLE, EVEN = 8, 2


def takes(call: AttentionCall, value: Any = None) -> bool:
    """Whether the kernel can do what a prepared question asks, for values (B, K, S, V); for such as the keys are by default."""
    value = call.key if value is None else value
    dtype = keras.backend.standardize_dtype(value.dtype)
    if dtype not in HALVES or not placement.accelerated(call.query) or not fits(call):
        return False
    query, key = (tuple(length or 1 for length in one.shape) for one in (call.query, call.key))
    # A shape in symbols is only reasoned about.
    known = all(isinstance(length, int) for length in (*query, *key))
    return known and supported(query, key, value.shape[-1], dtype)


def fits(call: AttentionCall) -> bool:
    """Whether the parts of a prepared question are those of the kernel."""
    if type(call.score) is not Dot or type(call.normalizer) is not Softmax:
        return False
    return divided(call.mask, call.block)[-1] is None


@functools.cache
def supported(query: tuple, key: tuple, width: int, dtype: str) -> bool:
    """What JAX itself says, of shapes (B, N, T, H) and (B, K, S, H) and values of size `width`, without computing anything."""
    given = [jax.ShapeDtypeStruct(shape, dtype) for shape in (query, key, (*key[:3], width))]
    lengths = jax.ShapeDtypeStruct(query[:1], "int32")

    def loss(query: Any, key: Any, value: Any, lengths: Any) -> Any:
        return jnp.sum(kernel(query, key, value, lengths, scale=1.0, causal=True, implementation="cudnn"))

    try:
        jax.eval_shape(jax.grad(loss, argnums=(0, 1, 2)), *given, lengths)
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    return True


def output(call: AttentionCall, value: Any, *, size: int, implementation: str) -> Any:
    """The output (B, N, T, V) of a prepared question for values (B, K, S, V); the kernel's, or where padding stands before or
    between the keys of a causal attention that of blocks of about so many scores."""
    causal, keys, queries, _ = divided(call.mask, call.block)
    score: Any = call.score
    normalizer: Any = call.normalizer
    scale = score.factor(call.query.shape[-1]) / normalizer.temperature
    run = functools.partial(kernel, scale=scale, causal=causal, implementation=implementation)
    query, key = call.query.astype(value.dtype), call.key.astype(value.dtype)
    if keys is None:
        found = run(query, key, value, None)
    else:
        permitted = jnp.broadcast_to(keys(call.block), (key.shape[0], 1, 1, key.shape[2]))[:, 0, 0]
        lengths = jnp.sum(permitted, axis=-1, dtype="int32")
        if causal:
            first = jnp.all(permitted == (jnp.arange(key.shape[2]) < lengths[:, None]))
            found = lax.cond(
                first,
                lambda: run(query, key, value, lengths),
                lambda: blockwise.output(call, value, size=size),
            )
        else:
            # Where the order of keys is no matter, those that are permitted may come first, as the kernel has them.
            order = jnp.argsort(~permitted, axis=-1, stable=True)[:, None, :, None]
            key, value = (jnp.take_along_axis(tensor, order, axis=2) for tensor in (key, value))
            found = run(query, key, value, lengths)
    if queries is not None:
        found = jnp.where(queries(call.block), found, jnp.zeros((), found.dtype))
    return found


def kernel(query: Any, key: Any, value: Any, lengths: Any, *, scale: float, causal: bool, implementation: Any) -> Any:
    """The output (B, N, T, V) of which the first keys of each example take part, `lengths` (B,) of them; all for None."""
    (batch, _, rows, size), columns, width = query.shape, key.shape[2], value.shape[-1]
    size = up(max(size, width), MULTIPLE)
    if lengths is None and columns % EVEN:
        lengths = jnp.full((batch,), columns, "int32")
    tensors = [
        jnp.pad(one, [(0, 0), (0, 0), (0, up(one.shape[2], EVEN) - one.shape[2]), (0, size - one.shape[3])])
        for one in (query, key, value)
    ]
    found = jax.nn.dot_product_attention(
        *(jnp.swapaxes(one, 1, 2) for one in tensors),
        scale=scale,
        is_causal=causal,
        # It is not said what becomes of an example without keys: it has one, and then no output.
        key_value_seq_lengths=None if lengths is None else jnp.maximum(lengths, 1),
        implementation=implementation,
    )
    found = jnp.swapaxes(found, 1, 2)[:, :, :rows, :width]
    return (
        found if lengths is None else jnp.where((lengths > 0)[:, None, None, None], found, jnp.zeros((), found.dtype))
    )


def up(number: int, step: int) -> int:
    """A number, or the next larger multiple of a step."""
    return number + -number % step
