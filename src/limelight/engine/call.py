"""One attention call: queries, keys, and the parts that turn them into weights."""

import dataclasses
from typing import Any

import keras
from keras import ops

from limelight import masks, normalizers, scores
from limelight.core.block import Block
from limelight.core.component import is_tensor
from limelight.core.shapes import broadcast_length, is_static, shape_of, size_of, static_shape
from limelight.masks import Mask
from limelight.normalizers import Normalizer
from limelight.scores import Score
from limelight.scores.score import prepare_score

# Float dtypes seen so far. Looking at the name of a dtype takes longer than a small attention can spare.
_float_dtypes: set[Any] = set()


@dataclasses.dataclass(frozen=True, eq=False)
class AttentionCall:
    """Everything that determines the weights of one attention. `make_call` makes it.

    Args:
        query: (B, N, T, H).
        key: (B, K, S, H), where K divides N: each key head serves N / K query heads.
        score, mask, normalizer: The parts.
        block: All scores, unless rows or heads were selected.
        leading_shape: The axes before (T, H) in the caller's queries: (), (B,), (B, N) or longer.
        layer: The layer that makes the call, if any.
    """

    query: Any
    key: Any
    score: Score
    mask: Mask | None
    normalizer: Normalizer
    block: Block
    leading_shape: tuple = ()
    layer: Any = None

    def prepare(self) -> "AttentionCall":
        """Return the call with the part of the score applied that concerns queries and keys alone, such as a rotation."""
        query, key, score = prepare_score(self.score, self.query, self.key, block=self.block)
        if query is self.query and key is self.key and score is self.score:
            return self
        return dataclasses.replace(self, query=query, key=key, score=score)

    def prepare_value(self, value: Any) -> Any:
        """Return values (B, K, S, V) as floats, with zeros at padded positions."""
        value = as_float(value)
        return value if self.mask is None else zero_padding(value, self.mask, self.block)

    def restore_shape(self, tensor: Any) -> Any:
        """Return a result (B, N, ...) with the leading axes of the caller's queries."""
        if len(self.leading_shape) == 2:
            return tensor
        return ops.reshape(tensor, (*self.leading_shape, *shape_of(tensor)[2:]))

    @property
    def is_empty(self) -> bool:
        """True if there is known to be no example, no query or no key."""
        shape = self.query.shape
        return is_static(shape[0]) and 0 in (shape[0], shape[1], shape[2], self.key.shape[2])

    @property
    def is_broadcast(self) -> bool:
        """True if queries and keys are known to have different numbers of examples, one of which is 1."""
        query_batch, key_batch = self.query.shape[0], self.key.shape[0]
        return query_batch is not None and key_batch is not None and query_batch != key_batch


def make_call(
    query: Any,
    key: Any,
    value: Any = None,
    *,
    score: Any = None,
    mask: Any = None,
    normalizer: Any = None,
    query_positions: Any = None,
    key_positions: Any = None,
    layer: Any = None,
) -> AttentionCall:
    """Check the arguments of an attention and bring them into one form.

    Args and Raises: as `limelight.attend`; a value is a tensor, and only its shape is checked.
    """
    query, key = (as_float(x if ops.is_tensor(x) else ops.convert_to_tensor(x)) for x in (query, key))
    if mask is not None and (isinstance(mask, (list, tuple)) or is_tensor(mask)):
        mask = mask_from_array(mask, shape_of(query))
    score, mask, normalizer = scores.get(score), masks.get(mask), normalizers.get(normalizer)
    check_shapes(query, key, value)
    leading_shape = shape_of(query)[:-2]
    if len(leading_shape) == 1:
        # One sequence of queries may serve several examples.
        leading_shape = (broadcast_length(query, key, 0),)
    query, key = flatten_leading(query), flatten_leading(key)
    _, heads, rows, _ = shape_of(query)
    # One example of queries or keys may serve several, of which each has its own dropout and noise.
    batch = broadcast_length(query, key, 0)
    heads, columns = heads if is_static(heads) else size_of(query, 1), shape_of(key)[2]
    block = Block.full(
        batch,
        heads,
        rows,
        columns,
        given_query_positions=None if query_positions is None else check_positions(query_positions, "query_positions"),
        given_key_positions=None if key_positions is None else check_positions(key_positions, "key_positions"),
        kv_lengths=None if mask is None else mask.kv_lengths,
    )
    if mask is not None:
        query, key = zero_padded_queries(query, mask, block), zero_padding(key, mask, block)
    # While whole shapes are known, not at the first block.
    scores.build(score, tuple(query.shape), tuple(key.shape))
    normalizers.build(normalizer, (batch, heads, rows, columns))
    return AttentionCall(query, key, score, mask, normalizer.with_noise(), block, leading_shape, layer)


def flatten_leading(tensor: Any) -> Any:
    """Return (..., N, T, H) as (B, N, T, H): leading axes are merged, missing ones added."""
    if len(tensor.shape) == 4:
        return tensor
    shape = shape_of(tensor)
    if len(shape) == 3:
        return ops.expand_dims(tensor, 1)
    if len(shape) == 2:
        return ops.reshape(tensor, (1, 1, *shape))
    return ops.reshape(tensor, (-1, *shape[-3:]))


def as_float(tensor: Any) -> Any:
    """Return a float tensor unchanged; cast integers and bools to Keras's `floatx`."""
    if tensor.dtype in _float_dtypes:
        return tensor
    if "float" not in str(tensor.dtype):
        return ops.cast(tensor, keras.config.floatx())
    _float_dtypes.add(tensor.dtype)
    return tensor


