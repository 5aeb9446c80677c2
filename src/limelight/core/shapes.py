"""Lengths of axes, which an exporter may not let become constants.

While `torch.jit.trace` runs, as for ONNX, a shape consists of tensors; while `torch.export` or JAX exports, of symbolic numbers.
The length of an example then says nothing of those that will come, and no decision may depend on it.
"""

import math
import warnings
from collections.abc import Iterable
from typing import Any

from keras import ops

_STATIC_TYPES = {int, type(None)}


def shape_of(tensor: Any) -> tuple:
    """Return the shape of a tensor: ints, and scalar tensors for lengths that are only known at run time."""
    shape = tuple(tensor.shape)
    # `ops.shape` first looks for symbolic tensors, which takes longer than a small attention.
    return tuple(ops.shape(tensor)) if None in shape else shape


def is_static(length: Any) -> bool:
    """Return True if a length is an int, or None: not a tensor or a symbolic number of an exporter."""
    return type(length) in _STATIC_TYPES


def static_shape(shape: Iterable[Any]) -> tuple[int | None, ...]:
    """Return a shape with None for the lengths that are not known."""
    return tuple(length if is_static(length) else None for length in shape)


def has_traced_shape(tensor: Any) -> bool:
    """Return True while a model is exported for any length: a length is a tensor or symbolic."""
    return not _STATIC_TYPES.issuperset(map(type, tensor.shape))


def is_one(length: Any) -> bool:
    """Return True if a length is known to be 1."""
    return isinstance(length, int) and length == 1


def size_of(tensor: Any, axis: int) -> int:
    """Return the length of an axis that is always known, such as that of the heads or the features, as an int.

    It is a constant of an exported model.
    """
    length = tensor.shape[axis]
    if is_static(length):
        return length
    with warnings.catch_warnings():
        # PyTorch warns that the number becomes a constant, as it should.
        warnings.simplefilter("ignore")
        return int(length)


def broadcast_length(tensor: Any, other: Any, axis: int) -> Any:
    """Return the length of an axis of two tensors that are broadcast against each other."""
    length = tensor.shape[axis]
    if ops.is_tensor(length):
        # `torch.jit.trace` runs, and either of them may have length 1 later.
        return ops.maximum(length, other.shape[axis])
    return shape_of(other if is_one(length) else tensor)[axis]


def broadcast_to(tensor: Any, shape: tuple) -> Any:
    """Broadcast a tensor to a shape."""
    if None in tensor.shape:
        # Not by `ops.broadcast_to`, whose gradient XLA cannot compile inside a loop of TensorFlow's.
        return tensor + ops.zeros(shape, dtype=tensor.dtype)
    return ops.broadcast_to(tensor, shape)


def take_along_last_axis(tensor: Any, index: Any) -> Any:
    """Gather from a tensor (..., M) by an index (..., S) with the same leading axes."""
    if not has_traced_shape(tensor):
        return ops.take_along_axis(tensor, index, axis=-1)
    # PyTorch exports no `take_along_dim`, but it does export the lookup of rows in a table.
    *leading, size = ops.shape(tensor)
    rows = ops.reshape(ops.arange(math.prod(leading), dtype="int32"), (*leading, 1))
    return ops.take(ops.reshape(tensor, (-1, 1)), rows * size + ops.cast(index, "int32"), axis=0)[..., 0]
