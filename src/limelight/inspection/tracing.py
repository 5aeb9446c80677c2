"""What differs between the backends when a model is compiled and run for its own sake."""

from collections.abc import Callable
from typing import Any

import keras


def state() -> Any:
    """Something that is equal as long as tensors can be carried from one place to another.

    A tensor of the body of a loop cannot leave it; JAX and TensorFlow trace such a body apart.
    """
    name = keras.backend.backend()
    if name == "jax":
        from jax.extend import core

        return core.get_opaque_trace_state(convention="limelight")
    if name == "tensorflow":
        import tensorflow

        return "eager" if tensorflow.executing_eagerly() else id(tensorflow.compat.v1.get_default_graph())
    return None


def compiled(model: Any, *, jit: bool) -> Callable[..., Any]:
    """A function of (values of the non-trainable variables, inputs) that runs a model in inference.

    Args:
        model: a built model.
        jit: whether XLA compiles. PyTorch runs as it is, because its compiler cannot see through the interception of layers.

    Returns:
        The model's outputs, and the values that its non-trainable variables would have then. The model itself is left alone.
    """
    name = keras.backend.backend()
    if name == "jax" and jit:
        return _compiled_jax(model)
    if name == "tensorflow":
        return _compiled_tensorflow(model, jit=jit)
    return eager(model)


def eager(model: Any) -> Callable[..., Any]:
    """Like `compiled`, one operation after the other."""

    def run(values: list[Any], inputs: Any, **kwargs: Any) -> Any:
        with no_gradient():
            state = list(zip(model.non_trainable_variables, values, strict=True))
            with keras.StatelessScope(state) as scope:
                outputs = model(inputs, **kwargs)
        return outputs, [_current(scope, variable) for variable in model.non_trainable_variables]

    return run


def _current(scope: Any, variable: Any) -> Any:
    value = scope.get_current_value(variable)
    return variable.value if value is None else value


def no_gradient() -> Any:
    """A context in which no gradient is prepared."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()
    import contextlib

    return contextlib.nullcontext()


def _compiled_jax(model: Any) -> Callable[[list[Any], Any], Any]:
    import jax

    @jax.jit
    def run(trainable: list[Any], values: list[Any], inputs: Any) -> Any:
        return model.stateless_call(trainable, values, inputs, training=False)

    return lambda values, inputs: run([one.value for one in model.trainable_variables], values, inputs)


def _compiled_tensorflow(model: Any, *, jit: bool) -> Callable[[list[Any], Any], Any]:
    import tensorflow

    @tensorflow.autograph.experimental.do_not_convert
    def run(values: list[Any], inputs: Any) -> Any:
        state = list(zip(model.non_trainable_variables, values, strict=True))
        with keras.StatelessScope(state) as scope:
            outputs = model(inputs, training=False)
        return outputs, [_current(scope, variable) for variable in model.non_trainable_variables]

    return tensorflow.function(run, reduce_retracing=True, jit_compile=jit)
