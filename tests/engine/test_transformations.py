"""Implementations in blocks under dropout, half precision, batching, recomputation and compilation."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from gradients import gradients
from limelight.engine import thresholds

BACKEND = keras.backend.backend()
IMPLEMENTATIONS = {
    "jax": ("online_softmax", "blockwise"),
    "tensorflow": ("blockwise",),
    "torch": ("fused", "blockwise"),
}[BACKEND]
B, N, T, S, H, V = 2, 3, 7, 11, 5, 4

each_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


@pytest.fixture
def arrays() -> list[np.ndarray]:
    random = np.random.default_rng(53)
    shapes = ((B, N, T, H), (B, N, S, H), (B, N, S, V))
    return [random.normal(size=shape).astype("float32") for shape in shapes]


def small_blocks(implementation: str) -> Any:
    """Use blocks of three rows and four columns."""
    return thresholds.using(implementation=implementation, rows=3, columns=4, scores_per_block=3 * S)


def loss(*inputs: Any, **parts: Any) -> Any:
    return ops.sum(ll.attend(*inputs, mask=ll.masks.Causal(), **parts) ** 2)


@each_implementation
def test_dropout_drops_the_same_weights_in_both_passes(implementation: str, arrays: list[np.ndarray]) -> None:
    def dropout_loss(*inputs: Any) -> Any:
        return loss(*inputs, dropout=0.4, seed=5)

    with thresholds.using(implementation="dense"):
        expected = gradients(dropout_loss, arrays, [])
    with small_blocks(implementation):
        actual = gradients(dropout_loss, arrays, [])
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=3e-5)


@each_implementation
def test_dropout_drops_its_fraction(implementation: str) -> None:
    query, key = np.zeros((1, 1, 97, H), "float32"), np.zeros((1, 1, 101, H), "float32")
    with small_blocks(implementation):
        weights = ll.attend(query, key, np.eye(101, dtype="float32")[None, None], dropout=0.25, seed=5)
    factors = ops.convert_to_numpy(weights) * 101
    assert set(np.unique(factors.round(4))) == {0.0, np.float32(1.3333)}
    assert abs((factors == 0).mean() - 0.25) < 0.02


@each_implementation
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_neither_overflows_nor_changes_dtype(
    implementation: str, dtype: str, arrays: list[np.ndarray]
) -> None:
    query, key, value = (ops.cast(array, dtype) for array in arrays)
    # Dot products of these overflow in float16.
    query, key = query * 300, key * 300
    exact = [np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32"))) for tensor in (query, key, value)]
    with thresholds.using(implementation="dense"):
        expected = ops.convert_to_numpy(ll.attend(*exact))
    with small_blocks(implementation):
        output = ll.attend(query, key, value)
    assert keras.backend.standardize_dtype(output.dtype) == dtype
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(output, "float32")), expected, atol=3e-2)


@each_implementation
def test_recomputation_and_compilation_change_no_gradient(implementation: str, arrays: list[np.ndarray]) -> None:
    with thresholds.using(implementation="dense"):
        expected = gradients(loss, arrays, [])
    with small_blocks(implementation):
        actual = recomputed_gradients(loss, arrays)
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(x), y, atol=3e-5)


def recomputed_gradients(loss: Callable[..., Any], arrays: list[np.ndarray]) -> Any:
    """Return gradients of a loss that is recomputed in the backward pass, compiled except on PyTorch."""
    if BACKEND == "jax":
        import jax

        return jax.jit(jax.grad(jax.checkpoint(loss), argnums=(0, 1, 2)))(*arrays)
    if BACKEND == "torch":
        import torch
        from torch.utils.checkpoint import checkpoint

        tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
        return torch.autograd.grad(checkpoint(loss, *tensors, use_reentrant=False), tensors)
    import tensorflow as tf

    @tf.function
    def run(*tensors: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = tf.recompute_grad(loss)(*tensors)
        return tape.gradient(total, tensors)

    return run(*(tf.constant(array) for array in arrays))


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX batches functions")
@each_implementation
def test_vmap_equals_a_loop(implementation: str) -> None:
    import jax

    random = np.random.default_rng(59)
    batches = [random.normal(size=(3, *shape)).astype("float32") for shape in ((N, T, H), (N, S, H), (N, S, V))]
    gradient = jax.grad(loss, argnums=(0, 1, 2))
    with thresholds.using(implementation="dense"):
        separate = [gradient(*example) for example in zip(*batches, strict=True)]
    with small_blocks(implementation):
        actual = jax.vmap(gradient)(*batches)
    for x, y in zip(actual, zip(*separate, strict=True), strict=True):
        np.testing.assert_allclose(x, np.stack(y), atol=3e-5)
