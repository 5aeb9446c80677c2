"""`AttentionExtractor.predict` takes what `model.predict` takes, and returns the same outputs."""

import importlib

import keras
import numpy as np
import pytest
from keras import layers, ops

import limelight as ll
from contracts.representative import full

B, T, D = 5, 3, 4


class Halving(keras.Layer):
    """A layer that behaves as in training unless it is told otherwise, like stochastic depth in keras.io's examples."""

    def call(self, x, training=True):
        return x * 0.5 if training else x


def build_model(**inputs):
    steps = keras.Input((T, D), **inputs)
    return keras.Model(
        {"steps": steps} if inputs else steps, layers.MultiHeadAttention(2, 3, name="mixing")(Halving()(steps), steps)
    )


class Batches(keras.utils.PyDataset):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def __len__(self):
        return 3

    def __getitem__(self, index):
        batch = self.steps[2 * index : 2 * index + 2]
        return batch, np.zeros(len(batch))


def generate(steps):
    for start in range(0, B, 2):
        yield (steps[start : start + 2],)


def as_tf_data(steps):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the other backends are tested without TensorFlow")
    return importlib.import_module("tensorflow").data.Dataset.from_tensor_slices(steps).batch(2)


def as_data_loader(steps):
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.tensor(steps))
    return torch.utils.data.DataLoader(dataset, batch_size=2)


DATA = {
    "array": lambda steps: steps,
    "dict": lambda steps: {"steps": steps},
    "PyDataset": Batches,
    "generator": generate,
    "tf.data": as_tf_data,
    "DataLoader": as_data_loader,
}


@pytest.fixture
def steps(random):
    return random.normal(size=(B, T, D)).astype("float32")


def check_prediction(model, make_data, inputs, **arguments):
    """Compare outputs with those of `model.predict`, and maps with those of one batch with all examples."""
    outputs, maps = ll.AttentionExtractor(model).predict(make_data(), **arguments)
    expected = model.predict(make_data(), verbose=0, **arguments)
    keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), outputs, expected)
    captured = ll.capture(model, inputs)
    assert list(maps) == list(captured)
    for key, attention_map in maps.items():
        np.testing.assert_allclose(attention_map.weights(), captured[key].weights(), atol=1e-6)


# Keras warns of every generator that ends.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "kind", ["array", *(full(kind) for kind in ("dict", "PyDataset", "generator", "DataLoader")), "tf.data"]
)
def test_every_kind_of_data(kind, steps):
    model = build_model(**({"name": "steps"} if kind == "dict" else {}))
    arguments = {"batch_size": 2} if kind in ("array", "dict") else {}
    check_prediction(model, lambda: DATA[kind](steps), DATA["dict"](steps) if kind == "dict" else steps, **arguments)


@pytest.mark.parametrize("eagerly", [False, True])
def test_layers_run_as_in_inference(eagerly, steps):
    model = build_model()
    model.compile(run_eagerly=eagerly)
    check_prediction(model, lambda: steps, steps)
    outputs, maps = ll.AttentionExtractor(model).predict_on_batch(steps)
    np.testing.assert_allclose(outputs, model.predict_on_batch(steps), atol=1e-6)
    np.testing.assert_allclose(maps["mixing"].weights(), ll.capture(model, steps)["mixing"].weights(), atol=1e-6)


