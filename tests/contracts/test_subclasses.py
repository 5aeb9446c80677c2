"""Scores, masks and normalizers that a user derives from ours by overriding how they are called, and nothing else."""

from typing import Any

import keras
import numpy as np
import pytest

import limelight as ll
from contracts.representative import full
from limelight.core.block import Block
from limelight.engine import thresholds

QUERY, KEY = (np.random.default_rng(seed).normal(size=(2, 2, 5, 4)).astype("float32") for seed in (0, 1))
BASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "additive": (ll.scores.Additive, (3,)),
    "bilinear": (ll.scores.Bilinear, ()),
    "cosine": (ll.scores.Cosine, ()),
    "dot": (ll.scores.Dot, ()),
    "query and key norm": (ll.scores.QKNorm, (ll.scores.Dot(), "l2")),
    "rotary": (ll.positions.Rotary, (ll.scores.Dot(),)),
    "soft cap": (ll.scores.SoftCap, (ll.scores.Cosine(), 2.0)),
    "sum": (ll.scores.Sum, (ll.scores.Cosine(), ll.positions.ALiBi())),
}


def override(base: Any) -> Any:
    """Return a subclass whose scores are three times those of its parent, less one where the key comes first."""
    name = "call" if issubclass(base, keras.Layer) else "__call__"

    def call(self: Any, query: Any, key: Any, *, block: Any) -> Any:
        first = keras.ops.cast(keras.ops.equal(block.columns.to_indices(), 0), "float32")
        return 3 * getattr(base, name)(self, query, key, block=block) - first

    return type("Override", (base,), {name: call})


def softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@pytest.mark.parametrize("name", ["cosine", *(full(name) for name in BASES if name != "cosine")])
def test_an_overridden_call_is_what_is_computed(name: str) -> None:
    base, arguments = BASES[name]
    keras.utils.set_random_seed(1)
    parent, score = base(*arguments), override(base)(*arguments)
    weights = keras.ops.convert_to_numpy(ll.attention_weights(QUERY, KEY, score=parent))
    ll.attention_weights(QUERY, KEY, score=score)  # builds it
    if isinstance(parent, keras.Layer):
        score.set_weights(parent.get_weights())
    # Three times the scores, up to a constant for each query, which the softmax ignores.
    expected = softmax(3 * np.log(weights.astype(float)) - (np.arange(5) == 0)) @ KEY
    for implementation in ("dense", "blockwise"):
        with thresholds.using(implementation=implementation):
            output = keras.ops.convert_to_numpy(ll.attend(QUERY, KEY, KEY, score=score))
        np.testing.assert_allclose(output, expected, atol=1e-5, err_msg=implementation)
    wrapped = ll.scores.SoftCap(score, 1e4)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(ll.attend(QUERY, KEY, KEY, score=wrapped)), expected, atol=1e-4
    )


def test_keys_that_are_projected_ahead_have_the_overridden_score() -> None:
    class Opposite(ll.scores.Additive):
        def call(self, query: Any, key: Any, *, block: Any) -> Any:
            return -super().call(query, key, block=block)

    keras.utils.set_random_seed(1)
    inputs, memory = np.random.default_rng(2).normal(size=(2, 3, 4)), np.random.default_rng(3).normal(size=(2, 5, 6))
    layers = [
        ll.layers.AttentionRNN(ll.layers.AttentionCell(keras.layers.LSTMCell(4), memory_size=6, score=score(3)))
        for score in (ll.scores.Additive, Opposite)
    ]
    for layer in layers:
        layer(inputs, memory)
    weights = layers[0].get_weights()
    layers[1].set_weights(weights)
    # The scores of the parent have the opposite sign where its readout has.
    index = [variable.path.split("/")[-1] for variable in layers[0].weights].index("readout")
    layers[0].set_weights([-each if position == index else each for position, each in enumerate(weights)])
    outputs = [keras.ops.convert_to_numpy(layer(inputs, memory)) for layer in layers]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-6)
    layers[0].set_weights(weights)
    assert np.abs(outputs[1] - keras.ops.convert_to_numpy(layers[0](inputs, memory))).max() > 1e-3


MASKS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "causal": (ll.masks.Causal, ()),
    "padding": (ll.masks.Padding, (np.arange(12) < np.array([[9], [5]]),)),
    "segments": (ll.masks.Segments, (np.repeat(np.arange(3), 4)[None].repeat(2, 0),)),
    "window": (ll.masks.SlidingWindow, (3, 0)),
    "dilated": (ll.masks.Dilated, (3,)),
    "or": (ll.masks.Or, (ll.masks.Causal(), ll.masks.Prefix(4))),
}


@pytest.mark.parametrize("name", ["causal", *(full(name) for name in MASKS if name != "causal")])
def test_an_overridden_mask_is_what_is_computed(name: str) -> None:
    base, arguments = MASKS[name]

    def opposite(self: Any, block: Any) -> Any:
        # What the parent forbids, and the first key.
        first = keras.ops.equal(block.columns.to_indices(), 0)
        return keras.ops.logical_or(keras.ops.logical_not(base.__call__(self, block)), first)

    tensor = np.random.default_rng(4).normal(size=(2, 1, 12, 4)).astype("float32")
    permitted = np.asarray(keras.ops.convert_to_numpy(base(*arguments)(Block.full(2, 1, 12, 12))))
    permitted = ~np.broadcast_to(permitted, (2, 1, 12, 12)) | (np.arange(12) == 0)
    scores = np.where(permitted, tensor @ tensor.swapaxes(-1, -2) / 2.0, -np.inf)
    mask = type("Override", (base,), {"__call__": opposite})(*arguments)
    for implementation in ("dense", "blockwise", "online_softmax"):
        with thresholds.using(implementation=implementation, rows=4, columns=4, min_rows=4, scores_per_block=16):
            output = keras.ops.convert_to_numpy(ll.attend(tensor, tensor, tensor, mask=mask))
        np.testing.assert_allclose(output, softmax(scores) @ tensor, atol=1e-5, err_msg=implementation)
    x = keras.Input((12, 4))
    maps = ll.capture(keras.Model(x, ll.layers.Attention(mask=mask)([x, x])), tensor[:, 0])
    captured = next(iter(maps.values()))
    np.testing.assert_array_equal(captured.weights()[:, 0] > 0, permitted[:, 0])


@pytest.mark.parametrize("base", [ll.normalizers.Softmax, ll.normalizers.Sink])
def test_an_overridden_normalizer_is_what_is_computed(base: Any) -> None:
    name = "call" if issubclass(base, keras.Layer) else "__call__"

    def call(self: Any, scores: Any, mask: Any, *, block: Any) -> Any:
        return keras.ops.square(getattr(base, name)(self, scores, mask, block=block))

    normalizer, parent = type("Override", (base,), {name: call})(), base()
    weights = keras.ops.convert_to_numpy(ll.attention_weights(QUERY, KEY, normalizer=parent)) ** 2
    for implementation in ("dense", "blockwise", "online_softmax"):
        with thresholds.using(implementation=implementation):
            output = keras.ops.convert_to_numpy(ll.attend(QUERY, KEY, KEY, normalizer=normalizer))
        np.testing.assert_allclose(output, weights @ KEY, atol=1e-5, err_msg=implementation)
