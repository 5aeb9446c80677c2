"""Classifiers of texts and series: values, padding, masks, and a round trip through a file."""

import keras
import numpy as np
import pytest

from limelight import data, layers
from limelight.models import build_series_classifier, build_text_classifier
from limelight.models.training import dtype_policy

pytestmark = pytest.mark.full


def probabilities(model, inputs):
    return np.asarray(keras.ops.convert_to_numpy(model(inputs, training=False)))


def randomize(model):
    """Give all weights of a model random values, biases too, and return it."""
    random = np.random.default_rng(11)
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=variable.shape, scale=0.5))
    return model


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(steps, kernel, recurrent, bias, units):
    """Every state of an LSTM (gates i, f, c, o) over (T, H), one step after the other."""
    hidden, carry, states = np.zeros(units), np.zeros(units), []
    for step in steps:
        i, f, c, o = np.split(step @ kernel + hidden @ recurrent + bias, 4)
        carry = sigmoid(f) * carry + sigmoid(i) * np.tanh(c)
        hidden = sigmoid(o) * np.tanh(carry)
        states.append(hidden)
    return np.array(states)


def bidirectional(steps, weights, units):
    forward, backward = lstm(steps, *weights[:3], units), lstm(steps[::-1], *weights[3:], units)[::-1]
    return np.concatenate([forward, backward], axis=-1)


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def test_text_classifier_against_loops():
    model = randomize(build_text_classifier(13, 3, units=5, embedding_dim=7))
    ids = [4, 11, 2, 2]
    weights = {layer.name: layer.get_weights() for layer in model.layers}

    states = bidirectional(weights["embedding"][0][ids], weights["lstm"], 5)
    named = {
        variable.path.split("attention/")[-1]: np.asarray(keras.ops.convert_to_numpy(variable))
        for variable in model.get_layer("attention").variables
    }
    hidden = np.tanh(states @ named["hidden/kernel"] + named["hidden/bias"])
    attention = softmax(hidden @ named["query"][0])
    kernel, bias = weights["classes"]
    expected = softmax((attention @ states) @ kernel + bias)

    np.testing.assert_allclose(probabilities(model, np.array([ids])), expected[None], rtol=2e-5)


def test_series_classifier_against_loops(random):
    mean, variance = np.array([3.0, -1.0]), np.array([4.0, 0.25])
    pooling = keras.layers.GlobalAveragePooling1D()
    model = randomize(build_series_classifier(2, 3, units=5, pooling=pooling, mean=mean, variance=variance))
    steps = random.normal(size=(4, 2))
    states = bidirectional((steps - mean) / np.sqrt(variance), model.get_layer("lstm").get_weights(), 5)
    kernel, bias = model.get_layer("classes").get_weights()
    expected = softmax(states.mean(0) @ kernel + bias)

    inputs = {"steps": steps[None].astype("float32"), "mask": np.ones((1, 4), bool)}
    np.testing.assert_allclose(probabilities(model, inputs), expected[None], rtol=2e-5)


def test_padding_has_no_effect_on_a_layer_without_a_mask():
    settings = {"encoder": keras.layers.Conv1D(5, 3, padding="same"), "pooling": "max"}
    ids = np.array([[3, 8, 2]])
    text = randomize(build_text_classifier(11, 3, embedding_dim=7, **settings))
    np.testing.assert_allclose(probabilities(text, ids), probabilities(text, np.pad(ids, ((0, 0), (0, 9)))), rtol=2e-5)
    with pytest.raises(ValueError, match=r"takes `mask`, or padding is pooled\. Received: GlobalMaxPooling1D"):
        build_text_classifier(11, 3, pooling=keras.layers.GlobalMaxPooling1D())


