"""Random numbers that depend only on a seed and a position, so that they are the same on every implementation and backend."""

from typing import Any

import keras
from keras import ops

from limelight.core.block import Block


def sample_seed(seed: Any) -> Any:
    """Draw a seed for one call.

    Args:
        seed: An int, a `keras.random.SeedGenerator`, or None for Keras's global one.

    Returns:
        int32 of shape (1,).
    """
    return ops.cast(keras.random.randint((1,), 0, 2**31 - 1, dtype="int32", seed=seed), "int32")


def dropout_mask(seed: Any, rate: float, block: Block, dtype: Any) -> Any:
    """Return the factors by which dropout multiplies the weights of a block: 0, or 1 / (1 - rate).

    A factor depends on the seed and on the example, head, row and column, not on the size of blocks nor on the backend. So the
    backward pass can draw the same factors again.

    Args:
        seed: int32 (1,), from `sample_seed`.
        rate: The fraction of weights to drop.
        block: The place of the weights.
        dtype: The dtype of the factors.

    Returns:
        (b, n, t, s).
    """
    threshold = round(rate * 2**32) - 2**31
    is_kept = ops.cast(random_bits(seed, block) >= min(threshold, 2**31 - 1), dtype)
    return is_kept * (1 / (1 - rate))


def uniform(seed: Any, block: Block, dtype: Any) -> Any:
    """Return uniform random numbers in the open interval (0, 1), one for each score of a block.

    Args:
        seed: int32 (1,), from `sample_seed`. The numbers are independent of `dropout_mask` with the same seed.
        block: The place of the scores.
        dtype: The dtype of the numbers.

    Returns:
        (b, n, t, s).
    """
    bits = random_bits(ops.bitwise_xor(seed, 0x3C6EF372), block)
    return ops.clip(ops.cast(bits, dtype) * 2**-32 + 0.5, 1e-7, 1 - 1e-7)


def random_bits(seed: Any, block: Block) -> Any:
    """Return a uniform random int32 for each score of a block, (b, n, t, s). Its high bits are the best."""
    rows = hash_bits(seed)
    for part, axis in ((block.batch, 0), (block.heads, 1), (block.rows, 2)):
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        rows = hash_bits(rows + ops.reshape(part.to_indices(), shape))
    columns = hash_bits(block.columns.to_indices() + 0x5BD1E995)
    # Rows and columns are hashed already, so that one round is enough at full size.
    bits = ops.bitwise_xor(rows, columns) * as_int32(0x2C1B3C6D)
    return ops.bitwise_xor(bits, ops.right_shift(bits, 15)) * as_int32(0x297A2D39)


def hash_bits(number: Any) -> Any:
    """Hash an int32 so that every bit depends on every bit of `number` (multiply-xorshift)."""
    number = ops.bitwise_xor(number, logical_right_shift(number, 16)) * as_int32(0x7FEB352D)
    number = ops.bitwise_xor(number, logical_right_shift(number, 15)) * as_int32(0x846CA68B)
    return ops.bitwise_xor(number, logical_right_shift(number, 16))


def logical_right_shift(number: Any, bits: int) -> Any:
    """Shift an int32 to the right and fill with zeros. Backends differ in unsigned integers."""
    return ops.bitwise_and(ops.right_shift(number, bits), (1 << (32 - bits)) - 1)


def as_int32(number: int) -> int:
    """Return the int32 that has the same bits as an unsigned 32-bit number."""
    return number - 2**32 if number >= 2**31 else number