class Doubling(keras.Model):
    """A model that prepares its data and its outputs, as tasks of keras-hub do, and reports in a step of its own."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def call(self, x, training=False):
        return self.model(x, training=training)

    def predict_step(self, *args):
        if keras.backend.backend() == "jax":
            outputs, state = super().predict_step(*args)
            return {"outputs": outputs, "negated": -outputs}, state
        outputs = super().predict_step(*args)
        return {"outputs": outputs, "negated": -outputs}

    def predict(self, words):
        return {name: output + 1 for name, output in super().predict(parse(words), verbose=0).items()}

    def predict_on_batch(self, words):
        return super().predict_on_batch(parse(words))


def parse(words):
    return np.array([[[float(number)] * D for number in word.split()] for word in words], "float32")


def test_a_model_with_its_own_predict():
    model = Doubling(build_model())
    words = ["1 2 3", "0 1 0"]
    model(parse(words))
    extractor = ll.AttentionExtractor(model)
    (expected,) = ll.capture(model, parse(words)).values()
    for method in ("predict", "predict_on_batch"):
        outputs, maps = getattr(extractor, method)(words)
        alone = getattr(model, method)(words)
        assert set(outputs) == {"outputs", "negated"}
        keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), outputs, alone)
        (attention_map,) = maps.values()
        np.testing.assert_allclose(attention_map.weights(), expected.weights(), atol=1e-6)


@pytest.mark.full
def test_a_predict_that_runs_the_model_in_another_way_is_refused(steps):
    class Model(Doubling):
        def predict(self, x):
            return self(x)

    with pytest.raises(ValueError, match=r"`predict` must run the model by `keras\.Model\.predict`"):
        ll.AttentionExtractor(Model(build_model())).predict(steps)


def test_a_layer_and_an_unbuilt_model(steps):
    class Model(keras.Model):
        def build(self, shape):
            self.mixing = ll.layers.SelfAttention(4, name="mixing")
            self.mixing.build(shape)

        def call(self, x):
            return self.mixing(x)

    model = Model()
    outputs, maps = ll.AttentionExtractor(model).predict(steps, batch_size=2)
    np.testing.assert_allclose(outputs, model.predict(steps, verbose=0), atol=1e-6)
    assert maps["mixing"].shape == (B, 1, T, T)
    reader = ll.layers.SelfAttention(4, name="reader")
    outputs, maps = ll.AttentionExtractor(reader).predict(steps, batch_size=2)
    np.testing.assert_allclose(outputs, ops.convert_to_numpy(reader(steps)), atol=1e-6)
    assert maps["reader"].shape == (B, 1, T, T)


def test_the_state_goes_from_batch_to_batch_and_the_model_keeps_its_own(steps):
    class Counter(keras.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign(self.count + 1)
            return x * self.count

    x = keras.Input((T, D))
    model = keras.Model(x, Counter()(ll.layers.SelfAttention(4, name="reader")(x)))
    extractor = ll.AttentionExtractor(model)
    first, second = (extractor.predict(steps, batch_size=2)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, model.predict(steps, batch_size=2, verbose=0), atol=1e-6)


def test_weights_that_change_are_seen(steps):
    model = build_model()
    model.compile("sgd", "mse")
    extractor = ll.AttentionExtractor(model)
    before, _ = extractor.predict(steps)
    model.fit(steps, steps + 1, verbose=0)
    after, _ = extractor.predict(steps)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, model.predict(steps, verbose=0), atol=1e-6)


@pytest.mark.full
def test_several_call_arguments(steps):
    class Decoder(keras.Model):
        def __init__(self):
            super().__init__()
            self.cross = layers.MultiHeadAttention(2, 3, name="cross")

        def call(self, x, memory, scale=1.0):
            return self.cross(x * scale, memory)

    model, memory = Decoder(), steps[:, :2] + 1
    maps = ll.capture(model, steps, kwargs={"memory": memory, "scale": 2.0})
    assert maps["cross"].shape == (B, 2, T, 2)
    statistics = ll.capture(model, steps, kwargs={"memory": memory, "scale": 2.0}, store="statistics")
    np.testing.assert_allclose(statistics["cross"].statistics().entropy, maps["cross"].statistics().entropy, atol=1e-5)
    extractor, maps = ll.AttentionExtractor(model), ll.capture(model, steps, kwargs={"memory": memory})
    for arguments, names in (((steps, memory), {}), ((steps,), {"memory": memory})):
        outputs, tensors = extractor(*arguments, **names)
        np.testing.assert_allclose(ops.convert_to_numpy(outputs), ops.convert_to_numpy(model(steps, memory)), atol=1e-6)
        np.testing.assert_allclose(extractor.to_maps(tensors)["cross"].weights(), maps["cross"].weights(), atol=1e-6)
