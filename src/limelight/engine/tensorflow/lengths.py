"""TensorFlow: lengths that are known beforehand, or only when a graph runs."""

from typing import Any

import tensorflow as tf


def lengths(tensor: Any) -> list[Any]:
    """The lengths of a tensor's axes, ints where they are known."""
    return [tf.shape(tensor)[axis] if length is None else length for axis, length in enumerate(tensor.shape)]


def known(length: Any) -> int | None:
    """A length where it is an int, else None."""
    return length if isinstance(length, int) else None


def smallest(left: Any, right: Any) -> Any:
    """The smaller of two numbers, an int where both are."""
    return min(left, right) if isinstance(left, int) and isinstance(right, int) else tf.minimum(left, right)


def largest(left: Any, right: Any) -> Any:
    """The larger of two numbers, an int where both are."""
    return max(left, right) if isinstance(left, int) and isinstance(right, int) else tf.maximum(left, right)


def under_xla() -> bool:
    """Whether what is traced here is compiled by XLA, where sizes must not depend on the step of a loop."""
    if tf.executing_eagerly():
        return False
    try:
        from tensorflow.python.ops import control_flow_util

        return bool(control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))
    except (ImportError, AttributeError):
        return True
