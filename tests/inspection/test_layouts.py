"""The axes of weights of layers that show only a softmax: told from the product that uses them."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import limelight as ll
from contracts.representative import full
from inspection.capturing import capture_both_ways, softmax

B, T, D, N, K = 3, 7, 10, 2, 5


@pytest.fixture
def steps(random):
    return random.normal(size=(B, T, D)).astype("float32")


def build(function):
    class Block(keras.Layer):
        def call(self, x):
            return function(x)

    x = keras.Input((T, D))
    return keras.Model(x, Block(name="block")(x))


def split_heads(x):
    return ops.reshape(x, (-1, T, N, D // N))


def heads_third(x):
    query = split_heads(x)
    weights = ops.softmax(ops.einsum("btnh,bsnh->btns", query, query))
    return ops.einsum("btns,bsnh->btnh", weights, query)


def heads_last(x):
    query = split_heads(x)
    weights = ops.softmax(ops.einsum("btnh,bsnh->btsn", query, query), axis=2)
    return ops.sum(weights[..., None] * query[:, None], axis=2)


def heads_second(x):
    query = ops.transpose(split_heads(x), (0, 2, 1, 3))
    return ops.matmul(ops.softmax(ops.matmul(query, ops.swapaxes(query, 2, 3))), query)


def keys_before_queries(x):
    query = ops.transpose(split_heads(x), (0, 2, 1, 3))
    weights = ops.softmax(ops.matmul(query, ops.swapaxes(query, 2, 3)), axis=2)
    return ops.matmul(ops.swapaxes(weights, 2, 3), query)


def groups_of_heads(x):
    query, key = ops.reshape(x, (-1, T, 1, N, D // N)), x[:, :, None, : D // N]
    weights = ops.softmax(ops.einsum("btkgh,bskh->bkgts", query, key))
    return ops.einsum("bkgts,bskh->btkgh", weights, key)


def with_sink(x):
    query = ops.transpose(split_heads(x), (0, 2, 1, 3))
    scores = ops.matmul(query, ops.swapaxes(query, 2, 3))
    weights = ops.softmax(ops.concatenate([scores, ops.zeros_like(scores[..., :1])], axis=-1))
    return ops.matmul(weights[..., :-1], query)


def with_sink_that_is_split_off(x):
    query = ops.transpose(split_heads(x), (0, 2, 1, 3))
    scores = ops.matmul(query, ops.swapaxes(query, 2, 3))
    weights = ops.softmax(ops.concatenate([scores, ops.zeros_like(scores[..., :1])], axis=-1))
    return ops.matmul(ops.split(weights, [T], axis=-1)[0], query)


def expected_weights(x, has_sink=False, shared_key=False):
    heads = x.astype(float).reshape(B, T, N, D // N).transpose(0, 2, 1, 3)
    keys = heads[:, :1] if shared_key else heads
    scores = heads @ keys.swapaxes(2, 3)
    if has_sink:
        return softmax(np.concatenate([scores, 0 * scores[..., :1]], -1))[..., :-1]
    return softmax(scores)


@pytest.mark.parametrize(
    "function",
    [
        full(heads_second),
        heads_third,
        full(heads_last),
        full(keys_before_queries),
        full(groups_of_heads),
        full(with_sink),
        with_sink_that_is_split_off,
    ],
)
def test_weights_have_heads_queries_and_keys(function, steps):
    maps = capture_both_ways(build(function), steps)
    expected = expected_weights(steps, "sink" in function.__name__, function is groups_of_heads)
    np.testing.assert_allclose(maps["block"].weights(), expected, atol=1e-5)


def heads_first(x):
    query = ops.transpose(split_heads(x), (2, 0, 1, 3))
    return ops.matmul(ops.softmax(ops.matmul(query, ops.swapaxes(query, 2, 3))), query)


@pytest.mark.parametrize(("count", "is_certain"), [(B, True), (N, True), (1, False)])
def test_heads_before_the_batch(count, is_certain, random):
    """The batch is the axis that has its size; two axes may, if examples could be folded into the first."""
    x = random.normal(size=(count, T, D)).astype("float32")
    tokens = [[f"{example}{step}" for step in range(T)] for example in range(count)]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        attention_map = ll.capture(build(heads_first), x, tokens=tokens)["block"]
    messages = [str(each.message) for each in seen if issubclass(each.category, ll.inspection.CaptureWarning)]
    assert [re.search("of shape .*taken as (.*?)\\.", message)[1] for message in messages] == (
        [] if is_certain else ["heads, batch, queries, keys"]
    )
    heads = x.astype(float).reshape(count, T, N, D // N).transpose(0, 2, 1, 3)
    expected = softmax(heads @ heads.swapaxes(2, 3))
    if count == N:
        expected = expected.swapaxes(0, 1)
    np.testing.assert_allclose(attention_map.weights(), expected, atol=1e-5)
    assert [list(each) for each in attention_map.tokens] == tokens


def test_heads_before_a_batch_of_unknown_size(random):
    """A compiled model does not know the size of its batch on TensorFlow."""
    x = random.normal(size=(B, T, D)).astype("float32")
    _, maps = ll.AttentionExtractor(build(heads_first)).predict(x)
    np.testing.assert_allclose(maps["block"].weights(), expected_weights(x), atol=1e-5)


@pytest.mark.parametrize("count", [1, N, B])
def test_windows_that_are_folded_into_the_batch(count, random):
    """As in Swin: a layer attends within windows that the layer around it has folded into the batch."""

    class Windows(keras.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = build(heads_second).layers[-1]

        def call(self, x):
            return self.inner(ops.reshape(x, (-1, T, D)))

    x = random.normal(size=(count, N * T, D)).astype("float32")
    steps = keras.Input((N * T, D))
    attention_map = ll.capture(keras.Model(steps, Windows(name="windows")(steps)), x)["windows/block"]
    heads = x.astype(float).reshape(count * N, T, N, D // N).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(attention_map.weights(), softmax(heads @ heads.swapaxes(2, 3)), atol=1e-5)


@pytest.mark.full
def test_further_batch_axes_are_no_heads(random):
    def rows(x):
        query = ops.transpose(ops.reshape(x, (-1, K, T, N, D // N)), (0, 1, 3, 2, 4))
        return ops.matmul(ops.softmax(ops.matmul(query, ops.swapaxes(query, 3, 4))), query)

    class Block(keras.Layer):
        def call(self, x):
            return rows(x)

    x = keras.Input((K, T, D))
    data = random.normal(size=(B, K, T, D)).astype("float32")
    model = keras.Model(x, Block(name="block")(x))
    maps = capture_both_ways(model, data)
    heads = data.astype(float).reshape(B, K, T, N, D // N).transpose(0, 1, 3, 2, 4)
    np.testing.assert_allclose(maps["block"].weights(), softmax(heads @ heads.swapaxes(3, 4)), atol=1e-5)
    importance = ll.inspection.head_importance(model, data, loss=lambda y: ops.reshape(y, (B, -1)) ** 2)
    assert importance["block"].shape == (N,)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of PyTorch
def test_axes_that_cannot_be_told_are_named(steps):
    def unused(x):
        query = split_heads(x)
        return ops.sum(ops.softmax(ops.einsum("btnh,bsnh->btns", query, query)), axis=(1, 2))

    model, expected = build(unused), expected_weights(steps)
    with pytest.warns(
        ll.inspection.CaptureWarning,
        match=r"'block' \(Block\), of shape \(3, 7, 2, 7\), could not be .*batch, heads, queries, keys\.",
    ):
        maps = ll.capture(model, steps)
    np.testing.assert_allclose(maps["block"].weights(), expected.swapaxes(1, 2), atol=1e-5)
    # What changes weights takes the same axes, and says so too.
    with pytest.warns(ll.inspection.CaptureWarning, match=r"'block' \(Block\), of shape \(3, 7, 2, 7\), could not be"):
        used = ll.inspection.override_attention(model, steps, lambda weights, _: weights, return_weights=True)[1]
    np.testing.assert_allclose(used["block"], maps["block"].weights(), atol=1e-6)
    maps = ll.capture(model, steps, layout="btns")
    np.testing.assert_allclose(maps["block"].weights(), expected, atol=1e-5)


@pytest.mark.full
def test_heads_in_the_batch(steps):
    def folded(x):
        query = ops.reshape(ops.transpose(split_heads(x), (0, 2, 1, 3)), (-1, T, D // N))
        return ops.matmul(ops.softmax(ops.matmul(query, ops.swapaxes(query, 1, 2))), query)

    maps = ll.capture(build(folded), steps, heads_in_batch=N)
    np.testing.assert_allclose(maps["block"].weights(), expected_weights(steps), atol=1e-5)


@pytest.mark.full
def test_a_softmax_along_the_first_axis(random):
    """Attention over a bag, whose instances are stacked in front."""

    class Bag(keras.Layer):
        def call(self, instances):
            weights = ops.softmax(ops.stack([ops.sum(x, -1, keepdims=True) for x in instances]), axis=0)
            return [weights[index] for index in range(len(instances))]

    inputs = [keras.Input((D,)) for _ in range(K)]
    weights = Bag(name="bag")(inputs)
    model = keras.Model(inputs, layers.Add()([layers.Multiply()(pair) for pair in zip(weights, inputs, strict=True)]))
    data = [random.normal(size=(B, D)).astype("float32") for _ in range(K)]
    maps = capture_both_ways(model, data)
    expected = softmax(np.stack([x.astype(float).sum(-1) for x in data], axis=-1))
    np.testing.assert_allclose(maps["bag"].weights()[:, 0, 0], expected, atol=1e-5)


@pytest.mark.full
def test_an_adapter_can_give_a_layout(random):
    weights = random.random((B, N, T, K))
    for layout, axes in (("btns", (0, 2, 1, 3)), ("stnb", (3, 2, 1, 0))):
        observed = ll.inspection.ObservedAttention(
            weights=ops.convert_to_tensor(weights.transpose(axes)), layout=layout
        )
        np.testing.assert_allclose(ops.convert_to_numpy(observed.weights), weights)
    folded = ll.inspection.ObservedAttention(
        weights=ops.convert_to_tensor(weights.reshape(B * N, T, K)), heads_in_batch=N
    )
    np.testing.assert_allclose(ops.convert_to_numpy(folded.weights), weights)


@pytest.mark.full
@pytest.mark.parametrize("layout", ["bnt", "bnss", "b,s", ""])
def test_an_unknown_layout_is_an_error(layout, steps):
    with pytest.raises(ValueError, match="`layout` must have one letter for each axis"):
        ll.AttentionExtractor(build(heads_third), layout=layout)
