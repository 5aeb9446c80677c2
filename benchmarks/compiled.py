"""Functions of arrays, compiled as users of each backend compile them."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

BACKEND = os.environ.get("KERAS_BACKEND", "jax")


def forward(function: Callable[..., Any], *arrays: Any, jit: bool = False) -> Callable[[], Any]:
    """Return a call of a function with numpy arrays: `jax.jit`, `tf.function` (by XLA if `jit`), or eager PyTorch."""
    return {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[BACKEND](function, arrays, jit)


def backward(function: Callable[..., Any], *arrays: Any, jit: bool = False) -> Callable[[], Any]:
    """Return a call that computes the gradients of a function's output by all of its arrays.

    The gradient of the output is an argument, as in training: TensorFlow would copy a large constant when it optimizes the graph.
    """
    return {"jax": _jax_gradient, "tensorflow": _tensorflow_gradient, "torch": _torch_gradient}[BACKEND](
        function, arrays, jit
    )


def _jax(function: Callable[..., Any], arrays: Any, jit: bool) -> Callable[[], Any]:
    import jax

    placed = [jax.numpy.asarray(array) for array in arrays]
    executable = jax.jit(function).lower(*placed).compile()

    def run() -> Any:
        return jax.block_until_ready(executable(*placed))

    run.executable = executable
    return run


def _jax_gradient(function: Callable[..., Any], arrays: Any, jit: bool) -> Callable[[], Any]:
    import jax

    shape = jax.eval_shape(function, *arrays)

    def gradients(grad_output: Any, *arrays: Any) -> Any:
        return jax.vjp(function, *arrays)[1](grad_output.astype(shape.dtype))

    return _jax(gradients, [_make_grad_output(shape.shape), *arrays], jit)


def _tensorflow(function: Callable[..., Any], arrays: Any, jit: bool) -> Callable[[], Any]:
    import tensorflow as tf

    placed = [tf.constant(array) for array in arrays]
    graph = tf.function(function, jit_compile=jit)
    graph.get_concrete_function(*placed)

    def run() -> Any:
        results = graph(*placed)
        # Fetching a number waits until the results are computed.
        for tensor in tf.nest.flatten(results):
            tf.reshape(tensor, [-1])[0].numpy()
        return results

    return run


def _tensorflow_gradient(function: Callable[..., Any], arrays: Any, jit: bool) -> Callable[[], Any]:
    import tensorflow as tf

    shape = tf.function(function, jit_compile=jit).get_concrete_function(*map(tf.constant, arrays)).output_shapes

    def gradients(grad_output: Any, *arrays: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            output = function(*arrays)
        return tape.gradient(output, arrays, tf.cast(grad_output, output.dtype))

    return _tensorflow(gradients, [_make_grad_output(shape), *arrays], jit)


def _torch(function: Callable[..., Any], arrays: Any, jit: bool) -> Callable[[], Any]:
    import torch

    placed = _on_device(arrays)

    def run() -> Any:
        with torch.no_grad():
            return _synchronize(function(*placed))

    return run


def _torch_gradient(function: Callable[..., Any], arrays: Any, jit: bool) -> Callable[[], Any]:
    import torch

    placed = [tensor.requires_grad_() for tensor in _on_device(arrays)]
    grad_outputs: list[Any] = []

    def run() -> Any:
        output = function(*placed)
        if not grad_outputs:
            grad_outputs.append(_on_device([_make_grad_output(tuple(output.shape))])[0].to(output.dtype))
        return _synchronize(torch.autograd.grad(output, placed, grad_outputs[0]))

    return run


def _on_device(arrays: Any) -> list[Any]:
    """Return tensors of PyTorch on the device that Keras uses: a GPU, if there is one."""
    import torch
    from keras import ops

    device = ops.convert_to_tensor(0.0).device
    return [torch.from_numpy(np.asarray(array)).to(device) for array in arrays]


def _synchronize(results: Any) -> Any:
    """Wait until a GPU has computed the results, and return them."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return results


def _make_grad_output(shape: Any) -> np.ndarray:
    """Return a random gradient of the output: one of ones would save some of the computation."""
    return np.random.default_rng(11).normal(size=tuple(shape)).astype("float32")
