"""The interface of masks, and their combinations."""

import dataclasses
from typing import Any, Literal

import numpy as np
from keras import ops

from limelight.core.block import Block, Slice
from limelight.core.component import Component, register

BlockKind = Literal["empty", "partial", "full"]
BLOCK_KINDS: tuple[BlockKind, ...] = ("empty", "partial", "full")
# Methods that describe a mask, so that blocks can be skipped.
_PROPERTIES = (
    "kv_range",
    "kv_full_range",
    "block_kind",
    "kv_lengths",
    "max_lookback",
    "padding_masks",
    "query_padding_masks",
)
OPPOSITE: dict[BlockKind, BlockKind] = {"empty": "full", "partial": "partial", "full": "empty"}
# The number of rows and columns that a printed mask shows.
RENDER_SIZE = 8


class Mask(Component):
    """Base class of masks: a rule that permits or forbids each pair of query and key.

    Masks combine with `&`, `|` and `~`. A query that may attend to no key has weights 0 and output 0. Printing a mask shows its
    first 8 rows and columns. A subclass that overrides `__call__` does not inherit `kv_range` and the other
    methods that describe a mask from its parent, whose mask they describe: it has the defaults of this class.

    Example:
        >>> import limelight as ll
        >>> print(ll.masks.Causal() & ll.masks.SlidingWindow(2))
        ■ · · · · · · ·
        ■ ■ · · · · · ·
        ■ ■ ■ · · · · ·
        · ■ ■ ■ · · · ·
        · · ■ ■ ■ · · ·
        · · · ■ ■ ■ · ·
        · · · · ■ ■ ■ ·
        · · · · · ■ ■ ■
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in vars(cls):
            for name in _PROPERTIES:
                if name not in vars(cls):
                    setattr(cls, name, getattr(Mask, name))

    def __call__(self, block: Block) -> Any:
        """Return the mask of a block: bool, broadcastable to (b, n, t, s)."""
        raise NotImplementedError

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        """Return `first, stop` such that no query of the block attends to a key outside of `first .. stop - 1`.

        The range may be wider than necessary, never narrower: keys outside are skipped.
        """
        return 0, block.columns.total

    def kv_full_range(self, block: Block) -> tuple[Any, Any]:
        """Return `first, stop` such that every query of the block attends to all keys `first .. stop - 1`.

        The range is empty unless `first < stop`. It may be narrower than necessary, never wider: the mask is not applied inside.
        """
        return 0, 0

    def block_kind(self, block: Block) -> BlockKind:
        """Return "empty" if the mask forbids the whole block, "full" if it permits the whole block, else "partial".

        A block that is empty or full may be reported as "partial", never the reverse. Empty blocks are skipped, and the mask is
        not applied to full ones.
        """
        return "partial"

    def kv_lengths(self) -> Any:
        """Return the number of keys of each example up to its last real one, int32 (B,); None if there is no padding mask."""
        return None

    def max_lookback(self) -> int | None:
        """Return the largest distance to an earlier key that any query may attend to; None if it is unbounded."""
        return None

    def padding_masks(self) -> list[Any]:
        """Return the bool arrays (..., S) that are False for keys that no query may attend to."""
        return []

    def query_padding_masks(self) -> list[Any]:
        """Return the bool arrays (..., T) that are False for queries that may attend to no key."""
        return []

    def block_kinds(self, rows: int, columns: int, size: int) -> np.ndarray:
        """Classify all blocks of `size` rows and columns: 0 empty, 1 partial, 2 full.

        Returns:
            int8 (ceil(rows / size), ceil(columns / size)).

        Example:
            >>> import limelight as ll
            >>> print(ll.masks.Causal().block_kinds(6, 6, 2))
            [[1 0 0]
             [2 1 0]
             [2 2 1]]
        """
        full = Block.full(1, 1, rows, columns)
        row_slices, column_slices = (
            [Slice(total, start, min(size, total - start)) for start in range(0, total, size)]
            for total in (rows, columns)
        )
        kinds = [
            [BLOCK_KINDS.index(self.block_kind(full.replace(rows=row, columns=column))) for column in column_slices]
            for row in row_slices
        ]
        return np.array(kinds, "int8")

    def __and__(self, other: "Mask") -> "Mask":
        return And(self, check_mask(other))

    def __or__(self, other: "Mask") -> "Mask":
        return Or(self, check_mask(other))

    def __invert__(self) -> "Mask":
        return Not(self)

    def __str__(self) -> str:
        return self.render()

    def render(self) -> str:
        """Draw the first 8 rows and columns as text, for the first example and head."""
        batch, heads, rows, columns = self.static_shape()
        array = np.array(ops.convert_to_numpy(self(Block.full(batch, heads, rows, columns))))
        array = np.broadcast_to(array, (*np.broadcast_shapes(array.shape[:-2], (1, 1)), rows, columns))[0, 0]
        return "\n".join(" ".join("■" if cell else "·" for cell in row[:RENDER_SIZE]) for row in array[:RENDER_SIZE])

    def static_shape(self) -> tuple[int, int, int, int]:
        """Return the shape (B, N, T, S) to draw: that of the data in the mask, or 8 rows and columns."""
        default = (1, 1, RENDER_SIZE, RENDER_SIZE)
        shapes = [mask.static_shape() for mask in vars(self).values() if isinstance(mask, Mask)]
        return next((shape for shape in shapes if shape != default), default)


@register
@dataclasses.dataclass(frozen=True)
class And(Mask):
    """Intersection of two masks: `left & right` permits what both permit."""

    left: Mask
    right: Mask

    def __call__(self, block: Block) -> Any:
        return ops.logical_and(self.left(block), self.right(block))

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        return intersect_ranges(self.left.kv_range(block), self.right.kv_range(block))

    def kv_full_range(self, block: Block) -> tuple[Any, Any]:
        left, right = self.left.kv_full_range(block), self.right.kv_full_range(block)
        if any(isinstance(stop, int) and stop <= 0 for _, stop in (left, right)):
            return 0, 0
        return intersect_ranges(left, right)

    def block_kind(self, block: Block) -> BlockKind:
        kinds = {self.left.block_kind(block), self.right.block_kind(block)}
        return "empty" if "empty" in kinds else "full" if kinds == {"full"} else "partial"

    def kv_lengths(self) -> Any:
        left, right = self.left.kv_lengths(), self.right.kv_lengths()
        return right if left is None else left if right is None else static_min(left, right)

    def padding_masks(self) -> list[Any]:
        return [*self.left.padding_masks(), *self.right.padding_masks()]

    def query_padding_masks(self) -> list[Any]:
        return [*self.left.query_padding_masks(), *self.right.query_padding_masks()]

    def max_lookback(self) -> int | None:
        lookbacks = (self.left.max_lookback(), self.right.max_lookback())
        return min((lookback for lookback in lookbacks if lookback is not None), default=None)


@register
@dataclasses.dataclass(frozen=True)
class Or(Mask):
    """Union of two masks: `left | right` permits what either permits."""

    left: Mask
    right: Mask

    def __call__(self, block: Block) -> Any:
        return ops.logical_or(self.left(block), self.right(block))

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        (first, stop), (other_first, other_stop) = self.left.kv_range(block), self.right.kv_range(block)
        return static_min(first, other_first), static_max(stop, other_stop)

    def kv_full_range(self, block: Block) -> tuple[Any, Any]:
        # The union of two ranges need not be one range: return the left one, unless it is known to be empty.
        left = self.left.kv_full_range(block)
        return self.right.kv_full_range(block) if isinstance(left[1], int) and left[1] <= 0 else left

    def block_kind(self, block: Block) -> BlockKind:
        kinds = {self.left.block_kind(block), self.right.block_kind(block)}
        return "full" if "full" in kinds else "empty" if kinds == {"empty"} else "partial"

    def max_lookback(self) -> int | None:
        left, right = self.left.max_lookback(), self.right.max_lookback()
        return None if left is None or right is None else max(left, right)


@register
@dataclasses.dataclass(frozen=True)
class Not(Mask):
    """Complement of a mask: `~mask` permits what the mask forbids."""

    mask: Mask

    def __call__(self, block: Block) -> Any:
        return ops.logical_not(self.mask(block))

    def block_kind(self, block: Block) -> BlockKind:
        return OPPOSITE[self.mask.block_kind(block)]


def check_mask(value: Any) -> Mask:
    """Return the operand of `&` or `|`; raise TypeError unless it is a mask."""
    if not isinstance(value, Mask):
        raise TypeError(
            f"A mask combines with another mask. Received: {value!r} of type {type(value).__name__}. Wrap a boolean array as "
            "limelight.masks.ArrayMask(array), a function of positions as limelight.masks.MaskFunction(function)."
        )
    return value


def intersect(left: Mask | None, right: Mask | None) -> Mask | None:
    """Return the intersection of two masks; None stands for a mask that permits everything."""
    if left is None or right is None:
        return right if left is None else left
    return left & right


def intersect_ranges(left: tuple[Any, Any], right: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return the intersection of two ranges `first, stop`."""
    return static_max(left[0], right[0]), static_min(left[1], right[1])


def static_min(left: Any, right: Any) -> Any:
    """Return the smaller of two numbers: an int if both are ints, else a tensor."""
    return min(left, right) if isinstance(left, int) and isinstance(right, int) else ops.minimum(left, right)


def static_max(left: Any, right: Any) -> Any:
    """Return the larger of two numbers: an int if both are ints, else a tensor."""
    return max(left, right) if isinstance(left, int) and isinstance(right, int) else ops.maximum(left, right)
