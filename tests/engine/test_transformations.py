"""Paths by blocks under what a backend does to functions: dropout, half precision, batching, recomputation, compilation."""

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
PATHS = {"jax": ("online_softmax", "blockwise"), "tensorflow": ("blockwise",), "torch": ("fused", "blockwise")}[BACKEND]
B, N, T, S, H, V = 2, 3, 7, 11, 5, 4

each_path = pytest.mark.parametrize("implementation", PATHS)


@pytest.fixture
def arrays() -> list[np.ndarray]:
    random = np.random.default_rng(53)
    shapes = ((B, N, T, H), (B, N, S, H), (B, N, S, V))
    return [random.normal(size=shape).astype("float32") for shape in shapes]


def blocks(implementation: str) -> Any:
    """BigBird of three rows and four columns."""
    return thresholds.using(implementation=implementation, rows=3, columns=4, scores_per_block=3 * S)


def squares(*given: Any, **parts: Any) -> Any:
    return ops.sum(ll.attend(*given, mask=ll.masks.Causal(), **parts) ** 2)


@each_path
def test_dropout_drops_the_same_weights_in_both_passes(implementation: str, arrays: list[np.ndarray]) -> None:
    def loss(*given: Any) -> Any:
        return squares(*given, dropout=0.4, seed=5)

    with thresholds.using(implementation="dense"):
        expected = gradients(loss, arrays, [])
    with blocks(implementation):
        found = gradients(loss, arrays, [])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)


@each_path
def test_dropout_leaves_out_its_share(implementation: str) -> None:
    query, key = np.zeros((1, 1, 97, H), "float32"), np.zeros((1, 1, 101, H), "float32")
    with blocks(implementation):
        found = ll.attend(query, key, np.eye(101, dtype="float32")[None, None], dropout=0.25, seed=5)
    found = ops.convert_to_numpy(found) * 101
    assert set(np.unique(found.round(4))) == {0.0, np.float32(1.3333)}
    assert abs((found == 0).mean() - 0.25) < 0.02


@each_path
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_neither_overflows_nor_changes_dtype(
    implementation: str, dtype: str, arrays: list[np.ndarray]
) -> None:
    query, key, value = (ops.cast(array, dtype) for array in arrays)
    # Products of these do not fit float16.
    query, key = query * 300, key * 300
    exact = [np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32"))) for tensor in (query, key, value)]
    with thresholds.using(implementation="dense"):
        expected = ops.convert_to_numpy(ll.attend(*exact))
    with blocks(implementation):
        found = ll.attend(query, key, value)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(found, "float32")), expected, atol=3e-2)


@each_path
def test_recomputation_and_compilation_change_no_gradient(implementation: str, arrays: list[np.ndarray]) -> None:
    with thresholds.using(implementation="dense"):
        expected = gradients(squares, arrays, [])
    with blocks(implementation):
        found = recomputed(squares, arrays)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(one), other, atol=3e-5)


def recomputed(loss: Callable[..., Any], arrays: list[np.ndarray]) -> Any:
    """Gradients of a loss that is computed again in the backward pass, compiled where the backend compiles."""
    if BACKEND == "jax":
        import jax

        return jax.jit(jax.grad(jax.checkpoint(loss), argnums=(0, 1, 2)))(*arrays)
    if BACKEND == "torch":
        import torch
        from torch.utils.checkpoint import checkpoint

        given = [torch.from_numpy(array).requires_grad_() for array in arrays]
        return torch.autograd.grad(checkpoint(loss, *given, use_reentrant=False), given)
    import tensorflow as tf

    @tf.function
    def run(*given: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(given)
            total = tf.recompute_grad(loss)(*given)
        return tape.gradient(total, given)

    return run(*(tf.constant(array) for array in arrays))


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX batches functions")
@each_path
def test_vmap_equals_a_loop(implementation: str) -> None:
    import jax

    random = np.random.default_rng(59)
    several = [random.normal(size=(3, *shape)).astype("float32") for shape in ((N, T, H), (N, S, H), (N, S, V))]
    slope = jax.grad(squares, argnums=(0, 1, 2))
    with thresholds.using(implementation="dense"):
        expected = [np.stack(found) for found in zip(*(slope(*one) for one in zip(*several, strict=True)), strict=True)]
    with blocks(implementation):
        found = jax.vmap(slope)(*several)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)
