"""Probes and `capture`: whole models of every shape, left as they were."""

import threading

import keras
import numpy as np
import pytest
from keras import layers
from keras.src.ops.operation import Operation

import limelight as ll

T, D = 5, 6


@pytest.fixture
def steps(random):
    return random.normal(size=(4, T, D)).astype("float32")


def by_hand(layer, x):
    """The weights of a `MultiHeadAttention` on itself in float64."""
    names = {
        one.path.split("/")[-2] + "/" + one.name: keras.ops.convert_to_numpy(one).astype(float) for one in layer.weights
    }
    heads = [
        np.einsum("btd,dnh->bnth", x.astype(float), names[f"{part}/kernel"]) + names[f"{part}/bias"][None, :, None]
        for part in ("query", "key")
    ]
    scores = np.einsum("bnth,bnsh->bnts", *heads) / np.sqrt(heads[0].shape[-1])
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def test_a_sequential_model(steps):
    model = keras.Sequential([keras.Input((T, D)), ll.layers.SelfAttention(4, name="reader"), layers.Dense(2)])
    maps = ll.capture(model, steps)
    assert list(maps) == ["reader"]
    assert maps["reader"].shape == (4, 1, T, T)
    outputs, seen = ll.AttentionExtractor(model).predict(steps, batch_size=3)
    np.testing.assert_allclose(outputs, model.predict(steps, verbose=0), atol=1e-6)
    np.testing.assert_allclose(seen["reader"].weights(), maps["reader"].weights(), atol=1e-6)


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
    np.testing.assert_allclose(maps["mixing"].weights(), by_hand(model.mixing, steps), atol=1e-5)
    _, seen = ll.AttentionExtractor(model).predict(steps)
    np.testing.assert_allclose(seen["mixing"].weights(), maps["mixing"].weights(), atol=1e-6)


def test_a_loaded_model(steps, tmp_path):
    x = keras.Input((None, D))
    hidden = layers.MultiHeadAttention(2, 3, name="theirs")(x, x)
    model = keras.Model(x, ll.layers.AttentionPooling(name="ours")(hidden))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    maps, again = ll.capture(model, steps), ll.capture(loaded, steps)
    assert list(again) == ["theirs", "ours"]
    for key in maps:
        np.testing.assert_array_equal(maps[key].weights(), again[key].weights())


def test_paths_of_nested_models_and_calls_of_shared_layers(steps):
    x = keras.Input((T, D))
    shared = layers.MultiHeadAttention(2, 3, name="shared")
    inner = keras.Model(x, shared(x, shared(x, x)), name="block")
    y = keras.Input((T, D))
    model = keras.Model(y, shared(inner(inner(y)), y), name="whole")
    maps = ll.capture(model, steps)
    assert list(maps) == ["block/shared", "block/shared#1", "block/shared#2", "block/shared#3", "shared"]
    np.testing.assert_allclose(maps["block/shared"].weights(), by_hand(shared, steps), atol=1e-5)
    assert maps["block/shared#2"].call == 2
    assert maps["shared"].layer == "MultiHeadAttention"


def test_dict_inputs_and_several_outputs(steps):
    given = {"left": keras.Input((T, D), name="left"), "right": keras.Input((None, D), name="right")}
    left = layers.MultiHeadAttention(2, 3, name="left_mixing")(given["left"], given["right"])
    right = layers.Attention(name="right_mixing")([given["right"], given["left"]])
    model = keras.Model(given, {"one": left, "both": [right, left]})
    data = {"left": steps, "right": steps[:, :3]}
    outputs, maps = ll.AttentionExtractor(model).predict(data, batch_size=3)
    plain = model.predict(data, verbose=0)
    keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), outputs, plain)
    assert {key: one.shape for key, one in maps.items()} == {
        "left_mixing": (4, 2, T, 3),
        "right_mixing": (4, 1, 3, T),
    }


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
    np.testing.assert_allclose(maps["mixing"].weights(), by_hand(layer, steps), atol=2e-2)
    outputs, _ = ll.AttentionExtractor(model).predict(steps)
    np.testing.assert_array_equal(outputs, model.predict(steps, verbose=0))


@pytest.mark.parametrize("jit", [True, False])
def test_with_and_without_a_compiler(jit, steps):
    if jit and keras.backend.backend() == "torch":
        pytest.skip("PyTorch's compiler needs a C++ compiler; a probe runs eagerly there")
    x = keras.Input((T, D))
    model = keras.Model(x, layers.MultiHeadAttention(2, 3, name="mixing")(x, x))
    model.compile(jit_compile=jit)
    outputs, maps = ll.AttentionExtractor(model).predict(steps)
    plain = model.predict(steps, verbose=0)
    assert np.abs(outputs - plain).max() <= 1e-6 * np.abs(plain).max()
    np.testing.assert_allclose(maps["mixing"].weights(), by_hand(model.get_layer("mixing"), steps), atol=1e-5)


