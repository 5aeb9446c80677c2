"""A model with attention weights of one's own, against numpy and against the model as it is."""

import functools
import re

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from contracts.representative import full
from inspection.capturing import StepByStep
from limelight.exceptions import AttentionError
from limelight.inspection.overrides import OverriddenModel

B, T, D = 3, 5, 8


class SoftmaxAttention(keras.Layer):
    """Attention as tutorials write it: only its softmax can be captured."""

    def call(self, x, value=None):
        weights = ops.softmax(ops.matmul(x, ops.swapaxes(x, 1, 2)))
        return ops.matmul(weights, x)


def attend(x, layer, mask):
    if isinstance(layer, SoftmaxAttention):
        return layer(x)
    if isinstance(layer, keras.layers.Attention):
        return layer([x, x], mask=[None, mask])
    return layer(x, x, value_mask=mask)


LAYERS = {
    "limelight": lambda: ll.layers.MultiHeadAttention(2, 4, name="mixing"),
    "grouped": lambda: ll.layers.MultiHeadAttention(4, 3, num_kv_heads=2, name="mixing"),
    "keras": lambda: keras.layers.MultiHeadAttention(2, 4, name="mixing"),
    "keras grouped": lambda: keras.layers.GroupQueryAttention(4, 4, 2, name="mixing"),
    "dot": lambda: keras.layers.Attention(name="mixing"),
    "additive": lambda: keras.layers.AdditiveAttention(name="mixing"),
    "softmax": lambda: SoftmaxAttention(name="mixing"),
}
KINDS = ["limelight", full("grouped"), "keras", full("keras grouped"), "dot", full("additive"), "softmax"]


@functools.cache
def build(kind):
    steps, mask = keras.Input((T, D)), keras.Input((T,), dtype="bool")
    mixed = attend(steps, LAYERS[kind](), mask)
    outputs = keras.layers.Dense(3, "softmax", name="answer")(ops.mean(mixed, axis=1))
    return keras.Model([steps, mask], outputs)


@pytest.fixture
def batch(random):
    mask = np.ones((B, T), bool)
    mask[1, 3:] = False
    return [random.normal(size=(B, T, D)).astype("float32"), mask]


@pytest.mark.parametrize("kind", KINDS)
def test_own_weights_return_own_outputs(kind, batch):
    model = build(kind)
    expected = ops.convert_to_numpy(model(batch))
    weights = ll.capture(model, batch)["mixing"].weights()
    for given in (weights, lambda weights, permitted: weights, {"mix*": weights}):
        outputs = ll.inspection.override_attention(model, batch, given)
        np.testing.assert_allclose(ops.convert_to_numpy(outputs), expected, atol=2e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(model(batch)), expected)


@pytest.mark.parametrize("kind", ["limelight", full("grouped"), "keras", full("keras grouped")])
def test_given_weights_average_the_values_of_each_head(kind, batch, random):
    model, (x, _) = build(kind), batch
    layer = model.get_layer("mixing")
    by_name = {weight.path.split("mixing/")[1]: ops.convert_to_numpy(weight.value) for weight in layer.weights}
    value = np.einsum("bsd,dkv->bksv", x, by_name["value/kernel"]) + by_name["value/bias"][:, None]
    output_name = "output" if "output/kernel" in by_name else "attention_output"
    heads = by_name[f"{output_name}/kernel"].shape[0]
    value = value.repeat(heads // value.shape[1], axis=1)
    weights = random.uniform(size=(B, heads, T, T)).astype("float32")
    weights[1, ..., 3:] = 0
    if kind in ("limelight", "grouped"):
        value[1, :, 3:] = 0
    mixed = np.einsum("bnts,bnsv,nvd->btd", weights, value, by_name[f"{output_name}/kernel"])
    expected = ops.convert_to_numpy(model.get_layer("answer")((mixed + by_name[f"{output_name}/bias"]).mean(1)))
    outputs, used = ll.inspection.override_attention(model, batch, weights, return_weights=True)
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), expected, atol=2e-6)
    np.testing.assert_array_equal(used["mixing"], weights)


