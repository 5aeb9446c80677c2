import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from contracts.representative import full
from layers.formulas import attention, softmax

B, T, S, H, V = 2, 3, 5, 7, 11
array = ops.convert_to_numpy


@pytest.fixture
def tensors(random):
    shapes = {"query": (B, T, H), "value": (B, S, V), "key": (B, S, H)}
    return {name: random.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def test_separate_arguments_and_a_list_equal_the_formula(tensors):
    layer = ll.layers.Attention()
    separate, weights = layer(**tensors, return_attention_scores=True)
    listed = layer([tensors["query"], tensors["value"], tensors["key"]])
    for example in range(B):
        expected, seen = attention(*(tensors[name][example] for name in ("query", "key", "value")), scale=1.0)
        np.testing.assert_allclose(array(separate)[example], expected, atol=1e-5)
        np.testing.assert_allclose(array(listed)[example], expected, atol=1e-5)
        np.testing.assert_allclose(array(weights)[example], seen, atol=1e-6)


OPTIONS = [{}, {"use_scale": True}, {"score_mode": "concat"}, {"score_mode": "concat", "use_scale": True}]


@pytest.mark.parametrize("options", [*map(full, OPTIONS[:-1]), OPTIONS[-1]])
def test_equals_the_layer_of_keras_with_the_same_weights(tensors, options):
    theirs, ours = keras.layers.Attention(**options), ll.layers.Attention(**options)
    inputs = list(tensors.values())
    for layer in (theirs, ours):
        layer.build([tensor.shape for tensor in inputs])
        layer.set_weights([np.float32(0.7 + index) for index in range(len(layer.weights))])
    expected, expected_weights = theirs(inputs, return_attention_scores=True)
    output, weights = ours(inputs, return_attention_scores=True)
    np.testing.assert_allclose(array(output), array(expected), atol=1e-5)
    np.testing.assert_allclose(array(weights), array(expected_weights), atol=1e-6)
    assert [weight.path.split("/")[-1] for weight in ours.weights] == [
        weight.path.split("/")[-1] for weight in theirs.weights
    ]


@pytest.mark.full
def test_learned_score_of_different_query_and_key_sizes(random):
    query, value = random.normal(size=(B, T, H)).astype("float32"), random.normal(size=(B, S, V)).astype("float32")
    layer = ll.layers.Attention(score=ll.scores.Additive(4))
    _, weights = layer(query, value, return_attention_scores=True)
    named = {weight.path.split("/")[-1]: array(weight) for weight in layer.weights}
    for example, row in np.ndindex(B, T):
        hidden = np.tanh(
            query[example, row] @ named["query_kernel"] + value[example] @ named["key_kernel"] + named["bias"]
        )
        np.testing.assert_allclose(array(weights)[example, row], softmax(hidden @ named["readout"][:, 0]), atol=1e-5)


def test_masks_of_query_value_and_key_are_combined(tensors):
    real_query = np.array([[True, False, True], [True] * 3])
    real_value = np.array([[True] * 5, [True, True, False, False, False]])
    real_key = np.array([[True, True, True, True, False], [True] * 5])
    output, weights = ll.layers.Attention()(
        **tensors, mask=[real_query, real_value, real_key], return_attention_scores=True
    )
    np.testing.assert_array_equal(array(weights) > 0, real_query[:, :, None] & (real_value & real_key)[:, None])
    assert not array(output)[0, 1].any()


def test_output_carries_the_implicit_mask_of_the_query():
    words = keras.layers.Embedding(10, 4, mask_zero=True)(np.array([[1, 2, 0]]))
    output = ll.layers.Attention()(words, words)
    np.testing.assert_array_equal(array(output._keras_mask), [[True, True, False]])
    np.testing.assert_array_equal(array(words._keras_mask), [[True, True, False]])


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score_mode": "sum"}, "Expected one of {'dot', 'concat'}"),
        ({"score": "dot", "use_scale": True}, "`score` replaces `use_scale`"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        ll.layers.Attention(**arguments)


@pytest.mark.full
def test_single_tensor_raises(tensors):
    with pytest.raises(ValueError, match="pass it twice or use SelfAttention"):
        ll.layers.Attention()(tensors["query"])


@pytest.mark.full
def test_call_forms_of_keras_are_accepted(random):
    query, value = (random.normal(size=(2, length, 4)).astype("float32") for length in (3, 5))
    masks = [np.array([[True] * 3, [True, False, True]]), np.array([[True] * 5, [True, True, False, False, True]])]
    for kind in ("Attention", "AdditiveAttention"):
        ours, theirs = getattr(ll.layers, kind)(use_scale=False), getattr(keras.layers, kind)(use_scale=False)
        expected = ops.convert_to_numpy(theirs([query, value], masks))
        for found in (
            ours([query, value], masks),
            ours(inputs=[query, value], mask=masks),
            ours(query, value, mask=masks),
        ):
            np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-5)


@pytest.mark.full
def test_padded_queries_have_no_weight_in_capture_and_regularizer():
    words = np.array([[3, 1, 0, 0], [1, 5, 9, 2]])
    layer = ll.layers.Attention(attention_regularizer=ll.layers.Entropy(1.0), name="reading")
    steps = keras.Input((None,))
    embedded = keras.layers.Embedding(11, 3, mask_zero=True)(steps)
    model = keras.Model(steps, layer(embedded, embedded))
    weights = ll.capture(model, words)["reading"].weights()
    assert not weights[0, 0, 2:].any()
    model(words[:1], training=True)
    longer = array(model.losses[0])
    model(words[:1, :2], training=True)
    assert array(model.losses[0]) == pytest.approx(longer, rel=1e-5)


@pytest.mark.full
def test_cost_of_additive_scores_is_the_hidden_width():
    x = keras.Input((6, 7))
    for layer in (ll.layers.AdditiveAttention(), ll.layers.Attention(score_mode="concat", use_scale=True)):
        layer(x, x)
        assert layer._get_score(7).cost == 7
