"""Scores that a user derives from ours by overriding how they are called, and nothing else."""

from typing import Any

import keras
import numpy as np
import pytest

import limelight as ll
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


@pytest.mark.parametrize("name", BASES)
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