def test_uniform_permuted_silenced_and_forbidden_weights(batch):
    model = build("limelight")
    own = ll.capture(model, batch)["mixing"].weights()

    def override(function):
        return ll.inspection.override_attention(model, batch, function, return_weights=True)[1]["mixing"]

    uniform = np.full((B, 2, T, T), 1 / T)
    uniform[1] = np.array([1, 1, 1, 0, 0]) / 3
    np.testing.assert_allclose(override(ll.inspection.uniform_weights), uniform, atol=1e-6)
    permutation = [2, 0, 1, 3, 4]
    np.testing.assert_allclose(override(ll.inspection.permute_keys(permutation)), own[..., permutation], atol=1e-6)
    silenced = override(ll.inspection.silence_heads([1]))
    np.testing.assert_allclose(silenced[:, 0], own[:, 0], atol=1e-6)
    assert not silenced[:, 1].any()
    forbidden = np.zeros((B, T), bool)
    forbidden[:, 0] = True
    expected = own.copy()
    expected[..., 0] = 0
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(override(ll.inspection.forbid_keys(forbidden)), expected, atol=1e-6)


@pytest.mark.full
def test_forbidding_a_key_is_masking_it(batch):
    model, (x, mask) = build("keras"), batch
    forbidden = np.zeros((B, T), bool)
    forbidden[:, 1] = True
    outputs = ll.inspection.override_attention(model, batch, ll.inspection.forbid_keys(forbidden))
    np.testing.assert_allclose(
        ops.convert_to_numpy(outputs), ops.convert_to_numpy(model([x, mask & ~forbidden])), atol=2e-6
    )


def test_silencing_a_head_agrees_with_its_importance(batch):
    model = build("keras")
    labels = np.array([0, 2, 1])
    importance = ll.inspection.head_importance(
        model, batch, labels, loss="sparse_categorical_crossentropy", by="masking"
    )["mixing"]
    losses = []
    for function in (lambda weights, permitted: weights, ll.inspection.silence_heads(1)):
        outputs = ops.convert_to_numpy(ll.inspection.override_attention(model, batch, function))
        losses.append(-np.log(outputs[np.arange(B), labels]).mean())
    np.testing.assert_allclose(losses[1] - losses[0], importance[1], atol=1e-6)


def test_several_weights_of_each_example_share_one_run(random):
    steps = keras.Input((T, D))
    model = keras.Model(steps, keras.layers.Dense(3)(ll.layers.AttentionPooling(name="pool")(steps)))
    x = random.normal(size=(B, T, D)).astype("float32")
    weights = random.dirichlet(np.ones(T), (B * 7, 1, 1)).astype("float32")
    overridden = OverriddenModel(model, x[:1])
    outputs, _ = overridden.run(x, {"pool": weights})
    expected, _ = overridden.run(x.repeat(7, axis=0), {"pool": weights})
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), ops.convert_to_numpy(expected), atol=1e-6)


def test_padded_queries_keep_their_outputs(random):
    steps, mask = keras.Input((T, D)), keras.Input((T,), dtype="bool")
    layer = ll.layers.MultiHeadAttention(2, 4, name="mixing")
    model = keras.Model([steps, mask], layer(steps, steps, query_mask=mask, value_mask=mask))
    batch = [random.normal(size=(1, T, D)).astype("float32"), np.array([[True, True, False, False, False]])]
    before = ops.convert_to_numpy(model(batch))
    after = ops.convert_to_numpy(ll.inspection.override_attention(model, batch, np.ones(T)))
    np.testing.assert_array_equal(before[:, 2:], after[:, 2:])
    assert np.abs(before[:, :2] - after[:, :2]).max() > 0.01


