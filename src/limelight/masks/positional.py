"""Masks that are runs of positions: what lies before, near, or at the start."""

import dataclasses
from typing import Any

from keras import ops

from limelight.core.block import Block
from limelight.core.component import register
from limelight.masks.mask import BlockKind, Mask
from limelight.masks.static_shapes import larger, smaller


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
        >>> print(np.array(ll.attention_weights(x, x, mask=ll.masks.Causal())).round(2))
        [[1.   0.   0.  ]
         [0.5  0.5  0.  ]
         [0.33 0.33 0.33]]
    """

    align: str = "end"

    def __post_init__(self) -> None:
        check_align(self.align)

    def __call__(self, block: Block) -> Any:
        return block.key_positions() <= block.query_positions(self.align)

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        if not counted(block):
            return super().kv_range(block)
        last = block.rows.start + block.rows.length + (block.offset if self.align == "end" else 0)
        return 0, smaller(larger(last, 0), block.columns.total)

    def kv_full_range(self, block: Block) -> tuple[Any, Any]:
        if not counted(block):
            return super().kv_full_range(block)
        first_row = block.rows.start + (block.offset if self.align == "end" else 0)
        return 0, smaller(first_row + 1, block.columns.total)

    def block_kind(self, block: Block) -> BlockKind:
        offsets = offset_range(block, self.align)
        return "partial" if offsets is None else within(offsets, None, 0)


@register
@dataclasses.dataclass(frozen=True)
class SlidingWindow(Mask):
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
        >>> print(np.array(ll.attention_weights(x, x, mask=ll.masks.SlidingWindow(1, 0))))
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

    def __call__(self, block: Block) -> Any:
        distance = block.key_positions() - block.query_positions(self.align)
        permitted = ops.ones((1, 1), dtype="bool")
        if self.left is not None:
            permitted = distance >= -self.left
        if self.right is not None:
            permitted = ops.logical_and(permitted, distance <= self.right)
        return permitted

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        if not counted(block):
            return super().kv_range(block)
        total = block.columns.total
        start = block.rows.start + (block.offset if self.align == "end" else 0)
        first = 0 if self.left is None else smaller(larger(start - self.left, 0), total)
        last = total if self.right is None else smaller(larger(start + block.rows.length + self.right, 0), total)
        return first, last

    def kv_full_range(self, block: Block) -> tuple[Any, Any]:
        if not counted(block):
            return super().kv_full_range(block)
        total, start = block.columns.total, block.rows.start + (block.offset if self.align == "end" else 0)
        first = 0 if self.left is None else larger(start + block.rows.length - 1 - self.left, 0)
        return first, total if self.right is None else smaller(start + self.right + 1, total)

    def block_kind(self, block: Block) -> BlockKind:
        offsets = offset_range(block, self.align)
        if offsets is None:
            return "partial"
        return within(offsets, None if self.left is None else -self.left, self.right)

    def max_lookback(self) -> int | None:
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
        >>> print(np.array(ll.attention_weights(x, x, mask=ll.masks.Causal() | ll.masks.Prefix(2))).round(2))
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

    def __call__(self, block: Block) -> Any:
        return block.key_positions() < self.length

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        if block.given_key_positions is not None:
            return super().kv_range(block)
        return 0, smaller(self.length, block.columns.total)

    def kv_full_range(self, block: Block) -> tuple[Any, Any]:
        return Prefix.kv_range(self, block) if block.given_key_positions is None else super().kv_full_range(block)

    def block_kind(self, block: Block) -> BlockKind:
        columns = block.columns
        if (
            block.given_key_positions is not None
            or columns.indices is not None
            or not known(columns.start, columns.length)
        ):
            return "partial"
        return within((columns.start, columns.start + columns.length - 1), None, self.length - 1)


def check_align(align: str) -> None:
    """Raise where sequences are aligned at neither end."""
    if align not in ("end", "start"):
        raise ValueError(f'`align` must be "end" or "start". Received: align={align!r}.')


def counted(block: Block) -> bool:
    """Whether rows and columns stand at positions that follow from their indices, in a run of rows."""
    return block.given_query_positions is None and block.given_key_positions is None and block.rows.indices is None


def known(*bounds: Any) -> bool:
    """Whether all bounds are Python ints."""
    return all(isinstance(bound, int) for bound in bounds)


def offset_range(block: Block, align: str = "end") -> tuple[int, int] | None:
    """The smallest and the largest key position minus query position on a tile; None where they are not known beforehand."""
    rows, columns = block.rows, block.columns
    if not counted(block) or columns.indices is not None:
        return None
    if not known(rows.start, rows.length, columns.start, columns.length, rows.total, columns.total):
        return None
    first = rows.start + (block.offset if align == "end" else 0)
    last = first + rows.length - 1
    return columns.start - last, columns.start + columns.length - 1 - first


def within(values: tuple[int, int], least: int | None, most: int | None) -> BlockKind:
    """The cover of a tile on which a number runs from one value to another, where a range of it is permitted."""
    low, high = values
    if (least is not None and high < least) or (most is not None and low > most):
        return "empty"
    inside = (least is None or low >= least) and (most is None or high <= most)
    return "full" if inside else "partial"
