"""Keras's own attention layers: captured weights against float64 formulas, and outputs left alone.

One model holds a layer for each case; it is run and captured once.
"""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import limelight as ll
from inspection.capturing import project, softmax
from selection import is_full

B, T, S, D = 2, 5, 7, 6


def make_data():
    random = np.random.default_rng(7)
    return {
        "query": random.normal(size=(B, T, D)).astype("float32"),
        "value": random.normal(size=(B, S, D)).astype("float32"),
        "query_mask": np.array([[True] * T, [True] * 3 + [False] * (T - 3)]),
        "value_mask": np.array([[True] * S, [True] * 4 + [False] * (S - 4)]),
        "array": random.random((B, T, S)) > 0.3,
    }


def make_inputs():
    """Symbolic inputs like the data, with unknown lengths."""
    return {
        "query": keras.Input((None, D), name="query"),
        "value": keras.Input((None, D), name="value"),
        "query_mask": keras.Input((None,), dtype="bool", name="query_mask"),
        "value_mask": keras.Input((None,), dtype="bool", name="value_mask"),
        "array": keras.Input((None, None), dtype="bool", name="array"),
    }


DATA = make_data()
CAUSAL = np.tri(T, S, dtype=bool)
DISTANCE = np.abs(np.arange(S)[None] - np.arange(T)[:, None])
KEYS, QUERIES = DATA["value_mask"][:, None, None], DATA["query_mask"][:, None, :, None]
ARRAY = DATA["array"][:, None]

# The settings of the layer, the arguments of its call given the inputs, and the mask that these amount to.
MULTI_HEAD = {
    "unmasked": ({}, lambda inputs: {}, True),
    "dropout": ({"dropout": 0.4}, lambda inputs: {}, True),
    "causal": ({}, lambda inputs: {"use_causal_mask": True}, CAUSAL),
    "causal and dropout": ({"dropout": 0.4}, lambda inputs: {"use_causal_mask": True}, CAUSAL),
    "window": ({"sliding_window": 2}, lambda inputs: {}, DISTANCE < 2),
    "array": ({}, lambda inputs: {"attention_mask": inputs["array"]}, ARRAY),
    "padding": ({"use_gate": True}, lambda inputs: {"value_mask": inputs["value_mask"]}, KEYS),
    "everything": (
        {"sliding_window": 3},
        lambda inputs: {
            "value_mask": inputs["value_mask"],
            "key_mask": inputs["value_mask"],
            "attention_mask": inputs["array"],
            "use_causal_mask": True,
        },
        KEYS & ARRAY & CAUSAL & (DISTANCE < 3),
    ),
}
GROUPED = [(dropout, causal) for dropout in (0.0, 0.4) for causal in (False, True)]
ATTENTION = [
    (settings, causal)
    for settings in (
        {},
        {"use_scale": True},
        {"score_mode": "concat"},
        {"score_mode": "concat", "use_scale": True, "dropout": 0.4},
    )
    for causal in (False, True)
]
if not is_full():
    # Fewer layers compile sooner. These have every kind of mask, score and kernel among them.
    MULTI_HEAD = {case: MULTI_HEAD[case] for case in ("unmasked", "causal and dropout", "everything")}
    GROUPED, ATTENTION = [(0.0, True)], [ATTENTION[1], ATTENTION[-2]]


def multi_head_layers(inputs):
    for case, (settings, make_arguments, _) in MULTI_HEAD.items():
        layer = layers.MultiHeadAttention(3, 4, name=f"multi_head_{case.replace(' ', '_')}", **settings)
        yield layer(inputs["query"], inputs["value"], **make_arguments(inputs))


def grouped_layers(inputs):
    for index, (dropout, causal) in enumerate(GROUPED):
        layer = layers.GroupQueryAttention(4, 6, 2, dropout=dropout, name=f"grouped_{index}")
        yield layer(inputs["query"], inputs["value"], attention_mask=inputs["array"], use_causal_mask=causal)


