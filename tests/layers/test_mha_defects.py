"""Fourteen defects of Keras 3.15.1's MultiHeadAttention that limelight's must not have."""

import keras
import numpy as np
import pytest
from keras import ops

from limelight.layers import MultiHeadAttention

pytestmark = pytest.mark.full

B, T, S, D, N, H = 2, 3, 5, 7, 2, 4
VOCABULARY = 11
array = ops.convert_to_numpy
# Two sentences of five words: the last two of the first are padding.
WORDS = np.array([[3, 1, 4, 0, 0], [1, 5, 9, 2, 6]])
PADDING = WORDS == 0


@pytest.fixture
def query(random):
    return random.normal(size=(B, T, D)).astype("float32")


@pytest.fixture
def memory(random):
    return random.normal(size=(B, S, D)).astype("float32")


def embed(words):
    """Return embedded words, which carry an implicit mask."""
    return keras.layers.Embedding(VOCABULARY, D, mask_zero=True)(words)


def attend_three_times(query, memory):
    """Return the weights of three layers in a row that attend to one memory."""
    seen = []
    for _ in range(3):
        read, weights = MultiHeadAttention(N, H)(query, memory, return_attention_scores=True)
        query = keras.layers.Add()([query, read])
        seen.append(weights)
    return seen


@pytest.mark.full
def test_every_layer_on_one_memory_masks_its_padding(query):
    for weights in attend_three_times(query, embed(WORDS)):
        weights = array(weights)
        np.testing.assert_array_equal(weights == 0, np.broadcast_to(PADDING[:, None, None], weights.shape))
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)


def test_every_layer_on_one_memory_masks_its_padding_in_a_compiled_model(query):
    words, state = keras.Input((S,), dtype="int32"), keras.Input((T, D))
    model = keras.Model([words, state], attend_three_times(state, embed(words)))
    for weights in model.predict([WORDS, query], verbose=0):
        np.testing.assert_array_equal(weights == 0, np.broadcast_to(PADDING[:, None, None], weights.shape))


@pytest.mark.full
def test_inputs_keep_their_implicit_masks():
    steps = embed(WORDS)
    layer = MultiHeadAttention(N, H)
    for _ in range(2):
        layer(steps, steps)
        np.testing.assert_array_equal(array(steps._keras_mask), ~PADDING)


def test_fully_masked_row_gives_zeros(query, memory):
    allowed = np.ones((B, T, S), bool)
    allowed[0, 1] = allowed[1, 2] = False
    layer = MultiHeadAttention(N, H, use_bias=False)
    output = layer(query, memory, attention_mask=allowed)
    same, weights = layer(query, memory, attention_mask=allowed, return_attention_scores=True)
    empty = ~allowed.any(-1)
    np.testing.assert_array_equal((array(output) == 0).all(-1), empty)
    np.testing.assert_array_equal((array(weights) == 0).all((1, 3)), empty)
    np.testing.assert_array_equal(array(same), array(output))


@pytest.mark.full
def test_fully_padded_sentence_gives_zeros(query):
    words = WORDS.copy()
    words[0] = 0
    output = array(MultiHeadAttention(N, H, use_bias=False)(query, embed(words)))
    assert not output[0].any()
    assert output[1].all()


@pytest.mark.full
def test_symbolic_shape_of_cross_attention(query, memory):
    inputs = keras.Input((T, D)), keras.Input((S, D))
    output, weights = MultiHeadAttention(N, H)(*inputs, return_attention_scores=True)
    assert tuple(weights.shape) == (None, N, T, S)
    assert tuple(keras.Model(inputs, weights)([query, memory]).shape) == (B, N, T, S)
    assert tuple(output.shape) == (None, T, D)


@pytest.mark.full
def test_symbolic_shape_with_attention_axes(random):
    rows = random.normal(size=(B, T, S, D)).astype("float32")
    table = keras.Input((T, S, D))
    _, weights = MultiHeadAttention(N, H, attention_axes=(2,))(table, table, return_attention_scores=True)
    assert tuple(weights.shape) == (None, T, N, S, S)
    assert tuple(keras.Model(table, weights)(rows).shape) == (B, T, N, S, S)


