"""Every component in a MultiHeadAttention: trained by fit, saved, loaded, cloned."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from compiling import predict
from limelight.layers import MultiHeadAttention
from limelight.masks import Mask
from limelight.normalizers import Normalizer
from limelight.positions.rotary import Scaling
from limelight.scores import Score

pytestmark = pytest.mark.full

N, H, WIDTH, VOCABULARY, LENGTH = 2, 6, 8, 13, 7
array = ops.convert_to_numpy


@keras.saving.register_keras_serializable("tests")
def even_distance(query, key):
    """A rule of positions."""
    return (query - key) % 2 == 0


# Each row is a layer; what stands side by side has nothing to do with each other.
COMPONENTS = {
    "bilinear": (ll.scores.Bilinear(), ll.masks.Causal(), ll.normalizers.Softmax(temperature=0.5)),
    "additive": (ll.scores.Additive(3), ll.masks.SlidingWindow(3, 1), ll.normalizers.Sink(0.5, learned=True)),
    "cosine": (ll.scores.Cosine(), ll.masks.Causal() | ll.masks.Prefix(2), ll.normalizers.Sparsemax()),
    "distance": (ll.scores.NegativeSquaredDistance(), ll.masks.Dilated(2), ll.normalizers.Entmax(1.5)),
    "scaled": (
        ll.scores.SoftCap(ll.scores.LearnedScale(ll.scores.Dot()), 5.0),
        ll.masks.BigBird(2, 1, 1, 1, seed=3),
        ll.normalizers.Entmax(1.25),
    ),
    "normed": (ll.scores.QKNorm(ll.scores.Dot()), ~ll.masks.MaskFunction(even_distance), ll.normalizers.Sigmoid()),
    "relative": (ll.scores.Dot() + ll.positions.RelativePositionBias(8, 6), None, ll.normalizers.TopK(2)),
    "shaw": (
        ll.scores.Dot() + ll.positions.Shaw(2),
        ll.masks.Causal() & ll.masks.SlidingWindow(4),
        ll.normalizers.Hardmax(),
    ),
    "transformer_xl": (ll.positions.TransformerXL(8), None, ll.normalizers.GumbelSoftmax(0.5)),
    "gaussian": (ll.scores.Dot() + ll.positions.GaussianWindow(3.0, 4), None, ll.normalizers.Monotonic()),
    "linear": (
        ll.positions.Rotary(ll.scores.Dot(), scaling=ll.positions.LinearScaling(2.0)) + ll.positions.ALiBi(),
        ll.masks.Causal("start"),
        ll.normalizers.Sink(),
    ),
    "ntk": (
        ll.positions.Rotary(ll.scores.Dot(), scaling=ll.positions.NTKScaling(2.0), rotary_dim=4),
        None,
        ll.normalizers.TopK(3, ll.normalizers.Sparsemax()),
    ),
    "yarn": (
        ll.positions.Rotary(
            ll.scores.QKNorm(ll.scores.Dot()), scaling=ll.positions.YaRNScaling(2.0, original_length=5)
        ),
        None,
        "softmax",
    ),
}
# These hold the tensors of one call, need the history of an RNN, or belong to linear attention.
ELSEWHERE = {"ArrayMask", "Bias", "L1", "LocationSensitive", "Padding", "Segments", "CacheSlots"}
# Half of the layers share keys and values among heads, half have a gate.
VARIANTS = ({"num_kv_heads": 1}, {"use_gate": True, "use_bias": False})


def make_model():
    """Words to one number from each of the layers, so that one compilation serves all."""
    words = keras.Input((LENGTH,), dtype="int32")
    steps = keras.layers.Embedding(VOCABULARY, WIDTH, mask_zero=True)(words)
    outputs = []
    for place, (name, (score, mask, normalizer)) in enumerate(COMPONENTS.items()):
        layer = MultiHeadAttention(
            N, H, score=score, mask=mask, normalizer=normalizer, name=name, **VARIANTS[place % len(VARIANTS)]
        )
        read = keras.layers.GlobalAveragePooling1D()(layer(steps, steps))
        outputs.append(keras.layers.Dense(1, name=f"number_{name}")(read))
    return keras.Model(words, keras.layers.Concatenate()(outputs))


@pytest.fixture(scope="module")
def words():
    """Sentences of 7, 4, 1 and 6 words, padded with 0."""
    ids = np.random.default_rng(5).integers(1, VOCABULARY, (4, LENGTH))
    for row, length in enumerate((7, 4, 1, 6)):
        ids[row, length:] = 0
    return ids


@pytest.fixture(scope="module")
def trained(words):
    """The model after two steps of training, its losses, and its weights before them."""
    keras.utils.set_random_seed(7)
    model = make_model()
    before = {weight.path: array(weight).copy() for weight in model.trainable_weights}
    # TensorFlow's other compiler would take longer than all else; on JAX nothing else compiles.
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=keras.backend.backend() == "jax")
    target = np.repeat(words[:, :1].astype("float32"), len(COMPONENTS), axis=1)
    history = model.fit(words, target, batch_size=len(words), epochs=2, verbose=0)
    return model, history.history["loss"], before


def class_names(config):
    """The names of all classes in a config."""
    if isinstance(config, dict):
        own = {config["class_name"]} if "class_name" in config else set()
        return own.union(*map(class_names, config.values()))
    return set().union(*map(class_names, config)) if isinstance(config, (list, tuple)) else set()


def test_every_component_is_covered():
    exported = {
        name: getattr(namespace, name)
        for namespace in (ll.scores, ll.positions, ll.masks, ll.normalizers)
        for name in namespace.__all__
    }
    abstract = (Score, Mask, Normalizer, Scaling)
    components = {
        name
        for name, value in exported.items()
        if inspect.isclass(value) and issubclass(value, abstract) and value not in abstract
    }
    used = set()
    for components_of_layer in COMPONENTS.values():
        used |= class_names([keras.saving.serialize_keras_object(component) for component in components_of_layer])
    assert components - ELSEWHERE - used == set()
    assert components >= ELSEWHERE


def test_every_weight_is_trained(trained):
    model, losses, before = trained
    assert np.isfinite(losses).all()
    assert losses[1] < losses[0]
    still = {weight.path for weight in model.trainable_weights if np.array_equal(array(weight), before[weight.path])}
    # A bias of the keys adds the same to all scores of a row, which most normalizers do not see.
    assert {path for path in still if not path.endswith("key/bias")} == set()


def test_saved_loaded_and_cloned(trained, words, tmp_path):
    model, _, _ = trained
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    # The clone of what was loaded: tracing one model more would cost as much as all the rest.
    cloned = keras.models.clone_model(loaded)
    cloned.set_weights(loaded.get_weights())
    before, after = predict(model, words), predict(cloned, words)
    for name, expected, found in zip(COMPONENTS, before.T, after.T, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)


def without_build_config(config):
    """A config without the shapes that its layers were built for."""
    if isinstance(config, dict):
        return {name: without_build_config(value) for name, value in config.items() if name != "build_config"}
    return [without_build_config(value) for value in config] if isinstance(config, (list, tuple)) else config


@pytest.mark.parametrize("name", COMPONENTS)
def test_from_config(trained, name):
    config = trained[0].get_layer(name).get_config()
    assert without_build_config(MultiHeadAttention.from_config(config).get_config()) == without_build_config(config)


def test_inner_normalizer_is_trained_and_saved(random, tmp_path):
    steps = keras.Input((5, 4))
    layer = ll.layers.SelfAttention(4, normalizer=ll.normalizers.TopK(3, ll.normalizers.Sink(learned=True)))
    model = keras.Model(steps, layer(steps))
    sink = next(weight for weight in model.trainable_weights if weight.name == "sink")
    sink.assign([0.7])
    x = random.normal(size=(2, 5, 4)).astype("float32")
    weights = ops.convert_to_numpy(ll.attention_weights(x, x, score=ll.scores.Dot(), normalizer=layer.core.normalizer))
    assert ((weights > 0).sum(-1) == 3).all()
    scores = np.sort(x @ x.swapaxes(1, 2) / 2, axis=-1)[..., -3:]
    raised = np.exp(scores)
    np.testing.assert_allclose(
        np.sort(weights)[..., -3:], raised / (raised.sum(-1, keepdims=True) + np.exp(0.7)), rtol=1e-5
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(x)), ops.convert_to_numpy(model(x)), atol=1e-6)
    assert [float(array(weight)[0]) for weight in loaded.trainable_weights if weight.name == "sink"] == [
        pytest.approx(0.7)
    ]


def test_top_k_takes_a_normalizer():
    with pytest.raises(TypeError, match=r"`normalizer` must be a Normalizer\. Received: 'sparsemax'"):
        ll.normalizers.TopK(2, "sparsemax")
    assert ll.normalizers.TopK(2, ll.normalizers.Monotonic()).needs_all_rows


def test_numbers_of_numpy_are_saved_as_numbers(tmp_path):
    steps = keras.Input((LENGTH, WIDTH))
    layer = MultiHeadAttention(
        N,
        H,
        score=ll.scores.Dot(1 / np.sqrt(64)),
        normalizer=ll.normalizers.Softmax(np.float32(0.5)),
        name="layer",
    )
    keras.Model(steps, layer(steps, steps)).save(tmp_path / "model.keras")
    core = keras.models.load_model(tmp_path / "model.keras").get_layer("layer").core
    assert (core.score.scale, core.normalizer.temperature) == (0.125, 0.5)
