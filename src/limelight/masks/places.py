"""Masks that are runs of positions: what lies before, near, or at the start."""

import dataclasses
from typing import Any

from keras import ops

from limelight.masks.bounds import larger, smaller
from limelight.masks.mask import Cover, Mask
from limelight.parts import register
from limelight.tile import Tile


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
        check_align(self.align)

    def __call__(self, tile: Tile) -> Any:
        return tile.key_positions() <= tile.query_positions(self.align)

    def columns(self, tile: Tile) -> tuple[Any, Any]:
        if not counted(tile):
            return super().columns(tile)
        last = tile.rows.start + tile.rows.length + (tile.shift if self.align == "end" else 0)
        return 0, smaller(larger(last, 0), tile.columns.total)

    def full(self, tile: Tile) -> tuple[Any, Any]:
        if not counted(tile):
            return super().full(tile)
        first_row = tile.rows.start + (tile.shift if self.align == "end" else 0)
        return 0, smaller(first_row + 1, tile.columns.total)

    def cover(self, tile: Tile) -> Cover:
        offsets = offset_range(tile, self.align)
        return "partial" if offsets is None else within(offsets, None, 0)


@register
@dataclasses.dataclass(frozen=True)
class Window(Mask):
    r"""Each query attends to its own position and to its neighbours.

    $$m_{ij} = (i - \mathrm{left} \le j \le i + \mathrm{right})$$

    where the last query stands at the last key, or with `align="start"` the first at the first, as Keras has it.

    Args:
        left: how many positions before its own a query may see; None for all.
        right: how many positions after its own a query may see; None for all.
        align: "end" or "start".

    Raises:
        ValueError: a negative number, or one that is not an integer; `align` is something else.

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
    align: str = "end"

    def __post_init__(self) -> None:
        check_align(self.align)
        for name in ("left", "right"):
            given = getattr(self, name)
            if given is not None and (not isinstance(given, int) or given < 0):
                raise ValueError(f"`{name}` must be a non-negative integer or None. Received: {name}={given!r}.")

    def __call__(self, tile: Tile) -> Any:
        distance = tile.key_positions() - tile.query_positions(self.align)
        permitted = ops.ones((1, 1), dtype="bool")
        if self.left is not None:
            permitted = distance >= -self.left
        if self.right is not None:
            permitted = ops.logical_and(permitted, distance <= self.right)
        return permitted

    def columns(self, tile: Tile) -> tuple[Any, Any]:
        if not counted(tile):
            return super().columns(tile)
        total = tile.columns.total
        start = tile.rows.start + (tile.shift if self.align == "end" else 0)
        first = 0 if self.left is None else smaller(larger(start - self.left, 0), total)
        last = total if self.right is None else smaller(larger(start + tile.rows.length + self.right, 0), total)
        return first, last

    def full(self, tile: Tile) -> tuple[Any, Any]:
        if not counted(tile):
            return super().full(tile)
        total, start = tile.columns.total, tile.rows.start + (tile.shift if self.align == "end" else 0)
        first = 0 if self.left is None else larger(start + tile.rows.length - 1 - self.left, 0)
        return first, total if self.right is None else smaller(start + self.right + 1, total)

    def cover(self, tile: Tile) -> Cover:
        offsets = offset_range(tile, self.align)
        if offsets is None:
            return "partial"
        return within(offsets, None if self.left is None else -self.left, self.right)

    def reach(self) -> int | None:
        return self.left


@register
@dataclasses.dataclass(frozen=True)
class Prefix(Mask):
    r"""Every query attends to the first positions.

    $$m_{ij} = (j < n)$$

    `Causal() | Prefix(n)` is the mask of a prefix language model: the prefix sees itself in both directions.

    Args:
        length: n.

    Raises:
        ValueError: the length is not a non-negative integer.

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.ones((3, 4), "float32")
        >>> print(np.array(ll.weigh(x, x, mask=ll.Causal() | ll.Prefix(2))).round(2))
        [[0.5  0.5  0.  ]
         [0.5  0.5  0.  ]
         [0.33 0.33 0.33]]

    References:
        Raffel et al. 2020, arXiv:1910.10683.
    """

    length: int

    def __post_init__(self) -> None:
        if not isinstance(self.length, int) or self.length < 0:
            raise ValueError(f"`length` must be a non-negative integer. Received: length={self.length!r}.")

    def __call__(self, tile: Tile) -> Any:
        return tile.key_positions() < self.length

    def columns(self, tile: Tile) -> tuple[Any, Any]:
        if tile.given_keys is not None:
            return super().columns(tile)
        return 0, smaller(self.length, tile.columns.total)

    def full(self, tile: Tile) -> tuple[Any, Any]:
        return Prefix.columns(self, tile) if tile.given_keys is None else super().full(tile)

    def cover(self, tile: Tile) -> Cover:
        columns = tile.columns
        if tile.given_keys is not None or columns.picked is not None or not known(columns.start, columns.length):
            return "partial"
        return within((columns.start, columns.start + columns.length - 1), None, self.length - 1)


def check_align(align: str) -> None:
    """Raise where sequences are aligned at neither end."""
    if align not in ("end", "start"):
        raise ValueError(f'`align` must be "end" or "start". Received: align={align!r}.')


def counted(tile: Tile) -> bool:
    """Whether rows and columns stand at positions that follow from their indices, in a run of rows."""
    return tile.given_queries is None and tile.given_keys is None and tile.rows.picked is None


def known(*bounds: Any) -> bool:
    """Whether all bounds are Python ints."""
    return all(isinstance(bound, int) for bound in bounds)


def offset_range(tile: Tile, align: str = "end") -> tuple[int, int] | None:
    """The smallest and the largest key position minus query position on a tile; None where they are not known beforehand."""
    rows, columns = tile.rows, tile.columns
    if not counted(tile) or columns.picked is not None:
        return None
    if not known(rows.start, rows.length, columns.start, columns.length, rows.total, columns.total):
        return None
    first = rows.start + (tile.shift if align == "end" else 0)
    last = first + rows.length - 1
    return columns.start - last, columns.start + columns.length - 1 - first


def within(values: tuple[int, int], least: int | None, most: int | None) -> Cover:
    """The cover of a tile on which a number runs from one value to another, where a range of it is permitted."""
    low, high = values
    if (least is not None and high < least) or (most is not None and low > most):
        return "empty"
    inside = (least is None or low >= least) and (most is None or high <= most)
    return "full" if inside else "partial"
