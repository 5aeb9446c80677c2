"""Functions of arrays, compiled as the users of each backend compile them, called on given arrays."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

BACKEND = os.environ.get("KERAS_BACKEND", "jax")


def forward(function: Callable[..., Any], *arrays: Any, jit: bool = False) -> Callable[[], Any]:
    """Return a call of the function on numpy arrays: `jax.jit`, `tf.function` (with XLA where `jit`), or eager PyTorch."""
    return {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[BACKEND](function, arrays, jit)


def backward(function: Callable[..., Any], *arrays: Any, jit: bool = False) -> Callable[[], Any]:
    """Return a call that computes the gradients of the function's output, weighted by fixed numbers, by all of its arrays.

    The numbers are given, as they would be by whatever follows: a constant of some size is copied when a graph is made better.
    """
    return {"jax": _jax_gradient, "tensorflow": _tensorflow_gradient, "torch": _torch_gradient}[BACKEND](
        function, arrays, jit
    )


def _jax(function: Callable[..., Any], arrays: Any, jit: bool) -> Callable[[], Any]:
    import jax

    placed = [jax.numpy.asarray(array) for array in arrays]
    code = jax.jit(function).lower(*placed).compile()

    def run() -> Any:
        return jax.block_until_ready(code(*placed))

    run.code = code
    return run


def _jax_gradient(function: Callable[..., Any], arrays: Any, jit: bool) -> Callable[[], Any]:
    import jax

    shape = jax.eval_shape(function, *arrays)

    def gradients(slope: Any, *given: Any) -> Any:
        return jax.vjp(function, *given)[1](slope.astype(shape.dtype))

    return _jax(gradients, [_slope(shape.shape), *arrays], jit)


def _tensorflow(function: Callable[..., Any], arrays: Any, jit: bool) -> Callable[[], Any]:
    import tensorflow as tf

    placed = [tf.constant(array) for array in arrays]
    graph = tf.function(function, jit_compile=jit)
    graph.get_concrete_function(*placed)

    def run() -> Any:
        results = graph(*placed)
        # Whoever fetches a number waits for the work.
        for tensor in tf.nest.flatten(results):
            tf.reshape(tensor, [-1])[0].numpy()
        return results

    return run


def _tensorflow_gradient(function: Callable[..., Any], arrays: Any, jit: bool) -> Callable[[], Any]:
    import tensorflow as tf

    shape = tf.function(function, jit_compile=jit).get_concrete_function(*map(tf.constant, arrays)).output_shapes

    def gradients(slope: Any, *given: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(given)
            output = function(*given)
        return tape.gradient(output, given, tf.cast(slope, output.dtype))

    return _tensorflow(gradients, [_slope(shape), *arrays], jit)


def _torch(function: Callable[..., Any], arrays: Any, jit: bool) -> Callable[[], Any]:
    import torch

    placed = _on_device(arrays)

    def run() -> Any:
        with torch.no_grad():
            return _done(function(*placed))

    return run


def _torch_gradient(function: Callable[..., Any], arrays: Any, jit: bool) -> Callable[[], Any]:
    import torch

    placed = [tensor.requires_grad_() for tensor in _on_device(arrays)]
    slopes: list[Any] = []

    def run() -> Any:
        output = function(*placed)
        if not slopes:
            slopes.append(_on_device([_slope(tuple(output.shape))])[0].to(output.dtype))
        return _done(torch.autograd.grad(output, placed, slopes[0]))

    return run


def _on_device(arrays: Any) -> list[Any]:
    """PyTorch's tensors where Keras has them: on a GPU, if there is one."""
    import torch
    from keras import ops

    device = ops.convert_to_tensor(0.0).device
    return [torch.from_numpy(np.asarray(array)).to(device) for array in arrays]


def _done(results: Any) -> Any:
    """Return the result once it is computed: a GPU returns before."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return results


def _slope(shape: Any) -> np.ndarray:
    """Numbers to weight an output with: a gradient of ones alone would spare some of the work."""
    return np.random.default_rng(11).normal(size=tuple(shape)).astype("float32")
