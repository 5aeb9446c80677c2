"""Masks with a sparse pattern, and masks given as a function of positions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import deserialize, register
from limelight.core.validation import check_non_negative_int, check_positive_int
from limelight.masks.mask import BlockKind, Mask
from limelight.masks.positional import are_ints, check_align, get_offset_range

# The modulus of the random blocks: a prime whose square fits int32.
PRIME = 32749


@register
@dataclasses.dataclass(frozen=True)
class Dilated(Mask):
    r"""Dilated attention: each query attends to every d-th position, counted from its own.

    $$m_{ij} = ((i - j) \bmod d = 0)$$

    `SlidingWindow(8, 8) & Dilated(2)` is a dilated sliding window.

    Args:
        dilation: The distance $d$ between two keys that a query attends to.

    Raises:
        ValueError: `dilation` is not a positive integer.

    Example:
        >>> import limelight as ll
        >>> print(ll.masks.Dilated(3) & ll.masks.Causal())
        ■ · · · · · · ·
        · ■ · · · · · ·
        · · ■ · · · · ·
        ■ · · ■ · · · ·
        · ■ · · ■ · · ·
        · · ■ · · ■ · ·
        ■ · · ■ · · ■ ·
        · ■ · · ■ · · ■

    References:
        Child et al. 2019, arXiv:1904.10509; Beltagy et al. 2020, arXiv:2004.05150.
    """

    dilation: int

    def __post_init__(self) -> None:
        check_positive_int("dilation", self.dilation)

    def __call__(self, block: Block) -> Any:
        return ops.equal((block.key_positions() - block.query_positions()) % self.dilation, 0)

    def block_kind(self, block: Block) -> BlockKind:
        offsets = get_offset_range(block)
        if offsets is None:
            return "partial"
        if self.dilation == 1:
            return "full"
        low, high = offsets
        # A narrow block may lie between two permitted diagonals.
        return "empty" if low + -low % self.dilation > high else "partial"


@register
@dataclasses.dataclass(frozen=True)
class BigBird(Mask):
    r"""BigBird's block-sparse pattern: global, window and random blocks.

    Query block a attends to key block b if a or b is one of the first `num_global_blocks` blocks, if
    $|a - b| \le$ `num_window_blocks`, or if one is a random block of the other. The random blocks of a block are drawn from the
    blocks before it. They depend only on `seed` and on the index of the block, not on the length, so that padding and caches
    change nothing.

    Args:
        block_size: The number of positions in a block.
        num_global_blocks: The number of blocks at the start that attend to all blocks and that all blocks attend to.
        num_window_blocks: The number of neighbouring blocks to each side that a block attends to.
        num_random_blocks: The number of random blocks of each block, drawn with replacement.
        seed: The seed of the random blocks.

    Raises:
        ValueError: `block_size` is not a positive integer, or another argument is not a non-negative integer.

    Example:
        >>> import limelight as ll
        >>> print(ll.masks.BigBird(1, num_global_blocks=1, num_window_blocks=1, num_random_blocks=0))
        ■ ■ ■ ■ ■ ■ ■ ■
        ■ ■ ■ · · · · ·
        ■ ■ ■ ■ · · · ·
        ■ · ■ ■ ■ · · ·
        ■ · · ■ ■ ■ · ·
        ■ · · · ■ ■ ■ ·
        ■ · · · · ■ ■ ■
        ■ · · · · · ■ ■

    References:
        Zaheer et al. 2020, arXiv:2007.14062.
    """

    block_size: int
    num_global_blocks: int = 1
    num_window_blocks: int = 1
    num_random_blocks: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive_int("block_size", self.block_size)
        for name in ("num_global_blocks", "num_window_blocks", "num_random_blocks", "seed"):
            check_non_negative_int(name, getattr(self, name))

    def __call__(self, block: Block) -> Any:
        rows, columns = block.query_positions() // self.block_size, block.key_positions() // self.block_size
        return self._permits_blocks(rows, columns)

    def _permits_blocks(self, row: Any, column: Any) -> Any:
        """Return True if a block of queries attends to a block of keys; ints or int tensors that broadcast."""
        earlier, later = ops.minimum(row, column), ops.maximum(row, column)
        # Where there are more queries than keys, the first ones are at negative positions, which are in no global block.
        is_global_row, is_global_column = (
            ops.logical_and(index >= 0, index < self.num_global_blocks) for index in (row, column)
        )
        mask = ops.logical_or(is_global_row, is_global_column)
        mask = ops.logical_or(mask, later - earlier <= self.num_window_blocks)
        for draw in range(self.num_random_blocks):
            number = ((later * 1103 + draw * 4099 + self.seed * 7919 % PRIME + 12345) % PRIME) ** 2 % PRIME
            number = (number * 181 + later + draw) % PRIME
            # An empty slot of a cache has position -1: avoid a division by zero.
            mask = ops.logical_or(mask, ops.equal(number % ops.maximum(later + 1, 1), earlier))
        return mask

    def block_kind(self, block: Block) -> BlockKind:
        offsets, columns = get_offset_range(block), block.columns
        if offsets is None or not are_ints(block.offset, block.rows.start):
            return "partial"
        first = block.rows.start + block.offset
        rows = ops.arange(first // self.block_size, (first + block.rows.length - 1) // self.block_size + 1)
        last = (columns.start + columns.length - 1) // self.block_size
        mask = self._permits_blocks(ops.expand_dims(rows, 1), ops.arange(columns.start // self.block_size, last + 1))
        mask = ops.convert_to_numpy(mask)
        return "full" if mask.all() else "partial" if mask.any() else "empty"


@register
@dataclasses.dataclass(frozen=True)
class MaskFunction(Mask):
    r"""Mask given as a function of positions.

    $$m_{ij} = f(i, j)$$

    Args:
        function: A function of query positions (..., T, 1) and key positions (..., 1, S), int32 tensors, that returns bool
            (..., T, S). To save a layer that holds one, register it with `keras.saving.register_keras_serializable`.
        align: "end" if the last query is at the position of the last key, "start" if the first is at that of the first.

    Raises:
        TypeError: `function` is not callable.
        ValueError: `align` is neither "end" nor "start".

    Example:
        >>> import limelight as ll
        >>> print(ll.masks.MaskFunction(lambda query, key: key % 4 == query % 4) & ll.masks.SlidingWindow(4, 0))
        ■ · · · · · · ·
        · ■ · · · · · ·
        · · ■ · · · · ·
        · · · ■ · · · ·
        ■ · · · ■ · · ·
        · ■ · · · ■ · ·
        · · ■ · · · ■ ·
        · · · ■ · · · ■
    """

    function: Callable[[Any, Any], Any]
    align: str = "end"

    def __post_init__(self) -> None:
        # A config holds the registered name of the function.
        object.__setattr__(self, "function", deserialize(self.function))
        if not callable(self.function):
            raise TypeError(f"`function` must be a function of query and key positions. Received: {self.function!r}.")
        check_align(self.align)

    def __call__(self, block: Block) -> Any:
        return ops.cast(self.function(block.query_positions(self.align), block.key_positions()), "bool")

    def get_config(self) -> dict[str, Any]:
        if keras.saving.get_registered_object(keras.saving.get_registered_name(self.function)) is None:
            raise ValueError(
                "A function in a mask is saved by its registered name. Received: a function that is not registered, "
                f"{getattr(self.function, '__name__', self.function)!r}. Define it by name and decorate it with "
                "keras.saving.register_keras_serializable()."
            )
        return super().get_config()