def single_head_layers(inputs):
    pair, masks = [inputs["query"], inputs["value"]], [inputs["query_mask"], inputs["value_mask"]]
    for index, (settings, causal) in enumerate(ATTENTION):
        yield layers.Attention(name=f"attention_{index}", **settings)(pair, mask=masks, use_causal_mask=causal)
    for index in range(2):
        layer = layers.AdditiveAttention(use_scale=bool(index), name=f"additive_{index}")
        yield layer(pair, mask=[None, inputs["value_mask"]])


@functools.cache
def build_model():
    """One model of all layers, with random weights."""
    inputs = make_inputs()
    outputs = [*multi_head_layers(inputs), *grouped_layers(inputs), *single_head_layers(inputs)]
    model = keras.Model(inputs, outputs)
    random = np.random.default_rng(3)
    model.set_weights([random.normal(size=weight.shape, scale=0.5) for weight in model.weights])
    return model


@functools.cache
def capture_both_ways():
    """Maps from `capture` and from a compiled `predict`."""
    return ll.capture(build_model(), DATA), predict()[1]


@functools.cache
def predict():
    return ll.AttentionExtractor(build_model()).predict(DATA, batch_size=1)


def check(name, expected):
    for maps in capture_both_ways():
        np.testing.assert_allclose(maps[name].weights(), expected, atol=1e-5)


def test_compiled_outputs_stay_as_they_are():
    expected, (outputs, _) = build_model().predict(DATA, batch_size=1, verbose=0), predict()
    for output, alone in zip(outputs, expected, strict=True):
        assert np.abs(output - alone).max() <= 1e-6 * np.abs(alone).max()


def test_eager_outputs_are_the_same_bit_for_bit():
    model = build_model()
    outputs, _ = ll.AttentionExtractor(model)(DATA)
    for output, alone in zip(outputs, model(DATA), strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(output), keras.ops.convert_to_numpy(alone))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras compiles single operations on TensorFlow alone"
)
@pytest.mark.parametrize("compiled", [False, True])
def test_outputs_of_grouped_convolutions_are_the_same_bit_for_bit(compiled):
    """Keras compiles them by XLA, and their operations one by one would differ in the last digit."""
    inputs = keras.Input((9, 9, 8))
    convolved = layers.Conv2D(8, 3, groups=8, padding="same")(inputs)
    model = keras.Model(inputs, [convolved, layers.Attention()([convolved, convolved])])
    data = np.random.default_rng(7).normal(size=(B, 9, 9, 8)).astype("float32")
    extractor = ll.AttentionExtractor(model)
    expected, outputs = (
        (model.predict(data, verbose=0), extractor.predict(data)[0]) if compiled else (model(data), extractor(data)[0])
    )
    for output, alone in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(output), keras.ops.convert_to_numpy(alone))


@pytest.mark.parametrize("case", MULTI_HEAD)
def test_multi_head_attention(case):
    name = f"multi_head_{case.replace(' ', '_')}"
    layer = build_model().get_layer(name)
    query, key = project(layer, "query", DATA["query"]), project(layer, "key", DATA["value"])
    scores = np.einsum("bnth,bnsh->bnts", query, key) / 2.0
    check(name, softmax(scores, MULTI_HEAD[case][2]))


@pytest.mark.parametrize("index", range(len(GROUPED)))
def test_grouped_query_attention(index):
    name, causal = f"grouped_{index}", GROUPED[index][1]
    layer = build_model().get_layer(name)
    query, key = project(layer, "query", DATA["query"]), project(layer, "key", DATA["value"])
    scores = np.einsum("bnth,bnsh->bnts", query, key.repeat(3, axis=1)) / 2.0
    check(name, softmax(scores, ARRAY & (CAUSAL if causal else True)))
    assert capture_both_ways()[0][name].source.key.shape == (B, 2, S, 4)


