"""Rotary positions, ALiBi and cached decoding equal keras-hub's, by its own layers and with its weights."""

import numpy as np
import pytest
from keras import ops

import limelight as ll
from gradients import gradients

keras_hub = pytest.importorskip("keras_hub", reason="needs keras-hub: pip install --no-deps keras-hub regex")

pytestmark = pytest.mark.full

B, N, T, S, H = 2, 3, 5, 7, 10
array = ops.convert_to_numpy


def heads(random, length, size=H):
    """Queries or keys, (B, N, length, size), with scores far from even."""
    return 2 * random.normal(size=(B, N, length, size)).astype("float32")


def softmax_of_products(query, key):
    """The weights of queries and keys that are rotated already."""
    return ops.softmax(ops.matmul(query, ops.swapaxes(key, -1, -2)) / query.shape[-1] ** 0.5)


ROTARIES = {
    "plain": ({}, {}),
    "another wavelength": ({"max_wavelength": 500}, {"base": 500.0}),
    "linear": ({"scaling_factor": 4.0}, {"scaling": ll.positions.LinearScaling(4.0)}),
    # keras-hub's "dynamic" divides all frequencies, the fastest too, by what NTK scaling stretches the base by.
    "dynamic": (
        {"scaling_factor": 4.0, "rope_type": "dynamic"},
        {"scaling": ll.positions.LinearScaling(4.0 ** (H / (H - 2)))},
    ),
    "yarn": (
        {"scaling_factor": 4.0, "rope_type": "yarn", "original_max_position_embeddings": 64},
        {"scaling": ll.positions.YaRNScaling(4.0, original_length=64)},
    ),
    "yarn between other turns": (
        {"scaling_factor": 8.0, "rope_type": "yarn", "original_max_position_embeddings": 512, "beta_fast": 16.0,
         "beta_slow": 2.0},
        {"scaling": ll.positions.YaRNScaling(8.0, original_length=512, beta_fast=16.0, beta_slow=2.0)},
    ),
    "of a part": ({}, {"rotary_dim": 6}),
}  # fmt: skip


@pytest.mark.parametrize("name", ROTARIES)
def test_rotary(name, random):
    theirs, ours = ROTARIES[name]
    layer = keras_hub.layers.RotaryEmbedding(sequence_axis=2, **theirs)
    size = ours.get("rotary_dim", H)
    query, key = heads(random, T), heads(random, S)
    target = ops.convert_to_tensor(random.normal(size=(B, N, T, S)).astype("float32"))

    def turned(x, start):
        return ops.concatenate([layer(x[..., :size], start_index=start), ops.convert_to_tensor(x)[..., size:]], axis=-1)

    def expected(query, key):
        # The last query stands at the last key.
        return softmax_of_products(turned(query, S - T), turned(key, 0))

    def weights(query, key):
        return ll.attention_weights(query, key, score=ll.positions.Rotary(ll.scores.Dot(), **ours))

    np.testing.assert_allclose(array(weights(query, key)), array(expected(query, key)), atol=5e-6)
    ours_and_theirs = (
        gradients(lambda *both, function=function: ops.sum(function(*both) * target), (query, key))
        for function in (weights, expected)
    )
    for found, wanted in zip(*ours_and_theirs, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_rotary_from_positions_that_are_given(random):
    layer = keras_hub.layers.RotaryEmbedding(sequence_axis=2)
    query, key = heads(random, T), heads(random, S)
    queries, keys = random.integers(0, 50, (B, T)), random.integers(0, 50, (B, S))
    expected = softmax_of_products(layer(query, positions=queries), layer(key, positions=keys))
    weights = ll.attention_weights(
        query, key, score=ll.positions.Rotary(ll.scores.Dot()), query_positions=queries, key_positions=keys
    )
    np.testing.assert_allclose(array(weights), array(expected), atol=5e-6)


@pytest.mark.parametrize(("count", "largest"), [(8, 8), (3, 8), (5, 4)])
def test_alibi(count, largest, random):
    layer = keras_hub.layers.AlibiBias(alibi_bias_max=largest)
    query, key = (random.normal(size=(B, count, length, H)).astype("float32") for length in (T, S))
    # keras-hub counts from the last key for every query: what is the same for a row changes no weight, before the diagonal.
    causal = np.tril(np.ones((T, S), bool), S - T)
    scores = layer(ops.matmul(query, ops.swapaxes(key, -1, -2)) / H**0.5)
    weights = ll.attention_weights(
        query, key, score=ll.scores.Dot() + ll.positions.ALiBi(float(largest)), mask=ll.masks.Causal()
    )
    np.testing.assert_allclose(array(weights), array(ops.softmax(ops.where(causal, scores, -1e9))), atol=2e-6)


@pytest.fixture
def both(random):
    """keras-hub's layer and ours with the same weights, and a sentence."""
    sentence = random.normal(size=(B, S, 11)).astype("float32")
    theirs = keras_hub.layers.CachedMultiHeadAttention(N, H)
    ours = ll.layers.MultiHeadAttention(N, H, mask="causal")
    for layer in (theirs, ours):
        layer.build(sentence.shape, sentence.shape)
    assert [weight.path.split("/")[1:] for weight in ours.weights] == [
        weight.path.split("/")[1:] for weight in theirs.weights
    ]
    theirs.set_weights([0.5 * random.normal(size=weight.shape) for weight in theirs.weights])
    ours.set_weights(theirs.get_weights())
    return theirs, ours, sentence


def test_cached_decoding(both):
    theirs, ours, sentence = both
    size = S + 2
    kept, cache = np.zeros((B, 2, size, N, H), "float32"), ours.empty_cache(B, size)
    causal = np.tril(np.ones((1, size, size), bool))
    outputs = []
    # A prompt of four steps, then one by one.
    for start, stop in ((0, 4), (4, 5), (5, 6), (6, 7)):
        steps = sentence[:, start:stop]
        expected, seen, kept = theirs(
            steps, steps, attention_mask=causal[:, start:stop], cache=kept, cache_update_index=start,
            return_attention_scores=True,
        )  # fmt: skip
        output, weights, cache = ours(steps, steps, cache=cache, return_attention_scores=True)
        np.testing.assert_allclose(array(output), array(expected), atol=2e-6)
        np.testing.assert_allclose(array(weights), array(seen), atol=1e-6)
        for place, ours_kept in enumerate((cache.key, cache.value)):
            np.testing.assert_allclose(array(ours_kept), array(kept)[:, place].swapaxes(1, 2), atol=1e-6)
        outputs.append(array(output))
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), array(ours(sentence, sentence)), atol=2e-6)


def test_a_memory_that_is_read_from_their_cache(both, random):
    theirs, ours, memory = both
    query = random.normal(size=(B, T, 11)).astype("float32")
    projected = ops.stack([theirs.key_dense(memory), theirs.value_dense(memory)], axis=1)
    expected, _ = theirs(query, memory[:, :1], cache=projected)
    free = ll.layers.MultiHeadAttention(N, H)
    free.build(query.shape, memory.shape)
    free.set_weights(ours.get_weights())
    np.testing.assert_allclose(array(free(query, memory)), array(expected), atol=2e-6)
