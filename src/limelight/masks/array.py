"""Masks that hold the data of one call."""

import dataclasses
from typing import Any

from keras import ops

from limelight.core.block import Block, Slice
from limelight.core.component import is_tensor, register
from limelight.masks.mask import PICTURE, Mask
from limelight.masks.static_shapes import run
from limelight.masks.validation import boolean


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Padding(Mask):
    """Which positions of a batch are real: the others are neither attended to nor, for queries, attend to anything.

    Args:
        keys: bool (..., S), True where a key is real.
        queries: bool (..., T), True where a query is real; None where all are.

    Raises:
        TypeError: something that is not an array.
        ValueError: numbers other than 0 and 1.

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
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, boolean(given, f"Padding's `{name}`"))

    def __call__(self, block: Block) -> Any:
        permitted = ops.ones((1, 1, 1, 1), dtype="bool")
        if self.keys is not None:
            permitted = block.align(self.keys, "bs")
        if self.queries is not None:
            permitted = ops.logical_and(permitted, block.align(self.queries, "bt"))
        return permitted

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        if self.keys is None:
            return super().kv_range(block)
        everything = Slice(block.columns.total)
        return run(block.replace(columns=everything).align(self.keys, "bs"), everything.total)

    def kv_lengths(self) -> Any:
        if self.keys is None:
            return None
        places = ops.arange(1, ops.shape(self.keys)[-1] + 1, dtype="int32")
        return ops.reshape(ops.max(ops.where(self.keys, places, 0), axis=-1), (-1,))

    def padding_masks(self) -> list[Any]:
        return [] if self.keys is None else [self.keys]

    def static_shape(self) -> tuple[int, int, int, int]:
        return pictured(self.keys, self.queries)


class Slots(Padding):
    """Padding where zeros stand already, such as the empty slots of a cache, so that there is nothing to be cleared."""

    def padding_masks(self) -> list[Any]:
        return []


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Segments(Mask):
    r"""Sequences packed one after another: each attends within itself.

    $$m_{ij} = (g_i = h_j)$$

    Args:
        queries: int (..., T), the number of each query's sequence.
        keys: int (..., S), the number of each key's sequence; that of the queries when not given.

    Raises:
        TypeError: something that is not an array of integers.

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
            given = getattr(self, name)
            if given is None:
                continue
            if not is_tensor(given) or "int" not in str(given.dtype):
                raise TypeError(
                    f"Segments' `{name}` must be an array of integers, the number of each position's sequence. "
                    f"Received: {given!r}."
                )
            object.__setattr__(self, name, ops.cast(given, "int32"))

    def __call__(self, block: Block) -> Any:
        keys = self.queries if self.keys is None else self.keys
        return ops.equal(block.align(self.queries, "bt"), block.align(keys, "bs"))

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        keys = self.queries if self.keys is None else self.keys
        everything = Slice(block.columns.total)
        rows, columns = block.align(self.queries, "bt"), block.replace(columns=everything).align(keys, "bs")
        # Between the least and the greatest number of the rows: no more than that where sequences are numbered in order.
        least, most = ops.min(rows, axis=2, keepdims=True), ops.max(rows, axis=2, keepdims=True)
        return run(ops.logical_and(columns >= least, columns <= most), everything.total)

    def static_shape(self) -> tuple[int, int, int, int]:
        return pictured(self.queries if self.keys is None else self.keys, self.queries)


@register
@dataclasses.dataclass(frozen=True, eq=False)
class ArrayMask(Mask):
    """A mask given as an array.

    Args:
        array: bool (or 0 and 1), of rank 4 and broadcastable to (B, N, T, S). `attend` and the layers make one from arrays
            of any rank that they take.

    Raises:
        TypeError: something that is not an array.
        ValueError: a number other than 0 and 1, or a float array whose values cannot be looked at while compiling.

    Example:
        >>> import numpy as np, limelight as ll
        >>> print(ll.masks.ArrayMask(np.eye(3, dtype=bool)))
        ■ · ·
        · ■ ·
        · · ■
    """

    array: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "array", boolean(self.array, "a mask"))

    def __call__(self, block: Block) -> Any:
        return block.align(self.array, "bnts" if len(self.array.shape) > 2 else "ts")

    def static_shape(self) -> tuple[int, int, int, int]:
        examples, heads, *lengths = (1, 1, *tuple(self.array.shape))[-4:]
        rows, columns = (PICTURE if length == 1 else int(length) for length in lengths)
        return int(examples), int(heads), rows, columns


def pictured(keys: Any, queries: Any) -> tuple[int, int, int, int]:
    """The shape of a picture for keys (..., S) and queries (..., T), where either may be missing."""
    given = keys if queries is None else queries
    if given is None:
        return 1, 1, PICTURE, PICTURE
    examples = 1 if len(given.shape) == 1 else int(given.shape[0])
    rows = PICTURE if queries is None else int(queries.shape[-1])
    return examples, 1, rows, rows if keys is None else int(keys.shape[-1])
