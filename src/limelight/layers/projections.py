"""Into heads and out of them: the projections of multi-head attention, and how axes move between them."""

import dataclasses
import math
import string
from typing import Any, Self

import keras
from keras import ops


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the projections of one attention layer share."""

    kernel_initializer: Any
    bias_initializer: Any
    kernel_regularizer: Any
    bias_regularizer: Any
    activity_regularizer: Any
    kernel_constraint: Any
    bias_constraint: Any

    def into_heads(
        self, name: str, rank: int, heads: int, size: int, use_bias: bool, dtype: Any, activation: str | None = None
    ) -> keras.layers.EinsumDense:
        """A projection (B, ..., D) -> (B, ..., heads, size)."""
        free = string.ascii_lowercase[: rank - 1]
        return masked(
            f"{free}x,xyz->{free}yz",
            output_shape=[None] * (rank - 2) + [heads, size],
            bias_axes="yz" if use_bias else None,
            activation=activation,
            name=name,
            dtype=dtype,
            **self._own(),
        )

    def out_of_heads(self, name: str, rank: int, width: tuple, use_bias: bool, dtype: Any) -> keras.layers.EinsumDense:
        """A projection (B, ..., heads, size) -> (B, ..., *width)."""
        free, out = string.ascii_lowercase[: rank - 1], string.ascii_uppercase[: len(width)]
        return masked(
            f"{free}yz,yz{out}->{free}{out}",
            output_shape=[None] * (rank - 2) + list(width),
            bias_axes=out if use_bias else None,
            name=name,
            dtype=dtype,
            **self._own(),
        )

    def _own(self) -> dict[str, Any]:
        """The settings, with initializers of its own: one object gives every weight of the same shape the same values."""
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("kernel_initializer", "bias_initializer"):
            shared[name] = shared[name].clone()
        return shared

    def get_config(self) -> dict[str, Any]:
        """The settings as Keras serialises them."""
        kinds = {"initializer": keras.initializers, "regularizer": keras.regularizers, "constraint": keras.constraints}
        return {
            field.name: kinds[field.name.rpartition("_")[2]].serialize(getattr(self, field.name))
            for field in dataclasses.fields(self)
        }


def masked(*args: Any, **kwargs: Any) -> keras.layers.EinsumDense:
    """An EinsumDense that takes a masked input without a warning: the mask stays on the input, and the layer obeys it."""
    dense = keras.layers.EinsumDense(*args, **kwargs)
    dense.supports_masking = True
    return dense


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """How the axes of one call lie: which are attended over, and which are batch.

    Args:
        batch: axes of the input that are batch, the first included.
        axes: axes of the input that are attended over.
        queries, keys: shapes (B, ..., T) and (B, ..., S) with the attended axes merged into T and S.
        query_lengths, key_lengths: the attended axes one by one.
    """

    batch: tuple[int, ...]
    axes: tuple[int, ...]
    queries: tuple
    keys: tuple
    query_lengths: tuple
    key_lengths: tuple

    @classmethod
    def of(cls, query: Any, value: Any, axes: tuple[int, ...]) -> Self:
        """The layout of a query (B, ..., D) and a value (B, ..., D)."""
        query_shape, value_shape = tuple(ops.shape(query)), tuple(ops.shape(value))
        batch = tuple(axis for axis in range(len(query_shape) - 1) if axis not in axes)
        lead = tuple(query_shape[axis] for axis in batch)
        query_lengths = tuple(query_shape[axis] for axis in axes)
        key_lengths = tuple(value_shape[axis] for axis in axes)
        queries, keys = (*lead, merged(query_lengths)), (*lead, merged(key_lengths))
        return cls(batch, axes, queries, keys, query_lengths, key_lengths)

    def heads_first(self, tensor: Any) -> Any:
        """A projection (B, ..., N, H) as (B, ..., N, T, H), with T all attended axes."""
        rank = len(tensor.shape)
        tensor = ops.transpose(tensor, (*self.batch, rank - 2, *self.axes, rank - 1))
        if len(self.axes) == 1:
            return tensor
        shape = tuple(ops.shape(tensor))
        return ops.reshape(tensor, (*shape[: len(self.batch) + 1], merged(shape[len(self.batch) + 1 : -1]), shape[-1]))

    def heads_last(self, tensor: Any) -> Any:
        """An output (B, ..., N, T, V) with its axes where those of the query were: (B, ..., N, V)."""
        if len(self.axes) > 1:
            shape = tuple(ops.shape(tensor))
            tensor = ops.reshape(tensor, (*shape[:-2], *self.query_lengths, shape[-1]))
        places = {axis: place for place, axis in enumerate((*self.batch, None, *self.axes))}
        count = len(places) - 1
        return ops.transpose(tensor, (*(places[axis] for axis in range(count)), places[None], count + 1))

    def weights(self, weights: Any) -> Any:
        """Weights (B, ..., N, T, S) with the attended axes one by one again."""
        if len(self.axes) == 1:
            return weights
        return ops.reshape(weights, (*tuple(ops.shape(weights))[:-2], *self.query_lengths, *self.key_lengths))

    def steps(self, mask: Any) -> Any:
        """A mask of the input's steps, (B, ...) in the order of its axes, as (B, ..., T)."""
        if len(mask.shape) < len(self.batch) + len(self.axes):
            return mask
        mask = ops.transpose(mask, (*self.batch, *self.axes))
        shape = tuple(ops.shape(mask))
        return ops.reshape(mask, (*shape[: len(self.batch)], merged(shape[len(self.batch) :])))

    def mask(self, mask: Any) -> Any:
        """A mask whose last axes are the attended ones of queries and keys, one by one, as (..., T, S)."""
        mask = ops.convert_to_tensor(mask)
        count = len(self.axes)
        if count == 1 or len(mask.shape) < 2 * count:
            return mask
        lengths = (*self.query_lengths, *self.key_lengths)
        lead = tuple(ops.shape(mask))[: -2 * count]
        mask = ops.broadcast_to(mask, (*lead, *lengths))
        return ops.reshape(mask, (*lead, merged(self.query_lengths), merged(self.key_lengths)))


