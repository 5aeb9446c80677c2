"""JAX's kernel does what the formula does: cuDNN's on a GPU, in half precision, and elsewhere the same function's own formula."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from contracts.test_contract import numpy
from gradients import gradients
from limelight.engine import thresholds

if keras.backend.backend() != "jax":
    pytest.skip("cuDNN's kernel is called by way of JAX", allow_module_level=True)

from limelight.engine import backend

B, N, K, T, H, V = 2, 4, 2, 9, 5, 3
HOLES = np.random.default_rng(61).random((B, T)) < 0.6
# All keys of one example, none of the other.
FIRST = np.arange(T) < np.array([[4], [0]])
MASKS = {
    "none": None,
    "causal": ll.masks.Causal(),
    "padding": ll.masks.Padding(HOLES, FIRST),
    "no keys": ll.masks.Padding(FIRST),
    "causal, padding at the end": ll.masks.Causal() & ll.masks.Padding(FIRST),
    "causal, padding in between": ll.masks.Causal() & ll.masks.Padding(HOLES),
    "prefix": ll.masks.Prefix(3),
}


def arrays(length: int = T) -> list[np.ndarray]:
    """Queries, keys of fewer heads, and values of another size."""
    random = np.random.default_rng(67)
    return [random.normal(size=(B, *shape)) for shape in ((N, length, H), (K, length, H), (K, length, V))]


@pytest.mark.parametrize("name", MASKS)
def test_the_kernel_equals_the_formula(name: str) -> None:
    parts: dict[str, Any] = {"mask": MASKS[name]}
    if name == "causal":
        parts |= {"score": ll.positions.Rotary(ll.scores.Dot(), size=4), "normalizer": ll.normalizers.Softmax(0.7)}
    # The kernel is one of half precision; its formula is compared in a wider one, which shows more.
    dtype, bound = ("bfloat16", 3e-2) if backend.active().on_accelerator(ops.zeros(1)) else ("float32", 1e-5)

    def loss(*given: Any) -> Any:
        return ops.sum(ops.cast(ll.attend(*given, **parts), "float32") ** 2)

    given = [ops.cast(array, dtype) for array in arrays()]
    with thresholds.using(implementation="fused"):
        assert ll.explain_implementation(*given[:2], **parts).name == "fused"
        found = [numpy(ll.attend(*given, **parts)), *gradients(loss, given)]
    exact = [ops.cast(tensor, "float32") for tensor in given]
    with thresholds.using(implementation="dense"):
        expected = [numpy(ll.attend(*exact, **parts)), *gradients(loss, exact)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=bound * max(1.0, abs(other).max()))


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
def test_what_the_kernel_cannot_do_goes_another_way(parts: dict[str, Any]) -> None:
    query, key, _ = (ops.cast(array, "bfloat16") for array in arrays())
    with thresholds.using(implementation="fused"):
        assert ll.explain_implementation(query, key, **parts).name == "dense"


def test_the_kernel_is_taken_where_there_is_one() -> None:
    query, key, value = (ops.cast(array, "bfloat16") for array in arrays())
    there = backend.active().on_accelerator(query)
    assert (ll.explain_implementation(query, key).name == "fused") == there
    output = ll.attend(query, key, value)
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
