"""Compute gradients and compile functions on any backend."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from compiling import compiler_options


def gradients(
    function: Callable[..., Any], arrays: Sequence[Any], variables: Sequence[Any] = (), has_aux: bool = False
) -> Any:
    """Return the gradients of a scalar function of arrays by each array and each Keras variable, as numpy.

    The gradient by what the function does not depend on is zero.

    Args:
        function: Returns a scalar, or with `has_aux` a pair of a scalar and a structure of tensors.
        arrays: The arguments of the function.
        variables: The variables that the function reads.
        has_aux: Return a pair of the gradients and that structure.
    """
    with_aux = function if has_aux else lambda *arrays: (function(*arrays), ())
    run = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[keras.backend.backend()]
    computed, aux = run(with_aux, list(arrays), list(variables))
    return (computed, aux) if has_aux else computed


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


def _jax(function: Callable[..., Any], arrays: list, variables: list) -> tuple[list[np.ndarray], Any]:
    import jax

    def pure(arrays: list, values: list) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*arrays)

    values = [variable.value for variable in variables]
    run = jax.jit(jax.grad(pure, argnums=(0, 1), has_aux=True), compiler_options=compiler_options())
    (by_array, by_variable), aux = run([jax.numpy.asarray(array) for array in arrays], values)
    return [np.asarray(gradient).astype("float32") for gradient in (*by_array, *by_variable)], aux


def _tensorflow(function: Callable[..., Any], arrays: list, variables: list) -> tuple[list[np.ndarray], Any]:
    import tensorflow as tf

    tensors = [tf.convert_to_tensor(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss, aux = function(*tensors)
    sources = [*tensors, *(variable.value for variable in variables)]
    results = tape.gradient(loss, sources, unconnected_gradients="zero")
    return [tf.cast(tf.convert_to_tensor(gradient), "float32").numpy() for gradient in results], aux


def _torch(function: Callable[..., Any], arrays: list, variables: list) -> tuple[list[np.ndarray], Any]:
    import torch

    tensors = [keras.ops.convert_to_tensor(array).detach().clone().requires_grad_() for array in arrays]
    sources = [*tensors, *(variable.value for variable in variables)]
    loss, aux = function(*tensors)
    results = torch.autograd.grad(loss, sources, allow_unused=True)
    return [
        (torch.zeros_like(source) if gradient is None else gradient).float().detach().cpu().numpy()
        for source, gradient in zip(sources, results, strict=True)
    ], aux
