"""`AttentionExtractor` and `capture`: models of every kind, left as they were."""

import gc
import threading
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import limelight as ll
from inspection.capturing import multi_head_weights
from limelight.inspection.recorder import Recorder

T, D = 5, 6


@pytest.fixture
def steps(random):
    return random.normal(size=(4, T, D)).astype("float32")


@pytest.mark.full
def test_a_sequential_model(steps):
    model = keras.Sequential([keras.Input((T, D)), ll.layers.SelfAttention(4, name="reader"), layers.Dense(2)])
    maps = ll.capture(model, steps)
    assert list(maps) == ["reader"]
    assert maps["reader"].shape == (4, 1, T, T)
    outputs, predicted = ll.AttentionExtractor(model).predict(steps, batch_size=3)
    np.testing.assert_allclose(outputs, model.predict(steps, verbose=0), atol=1e-6)
    np.testing.assert_allclose(predicted["reader"].weights(), maps["reader"].weights(), atol=1e-6)


def test_a_subclassed_model(steps):
    class Model(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.mixing = layers.MultiHeadAttention(2, 3, name="mixing")
            self.out = layers.Dense(2)

        def call(self, x, training=False):
            return self.out(self.mixing(x, x))

    model = Model()
    maps = ll.capture(model, steps)
    assert model.built
    np.testing.assert_allclose(maps["mixing"].weights(), multi_head_weights(model.mixing, steps), atol=1e-5)
    _, predicted = ll.AttentionExtractor(model).predict(steps)
    np.testing.assert_allclose(predicted["mixing"].weights(), maps["mixing"].weights(), atol=1e-6)


@pytest.mark.full
def test_a_loaded_model(steps, tmp_path):
    x = keras.Input((None, D))
    hidden = layers.MultiHeadAttention(2, 3, name="theirs")(x, x)
    model = keras.Model(x, ll.layers.AttentionPooling(name="ours")(hidden))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    maps, loaded_maps = ll.capture(model, steps), ll.capture(loaded, steps)
    assert list(loaded_maps) == ["theirs", "ours"]
    for key in maps:
        np.testing.assert_array_equal(maps[key].weights(), loaded_maps[key].weights())


@pytest.mark.full
def test_paths_of_nested_models_and_calls_of_shared_layers(steps):
    x = keras.Input((T, D))
    shared = layers.MultiHeadAttention(2, 3, name="shared")
    inner = keras.Model(x, shared(x, shared(x, x)), name="block")
    y = keras.Input((T, D))
    model = keras.Model(y, shared(inner(inner(y)), y), name="whole")
    maps = ll.capture(model, steps)
    assert list(maps) == ["block/shared", "block/shared#1", "block/shared#2", "block/shared#3", "shared"]
    np.testing.assert_allclose(maps["block/shared"].weights(), multi_head_weights(shared, steps), atol=1e-5)
    assert maps["block/shared#2"].call_index == 2
    assert maps["shared"].layer == "MultiHeadAttention"


def test_dict_inputs_and_several_outputs(steps):
    inputs = {"left": keras.Input((T, D), name="left"), "right": keras.Input((None, D), name="right")}
    left = layers.MultiHeadAttention(2, 3, name="left_mixing")(inputs["left"], inputs["right"])
    right = layers.Attention(name="right_mixing")([inputs["right"], inputs["left"]])
    model = keras.Model(inputs, {"one": left, "both": [right, left]})
    data = {"left": steps, "right": steps[:, :3]}
    outputs, maps = ll.AttentionExtractor(model).predict(data, batch_size=3)
    alone = model.predict(data, verbose=0)
    keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), outputs, alone)
    assert {key: attention_map.shape for key, attention_map in maps.items()} == {
        "left_mixing": (4, 2, T, 3),
        "right_mixing": (4, 1, 3, T),
    }


@pytest.mark.full
def test_layers_are_chosen_by_pattern(steps):
    x = keras.Input((T, D))
    y = layers.MultiHeadAttention(2, 3, name="encoder_1")(x, x)
    model = keras.Model(x, layers.MultiHeadAttention(2, 3, name="decoder_1")(y, y))
    assert list(ll.capture(model, steps, layers="decoder*")) == ["decoder_1"]
    assert list(ll.capture(model, steps, layers=["encoder*", "decoder*"])) == ["encoder_1", "decoder_1"]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, steps):
    if policy == "mixed_float16" and keras.backend.backend() == "jax":
        pytest.skip("JAX's fused kernel does not take float16 on a CPU: F16_F16_F32 is not supported by dot_general")
    x = keras.Input((T, D))
    layer = layers.MultiHeadAttention(2, 3, name="mixing", dtype=policy)
    model = keras.Model(x, layer(x, x))
    maps = ll.capture(model, steps)
    assert maps["mixing"].weights().dtype == np.float32
    np.testing.assert_allclose(maps["mixing"].weights(), multi_head_weights(layer, steps), atol=2e-2)
    outputs, _ = ll.AttentionExtractor(model).predict(steps)
    np.testing.assert_array_equal(outputs, model.predict(steps, verbose=0))


