"""Regularizers of weights, against loops in numpy; padding has no effect."""

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from limelight.layers import Coverage, Diagonal, Entropy, GuidedAlignment, Orthogonality

pytestmark = pytest.mark.full

B, N, T, S = 2, 3, 5, 7


def weights(random: np.random.Generator) -> np.ndarray:
    """Weights (B, N, T, S) of which the second example has three real queries and four real keys."""
    found = random.random((B, N, T, S)) + 0.05
    found[1, :, 3:] = 0
    found[1, :, :, 4:] = 0
    return (found / np.maximum(found.sum(-1, keepdims=True), 1e-9)).astype("float32")


def nonempty_rows(given: np.ndarray) -> list[tuple[int, int, int]]:
    """The places of nonempty_rows that have weight."""
    return [(b, n, t) for b in range(B) for n in range(N) for t in range(T) if given[b, n, t].any()]


def entropy(given: np.ndarray) -> float:
    values = [-sum(w * math.log(w) for w in given[place] if w > 0) for place in nonempty_rows(given)]
    return sum(values) / len(values)


def coverage(given: np.ndarray) -> float:
    values = [
        sum(min(given[b, n, t, s], sum(given[b, n, u, s] for u in range(t))) for s in range(S))
        for b, n, t in nonempty_rows(given)
    ]
    return sum(values) / len(values)


def diagonal(given: np.ndarray) -> float:
    values = []
    for b, n, t in nonempty_rows(given):
        height, width = ((5, 7), (3, 4))[b]
        values.append(
            sum(
                given[b, n, t, s] * (1 - math.exp(-((s / width - t / height) ** 2) / (2 * 0.3**2)))
                for s in range(width)
            )
        )
    return sum(values) / len(values)


def orthogonality(given: np.ndarray) -> float:
    values = []
    for b in range(B):
        for t in range(T):
            heads = given[b, :, t]
            if heads.any():
                values.append(sum((heads[a] @ heads[c] - (a == c)) ** 2 for a in range(N) for c in range(N)))
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("regularizer", "oracle"),
    [
        (Entropy(0.5), entropy),
        (Coverage(0.5), coverage),
        (Diagonal(0.5, 0.3), diagonal),
        (Orthogonality(0.5), orthogonality),
    ],
    ids=["entropy", "coverage", "diagonal", "orthogonality"],
)
def test_penalty_equals_the_loop(random: np.random.Generator, regularizer: Any, oracle: Any) -> None:
    given = weights(random)
    assert float(regularizer(given)) == pytest.approx(0.5 * oracle(given.astype("float64")), abs=1e-5)
    padded = np.zeros((B + 1, N, T + 2, S + 3), "float32")
    padded[:B, :, :T, :S] = given
    assert float(regularizer(padded)) == pytest.approx(float(regularizer(given)), abs=1e-5)
    copy = type(regularizer).from_config(regularizer.get_config())
    assert copy.get_config() == regularizer.get_config()


@pytest.mark.parametrize("elsewhere", [0.0, 1e-30])
def test_diagonal_counts_keys_between_others_without_weight(elsewhere: float) -> None:
    # Each of 4 queries attends to every second of 8 keys: (2 i + 1) / 8 is 1 / 8 from i / 4. The others are padding.
    given = np.zeros((1, 6, 11), "float32")
    given[:, :4, :8] = elsewhere
    given[:, np.arange(4), 2 * np.arange(4) + 1] = 1
    expected = 1 - math.exp(-((1 / 8) ** 2) / (2 * 0.2**2))
    assert float(Diagonal(1.0, 0.2)(given)) == pytest.approx(expected, rel=1e-5)
    assert float(Diagonal(1.0)(0 * given)) == 0


@pytest.mark.full
def test_orthogonality_of_queries(random: np.random.Generator) -> None:
    given = weights(random)[:, 0, :3]
    values = [((example @ example.T - np.eye(3)) ** 2).sum() for example in given.astype("float64")]
    assert float(Orthogonality(1.0, axis=-2)(given)) == pytest.approx(sum(values) / B, abs=1e-5)


@pytest.mark.parametrize("heads", [False, True])
def test_guided_alignment_equals_the_loop(random: np.random.Generator, heads: bool) -> None:
    given, alignment = weights(random), random.random((B, T, S)).astype("float32")
    alignment[0, 2] = 0
    alignment[1, 3:] = 0
    mean = given.mean(1) if heads else given[:, 0]
    costs = []
    for b in range(B):
        lines = [t for t in range(T) if alignment[b, t].any()]
        costs.append(
            sum(
                -alignment[b, t, s] / alignment[b, t].sum() * math.log(max(mean[b, t, s], 1e-9))
                for t in lines
                for s in range(S)
            )
            / len(lines)
        )
    found = GuidedAlignment()(alignment, given if heads else given[:, 0])
    assert float(found) == pytest.approx(sum(costs) / B, rel=1e-4)


def test_layer_adds_the_penalty_in_training(random: np.random.Generator) -> None:
    x = random.normal(size=(B, T, 4)).astype("float32")
    layer = ll.layers.MultiHeadAttention(N, 4, attention_regularizer=Entropy(2.0))
    _, shown = layer(x, x, return_attention_scores=True, training=True)
    given = ops.convert_to_numpy(shown).astype("float64")
    value = -np.mean((given * np.log(given)).sum(-1))
    assert float(ops.convert_to_numpy(layer.losses[0])) == pytest.approx(2 * value, rel=1e-4)
    layer(x, x)
    assert not layer.losses
    copy = ll.layers.MultiHeadAttention.from_config(layer.get_config())
    assert copy.core.attention_regularizer.factor == 2.0


@pytest.mark.full
def test_training_reduces_the_penalty(random: np.random.Generator) -> None:
    steps = keras.Input((T, 4))
    vector, shown = ll.layers.AttentionPooling(num_queries=2, attention_regularizer=Orthogonality(1.0, axis=-2))(
        steps, return_attention_scores=True
    )
    model = keras.Model(steps, [vector, shown])
    model.compile(
        keras.optimizers.Adam(0.05),
        ["mse", None],
        loss_weights=[0.0, 0.0],
        jit_compile=keras.backend.backend() == "jax",
    )
    x = random.normal(size=(8, T, 4)).astype("float32")
    before = float(Orthogonality(1.0, axis=-2)(model.predict(x, verbose=0)[1]))
    model.fit(x, np.zeros((8, 2, 4)), epochs=20, verbose=0)
    assert float(Orthogonality(1.0, axis=-2)(model.predict(x, verbose=0)[1])) < 0.7 * before


@pytest.mark.full
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Orthogonality(axis=-1), "-3 .heads. or -2 .queries..*axis=-1"),
        (lambda: Diagonal(width=0), "positive.*width=0"),
    ],
)
def test_invalid_arguments_raise(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()
