"""A model with limelight's attention in place of Keras's gives what it gave before."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import limelight as ll
from compiling import predict
from limelight.conversion import UpgradeWarning
from limelight.conversion.replacement import CONVERTIBLE

pytestmark = pytest.mark.full

array = ops.convert_to_numpy

# Every example has masks of its own: what is compared is compared on so many.
B, T, S, D, ROWS = 211, 5, 7, 6, 3
TRIANGLE = np.tri(T, S, 1)


def mha(given, *, call=None, **options):
    return layers.MultiHeadAttention(2, 4, **options)(given["query"], given["value"], **(call or {}))


def grouped(given, *, call=None, **options):
    return layers.GroupQueryAttention(4, 4, 2, **options)(given["query"], given["value"], **(call or {}))


def luong(given, *, call=None, **options):
    return layers.Attention(**options)([given["query"], given["value"]], **(call or {}))


def additive(given, *, call=None, **options):
    return layers.AdditiveAttention(**options)([given["query"], given["value"]], **(call or {}))


def shared(given):
    """One layer, in one call causal and in the other not."""
    layer = layers.MultiHeadAttention(2, 4)
    return [layer(given["query"], given["query"], use_causal_mask=True), layer(given["query"], given["value"])]


def reader():
    """A model that stands within another."""
    steps = keras.Input((None, D))
    hidden = layers.MultiHeadAttention(2, 4, name="within")(steps, steps, use_causal_mask=True)
    return keras.Model(steps, layers.Dense(D)(hidden), name="reader")


def nested(given):
    """A model within, called twice, and a Sequential that holds another."""
    inner = reader()
    outer = keras.Sequential([keras.Input((None, D)), layers.Dense(D), reader()], name="line")
    return [inner(given["query"]), inner(given["value"]), outer(given["query"])]


def each_row(given):
    return layers.TimeDistributed(reader())(given["grid"])


def words(given):
    """Attention over padded words with their implicit mask; the outputs of padding itself are zeroed."""
    steps = layers.Embedding(11, D, mask_zero=True)(given["words"])
    read = layers.MultiHeadAttention(2, 4)(steps, steps)
    again = layers.Attention(use_scale=True)([read, read])
    return again * ops.cast(given["words"] != 0, "float32")[..., None]


def on_grid(given, **options):
    return layers.MultiHeadAttention(2, 4, **options)(given["grid"], given["grid"])


def lambdas(given):
    factor = 3.0
    return layers.Lambda(lambda x: x * factor + ROWS)(mha(given))


CAUSAL, SCORES = {"use_causal_mask": True}, {"return_attention_scores": True}
CASES = {
    "plain": mha,
    "causal": lambda given: mha(given, call=CAUSAL),
    "causal scores": lambda given: mha(given, call={**CAUSAL, **SCORES}),
    "window": lambda given: mha(given, sliding_window=2),
    "causal window": lambda given: mha(given, sliding_window=2, call=CAUSAL),
    "gate": lambda given: mha(given, use_gate=True),
    "values of another size": lambda given: mha(given, value_dim=3, call=SCORES),
    "no bias": lambda given: mha(given, use_bias=False, output_shape=3),
    "dropout": lambda given: mha(given, dropout=0.5, seed=3),
    "flash": lambda given: mha(given, flash_attention=False),
    "padding": lambda given: mha(given, call={"value_mask": given["padding"]}),
    "padding of keys": lambda given: mha(given, call={"key": given["value"], "key_mask": given["padding"]}),
    "mask": lambda given: mha(given, call={"attention_mask": given["allowed"]}),
    "mask of heads": lambda given: mha(given, call={"attention_mask": given["allowed"][:, None], **CAUSAL}),
    "mask of numbers": lambda given: mha(given, call={"attention_mask": TRIANGLE}),
    "axis": lambda given: on_grid(given, attention_axes=2),
    "axes": lambda given: on_grid(given, attention_axes=(1, 2)),
    "float16": lambda given: mha(given, dtype="mixed_float16", call=SCORES),
    "bfloat16": lambda given: mha(given, dtype="bfloat16", call={"value_mask": given["padding"]}),
    "grouped": grouped,
    "grouped causal": lambda given: grouped(given, call=CAUSAL),
    "grouped window": lambda given: grouped(given, sliding_window=2, use_gate=True, call=SCORES),
    "grouped padding": lambda given: grouped(given, dropout=0.5, use_bias=False, call={"value_mask": given["padding"]}),
    "luong": luong,
    "luong scaled": lambda given: luong(given, use_scale=True, call={**CAUSAL, **SCORES}),
    "luong concat": lambda given: luong(given, score_mode="concat", use_scale=True, dropout=0.3),
    "luong padding": lambda given: luong(given, call={"mask": [None, given["padding"]]}),
    "luong float16": lambda given: luong(given, use_scale=True, dtype="mixed_float16"),
    "luong mask of pairs": lambda given: luong(given, call={"mask": [None, given["allowed"] != 0]}),
    "luong activity regularizer": lambda given: luong(given, activity_regularizer="l2"),
    "additive": lambda given: additive(given, call=SCORES),
    "additive unscaled": lambda given: additive(given, use_scale=False, dropout=0.3, call=CAUSAL),
    "additive padding": lambda given: additive(given, call={"mask": [None, given["padding"]], **CAUSAL}),
    "shared": shared,
    "nested": nested,
    "time distributed": each_row,
    "words": words,
    "lambda": lambdas,
}
# Outputs reach 6, where bfloat16 has steps of 0.03.
TOLERANCES = {"float16": 1e-2, "bfloat16": 6e-2, "luong float16": 1e-2}


@pytest.fixture(scope="module")
def model():
    """All cases in one model, which is compiled once."""
    keras.utils.set_random_seed(7)
    given = {
        "query": keras.Input((T, D), name="query"),
        "value": keras.Input((None, D), name="value"),
        "padding": keras.Input((None,), dtype="bool", name="padding"),
        "allowed": keras.Input((T, None), dtype="int32", name="allowed"),
        "grid": keras.Input((ROWS, T, D), name="grid"),
        "words": keras.Input((T,), dtype="int32", name="words"),
    }
    outputs = {name.replace(" ", "_"): make(given) for name, make in CASES.items()}
    model = keras.Model(given, outputs)
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=weight.shape, scale=0.7) for weight in model.weights])
    return model


@pytest.fixture(scope="module")
def inputs():
    generator = np.random.default_rng(5)
    normal = {
        name: generator.normal(size=shape).astype("float32")
        for name, shape in {"query": (B, T, D), "value": (B, S, D), "grid": (B, ROWS, T, D)}.items()
    }
    padding, allowed = generator.random((B, S)) < 0.6, generator.random((B, T, S)) < 0.6
    # Keras is wrong about rows that permit nothing.
    padding[:, 0] = allowed[:, :, 0] = True
    words = generator.integers(1, 11, (B, T)) * (np.arange(T) < generator.integers(1, T + 1, (B, 1)))
    return {**normal, "padding": padding, "allowed": allowed.astype("int32"), "words": words.astype("int32")}


@pytest.fixture(scope="module")
def upgraded(model):
    return ll.upgrade(model)


@pytest.fixture(scope="module")
def both(model, upgraded, inputs):
    return [predict(one, inputs) for one in (model, upgraded)]


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_equal(name, both):
    tolerance = TOLERANCES.get(name, 2e-5)
    old, new = (keras.tree.flatten(outputs[name.replace(" ", "_")]) for outputs in both)
    for before, after in zip(old, new, strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_allclose(after.astype("float32"), before.astype("float32"), atol=tolerance, rtol=tolerance)


def attention_layers(model):
    return {
        layer.name: layer
        for layer in model._flatten_layers()
        if isinstance(layer, (*CONVERTIBLE, ll.layers.Attention, ll.layers.MultiHeadAttention))
    }


def test_all_layers_are_replaced_and_weights_keep_their_names(model, upgraded):
    before, after = attention_layers(model), attention_layers(upgraded)
    assert len(before) > 30
    assert before.keys() == after.keys()
    assert all(type(layer).__module__.startswith("keras.") for layer in before.values())
    assert all(type(layer).__module__.startswith("limelight.") for layer in after.values())
    # A Sequential that Keras rebuilds gives its layers a shorter path.
    paths = [[weight.path.removeprefix("line/") for weight in one.weights] for one in (model, upgraded)]
    assert paths[0] == paths[1]
    assert upgraded.name == model.name
    assert upgraded.input.keys() == model.input.keys()


def test_the_original_model_does_not_change(model, upgraded, inputs, both):
    kept = model.get_weights()
    upgraded_kept = upgraded.get_weights()
    upgraded.set_weights([weight + 1 for weight in upgraded_kept])
    for weight, before in zip(model.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(weight, before)
    upgraded.set_weights(upgraded_kept)
    assert all(len(layer._inbound_nodes) <= 3 for layer in attention_layers(model).values())


def small(**options):
    steps = keras.Input((4, D))
    read = layers.MultiHeadAttention(2, 4, name="mixing", **options)(steps, steps)
    return keras.Model(steps, layers.Dense(1)(read), name="small")


def test_training_continues_with_the_same_optimizer_state(random):
    x, y = random.normal(size=(8, 4, D)).astype("float32"), random.normal(size=(8, 4, 1)).astype("float32")
    model = small()
    model.compile(keras.optimizers.Adam(0.1), "mse", metrics=["mae"], jit_compile=keras.backend.backend() == "jax")
    model.train_on_batch(x, y)
    upgraded = ll.upgrade(model)
    assert int(upgraded.optimizer.iterations) == 1
    losses = [[float(one.train_on_batch(x, y)[0]) for _ in range(3)] for one in (model, upgraded)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert losses[0][2] < losses[0][0]


def freeze_layer(model):
    model.get_layer("mixing").trainable = False


def freeze_projection(model):
    model.get_layer("mixing").query_dense.trainable = False


def freeze_all_but_a_projection(model):
    freeze_layer(model)
    model.get_layer("mixing").value_dense.trainable = True


def freeze_weight(model):
    model.get_layer("mixing").value_dense.bias.trainable = False


@pytest.mark.parametrize("freeze", [freeze_layer, freeze_projection, freeze_all_but_a_projection, freeze_weight])
@pytest.mark.parametrize("is_nested", [False, True])
def test_what_is_frozen_stays_frozen(freeze, is_nested, random):
    """Layers, projections inside them and single weights, also in a model within another."""
    model = small(use_gate=True)
    freeze(model)
    if is_nested:
        steps = keras.Input((4, D))
        model = keras.Model(steps, layers.Dense(1)(model(steps)))
    upgraded = ll.upgrade(model)
    expected = [weight.path for weight in model.trainable_weights]
    assert [weight.path for weight in upgraded.trainable_weights] == expected
    assert 0 < len(expected) < len(model.weights)
    upgraded.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=keras.backend.backend() != "jax")
    before = upgraded.get_weights()
    x, y = random.normal(size=(8, 4, D)).astype("float32"), random.normal(size=(8, 4, 1)).astype("float32")
    upgraded.train_on_batch(x, y)
    changed = {
        weight.path
        for weight, value in zip(upgraded.weights, before, strict=True)
        if not np.array_equal(array(weight), value)
    }
    # The bias of the keys moves all scores of a query by the same, so that it changes by rounding alone.
    assert {path for path in changed if "key/bias" not in path} == {path for path in expected if "key/bias" not in path}


def test_upgraded_model_can_be_saved_and_loaded(random, tmp_path):
    x = random.normal(size=(2, 4, D)).astype("float32")
    upgraded = ll.upgrade(small(sliding_window=2))
    upgraded.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(array(loaded(x)), array(upgraded(x)), atol=1e-6)
    assert type(loaded.get_layer("mixing")) is ll.layers.MultiHeadAttention


def upgrade_with_warning(model):
    """The upgraded model, and the one warning of it."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        upgraded = ll.upgrade(model)
    (message,) = (str(one.message) for one in seen if issubclass(one.category, UpgradeWarning))
    return upgraded, message


