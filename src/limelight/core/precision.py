"""Numbers wide enough that scores do not overflow, and products of them."""

import string
from typing import Any

import keras
from keras import ops


def accumulation_dtype(dtype: Any) -> str:
    """Return the dtype in which scores are computed: float64 for float64, else float32."""
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def upcast(tensor: Any) -> Any:
    """Cast a tensor to float32; float64 stays float64."""
    return ops.cast(tensor, accumulation_dtype(tensor.dtype))


def dot_products(query: Any, key: Any) -> Any:
    """Compute the dot products of all queries with all keys, in float32 or wider.

    Args:
        query: (..., t, H).
        key: (..., s, H).

    Returns:
        (..., t, s).
    """
    return ops.matmul(upcast(query), ops.swapaxes(upcast(key), -1, -2))


def project(tensor: Any, kernel: Any) -> Any:
    """Multiply vectors (..., H) by a matrix (H, U)."""
    if None not in tensor.shape:
        return ops.matmul(tensor, kernel)
    # On TensorFlow, `ops.matmul` is a `tensordot`, whose gradient XLA cannot compile inside a loop if a length is not known.
    axes = string.ascii_lowercase[: len(tensor.shape) - 1]
    return ops.einsum(f"{axes}y,yz->{axes}z", tensor, kernel)
