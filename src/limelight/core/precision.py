"""Products of queries and keys that do not overflow."""

from typing import Any

import keras
from keras import ops


def accumulation_dtype(dtype: Any) -> str:
    """The dtype that scores are computed in: float32, or float64 for float64."""
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def upcast(tensor: Any) -> Any:
    """A tensor in float32, or in float64 where it is that already."""
    return ops.cast(tensor, accumulation_dtype(tensor.dtype))


def dot_products(query: Any, key: Any) -> Any:
    """Dot products of all queries with all keys, accumulated and returned in float32 or wider.

    Args:
        query: (..., t, H).
        key: (..., s, H).

    Returns:
        (..., t, s).
    """
    return ops.matmul(upcast(query), ops.swapaxes(upcast(key), -1, -2))
