"""Each path and its reason, from tensors, symbols and shapes."""

from typing import Any

import keras
import numpy as np
import pytest

import limelight as ll
from limelight.engine import devices, limits

BACKEND = keras.backend.backend()
ACCELERATED = devices.accelerated(keras.ops.zeros(1))
SHORT, LONG = (2, 3, 5, 4), (1, 8, 8192, 4)
RUNNING = ("running", "one block of scores exists at a time")
LONGEST = {
    "jax": ("rows", "an accelerator is quicker with large blocks") if ACCELERATED else RUNNING,
    "tensorflow": ("rows", "Softmax needs whole rows"),
    "torch": ("fused", "PyTorch has a kernel"),
}
PLAIN = {"torch": ("fused", "PyTorch has a kernel")}
UNKNOWN = {**LONGEST, "tensorflow": ("plain", "must know the lengths before the model runs")}


def check(found: Any, expected: tuple[str, str]) -> None:
    """Compare a path and a part of its reason."""
    assert found.name == expected[0]
    assert expected[1] in found.why
    assert str(found) == f"{found.name}: {found.why}"


@pytest.mark.parametrize(
    ("query", "parts", "expected"),
    [
        (SHORT, {}, PLAIN.get(BACKEND, ("plain", "150 scores are few enough"))),
        (LONG, {}, LONGEST[BACKEND]),
        (LONG, {"score": ll.Rotary(ll.Dot()), "mask": "causal"}, LONGEST[BACKEND]),
        (LONG, {"normalizer": "sparsemax"}, ("rows", "Sparsemax needs whole rows")),
        (LONG, {"dropout": 0.1}, {**LONGEST, "torch": ("rows", "Softmax needs whole rows")}[BACKEND]),
        ((None, 8, None, 4), {}, UNKNOWN[BACKEND]),
        ((None, None, 4), {"mask": np.ones((7, 7), bool)}, UNKNOWN[BACKEND]),
        ((1 << 15, 4), {}, LONGEST[BACKEND]),
        ((2, 3, 8, 4096, 4), {}, LONGEST[BACKEND]),
    ],
)
def test_each_path_says_why(query: tuple, parts: dict[str, Any], expected: tuple[str, str]) -> None:
    check(ll.explain_path(query, query, **parts), expected)
    with limits.using(plain=1 << 60):
        found = ll.explain_path(query, query, **parts)
    assert found.name in ("plain", expected[0])


def test_symbols_and_tensors_say_the_same_as_shapes() -> None:
    for given in (keras.KerasTensor(LONG), keras.ops.zeros(LONG)):
        check(ll.explain_path(given, given), LONGEST[BACKEND])
    allowed = keras.KerasTensor(LONG[2:3] * 2, "bool")
    check(ll.explain_path(LONG, LONG, mask=allowed), LONGEST[BACKEND])


def test_queries_for_all_examples_are_broadcast() -> None:
    check(ll.explain_path((1, *LONG[1:]), (2, *LONG[1:])), ("plain", "broadcast against each other"))


def test_what_is_no_shape() -> None:
    with pytest.raises(TypeError, match=r"`query` must be a tensor or a shape such as .* Received: 4096"):
        ll.explain_path(4096, LONG)
    with pytest.raises(ValueError, match="N=3, K=2"):
        ll.explain_path(SHORT, (2, 2, 5, 4))
