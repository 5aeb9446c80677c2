"""The choice of an implementation and its reason, from tensors, symbolic tensors and shapes."""

from typing import Any

import keras
import numpy as np
import pytest

import limelight as ll
from limelight.engine import backend, thresholds

pytestmark = pytest.mark.full

BACKEND = keras.backend.backend()
ON_ACCELERATOR = backend.active().on_accelerator(keras.ops.zeros(1))
SHORT, LONG = (2, 3, 5, 4), (1, 8, 8192, 4)
ONLINE_SOFTMAX = ("online_softmax", "one block of scores exists at a time")
FUSED = ("fused", "PyTorch has a kernel")
FOR_LONG = {
    "jax": ("blockwise", "an accelerator is faster with large blocks") if ON_ACCELERATOR else ONLINE_SOFTMAX,
    "tensorflow": ("blockwise", "Softmax needs whole rows"),
    "torch": FUSED,
}
FOR_SHORT = {"torch": FUSED}
FOR_UNKNOWN = {**FOR_LONG, "tensorflow": ("dense", "must know the lengths before the model runs")}


def check(implementation: Any, expected: tuple[str, str]) -> None:
    """Compare the name, and a part of the reason."""
    assert implementation.name == expected[0]
    assert expected[1] in implementation.reason
    assert str(implementation) == f"{implementation.name}: {implementation.reason}"


@pytest.mark.parametrize(
    ("shape", "parts", "expected"),
    [
        (SHORT, {}, FOR_SHORT.get(BACKEND, ("dense", "150 scores are few enough"))),
        (LONG, {}, FOR_LONG[BACKEND]),
        (LONG, {"score": ll.positions.Rotary(ll.scores.Dot()), "mask": "causal"}, FOR_LONG[BACKEND]),
        (LONG, {"normalizer": "sparsemax"}, ("blockwise", "Sparsemax needs whole rows")),
        (LONG, {"dropout": 0.1}, {**FOR_LONG, "torch": ("blockwise", "Softmax needs whole rows")}[BACKEND]),
        ((None, 8, None, 4), {}, FOR_UNKNOWN[BACKEND]),
        ((None, None, 4), {"mask": np.ones((7, 7), bool)}, FOR_UNKNOWN[BACKEND]),
        ((1 << 15, 4), {}, FOR_LONG[BACKEND]),
        ((2, 3, 8, 4096, 4), {}, FOR_LONG[BACKEND]),
    ],
)
def test_each_implementation_has_a_reason(shape: tuple, parts: dict[str, Any], expected: tuple[str, str]) -> None:
    check(ll.explain_implementation(shape, shape, **parts), expected)
    with thresholds.using(max_dense_scores=1 << 60):
        implementation = ll.explain_implementation(shape, shape, **parts)
    assert implementation.name in ("dense", expected[0])


def test_tensors_and_symbolic_tensors_are_explained_like_shapes() -> None:
    for x in (keras.KerasTensor(LONG), keras.ops.zeros(LONG)):
        check(ll.explain_implementation(x, x), FOR_LONG[BACKEND])
    mask = keras.KerasTensor(LONG[2:3] * 2, "bool")
    check(ll.explain_implementation(LONG, LONG, mask=mask), FOR_LONG[BACKEND])


def test_queries_for_all_examples_are_broadcast() -> None:
    check(ll.explain_implementation((1, *LONG[1:]), (2, *LONG[1:])), ("dense", "broadcast against each other"))


def test_arguments_must_be_tensors_or_shapes() -> None:
    with pytest.raises(TypeError, match=r"`query` must be a tensor or a shape such as .* Received: 4096"):
        ll.explain_implementation(4096, LONG)
    with pytest.raises(ValueError, match="N=3, K=2"):
        ll.explain_implementation(SHORT, (2, 2, 5, 4))