def test_layer_shared_by_two_models(random):
    """Keras cannot load such a model at all."""
    layer = layers.MultiHeadAttention(2, 4, name="mixing")
    steps, inner = keras.Input((4, D)), keras.Input((4, D))
    within = keras.Model(inner, layer(inner, inner), name="within")
    model = keras.Model(steps, [layer(steps, steps), within(steps)])
    upgraded, message = upgrade_with_warning(model)
    assert re.match("Not shared any more: 'mixing'.*the same weights", message)
    x = random.normal(size=(2, 4, D)).astype("float32")
    for before, after in zip(model(x), upgraded(x), strict=True):
        np.testing.assert_allclose(array(after), array(before), atol=1e-5)


def test_output_of_padded_query_is_zero(random):
    steps, real = keras.Input((3, D)), keras.Input((3,), dtype="bool")
    model = keras.Model([steps, real], layers.MultiHeadAttention(2, 4, use_bias=False)(steps, steps, query_mask=real))
    x, mask = random.normal(size=(1, 3, D)).astype("float32"), np.array([[True, True, False]])
    before, after = array(model([x, mask])), array(ll.upgrade(model)([x, mask]))
    np.testing.assert_allclose(after[:, :2], before[:, :2], atol=1e-5)
    assert before[:, 2].any()
    assert not after[:, 2].any()


