"""`attend` equals `keras.ops.dot_product_attention`, whose heads come third, by the conversion that its docstring gives."""

from typing import Any

import keras
import numpy as np
import pytest

import limelight as ll

B, N, T, S, H = 2, 3, 5, 7, 8
MASK = np.random.default_rng(5).random((B, N, T, S)) < 0.7
MASK[..., 0] = True
BIAS = np.random.default_rng(7).normal(size=(B, N, T, S)).astype("float32")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({}, {}),
        ({"mask": MASK}, {"mask": MASK}),
        ({"bias": BIAS}, {"score": ll.scores.Dot() + ll.scores.Bias(BIAS)}),
        ({"scale": 0.3}, {"score": ll.scores.Dot(scale=0.3)}),
        ({"is_causal": True}, {"mask": ll.masks.Causal("start")}),
    ],
    ids=["plain", "mask", "bias", "scale", "causal"],
)
def test_swapped_axes_give_the_output_of_keras(
    random: np.random.Generator, arguments: dict[str, Any], parts: dict[str, Any]
) -> None:
    heads_third = [random.normal(size=(B, length, N, H)).astype("float32") for length in (T, S, S)]
    query, key, value = (keras.ops.swapaxes(x, 1, 2) for x in heads_third)
    output = keras.ops.swapaxes(ll.attend(query, key, value, **parts), 1, 2)
    expected = keras.ops.dot_product_attention(*(keras.ops.convert_to_tensor(x) for x in heads_third), **arguments)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(output), keras.ops.convert_to_numpy(expected), rtol=1e-4, atol=1e-5
    )
