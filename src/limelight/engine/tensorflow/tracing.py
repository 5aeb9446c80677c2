"""TensorFlow: what is known while a graph is traced, and compiled models."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from limelight.engine.backend import call_stateless


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


def compile_stateless(model: Any, *, jit: bool) -> Callable[[list[Any], Any], Any]:
    """Compile a model for inference (see `Backend.compile_stateless`)."""

    @tf.autograph.experimental.do_not_convert
    def run(values: list[Any], inputs: Any) -> Any:
        return call_stateless(model, values, inputs, training=False)

    return tf.function(run, reduce_retracing=True, jit_compile=jit)
