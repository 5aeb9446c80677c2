"""An upgraded model has the outputs of the original, for any weights, inputs and masks."""

import functools
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import limelight as ll
from contracts.cases import B, S, T
from properties.drawing import examined, seeds
from selection import runs_everything

pytestmark = pytest.mark.full

WIDTH = 6


@functools.cache
def models() -> tuple[Any, Any]:
    """Return a model with all of Keras's attention layers, and the upgraded model."""
    query, value = keras.Input((T, WIDTH)), keras.Input((S, WIDTH))
    padding, allowed = keras.Input((S,), dtype="bool"), keras.Input((T, S), dtype="bool")
    masks = {"value_mask": padding, "attention_mask": allowed}
    read = layers.MultiHeadAttention(2, 4)(query, value, use_causal_mask=True, **masks)
    grouped = layers.GroupQueryAttention(4, 2, 2, sliding_window=3, use_gate=True)(read, value)
    luong = layers.Attention(use_scale=True)([grouped, value], mask=[None, padding], use_causal_mask=True)
    additive = layers.AdditiveAttention()([luong, value], mask=[None, padding])
    model = keras.Model([query, value, padding, allowed], [read, grouped, luong, additive])
    return model, ll.upgrade(model)


@settings(examined, max_examples=100 if runs_everything() else 15)
@given(seeds, st.floats(0.1, 1.5), st.floats(0.0, 1.0))
def test_upgrading_changes_no_output(seed: int, scale: float, share: float) -> None:
    random = np.random.default_rng(seed)
    padding, allowed = random.random((B, S)) < share, random.random((B, T, S)) < share
    # The first key is everybody's: of a row that permits nothing, Keras makes an average.
    padding[:, 0] = allowed[:, :, 0] = True
    steps = [random.normal(size=(B, length, WIDTH)).astype("float32") for length in (T, S)]
    model, upgraded = models()
    weights = [random.normal(size=weight.shape, scale=scale).astype("float32") for weight in model.weights]
    outputs = []
    for one in (model, upgraded):
        one.set_weights(weights)
        outputs.append(one.predict_on_batch([*steps, padding, allowed]))
    for before, after in zip(*outputs, strict=True):
        np.testing.assert_allclose(after, before, atol=1e-4 * max(1.0, np.abs(before).max()))