def zero_padding(tensor: Any, mask: Mask, block: Block) -> Any:
    """Zero the padded positions of keys or values (B, K, S, H), so that a NaN there cannot propagate."""
    for is_real in mask.padding_masks():
        tensor = ops.where(ops.swapaxes(block.slice(is_real, "bs"), -1, -2), tensor, ops.zeros((), dtype=tensor.dtype))
    return tensor


def zero_padded_queries(query: Any, mask: Mask, block: Block) -> Any:
    """Zero the padded queries (B, N, T, H): a NaN there, times a gradient of 0, would propagate to all keys."""
    for is_real in mask.query_padding_masks():
        query = ops.where(block.slice(is_real, "bt"), query, ops.zeros((), dtype=query.dtype))
    return query


def check_positions(positions: Any, name: str) -> Any:
    """Return positions as a tensor.

    Raises:
        ValueError: They are no integers of shape (T,) or (B, T).
    """
    positions = positions if is_tensor(positions) else ops.convert_to_tensor(positions)
    if "int" not in str(positions.dtype) or not 1 <= len(positions.shape) <= 2:
        raise ValueError(
            f"`{name}` must be integers of shape (T,) or (B, T). Received: {positions.dtype} of shape "
            f"{tuple(positions.shape)}. Pass times and the like as queries and keys, for example to "
            "limelight.scores.NegativeSquaredDistance()."
        )
    return positions


def mask_from_array(array: Any, query_shape: tuple) -> Mask:
    """Return the mask of a bool array that broadcasts to (..., T, S) by numpy's rules, for queries (..., T, H)."""
    array, rank = masks.as_bool(array, "`mask`"), len(query_shape)
    if len(array.shape) > rank:
        raise ValueError(
            f"`mask` must broadcast to the weights (..., T, S), which have {rank} axes here. Received: a mask of shape "
            f"{tuple(array.shape)}. Remove its leading axes."
        )
    if rank == 3 and len(array.shape) == 3:
        array = ops.expand_dims(array, 1)
    elif rank > 4 and len(array.shape) > 3:
        shape = shape_of(array)[-3:]
        if None not in query_shape[:-3]:
            array = ops.broadcast_to(array, (*query_shape[:-3], *shape))
        array = ops.reshape(array, (-1, *shape))
    elif len(array.shape) < 2:
        array = ops.reshape(array, (1, -1))
    return masks.ArrayMask(array)


def check_shapes(query: Any, key: Any, value: Any = None) -> None:
    """Raise a ValueError if the shapes of queries, keys and values do not fit together."""
    query_shape, key_shape = query.shape, key.shape
    value_shape = key_shape if value is None else value.shape
    # Lengths that an exporter leaves open must not be compared.
    is_known = len(query_shape) == len(key_shape) > 1 and is_static(query_shape[-2]) and is_static(key_shape[-2])
    if is_known and query_shape == key_shape == value_shape:
        return
    query_shape, key_shape, value_shape = map(static_shape, (query_shape, key_shape, value_shape))
    for name, shape in (("query", query_shape), ("key", key_shape), ("value", value_shape)):
        if len(shape) < 2:
            raise ValueError(
                f"`{name}` must have shape (..., length, size). Received: shape {shape}. Add a length axis: {name}[None]."
            )
    if len(query_shape) != len(key_shape):
        raise ValueError(
            "`query` and `key` must have the same number of axes, (..., T, H) and (..., S, H). Received: query "
            f"{query_shape}, key {key_shape}."
        )
    if not query_shape[:-2] == key_shape[:-2] == value_shape[:-2]:
        _check_leading_axes(query_shape, key_shape, value_shape)
    num_heads, num_kv_heads = (query_shape[-3], key_shape[-3]) if len(query_shape) > 3 else (None, None)
    if num_heads and num_kv_heads and num_heads % num_kv_heads:
        raise ValueError(
            "The number of key heads must divide the number of query heads, (..., N, T, H) and (..., K, S, H). Received: "
            f"N={num_heads}, K={num_kv_heads}."
        )
    if key_shape[-2] is not None and value_shape[-2] is not None and key_shape[-2] != value_shape[-2]:
        raise ValueError(
            "`key` and `value` must have the same length S, (..., S, H) and (..., S, V). Received: key "
            f"{key_shape}, value {value_shape}."
        )


def _check_leading_axes(query_shape: tuple, key_shape: tuple, value_shape: tuple) -> None:
    """Raise if axes before the lengths differ other than by the number of heads, or by a single example on one side."""
    if len(key_shape) != len(value_shape) or any(map(_differ, key_shape[:-2], value_shape[:-2])):
        raise ValueError(
            "`key` and `value` must have the same leading axes, (..., S, H) and (..., S, V). Received: key "
            f"{key_shape}, value {value_shape}."
        )
    num_heads_axes = 1 if len(query_shape) > 3 else 0
    query_batch, key_batch = query_shape[: -2 - num_heads_axes], key_shape[: -2 - num_heads_axes]
    broadcasts = len(query_batch) == 1 and (query_batch == (1,) or key_batch == (1,))
    if not broadcasts and any(map(_differ, query_batch, key_batch)):
        raise ValueError(
            "`query` and `key` must be of the same examples, (..., N, T, H) and (..., K, S, H). Received: query "
            f"{query_shape}, key {key_shape}. A single batch axis may have length 1 in one of them."
        )


def _differ(length: Any, other: Any) -> bool:
    """Return True if two lengths are known to differ."""
    return isinstance(length, int) and isinstance(other, int) and length != other