@pytest.mark.parametrize("jit", [True, False])
def test_with_and_without_a_compiler(jit, steps):
    if jit and keras.backend.backend() == "torch":
        pytest.skip("PyTorch's compiler needs a C++ compiler; an extractor runs eagerly there")
    x = keras.Input((T, D))
    model = keras.Model(x, layers.MultiHeadAttention(2, 3, name="mixing")(x, x))
    model.compile(jit_compile=jit)
    outputs, maps = ll.AttentionExtractor(model).predict(steps)
    alone = model.predict(steps, verbose=0)
    assert np.abs(outputs - alone).max() <= 1e-6 * np.abs(alone).max()
    np.testing.assert_allclose(
        maps["mixing"].weights(), multi_head_weights(model.get_layer("mixing"), steps), atol=1e-5
    )


def test_training_applies_dropout_and_changes_no_state(steps):
    x = keras.Input((T, D))
    y = layers.BatchNormalization()(layers.Dropout(0.5, seed=3)(x))
    model = keras.Model(x, layers.MultiHeadAttention(2, 3, dropout=0.5, name="mixing")(y, y))
    before = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    inference, training = ll.capture(model, steps), ll.capture(model, steps, training=True)
    assert np.abs(inference["mixing"].weights() - training["mixing"].weights()).max() > 1e-3
    np.testing.assert_allclose(training["mixing"].weights().sum(-1), 1, atol=1e-6)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)


def test_batches_of_different_lengths(random):
    ids = keras.Input((None,), dtype="int32")
    steps = layers.Embedding(11, D, mask_zero=True)(ids)
    steps = ll.layers.MultiHeadAttention(2, 3, name="mixing")(steps, steps)
    model = keras.Model(ids, ll.layers.AttentionPooling(name="pool")(steps))

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            ids = [[[1, 2, 3], [4, 5, 0]], [[6, 7, 8, 9, 10]]][index]
            return np.array(ids), np.zeros(len(ids))

    outputs, maps = ll.AttentionExtractor(model).predict(Batches())
    assert outputs.shape == (3, D)
    weights = maps["mixing"].weights()
    assert weights.shape == (3, 2, 5, 5)
    np.testing.assert_allclose(weights[1, :, :2].sum(-1), 1, atol=1e-6)
    assert (weights[:2, ..., 3:] == 0).all()
    alone = ll.capture(model, np.array([[4, 5]]))
    np.testing.assert_allclose(weights[1, :, :2, :2], alone["mixing"].weights()[0], atol=1e-6)
    np.testing.assert_allclose(maps["pool"].weights()[1, :, :, :2], alone["pool"].weights()[0], atol=1e-6)


@pytest.mark.full
def test_tokens_are_added_to_the_axes_of_the_input(random):
    ids = keras.Input((None,), dtype="int32")
    steps = layers.Embedding(11, D, mask_zero=True)(ids)
    steps = ll.layers.SelfAttention(4, name="reader")(steps)
    model = keras.Model(ids, ll.layers.AttentionPooling(name="pool")(steps))
    batch = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    maps = ll.capture(model, batch, tokens=[["a", "b"], ["c"]])
    assert [list(tokens) for tokens in maps["reader"].query_tokens] == [["a", "b"], ["c"]]
    assert [list(tokens) for tokens in maps["pool"].tokens] == [["a", "b"], ["c"]]
    assert maps["pool"].query_tokens is None
    with pytest.raises(
        ValueError, match=r"must fit an input of the batch\. Received: 5 tokens, inputs of length \[4\]"
    ):
        ll.capture(model, batch, tokens=[["a"] * 5, []])


@pytest.mark.full
def test_functions_of_keras_are_restored(steps):
    before = vars(keras.Operation)["__call__"], vars(layers.MultiHeadAttention)["_compute_attention"]
    x = keras.Input((T, D))

    class Failing(keras.Layer):
        def call(self, x):
            if not isinstance(x, keras.KerasTensor) and fails:
                raise RuntimeError("an error of the model")
            return x

    fails = False
    model = keras.Model(x, Failing()(layers.MultiHeadAttention(2, 3, name="mixing")(x, x)))
    attributes = {layer: set(vars(layer)) for layer in model._flatten_layers()}
    fails = True
    with pytest.raises(RuntimeError, match="an error of the model"):
        ll.capture(model, steps)
    assert (vars(keras.Operation)["__call__"], vars(layers.MultiHeadAttention)["_compute_attention"]) == before
    fails = False
    assert list(ll.capture(model, steps)) == ["mixing"]
    assert (vars(keras.Operation)["__call__"], vars(layers.MultiHeadAttention)["_compute_attention"]) == before
    assert {layer: set(vars(layer)) for layer in model._flatten_layers()} == attributes


