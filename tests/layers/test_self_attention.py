import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from layers.formulas import attention

B, T, D = 2, 5, 3
array = ops.convert_to_numpy


@pytest.fixture
def steps(random):
    return random.normal(size=(B, T, D)).astype("float32")


def test_equals_the_formula(random, steps):
    layer = ll.layers.SelfAttention(7, value_units=11, use_bias=True)
    layer.build(steps.shape)
    layer.set_weights([random.normal(size=weight.shape) for weight in layer.weights])
    output, weights = layer(steps, return_attention_scores=True)
    named = {weight.path.split("/", 1)[1]: array(weight) for weight in layer.weights}
    for example in range(B):
        q, k, v = (
            steps[example] @ named[f"{name}/kernel"] + named[f"{name}/bias"] for name in ("query", "key", "value")
        )
        expected, seen = attention(q, k, v)
        np.testing.assert_allclose(array(output)[example], expected, atol=1e-5)
        np.testing.assert_allclose(array(weights)[example], seen, atol=1e-6)


@pytest.mark.full
def test_padded_steps_neither_attend_nor_are_attended_to(steps):
    real = np.array([[True, True, True, False, False], [True] * 5])
    layer = ll.layers.SelfAttention(7)
    output, weights = layer(steps, mask=real, return_attention_scores=True)
    short = layer(steps[:1, :3])
    assert not array(weights)[0, :, 3:].any()
    assert not array(weights)[0, 3:].any()
    assert not array(output)[0, 3:].any()
    np.testing.assert_allclose(array(output)[0, :3], array(short)[0], atol=1e-6)


@pytest.mark.full
def test_takes_any_number_of_batch_axes(random):
    words = random.normal(size=(2, 3, T, D)).astype("float32")
    layer = ll.layers.SelfAttention(7, mask="causal")
    real, allowed = random.random((2, 3, T)) < 0.8, random.random((2, 3, T, T)) < 0.8
    together, weights = layer(words, mask=real, attention_mask=allowed, return_attention_scores=True)
    assert weights.shape == (2, 3, T, T)
    for document in range(2):
        alone = layer(words[document], mask=real[document], attention_mask=allowed[document])
        np.testing.assert_allclose(array(together)[document], array(alone), atol=1e-6)


@pytest.mark.full
def test_attention_mask_is_applied(random, steps):
    allowed = random.random((B, T, T)) < 0.6
    _, weights = ll.layers.SelfAttention(7)(steps, attention_mask=allowed, return_attention_scores=True)
    np.testing.assert_array_equal(array(weights) > 0, allowed)


@pytest.mark.full
def test_projections_are_initialized_independently(steps):
    layer = ll.layers.SelfAttention(7, kernel_initializer="he_normal")
    layer.build(steps.shape)
    kernels = [array(weight) for weight in layer.weights]
    assert not np.allclose(kernels[0], kernels[1])
    assert not np.allclose(kernels[1], kernels[2])


@pytest.mark.full
def test_units_must_be_positive():
    with pytest.raises(ValueError, match=r"`units` must be a positive integer\. Received: units=0"):
        ll.layers.SelfAttention(0)


def test_implicit_mask_is_combined_with_an_attention_mask():
    words = np.array([[3, 1, 4, 0, 0], [1, 5, 9, 2, 6]])
    real = words > 0
    embedded = keras.layers.Embedding(11, D, mask_zero=True)(words)
    allowed = np.tril(np.ones((B, T, T), bool))
    _, own = ll.layers.SelfAttention(7)(embedded, attention_mask=allowed, return_attention_scores=True)
    _, given = ll.layers.Attention()(embedded, embedded, attention_mask=allowed, return_attention_scores=True)
    for weights in (own, given):
        np.testing.assert_array_equal(array(weights) > 0, allowed & real[:, None, :] & real[:, :, None])
