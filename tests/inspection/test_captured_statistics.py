"""Models captured as statistics: those of the maps of the same run, and no weights."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import limelight as ll
from limelight._attention_statistics import AttentionStatistics
from limelight.maps import AttentionMaps

T, S, D = 5, 7, 6


@pytest.fixture
def steps(random):
    return random.normal(size=(3, T, D)).astype("float32")


def check(model: Any, data: Any, keys: list[str]) -> AttentionMaps:
    """Compare statistics that were captured with those of captured queries and keys."""
    expected = ll.capture(model, data)
    assert list(expected) == keys
    captured = ll.capture(model, data, store="statistics", top_k=3, num_blocks=2)
    assert list(captured) == keys
    for key in keys:
        assert captured[key].shape == expected[key].shape
        statistics, expected_statistics = captured[key].statistics(3), expected[key].statistics(3, 2)
        for name in AttentionStatistics._fields[:-1]:
            values, expected_values = getattr(statistics, name), getattr(expected_statistics, name)
            if name == "logsumexp" and np.isnan(expected_values).all():
                continue
            np.testing.assert_allclose(values, expected_values, atol=2e-5, err_msg=f"{key} {name}")
    return captured


@pytest.mark.full
def test_layers_of_keras(random, steps):
    x, y = keras.Input((T, D)), keras.Input((S, D))
    two = layers.MultiHeadAttention(2, 3, name="two")(x, y, attention_mask=np.tri(T, S, 1, dtype=bool)[None])
    shared = layers.GroupQueryAttention(3, 4, 2, name="grouped")(two, y, use_causal_mask=True)
    dots = layers.Attention(use_scale=True, name="dots")([shared, y])
    sums = layers.AdditiveAttention(name="sums")([dots, y])
    model = keras.Model([x, y], sums)
    data = [steps, random.normal(size=(3, S, D)).astype("float32")]
    captured = check(model, data, ["two", "grouped", "dots", "sums"])
    assert repr(captured["two"]) == "AttentionMap('two', MultiHeadAttention, statistics (3, 2, 5, 7))"


@pytest.mark.full
def test_layers_of_limelight(steps):
    x = keras.Input((T, D))
    masked = layers.Masking()(x)
    hidden = ll.layers.SelfAttention(4, mask="causal", name="first")(masked)
    hidden = ll.layers.MultiHeadAttention(
        4,
        2,
        num_kv_heads=2,
        score=ll.positions.Rotary(ll.scores.Dot()),
        mask=ll.masks.SlidingWindow(2, 1),
        normalizer="sparsemax",
        name="second",
    )(hidden, hidden)
    model = keras.Model(x, ll.layers.AttentionPooling(name="pool")(hidden))
    steps[1, 3:] = 0
    check(model, steps, ["first", "second", "pool"])


def test_softmaxes_and_loops(steps):
    class Custom(layers.Layer):
        def call(self, x):
            return keras.ops.softmax(x @ keras.ops.swapaxes(x, -1, -2)) @ x

    x = keras.Input((T, D))
    inner = keras.Input((D, 1))
    pooled = keras.Model(inner, ll.layers.AttentionPooling(name="pool")(inner), name="inner")
    hidden = layers.TimeDistributed(pooled, name="each")(layers.Reshape((T, D, 1))(Custom(name="custom")(x)))
    check(keras.Model(x, hidden), steps, ["custom", "each/inner/pool"])


@pytest.mark.full
def test_batches_are_concatenated_and_saved(steps, tmp_path):
    x = keras.Input((None, D))
    model = keras.Model(x, ll.layers.SelfAttention(4, name="reader")(x))
    extractor = ll.AttentionExtractor(model, store="statistics", top_k=4, num_blocks=3)
    outputs, maps = extractor.predict(steps, batch_size=2)
    np.testing.assert_allclose(outputs, model.predict(steps, verbose=0), atol=1e-6)
    expected = ll.capture(model, steps)["reader"].statistics(4, 3)
    maps.save(tmp_path / "maps.npz")
    for attention_map in (maps["reader"], AttentionMaps.load(tmp_path / "maps.npz")["reader"]):
        assert attention_map.shape == (3, 1, T, T)
        np.testing.assert_allclose(attention_map.statistics(4).entropy, expected.entropy, atol=1e-5)
        assert (attention_map.statistics(4).top_keys == expected.top_keys).all()
        assert attention_map.statistics(2).top_weights.shape == (3, 1, T, 2)
        assert attention_map.statistics(2).top_keys.dtype == np.int32
    with pytest.raises(ValueError, match="Batches must have one length"):
        AttentionMaps.concat([maps, extractor.predict_on_batch(steps[:, :3])[1]])


@pytest.mark.full
def test_there_are_no_weights(steps):
    x = keras.Input((T, D))
    model = keras.Model(x, ll.layers.SelfAttention(4, name="reader")(x))
    captured = ll.capture(model, steps, store="statistics")["reader"]
    for access in (
        captured.weights,
        captured.downsample,
        lambda: list(captured.iter_blocks()),
        lambda: captured.diff(captured),
        captured.to_pandas,
    ):
        with pytest.raises(ValueError, match=r"only statistics were captured\. Call the map's `statistics\(\)`"):
            access()
    with pytest.raises(ValueError, match=r"at most 16, the number of keys .* Received: top_k=17"):
        captured.statistics(17)


@pytest.mark.full
def test_wrong_arguments(steps):
    x = keras.Input((T, D))
    model = keras.Model(x, ll.layers.SelfAttention(4)(x))
    with pytest.raises(ValueError, match='"qk" or "statistics"'):
        ll.AttentionExtractor(model, store="weights")
    with pytest.raises(ValueError, match="must be at least 1"):
        ll.capture(model, steps, store="statistics", top_k=0)
