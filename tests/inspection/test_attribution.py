"""Head importance and gradient times attention, against changes of the model's own weights."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from contracts.representative import full
from inspection.capturing import StepByStep

B, T, D, CLASSES = 3, 5, 8, 4
LAYERS = {
    "limelight": lambda: ll.layers.MultiHeadAttention(2, 4, name="mixing"),
    "grouped": lambda: ll.layers.MultiHeadAttention(4, 3, num_kv_heads=2, name="mixing"),
    "keras": lambda: keras.layers.MultiHeadAttention(2, 4, name="mixing"),
    "keras grouped": lambda: keras.layers.GroupQueryAttention(4, 4, 2, name="mixing"),
}


class SoftmaxAttention(keras.Layer):
    """Attention as tutorials write it: only its softmax can be captured."""

    def call(self, x):
        weights = ops.softmax(ops.matmul(x, ops.swapaxes(x, 1, 2)))
        return ops.matmul(weights, x)


@functools.cache
def build_classifier(kind):
    steps = keras.Input((T, D))
    mixed = SoftmaxAttention(name="mixing")(steps) if kind == "softmax" else LAYERS[kind]()(steps, steps)
    return keras.Model(steps, keras.layers.Dense(CLASSES, "softmax", name="answer")(ops.mean(mixed, axis=1)))


def compute_losses(model, x, labels):
    return -np.log(ops.convert_to_numpy(model(x))[np.arange(B), labels])


@pytest.fixture
def data(random):
    return random.normal(size=(B, T, D)).astype("float32"), np.array([1, 3, 0])


@pytest.mark.parametrize("kind", [full("limelight"), full("grouped"), "keras", full("keras grouped")])
def test_importance_agrees_with_scaled_output_kernels(kind, data):
    x, labels = data
    model = build_classifier(kind)
    output = next(weight for weight in model.get_layer("mixing").weights if "output/kernel" in weight.path)
    kernel = ops.convert_to_numpy(output.value)  # (N, V, D): a head's gate scales its own rows

    def gated_losses(head, gate):
        gated = kernel.copy()
        gated[head] *= gate
        output.assign(gated)
        losses = compute_losses(model, x, labels).astype(float)
        output.assign(kernel)
        return losses

    masked = ll.inspection.head_importance(model, x, labels, loss="sparse_categorical_crossentropy", by="masking")
    gradient = ll.inspection.head_importance(model, x, labels, loss=keras.losses.SparseCategoricalCrossentropy())
    assert list(masked) == list(gradient) == ["mixing"]
    unmasked = compute_losses(model, x, labels).mean()
    for head in range(len(kernel)):
        np.testing.assert_allclose(masked["mixing"][head], gated_losses(head, 0).mean() - unmasked, atol=2e-6)
        expected = np.abs(gated_losses(head, 1.05) - gated_losses(head, 0.95)).mean() / 0.1
        np.testing.assert_allclose(gradient["mixing"][head], expected, rtol=0.02, atol=2e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(output.value), kernel)


@pytest.mark.full
def test_importance_of_a_layer_that_shows_only_its_softmax(data):
    x, labels = data
    model = build_classifier("softmax")
    loss = "sparse_categorical_crossentropy"
    model.compile(loss=loss)
    masked = ll.inspection.head_importance(model, x, labels, by="masking")
    # With its one head masked, the layer returns zeros.
    expected = -np.log(ops.convert_to_numpy(model.get_layer("answer")(np.zeros((B, D)))))[np.arange(B), labels]
    np.testing.assert_allclose(masked["mixing"], [expected.mean() - compute_losses(model, x, labels).mean()], atol=2e-6)
    assert ll.inspection.head_importance(model, x, labels)["mixing"].shape == (1,)


@pytest.mark.parametrize("layer_class", [SoftmaxAttention, full(keras.layers.Attention)], ids=["softmax", "values"])
def test_attribution_is_the_weight_times_its_gradient(layer_class, data, random):
    x, _ = data
    steps = keras.Input((T, D))
    inputs = steps if layer_class is SoftmaxAttention else [steps, steps]
    model = keras.Model(steps, layer_class(name="mixing")(inputs))
    readout = random.normal(size=(T, D)).astype("float32")
    maps = ll.inspection.gradient_times_attention(
        model, x, lambda outputs: ops.sum(outputs * ops.convert_to_tensor(readout))
    )
    scores = x @ x.swapaxes(1, 2)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    # The target is linear in the weights: its gradient by each is the readout of the query times the value of the key.
    expected = weights * (readout @ x.swapaxes(1, 2))
    np.testing.assert_allclose(maps["mixing"].weights()[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("kind", [full("limelight"), "grouped", full("keras"), full("keras grouped")])
def test_attributions_of_a_head_sum_to_the_gradient_of_its_gate(kind, data):
    x, _ = data
    model = build_classifier(kind)
    tokens = [list("abcde")] * B
    attribution = ll.inspection.gradient_times_attention(model, x, 2, tokens)["mixing"]
    assert list(attribution.tokens[0]) == tokens[0]

    def loss(outputs):
        return outputs[:, 2]

    importance = ll.inspection.head_importance(model, x, loss=loss)["mixing"]
    sums = np.abs(attribution.weights().sum(axis=(2, 3))).mean(axis=0)
    np.testing.assert_allclose(sums, importance, rtol=1e-4, atol=1e-6)
    largest = ll.inspection.gradient_times_attention(model, x)["mixing"].weights()
    predicted = ops.convert_to_numpy(model(x)).argmax(-1)
    for label in np.unique(predicted):
        expected = ll.inspection.gradient_times_attention(model, x, int(label))["mixing"].weights()
        np.testing.assert_allclose(largest[predicted == label], expected[predicted == label], atol=1e-6)


@pytest.mark.full
def test_wrong_arguments(data):
    x, labels = data
    model = build_classifier("limelight")
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


@pytest.mark.full
@pytest.mark.parametrize("shape", [(B,), (B, 1)])
def test_targets_of_one_number_may_lack_an_axis(shape, data):
    x, _ = data
    steps = keras.Input((T, D))
    mixed = ll.layers.MultiHeadAttention(2, 4, name="mixing")(steps, steps)
    model = keras.Model(steps, keras.layers.Dense(1, "sigmoid")(ops.mean(mixed, axis=1)))
    targets = np.array([1.0, 0.0, 1.0], "float32").reshape(shape)
    importance = ll.inspection.head_importance(model, x, targets, loss="binary_crossentropy")
    expected = ll.inspection.head_importance(model, x, targets, loss=keras.losses.BinaryCrossentropy(reduction=None))
    assert importance["mixing"].shape == (2,)
    np.testing.assert_allclose(importance["mixing"], expected["mixing"], rtol=1e-4)


@pytest.mark.full
def test_layers_in_loops_are_left_out(random):
    inner = keras.Input((T, D))
    each = keras.Model(inner, keras.layers.MultiHeadAttention(2, 4, name="mixing")(inner, inner), name="each")
    x = keras.Input((2, T, D))
    model = keras.Model(x, keras.layers.TimeDistributed(each)(x))
    batch = random.normal(size=(B, 2, T, D)).astype("float32")
    with pytest.warns(ll.inspection.CaptureWarning, match=r"mixing' \(MultiHeadAttention\) was left out: .* in a loop"):
        importance = ll.inspection.head_importance(model, batch, loss=lambda outputs: ops.sum(outputs, axis=(1, 2, 3)))
    assert importance == {}
    with pytest.warns(ll.inspection.CaptureWarning, match=r"mixing' \(MultiHeadAttention\) was left out: .* in a loop"):
        maps = ll.inspection.gradient_times_attention(model, batch, ops.sum)
    assert not maps


@pytest.mark.full
@pytest.mark.parametrize("structure", [dict, list])
def test_losses_of_several_outputs_are_weighted_and_added(structure, data):
    x, _ = data
    steps = keras.Input((T, D))
    pooled = ll.layers.AttentionPooling(name="pool")(steps)
    outputs = {name: keras.layers.Dense(size, name=name)(pooled) for name, size in (("a", 1), ("b", 2))}
    model = keras.Model(steps, outputs if structure is dict else list(outputs.values()))
    losses, weights = {"a": "mse", "b": "mae"}, {"a": 0.5, "b": 2.0}
    model.compile(loss=losses, loss_weights=weights)
    targets = {"a": np.full((B, 1), 2.0, "float32"), "b": np.full((B, 2), -1.0, "float32")}

    def total(outputs):
        a, b = outputs.values() if isinstance(outputs, dict) else outputs
        right = {name: ops.convert_to_tensor(target) for name, target in targets.items()}
        return 0.5 * ops.mean((a - right["a"]) ** 2, axis=-1) + 2.0 * ops.mean(ops.abs(b - right["b"]), axis=-1)

    for by in ("gradient", "masking"):
        given = targets if structure is dict else list(targets.values())
        importance = ll.inspection.head_importance(model, x, given, by=by)
        expected = ll.inspection.head_importance(model, x, loss=total, by=by)
        np.testing.assert_allclose(importance["pool"], expected["pool"], rtol=1e-5)
    only = ll.inspection.head_importance(model, x, targets, loss={"b": "mae"})
    assert np.abs(only["pool"] - importance["pool"]).max() > 1e-4


@pytest.mark.full
@pytest.mark.parametrize("kind", ["dot", "additive"])
def test_a_learned_query_for_all_examples(kind, data):
    """Latents (1, T, D) attend to each example, as in a Perceiver."""
    x, _ = data
    attention = {"dot": keras.layers.Attention, "additive": keras.layers.AdditiveAttention}[kind](name="read")

    class Latents(keras.Layer):
        def build(self, shape):
            self.latents = self.add_weight(shape=(1, 2, D), name="latents")

        def call(self, x):
            return attention([ops.convert_to_tensor(self.latents), x])

    steps = keras.Input((T, D))
    layer = Latents(name="latents")
    model = keras.Model(steps, layer(steps))
    _, expected = attention([ops.broadcast_to(layer.latents, (B, 2, D)), x], return_attention_scores=True)
    for maps in (ll.capture(model, x), ll.AttentionExtractor(model).predict(x)[1]):
        (attention_map,) = maps.values()
        np.testing.assert_allclose(attention_map.weights()[:, 0], ops.convert_to_numpy(expected), atol=1e-6)
    assert len(ll.inspection.gradient_times_attention(model, x, ops.sum)) == 1
    ll.lint(model, x)


def test_the_steps_of_a_loop_are_one_attention(data, random):
    x, _ = data
    model = keras.Sequential([keras.Input((T, D)), StepByStep(name="loop")])
    factors = random.normal(size=(T, D)).astype("float32")
    weights = ll.capture(model, x)["loop/attention"].weights()
    losses = (ops.convert_to_numpy(model(x)) * factors).mean((1, 2))
    maps = ll.inspection.gradient_times_attention(
        model, x, target=lambda outputs: ops.sum(ops.multiply(outputs, factors))
    )
    assert list(maps) == ["loop/attention"]
    expected = weights * np.einsum("td,bsd->bts", factors, x)[:, None]
    np.testing.assert_allclose(maps["loop/attention"].weights(), expected, atol=1e-5)
    # The outputs are linear in the gate of the only head.
    for by, expected in (("gradient", np.abs(losses).mean()), ("masking", -losses.mean())):
        importance = ll.inspection.head_importance(
            model, x, loss=lambda outputs: ops.mean(ops.multiply(outputs, factors), axis=(1, 2)), by=by
        )
        assert list(importance) == ["loop/attention"]
        np.testing.assert_allclose(importance["loop/attention"], [expected], atol=1e-6)
