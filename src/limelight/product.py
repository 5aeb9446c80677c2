"""Products of queries and keys that do not overflow."""

from typing import Any

import keras
from keras import ops


def wide(dtype: Any) -> str:
    """The dtype that scores are computed in: float32, or float64 for float64."""
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def widened(tensor: Any) -> Any:
    """A tensor in float32, or in float64 where it is that already."""
    return ops.cast(tensor, wide(tensor.dtype))


def product(query: Any, key: Any) -> Any:
    """Dot products of all queries with all keys, accumulated and returned in float32 or wider.

    Args:
        query: (..., t, H).
        key: (..., s, H).

    Returns:
        (..., t, s).
    """
    return ops.matmul(widened(query), ops.swapaxes(widened(key), -1, -2))
