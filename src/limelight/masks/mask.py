"""What a mask is, and how masks combine."""

import dataclasses
from typing import Any, Literal

import numpy as np
from keras import ops

from limelight.core.block import Block, Slice
from limelight.core.component import Component, register
from limelight.masks.static_shapes import larger, smaller

BlockKind = Literal["empty", "partial", "full"]
OPPOSITE: dict[BlockKind, BlockKind] = {"empty": "full", "partial": "partial", "full": "empty"}
# How many rows and columns a picture of a mask shows.
PICTURE = 8


class Mask(Component):
    """A rule about positions, or about the data of one call, that permits or forbids pairs of query and key.

    Masks combine with `&`, `|` and `~`. A row that permits nothing has weights 0 and output 0. Printed, a mask shows a small
    picture of itself.

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

    def __call__(self, block: Block) -> Any:
        """The mask on a tile: bool, broadcastable to (b, n, t, s)."""
        raise NotImplementedError

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        """The run `first .. last - 1` of columns outside which the tile's rows may attend to nothing.

        It may be wider than need be, never narrower: an engine skips what lies outside.
        """
        return 0, block.columns.total

    def kv_full_range(self, block: Block) -> tuple[Any, Any]:
        """A run `first .. last - 1` of columns that each of the tile's rows may attend to; empty unless `first < last`.

        It may be narrower than need be, never wider: an engine leaves out the mask inside.
        """
        return 0, 0

    def block_kind(self, block: Block) -> BlockKind:
        """Whether a tile of known place is all forbidden ("empty"), all permitted ("full"), or neither as far as can be told.

        "partial" may be said of a tile that is empty or full; the other two are never said wrongly. An engine skips empty tiles
        and leaves out the mask on full ones.
        """
        return "partial"

    def kv_lengths(self) -> Any:
        """How many keys each example has up to its last real one, int32 (B,); None where no padding says so."""
        return None

    def max_lookback(self) -> int | None:
        """How many positions before its own a query may see at most, wherever it stands; None where nothing says so."""
        return None

    def padding_masks(self) -> list[Any]:
        """Arrays (..., S) that are False where a key is of no query's concern."""
        return []

    def block_kinds(self, rows: int, columns: int, size: int) -> np.ndarray:
        """The cover of each block of `size` rows and columns: 0 empty, 1 partial, 2 full.

        Returns:
            int8 (ceil(rows / size), ceil(columns / size)).

        Example:
            >>> import limelight as ll
            >>> print(ll.masks.Causal().block_kinds(6, 6, 2))
            [[1 0 0]
             [2 1 0]
             [2 2 1]]
        """
        whole = Block.full(1, 1, rows, columns)
        starts = [range(0, total, size) for total in (rows, columns)]
        named = ("empty", "partial", "full")
        covers = [
            [
                named.index(
                    self.block_kind(
                        whole.replace(
                            rows=Slice(rows, row, min(size, rows - row)),
                            columns=Slice(columns, column, min(size, columns - column)),
                        )
                    )
                )
                for column in starts[1]
            ]
            for row in starts[0]
        ]
        return np.array(covers, "int8")

    def __and__(self, other: "Mask") -> "Mask":
        return And(self, combinable(other))

    def __or__(self, other: "Mask") -> "Mask":
        return Or(self, combinable(other))

    def __invert__(self) -> "Mask":
        return Not(self)

    def __str__(self) -> str:
        examples, heads, rows, columns = self.static_shape()
        shown = np.array(ops.convert_to_numpy(self(Block.full(examples, heads, rows, columns))))
        shown = np.broadcast_to(shown, (*np.broadcast_shapes(shown.shape[:-2], (1, 1)), rows, columns))[0, 0]
        return "\n".join(" ".join("■" if cell else "·" for cell in row[:PICTURE]) for row in shown[:PICTURE])

    def static_shape(self) -> tuple[int, int, int, int]:
        """The shape (B, N, T, S) that a picture of the mask has; a mask that holds data has that of its data."""
        held = [value for value in vars(self).values() if isinstance(value, Mask)]
        shapes = [mask.static_shape() for mask in held if mask.static_shape() != (1, 1, PICTURE, PICTURE)]
        return shapes[0] if shapes else (1, 1, PICTURE, PICTURE)


def combinable(other: Any) -> Mask:
    """The other side of `&` or `|`, which must be a mask."""
    if not isinstance(other, Mask):
        raise TypeError(
            f"A mask combines with another mask. Received: {other!r} of type {type(other).__name__}. "
            "Wrap a boolean array as limelight.masks.ArrayMask(array), a function of positions as limelight.masks.MaskFunction(function)."
        )
    return other


@register
@dataclasses.dataclass(frozen=True)
class And(Mask):
    """What both masks permit: `left & right`."""

    left: Mask
    right: Mask

    def __call__(self, block: Block) -> Any:
        return ops.logical_and(self.left(block), self.right(block))

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        (first, last), (other_first, other_last) = self.left.kv_range(block), self.right.kv_range(block)
        return larger(first, other_first), smaller(last, other_last)

    def kv_full_range(self, block: Block) -> tuple[Any, Any]:
        (first, last), (other_first, other_last) = self.left.kv_full_range(block), self.right.kv_full_range(block)
        if any(isinstance(bound, int) and bound <= 0 for bound in (last, other_last)):
            return 0, 0
        return larger(first, other_first), smaller(last, other_last)

    def block_kind(self, block: Block) -> BlockKind:
        covers = {self.left.block_kind(block), self.right.block_kind(block)}
        return "empty" if "empty" in covers else "full" if covers == {"full"} else "partial"

    def kv_lengths(self) -> Any:
        left, right = self.left.kv_lengths(), self.right.kv_lengths()
        return right if left is None else left if right is None else smaller(left, right)

    def padding_masks(self) -> list[Any]:
        return [*self.left.padding_masks(), *self.right.padding_masks()]

    def max_lookback(self) -> int | None:
        return min(
            (each for each in (self.left.max_lookback(), self.right.max_lookback()) if each is not None), default=None
        )


@register
@dataclasses.dataclass(frozen=True)
class Or(Mask):
    """What either mask permits: `left | right`."""

    left: Mask
    right: Mask

    def __call__(self, block: Block) -> Any:
        return ops.logical_or(self.left(block), self.right(block))

    def kv_range(self, block: Block) -> tuple[Any, Any]:
        (first, last), (other_first, other_last) = self.left.kv_range(block), self.right.kv_range(block)
        return smaller(first, other_first), larger(last, other_last)

    def kv_full_range(self, block: Block) -> tuple[Any, Any]:
        # Two runs need not make one: the left one, unless it is known to be empty.
        left = self.left.kv_full_range(block)
        return self.right.kv_full_range(block) if isinstance(left[1], int) and left[1] <= 0 else left

    def block_kind(self, block: Block) -> BlockKind:
        covers = {self.left.block_kind(block), self.right.block_kind(block)}
        return "full" if "full" in covers else "empty" if covers == {"empty"} else "partial"

    def max_lookback(self) -> int | None:
        left, right = self.left.max_lookback(), self.right.max_lookback()
        return None if left is None or right is None else max(left, right)


@register
@dataclasses.dataclass(frozen=True)
class Not(Mask):
    """What the mask forbids: `~mask`."""

    mask: Mask

    def __call__(self, block: Block) -> Any:
        return ops.logical_not(self.mask(block))

    def block_kind(self, block: Block) -> BlockKind:
        return OPPOSITE[self.mask.block_kind(block)]
