"""Head importance and gradient times attention, against the model's own weights changed by hand."""

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll

B, T, D, CLASSES = 3, 5, 8, 4
KINDS = {
    "limelight": lambda: ll.layers.MultiHeadAttention(2, 4, name="mixing"),
    "grouped": lambda: ll.layers.MultiHeadAttention(4, 3, num_kv_heads=2, name="mixing"),
    "keras": lambda: keras.layers.MultiHeadAttention(2, 4, name="mixing"),
    "keras grouped": lambda: keras.layers.GroupQueryAttention(4, 4, 2, name="mixing"),
}


class Naive(keras.Layer):
    """Attention as tutorials write it: only its softmax is to be seen."""

    def call(self, x):
        weights = ops.softmax(ops.matmul(x, ops.swapaxes(x, 1, 2)))
        return ops.matmul(weights, x)


def classifier(make):
    steps = keras.Input((T, D))
    layer = make()
    mixed = layer(steps, steps) if "Attention" in type(layer).__name__ else layer(steps)
    return keras.Model(steps, keras.layers.Dense(CLASSES, "softmax", name="answer")(ops.mean(mixed, axis=1)))


def losses(model, x, labels):
    return -np.log(ops.convert_to_numpy(model(x))[np.arange(B), labels])


@pytest.fixture
def data(random):
    return random.normal(size=(B, T, D)).astype("float32"), np.array([1, 3, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_importance_is_that_of_heads_scaled_by_hand(kind, data):
    x, labels = data
    model = classifier(KINDS[kind])
    output = next(one for one in model.get_layer("mixing").weights if "output/kernel" in one.path)
    kernel = ops.convert_to_numpy(output.value)  # (N, V, D): a head's gate scales its own rows

    def gated(head, gate):
        changed = kernel.copy()
        changed[head] *= gate
        output.assign(changed)
        found = losses(model, x, labels).astype(float)
        output.assign(kernel)
        return found

    masked = ll.inspection.head_importance(model, x, labels, loss="sparse_categorical_crossentropy", by="masking")
    sloped = ll.inspection.head_importance(model, x, labels, loss=keras.losses.SparseCategoricalCrossentropy())
    assert list(masked) == list(sloped) == ["mixing"]
    whole = losses(model, x, labels).mean()
    for head in range(len(kernel)):
        np.testing.assert_allclose(masked["mixing"][head], gated(head, 0).mean() - whole, atol=2e-6)
        slope = np.abs(gated(head, 1.05) - gated(head, 0.95)).mean() / 0.1
        np.testing.assert_allclose(sloped["mixing"][head], slope, rtol=0.02, atol=2e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(output.value), kernel)


def test_importance_of_a_layer_of_which_only_the_softmax_is_seen(data):
    x, labels = data
    model = classifier(lambda: Naive(name="mixing"))
    loss = "sparse_categorical_crossentropy"
    model.compile(loss=loss)
    masked = ll.inspection.head_importance(model, x, labels, by="masking")
    # Without its one head the layer gives zeros, and the classifier its bias.
    alone = -np.log(ops.convert_to_numpy(model.get_layer("answer")(np.zeros((B, D)))))[np.arange(B), labels]
    np.testing.assert_allclose(masked["mixing"], [alone.mean() - losses(model, x, labels).mean()], atol=2e-6)
    assert ll.inspection.head_importance(model, x, labels)["mixing"].shape == (1,)


@pytest.mark.parametrize("make", [Naive, lambda **named: keras.layers.Attention(**named)], ids=["softmax", "values"])
def test_attribution_is_the_weight_times_its_slope(make, data, random):
    x, _ = data
    steps = keras.Input((T, D))
    layer = make(name="mixing")
    model = keras.Model(steps, layer(steps) if isinstance(layer, Naive) else layer([steps, steps]))
    readout = random.normal(size=(T, D)).astype("float32")
    found = ll.inspection.gradient_times_attention(
        model, x, lambda outputs: ops.sum(outputs * ops.convert_to_tensor(readout))
    )["mixing"].weights()[:, 0]
    scores = x @ x.swapaxes(1, 2)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    # The target is linear in the weights: its slope by each is the readout of the query times the value of the key.
    np.testing.assert_allclose(found, weights * (readout @ x.swapaxes(1, 2)), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_attributions_of_a_head_sum_to_its_gates_slope(kind, data):
    x, _ = data
    model = classifier(KINDS[kind])
    tokens = [list("abcde")] * B
    found = ll.inspection.gradient_times_attention(model, x, 2, tokens)["mixing"]
    assert list(found.tokens[0]) == tokens[0]

    def loss(outputs):
        return outputs[:, 2]

    slopes = ll.inspection.head_importance(model, x, loss=loss)["mixing"]
    sums = np.abs(found.weights().sum(axis=(2, 3))).mean(axis=0)
    np.testing.assert_allclose(sums, slopes, rtol=1e-4, atol=1e-6)
    largest = ll.inspection.gradient_times_attention(model, x)["mixing"].weights()
    chosen = ops.convert_to_numpy(model(x)).argmax(-1)
    for example, label in enumerate(chosen):
        expected = ll.inspection.gradient_times_attention(model, x[example : example + 1], int(label))[
            "mixing"
        ].weights()[0]
        np.testing.assert_allclose(largest[example], expected, atol=1e-6)


def test_wrong_arguments(data):
    x, labels = data
    model = classifier(KINDS["limelight"])
    with pytest.raises(ValueError, match="There must be a loss"):
        ll.inspection.head_importance(model, x, labels)
    with pytest.raises(ValueError, match='`by` must be "gradient" or "masking"'):
        ll.inspection.head_importance(model, x, labels, by="taylor")
    with pytest.raises(ValueError, match="one number for each example"):
        ll.inspection.head_importance(model, x, loss=ops.mean)
    with pytest.raises(ValueError, match="Without `targets`, `loss` must be a function"):
        ll.inspection.head_importance(model, x, loss="mse")
    with pytest.raises(ValueError, match="one of the 4 outputs"):
        ll.inspection.gradient_times_attention(model, x, 4)
    with pytest.raises(TypeError, match="must be a model or layer of Keras"):
        ll.inspection.gradient_times_attention(lambda x: x, x)
    with pytest.raises(TypeError, match="must be a model or layer of Keras"):
        ll.inspection.head_importance(None, x, loss=ops.mean)


@pytest.mark.parametrize("shape", [(B,), (B, 1)])
def test_targets_of_one_number_fit_as_they_do_in_fit(shape, data):
    x, _ = data
    steps = keras.Input((T, D))
    mixed = ll.layers.MultiHeadAttention(2, 4, name="mixing")(steps, steps)
    model = keras.Model(steps, keras.layers.Dense(1, "sigmoid")(ops.mean(mixed, axis=1)))
    targets = np.array([1.0, 0.0, 1.0], "float32").reshape(shape)
    found = ll.inspection.head_importance(model, x, targets, loss="binary_crossentropy")
    expected = ll.inspection.head_importance(model, x, targets, loss=keras.losses.BinaryCrossentropy(reduction=None))
    assert found["mixing"].shape == (2,)
    np.testing.assert_allclose(found["mixing"], expected["mixing"], rtol=1e-4)