def test_what_a_run_has_recorded_is_freed_without_collecting_garbage():
    # On JAX, Keras has the masks of traced tensors in a dict by identity, one for each thread. If the collector freed such a
    # tensor in another thread, its mask would stay, and the next tensor at its address would have it.
    ids = keras.Input((None,), dtype="int32")
    states = layers.LSTM(4, return_sequences=True)(layers.Embedding(9, 4, mask_zero=True)(ids))
    model = keras.Model(ids, ll.layers.AttentionPooling(name="pool")(ll.layers.SelfAttention(4, name="reader")(states)))
    batch = np.array([[4, 8, 5, 0]], "int32")

    def recorders():
        return {id(each) for each in gc.get_objects() if type(each) is Recorder}

    gc.collect()
    gc.disable()
    before = recorders()
    try:
        ll.capture(model, batch)
        ll.AttentionExtractor(model).predict(batch)
        ll.inspection.override_attention(model, batch, {"reader": ll.inspection.silence_heads(0)})
        with pytest.raises(ValueError, match="must match the paths"):
            ll.capture(model, batch, layers="writer")
        assert recorders() <= before
    finally:
        gc.enable()


def test_threads_capture_only_their_own(steps):
    def build(name):
        x = keras.Input((T, D))
        return keras.Model(x, layers.MultiHeadAttention(2, 3, name=name)(x, x))

    models = {name: build(name) for name in ("one", "two", "three")}
    captured, errors = {name: [] for name in models}, []

    def work(name):
        try:
            for _ in range(5):
                captured[name].append(ll.capture(models[name], steps))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for name, maps in captured.items():
        assert [list(each) for each in maps] == [[name]] * 5
        np.testing.assert_allclose(
            maps[4][name].weights(), multi_head_weights(models[name].get_layer(name), steps), atol=1e-5
        )


def make_pair():
    x = keras.Input((T, D))
    first = layers.MultiHeadAttention(2, 3, name="first")(x, x)
    return keras.Model(x, ll.layers.SelfAttention(4, name="second")(first))


@pytest.mark.parametrize("store", ["qk", "statistics"])
def test_weights_that_are_not_finite_are_named(steps, store):
    model = make_pair()
    steps[1, 2, 3] = np.nan
    steps[3] = np.inf
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ll.inspection.CaptureWarning)
        maps = ll.capture(model, steps, store=store)
    (message,) = [str(warning.message) for warning in caught]
    assert message.startswith(
        "No finite attention was captured of 'first' in 2 of 4 examples, 'second' in 2 of 4 examples: weights there are NaN or "
        "infinity. Check that the inputs"
    )
    with np.errstate(invalid="ignore"):
        entropy = maps["first"].statistics().entropy
    assert np.isfinite(entropy).all(axis=(1, 2)).tolist() == [True, False, True, False]


def test_what_a_mask_hides_need_not_be_finite(steps):
    mask = np.ones((1, T, T), bool)
    mask[:, :, 4] = mask[:, 4] = False
    x = keras.Input((T, D))
    model = keras.Model(x, layers.MultiHeadAttention(2, 3, name="first")(x, x, attention_mask=mask))
    steps[:, 4] = np.nan
    # A warning is an error.
    maps = ll.capture(model, steps)
    assert np.isfinite(maps["first"].weights()).all()
    assert np.isnan(maps["first"].source.key[:, :, 4]).all()


@pytest.mark.full
def test_a_custom_adapter(steps):
    class Sigmoid(keras.Layer):
        def call(self, x, mask=None):
            return keras.ops.matmul(keras.ops.sigmoid(keras.ops.matmul(x, keras.ops.swapaxes(x, 1, 2))), x)

    @ll.inspection.register_adapter(Sigmoid)
    def sigmoid(layer, arguments, outputs):
        x = arguments["x"]
        return ll.inspection.ObservedAttention(
            weights=keras.ops.sigmoid(keras.ops.matmul(x, keras.ops.swapaxes(x, 1, 2)))
        )

    x = keras.Input((T, D))
    model = keras.Model(x, Sigmoid(name="mixing")(x))
    expected = 1 / (1 + np.exp(-np.einsum("bth,bsh->bts", steps, steps).astype(float)))
    np.testing.assert_allclose(ll.capture(model, steps)["mixing"].weights()[:, 0], expected, atol=1e-5)
    with pytest.raises(TypeError, match=r"for a class of layers\. Received: 'Sigmoid'"):
        ll.inspection.register_adapter("Sigmoid")
    with pytest.raises(ValueError, match=r"either `query` and `key`, or `weights`\. Received: query"):
        ll.inspection.ObservedAttention(query=steps)


@pytest.mark.full
def test_only_models_are_accepted():
    with pytest.raises(TypeError, match=r"must be a model or layer of Keras\. Received: 3"):
        ll.AttentionExtractor(3)