@pytest.mark.parametrize("index", range(len(ATTENTION)))
def test_attention(index):
    name, causal = f"attention_{index}", ATTENTION[index][1]
    layer = build_model().get_layer(name)
    scale = float(layer.get_weights()[0]) if layer.use_scale else 1.0
    query, key = DATA["query"].astype(float), DATA["value"].astype(float)
    if layer.score_mode == "dot":
        scores = scale * np.einsum("bth,bsh->bts", query, key)
    else:
        scores = float(layer.get_weights()[-1]) * np.tanh(scale * (query[:, :, None] + key[:, None])).sum(-1)
    check(name, softmax(scores[:, None], KEYS & QUERIES & (CAUSAL if causal else True)))


@pytest.mark.parametrize("use_scale", [False, True])
def test_additive_attention(use_scale):
    name = f"additive_{int(use_scale)}"
    layer = build_model().get_layer(name)
    vector = keras.ops.convert_to_numpy(layer.scale).astype(float) if use_scale else np.ones(D)
    query, key = DATA["query"].astype(float), DATA["value"].astype(float)
    scores = (np.tanh(query[:, :, None] + key[:, None]) * vector).sum(-1)
    check(name, softmax(scores[:, None], KEYS))


def test_implicit_masks_are_captured():
    ids = keras.Input((None,), dtype="int32")
    steps = layers.Embedding(11, D, mask_zero=True)(ids)
    model = keras.Model(ids, layers.MultiHeadAttention(2, 4, name="mixing")(steps, steps))
    maps = ll.capture(model, np.array([[3, 1, 4, 1, 5], [9, 2, 0, 0, 0]]))
    weights = maps["mixing"].weights()
    assert (weights[1, :, :, 2:] == 0).all()
    assert (weights[1, :, 2:] == 0).all()
    np.testing.assert_allclose(weights[1, :, :2].sum(-1), 1, atol=1e-6)
    # A padding mask is stored as one, not as a T x S array.
    assert maps["mixing"].source.mask.array is None


class FusedAttention(keras.Layer):
    """A custom layer that calls the backend's fused kernel."""

    def call(self, query, key):
        query, key = (keras.ops.reshape(x, (-1, keras.ops.shape(x)[1], 2, 3)) for x in (query, key))
        bias = keras.ops.reshape(keras.ops.arange(S, dtype="float32"), (1, 1, 1, S))
        return keras.ops.dot_product_attention(query, key, key, bias=bias, scale=0.25)


def test_a_fused_kernel_that_a_custom_layer_calls():
    inputs = make_inputs() | {"value": keras.Input((S, D), name="value")}
    model = keras.Model(inputs, FusedAttention(name="mixing")(inputs["query"], inputs["value"]))
    query, key = (DATA[name].astype(float).reshape(B, -1, 2, 3) for name in ("query", "value"))
    scores = 0.25 * np.einsum("btnh,bsnh->bnts", query, key) + np.arange(S)
    outputs, predicted = ll.AttentionExtractor(model).predict(DATA)
    np.testing.assert_allclose(outputs, keras.ops.convert_to_numpy(model(DATA)), atol=1e-6)
    for maps in (ll.capture(model, DATA), predicted):
        np.testing.assert_allclose(maps["mixing"].weights(), softmax(scores), atol=1e-5)


def test_layers_keep_their_fused_kernel(monkeypatch):
    """No weights are computed by the model to capture them."""
    from keras.src import backend

    inputs = make_inputs()
    model = keras.Model(inputs, layers.MultiHeadAttention(3, 4, name="mixing")(inputs["query"], inputs["value"]))
    calls = []
    fused = backend.nn.dot_product_attention

    def count(*args, **kwargs):
        calls.append(kwargs)
        return fused(*args, **kwargs)

    monkeypatch.setattr(backend.nn, "dot_product_attention", count)
    ll.capture(model, DATA)
    assert len(calls) == 1
