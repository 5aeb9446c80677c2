"""limelight's own layers: what is captured gives the weights that the layer returns."""

import keras
import numpy as np
import pytest

import limelight as ll

B, T, D = 2, 5, 6


@pytest.fixture
def steps(random):
    return random.normal(size=(B, T, D)).astype("float32")


PARTS = {
    "plain": ({}, "QKSource"),
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


@pytest.mark.parametrize("name", PARTS)
def test_parts(name, steps):
    settings, kind = PARTS[name]
    x = keras.Input((None, D))
    layer = ll.layers.MultiHeadAttention(2, 4, num_kv_heads=1, name="mixing", **settings)
    mask = np.array([[True] * T, [True] * 3 + [False] * 2])
    padding = keras.Input((None,), dtype="bool")
    output, weights = layer(x, x, value_mask=padding, return_attention_scores=True)
    model = keras.Model([x, padding], [output, weights])
    outputs, maps = ll.AttentionExtractor(model).predict([steps, mask])
    plain = model.predict([steps, mask], verbose=0)
    np.testing.assert_allclose(outputs[0], plain[0], atol=1e-6)
    np.testing.assert_allclose(maps["mixing"].weights(), plain[1], atol=1e-5)
    assert type(maps["mixing"].source).__name__ == kind
    if name == "causal window":
        assert (maps["mixing"].source.allowed.left, maps["mixing"].source.allowed.right) == (1, 0)


def test_steps_between_examples_and_words(random):
    words = random.normal(size=(B, 3, T, D)).astype("float32")
    x = keras.Input((3, None, D))
    model = keras.Model(x, ll.layers.SelfAttention(4, mask="causal", name="mixing")(x))
    maps = ll.capture(model, words)
    weights = maps["mixing"].weights()
    assert weights.shape == (B, 3, 1, T, T)
    alone = keras.Sequential([keras.Input((None, D)), model.layers[-1]])
    for step in range(3):
        np.testing.assert_allclose(weights[:, step], ll.capture(alone, words[:, step])["mixing"].weights(), atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_linear_attention_says_what_it_amounts_to(causal, steps):
    x = keras.Input((None, D))
    layer = ll.layers.LinearAttention(2, 4, causal=causal, name="mixing")
    model = keras.Model(x, layer(x, x))
    real = np.array([[True] * T, [True] * 3 + [False] * 2])
    _, expected = layer(steps, steps, return_attention_scores=True)
    np.testing.assert_allclose(
        ll.capture(model, steps)["mixing"].weights(), keras.ops.convert_to_numpy(expected), atol=1e-6
    )
    seen = []
    with ll.attention.listening(seen.append):
        _, expected = layer(steps, steps, query_mask=real, value_mask=real, return_attention_scores=True)
    weights = keras.ops.convert_to_numpy(ll.attention.weights(seen[0]))
    np.testing.assert_allclose(weights, keras.ops.convert_to_numpy(expected), atol=1e-6)
    assert not weights[1, :, :, 3:].any()
