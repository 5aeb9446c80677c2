import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from contracts.representative import full
from layers.formulas import softmax

B, T, D = 2, 5, 3
array = ops.convert_to_numpy


@pytest.fixture
def steps(random):
    return random.normal(size=(B, T, D)).astype("float32")


def randomized(layer, random, steps):
    layer.build(steps.shape)
    layer.set_weights([random.normal(size=weight.shape) for weight in layer.weights])
    return {weight.path.split("/", 1)[1]: array(weight) for weight in layer.weights}


@pytest.mark.parametrize("num_queries", [full(None), 2])
def test_additive_pooling_equals_the_formula(random, steps, num_queries):
    layer = ll.layers.AttentionPooling(7, num_queries=num_queries)
    named = randomized(layer, random, steps)
    vectors, weights = layer(steps, return_attention_scores=True)
    for example in range(B):
        for index, context in enumerate(named["query"]):
            hidden = np.tanh(steps[example] @ named["hidden/kernel"] + named["hidden/bias"])
            expected = softmax(np.array([hidden[j] @ context for j in range(T)]))
            place = example if num_queries is None else (example, index)
            np.testing.assert_allclose(array(weights)[place], expected, atol=1e-6)
            np.testing.assert_allclose(array(vectors)[place], expected @ steps[example], atol=1e-5)


def test_dot_pooling_equals_the_formula(random, steps):
    layer = ll.layers.AttentionPooling(score="dot")
    named = randomized(layer, random, steps)
    _, weights = layer(steps, return_attention_scores=True)
    for example in range(B):
        expected = softmax(steps[example] @ named["query"][0] / np.sqrt(D))
        np.testing.assert_allclose(array(weights)[example], expected, atol=1e-6)


@pytest.mark.full
def test_pooling_with_any_score(random, steps):
    layer = ll.layers.AttentionPooling(score=ll.scores.Bilinear(name="bilinear"))
    named = randomized(layer, random, steps)
    _, weights = layer(steps, return_attention_scores=True)
    scores = named["query"][0] @ named["core/bilinear/kernel"] @ steps[1].T
    np.testing.assert_allclose(array(weights)[1], softmax(scores), atol=1e-5)


def test_padding_has_no_effect_and_empty_sequences_give_zeros(random, steps):
    layer = ll.layers.AttentionPooling()
    randomized(layer, random, steps)
    real = np.array([[True, True, True, False, False], [False] * 5])
    vectors, weights = layer(steps, mask=real, return_attention_scores=True)
    np.testing.assert_allclose(array(vectors)[0], array(layer(steps[:1, :3]))[0], atol=1e-6)
    assert not array(weights)[0, 3:].any()
    assert not array(vectors)[1].any()


@pytest.mark.full
def test_pooling_twice_passes_on_the_mask_of_empty_sentences():
    ids = np.array([[[1, 2, 0], [3, 0, 0], [0, 0, 0]], [[4, 5, 6], [0, 0, 0], [0, 0, 0]]])
    words = keras.layers.Embedding(10, 4, mask_zero=True)(ids)
    pool, again = ll.layers.AttentionPooling(), ll.layers.AttentionPooling()
    sentences, of_words = pool(words, return_attention_scores=True)
    _, of_sentences = again(sentences, return_attention_scores=True)
    np.testing.assert_array_equal(array(of_words) > 0, ids > 0)
    np.testing.assert_array_equal(array(of_sentences) > 0, [[True, True, False], [True, False, False]])
    alone = pool(array(words)[0, :1, :2])
    np.testing.assert_allclose(array(sentences)[0, :1], array(alone), atol=1e-6)


@pytest.mark.parametrize(
    "layer", [ll.layers.AttentionPooling(), full(ll.layers.SelfAttention(4))], ids=["pooling", "self"]
)
def test_inside_time_distributed(layer):
    inner = keras.Input((2, 5, 4))
    outer = keras.layers.TimeDistributed(layer)(inner)
    steps = np.random.default_rng(3).normal(size=(3, 2, 5, 4)).astype("float32")
    together = array(keras.Model(inner, outer)(steps))
    np.testing.assert_allclose(together[:, 1], array(layer(steps[:, 1])), atol=1e-6)


@pytest.mark.full
def test_mask_is_dropped_with_the_time_axis():
    words = keras.layers.Embedding(10, 4, mask_zero=True)(np.array([[1, 2, 0]]))
    pooled = ll.layers.AttentionPooling()(words)
    assert getattr(pooled, "_keras_mask", None) is None
    assert getattr(words, "_keras_mask", None) is not None


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 0}, "`units` must be a positive integer or None"),
        ({"num_queries": 0}, "`num_queries` must be a positive integer or None"),
        ({"units": 3, "score": "dot"}, "`units` requires score="),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        ll.layers.AttentionPooling(**arguments)


@pytest.mark.full
def test_unknown_width_raises():
    with pytest.raises(ValueError, match="last axis of the input of AttentionPooling must be known"):
        ll.layers.AttentionPooling().build((None, None, None))
