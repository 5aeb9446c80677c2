"""LoRA and int8 through the projections of MultiHeadAttention."""

import keras
import numpy as np
import pytest
from keras import ops

from compiling import predict
from limelight.layers import AttentionPooling, LinearAttention, MultiHeadAttention, SelfAttention

B, T, D, N, H = 3, 5, 8, 4, 6
array = ops.convert_to_numpy
# `model.quantize` warns of each layer that has no kernel, inputs too.
pytestmark = [
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning"),
]
PROJECTIONS = ("query_dense", "key_dense", "value_dense", "output_dense")


def make_model(**kwargs):
    """Return a model with one layer, from a sequence to one of the same shape."""
    steps = keras.Input((T, D))
    return keras.Model(steps, MultiHeadAttention(N, H, name="attention", **kwargs)(steps, steps))


@pytest.fixture
def steps(random):
    return random.normal(size=(B, T, D)).astype("float32")


def test_lora_trains_only_the_adapters_and_is_saved_merged(steps, random, tmp_path):
    model = make_model(num_kv_heads=2, mask="causal", use_bias=False)
    layer = model.get_layer("attention")
    plain = model.predict(steps, verbose=0)
    for name in PROJECTIONS:
        getattr(layer, name).enable_lora(2)
    np.testing.assert_allclose(model.predict(steps, verbose=0), plain, atol=1e-6)
    frozen = {name: array(getattr(layer, name)._kernel).copy() for name in PROJECTIONS}
    adapters = {weight.path: array(weight).copy() for weight in model.trainable_weights}
    assert len(adapters) == 2 * len(PROJECTIONS)
    model.compile("sgd", "mse", jit_compile=keras.backend.backend() == "jax")
    model.fit(steps, random.normal(size=(B, T, D)), epochs=2, verbose=0)
    for name, kernel in frozen.items():
        np.testing.assert_array_equal(array(getattr(layer, name)._kernel), kernel)
    assert not any(np.array_equal(array(weight), adapters[weight.path]) for weight in model.trainable_weights)
    adapted = model.predict(steps, verbose=0)
    assert np.abs(adapted - plain).max() > 1e-3
    model.save(tmp_path / "model.keras")
    merged = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(merged.predict(steps, verbose=0), adapted, atol=1e-6)
    query = merged.get_layer("attention").query_dense
    np.testing.assert_allclose(array(query._kernel), array(layer.query_dense.kernel), atol=1e-7)


def test_int8_is_close_and_can_be_saved_and_loaded(steps, tmp_path):
    options = {
        "default": {},
        "grouped": {"num_kv_heads": 2, "use_gate": True, "mask": "causal"},
        "latent": {"latent_dim": 3, "normalizer": "sparsemax"},
    }
    inputs = keras.Input((T, D))
    outputs = {name: MultiHeadAttention(N, H, name=name, **kwargs)(inputs, inputs) for name, kwargs in options.items()}
    model = keras.Model(inputs, outputs)
    before = predict(model, steps)
    model.quantize("int8")
    quantized = predict(model, steps)
    for name, kwargs in options.items():
        kernels = [weight for weight in model.get_layer(name).weights if weight.name == "kernel"]
        assert len(kernels) == len(PROJECTIONS) + ("use_gate" in kwargs) + ("latent_dim" in kwargs)
        assert {str(kernel.dtype) for kernel in kernels} == {"int8"}
        assert 0 < np.abs(quantized[name] - before[name]).max() < 0.05 * np.abs(before[name]).max()
    # Twice: a loaded model must be fit to be saved.
    for _ in range(2):
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
        after = predict(model, steps)
        for name in options:
            np.testing.assert_array_equal(after[name], quantized[name])
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    after = predict(cloned, steps)
    for name in options:
        np.testing.assert_array_equal(after[name], quantized[name])


def test_int8_in_a_nested_model_in_half_precision(steps, tmp_path):
    inputs = keras.Input((T, D))
    parts = [
        SelfAttention(H, name="reading", dtype="mixed_bfloat16"),
        LinearAttention(2, 3, name="mixing", dtype="mixed_bfloat16"),
        AttentionPooling(name="pooling", dtype="mixed_bfloat16"),
    ]
    within = keras.Input((T, D))
    read = parts[0](within)
    inner = keras.Model(within, parts[2](parts[1](read, read)), name="inner")
    model = keras.Model(inputs, inner(inputs))
    model.quantize("int8")
    quantized = predict(model, steps).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for part in parts:
        layer = loaded.get_layer("inner").get_layer(part.name)
        assert layer.compute_dtype == "bfloat16"
        assert {str(weight.dtype) for weight in layer.weights if weight.name == "kernel"} == {"int8"}
    np.testing.assert_array_equal(predict(loaded, steps).astype("float32"), quantized)


def test_dtype_policy_map_is_kept(steps):
    given = keras.dtype_policies.DTypePolicyMap("float32", {"attention/query": keras.DTypePolicy("bfloat16")})
    model = make_model(dtype=given)
    layer = model.get_layer("attention")
    assert layer.query_dense.compute_dtype == "bfloat16"
    assert layer.get_config()["dtype"] == keras.dtype_policies.serialize(given)
    model.quantize("int8")
    again = keras.models.clone_model(model).get_layer("attention")
    for name in PROJECTIONS:
        assert getattr(again, name).dtype_policy == getattr(layer, name).dtype_policy
    assert again.query_dense.dtype_policy.name == "int8_from_bfloat16"
    assert again.key_dense.dtype_policy.name == "int8_from_float32"
