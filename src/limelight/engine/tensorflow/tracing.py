"""TensorFlow: what is known while a graph is traced, and compiled models."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def static_length(length: Any) -> int | None:
    """Return a length if it is an int, None if it is a tensor."""
    return length if isinstance(length, int) else None


def under_xla() -> bool:
    """Return True if XLA compiles what is traced here, so that sizes must not depend on the step of a loop."""
    if tf.executing_eagerly():
        return False
    try:
        from tensorflow.python.ops import control_flow_util

        return bool(control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))
    except (ImportError, AttributeError):
        return True


def trace_state() -> Any:
    """Return an object that is equal within one graph; "eager" outside of graphs."""
    return "eager" if tf.executing_eagerly() else id(tf.compat.v1.get_default_graph())


def compile_function(function: Callable[..., Any], *, jit: bool) -> Callable[..., Any]:
    """Compile a function for inference (see `Backend.compile`)."""
    return tf.function(tf.autograph.experimental.do_not_convert(function), reduce_retracing=True, jit_compile=jit)