@keras.saving.register_keras_serializable("tests")
class Changed(layers.MultiHeadAttention):
    """A subclass."""


class Hidden(layers.Layer):
    """A custom layer that calls attention itself and is not registered."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Attention(name="inner")

    def build(self, input_shape):
        self.inner.build([input_shape, input_shape])

    def call(self, x):
        return self.inner([x, x])


def of_mask(shape, dtype, **options):
    def build(steps):
        mask = keras.Input(shape, dtype=dtype)
        output = layers.MultiHeadAttention(2, 4, name="mixing", **options)(steps, steps, attention_mask=mask)
        return keras.Model([steps, mask], output)

    return build


def half_causal(steps):
    longer = keras.Input((None, D))
    layer = layers.MultiHeadAttention(2, 4, name="mixing")
    return keras.Model([steps, longer], [layer(steps, longer, use_causal_mask=True), layer(steps, longer)])


def with_lora(steps):
    layer = layers.MultiHeadAttention(2, 4, name="mixing")
    output = layer(steps, steps)
    layer.query_dense.enable_lora(2)
    return keras.Model(steps, output)


def causal_axis(steps):
    grid = keras.Input((4, 4, D))
    layer = layers.MultiHeadAttention(2, 4, attention_axes=2, name="mixing")
    return keras.Model([steps, grid], [steps, layer(grid, grid, use_causal_mask=True)])


KEPT_LAYERS = {
    "a subclass": (lambda x: keras.Model(x, Changed(2, 4, name="mixing")(x, x)), "'mixing' .Changed.: .*subclass"),
    "within a layer": (
        lambda x: keras.Model(x, Hidden(name="hidden")(x)),
        "'hidden/inner' .*the code of Hidden calls it",
    ),
    "a mask of floats": (of_mask((4, 4), "float32"), "'mixing'.*`attention_mask` has dtype float32"),
    "a mask of two axes": (of_mask((4,), "bool"), r"'mixing'.*two axes, \(None, 4\)"),
    "half causal": (half_causal, "'mixing'.*only some of its calls are causal"),
    "a regularized output": (
        lambda x: keras.Model(x, layers.GroupQueryAttention(4, 4, 2, activity_regularizer="l2", name="mixing")(x, x)),
        "'mixing'.*activity regularizer takes its output too",
    ),
    "lora": (with_lora, "'mixing'.*LoRA"),
    "causal along another axis": (causal_axis, "'mixing'.*other axes than the first"),
    "an additive mask": (
        lambda x: keras.Model(
            x,
            layers.MultiHeadAttention(2, 4, name="mixing")(x, x, attention_mask=np.where(np.tri(4), 0.0, -1e9)[None]),
        ),
        "'mixing'.*numbers from -1000000000.0 to 0.0",
    ),
}


@pytest.mark.parametrize("name", KEPT_LAYERS)
def test_kept_layers_are_reported_with_the_reason(name, random):
    make, message = KEPT_LAYERS[name]
    model = make(keras.Input((4, D)))
    copy, warning = upgrade_with_warning(model)
    assert re.match(f"Not replaced: {message}", warning)
    batch = [
        random.normal(size=[3 if size is None else size for size in tensor.shape]).astype(tensor.dtype)
        for tensor in model.inputs
    ]
    if name == "half causal":
        batch[1] = random.normal(size=(3, S, D)).astype("float32")
    batch = batch if len(batch) > 1 else batch[0]
    if name != "a mask of two axes":
        for before, after in zip(keras.tree.flatten(model(batch)), keras.tree.flatten(copy(batch)), strict=True):
            np.testing.assert_array_equal(array(after), array(before))


def scaled(factor):
    """A function whose name tells nothing of what it computes."""

    def activation(x):
        return x * factor

    return activation


def scaling(factor):
    """A class whose name tells nothing of what it computes; its config has no name."""

    class Block(layers.Layer):
        def __init__(self):
            super().__init__()

        def call(self, x):
            return x * factor

    return Block()


class Encoder(keras.Model):
    """A Functional model whose class has a config of its own, as the backbones of keras-hub have."""

    def __init__(self, heads, is_hidden=False, **kwargs):
        steps = keras.Input((4, D))
        output = (
            Hidden(name="hidden")(steps)
            if is_hidden
            else layers.MultiHeadAttention(heads, 3, name="mixing")(steps, steps)
        )
        super().__init__(steps, output, **kwargs)
        self.heads, self.is_hidden = heads, is_hidden

    def get_config(self):
        return {"heads": self.heads, "is_hidden": self.is_hidden, "name": self.name}


def with_activations(*activations):
    def make(x):
        hidden = layers.MultiHeadAttention(2, 4, name="mixing")(x, x)
        for activation in activations:
            hidden = layers.Dense(D, activation=activation)(hidden)
        return layers.RNN(layers.GRUCell(3, activation=activations[0]), return_sequences=True)(hidden)

    return make


OWN_DEFINITIONS = {
    "two functions of one name": with_activations(scaled(0.2), scaled(0.5)),
    "a function with the name of Keras's": with_activations(ops.gelu),
    "two classes of one name": lambda x: scaling(5.0)(
        scaling(2.0)(layers.MultiHeadAttention(2, 4, name="mixing")(x, x))
    ),
}


@pytest.mark.parametrize("name", OWN_DEFINITIONS)
def test_own_functions_and_classes_are_kept(name, random):
    steps = keras.Input((4, D))
    model = keras.Model(steps, OWN_DEFINITIONS[name](steps))
    upgraded = ll.upgrade(model)
    x = random.normal(size=(3, 4, D)).astype("float32")
    np.testing.assert_allclose(array(upgraded(x)), array(model(x)), atol=1e-6, rtol=1e-6)
    assert type(upgraded.get_layer("mixing")) is ll.layers.MultiHeadAttention


def test_losses_of_one_name_are_kept(random):
    def make_loss(factor):
        def loss(y, predicted):
            return factor * ops.mean(ops.square(y - predicted))

        return loss

    steps = keras.Input((4, D))
    output = layers.MultiHeadAttention(2, 4, name="mixing")(steps, steps)
    model = keras.Model(steps, {"first": output, "second": 2 * output})
    model.compile(loss={"first": make_loss(1.0), "second": make_loss(10.0)})
    x = random.normal(size=(3, 4, D)).astype("float32")
    losses = [each.evaluate(x, {"first": x, "second": x}, verbose=0) for each in (model, ll.upgrade(model))]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


class Deceptive(layers.Layer):
    """A layer whose config does not hold what it computes."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.actual = factor

    def call(self, x):
        return x * self.actual

    def get_config(self):
        return {**super().get_config(), "factor": 1.0}


