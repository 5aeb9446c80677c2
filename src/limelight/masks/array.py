"""Masks that hold the data of one call."""

import dataclasses
from typing import Any

from keras import ops

from limelight.core.block import Block, Slice
from limelight.core.component import is_tensor, register
from limelight.core.shapes import is_one
from limelight.masks.mask import RENDER_SIZE, Mask, static_min


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Padding(Mask):
    r"""Padding mask: padded keys are not attended to, and padded queries attend to nothing.

    $$m_{ij} = \mathrm{queries}_i \wedge \mathrm{keys}_j$$

    Args:
        keys: bool (..., S), True for real keys; None if all are real.
        queries: bool (..., T), True for real queries; None if all are real.

    Raises:
        TypeError: `keys` or `queries` is not an array.
        ValueError: An array holds numbers other than 0 and 1.

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.ones((1, 3, 4), "float32")
        >>> print(np.array(ll.attention_weights(x[:, :1], x, mask=ll.masks.Padding(np.array([[True, True, False]])))))
        [[[0.5 0.5 0. ]]]
    """

    keys: Any = None
    queries: Any = None

    def __post_init__(self) -> None:
        for name in ("keys", "queries"):
            array = getattr(self, name)
            if array is not None:
                object.__setattr__(self, name, as_bool(array, f"Padding's `{name}`"))

    def __call__(self, block: Block) -> Any:
        mask = ops.ones((1, 1, 1, 1), dtype="bool")
        if self.keys is not None:
            mask = block.slice(self.keys, "bs")
        if self.queries is not None:
            mask = ops.logical_and(mask, block.slice(self.queries, "bt"))
        return mask

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        if self.keys is None:
            return super().kv_range(block)
        all_columns = Slice(block.columns.total)
        return find_true_range(block.replace(columns=all_columns).slice(self.keys, "bs"), all_columns.total)

    def kv_lengths(self) -> Any:
        # One element stands for all keys of an example: all of them are real, or none, and then it has no length.
        if self.keys is None or is_one(self.keys.shape[-1]):
            return None
        lengths = ops.arange(1, ops.shape(self.keys)[-1] + 1, dtype="int32")
        return ops.reshape(ops.max(ops.where(self.keys, lengths, 0), axis=-1), (-1,))

    def padding_masks(self) -> list[Any]:
        return [] if self.keys is None else [self.keys]

    def query_padding_masks(self) -> list[Any]:
        return [] if self.queries is None else [self.queries]

    def static_shape(self) -> tuple[int, int, int, int]:
        return _static_shape(self.keys, self.queries)


class CacheSlots(Padding):
    """Padding mask of keys and values that are already zero where they are padded, such as the empty slots of a cache."""

    def padding_masks(self) -> list[Any]:
        return []


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Segments(Mask):
    r"""Mask of packed sequences: each query attends only to keys of its own sequence.

    $$m_{ij} = (\mathrm{queries}_i = \mathrm{keys}_j)$$

    Args:
        queries: int (..., T), the sequence that each query belongs to.
        keys: int (..., S), the sequence that each key belongs to; None for `queries`.

    Raises:
        TypeError: `queries` or `keys` is not an array of integers.

    Example:
        >>> import numpy as np, limelight as ll
        >>> print(ll.masks.Segments(np.array([[0, 0, 1, 1, 1]])) & ll.masks.Causal())
        ■ · · · ·
        ■ ■ · · ·
        · · ■ · ·
        · · ■ ■ ·
        · · ■ ■ ■

    References:
        Raffel et al. 2020, arXiv:1910.10683 (packing).
    """

    queries: Any
    keys: Any = None

    def __post_init__(self) -> None:
        for name in ("queries", "keys"):
            array = getattr(self, name)
            if array is None:
                continue
            if not is_tensor(array) or "int" not in str(array.dtype):
                raise TypeError(
                    f"Segments' `{name}` must be an array of integers, the number of each position's sequence. "
                    f"Received: {array!r}."
                )
            object.__setattr__(self, name, ops.cast(array, "int32"))

    def __call__(self, block: Block) -> Any:
        return ops.equal(block.slice(self.queries, "bt"), block.slice(self._key_segments, "bs"))

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        all_columns = Slice(block.columns.total)
        rows = block.slice(self.queries, "bt")
        columns = block.replace(columns=all_columns).slice(self._key_segments, "bs")
        # All segments between those of the queries. This is tight if sequences are numbered in order.
        lowest, highest = ops.min(rows, axis=2, keepdims=True), ops.max(rows, axis=2, keepdims=True)
        return find_true_range(ops.logical_and(columns >= lowest, columns <= highest), all_columns.total)

    def static_shape(self) -> tuple[int, int, int, int]:
        return _static_shape(self._key_segments, self.queries)

    @property
    def _key_segments(self) -> Any:
        return self.queries if self.keys is None else self.keys


