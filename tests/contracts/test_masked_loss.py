"""The loss of every layer that passes its mask on counts real steps only, eagerly and compiled, on every backend."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import limelight as ll
from compiling import predict
from selection import is_full

VOCABULARY, WIDTH, CLASSES = 7, 8, 5
IDS = np.array([[1, 2, 3, 4, 5, 6], [6, 5, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]])
LABELS = np.arange(IDS.size).reshape(IDS.shape) % CLASSES
PUBLIC = [getattr(ll.layers, name) for name in ll.layers.__all__]
# The cell runs within an RNN; HierarchicalPooling keeps no axis of its mask.
LAYERS_WITH_NO_MASK = (ll.layers.AttentionCell, ll.layers.Features, ll.layers.HierarchicalPooling)
LAYERS = {each for each in PUBLIC if issubclass(each, keras.Layer) and not issubclass(each, LAYERS_WITH_NO_MASK)}


def decode(steps: Any, **kwargs: Any) -> Any:
    """Call an `AttentionRNN` on one sequence, as its steps and its memory."""
    return ll.layers.AttentionRNN(make_cell(), return_sequences=True)(steps, steps, **kwargs)


def decode_with_keras(steps: Any) -> Any:
    """Run an `AttentionCell` in Keras's own RNN."""
    cell = make_cell()
    return keras.layers.RNN(cell, return_sequences=True)(steps, initial_state=cell.initial_state(steps))


def make_cell() -> Any:
    return ll.layers.AttentionCell(keras.layers.GRUCell(WIDTH), WIDTH)


CALLS: dict[str, Callable[[Any], Any]] = {
    "keras": keras.layers.GRU(WIDTH, return_sequences=True),
    "attention": lambda steps: ll.layers.Attention()(steps, steps),
    "attention_weights": lambda steps: ll.layers.Attention()(steps, steps, return_attention_scores=True)[0],
    "additive": lambda steps: ll.layers.AdditiveAttention()(steps, steps),
    "self_attention": lambda steps: ll.layers.SelfAttention(WIDTH)(steps),
    "self_attention_weights": lambda steps: ll.layers.SelfAttention(WIDTH)(steps, return_attention_scores=True)[0],
    "multi_head": lambda steps: ll.layers.MultiHeadAttention(2, 4)(steps, steps),
    "multi_head_weights": lambda steps: ll.layers.MultiHeadAttention(2, 4)(steps, steps, return_attention_scores=True)[
        0
    ],
    "linear": lambda steps: ll.layers.LinearAttention(2, 4)(steps, steps),
    "linear_weights": lambda steps: ll.layers.LinearAttention(2, 4)(steps, steps, return_attention_scores=True)[0],
    "recurrent": decode,
    "recurrent_weights": lambda steps: decode(steps, return_attention_scores=True)[0],
    "recurrent_cell": decode_with_keras,
}


if not is_full():
    # Fewer layers compile sooner: each class once.
    CALLS = {name: call for name, call in CALLS.items() if name != "keras" and not name.endswith("_weights")}


def test_masked_loss_is_equal_eager_and_compiled() -> None:
    ids = keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(VOCABULARY, WIDTH, mask_zero=True)
    steps, sentences_of_one_word = embedding(ids), embedding(keras.layers.Reshape((-1, 1))(ids))
    hidden = {name: call(steps) for name, call in CALLS.items()}
    hidden["pooling"] = ll.layers.AttentionPooling()(sentences_of_one_word)
    outputs = {name: keras.layers.Dense(CLASSES, name=f"{name}_logits")(tensor) for name, tensor in hidden.items()}
    model = keras.Model(ids, outputs)
    assert {type(layer) for layer in model.layers} >= LAYERS
    random = np.random.default_rng(11)
    model.set_weights([random.normal(size=weight.shape) for weight in model.get_weights()])
    predicted = predict(model, IDS)
    labels = dict.fromkeys(outputs, LABELS)
    computed = {}
    for is_eager in (True, False):
        losses = {name: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for name in outputs}
        model.compile("sgd", losses, run_eagerly=is_eager)
        computed[is_eager] = model.evaluate(IDS, labels, verbose=0, return_dict=True)
    for name, logits in predicted.items():
        log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        losses = -np.take_along_axis(log_probabilities, LABELS[..., None], -1)[..., 0]
        for results in computed.values():
            assert results[f"{name}_loss"] == pytest.approx(losses[IDS > 0].mean(), rel=1e-4), name
        assert losses[IDS > 0].mean() != pytest.approx(losses.mean(), rel=1e-2), name
