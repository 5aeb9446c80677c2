"""What must hold for every attention layer alike."""

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from limelight.attention import listening

array = ops.convert_to_numpy
VOCABULARY, WIDTH = 13, 8


LAYERS = {
    "attention": ll.layers.Attention,
    "attention additive": lambda **kwargs: ll.layers.Attention(score=ll.Additive(5), **kwargs),
    "self-attention": lambda **kwargs: ll.layers.SelfAttention(WIDTH, **kwargs),
    "self-attention causal": lambda **kwargs: ll.layers.SelfAttention(WIDTH, mask=ll.Causal() & ll.Window(2), **kwargs),
    "multi-head": lambda **kwargs: ll.layers.MultiHeadAttention(4, 2, kv_heads=2, use_gate=True, **kwargs),
    "pooling": ll.layers.AttentionPooling,
    "pooling several": lambda **kwargs: ll.layers.AttentionPooling(score="dot", queries=3, **kwargs),
}


def called(layer, steps, **kwargs):
    """The layer on one sequence, which is query and value at once where it takes both."""
    takes_both = isinstance(layer, (ll.layers.Attention, ll.layers.MultiHeadAttention))
    return layer(steps, steps, **kwargs) if takes_both else layer(steps, **kwargs)


@pytest.fixture(params=LAYERS)
def make(request):
    return LAYERS[request.param]


@pytest.fixture
def words(random):
    """Sentences of 7, 4 and 0 words, padded with 0."""
    ids = random.integers(1, VOCABULARY, (3, 7))
    ids[1, 4:] = ids[2] = 0
    return ids


def model_of(make, **kwargs):
    """Words to a class, with the weights as a second output."""
    words = keras.Input((None,), dtype="int32")
    steps = keras.layers.Embedding(VOCABULARY, WIDTH, mask_zero=True)(words)
    output, weights = called(make(**kwargs), steps, return_attention_scores=True)
    if len(output.shape) == 3:
        output = keras.layers.GlobalAveragePooling1D()(output)
    return keras.Model(words, {"class": keras.layers.Dense(2)(output), "weights": weights})


def test_saves_and_loads_and_clones(make, words, tmp_path):
    model = model_of(make, dropout=0.1, seed=3)
    before = model.predict(words, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    for other in (loaded, cloned):
        after = other.predict(words, verbose=0)
        for name in before:
            np.testing.assert_allclose(after[name], before[name], atol=1e-6)


def test_symbolic_shapes_are_the_real_ones(make, words):
    model = model_of(make)
    result = model(words)
    for name, tensor in model.output.items():
        for symbolic, real in zip(tensor.shape, result[name].shape, strict=True):
            assert symbolic in (None, real)


def test_weights_sum_to_one_over_real_words_and_padding_changes_nothing(make, words):
    model = model_of(make)
    weights = model.predict(words, verbose=0)["weights"]
    np.testing.assert_allclose(weights[0].sum(-1), 1, atol=1e-5)
    assert not weights[1][..., 4:].any()
    assert not weights[2].any()
    short = model.predict(words[1:2, :4], verbose=0)
    padded = model.predict(words[1:2], verbose=0)
    np.testing.assert_allclose(padded["class"], short["class"], atol=1e-5)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_near(make, dtype):
    # Values that half precision holds exactly, so that only the layer's own arithmetic differs.
    steps = np.random.default_rng(3).integers(-2, 3, (2, 7, WIDTH)).astype("float32")
    whole, half = make(), make(dtype=dtype)
    expected = array(called(whole, steps))
    called(half, steps)
    half.set_weights(whole.get_weights())
    output, weights = called(half, steps, return_attention_scores=True)
    assert keras.backend.standardize_dtype(output.dtype) == dtype.removeprefix("mixed_")
    np.testing.assert_allclose(array(ops.cast(output, "float32")), expected, atol=0.08, rtol=0.05)
    np.testing.assert_allclose(array(ops.cast(weights, "float32")).sum(-1), 1, atol=0.02)


def test_asking_for_the_weights_changes_no_output_and_dropout_no_weights(make):
    steps = np.random.default_rng(3).normal(size=(2, 7, WIDTH)).astype("float32")
    layer = make(dropout=0.5, seed=1)
    output, weights = called(layer, steps, return_attention_scores=True)
    np.testing.assert_array_equal(array(called(layer, steps)), array(output))
    dropped, trained = called(layer, steps, return_attention_scores=True, training=True)
    np.testing.assert_allclose(array(trained), array(weights), atol=1e-6)
    assert not np.allclose(array(dropped), array(output))


def test_learns_in_fit_with_lengths_that_vary(make, random):
    model = model_of(make, dropout=0.1)
    model.compile("adam", {"class": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "weights": None})
    for length in (3, 5):
        ids = random.integers(1, VOCABULARY, (8, length))
        loss = model.train_on_batch(ids, {"class": ids[:, 0] % 2})
        assert np.isfinite(np.asarray(loss)).all()


def test_tells_a_listener_what_it_asks(make):
    steps = np.random.default_rng(3).normal(size=(2, 7, WIDTH)).astype("float32")
    heard, layer = [], make()
    with listening(heard.append):
        called(layer, steps)
    called(layer, steps)
    assert len(heard) == 1
    assert heard[0].query.shape[-1] == heard[0].key.shape[-1]
    assert heard[0].key.shape[2] == 7


def test_a_regularizer_sees_the_weights_in_training_alone(make):
    steps = np.random.default_rng(3).normal(size=(2, 7, WIDTH)).astype("float32")
    layer = make(attention_regularizer=keras.regularizers.L2(1.0))
    called(layer, steps)
    assert not layer.losses
    _, weights = called(layer, steps, return_attention_scores=True, training=True)
    np.testing.assert_allclose(float(array(layer.losses[0])), np.square(array(weights)).sum(), rtol=1e-5)