def test_copy_with_other_outputs_is_an_error():
    steps = keras.Input((4, D))
    model = keras.Model(steps, Deceptive(1.01)(layers.MultiHeadAttention(2, 4)(steps, steps)), name="small")
    with pytest.raises(ValueError, match=r"outputs of the model 'small'\. Received: output 0 differs by"):
        ll.upgrade(model)


class Refusing(layers.Layer):
    """A layer that cannot be made from its config."""

    def __init__(self, factors, **kwargs):
        super().__init__(**kwargs)

    def call(self, x):
        return x

    def get_config(self):
        return {"name": self.name}


def test_layer_that_cannot_be_rebuilt_is_named():
    steps, inner = keras.Input((4, D)), keras.Input((4, D))
    block = keras.Model(inner, Refusing((1, 2), name="refusing")(inner), name="block")
    with pytest.raises(
        TypeError, match=r"Received: 'block/refusing' \(Refusing\), which cannot be: .*factors.*get_config"
    ):
        ll.upgrade(keras.Model(steps, block(steps)))


class Sealed(keras.Model):
    """A model with a config of its own, whose layers cannot all be made from theirs."""

    def __init__(self, **kwargs):
        steps = keras.Input((4, D))
        hidden = Hidden(name="hidden")
        nested = keras.Model(steps, hidden(steps), name="nested")
        super().__init__(steps, Refusing((1, 2))(nested(steps)) + hidden(steps), **kwargs)

    def get_config(self):
        return {"name": self.name}


