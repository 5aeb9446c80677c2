"""Masks with a pattern: every so many positions, blocks, or any rule."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import deserialize, register
from limelight.masks.mask import BlockKind, Mask
from limelight.masks.positional import known, offset_range

# A prime whose square still fits int32: the numbers that choose random blocks are made modulo it.
PRIME = 32749


@register
@dataclasses.dataclass(frozen=True)
class Dilated(Mask):
    r"""Each query attends to every so many positions, counted from its own.

    $$m_{ij} = ((i - j) \bmod d = 0)$$

    `SlidingWindow(8, 8) & Dilated(2)` is a dilated window.

    Args:
        step: d.

    Raises:
        ValueError: the step is not a positive integer.

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

    step: int

    def __post_init__(self) -> None:
        if not isinstance(self.step, int) or self.step < 1:
            raise ValueError(f"`step` must be a positive integer. Received: step={self.step!r}.")

    def __call__(self, block: Block) -> Any:
        return ops.equal((block.key_positions() - block.query_positions()) % self.step, 0)

    def block_kind(self, block: Block) -> BlockKind:
        offsets = offset_range(block)
        if offsets is None:
            return "partial"
        if self.step == 1:
            return "full"
        low, high = offsets
        # A tile narrower than the step may lie between two permitted diagonals.
        return "empty" if low + -low % self.step > high else "partial"


@register
@dataclasses.dataclass(frozen=True)
class BigBird(Mask):
    r"""BigBird's pattern of blocks: some that all see and that see all, a window, and a few at random.

    Query block a attends to key block b where a or b is one of the first `everywhere` blocks, or $|a - b| \le$ `window`, or one
    is a random partner of the other. A block has its random partners among the blocks before it, and they depend on `seed`
    and the block's number alone, not on the length: padding and caches change nothing.

    Args:
        size: positions in a block.
        everywhere: how many blocks at the start attend to and are attended by all.
        window: how many blocks to either side a block sees.
        partners: how many random partners a block draws among those before it (the same may be drawn twice).
        seed: of the draw.

    Raises:
        ValueError: a number that is not an integer, or too small.

    Example:
        >>> import limelight as ll
        >>> print(ll.masks.BigBird(1, everywhere=1, window=1, partners=0))
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

    size: int
    everywhere: int = 1
    window: int = 1
    partners: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("everywhere", 0), ("window", 0), ("partners", 0), ("seed", 0)):
            given = getattr(self, name)
            if not isinstance(given, int) or given < least:
                raise ValueError(f"`{name}` must be an integer of at least {least}. Received: {name}={given!r}.")

    def __call__(self, block: Block) -> Any:
        return self.permitted(block.query_positions() // self.size, block.key_positions() // self.size)

    def permitted(self, row: Any, column: Any) -> Any:
        """Whether a block of queries attends to a block of keys; ints or int tensors that broadcast."""
        earlier, later = ops.minimum(row, column), ops.maximum(row, column)
        found = ops.logical_or(earlier < self.everywhere, later - earlier <= self.window)
        for draw in range(self.partners):
            number = ((later * 1103 + draw * 4099 + self.seed * 7919 % PRIME + 12345) % PRIME) ** 2 % PRIME
            number = (number * 181 + later + draw) % PRIME
            # A slot of a cache that is empty stands at -1, and must be divided by something too.
            found = ops.logical_or(found, ops.equal(number % ops.maximum(later + 1, 1), earlier))
        return found

    def block_kind(self, block: Block) -> BlockKind:
        offsets, columns = offset_range(block), block.columns
        if offsets is None or not known(block.offset, block.rows.start):
            return "partial"
        first = block.rows.start + block.offset
        rows = ops.arange(first // self.size, (first + block.rows.length - 1) // self.size + 1)
        last = (columns.start + columns.length - 1) // self.size
        found = self.permitted(ops.expand_dims(rows, 1), ops.arange(columns.start // self.size, last + 1))
        found = ops.convert_to_numpy(found)
        return "full" if found.all() else "partial" if found.any() else "empty"


@register
@dataclasses.dataclass(frozen=True)
class MaskFunction(Mask):
    r"""Any rule about positions.

    $$m_{ij} = f(i, j)$$

    Args:
        rule: a function of query positions (..., T, 1) and key positions (..., 1, S), int32 tensors, to bool (..., T, S). A layer
            that holds one is saved if the function is registered with `keras.saving.register_keras_serializable`.
        align: "end" where the last query stands at the last key, or "start".

    Raises:
        TypeError: the rule is not a function.
        ValueError: `align` is something else.

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

    rule: Callable[[Any, Any], Any]
    align: str = "end"

    def __post_init__(self) -> None:
        # A function comes back from a config as a dictionary with its name.
        object.__setattr__(self, "rule", deserialize(self.rule))
        if not callable(self.rule):
            raise TypeError(f"`rule` must be a function of query and key positions. Received: {self.rule!r}.")
        if self.align not in ("end", "start"):
            raise ValueError(f'`align` must be "end" or "start". Received: align={self.align!r}.')

    def __call__(self, block: Block) -> Any:
        return ops.cast(self.rule(block.query_positions(self.align), block.key_positions()), "bool")

    def get_config(self) -> dict[str, Any]:
        if keras.saving.get_registered_object(keras.saving.get_registered_name(self.rule)) is None:
            raise ValueError(
                "A function in a mask is saved by its registered name. Received: a function that is not registered, "
                f"{getattr(self.rule, '__name__', self.rule)!r}. Define it by name and decorate it with "
                "keras.saving.register_keras_serializable()."
            )
        return super().get_config()
