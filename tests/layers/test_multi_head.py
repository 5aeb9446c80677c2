import keras
import numpy as np
import pytest
from keras import ops

from contracts.representative import full
from layers.formulas import multi_head
from limelight.layers import MultiHeadAttention

B, T, S, D, N, H, V = 2, 3, 5, 7, 6, 4, 11
array = ops.convert_to_numpy


@pytest.fixture
def query(random):
    return random.normal(size=(B, T, D)).astype("float32")


@pytest.fixture
def memory(random):
    return random.normal(size=(B, S, D)).astype("float32")


def randomized(layer, random, *shapes):
    """Build a layer and give each weight random values, biases too."""
    layer.build(*shapes)
    layer.set_weights([random.normal(size=weight.shape).astype("float32") * 0.5 for weight in layer.weights])
    return layer


@pytest.mark.parametrize("num_kv_heads", [full(None), 2, full(1)])
def test_equals_the_formula(random, query, memory, num_kv_heads):
    layer = randomized(
        MultiHeadAttention(N, H, value_dim=V, num_kv_heads=num_kv_heads), random, query.shape, memory.shape
    )
    output, weights = layer(query, memory, return_attention_scores=True)
    named = {weight.path.split("/", 1)[1]: array(weight) for weight in layer.weights}
    ordered = [
        named[f"{part}/{kind}"] for part in ("query", "key", "value", "attention_output") for kind in ("kernel", "bias")
    ]
    for example in range(B):
        expected, seen = multi_head(query[example], memory[example], ordered)
        np.testing.assert_allclose(array(output)[example], expected, atol=2e-5)
        np.testing.assert_allclose(array(weights)[example], seen, atol=1e-6)


@pytest.mark.full
def test_loads_weights_of_keras_and_gives_the_same_output(random, query, memory, tmp_path):
    def model(layer_class):
        inputs = keras.Input((T, D)), keras.Input((S, D))
        return keras.Model(inputs, layer_class(2, H, use_gate=True, name="attention")(*inputs))

    theirs, ours = model(keras.layers.MultiHeadAttention), model(MultiHeadAttention)
    assert {weight.path: weight.shape for weight in ours.weights} == {
        weight.path: weight.shape for weight in theirs.weights
    }
    theirs.set_weights([random.normal(size=weight.shape) for weight in theirs.weights])
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    ours.load_weights(tmp_path / "theirs.weights.h5")
    np.testing.assert_allclose(array(ours([query, memory])), array(theirs([query, memory])), atol=1e-5)


def test_all_masks_are_combined(random, query, memory):
    layer = randomized(MultiHeadAttention(2, H, mask="causal"), random, query.shape, memory.shape)
    real_keys = np.array([[True, True, True, False, True], [True] * 5])
    real_values = np.array([[True] * 5, [False, True, True, True, True]])
    real_queries = np.array([[True, True, True], [True, False, True]])
    allowed = random.random((B, T, S)) < 0.8
    _, weights = layer(
        query, memory, key=memory, query_mask=real_queries, value_mask=real_values, key_mask=real_keys,
        attention_mask=allowed, return_attention_scores=True,
    )  # fmt: skip
    expected = np.zeros((B, T, S), bool)
    for b, i, j in np.ndindex(B, T, S):
        expected[b, i, j] = (
            real_queries[b, i] and real_keys[b, j] and real_values[b, j] and allowed[b, i, j] and j <= i + S - T
        )
    np.testing.assert_array_equal(array(weights) > 0, np.repeat(expected[:, None], 2, axis=1))


@pytest.mark.full
def test_bias_is_added_to_the_scores(random, query, memory):
    layer = randomized(MultiHeadAttention(2, H), random, query.shape, memory.shape)
    bias = random.normal(size=(B, 2, T, S)).astype("float32")
    _, plain = layer(query, memory, return_attention_scores=True)
    _, biased = layer(query, memory, bias=bias, return_attention_scores=True)
    expected = array(plain) * np.exp(bias)
    np.testing.assert_allclose(array(biased), expected / expected.sum(-1, keepdims=True), atol=1e-5)


def test_bias_beyond_the_range_of_float16(random, query, memory):
    bias = random.normal(size=(B, 1, T, S)).astype("float32")
    bias[0, :, 0, :3] -= 1e9
    bias[1, :, 1] -= 1e6
    bias[1, :, 2, 1] = 70000.0
    layer = MultiHeadAttention(2, H, dtype="mixed_float16", kernel_initializer="zeros")
    inputs = [keras.Input(given.shape[1:]) for given in (query, memory, bias)]
    _, weights = layer(*inputs[:2], bias=inputs[2], return_attention_scores=True)
    found = array(keras.Model(inputs, weights)([query, memory, bias]))
    expected = np.exp(bias.astype("float64") - bias.max(axis=-1, keepdims=True))
    expected /= expected.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found, np.repeat(expected, 2, axis=1), atol=1e-3)


@pytest.mark.full
@pytest.mark.parametrize("has_bias", [False, True])
def test_implicit_masks_are_read_in_float16(has_bias):
    steps = keras.layers.Embedding(3, D, mask_zero=True)(np.array([[1, 2, 0], [2, 1, 1]]))
    bias = {"bias": np.zeros((1, 1, 3, 3), "float32")} if has_bias else {}
    output, weights = MultiHeadAttention(2, H, dtype="mixed_float16")(
        steps, steps, return_attention_scores=True, **bias
    )
    is_real = np.array([[True, True, False], [True] * 3])
    np.testing.assert_array_equal(array(weights)[:, 0] > 0, is_real[:, :, None] & is_real[:, None])
    np.testing.assert_array_equal(array(output._keras_mask), is_real)
    assert {keras.backend.standardize_dtype(each.dtype) for each in (output, weights)} == {"float16"}