def test_model_with_nothing_to_replace_is_made_from_its_own_config(random):
    model = Sealed()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        upgraded = ll.upgrade(model)
    assert type(upgraded) is Sealed
    # The layer that two models share is still shared, so nothing is said of that.
    assert {str(each.message) for each in seen if issubclass(each.category, UpgradeWarning)} == {
        f"Not replaced: {path!r} (Attention): the code of Hidden calls it."
        for path in ("hidden/inner", "nested/hidden/inner")
    }
    x = random.normal(size=(3, 4, D)).astype("float32")
    np.testing.assert_array_equal(array(upgraded(x)), array(model(x)))


class Failing(layers.Layer):
    """A layer that no random batch suits."""

    def call(self, x):
        raise ValueError("No such image.")

    def compute_output_shape(self, input_shape):
        return input_shape


def test_outputs_that_cannot_be_compared_are_named():
    steps = keras.Input((4, D))
    model = keras.Model(steps, Failing()(steps), name="small")
    assert upgrade_with_warning(model)[1].startswith(
        "Not compared: the outputs of 'small' and of its copy: it fails for a random batch: ValueError: "
    )


@pytest.mark.parametrize("is_nested", [False, True])
def test_model_with_a_config_of_its_own(is_nested, random):
    """Its layers are replaced in a plain model; if there are none to replace, the class stays."""
    steps = keras.Input((4, D))

    def make(is_hidden):
        encoder = Encoder(2, is_hidden, name="encoder")
        return keras.Model(steps, encoder(steps)) if is_nested else encoder

    def find(model):
        return model.get_layer("encoder") if is_nested else model

    x = random.normal(size=(3, 4, D)).astype("float32")
    model = make(is_hidden=False)
    upgraded, message = upgrade_with_warning(model)
    assert message.startswith("Not of class Encoder any more: 'encoder'")
    assert type(find(upgraded).get_layer("mixing")) is ll.layers.MultiHeadAttention
    np.testing.assert_allclose(array(upgraded(x)), array(model(x)), atol=1e-5)
    model = make(is_hidden=True)
    upgraded, message = upgrade_with_warning(model)
    assert re.search("hidden/inner.*the code of Hidden calls it", message)
    assert type(find(upgraded)) is Encoder
    np.testing.assert_allclose(array(upgraded(x)), array(model(x)), atol=1e-6)


class Written(keras.Model):
    """A model with a call of its own."""

    def call(self, x):
        return x


def test_invalid_models_raise():
    with pytest.raises(TypeError, match=r"Functional or Sequential.*type Written"):
        ll.upgrade(Written())
    with pytest.raises(ValueError, match=r"'line', which is not. Call it"):
        ll.upgrade(keras.Sequential([layers.Dense(2)], name="line"))
