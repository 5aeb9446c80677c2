"""Linear attention: its features, its sums, causal and not, against loops in numpy."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from compiling import predict, run_together
from contracts.representative import full
from gradients import gradients
from limelight.layers import LinearAttention
from limelight.layers.linear import CHUNK_SIZE

B, N, T, S, D, H, V = 2, 3, 5, 7, 11, 4, 6


def numpy(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))


def project(dense: Any, x: np.ndarray) -> np.ndarray:
    """(B, T, D) -> (B, N, T, H)."""
    kernel, bias = numpy(dense.kernel), numpy(dense.bias)
    return (np.einsum("btd,dnh->btnh", x, kernel) + bias).transpose(0, 2, 1, 3)


def features(name: str, layer: LinearAttention, x: np.ndarray) -> np.ndarray:
    if name == "elu":
        return np.where(x > 0, x, np.exp(x) - 1) + 1
    if name == "relu":
        return np.maximum(x, 0) + 1e-3
    x = x * H**-0.25
    return np.exp(x @ numpy(layer.features.directions) - (x**2).sum(-1, keepdims=True) / 2)


def expected(
    name: str, layer: LinearAttention, x: np.ndarray, y: np.ndarray, real: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and weights as a sum over keys for each query."""
    query, key, value = (
        project(dense, side) for dense, side in ((layer.query_dense, x), (layer.key_dense, y), (layer.value_dense, y))
    )
    queries, keys = features(name, layer, query), features(name, layer, key)
    weights = np.zeros((B, N, x.shape[1], y.shape[1]))
    for b, n, i, j in np.ndindex(weights.shape):
        if (real is None or real[b, j]) and (not layer.causal or j <= i):
            weights[b, n, i, j] = queries[b, n, i] @ keys[b, n, j]
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-30)
    read = np.einsum("bnts,bnsv->btnv", weights, value)
    return np.einsum("btnv,nvd->btd", read, numpy(layer.output_dense.kernel)) + numpy(layer.output_dense.bias), weights


def randomize(layer: LinearAttention, *inputs: np.ndarray) -> LinearAttention:
    layer.build(*(array.shape for array in inputs))
    random = np.random.default_rng(43)
    for variable in layer.trainable_variables:
        variable.assign(0.4 * random.normal(size=variable.shape))
    return layer


@pytest.mark.parametrize("name", ["elu", full("relu"), "favor"])
@pytest.mark.parametrize("causal", [False, True])
def test_equals_the_sum_over_keys(random: np.random.Generator, name: str, causal: bool) -> None:
    columns = T if causal else S
    x, y = (random.normal(size=(B, length, D)).astype("float32") for length in (T, columns))
    real = np.ones((B, columns), bool)
    real[1, 3:] = False
    layer = randomize(LinearAttention(N, H, V, features=name, causal=causal), x, y)
    padded = np.where(real[..., None], y, np.float32("nan"))
    output, weights = layer(x, padded, value_mask=real, return_attention_scores=True)
    outputs, shown = expected(name, layer, x, y, real)
    np.testing.assert_allclose(numpy(weights), shown, atol=1e-4)
    np.testing.assert_allclose(numpy(output), outputs, atol=2e-4)
    np.testing.assert_array_equal(numpy(layer(x, padded, value_mask=real)), numpy(output))


def test_causal_attention_across_chunks(random: np.random.Generator) -> None:
    length = 2 * CHUNK_SIZE + 3
    x = random.normal(size=(B, length, D)).astype("float32")
    layer = randomize(LinearAttention(N, H, V, causal=True), x, x)
    np.testing.assert_allclose(numpy(layer(x, x)), expected("elu", layer, x, x, None)[0], atol=5e-4)


@pytest.mark.parametrize("scale", [full(1.0), 4.0])
def test_performer_sees_no_later_key(random: np.random.Generator, scale: float) -> None:
    # The last key is 0, so that its features are far larger than those of the others.
    x = scale * random.normal(size=(B, T, D)).astype("float32")
    x[:, -1] = 0
    layer = randomize(LinearAttention(N, H, V, features=ll.layers.FavorFeatures(5, seed=2), causal=True), x, x)
    for variable in layer.trainable_variables:
        if variable.path.endswith("bias"):
            variable.assign(0 * variable)
    found, (output, _) = numpy(layer(x, x)), expected("favor", layer, x.astype("float64"), x.astype("float64"), None)
    np.testing.assert_allclose(found, output, rtol=1e-3, atol=1e-3)


def test_a_large_value_changes_nothing_before_it(random: np.random.Generator) -> None:
    x = random.normal(size=(B, 2 * CHUNK_SIZE, D)).astype("float32")
    layer = randomize(LinearAttention(N, H, V, causal=True), x, x)
    y = x.copy()
    y[:, -1] *= 1e5
    before, after = (numpy(layer(steps, steps))[:, :-1] for steps in (x, y))
    np.testing.assert_array_equal(after, before)