@register
@dataclasses.dataclass(frozen=True, eq=False)
class ArrayMask(Mask):
    r"""Mask given as an array.

    $$m_{ij} = \mathrm{array}_{ij}$$

    Args:
        array: bool (or 0 and 1) of rank 4, broadcastable to (B, N, T, S). `attend` and the layers accept arrays of any rank that
            fits their inputs, and build this mask from them.

    Raises:
        TypeError: `array` is not an array.
        ValueError: `array` holds numbers other than 0 and 1, or floats whose values are unknown while compiling.

    Example:
        >>> import numpy as np, limelight as ll
        >>> print(ll.masks.ArrayMask(np.eye(3, dtype=bool)))
        ■ · ·
        · ■ ·
        · · ■
    """

    array: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "array", as_bool(self.array, "a mask"))

    def __call__(self, block: Block) -> Any:
        return block.slice(self.array, "bnts" if len(self.array.shape) > 2 else "ts")

    def static_shape(self) -> tuple[int, int, int, int]:
        batch, heads, *lengths = (1, 1, *tuple(self.array.shape))[-4:]
        rows, columns = (RENDER_SIZE if length == 1 else int(length) for length in lengths)
        return int(batch), int(heads), rows, columns


def as_bool(array: Any, name: str) -> Any:
    """Convert a mask array to bool.

    Args:
        array: bool, or numbers that are 0 or 1.
        name: The name of the array, for the error.

    Raises:
        TypeError: `array` is not an array.
        ValueError: `array` holds other numbers than 0 and 1, such as an additive mask or probabilities.
    """
    if not is_tensor(array) and not isinstance(array, (list, tuple)):
        raise TypeError(f"{name} must be a boolean array, True where attending is allowed. Received: {array!r}.")
    tensor = ops.convert_to_tensor(array)
    dtype = str(tensor.dtype).rpartition(".")[2]
    if dtype == "bool":
        return tensor
    values = concrete_value(tensor)
    if values is None and "float" in dtype:
        raise ValueError(
            f"{name} must be boolean: a mask of dtype {dtype} cannot be told from an additive one while a model is "
            "compiled. Pass `mask > 0.5` (or `mask == 0` for an additive mask)."
        )
    if values is not None and not ((values == 0) | (values == 1)).all():
        raise ValueError(
            f"{name} must hold only True and False, or 1 and 0; True means *may attend*. Received: dtype {dtype} with values "
            f"from {values.min()} to {values.max()}. For an additive mask of large negative numbers pass `mask == 0`."
        )
    return ops.cast(tensor, "bool")


def concrete_value(tensor: Any) -> Any:
    """Return the values of a tensor as numpy, or None if they are unknown because a model is being traced."""
    try:
        return ops.convert_to_numpy(tensor)
    except Exception:
        # Each backend raises its own error for a traced tensor.
        return None


def find_true_range(array: Any, total: Any) -> tuple[Any, Any]:
    """Return `first, stop` of the range of all True elements of the last axis, of length `total` or broadcast to it."""
    is_true = ops.any(ops.reshape(array, (-1, ops.shape(array)[-1])), axis=0)
    indices = ops.arange(total, dtype="int32")
    stop = ops.max(ops.where(is_true, indices + 1, 0))
    return static_min(ops.min(ops.where(is_true, indices, total)), stop), stop


def _static_shape(keys: Any, queries: Any) -> tuple[int, int, int, int]:
    """Return the shape (B, N, T, S) of a mask of keys (..., S) and queries (..., T), either of which may be None."""
    array = keys if queries is None else queries
    if array is None:
        return 1, 1, RENDER_SIZE, RENDER_SIZE
    batch = 1 if len(array.shape) == 1 else int(array.shape[0])
    rows = RENDER_SIZE if queries is None else int(queries.shape[-1])
    return batch, 1, rows, rows if keys is None else int(keys.shape[-1])
