"""Masks: which query may attend to which key. True means *may attend*."""

import dataclasses
from typing import Any

from keras import ops

from limelight.parts import Part, chosen, is_tensor, register
from limelight.tile import Tile


class Mask(Part):
    """A rule about positions, or about the data of one call, that permits or forbids pairs of query and key.

    Masks combine with `&`, `|` and `~`. A row that permits nothing has weights 0 and output 0.
    """

    def __call__(self, tile: Tile) -> Any:
        """The mask on a tile: bool, broadcastable to (b, n, t, s)."""
        raise NotImplementedError

    def columns(self, tile: Tile) -> tuple[Any, Any]:
        """The run `first .. last - 1` of columns outside which the tile's rows may attend to nothing.

        It may be wider than need be, never narrower: an engine skips what lies outside.
        """
        return 0, tile.columns.total

    def __and__(self, other: "Mask") -> "Mask":
        return And(self, combinable(other))

    def __or__(self, other: "Mask") -> "Mask":
        return Or(self, combinable(other))

    def __invert__(self) -> "Mask":
        return Not(self)


def combinable(other: Any) -> Mask:
    """The other side of `&` or `|`, which must be a mask."""
    if not isinstance(other, Mask):
        raise TypeError(
            f"A mask combines with another mask. Received: {other!r} of type {type(other).__name__}. "
            "Wrap a boolean array as limelight.Allowed(array)."
        )
    return other


@register
@dataclasses.dataclass(frozen=True)
class And(Mask):
    """What both masks permit."""

    left: Mask
    right: Mask

    def __call__(self, tile: Tile) -> Any:
        return ops.logical_and(self.left(tile), self.right(tile))

    def columns(self, tile: Tile) -> tuple[Any, Any]:
        (first, last), (other_first, other_last) = self.left.columns(tile), self.right.columns(tile)
        return larger(first, other_first), smaller(last, other_last)


@register
@dataclasses.dataclass(frozen=True)
class Or(Mask):
    """What either mask permits."""

    left: Mask
    right: Mask

    def __call__(self, tile: Tile) -> Any:
        return ops.logical_or(self.left(tile), self.right(tile))

    def columns(self, tile: Tile) -> tuple[Any, Any]:
        (first, last), (other_first, other_last) = self.left.columns(tile), self.right.columns(tile)
        return smaller(first, other_first), larger(last, other_last)


@register
@dataclasses.dataclass(frozen=True)
class Not(Mask):
    """What the mask forbids."""

    mask: Mask

    def __call__(self, tile: Tile) -> Any:
        return ops.logical_not(self.mask(tile))


@register
@dataclasses.dataclass(frozen=True)
class Causal(Mask):
    r"""Each query attends to its own position and to those before it.

    $$m_{ij} = (j \le i + S - T)$$

    with `align="end"`, so that one query against S keys is the last position, as in decoding with a cache. With
    `align="start"` it is $(j \le i)$, as Keras, PyTorch and ONNX have it. For T = S they are the same.

    Args:
        align: "end" or "start".

    Raises:
        ValueError: `align` is something else.

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.ones((3, 4), "float32")
        >>> print(np.array(ll.weigh(x, x, mask=ll.Causal())).round(2))
        [[1.   0.   0.  ]
         [0.5  0.5  0.  ]
         [0.33 0.33 0.33]]
    """

    align: str = "end"

    def __post_init__(self) -> None:
        if self.align not in ("end", "start"):
            raise ValueError(f'`align` must be "end" or "start". Received: align={self.align!r}.')

    def __call__(self, tile: Tile) -> Any:
        return tile.key_positions() <= tile.query_positions(self.align)

    def columns(self, tile: Tile) -> tuple[Any, Any]:
        if tile.given_queries is not None or tile.given_keys is not None or tile.rows.picked is not None:
            return super().columns(tile)
        last = tile.rows.start + tile.rows.length + (tile.shift if self.align == "end" else 0)
        return 0, smaller(larger(last, 0), tile.columns.total)


