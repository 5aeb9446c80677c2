"""Compute gradients and compile functions on any backend."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from compiling import compiler_options


def gradients(function: Callable[..., Any], arrays: Sequence[Any], variables: Sequence[Any] = ()) -> list[np.ndarray]:
    """Return the gradients of a scalar function of arrays by each array and each Keras variable, as numpy.

    The gradient by what the function does not depend on is zero.
    """
    return {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[keras.backend.backend()](
        function, list(arrays), list(variables)
    )


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the compiled function: by `jax.jit` or `tf.function`; on PyTorch, the function itself."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jit(function, compiler_options=compiler_options())
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    return function


def _jax(function: Callable[..., Any], arrays: list, variables: list) -> list[np.ndarray]:
    import jax

    def pure(arrays: list, values: list) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*arrays)

    values = [variable.value for variable in variables]
    run = jax.jit(jax.grad(pure, argnums=(0, 1)), compiler_options=compiler_options())
    by_array, by_variable = run([jax.numpy.asarray(array) for array in arrays], values)
    return [np.asarray(keras.ops.cast(gradient, "float32")) for gradient in (*by_array, *by_variable)]


def _tensorflow(function: Callable[..., Any], arrays: list, variables: list) -> list[np.ndarray]:
    import tensorflow as tf

    tensors = [tf.convert_to_tensor(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = function(*tensors)
    sources = [*tensors, *(variable.value for variable in variables)]
    results = tape.gradient(loss, sources, unconnected_gradients="zero")
    return [tf.cast(tf.convert_to_tensor(gradient), "float32").numpy() for gradient in results]


def _torch(function: Callable[..., Any], arrays: list, variables: list) -> list[np.ndarray]:
    import torch

    tensors = [keras.ops.convert_to_tensor(array).detach().clone().requires_grad_() for array in arrays]
    sources = [*tensors, *(variable.value for variable in variables)]
    loss = function(*tensors)
    results = torch.autograd.grad(loss, sources, allow_unused=True)
    return [
        (torch.zeros_like(source) if gradient is None else gradient).float().detach().cpu().numpy()
        for source, gradient in zip(sources, results, strict=True)
    ]