def test_mistakes_are_explained(batch):
    model = build("keras")
    with pytest.raises(ValueError, match=r"named by the attention of the model: mixing\. Received: 'other'"):
        ll.inspection.override_attention(model, batch, {"other": np.ones(T)})
    with pytest.raises(ValueError, match=r"must broadcast to \(3, 2, 5, 5\)\. Received: shape \(4,\)"):
        ll.inspection.override_attention(model, batch, np.ones(4))
    with pytest.raises(ValueError, match=r"`heads` must be from 0 to 1\. Received: heads=\[2\]"):
        ll.inspection.override_attention(model, batch, ll.inspection.silence_heads(2))
    plain = keras.Sequential([keras.Input((T, D)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="must have attention whose weights can be changed"):
        ll.inspection.override_attention(plain, batch[0], ll.inspection.uniform_weights)


class Router(keras.Layer):
    """A router between experts, which only an observer of operations sees, and which is no attention."""

    def call(self, x):
        exponentials = ops.exp(x[..., :4])
        gates = exponentials / ops.sum(exponentials, axis=-1, keepdims=True)
        return x * ops.sum(ops.top_k(gates, 2)[0], axis=-1, keepdims=True)


def test_each_layer_is_edited_behind_a_softmax_that_is_no_attention(random):
    steps = keras.Input((T, D))
    routed = Router(name="moe_router")(steps)
    layers = [keras.layers.MultiHeadAttention(2, 4, name=name) for name in ("one", "two")]
    model = keras.Model(steps, [layer(routed, routed) for layer in layers])
    x = random.normal(size=(B, T, D)).astype("float32")
    before = [ops.convert_to_numpy(output) for output in model(x)]
    for index, key in enumerate(("one", "two")):
        silence = {key: ll.inspection.silence_heads([0, 1])}
        outputs, used = ll.inspection.override_attention(model, x, silence, return_weights=True)
        assert list(used) == [key]
        assert not used[key].any()
        for number, output in enumerate(map(ops.convert_to_numpy, outputs)):
            # Without heads nothing is left but the bias, which is zero.
            expected = np.zeros_like(output) if number == index else before[number]
            np.testing.assert_allclose(output, expected, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a fused attention of PyTorch")
def test_fused_attention_of_torch_is_edited(random):
    import torch

    class Fused(keras.Layer):
        def call(self, x):
            heads = x.reshape(*x.shape[:-1], 2, D // 2).transpose(1, 2)
            mixed = torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)
            return mixed.transpose(1, 2).reshape(x.shape)

    x = random.normal(size=(B, T, D)).astype("float32")
    weights = random.dirichlet(np.ones(T), (B, 2, T)).astype("float32")
    model = keras.Sequential([keras.Input((T, D)), Fused(name="mixing")])
    outputs, used = ll.inspection.override_attention(model, x, weights, return_weights=True)
    expected = np.einsum("bnts,bsnv->btnv", weights, x.reshape(B, T, 2, D // 2)).reshape(B, T, D)
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), expected, atol=1e-6)
    np.testing.assert_array_equal(used["mixing"], weights)


class HeadsThird(keras.Layer):
    """Attention of two heads with weights (B, T, N, S)."""

    def call(self, x):
        heads = ops.reshape(x, (-1, T, 2, D // 2))
        weights = ops.softmax(ops.einsum("btnv,bsnv->btns", heads, heads))
        return ops.reshape(ops.einsum("btns,bsnv->btnv", weights, heads), (-1, T, D))


def test_weights_have_the_axes_of_the_map(random):
    model = keras.Sequential([keras.Input((T, D)), HeadsThird(name="mixing")])
    x = random.normal(size=(B, T, D)).astype("float32")
    outputs = ll.inspection.override_attention(model, x, ll.inspection.silence_heads(1))
    halves = ops.convert_to_numpy(outputs).reshape(B, T, 2, D // 2)
    np.testing.assert_allclose(halves[:, :, 0], ops.convert_to_numpy(model(x))[..., : D // 2], atol=1e-6)
    assert not halves[:, :, 1].any()
    with pytest.raises(ValueError, match=r"`heads` must be from 0 to 1\. Received: heads=\[2\]"):
        ll.inspection.override_attention(model, x, ll.inspection.silence_heads(2))
    weights = random.dirichlet(np.ones(T), (B, 2, T)).astype("float32")
    outputs, used = ll.inspection.override_attention(model, x, weights, return_weights=True)
    expected = np.einsum("bnts,bsnv->btnv", weights, x.reshape(B, T, 2, D // 2)).reshape(B, T, D)
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), expected, atol=1e-6)
    np.testing.assert_array_equal(used["mixing"], weights)


def test_all_steps_of_a_loop_are_edited(random):
    model = keras.Sequential([keras.Input((T, D)), StepByStep(name="loop")])
    x = random.normal(size=(B, T, D)).astype("float32")
    own = ll.capture(model, x)["loop/attention"].weights()
    weights = random.dirichlet(np.ones(T), (B, 1, T)).astype("float32")
    for given, expected in (
        (weights, weights),
        (weights[0, 0], weights[:1]),
        (weights[:, :, :1], weights[:, :, :1]),
        (own, own),
        (ll.inspection.uniform_weights, np.full(T, 1 / T)),
        (ll.inspection.permute_keys([1, 0, 2, 3, 4]), own[..., [1, 0, 2, 3, 4]]),
    ):
        outputs, used = ll.inspection.override_attention(model, x, {"loop/*": given}, return_weights=True)
        expected = np.broadcast_to(expected, (B, 1, T, T))
        assert list(used) == ["loop/attention"]
        np.testing.assert_allclose(used["loop/attention"], expected, atol=1e-6)
        np.testing.assert_allclose(ops.convert_to_numpy(outputs), (expected @ x[:, None])[:, 0], atol=1e-5)
    with pytest.raises(ValueError, match=r"must broadcast to \(3, 1, 5, 5\)\. Received: shape \(2, 5\)"):
        ll.inspection.override_attention(model, x, weights[0, 0, :2])


def test_a_model_that_attends_more_often_is_refused(random):
    model = StepByStep(name="loop")
    x = random.normal(size=(B, T, D)).astype("float32")
    overridden = OverriddenModel(model, x[:, :3])
    for length in (2, 4):
        with pytest.raises(AttentionError, match="attend in the same layers, as often and in the same order"):
            overridden.run(x[:, :length], overridden.match(ll.inspection.uniform_weights))


A = 2  # grids of T steps in each example


@pytest.mark.parametrize(
    "layer_class", [ll.layers.MultiHeadAttention, pytest.param(keras.layers.MultiHeadAttention, marks=pytest.mark.full)]
)
def test_weights_of_attention_axes_have_the_axes_of_the_map(layer_class, random):
    steps = keras.Input((A, T, D))
    layer = layer_class(2, 4, attention_axes=(2,), name="mixing")
    model = keras.Model(steps, layer(steps, steps))
    x = random.normal(size=(B, A, T, D)).astype("float32")
    own = ll.capture(model, x)["mixing"].weights()
    assert own.shape == (B, A, 2, T, T)
    kernels = {weight.path.split("mixing/")[1]: ops.convert_to_numpy(weight.value) for weight in layer.weights}
    output_kernel = kernels.get("output/kernel", kernels.get("attention_output/kernel"))
    forbidden = random.uniform(size=(B, T)) < 0.4
    kept = np.where(forbidden[:, None, None, None], 0, own)
    weights = random.dirichlet(np.ones(T), (B, A, 2, T)).astype("float32")
    silenced = own * np.array([0, 1])[:, None, None]
    for given, expected in (
        (weights, weights),
        (ll.inspection.uniform_weights, np.full_like(own, 1 / T)),
        (ll.inspection.silence_heads(0), silenced),
        (ll.inspection.forbid_keys(forbidden), kept / np.maximum(kept.sum(-1, keepdims=True), 1e-9)),
    ):
        outputs, used = ll.inspection.override_attention(model, x, given, return_weights=True)
        np.testing.assert_allclose(used["mixing"], expected, atol=1e-6)
        mixed = np.einsum("bants,basd,dnv,nve->bate", expected, x, kernels["value/kernel"], output_kernel)
        np.testing.assert_allclose(ops.convert_to_numpy(outputs), mixed, atol=1e-5)
    importance = ll.inspection.head_importance(model, x, loss=lambda y: ops.mean(y**2, axis=(1, 2, 3)), by="masking")
    losses = [
        (np.einsum("bants,basd,dnv,nve->bate", each, x, kernels["value/kernel"], output_kernel) ** 2).mean()
        for each in (silenced, own)
    ]
    np.testing.assert_allclose(importance["mixing"][0], losses[0] - losses[1], rtol=1e-4)
    products = ll.inspection.gradient_times_attention(model, x, lambda y: ops.sum(y))["mixing"].weights()
    expected = own * np.einsum("basd,dnv,nve->bans", x, kernels["value/kernel"], output_kernel)[..., None, :]
    np.testing.assert_allclose(products, expected, atol=1e-5)


def test_forbidden_keys_of_unclear_axes_are_refused(batch):
    for count in (2, B):
        with pytest.raises(
            ValueError, match=r"`forbidden` must have the shape \(S,\), \(B, S\) or that of the weights"
        ):
            ll.inspection.override_attention(
                build("keras"), batch, ll.inspection.forbid_keys(np.zeros((count, T, T), bool))
            )


def test_a_pooling_of_several_sequences_with_padding_is_edited(random):
    steps, mask = keras.Input((A, T, D)), keras.Input((A, T), dtype="bool")
    model = keras.Model([steps, mask], ll.layers.AttentionPooling(name="pool")(steps, mask=mask))
    real = random.uniform(size=(B, A, T)) < 0.7
    real[..., 0] = True
    batch = [random.normal(size=(B, A, T, D)).astype("float32"), real]
    expected = real / real.sum(-1, keepdims=True)
    outputs, used = ll.inspection.override_attention(model, batch, ll.inspection.uniform_weights, return_weights=True)
    assert used["pool"].shape == ll.capture(model, batch)["pool"].shape == (B, A, 1, 1, T)
    np.testing.assert_allclose(used["pool"][:, :, 0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), np.einsum("bas,basd->bad", expected, batch[0]), atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.25])
@pytest.mark.parametrize("is_function", [False, True])
def test_weights_are_finite_and_not_negative(batch, value, is_function):
    weights = np.full((T,), 0.2)
    weights[2] = value
    given = (lambda own, permitted: ops.convert_to_tensor(weights, own.dtype)) if is_function else weights
    message = rf"weights of 'mixing' must be finite and not negative\. Received: 1 of 5 that are not, such as {value}\. Use zero"
    with pytest.raises(ValueError, match=message):
        ll.inspection.override_attention(build("keras"), batch, given)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (ll.inspection.forbid_keys, (T - 1,)),
        (ll.inspection.forbid_keys, (B, T + 2)),
        (ll.inspection.forbid_keys, (B - 1, T)),
        (ll.inspection.forbid_keys, (B, 1, T, T - 2)),
        (ll.inspection.permute_keys, (T - 1,)),
        (ll.inspection.permute_keys, (B - 1, 1, 1, T)),
    ],
)
def test_keys_of_another_shape_are_named(batch, make, shape):
    name = "forbidden" if make is ll.inspection.forbid_keys else "permutation"
    received = re.escape(f"Received: shape {shape} for weights (3, 2, 5, 5). Give it 5 keys, and 3 examples if")
    message = rf"^`{name}` must have the shape \(S,\), or one that broadcasts .*{received}"
    with pytest.raises(ValueError, match=message):
        ll.inspection.override_attention(build("keras"), batch, make(np.zeros(shape, int)))


@pytest.mark.parametrize("kind", ["limelight", "keras", "softmax"])
def test_errors_of_a_function_are_raised_as_they_are(kind, batch):
    class Refused(Exception):
        pass

    def refuse(weights, permitted):
        raise Refused("no")

    with pytest.raises(Refused, match=r"^no$") as caught:
        ll.inspection.override_attention(build(kind), batch, refuse)
    assert caught.value.__suppress_context__
    with pytest.raises(ValueError, match=r"^`heads` must be from 0 to \d\. Received: heads=\[7\]\.$"):
        ll.inspection.override_attention(build(kind), batch, ll.inspection.silence_heads(7))
    shape = (B, 1, T, T + 1)
    with pytest.raises(
        ValueError,
        match=r"^The weights of 'mixing' must broadcast to \(3, \d, 5, 5\)\. Received: shape \(3, 1, 5, 6\)\.$",
    ):
        ll.inspection.override_attention(build(kind), batch, np.ones(shape))


def test_one_example_with_several_sets_of_keys(batch):
    weights = np.full((1, 2, T, T), 0.2, "float32")
    forbidden = np.eye(T, dtype=bool)[:2]
    given = ops.convert_to_numpy(ll.inspection.forbid_keys(forbidden)(ops.convert_to_tensor(weights), None))
    expected = np.where(forbidden[:, None, None], 0, 0.25) * np.ones((2, 2, T, 1))
    np.testing.assert_allclose(given, expected, atol=1e-6)
