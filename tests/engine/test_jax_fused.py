"""The fused kernel of JAX equals the dense formula: cuDNN's on a GPU in half precision, JAX's own formula elsewhere."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from contracts.computing import numpy
from gradients import gradients
from limelight.engine import thresholds

if keras.backend.backend() != "jax":
    pytest.skip("cuDNN's kernel is called through JAX", allow_module_level=True)

from limelight.engine import backend

B, N, K, T, H, V = 2, 4, 2, 9, 5, 3
SCATTERED = np.random.default_rng(61).random((B, T)) < 0.6
# Some keys of one example, none of the other.
LEADING = np.arange(T) < np.array([[4], [0]])
MASKS = {
    "none": None,
    "causal": ll.masks.Causal(),
    "padding": ll.masks.Padding(SCATTERED, LEADING),
    "no keys": ll.masks.Padding(LEADING),
    "causal, padding at the end": ll.masks.Causal() & ll.masks.Padding(LEADING),
    "causal, padding in between": ll.masks.Causal() & ll.masks.Padding(SCATTERED),
    "prefix": ll.masks.Prefix(3),
}


def arrays(length: int = T) -> list[np.ndarray]:
    """Return queries, keys of fewer heads, and values of another size."""
    random = np.random.default_rng(67)
    return [random.normal(size=(B, *shape)) for shape in ((N, length, H), (K, length, H), (K, length, V))]


@pytest.mark.parametrize("name", MASKS)
def test_the_kernel_equals_dense(name: str) -> None:
    parts: dict[str, Any] = {"mask": MASKS[name]}
    if name == "causal":
        parts |= {
            "score": ll.positions.Rotary(ll.scores.Dot(), rotary_dim=4),
            "normalizer": ll.normalizers.Softmax(0.7),
        }
    # The kernel needs half precision; the formula is compared in float32, which shows more.
    dtype, atol = ("bfloat16", 3e-2) if backend.active().on_accelerator(ops.zeros(1)) else ("float32", 1e-5)

    def loss(*tensors: Any) -> Any:
        return ops.sum(ops.cast(ll.attend(*tensors, **parts), "float32") ** 2)

    tensors = [ops.cast(array, dtype) for array in arrays()]
    with thresholds.using(implementation="fused"):
        assert ll.explain_implementation(*tensors[:2], **parts).name == "fused"
        actual = [numpy(ll.attend(*tensors, **parts)), *gradients(loss, tensors)]
    exact = [ops.cast(tensor, "float32") for tensor in tensors]
    with thresholds.using(implementation="dense"):
        expected = [numpy(ll.attend(*exact, **parts)), *gradients(loss, exact)]
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=atol * max(1.0, abs(y).max()))


@pytest.mark.parametrize(
    "parts",
    [
        {"mask": ll.masks.SlidingWindow(2)},
        {"normalizer": ll.normalizers.Sparsemax()},
        {"score": ll.scores.Dot() + ll.positions.ALiBi()},
        {"dropout": 0.5},
    ],
    ids=lambda parts: next(iter(parts)),
)
def test_unsupported_calls_use_another_implementation(parts: dict[str, Any]) -> None:
    query, key, _ = (ops.cast(array, "bfloat16") for array in arrays())
    with thresholds.using(implementation="fused"):
        assert ll.explain_implementation(query, key, **parts).name == "dense"


def test_the_kernel_is_used_on_an_accelerator() -> None:
    query, key, value = (ops.cast(array, "bfloat16") for array in arrays())
    on_accelerator = backend.active().on_accelerator(query)
    assert (ll.explain_implementation(query, key).name == "fused") == on_accelerator
    output = ll.attend(query, key, value)
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