@pytest.mark.full
@pytest.mark.parametrize("axes", [(2,), (1, 2), (-2,), (1,)])
def test_attention_axes_equal_attention_over_the_flattened_sequence(random, axes):
    x = random.normal(size=(B, 3, 5, D)).astype("float32")
    layer = randomized(MultiHeadAttention(2, H, attention_axes=axes), random, x.shape, x.shape)
    flat = randomized(MultiHeadAttention(2, H), random, (B, 5, D), (B, 5, D))
    flat.set_weights(layer.get_weights())
    output, weights = layer(x, x, return_attention_scores=True)
    if axes in ((2,), (-2,)):
        expected = [[array(flat(x[b, i][None], x[b, i][None]))[0] for i in range(3)] for b in range(B)]
        assert weights.shape == (B, 3, 2, 5, 5)
    elif axes == (1,):
        expected = np.stack([array(flat(x[:, :, i], x[:, :, i])) for i in range(5)], axis=2)
        assert weights.shape == (B, 5, 2, 3, 3)
    else:
        expected = array(flat(x.reshape(B, 15, D), x.reshape(B, 15, D))).reshape(B, 3, 5, D)
        assert weights.shape == (B, 2, 3, 5, 3, 5)
    np.testing.assert_allclose(array(output), expected, atol=1e-5)


@pytest.mark.full
def test_mask_over_several_axes(random):
    x = random.normal(size=(B, 2, 3, D)).astype("float32")
    layer = randomized(MultiHeadAttention(2, H, attention_axes=(1, 2)), random, x.shape, x.shape)
    allowed = random.random((B, 2, 3, 2, 3)) < 0.7
    _, weights = layer(x, x, attention_mask=allowed, return_attention_scores=True)
    np.testing.assert_array_equal(array(weights) > 0, np.repeat(allowed[:, None], 2, axis=1))


@pytest.mark.full
def test_subclass_may_override_compute_attention(random, query, memory):
    class Doubled(MultiHeadAttention):
        def _compute_attention(
            self, query, key, value, attention_mask=None, training=None, return_attention_scores=False
        ):
            assert attention_mask.shape == (B, 1, T, S)
            output, scores = super()._compute_attention(
                query, key, value, attention_mask, training, return_attention_scores
            )
            return output * 2.0, scores

    layer = randomized(Doubled(2, H, use_bias=False), random, query.shape, memory.shape)
    plain = MultiHeadAttention(2, H, use_bias=False)
    plain.build(query.shape, memory.shape)
    plain.set_weights(layer.get_weights())
    output = layer(query, memory, use_causal_mask=True)
    np.testing.assert_allclose(array(output), 2 * array(plain(query, memory, use_causal_mask=True)), atol=1e-5)


class Overridden(MultiHeadAttention):
    """A layer whose attention is that of its parent, computed by way of what a subclass may override."""

    def _compute_attention(self, *args, **kwargs):
        return super()._compute_attention(*args, **kwargs)


@pytest.mark.full
@pytest.mark.parametrize(
    ("axes", "shape", "mask_shape"),
    [
        (None, (5, D), (B, 1, 5, 5)),
        (None, (5, D), (B, 2, 5, 5)),
        ((2,), (3, 5, D), (B, 1, 2, 5, 5)),
        ((1, 2), (2, 3, D), (B, 2, 3, 2, 3)),
        ((1, 2), (2, 3, D), (B, 2, 2, 3, 2, 3)),
    ],
)
def test_masks_reach_an_overridden_compute_attention(random, axes, shape, mask_shape):
    x = random.normal(size=(B, *shape)).astype("float32")
    plain = randomized(MultiHeadAttention(2, H, attention_axes=axes), random, x.shape, x.shape)
    overridden = randomized(Overridden(2, H, attention_axes=axes), random, x.shape, x.shape)
    overridden.set_weights(plain.get_weights())
    masks = {"attention_mask": random.random(mask_shape) < 0.7, "value_mask": random.random((B, *shape[:-1])) < 0.8}
    for arguments in ({"use_causal_mask": True}, masks, {"use_causal_mask": True, **masks}):
        found, expected = (layer(x, x, **arguments, return_attention_scores=True) for layer in (overridden, plain))
        np.testing.assert_allclose(array(found[0]), array(expected[0]), atol=1e-5)
        np.testing.assert_allclose(array(found[1]), array(expected[1]), atol=1e-6)


@pytest.mark.full
def test_bias_beside_an_overridden_compute_attention_raises(query, memory):
    with pytest.raises(ValueError, match="takes no `bias`"):
        Overridden(2, H)(query, memory, bias=np.zeros((B, 2, T, S), "float32"))


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 0, "key_dim": 4}, "`num_heads` must be a positive integer"),
        ({"num_heads": 6, "key_dim": 4, "num_kv_heads": 4}, r"num_kv_heads=4. Use one of \[1, 2, 3, 6\]"),
        ({"num_heads": 2, "key_dim": 4, "dropout": 1.0}, r"`dropout` must be in \[0, 1\)"),
        ({"num_heads": 2, "key_dim": 4, "score": "cosine?"}, "`score` must be one of"),
        ({"num_heads": 2, "key_dim": 4, "attention_axes": "1"}, "`attention_axes`: it must be an int"),
        ({"num_heads": 2, "key_dim": 4, "sliding_window": 0}, "`sliding_window` must be a positive integer"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(**arguments)


@pytest.mark.full
def test_ambiguous_mask_raises(random):
    square = random.normal(size=(3, 3, D)).astype("float32")
    with pytest.raises(ValueError, match=r"Write attention_mask\[None\] for a \(T, S\) mask"):
        MultiHeadAttention(2, H)(square, square, attention_mask=np.ones((3, 3), bool))
