"""Each path and its reason, from tensors, symbols and shapes."""

from typing import Any

import keras
import numpy as np
import pytest

import limelight as ll
from limelight.engine import backend, thresholds

BACKEND = keras.backend.backend()
ACCELERATED = backend.active().on_accelerator(keras.ops.zeros(1))
SHORT, LONG = (2, 3, 5, 4), (1, 8, 8192, 4)
RUNNING = ("online_softmax", "one block of scores exists at a time")
LONGEST = {
    "jax": ("blockwise", "an accelerator is quicker with large blocks") if ACCELERATED else RUNNING,
    "tensorflow": ("blockwise", "Softmax needs whole rows"),
    "torch": ("fused", "PyTorch has a kernel"),
}
PLAIN = {"torch": ("fused", "PyTorch has a kernel")}
UNKNOWN = {**LONGEST, "tensorflow": ("dense", "must know the lengths before the model runs")}


def check(found: Any, expected: tuple[str, str]) -> None:
    """Compare a path and a part of its reason."""
    assert found.name == expected[0]
    assert expected[1] in found.reason
    assert str(found) == f"{found.name}: {found.reason}"


@pytest.mark.parametrize(
    ("query", "parts", "expected"),
    [
        (SHORT, {}, PLAIN.get(BACKEND, ("dense", "150 scores are few enough"))),
        (LONG, {}, LONGEST[BACKEND]),
        (LONG, {"score": ll.positions.Rotary(ll.scores.Dot()), "mask": "causal"}, LONGEST[BACKEND]),
        (LONG, {"normalizer": "sparsemax"}, ("blockwise", "Sparsemax needs whole rows")),
        (LONG, {"dropout": 0.1}, {**LONGEST, "torch": ("blockwise", "Softmax needs whole rows")}[BACKEND]),
        ((None, 8, None, 4), {}, UNKNOWN[BACKEND]),
        ((None, None, 4), {"mask": np.ones((7, 7), bool)}, UNKNOWN[BACKEND]),
        ((1 << 15, 4), {}, LONGEST[BACKEND]),
        ((2, 3, 8, 4096, 4), {}, LONGEST[BACKEND]),
    ],
)
def test_each_path_says_why(query: tuple, parts: dict[str, Any], expected: tuple[str, str]) -> None:
    check(ll.explain_implementation(query, query, **parts), expected)
    with thresholds.using(max_dense_scores=1 << 60):
        found = ll.explain_implementation(query, query, **parts)
    assert found.name in ("dense", expected[0])


def test_symbols_and_tensors_say_the_same_as_shapes() -> None:
    for given in (keras.KerasTensor(LONG), keras.ops.zeros(LONG)):
        check(ll.explain_implementation(given, given), LONGEST[BACKEND])
    allowed = keras.KerasTensor(LONG[2:3] * 2, "bool")
    check(ll.explain_implementation(LONG, LONG, mask=allowed), LONGEST[BACKEND])


def test_queries_for_all_examples_are_broadcast() -> None:
    check(ll.explain_implementation((1, *LONG[1:]), (2, *LONG[1:])), ("dense", "broadcast against each other"))


def test_what_is_no_shape() -> None:
    with pytest.raises(TypeError, match=r"`query` must be a tensor or a shape such as .* Received: 4096"):
        ll.explain_implementation(4096, LONG)
    with pytest.raises(ValueError, match="N=3, K=2"):
        ll.explain_implementation(SHORT, (2, 2, 5, 4))
