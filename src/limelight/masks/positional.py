"""Masks that permit a contiguous range of keys for each query: causal, sliding window, prefix."""

import dataclasses
from typing import Any

from keras import ops

from limelight.core.block import Block
from limelight.core.component import register
from limelight.core.validation import check_non_negative_int
from limelight.masks.mask import BlockKind, Mask, static_max, static_min


@register
@dataclasses.dataclass(frozen=True)
class Causal(Mask):
    r"""Causal mask: each query attends to its own position and to earlier ones.

    $$m_{ij} = (j \le i + S - T)$$

    with `align="end"`, so that one query against S keys is the last position, as in decoding with a cache. With
    `align="start"` it is $(j \le i)$, as in Keras, PyTorch and ONNX. They are the same if T = S.

    Args:
        align: "end" if the last query is at the position of the last key, "start" if the first is at that of the first.

    Raises:
        ValueError: `align` is neither "end" nor "start".

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.ones((3, 4), "float32")
        >>> print(np.array(ll.attention_weights(x, x, mask=ll.masks.Causal())).round(2))
        [[1.   0.   0.  ]
         [0.5  0.5  0.  ]
         [0.33 0.33 0.33]]

    References:
        Vaswani et al. 2017, arXiv:1706.03762 (masked self-attention of the decoder).
    """

    align: str = "end"

    def __post_init__(self) -> None:
        check_align(self.align)

    def __call__(self, block: Block) -> Any:
        return block.key_positions() <= block.query_positions(self.align)

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        if not has_implicit_positions(block):
            return super().kv_range(block)
        stop = get_first_position(block, self.align) + block.rows.length
        return 0, static_min(static_max(stop, 0), block.columns.total)

    def kv_full_range(self, block: Block) -> tuple[Any, Any]:
        if not has_implicit_positions(block):
            return super().kv_full_range(block)
        return 0, static_min(get_first_position(block, self.align) + 1, block.columns.total)

    def block_kind(self, block: Block) -> BlockKind:
        offsets = get_offset_range(block, self.align)
        return "partial" if offsets is None else classify_range(offsets, None, 0)


@register
@dataclasses.dataclass(frozen=True)
class SlidingWindow(Mask):
    r"""Sliding-window mask: each query attends to its own position and to its neighbours.

    $$m_{ij} = (i - \mathrm{left} \le j \le i + \mathrm{right})$$

    Args:
        left: The number of earlier positions that a query attends to; None for all.
        right: The number of later positions that a query attends to; None for all.
        align: "end" if the last query is at the position of the last key, "start" if the first is at that of the first, as in
            Keras.

    Raises:
        ValueError: `left` or `right` is not a non-negative integer, or `align` is neither "end" nor "start".

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
        check_non_negative_int("left", self.left, optional=True)
        check_non_negative_int("right", self.right, optional=True)

    def __call__(self, block: Block) -> Any:
        distance = block.key_positions() - block.query_positions(self.align)
        mask = ops.ones((1, 1), dtype="bool")
        if self.left is not None:
            mask = distance >= -self.left
        if self.right is not None:
            mask = ops.logical_and(mask, distance <= self.right)
        return mask

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        if not has_implicit_positions(block):
            return super().kv_range(block)
        total, row = block.columns.total, get_first_position(block, self.align)
        first = 0 if self.left is None else static_min(static_max(row - self.left, 0), total)
        if self.right is None:
            return first, total
        return first, static_min(static_max(row + block.rows.length + self.right, 0), total)

    def kv_full_range(self, block: Block) -> tuple[Any, Any]:
        if not has_implicit_positions(block):
            return super().kv_full_range(block)
        total, row = block.columns.total, get_first_position(block, self.align)
        first = 0 if self.left is None else static_max(row + block.rows.length - 1 - self.left, 0)
        return first, total if self.right is None else static_min(row + self.right + 1, total)

    def block_kind(self, block: Block) -> BlockKind:
        offsets = get_offset_range(block, self.align)
        if offsets is None:
            return "partial"
        return classify_range(offsets, None if self.left is None else -self.left, self.right)

    def max_lookback(self) -> int | None:
        return self.left


@register
@dataclasses.dataclass(frozen=True)
class Prefix(Mask):
    r"""Prefix mask: every query attends to the first positions.

    $$m_{ij} = (j < n)$$

    `Causal() | Prefix(n)` is the mask of a prefix language model: attention within the prefix is bidirectional.

    Args:
        length: The length $n$ of the prefix.

    Raises:
        ValueError: `length` is not a non-negative integer.

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
        check_non_negative_int("length", self.length)

    def __call__(self, block: Block) -> Any:
        return block.key_positions() < self.length

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        if block.given_key_positions is not None:
            return super().kv_range(block)
        return 0, static_min(self.length, block.columns.total)

    def kv_full_range(self, block: Block) -> tuple[Any, Any]:
        return Prefix.kv_range(self, block) if block.given_key_positions is None else super().kv_full_range(block)

    def block_kind(self, block: Block) -> BlockKind:
        columns = block.columns
        has_explicit_columns = block.given_key_positions is not None or columns.indices is not None
        if has_explicit_columns or not are_ints(columns.start, columns.length):
            return "partial"
        return classify_range((columns.start, columns.start + columns.length - 1), None, self.length - 1)


def check_align(align: str) -> None:
    """Raise ValueError unless `align` is "end" or "start"."""
    if align not in ("end", "start"):
        raise ValueError(f'`align` must be "end" or "start". Received: align={align!r}.')


def has_implicit_positions(block: Block) -> bool:
    """Return True if positions were not given and the rows of the block are contiguous."""
    return block.given_query_positions is None and block.given_key_positions is None and block.rows.indices is None


def are_ints(*values: Any) -> bool:
    """Return True if all values are Python ints, not tensors."""
    return all(isinstance(value, int) for value in values)


def get_first_position(block: Block, align: str) -> Any:
    """Return the position of the first query of a block with implicit positions."""
    return block.rows.start + (block.offset if align == "end" else 0)


def get_offset_range(block: Block, align: str = "end") -> tuple[int, int] | None:
    """Return the smallest and largest key position minus query position in a block; None if they are not known statically."""
    rows, columns = block.rows, block.columns
    if not has_implicit_positions(block) or columns.indices is not None:
        return None
    if not are_ints(rows.start, rows.length, columns.start, columns.length, rows.total, columns.total):
        return None
    first = get_first_position(block, align)
    return columns.start - (first + rows.length - 1), columns.start + columns.length - 1 - first


def classify_range(values: tuple[int, int], minimum: int | None, maximum: int | None) -> BlockKind:
    """Return the kind of a block with numbers in the range `values`, of which `minimum .. maximum` are permitted."""
    low, high = values
    if (minimum is not None and high < minimum) or (maximum is not None and low > maximum):
        return "empty"
    is_full = (minimum is None or low >= minimum) and (maximum is None or high <= maximum)
    return "full" if is_full else "partial"