@pytest.mark.full
def test_values_may_be_wider_than_keys(query, memory):
    layer = MultiHeadAttention(N, H, value_dim=H + 2)
    plain = layer(query, memory)
    asked, weights = layer(query, memory, return_attention_scores=True)
    assert tuple(layer.value_dense.kernel.shape) == (D, N, H + 2)
    np.testing.assert_array_equal(array(asked), array(plain))
    weights, values = array(weights), array(layer.value_dense(memory))  # (B, N, T, S), (B, S, N, V)
    kernel, expected = array(layer.output_dense.kernel), np.zeros((B, T, D))
    for b, n, i, j in np.ndindex(B, N, T, S):
        expected[b, i] += weights[b, n, i, j] * values[b, j, n] @ kernel[n]
    np.testing.assert_allclose(array(plain), expected, atol=1e-5)


@pytest.mark.full
def test_explicit_query_mask_is_applied(query, memory):
    real = np.array([[True, True, False], [True, False, False]])
    layer = MultiHeadAttention(N, H, use_bias=False)
    output, whole = array(layer(query, memory, query_mask=real)), array(layer(query, memory))
    np.testing.assert_array_equal(output, np.where(real[..., None], whole, 0))
    assert whole.all()


def test_returning_weights_changes_no_bit_of_a_bfloat16_output(random):
    steps = ops.cast(2 * random.normal(size=(B, 61, 53)), "bfloat16")
    layer = MultiHeadAttention(4, 16, dtype="bfloat16")
    plain = layer(steps, steps)
    asked, _ = layer(steps, steps, return_attention_scores=True)
    np.testing.assert_array_equal(array(ops.cast(asked, "float32")), array(ops.cast(plain, "float32")))


@pytest.mark.full
def test_additive_mask_raises(query, memory):
    additive = np.where(np.tril(np.ones((1, T, S))) > 0, 0.0, -1e9).astype("float32")
    with pytest.raises(ValueError, match="only True and False"):
        MultiHeadAttention(N, H)(query, memory, attention_mask=additive)


@pytest.mark.full
def test_mask_that_may_be_of_padding_or_of_pairs_raises(random):
    square = random.normal(size=(T, T, D)).astype("float32")
    layer, mask = MultiHeadAttention(N, H), np.tril(np.ones((T, T), bool))
    with pytest.raises(ValueError, match=r"must differ in shape from a padding mask \(B, S\)"):
        layer(square, square, attention_mask=mask)
    for meant in (mask[None], mask[:, None]):
        _, weights = layer(square, square, attention_mask=meant, return_attention_scores=True)
        np.testing.assert_array_equal(array(weights) > 0, np.broadcast_to(meant[:, None], (T, N, T, T)))


@pytest.mark.full
def test_causal_mask_is_aligned_at_the_end(query, memory):
    layer = MultiHeadAttention(N, H)
    _, weights = layer(query, memory, use_causal_mask=True, return_attention_scores=True)
    expected = [[j <= i + S - T for j in range(S)] for i in range(T)]
    np.testing.assert_array_equal(array(weights) > 0, np.broadcast_to(expected, (B, N, T, S)))


@pytest.mark.full
def test_every_option_is_in_the_config(query):
    options = {"flash_attention": False, "dropout": 0.3, "seed": 5, "sliding_window": 2, "use_gate": True}
    layer = MultiHeadAttention(N, H, **options)
    config = layer.get_config()
    assert {name: config[name] for name in options} == options
    assert MultiHeadAttention.from_config(config).get_config() == config


@pytest.mark.full
def test_model_that_returns_weights_can_be_saved_and_loaded(memory, tmp_path):
    steps = keras.Input((None, D))
    layer = MultiHeadAttention(N, H)
    model = keras.Model(steps, layer(steps, steps, return_attention_scores=True, use_causal_mask=True))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    output, weights = (array(part) for part in loaded(memory))
    for after, before in zip((output, weights), model(memory), strict=True):
        np.testing.assert_allclose(after, array(before), atol=1e-6)
    np.testing.assert_array_equal(weights > 0, np.broadcast_to(np.tril(np.ones((S, S), bool)), (B, N, S, S)))
