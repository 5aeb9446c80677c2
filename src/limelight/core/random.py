"""Random numbers that are functions of a seed and of the place, so that every path and every pass agrees."""

from typing import Any

import keras
from keras import ops

from limelight.core.block import Block


def sample_seed(seed: Any) -> Any:
    """A number for one call, int32 of shape (1,), from a seed, a `keras.random.SeedGenerator`, or None for Keras's own."""
    return ops.cast(keras.random.randint((1,), 0, 2**31 - 1, dtype="int32", seed=seed), "int32")


def dropout_mask(seed: Any, rate: float, block: Block, dtype: Any) -> Any:
    """What a tile's weights are multiplied by under dropout: 0, or 1 / (1 - rate) for those that are kept.

    Whether a weight is kept depends on the seed and on its example, head, row and column, not on how the scores are cut into
    tiles, nor on the backend: the backward pass draws the same again, in tiles of any size.

    Args:
        seed: int32 (1,), from `drawn`.
        rate: the share that is dropped.
        tile: the place.

    Returns:
        (b, n, t, s).
    """
    threshold = round(rate * 2**32) - 2**31
    kept = ops.cast(random_bits(seed, block) >= min(threshold, 2**31 - 1), dtype)
    return kept * (1 / (1 - rate))


def uniform(seed: Any, block: Block, dtype: Any) -> Any:
    """Numbers between 0 and 1 that never are either, one for each place of a tile, by the same rule.

    Args:
        seed: int32 (1,), from `drawn`. With the seed of a dropout the numbers are others than those it goes by.
        tile: the place.

    Returns:
        (b, n, t, s).
    """
    number = ops.cast(random_bits(ops.bitwise_xor(seed, 0x3C6EF372), block), dtype) * 2**-32 + 0.5
    return ops.clip(number, 1e-7, 1 - 1e-7)


def random_bits(seed: Any, block: Block) -> Any:
    """An int32 for each place of a tile, (b, n, t, s), each value as likely as any other; the high bits are the best."""
    rows = hash_bits(seed)
    for span, axis in ((block.batch, 0), (block.heads, 1), (block.rows, 2)):
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        rows = hash_bits(rows + ops.reshape(span.to_indices(), shape))
    columns = hash_bits(block.columns.to_indices() + 0x5BD1E995)
    # Both sides are thoroughly mixed; together they need only one round more, the only one at full size.
    joint = ops.bitwise_xor(rows, columns) * as_int32(0x2C1B3C6D)
    return ops.bitwise_xor(joint, ops.right_shift(joint, 15)) * as_int32(0x297A2D39)


def hash_bits(number: Any) -> Any:
    """int32 in which every bit depends on every bit of the one given: a finaliser of multiplications and shifts."""
    number = ops.bitwise_xor(number, logical_right_shift(number, 16)) * as_int32(0x7FEB352D)
    number = ops.bitwise_xor(number, logical_right_shift(number, 15)) * as_int32(0x846CA68B)
    return ops.bitwise_xor(number, logical_right_shift(number, 16))


def logical_right_shift(number: Any, places: int) -> Any:
    """A logical shift to the right: backends differ in unsigned integers, so int32 is shifted and its sign cut off."""
    return ops.bitwise_and(ops.right_shift(number, places), (1 << (32 - places)) - 1)


def as_int32(number: int) -> int:
    """A 32-bit constant as the int32 of the same bits."""
    return number - 2**32 if number >= 2**31 else number