@pytest.mark.full
def test_performer_approximates_softmax(random: np.random.Generator) -> None:
    x = 0.25 * random.normal(size=(B, T, D)).astype("float32")
    layer = randomize(LinearAttention(N, H, features=ll.layers.FavorFeatures(2000, seed=5)), x, x)
    _, weights = layer(x, x, return_attention_scores=True)
    query, key = project(layer.query_dense, x), project(layer.key_dense, x)
    np.testing.assert_allclose(numpy(weights), numpy(ll.attention_weights(query, key)), atol=0.03)


@pytest.mark.parametrize("name", ["elu", full("favor")])
def test_padding_has_no_effect(random: np.random.Generator, name: str) -> None:
    steps = keras.layers.Embedding(9, D, mask_zero=True)(np.array([[3, 1, 4, 0, 0], [1, 5, 2, 6, 5]]))
    unmasked = numpy(steps)
    layer = randomize(LinearAttention(N, H, features=name, causal=True), unmasked, unmasked)
    whole = layer(steps, steps)
    short, nothing = run_together(
        [
            lambda: layer(unmasked[:1, :3], unmasked[:1, :3]),
            lambda: layer(unmasked, unmasked, value_mask=np.zeros((B, T), bool)),
        ]
    )
    assert whole._keras_mask is not None
    np.testing.assert_allclose(numpy(whole)[:1, :3], numpy(short), atol=1e-4)
    np.testing.assert_allclose(numpy(nothing), np.broadcast_to(numpy(layer.output_dense.bias), (B, T, D)))


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_finite_for_large_inputs(random: np.random.Generator, dtype: str) -> None:
    x = 300 * random.normal(size=(B, T, D)).astype("float32")
    for name in ("elu", "favor"):
        layer = LinearAttention(N, H, features=name, causal=True, dtype=dtype)
        assert np.isfinite(numpy(layer(x, x))).all()


def test_gradients_equal_finite_differences(random: np.random.Generator) -> None:
    x = random.normal(size=(B, T, D)).astype("float32")
    layer = randomize(LinearAttention(N, H, V, causal=True), x, x)
    target = ops.convert_to_tensor(random.normal(size=(B, T, D)).astype("float32"))
    direction = random.normal(size=x.shape)

    def loss(x: Any) -> Any:
        return ops.sum(layer(x, x) * target)

    def at(x: np.ndarray) -> float:
        return float((expected("elu", layer, x, x, None)[0] * numpy(target)).sum())

    step = 1e-5
    slope = (at(x + step * direction) - at(x - step * direction)) / (2 * step)
    assert float((gradients(loss, [x])[0] * direction).sum()) == pytest.approx(slope, rel=1e-3)


@pytest.mark.full
def test_trains_saves_and_loads(random: np.random.Generator, tmp_path: Path) -> None:
    steps = keras.Input((None, D))
    output, weights = LinearAttention(N, H, features="favor", causal=True)(steps, steps, return_attention_scores=True)
    assert weights.shape == (None, N, None, None)
    model = keras.Model(steps, output)
    model.compile("adam", "mse", jit_compile=keras.backend.backend() == "jax")
    x = random.normal(size=(B, T, D)).astype("float32")
    model.fit(x, x, verbose=0)
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(predict(copy, x), predict(model, x), atol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["elu", "relu", "favor"])
def test_features_are_in_the_config(kind: str) -> None:
    config = LinearAttention(N, H, features=kind).get_config()
    assert LinearAttention.from_config(config).get_config() == config


@pytest.mark.full
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: LinearAttention(0, 4), "positive integer.*num_heads=0"),
        (lambda: LinearAttention(2, 4, features="softmax"), "one of.*elu.*softmax"),
        (lambda: ll.layers.FavorFeatures(0), "positive integer or None.*num_features=0"),
        (
            lambda: LinearAttention(2, 4, causal=True)(np.ones((1, 3, 4)), np.ones((1, 5, 4))),
            "as many queries as keys.*3.*5",
        ),
    ],
)
def test_invalid_arguments_raise(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        wrong()


@pytest.mark.full
@pytest.mark.parametrize("name", ["elu", "favor"])
def test_without_keys_the_output_is_the_bias(random: np.random.Generator, name: str) -> None:
    x, nothing = random.normal(size=(B, T, D)).astype("float32"), np.zeros((B, 0, D), "float32")
    layer = randomize(LinearAttention(N, H, features=name), x, x)
    np.testing.assert_array_equal(numpy(layer(x, nothing)), np.broadcast_to(numpy(layer.output_dense.bias), (B, T, D)))
    assert layer(nothing, x).shape == (B, 0, D)
