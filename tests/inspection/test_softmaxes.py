"""Attention in custom code: recognised by its softmax, and told from predictions."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import limelight as ll
from contracts.representative import full
from inspection.capturing import capture_both_ways, softmax

B, T, D, C = 3, 5, 6, 4


@pytest.fixture
def steps(random):
    return random.normal(size=(B, T, D)).astype("float32")


class SelfAttention(keras.Layer):
    """As tutorials write it: weights by `add_weight`, softmax inside."""

    def build(self, shape):
        self.w_query, self.w_key, self.w_value = (
            self.add_weight(name=name, shape=(shape[-1], shape[-1])) for name in ("query", "key", "value")
        )

    def call(self, x):
        query, key, value = (ops.matmul(x, weight) for weight in (self.w_query, self.w_key, self.w_value))
        scores = ops.matmul(query, ops.transpose(key, (0, 2, 1))) / ops.sqrt(float(x.shape[-1]))
        return ops.matmul(ops.softmax(scores, axis=-1), value)


@pytest.mark.full
def test_self_attention_as_tutorials_write_it(steps):
    x = keras.Input((None, D))
    hidden = SelfAttention(name="mixing")(layers.LSTM(D, return_sequences=True)(x))
    model = keras.Model(x, layers.Dense(C, activation="softmax")(hidden))
    maps = capture_both_ways(model, steps)
    assert list(maps) == ["mixing"]
    hidden = ops.convert_to_numpy(model.layers[1](steps)).astype(float)
    query, key, _ = (hidden @ weight.astype(float) for weight in model.get_layer("mixing").get_weights())
    np.testing.assert_allclose(maps["mixing"].weights()[:, 0], softmax(query @ key.swapaxes(1, 2) / D**0.5), atol=1e-5)
    assert maps["mixing"].layer == "SelfAttention"


@pytest.mark.full
@pytest.mark.parametrize("how", ["layer", "activation", "flat"])
def test_dense_softmax_multiply(how, steps):
    x = keras.Input((T, D))
    score = layers.Dense(1, activation="tanh", name="score")(x)
    if how == "layer":
        weights = layers.Softmax(axis=1, name="weights")(score)
    elif how == "activation":
        weights = layers.Activation(lambda x: keras.activations.softmax(x, axis=1), name="weights")(score)
    else:
        weights = layers.Activation("softmax", name="weights")(layers.Flatten()(score))
        weights = layers.Permute((2, 1))(layers.RepeatVector(D)(weights))
    pooled = ops.sum(layers.Multiply()([x, weights]), axis=1)
    model = keras.Model(x, layers.Dense(C, activation="softmax")(pooled))
    maps = capture_both_ways(model, steps)
    assert list(maps) == ["weights"]
    kernel, bias = model.get_layer("score").get_weights()
    expected = softmax(np.tanh(steps.astype(float) @ kernel + bias)[..., 0])
    np.testing.assert_allclose(maps["weights"].weights()[:, 0, 0], expected, atol=1e-5)


@pytest.mark.full
def test_a_dense_layer_with_a_softmax_over_the_steps(steps):
    x = keras.Input((T, D))
    weights = layers.Dense(T, activation="softmax", name="weights")(layers.Permute((2, 1))(x))
    model = keras.Model(x, layers.Multiply()([x, layers.Permute((2, 1))(weights)]))
    kernel, bias = model.get_layer("weights").get_weights()
    expected = softmax(steps.swapaxes(1, 2).astype(float) @ kernel + bias)
    np.testing.assert_allclose(capture_both_ways(model, steps)["weights"].weights()[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("how", ["functional", full("dot layers")])
def test_operations_between_layers(how, steps):
    x = keras.Input((None, D))
    if how == "functional":
        mixed = ops.matmul(ops.softmax(ops.matmul(x, ops.transpose(x, (0, 2, 1)))), x)
    else:
        mixed = layers.Dot((2, 1))([layers.Activation("softmax")(layers.Dot((2, 2))([x, x])), x])
    model = keras.Model(x, layers.Dense(C, activation="softmax")(mixed))
    maps = capture_both_ways(model, steps)
    assert len(maps) == 1
    (attention_map,) = maps.values()
    inputs = steps.astype(float)
    expected = softmax(inputs @ inputs.swapaxes(1, 2))
    np.testing.assert_allclose(attention_map.weights()[:, 0], expected, atol=1e-5)


@pytest.mark.full
def test_additive_attention_along_the_middle_axis(steps):
    class BahdanauAttention(keras.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.query, self.key, self.score = layers.Dense(7), layers.Dense(7), layers.Dense(1)

        def call(self, query, values):
            score = self.score(ops.tanh(self.query(ops.expand_dims(query, 1)) + self.key(values)))
            weights = ops.softmax(score, axis=1)
            return ops.sum(weights * values, axis=1), weights

    x = keras.Input((T, D))
    layer = BahdanauAttention(name="reader")
    context, weights = layer(x[:, -1], x)
    model = keras.Model(x, [layers.Dense(C)(context), weights])
    maps = capture_both_ways(model, steps)
    np.testing.assert_allclose(
        maps["reader"].weights()[:, 0, 0], ops.convert_to_numpy(model(steps)[1])[..., 0], atol=1e-6
    )


@pytest.mark.full
def test_weights_that_are_outputs_too(steps):
    """A layer that returns its weights besides its output, and a model that returns them."""

    class Mixing(keras.Layer):
        def call(self, x):
            weights = ops.softmax(ops.matmul(x, ops.transpose(x, (0, 2, 1))))
            return ops.matmul(weights, x), weights

    x = keras.Input((None, D))
    mixed, weights = Mixing(name="mixing")(x)
    maps = capture_both_ways(keras.Model(x, [mixed, weights]), steps)
    assert list(maps) == ["mixing"]

    class Weights(keras.Layer):
        def call(self, x):
            return ops.softmax(ops.matmul(x, ops.transpose(x, (0, 2, 1))))

    weights = Weights(name="weights")(x)
    maps = capture_both_ways(keras.Model(x, [layers.Dot((2, 1))([weights, x]), weights]), steps)
    assert list(maps) == ["weights"]


def test_heads_of_a_custom_multi_head_attention(random):
    class Heads(keras.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.softmax = layers.Softmax()
            self.supports_masking = True

        def call(self, x, mask=None):
            heads = ops.transpose(ops.reshape(x, (-1, T, 2, 3)), (0, 2, 1, 3))
            weights = self.softmax(ops.matmul(heads, ops.transpose(heads, (0, 1, 3, 2))), mask=mask[:, None, None])
            return ops.reshape(ops.transpose(ops.matmul(weights, heads), (0, 2, 1, 3)), (-1, T, D))

    ids = keras.Input((T,), dtype="int32")
    x = layers.Embedding(11, D, mask_zero=True)(ids)
    model = keras.Model(ids, Heads(name="heads")(x))
    data = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8], [9, 0, 0, 0, 0]])
    weights = capture_both_ways(model, data)["heads"].weights()
    heads = model.layers[1].get_weights()[0][data].reshape(B, T, 2, 3).transpose(0, 2, 1, 3).astype(float)
    scores = np.where((data != 0)[:, None, None], heads @ heads.swapaxes(2, 3), -np.inf)
    np.testing.assert_allclose(weights, softmax(scores), atol=1e-5)


@pytest.mark.full
def test_subclasses_that_change_the_attention(steps):
    class Sharper(layers.MultiHeadAttention):
        def _compute_attention(self, query, key, *args, **kwargs):
            return super()._compute_attention(query * 2, key, *args, **kwargs)

    class NegatedScores(layers.MultiHeadAttention):
        def _compute_attention(self, query, key, value, *args, **kwargs):
            weights = ops.softmax(-ops.einsum("btnh,bsnh->bnts", query, key))
            return ops.einsum("bnts,bsnh->btnh", weights, value), weights

    class Distances(layers.Attention):
        def _calculate_scores(self, query, key):
            return -ops.sum((query[:, :, None] - key[:, None]) ** 2, axis=-1)

    x = keras.Input((None, D))
    unchanged = layers.MultiHeadAttention(2, 3, name="unchanged")
    sharper, negated = Sharper(2, 3, name="sharper"), NegatedScores(2, 3, name="negated")
    mixed = unchanged(x, x) + sharper(x, x) + negated(x, x)
    model = keras.Model(x, [mixed, Distances(name="distance")([x, x])])
    for layer in (sharper, negated):
        layer.set_weights(unchanged.get_weights())
    maps = capture_both_ways(model, steps)
    assert sorted(maps) == ["distance", "negated", "sharper", "unchanged"]
    source = maps["unchanged"].source
    scores = np.einsum("bnth,bnsh->bnts", *(array.astype(float) for array in (source.query, source.key)))
    np.testing.assert_allclose(maps["sharper"].weights(), softmax(2 * scores / 3**0.5), atol=1e-5)
    np.testing.assert_allclose(maps["negated"].weights(), softmax(-scores), atol=1e-5)
    distances = -((steps[:, :, None].astype(float) - steps[:, None]) ** 2).sum(-1)
    np.testing.assert_allclose(maps["distance"].weights()[:, 0], softmax(distances), atol=1e-5)


@pytest.mark.full
def test_attention_over_two_axes(random):
    pictures = random.normal(size=(2, 3, 4, D)).astype("float32")
    x = keras.Input((3, 4, D))
    model = keras.Model(x, layers.MultiHeadAttention(2, 3, attention_axes=(1, 2), name="mixing")(x, x))
    maps = capture_both_ways(model, pictures)
    assert maps["mixing"].weights().shape[-1] == 12
    np.testing.assert_allclose(maps["mixing"].weights().sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    "kind", ["functional", *(full(kind) for kind in ("subclass", "steps", "activation", "time distributed"))]
)
def test_predictions_are_not_captured(kind, steps, random):
    x = keras.Input((T, D))
    # As many classes as steps: the length alone does not tell.
    if kind == "functional":
        model = keras.Model(x, layers.Dense(T, activation="softmax")(layers.GlobalAveragePooling1D()(x)))
    elif kind == "steps":
        model = keras.Model(x, layers.Dense(T, activation="softmax")(x))
    elif kind == "activation":
        model = keras.Model(x, {"probabilities": layers.Activation("softmax")(layers.Dense(T)(x))})
    elif kind == "time distributed":
        model = keras.Model(x, layers.TimeDistributed(layers.Dense(T, activation="softmax"))(x))
    else:

        class Model(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = layers.Dense(T)

            def call(self, x):
                return ops.softmax(self.dense(x))

        model = Model()
    with pytest.warns(ll.inspection.CaptureWarning, match="No attention was seen in"):
        assert not ll.capture(model, steps)


@pytest.mark.full
def test_class_probabilities_inside_a_model_are_not_captured(steps):
    """Another layer uses the probabilities, but no sequence is as long as there are classes."""
    x = keras.Input((T, D))
    member = keras.Model(x, layers.Dense(C, activation="softmax")(layers.Flatten()(x)))
    y = keras.Input((T, D))
    other = layers.Dense(C, activation="softmax")(layers.GlobalMaxPooling1D()(y))
    model = keras.Model(y, layers.Average()([member(y), other]))
    with pytest.warns(ll.inspection.CaptureWarning, match="No attention was seen in"):
        assert not ll.capture(model, steps)


@pytest.mark.full
def test_a_layer_that_cannot_be_captured_is_named(steps):
    class SigmoidAttention(keras.Layer):
        def call(self, x):
            return ops.matmul(ops.sigmoid(ops.matmul(x, ops.transpose(x, (0, 2, 1)))), x)

    x = keras.Input((T, D))
    model = keras.Model(x, SigmoidAttention(name="mixing")(x))
    with pytest.warns(ll.inspection.CaptureWarning, match=r"'mixing' \(SigmoidAttention\): it calls no softmax"):
        assert not ll.capture(model, steps)


@pytest.mark.full
def test_an_empty_capture_says_so_once(steps):
    x = keras.Input((T, D))
    extractor = ll.AttentionExtractor(keras.Model(x, layers.Dense(C)(x), name="plain"))
    with pytest.warns(ll.inspection.CaptureWarning, match=r"No attention was seen in 'plain' \(Functional\)"):
        _, exported = extractor(ops.convert_to_tensor(steps))
    assert not extractor.to_maps(exported)
    # Another warning would be an error.
    extractor(ops.convert_to_tensor(steps))


@pytest.mark.full
def test_a_pattern_that_matches_no_attention_is_an_error(steps):
    x = keras.Input((T, D))
    model = keras.Model(x, layers.Attention(name="second")([SelfAttention(name="first")(x), x]))
    assert list(ll.capture(model, steps, layers=["sec*"])) == ["second"]
    for patterns in ("typo/*", ["first", "typo/*"]):
        with pytest.raises(ValueError, match=r"Received: \['typo/\*'\].*\['first', 'second'\]"):
            ll.capture(model, steps, layers=patterns)


@pytest.mark.parametrize("pattern", ["nope", "answer", "gate*"])
def test_predictions_are_no_layers_in_which_attention_was_seen(steps, pattern):
    x = keras.Input((T, D))
    hidden = layers.MultiHeadAttention(2, 4, name="mha")(x, x)
    weights = layers.Softmax(name="weights")(layers.Dot(2)([hidden, x]))
    hidden = layers.Dot((2, 1), name="mixing")([weights, hidden])
    # As long as no sequence, and used inside the model.
    gates = layers.Dense(C, "softmax", name="gates")(hidden)
    pooled = layers.GlobalAveragePooling1D()(layers.Dense(3)(gates))
    model = keras.Model(x, layers.Dense(C, "softmax", name="answer")(pooled))
    message = rf"Received: \['{re.escape(pattern)}'\], which match none of the layers in which .*: \['mha', 'weights'\]"
    with pytest.raises(ValueError, match=message):
        ll.capture(model, steps, layers=pattern)
    assert list(ll.capture(model, steps, layers=["mha", "weights"])) == ["mha", "weights"]


@pytest.mark.full
def test_layers_that_prepare_masks_and_biases_are_no_attention(steps):
    class ComputeAttentionMask(keras.Layer):
        def call(self, mask):
            return mask[:, None, :] > 0

    class RelativeAttentionBias(keras.Layer):
        def build(self, shape):
            self.bias = self.add_weight(shape=(2, T, T), name="bias")

        def call(self, x):
            return self.bias + ops.zeros_like(x[:1, :1, :1, None])

    x, mask = keras.Input((T, D)), keras.Input((T,))
    mixed = layers.MultiHeadAttention(2, 3, name="mixing")(x, x, attention_mask=ComputeAttentionMask()(mask))
    model = keras.Model([x, mask], [mixed, RelativeAttentionBias()(x)])
    # A warning would be an error.
    assert list(ll.capture(model, [steps, np.ones((B, T), "float32")])) == ["mixing"]


def backend_mixing():
    """Functions of (B, T, D) written for one backend, past the names that Keras calls: weights of x by x."""
    if keras.backend.backend() == "jax":
        import jax
        from jax.nn import softmax as imported

        def mix(x):
            return imported(x @ x.transpose(0, 2, 1)) @ x

        jitted = jax.jit(mix)
        heads = jax.nn.dot_product_attention
        fused = jax.jit(lambda x: heads(x[:, :, None], x[:, :, None], x[:, :, None], scale=1.0)[:, :, 0])
        each = jax.vmap(lambda x: imported(x @ x.T) @ x)
        return {
            "jitted in a jitted function": jax.jit(lambda x: jitted(x) + 0),
            "jitted and fused": fused,
            "checkpointed": jax.jit(jax.checkpoint(mix)),
            "vectorized": each,
            "vectorized and jitted": jax.jit(each),
            "imported": lambda x: imported(x @ x.transpose(0, 2, 1)) @ x,
            "jitted": jitted,
            "fused": lambda x: heads(x[:, :, None], x[:, :, None], x[:, :, None], scale=1.0)[:, :, 0],
        }
    if keras.backend.backend() == "tensorflow":
        import tensorflow
        from tensorflow.nn import softmax as imported

        @tensorflow.function
        def compiled(x):
            return ops.matmul(ops.softmax(ops.matmul(x, ops.transpose(x, (0, 2, 1)))), x)

        return {
            "math": lambda x: tensorflow.math.softmax(x @ tensorflow.transpose(x, (0, 2, 1))) @ x,
            "imported": lambda x: imported(x @ tensorflow.transpose(x, (0, 2, 1))) @ x,
            "raw": lambda x: tensorflow.raw_ops.Softmax(logits=x @ tensorflow.transpose(x, (0, 2, 1))) @ x,
            "compiled": compiled,
        }
    import torch
    from torch.nn.functional import softmax as imported

    def script(x: torch.Tensor):
        return torch.matmul(torch.softmax(torch.matmul(x, x.transpose(1, 2)), -1), x)

    fused = torch.nn.functional.scaled_dot_product_attention
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and in use.
        scripted = torch.jit.script(script)
    return {
        "scripted": scripted,
        "of the dispatcher": lambda x: torch.ops.aten.softmax.int(x @ x.mT, -1) @ x,
        "method": lambda x: (x @ x.mT).softmax(dim=-1) @ x,
        "imported": lambda x: imported(x @ x.mT, -1) @ x,
        "fused": lambda x: fused(x[:, None], x[:, None], x[:, None], scale=1.0)[:, 0],
    }


def test_the_backend_is_seen_by_any_name(steps):
    x = keras.Input((T, D))
    inputs = steps.astype(float)
    expected = softmax(inputs @ inputs.swapaxes(1, 2))
    for name, mix in backend_mixing().items():

        class Mixing(keras.Layer):
            def call(self, x, mix=mix):
                return mix(x)

            def compute_output_spec(self, x):
                return keras.KerasTensor(x.shape)

        model = keras.Model(x, Mixing(name="mixing")(x))
        model(steps)  # What is jitted has run before.
        maps = capture_both_ways(model, steps)
        assert list(maps) == ["mixing"], name
        np.testing.assert_allclose(maps["mixing"].weights()[:, 0], expected, atol=1e-5, err_msg=name)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a module of PyTorch")
def test_a_module_of_pytorch(random):
    import torch

    steps = random.normal(size=(B, T, 8)).astype("float32")
    x = keras.Input((T, 8))
    module = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = keras.Sequential([x, layers.TorchModuleWrapper(module, name="encoder")])
    maps = capture_both_ways(model, steps)
    with torch.no_grad():
        _, expected = module.self_attn(*[torch.as_tensor(steps)] * 3, average_attn_weights=False)
    np.testing.assert_allclose(maps["encoder"].weights(), expected.numpy(), atol=1e-5)

    class WithWeights(torch.nn.Module):
        def forward(self, x):
            return module.self_attn(x, x, x)[0]

    model = keras.Sequential([x, layers.TorchModuleWrapper(WithWeights(), name="attention")])
    weights = capture_both_ways(model, steps)["attention"].weights()
    np.testing.assert_allclose(weights, expected.numpy(), atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of PyTorch
@pytest.mark.parametrize("how", ["vmap", "cond", "loaded"])
def test_a_softmax_that_cannot_be_seen_is_counted(how, steps, tmp_path):
    """Of a model in which other attention was seen."""
    hidden = HIDDEN[keras.backend.backend()]
    if how not in hidden:
        pytest.skip("seen on this backend")
    mix = hidden[how](tmp_path)

    class Mixing(keras.Layer):
        def call(self, x):
            return mix(x)

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape)

    x = keras.Input((T, D))
    model = keras.Model(x, layers.Attention(name="seen")([Mixing(name="mixing")(x), x]))
    model(steps)
    for capture in (ll.capture, lambda model, x: ll.AttentionExtractor(model).predict(x)[1]):
        with pytest.warns(ll.inspection.CaptureWarning, match=r"'mixing' \(Mixing\): it runs inside a loop") as log:
            assert list(capture(model, steps)) == ["seen"]
        assert [each.category for each in log].count(ll.inspection.CaptureWarning) == 1


def hidden_by_vmap(_):
    import torch

    return torch.func.vmap(lambda x: torch.softmax(x @ x.mT, -1) @ x)


def hidden_by_a_branch(_):
    import jax

    def mix(x):
        return jax.nn.softmax(x @ x.transpose(0, 2, 1)) @ x

    return jax.jit(lambda x: jax.lax.cond(x.sum() < 1e9, mix, lambda x: x, x))


def hidden_by_a_graph(folder):
    import tensorflow as tf

    module = tf.Module()
    shape = [tf.TensorSpec((None, T, D))]
    module.mix = tf.function(lambda x: tf.nn.softmax(tf.matmul(x, x, transpose_b=True)) @ x, input_signature=shape)
    tf.saved_model.save(module, folder)
    return tf.saved_model.load(folder).mix


HIDDEN = {
    "torch": {"vmap": hidden_by_vmap},
    "jax": {"cond": hidden_by_a_branch},
    "tensorflow": {"loaded": hidden_by_a_graph},
}


def exponentials_over_sums():
    """Softmaxes of (B, T, D) that are written out: weights of x by x."""

    def score(x):
        return ops.matmul(x, ops.transpose(x, (0, 2, 1)))

    def total(x):
        return ops.sum(x, axis=-1, keepdims=True)

    def shifted(x):
        exponentials = ops.exp(score(x) - ops.max(score(x), axis=-1, keepdims=True))
        return ops.matmul(exponentials / (total(exponentials) + 1e-7), x)

    def inverse(x):
        exponentials = ops.exp(score(x))
        return ops.matmul(exponentials * (1.0 / total(exponentials)), x)

    def afterwards(x):
        exponentials = ops.exp(score(x))
        return ops.matmul(exponentials, x) / total(exponentials)

    def log_sum(x):
        return ops.matmul(ops.exp(score(x) - ops.logsumexp(score(x), axis=-1, keepdims=True)), x)

    def log_softmax(x):
        return ops.matmul(ops.exp(ops.log_softmax(score(x))), x)

    def heads(x):
        split = ops.transpose(ops.reshape(x, (-1, T, 2, 3)), (0, 2, 1, 3))
        exponentials = ops.exp(ops.matmul(split, ops.transpose(split, (0, 1, 3, 2))))
        weights = exponentials / ops.sum(exponentials, axis=-1)[..., None]
        return ops.reshape(ops.transpose(ops.matmul(weights, split), (0, 2, 1, 3)), (-1, T, D))

    return [shifted, inverse, afterwards, log_sum, log_softmax, heads]


@pytest.mark.parametrize(
    "mix",
    [mix if mix.__name__ in ("afterwards", "heads") else full(mix) for mix in exponentials_over_sums()],
    ids=lambda mix: mix.__name__,
)
def test_a_softmax_that_is_written_out(mix, steps):
    class Mixing(keras.Layer):
        def call(self, x):
            return mix(x)

    x = keras.Input((T, D))
    maps = capture_both_ways(keras.Model(x, Mixing(name="mixing")(x)), steps)
    assert list(maps) == ["mixing"]
    inputs = steps.astype(float)[:, None]
    if mix.__name__ == "heads":
        inputs = inputs.reshape(B, T, 2, 3).swapaxes(1, 2)
    np.testing.assert_allclose(maps["mixing"].weights(), softmax(inputs @ inputs.swapaxes(2, 3)), atol=1e-5)


@pytest.mark.full
def test_a_mask_on_the_exponentials(steps):
    class Pooling(keras.Layer):
        def call(self, x):
            exponentials = ops.exp(ops.sum(x, axis=-1)) * ops.cast(ops.arange(T) < 3, "float32")
            weights = exponentials / ops.maximum(ops.sum(exponentials, axis=1, keepdims=True), 1e-7)
            return ops.sum(x * weights[..., None], axis=1)

    x = keras.Input((T, D))
    weights = capture_both_ways(keras.Model(x, Pooling(name="pooling")(x)), steps)["pooling"].weights()
    np.testing.assert_allclose(weights[:, 0, 0], softmax(steps.astype(float).sum(-1), np.arange(T) < 3), atol=1e-5)


@pytest.mark.full
def test_exponentials_over_other_sums_are_no_attention(steps):
    class Scaling(keras.Layer):
        def call(self, x):
            exponentials = ops.exp(x)
            norm = ops.sqrt(ops.sum(exponentials * exponentials, axis=-1, keepdims=True))
            return exponentials / norm + ops.exp(-x) / ops.sum(ops.exp(x), axis=-1, keepdims=True)

    x = keras.Input((T, D))
    with pytest.warns(ll.inspection.CaptureWarning, match="No attention was seen in"):
        assert not ll.capture(keras.Model(x, Scaling()(x)), steps)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of PyTorch
def test_a_softmax_over_the_segments_of_a_graph_is_counted(steps):
    senders, receivers = np.array([0, 1, 2, 3, 4, 0]), np.array([1, 1, 2, 2, 3, 4])

    class GraphAttention(keras.Layer):
        def call(self, x):
            nodes = ops.transpose(x, (1, 0, 2))
            scores = ops.sum(ops.take(nodes, senders, 0) * ops.take(nodes, receivers, 0), axis=-1)
            exponentials = ops.exp(scores)
            total = ops.segment_sum(exponentials, receivers, num_segments=T)
            weights = exponentials / ops.take(total, receivers, 0)
            values = weights[..., None] * ops.take(nodes, senders, 0)
            return ops.transpose(ops.segment_sum(values, receivers, num_segments=T), (1, 0, 2))

    x = keras.Input((T, D))
    model = keras.Model(x, GraphAttention(name="graph")(x))
    for capture in (ll.capture, lambda model, x: ll.AttentionExtractor(model).predict(x)[1]):
        with pytest.warns(ll.inspection.CaptureWarning, match=r"'graph' .* over the segments of a graph") as log:
            assert not capture(model, steps)
        assert [each.category for each in log].count(ll.inspection.CaptureWarning) == 1


@pytest.mark.full
@pytest.mark.parametrize("how", ["name", "top_k"])
def test_routers_of_experts_are_captured_only_by_name(how, steps):
    class Router(keras.Layer):
        def call(self, x):
            gates = ops.softmax(x[..., :C])
            return ops.einsum("bte,bted->btd", gates, ops.stack([x * float(index) for index in range(C)], axis=2))

    class Sparse(keras.Layer):
        def call(self, x):
            largest, indices = ops.top_k(ops.softmax(x[..., :C]), 2)
            gates = ops.sum(ops.one_hot(indices, C) * largest[..., None], axis=2)
            return ops.einsum("bte,bted->btd", gates, ops.stack([x * float(index) for index in range(C)], axis=2))

    x = keras.Input((T, D))
    mixture = (Router if how == "name" else Sparse)(name="mixture")(x)
    model = keras.Model(x, layers.Attention(name="mixing")([mixture, x]))
    assert list(capture_both_ways(model, steps)) == ["mixing"]
    gates = ll.capture(model, steps, layers=["mixture", "mixing"])["mixture"].weights()
    np.testing.assert_allclose(gates.reshape(B, T, C), softmax(steps[..., :C].astype(float)), atol=1e-5)


@pytest.mark.full
def test_softmaxes_of_the_backend(steps):
    class Mixing(keras.Layer):
        def call(self, x):
            scores = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
            return ops.matmul(backend_softmax(scores), x)

    def backend_softmax(scores):
        if keras.backend.backend() == "jax":
            import jax

            return jax.nn.softmax(scores, axis=-1)
        if keras.backend.backend() == "tensorflow":
            import tensorflow

            return tensorflow.nn.softmax(scores)
        import torch

        return torch.nn.functional.softmax(scores, dim=-1)

    x = keras.Input((T, D))
    inputs = steps.astype(float)
    maps = capture_both_ways(keras.Model(x, Mixing(name="mixing")(x)), steps)
    np.testing.assert_allclose(maps["mixing"].weights()[:, 0], softmax(inputs @ inputs.swapaxes(1, 2)), atol=1e-5)