def test_fcn_against_numpy(random):
    """Three convolutions, each normalized: with averages in use, and over the real steps of a batch in training."""
    model = randomize(build_series_classifier(2, 3, encoder="fcn", pooling="mean", units=4, dropout=0.0))
    for number in (1, 2, 3):
        norm = model.get_layer(f"norm_{number}")
        norm.moving_mean.assign(random.normal(size=norm.moving_mean.shape))
        norm.moving_variance.assign(random.uniform(0.5, 2.0, size=norm.moving_variance.shape))
    series = [random.normal(size=(length, 2)).astype("float32") for length in (9, 14)]

    def convolve(steps, kernel):
        width = len(kernel)
        padded = np.pad(steps, (((width - 1) // 2, width // 2), (0, 0)))
        return np.array([np.tensordot(padded[i : i + width], kernel, 2) for i in range(len(steps))])

    def expected(series, training):
        states = [each.astype("float64") for each in series]
        for number in (1, 2, 3):
            kernel = model.get_layer(f"conv_{number}").get_weights()[0]
            gamma, beta, mean, variance = model.get_layer(f"norm_{number}").get_weights()
            states = [convolve(each, kernel) for each in states]
            if training:
                mean, variance = np.concatenate(states).mean(0), np.concatenate(states).var(0)
            states = [np.maximum((each - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0) for each in states]
        kernel, bias = model.get_layer("classes").get_weights()
        return np.array([softmax(each.mean(0) @ kernel + bias) for each in states])

    steps, mask = data.pad(series, 16)
    steps[~mask] = 77.0
    for training in (False, True):
        wanted = expected(series, training)
        result = model({"steps": steps, "mask": mask}, training=training)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(result), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_series_are_scaled_in_float32(policy, random):
    # Large and small units, a channel of one value, and one that varies by less than float32 can tell.
    mean, variance = np.array([1000.0, 1e5, 1e-6, 7.0, 0.1]), np.array([1.0, 4.0, 1e-12, 0.0, 1e-34])
    steps = (mean + random.normal(size=(1, 11, 5)) * np.sqrt(np.where(variance > 1e-30, variance, 1.0))).astype(
        "float32"
    )
    with dtype_policy(policy):
        model = build_series_classifier(5, 3, encoder="conv", units=2, mean=mean, variance=variance)
    scaling = keras.Model(model.input, model.get_layer("scaling").output)
    scaled = scaling.predict({"steps": steps, "mask": np.ones((1, 11), bool)}, verbose=0)
    expected = (steps.astype("float64") - mean) / np.sqrt(np.where(variance > 1e-30, variance, 1.0))
    np.testing.assert_allclose(scaled, expected, atol=0.01)
    assert np.isfinite(probabilities(model, {"steps": steps, "mask": np.ones((1, 11), bool)})).all()


@pytest.mark.parametrize("pooling", [layers.AttentionPooling, keras.layers.GlobalAveragePooling1D])
def test_padding_has_no_effect(pooling, random):
    ids = [np.array([3, 8, 2]), np.array([5, 1, 7, 9, 9])]
    text = randomize(build_text_classifier(11, 3, pooling=pooling(), units=5, embedding_dim=7))
    short, long = (data.pad(ids, length)[0] for length in (5, 13))
    np.testing.assert_allclose(probabilities(text, short), probabilities(text, long), rtol=2e-5)
    np.testing.assert_allclose(probabilities(text, ids[0][None]), probabilities(text, long)[:1], rtol=2e-5)

    # A step of zeros is a step like any other; padding is what the mask says, whatever stands there.
    series = randomize(build_series_classifier(2, 3, pooling=pooling(), units=5))
    steps, mask = data.pad([np.zeros((3, 2), "float32"), random.normal(size=(5, 2)).astype("float32")], 13)
    steps[~mask] = 77.0
    alone = probabilities(series, {"steps": np.zeros((1, 3, 2), "float32"), "mask": np.ones((1, 3), bool)})
    np.testing.assert_allclose(probabilities(series, {"steps": steps, "mask": mask})[:1], alone, rtol=2e-5)


def test_dropout_is_active_in_training_only():
    model = build_text_classifier(11, 2, units=5, embedding_dim=7, dropout=0.5, word_dropout=0.5)
    ids = np.array([[3, 8, 2, 9]])
    assert np.ptp([probabilities(model, ids)[0, 0] for _ in range(3)]) == 0
    training = [np.asarray(keras.ops.convert_to_numpy(model(ids, training=True)))[0, 0] for _ in range(5)]
    assert np.ptp(training) > 0


def test_word_dropout_drops_whole_words():
    model = build_text_classifier(11, 2, units=5, embedding_dim=7, dropout=0.0, word_dropout=0.5)
    words = keras.Model(model.input, model.get_layer("word_dropout").output)
    vectors = np.asarray(keras.ops.convert_to_numpy(words(np.full((3, 29), 4), training=True)))
    gone = (vectors == 0).all(-1)
    assert 0 < gone.sum() < gone.size
    assert (vectors[~gone] != 0).all()


@pytest.mark.parametrize("kind", ["text", "series"])
def test_model_can_be_saved_and_loaded(kind, tmp_path, random):
    if kind == "text":
        model, inputs = build_text_classifier(11, 3, units=5, embedding_dim=7), np.array([[3, 8, 2, 0]])
    else:
        model = build_series_classifier(2, 3, units=5, mean=[1, 2], variance=[3, 4])
        inputs = {
            "steps": random.normal(size=(1, 4, 2)).astype("float32"),
            "mask": np.array([[True, True, True, False]]),
        }
    randomize(model).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(probabilities(loaded, inputs), probabilities(model, inputs))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: build_text_classifier(0, 2),
            r"`vocabulary_size` must be a positive integer\. Received: vocabulary_size=0\.",
        ),
        (lambda: build_text_classifier(9, 0), r"`num_classes` must be a positive integer\. Received: num_classes=0\."),
        (
            lambda: build_series_classifier(-1, 2),
            r"`num_channels` must be a positive integer\. Received: num_channels=-1\.",
        ),
    ],
)
def test_invalid_sizes_raise(build, message):
    with pytest.raises(ValueError, match=message):
        build()
