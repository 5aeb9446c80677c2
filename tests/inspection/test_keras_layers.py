"""Keras's own attention layers: captured weights against float64 formulas, and outputs left alone."""

import keras
import numpy as np
import pytest
from keras import layers

import limelight as ll

B, T, S, D = 2, 5, 7, 6


def softmax(scores, allowed):
    """Weights in float64; rows that permit nothing are 0."""
    allowed = np.broadcast_to(allowed, scores.shape)
    raised = np.where(allowed, np.exp(scores - scores.max(axis=-1, keepdims=True)), 0.0)
    total = raised.sum(axis=-1, keepdims=True)
    return np.where(total > 0, raised / np.where(total > 0, total, 1), 0.0)


def projected(layer, name, x):
    """A projection into heads in float64: (B, T, D) to (B, N, T, H)."""
    values = {one.path.rsplit("/", 2)[-2:][0] + "/" + one.name: one for one in layer.weights}
    kernel, bias = (keras.ops.convert_to_numpy(values[f"{name}/{part}"]).astype(float) for part in ("kernel", "bias"))
    return np.einsum("btd,dnh->bnth", x.astype(float), kernel) + bias[None, :, None]


def randomised(layer, random):
    """The layer with random weights, biases too."""
    layer.set_weights([random.normal(size=one.shape, scale=0.5) for one in layer.weights])


def captured_both_ways(model, data):
    """Maps from `capture` and from a compiled `predict`, after checking that the outputs stay as they are."""
    eager = keras.ops.convert_to_numpy(model(data))
    plain = model.predict(data, batch_size=1, verbose=0)
    outputs, seen = ll.AttentionExtractor(model).predict(data, batch_size=1)
    assert np.abs(outputs - plain).max() <= 1e-6 * np.abs(plain).max()
    probed = keras.ops.convert_to_numpy(ll.AttentionExtractor(model)(data)[0])
    np.testing.assert_array_equal(probed, eager)
    return ll.capture(model, data), seen


def check(maps, seen, key, wanted):
    for found in (maps, seen):
        np.testing.assert_allclose(found[key].weights(), wanted, atol=1e-5)


@pytest.fixture
def data(random):
    return {
        "query": random.normal(size=(B, T, D)).astype("float32"),
        "value": random.normal(size=(B, S, D)).astype("float32"),
        "query_mask": np.array([[True] * T, [True] * 3 + [False] * (T - 3)]),
        "value_mask": np.array([[True] * S, [True] * 4 + [False] * (S - 4)]),
        "allowed": random.random((B, T, S)) > 0.3,
    }


def inputs():
    """Symbolic inputs like `data`, with unknown lengths."""
    return {
        "query": keras.Input((None, D), name="query"),
        "value": keras.Input((None, D), name="value"),
        "query_mask": keras.Input((None,), dtype="bool", name="query_mask"),
        "value_mask": keras.Input((None,), dtype="bool", name="value_mask"),
        "allowed": keras.Input((None, None), dtype="bool", name="allowed"),
    }


MULTI_HEAD = {
    "plain": ({}, lambda given: {}, lambda data: True),
    "dropout": ({"dropout": 0.4}, lambda given: {}, lambda data: True),
    "causal": ({}, lambda given: {"use_causal_mask": True}, lambda data: np.tri(T, S, dtype=bool)),
    "causal and dropout": (
        {"dropout": 0.4},
        lambda given: {"use_causal_mask": True},
        lambda data: np.tri(T, S, dtype=bool),
    ),
    "window": (
        {"sliding_window": 2},
        lambda given: {},
        lambda data: np.abs(np.arange(S)[None] - np.arange(T)[:, None]) < 2,
    ),
    "array": ({}, lambda given: {"attention_mask": given["allowed"]}, lambda data: data["allowed"][:, None]),
    "padding": (
        {"use_gate": True},
        lambda given: {"value_mask": given["value_mask"]},
        lambda data: data["value_mask"][:, None, None],
    ),
    "everything": (
        {"sliding_window": 3},
        lambda given: {
            "value_mask": given["value_mask"],
            "key_mask": given["value_mask"],
            "attention_mask": given["allowed"],
            "use_causal_mask": True,
        },
        lambda data: (
            data["value_mask"][:, None, None]
            & data["allowed"][:, None]
            & np.tri(T, S, dtype=bool)
            & (np.abs(np.arange(S)[None] - np.arange(T)[:, None]) < 3)
        ),
    ),
}


