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


def run(present: Any, total: Any) -> tuple[Any, Any]:
    """The first of `total` places at which `present`, bool (..., total), holds anywhere, and that after the last."""
    present = ops.any(ops.reshape(present, (-1, total)), axis=0)
    places = ops.arange(total, dtype="int32")
    last = ops.max(ops.where(present, places + 1, 0))
    return smaller(ops.min(ops.where(present, places, total)), last), last