def test_training_drops_out_and_leaves_the_weights(steps):
    x = keras.Input((T, D))
    y = layers.BatchNormalization()(layers.Dropout(0.5, seed=3)(x))
    model = keras.Model(x, layers.MultiHeadAttention(2, 3, dropout=0.5, name="mixing")(y, y))
    before = [keras.ops.convert_to_numpy(one) for one in model.variables]
    still, dropped = ll.capture(model, steps), ll.capture(model, steps, training=True)
    assert np.abs(still["mixing"].weights() - dropped["mixing"].weights()).max() > 1e-3
    np.testing.assert_allclose(dropped["mixing"].weights().sum(-1), 1, atol=1e-6)
    for one, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), value)


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


def test_tokens_go_to_the_axes_of_the_input(random):
    ids = keras.Input((None,), dtype="int32")
    steps = layers.Embedding(11, D, mask_zero=True)(ids)
    steps = ll.layers.SelfAttention(4, name="reader")(steps)
    model = keras.Model(ids, ll.layers.AttentionPooling(name="pool")(steps))
    batch = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    maps = ll.capture(model, batch, tokens=[["a", "b"], ["c"]])
    assert [list(one) for one in maps["reader"].query_tokens] == [["a", "b"], ["c"]]
    assert [list(one) for one in maps["pool"].tokens] == [["a", "b"], ["c"]]
    assert maps["pool"].query_tokens is None
    with pytest.raises(
        ValueError, match=r"must fit an input of the batch\. Received: 5 tokens, inputs of length \[4\]"
    ):
        ll.capture(model, batch, tokens=[["a"] * 5, []])


def test_nothing_of_keras_stays_replaced(steps):
    before = vars(Operation)["__call__"], vars(layers.MultiHeadAttention)["_compute_attention"]
    x = keras.Input((T, D))

    class Failing(keras.Layer):
        def call(self, x):
            if not isinstance(x, keras.KerasTensor) and fails:
                raise RuntimeError("as it is meant to")
            return x

    fails = False
    model = keras.Model(x, Failing()(layers.MultiHeadAttention(2, 3, name="mixing")(x, x)))
    attributes = {one: set(vars(one)) for one in model._flatten_layers()}
    fails = True
    with pytest.raises(RuntimeError, match="as it is meant to"):
        ll.capture(model, steps)
    assert (vars(Operation)["__call__"], vars(layers.MultiHeadAttention)["_compute_attention"]) == before
    fails = False
    assert list(ll.capture(model, steps)) == ["mixing"]
    assert (vars(Operation)["__call__"], vars(layers.MultiHeadAttention)["_compute_attention"]) == before
    assert {one: set(vars(one)) for one in model._flatten_layers()} == attributes


def test_threads_see_only_their_own(steps):
    def model(name):
        x = keras.Input((T, D))
        return keras.Model(x, layers.MultiHeadAttention(2, 3, name=name)(x, x))

    models = {name: model(name) for name in ("one", "two", "three")}
    found, errors = {name: [] for name in models}, []

    def work(name):
        try:
            for _ in range(5):
                found[name].append(ll.capture(models[name], steps))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for name, maps in found.items():
        assert [list(one) for one in maps] == [[name]] * 5
        np.testing.assert_allclose(maps[4][name].weights(), by_hand(models[name].get_layer(name), steps), atol=1e-5)


def test_an_adapter_of_ones_own(steps):
    class Sigmoid(keras.Layer):
        def call(self, x, mask=None):
            return keras.ops.matmul(keras.ops.sigmoid(keras.ops.matmul(x, keras.ops.swapaxes(x, 1, 2))), x)

    @ll.inspection.register_adapter(Sigmoid)
    def sigmoid(layer, arguments, outputs):
        x = arguments["x"]
        return ll.inspection.Observation(weights=keras.ops.sigmoid(keras.ops.matmul(x, keras.ops.swapaxes(x, 1, 2))))

    x = keras.Input((T, D))
    model = keras.Model(x, Sigmoid(name="mixing")(x))
    wanted = 1 / (1 + np.exp(-np.einsum("bth,bsh->bts", steps, steps).astype(float)))
    np.testing.assert_allclose(ll.capture(model, steps)["mixing"].weights()[:, 0], wanted, atol=1e-5)
    with pytest.raises(TypeError, match="for a class of layers"):
        ll.inspection.register_adapter("Sigmoid")
    with pytest.raises(ValueError, match="either `query` and `key`, or `weights`"):
        ll.inspection.Observation(query=steps)


def test_only_models_are_probed():
    with pytest.raises(TypeError, match=r"must be a model or layer of Keras\. Received: 3"):
        ll.AttentionExtractor(3)