def merged(lengths: tuple) -> Any:
    """The length of several axes made one."""
    return lengths[0] if len(lengths) == 1 else math.prod(lengths)


def check_sizes(
    num_heads: Any, key_dim: Any, value_dim: Any, num_kv_heads: Any, sliding_window: Any, latent_dim: Any = None
) -> None:
    """Raise where an argument is not a positive integer, or `num_kv_heads` does not divide `num_heads`."""
    optional = {"value_dim": value_dim, "num_kv_heads": num_kv_heads, "sliding_window": sliding_window}
    optional["latent_dim"] = latent_dim
    for name, given in {"num_heads": num_heads, "key_dim": key_dim, **optional}.items():
        if name in optional and given is None:
            continue
        if not isinstance(given, int) or isinstance(given, bool) or given < 1:
            raise ValueError(
                f"The argument `{name}` must be a positive integer{' or None' if name in optional else ''}. "
                f"Received: {name}={given!r}."
            )
    if num_kv_heads is not None and num_heads % num_kv_heads:
        divisors = [size for size in range(1, num_heads + 1) if num_heads % size == 0]
        raise ValueError(
            f"`num_kv_heads` must divide `num_heads`. Received: num_heads={num_heads}, num_kv_heads={num_kv_heads}. Use one of {divisors}."
        )


def check_lengths(value_shape: tuple, key_shape: tuple) -> None:
    """Raise where keys and values are not one to one."""
    if tuple(value_shape[1:-1]) != tuple(key_shape[1:-1]):
        raise ValueError(
            "All dimensions of `value` and `key`, except the last one, must be equal. Received: value_shape="
            f"{tuple(value_shape)}, key_shape={tuple(key_shape)}. Each key belongs to one value."
        )


def axes(attention_axes: Any) -> tuple[int, ...] | None:
    """`attention_axes` as a tuple.

    Raises:
        ValueError: neither an int nor a list or tuple of them.
    """
    if attention_axes is None:
        return None
    if isinstance(attention_axes, int):
        return (attention_axes,)
    if isinstance(attention_axes, (list, tuple)):
        return tuple(attention_axes)
    raise ValueError(f"`attention_axes` must be an int, list, or tuple. Received: attention_axes={attention_axes!r}.")


def step_shape(output_shape: Any) -> tuple[int, ...] | None:
    """`output_shape` as a tuple.

    Raises:
        ValueError: neither an int nor a list or tuple of them.
    """
    if not output_shape:
        return None
    if isinstance(output_shape, int):
        return (output_shape,)
    try:
        return tuple(output_shape)
    except TypeError:
        raise ValueError(
            f"Invalid `output_shape`: it must be an int, list, or tuple. Received: output_shape={output_shape!r}."
        ) from None