@register
@dataclasses.dataclass(frozen=True)
class Window(Mask):
    r"""Each query attends to its neighbourhood.

    $$m_{ij} = (i - l \le j \le i + r)$$

    where i counts from the start of the keys: the last query stands at the last key.

    Args:
        left: how many positions before its own a query may see; None for all.
        right: how many positions after its own a query may see; None for all.

    Raises:
        ValueError: a negative number, or one that is not an integer.

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.ones((3, 4), "float32")
        >>> print(np.array(ll.weigh(x, x, mask=ll.Window(1, 0))))
        [[1.  0.  0. ]
         [0.5 0.5 0. ]
         [0.  0.5 0.5]]

    References:
        Beltagy et al. 2020, arXiv:2004.05150.
    """

    left: int | None = None
    right: int | None = None

    def __post_init__(self) -> None:
        for name in ("left", "right"):
            given = getattr(self, name)
            if given is not None and (not isinstance(given, int) or given < 0):
                raise ValueError(f"`{name}` must be a non-negative integer or None. Received: {name}={given!r}.")

    def __call__(self, tile: Tile) -> Any:
        distance = tile.key_positions() - tile.query_positions()
        permitted = ops.ones((1, 1), dtype="bool")
        if self.left is not None:
            permitted = distance >= -self.left
        if self.right is not None:
            permitted = ops.logical_and(permitted, distance <= self.right)
        return permitted

    def columns(self, tile: Tile) -> tuple[Any, Any]:
        if tile.given_queries is not None or tile.given_keys is not None or tile.rows.picked is not None:
            return super().columns(tile)
        total = tile.columns.total
        start = tile.rows.start + tile.shift
        first = 0 if self.left is None else smaller(larger(start - self.left, 0), total)
        last = total if self.right is None else smaller(larger(start + tile.rows.length + self.right, 0), total)
        return first, last


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Padding(Mask):
    """Which positions of a batch are real: the others are neither attended to nor, for queries, attend to anything.

    Args:
        keys: bool (..., S), True where a key is real.
        queries: bool (..., T), True where a query is real; None where all are.

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.ones((1, 3, 4), "float32")
        >>> print(np.array(ll.weigh(x[:, :1], x, mask=ll.Padding(np.array([[True, True, False]])))))
        [[[0.5 0.5 0. ]]]
    """

    keys: Any = None
    queries: Any = None

    def __post_init__(self) -> None:
        for name in ("keys", "queries"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, boolean(given, f"Padding's `{name}`"))

    def __call__(self, tile: Tile) -> Any:
        permitted = ops.ones((1, 1, 1, 1), dtype="bool")
        if self.keys is not None:
            permitted = tile.align(self.keys, "bs")
        if self.queries is not None:
            permitted = ops.logical_and(permitted, tile.align(self.queries, "bt"))
        return permitted


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Allowed(Mask):
    """A mask given as an array.

    Args:
        array: bool (or 0 and 1), of rank 4 and broadcastable to (B, N, T, S). `attend` and the layers make one from arrays
            of any rank that they take.

    Raises:
        ValueError: a number other than 0 and 1, or a float array whose values cannot be looked at while compiling.
    """

    array: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "array", boolean(self.array, "a mask"))

    def __call__(self, tile: Tile) -> Any:
        return tile.align(self.array, "bnts" if len(self.array.shape) > 2 else "ts")


MASKS: dict[str, type] = {"causal": Causal}


def get(value: Any) -> Mask | None:
    """A mask from a mask, the name "causal", or None.

    Raises:
        ValueError: an unknown name.
        TypeError: something that is not a mask.
    """
    return None if value is None else chosen(value, MASKS, Mask, "mask")


def both(left: Mask | None, right: Mask | None) -> Mask | None:
    """What two masks permit together, where either may be missing."""
    if left is None or right is None:
        return right if left is None else left
    return left & right


def boolean(array: Any, what: str) -> Any:
    """An array of permissions as bool.

    Raises:
        TypeError: not an array.
        ValueError: values other than 0 and 1: an additive mask, or probabilities.
    """
    if not is_tensor(array) and not isinstance(array, (list, tuple)):
        raise TypeError(f"{what} must be a boolean array, True where attending is allowed. Received: {array!r}.")
    tensor = ops.convert_to_tensor(array)
    dtype = str(tensor.dtype).rpartition(".")[2]
    if dtype == "bool":
        return tensor
    values = concrete(tensor)
    if values is None and "float" in dtype:
        raise ValueError(
            f"{what} must be boolean: a mask of dtype {dtype} cannot be told from an additive one while a model is "
            "compiled. Pass `mask > 0.5` (or `mask == 0` for an additive mask)."
        )
    if values is not None and not ((values == 0) | (values == 1)).all():
        raise ValueError(
            f"{what} must hold only True and False, or 1 and 0; True means *may attend*. Received: dtype {dtype} with values "
            f"from {values.min()} to {values.max()}. For an additive mask of large negative numbers pass `mask == 0`."
        )
    return ops.cast(tensor, "bool")


def concrete(tensor: Any) -> Any:
    """A tensor's values as numpy, or None where they do not exist yet because a model is being compiled."""
    try:
        return ops.convert_to_numpy(tensor)
    except Exception:
        # Each backend raises its own error for a tensor that is only traced.
        return None


def smaller(left: Any, right: Any) -> Any:
    """The smaller of two bounds, kept as a Python int where both are."""
    if isinstance(left, int) and isinstance(right, int):
        return min(left, right)
    return ops.minimum(left, right)


def larger(left: Any, right: Any) -> Any:
    """The larger of two bounds, kept as a Python int where both are."""
    if isinstance(left, int) and isinstance(right, int):
        return max(left, right)
    return ops.maximum(left, right)
