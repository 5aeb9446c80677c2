"""Bounds that are Python ints where they can be, and tensors where they must."""

from typing import Any

from keras import ops


def smaller(left: Any, right: Any) -> Any:
    """The smaller of two bounds, kept as a Python int where both are."""
    if isinstance(left, int) and isinstance(right, int):
        return min(left, right)
    return ops.minimum(left, right)


def larger(left: Any, right: Any) -> Any:
    """The larger of two bounds, kept as a Python int where both are."""
    if isinstance(left, int) and isinstance(right, int):
        return max(left, right)
    return ops.maximum(left, right)
