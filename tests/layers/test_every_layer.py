"""Tests that every attention layer passes."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from compiling import predict
from contracts.representative import full
from gradients import gradients
from limelight.functional import on_call

array = ops.convert_to_numpy
VOCABULARY, WIDTH = 13, 8


LAYERS = {
    "attention": ll.layers.Attention,
    "attention additive": lambda **kwargs: ll.layers.Attention(score=ll.scores.Additive(5), **kwargs),
    "self-attention": lambda **kwargs: ll.layers.SelfAttention(WIDTH, **kwargs),
    "self-attention causal": lambda **kwargs: ll.layers.SelfAttention(
        WIDTH, mask=ll.masks.Causal() & ll.masks.SlidingWindow(2), **kwargs
    ),
    "multi-head": lambda **kwargs: ll.layers.MultiHeadAttention(4, 2, num_kv_heads=2, use_gate=True, **kwargs),
    "pooling": ll.layers.AttentionPooling,
    "pooling several": lambda **kwargs: ll.layers.AttentionPooling(score="dot", num_queries=3, **kwargs),
}


def call_layer(layer, steps, **kwargs):
    """Call a layer on one sequence, as query and value if it takes both."""
    takes_both = isinstance(layer, (ll.layers.Attention, ll.layers.MultiHeadAttention))
    return layer(steps, steps, **kwargs) if takes_both else layer(steps, **kwargs)


@pytest.fixture(params=LAYERS)
def make(request):
    return LAYERS[request.param]


@pytest.fixture(scope="module")
def words():
    """Sentences of 7, 4 and 0 words, padded with 0."""
    ids = np.random.default_rng(7).integers(1, VOCABULARY, (3, 7))
    ids[1, 4:] = ids[2] = 0
    return ids


def output_name(name, what):
    """Return the name of an output of `make_model`."""
    return f"{name.replace(' ', '_')}.{what}"


def make_model(**kwargs):
    """Return one model with all layers, from words to a number and weights each: it is compiled once."""
    words = keras.Input((None,), dtype="int32")
    steps = keras.layers.Embedding(VOCABULARY, WIDTH, mask_zero=True)(words)
    outputs = {}
    for name, make in LAYERS.items():
        layer = make(name=name.replace(" ", "_"), **kwargs)
        output, weights = call_layer(layer, steps, return_attention_scores=True)
        if len(output.shape) == 3:
            output = keras.layers.GlobalAveragePooling1D()(output)
        # TensorFlow makes scopes of these names, which may hold no blanks.
        outputs[output_name(name, "number")] = keras.layers.Dense(1)(output)
        outputs[output_name(name, "weights")] = weights
    return keras.Model(words, outputs)


def without_build_config(config):
    """A config without the shapes that parts were built for, which a loaded layer knows in part only."""
    if not isinstance(config, dict):
        return config
    return {name: without_build_config(value) for name, value in config.items() if name != "build_config"}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(7)
    return make_model(dropout=0.1, seed=3)


@pytest.fixture(scope="module")
def predicted(model, words):
    return predict(model, words)


@pytest.mark.full
def test_saves_and_loads_and_clones(model, predicted, words, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    # A clone of the loaded model tests both with one compilation.
    cloned = keras.models.clone_model(loaded)
    cloned.set_weights(loaded.get_weights())
    after = predict(cloned, words)
    for name, before in predicted.items():
        np.testing.assert_allclose(after[name], before, atol=1e-6, err_msg=name)
    for weight, original in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(array(weight), array(original))
    for layer in model.layers:
        config = without_build_config(layer.get_config())
        assert without_build_config(loaded.get_layer(layer.name).get_config()) == config


def test_symbolic_shapes_equal_eager_shapes(model, predicted):
    for name, tensor in model.output.items():
        for symbolic, real in zip(tensor.shape, predicted[name].shape, strict=True):
            assert symbolic in (None, real), name


def test_padding_has_no_effect(model, predicted, words):
    short = predict(model, words[1:2, :4])
    for name in LAYERS:
        weights = predicted[output_name(name, "weights")][1]
        assert not weights[..., 4:].any(), name
        rows = weights.sum(-1) if "pooling" in name else weights[..., :4, :].sum(-1)
        np.testing.assert_allclose(rows, 1, atol=1e-5, err_msg=name)
        number = output_name(name, "number")
        np.testing.assert_allclose(predicted[number][1], short[number][0], atol=1e-5, err_msg=name)


def decode():
    """Return an `AttentionRNN`, and a function that runs it over a sequence as its steps and its memory."""
    cell = ll.layers.AttentionCell(keras.layers.SimpleRNNCell(5), WIDTH)
    layer = ll.layers.AttentionRNN(cell, return_sequences=True)
    return layer, lambda steps, real: layer(steps, steps, sequences_mask=real, memory_mask=real)


def attend_with(layer, *names):
    """Return a layer, and a function that calls it on one sequence with its padding mask under these names."""
    takes_both = not isinstance(layer, ll.layers.SelfAttention | ll.layers.AttentionPooling)
    return layer, lambda steps, real: layer(*[steps] * (1 + takes_both), **dict.fromkeys(names, real))


def pool_document():
    """Return a `HierarchicalPooling`, and a function that pools a sequence as a document of one sentence."""
    layer = ll.layers.HierarchicalPooling(4, word_encoder=keras.layers.Dense(5))
    return layer, lambda steps, real: layer(steps[:, None], mask=None if real is None else real[:, None])


@pytest.mark.parametrize(
    "make",
    [
        lambda: attend_with(ll.layers.SelfAttention(4), "mask"),
        lambda: attend_with(ll.layers.MultiHeadAttention(2, 3, use_gate=True), "query_mask", "value_mask"),
        full(lambda: attend_with(ll.layers.MultiHeadAttention(2, 3, latent_dim=4), "query_mask", "value_mask")),
        lambda: attend_with(ll.layers.LinearAttention(2, 3), "query_mask", "value_mask"),
        lambda: attend_with(ll.layers.AttentionPooling(4), "mask"),
        full(pool_document),
        full(decode),
    ],
    ids=["self", "multi-head", "latent", "linear", "pooling", "hierarchical", "recurrent"],
)
def test_nan_in_padding_leaves_the_gradients(make, random):
    layer, call = make()
    steps = random.normal(size=(1, 4, WIDTH)).astype("float32")
    padded = np.concatenate([steps, np.full((1, 3, WIDTH), np.nan, "float32")], axis=1)
    real = ~np.isnan(padded[..., 0])
    call(steps, None)

    def loss(steps, real=None):
        output = call(steps, real)
        return ops.sum(output[:, :4] ** 2)

    variables = layer.trainable_variables
    found = gradients(lambda steps: loss(steps, ops.convert_to_tensor(real)), [padded], variables)
    by_steps, *expected = gradients(loss, [steps], variables)
    assert not found[0][:, 4:].any()
    for gradient, alone in zip([found[0][:, :4], *found[1:]], [by_steps, *expected], strict=True):
        np.testing.assert_allclose(gradient, alone, atol=1e-5 * max(1, np.abs(alone).max()))


def test_empty_sequence_gives_zeros(make, words):
    steps = keras.layers.Embedding(VOCABULARY, WIDTH, mask_zero=True)(words[2:])
    layer = make()
    output, weights = call_layer(layer, steps, return_attention_scores=True)
    assert not array(weights).any()
    assert np.isfinite(array(output)).all()
    # Multi-head attention projects once more: of nothing read, its biases are left, which start at zero.
    assert not array(output).any()


@pytest.mark.full
def test_trains_and_predicts_with_varying_lengths(random):
    model = make_model(dropout=0.1)
    losses = {name: None if "weights" in name else "mse" for name in model.output}
    # XLA would take TensorFlow longer than all other tests of this module.
    model.compile("adam", losses, jit_compile=keras.backend.backend() == "jax")
    before = [array(weight).copy() for weight in model.weights]
    for length in (3, 7):
        ids = random.integers(1, VOCABULARY, (2, length))
        target = {name: ids[:, :1].astype("float32") for name in model.output if "number" in name}
        assert np.isfinite(np.asarray(model.train_on_batch(ids, target))).all()
    moved = [not np.array_equal(array(weight), old) for weight, old in zip(model.weights, before, strict=True)]
    assert all(moved)
    compiled, eager = model.predict(ids, verbose=0), model(ids)
    for name in eager:
        np.testing.assert_allclose(compiled[name], array(eager[name]), atol=1e-5, err_msg=name)


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_close(make, dtype):
    # Values that half precision holds exactly, so that only the layer's own arithmetic differs.
    steps = np.random.default_rng(3).integers(-2, 3, (2, 7, WIDTH)).astype("float32")
    whole, half = make(), make(dtype=dtype)
    expected = array(call_layer(whole, steps))
    call_layer(half, steps)
    half.set_weights(whole.get_weights())
    output, weights = call_layer(half, steps, return_attention_scores=True)
    assert keras.backend.standardize_dtype(output.dtype) == dtype.removeprefix("mixed_")
    np.testing.assert_allclose(array(ops.cast(output, "float32")), expected, atol=0.08, rtol=0.05)
    np.testing.assert_allclose(array(ops.cast(weights, "float32")).sum(-1), 1, atol=0.02)


@pytest.mark.full
def test_returning_weights_leaves_the_output_and_dropout_leaves_the_weights(make):
    steps = np.random.default_rng(3).normal(size=(2, 7, WIDTH)).astype("float32")
    layer = make(dropout=0.5, seed=1)
    output, weights = call_layer(layer, steps, return_attention_scores=True)
    np.testing.assert_array_equal(array(call_layer(layer, steps)), array(output))
    dropped, trained = call_layer(layer, steps, return_attention_scores=True, training=True)
    np.testing.assert_allclose(array(trained), array(weights), atol=1e-6)
    assert not np.allclose(array(dropped), array(output))


@pytest.mark.full
def test_announces_its_call(make):
    steps = np.random.default_rng(3).normal(size=(2, 7, WIDTH)).astype("float32")
    calls, layer = [], make()
    with on_call(calls.append):
        call_layer(layer, steps)
    call_layer(layer, steps)
    assert len(calls) == 1
    assert calls[0].query.shape[-1] == calls[0].key.shape[-1]
    assert calls[0].key.shape[2] == 7


@pytest.mark.full
def test_regularizer_is_applied_in_training_only(make):
    steps = np.random.default_rng(3).normal(size=(2, 7, WIDTH)).astype("float32")
    layer = make(attention_regularizer=keras.regularizers.L2(1.0))
    call_layer(layer, steps)
    assert not layer.losses
    _, weights = call_layer(layer, steps, return_attention_scores=True, training=True)
    np.testing.assert_allclose(float(array(layer.losses[0])), np.square(array(weights)).sum(), rtol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [each for each in vars(ll.layers).values() if hasattr(each, "compute_output_spec")],
    ids=lambda x: x.__name__,
)
def test_shapes_are_inferred_from_the_arguments_of_a_call(layer):
    """One that only the call names, such as a cache, would be missing from the outputs of a symbolic call."""
    inferred, called = (list(inspect.signature(each).parameters) for each in (layer.compute_output_spec, layer.call))
    assert inferred == called or not is_defined_here(layer)


def is_defined_here(layer):
    """Return True if a layer defines the inference of its shapes, and does not inherit that of Keras."""
    return layer.compute_output_spec.__module__.startswith("limelight.")