@pytest.mark.parametrize("case", MULTI_HEAD)
def test_multi_head_attention(case, data, random):
    settings, arguments, allowed = MULTI_HEAD[case]
    given = inputs()
    layer = layers.MultiHeadAttention(3, 4, name="mixing", **settings)
    model = keras.Model(given, layer(given["query"], given["value"], **arguments(given)))
    randomised(layer, random)
    query, key = projected(layer, "query", data["query"]), projected(layer, "key", data["value"])
    scores = np.einsum("bnth,bnsh->bnts", query, key) / 2.0
    check(*captured_both_ways(model, data), "mixing", softmax(scores, allowed(data)))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_grouped_query_attention(causal, dropout, data, random):
    given = inputs()
    layer = layers.GroupQueryAttention(4, 6, 2, dropout=dropout, name="mixing")
    mixed = layer(given["query"], given["value"], attention_mask=given["allowed"], use_causal_mask=causal)
    model = keras.Model(given, mixed)
    randomised(layer, random)
    query, key = projected(layer, "query", data["query"]), projected(layer, "key", data["value"])
    scores = np.einsum("bnth,bnsh->bnts", query, key.repeat(3, axis=1)) / 2.0
    allowed = data["allowed"][:, None] & (np.tri(T, S, dtype=bool) if causal else True)
    maps, seen = captured_both_ways(model, data)
    check(maps, seen, "mixing", softmax(scores, allowed))
    assert maps["mixing"].source.key.shape == (B, 2, S, 4)


@pytest.mark.parametrize("settings", [{}, {"use_scale": True}, {"score_mode": "concat"},
                                      {"score_mode": "concat", "use_scale": True, "dropout": 0.4}])  # fmt: skip
@pytest.mark.parametrize("causal", [False, True])
def test_attention(settings, causal, data, random):
    given = inputs()
    layer = layers.Attention(name="mixing", **settings)
    masks = [given["query_mask"], given["value_mask"]]
    model = keras.Model(given, layer([given["query"], given["value"]], mask=masks, use_causal_mask=causal))
    if layer.weights:
        randomised(layer, random)
    scale = float(layer.get_weights()[0]) if layer.use_scale else 1.0
    query, key = data["query"].astype(float), data["value"].astype(float)
    if layer.score_mode == "dot":
        scores = scale * np.einsum("bth,bsh->bts", query, key)
    else:
        scores = float(layer.get_weights()[-1]) * np.tanh(scale * (query[:, :, None] + key[:, None])).sum(-1)
    allowed = (
        data["value_mask"][:, None] & data["query_mask"][:, :, None] & (np.tri(T, S, dtype=bool) if causal else True)
    )
    check(*captured_both_ways(model, data), "mixing", softmax(scores, allowed)[:, None])


@pytest.mark.parametrize("use_scale", [False, True])
def test_additive_attention(use_scale, data, random):
    given = inputs()
    layer = layers.AdditiveAttention(use_scale=use_scale, name="mixing")
    model = keras.Model(given, layer([given["query"], given["value"]], mask=[None, given["value_mask"]]))
    if layer.weights:
        randomised(layer, random)
    vector = keras.ops.convert_to_numpy(layer.scale).astype(float) if use_scale else np.ones(D)
    query, key = data["query"].astype(float), data["value"].astype(float)
    scores = (np.tanh(query[:, :, None] + key[:, None]) * vector).sum(-1)
    check(*captured_both_ways(model, data), "mixing", softmax(scores, data["value_mask"][:, None])[:, None])


def test_implicit_masks_are_part_of_the_question(random):
    ids = keras.Input((None,), dtype="int32")
    steps = layers.Embedding(11, D, mask_zero=True)(ids)
    model = keras.Model(ids, layers.MultiHeadAttention(2, 4, name="mixing")(steps, steps))
    maps = ll.capture(model, np.array([[3, 1, 4, 1, 5], [9, 2, 0, 0, 0]]))
    weights = maps["mixing"].weights()
    assert (weights[1, :, :, 2:] == 0).all()
    assert (weights[1, :, 2:] == 0).all()
    np.testing.assert_allclose(weights[1, :, :2].sum(-1), 1, atol=1e-6)
    # A padding mask is kept as one, not as a T x S array.
    assert maps["mixing"].source.allowed.array is None


def test_a_fused_kernel_called_by_a_layer_of_ones_own(data):
    class Mixing(keras.Layer):
        def call(self, query, key):
            query, key = (keras.ops.reshape(x, (-1, keras.ops.shape(x)[1], 2, 3)) for x in (query, key))
            bias = keras.ops.reshape(keras.ops.arange(S, dtype="float32"), (1, 1, 1, S))
            return keras.ops.dot_product_attention(query, key, key, bias=bias, scale=0.25)

    given = inputs() | {"value": keras.Input((S, D), name="value")}
    model = keras.Model(given, Mixing(name="mixing")(given["query"], given["value"]))
    query, key = (data[name].astype(float).reshape(B, -1, 2, 3) for name in ("query", "value"))
    scores = 0.25 * np.einsum("btnh,bsnh->bnts", query, key) + np.arange(S)
    check(*captured_both_ways(model, data), "mixing", softmax(scores, True))


def test_heads_and_layers_keep_their_kernel(data, monkeypatch):
    """The fused kernel answers: no weights are asked for behind the model's back."""
    from keras.src import backend

    given = inputs()
    model = keras.Model(given, layers.MultiHeadAttention(3, 4, name="mixing")(given["query"], given["value"]))
    calls = []
    fused = backend.nn.dot_product_attention

    def counted(*args, **kwargs):
        calls.append(kwargs)
        return fused(*args, **kwargs)

    monkeypatch.setattr(backend.nn, "dot_product_attention", counted)
    ll.capture(model, data)
    assert len(calls) == 1
