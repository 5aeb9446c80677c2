"""limelight's own layers: what is captured gives the weights that the layer returns."""

import functools

import keras
import numpy as np
import pytest

import limelight as ll
from contracts.representative import full
from limelight import functional
from selection import is_full

B, T, D = 2, 5, 6
STEPS = np.random.default_rng(7).normal(size=(B, T, D)).astype("float32")
MASK = np.array([[True] * T, [True] * 3 + [False] * 2])

# The settings of the layer, and the source of its map.
COMPONENTS = {
    "default": ({}, "QKSource"),
    "bilinear": ({"score": ll.scores.Bilinear()}, "QKSource"),
    "additive": ({"score": ll.scores.Additive(7)}, "QKSource"),
    "cosine": ({"score": ll.scores.Cosine()}, "QKSource"),
    "rotary and a bias": ({"score": ll.positions.Rotary(ll.scores.Dot()) + ll.positions.ALiBi()}, "QKSource"),
    "relative bias": (
        {"score": ll.scores.Dot() + ll.positions.RelativePositionBias(8, max_distance=8, initializer="normal")},
        "QKSource",
    ),
    "cap": ({"score": ll.scores.SoftCap(ll.scores.Dot(), 0.5)}, "QKSource"),
    "shaw": ({"score": ll.positions.Shaw(2)}, "WeightSource"),
    "causal window": ({"mask": ll.masks.Causal() & ll.masks.SlidingWindow(1)}, "QKSource"),
    "causal window from the start": (
        {"mask": ll.masks.Causal("start") & ll.masks.SlidingWindow(1, align="start")},
        "QKSource",
    ),
    "either mask": ({"mask": ll.masks.Causal() | ll.masks.SlidingWindow(1, 1)}, "QKSource"),
    "sparsemax": ({"normalizer": ll.normalizers.Sparsemax()}, "WeightSource"),
    "temperature": (
        {"score": ll.scores.Dot() + ll.positions.ALiBi(), "normalizer": ll.normalizers.Softmax(temperature=2.0)},
        "QKSource",
    ),
    "temperature over a cap": (
        {"score": ll.scores.SoftCap(ll.scores.Dot(), 0.5), "normalizer": ll.normalizers.Softmax(temperature=2.0)},
        "WeightSource",
    ),
}
if not is_full():
    # Fewer layers compile sooner: one or more of each kind of component and source.
    NAMES = ("default", "additive", "rotary and a bias", "shaw", "causal window", "sparsemax", "temperature over a cap")
    COMPONENTS = {name: COMPONENTS[name] for name in NAMES}


@functools.cache
def predict():
    """The outputs and weights of a model with a layer for each case: eager ones, and compiled ones with the maps."""
    x, padding = keras.Input((None, D)), keras.Input((None,), dtype="bool")
    outputs = []
    for name, (settings, _) in COMPONENTS.items():
        layer = ll.layers.MultiHeadAttention(2, 4, num_kv_heads=1, name=name.replace(" ", "_"), **settings)
        outputs += layer(x, x, value_mask=padding, return_attention_scores=True)
    model = keras.Model([x, padding], outputs)
    alone = [keras.ops.convert_to_numpy(output) for output in model([STEPS, MASK])]
    outputs, maps = ll.AttentionExtractor(model).predict([STEPS, MASK])
    return alone, outputs, maps


@pytest.mark.parametrize("name", COMPONENTS)
def test_components(name):
    alone, outputs, maps = predict()
    index, attention_map = 2 * list(COMPONENTS).index(name), maps[name.replace(" ", "_")]
    np.testing.assert_allclose(outputs[index], alone[index], atol=1e-6)
    np.testing.assert_allclose(attention_map.weights(), alone[index + 1], atol=1e-5)
    assert type(attention_map.source).__name__ == COMPONENTS[name][1]
    if name == "causal window":
        assert (attention_map.source.mask.left, attention_map.source.mask.right) == (1, 0)


@pytest.mark.full
def test_steps_between_examples_and_words(random):
    words = random.normal(size=(B, 3, T, D)).astype("float32")
    x = keras.Input((3, None, D))
    model = keras.Model(x, ll.layers.SelfAttention(4, mask="causal", name="mixing")(x))
    weights = ll.capture(model, words)["mixing"].weights()
    assert weights.shape == (B, 3, 1, T, T)
    alone = keras.Sequential([keras.Input((None, D)), model.layers[-1]])
    for step in range(3):
        np.testing.assert_allclose(weights[:, step], ll.capture(alone, words[:, step])["mixing"].weights(), atol=1e-6)


@pytest.mark.parametrize("causal", [full(False), True])
def test_linear_attention_announces_the_equivalent_call(causal):
    x = keras.Input((None, D))
    layer = ll.layers.LinearAttention(2, 4, causal=causal, name="mixing")
    model = keras.Model(x, layer(x, x))
    _, expected = layer(STEPS, STEPS, return_attention_scores=True)
    np.testing.assert_allclose(
        ll.capture(model, STEPS)["mixing"].weights(), keras.ops.convert_to_numpy(expected), atol=1e-6
    )
    calls = []
    with functional.on_call(calls.append):
        _, expected = layer(STEPS, STEPS, query_mask=MASK, value_mask=MASK, return_attention_scores=True)
    weights = keras.ops.convert_to_numpy(functional.compute_weights(calls[0]))
    np.testing.assert_allclose(weights, keras.ops.convert_to_numpy(expected), atol=1e-6)
    assert not weights[1, :, :, 3:].any()
