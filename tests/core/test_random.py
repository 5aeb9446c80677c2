"""Numbers drawn by place: as random as numbers that are drawn one after another, and the same in blocks of any size."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from gradients import gradients
from limelight.core.block import Block, Slice
from limelight.core.random import dropout_mask, sample_seed, uniform
from limelight.engine import thresholds

B, N, T, S, H = 2, 3, 5, 7, 4
# How many rows are drawn to count choices.
MANY = 8192


def numpy(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def excess(counts: np.ndarray, expected: np.ndarray) -> float:
    """By how many standard deviations chi-square lies above what chance makes it."""
    freedom = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_uniform_numbers_are_uniform_and_independent(seed: int) -> None:
    number = ops.convert_to_tensor(np.array([seed], "int32"))
    found = numpy(uniform(number, Block.full(B, N, 128, 128), "float32"))
    assert found.dtype == np.float32
    assert 0 < found.min() < 1e-4
    assert 1 - 1e-4 < found.max() < 1
    bins = (found * 16).astype(int)
    assert excess(np.bincount(bins.ravel(), minlength=16), np.full(16, bins.size / 16)) < 4
    # Neighbours along each axis: each pair of bins is as frequent as any other.
    for axis in range(4):
        first, second = (np.take(bins, range(i, bins.shape[axis] - 1 + i), axis) for i in (0, 1))
        pairs = np.bincount((16 * first + second).ravel(), minlength=256)
        assert abs(excess(pairs, np.full(256, first.size / 256))) < 4, axis


def test_uniform_numbers_do_not_follow_the_dropout_of_the_same_seed() -> None:
    number, whole = ops.convert_to_tensor(np.array([5], "int32")), Block.full(1, 1, 128, 128)
    numbers, kept = numpy(uniform(number, whole, "float32")), numpy(dropout_mask(number, 0.5, whole, "float32")) > 0
    assert abs(numbers[kept].mean() - numbers[~kept].mean()) < 0.02


def test_a_tile_has_the_numbers_of_its_place() -> None:
    number, whole = sample_seed(3), Block.full(B, N, T, S)
    everything = numpy(uniform(number, whole, "float32"))
    block = Block(Slice(B, 1, 1), Slice(N, indices=(2, 0)), Slice(T, 1, 3), Slice(S, ops.convert_to_tensor(2), 4))
    np.testing.assert_array_equal(numpy(uniform(number, block, "float32")), everything[1:, [2, 0], 1:4, 2:6])


def layer(normalizer: Any) -> Any:
    return ll.layers.Attention(score=ll.scores.Dot(scale=1.0), normalizer=normalizer)


def choices(seed: int, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Which key each of many equal queries chose, (MANY,), and softmax of their scores, (S,)."""
    scores = np.array([0.3, -1.0, 1.2, 0.0, 0.7], "float32")
    query, key = np.ones((1, MANY, 1), "float32"), scores[None, :, None]
    reader = layer(ll.normalizers.GumbelSoftmax(temperature, hard=True, seed=seed))
    _, weights = reader(query, key, return_attention_scores=True, training=True)
    weights = numpy(weights)[0]
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(weights.max(-1), 1.0, atol=1e-6)
    return weights.argmax(-1), np.exp(scores) / np.exp(scores).sum()


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_gumbel_chooses_as_often_as_softmax_says(temperature: float) -> None:
    chosen, probability = choices(11, temperature)
    counts = np.bincount(chosen, minlength=len(probability))
    assert abs(excess(counts, MANY * probability)) < 4
    pairs = np.bincount(chosen[:-1] * len(probability) + chosen[1:], minlength=len(probability) ** 2)
    assert abs(excess(pairs, (MANY - 1) * np.outer(probability, probability).ravel())) < 4


def test_a_seed_gives_the_same_choices_and_each_call_others() -> None:
    arrays = [np.random.default_rng(3).normal(size=(B, length, H)).astype("float32") for length in (T, S)]
    first, second, other = (layer(ll.normalizers.GumbelSoftmax(seed=seed)) for seed in (1, 1, 2))
    calls = [[numpy(reader(*arrays, training=True)) for _ in range(2)] for reader in (first, second, other)]
    np.testing.assert_array_equal(calls[0], calls[1])
    assert not np.allclose(calls[0][0], calls[0][1])
    assert not np.allclose(calls[0][0], calls[2][0])


@pytest.mark.parametrize("hard", [False, True])
def test_there_is_no_noise_outside_of_training(hard: bool) -> None:
    arrays = [np.random.default_rng(3).normal(size=(B, length, H)).astype("float32") for length in (T, S)]
    at_rest, plain = (
        layer(ll.normalizers.GumbelSoftmax(0.5, hard)),
        layer(ll.normalizers.Hardmax() if hard else ll.normalizers.Softmax(0.5)),
    )
    np.testing.assert_allclose(numpy(at_rest(*arrays)), numpy(plain(*arrays)), atol=1e-6)


def test_the_noise_of_a_monotonic_reader_has_its_spread() -> None:
    numbers = uniform(sample_seed(3), Block.full(1, 1, 256, 256), "float32")
    noise = numpy(ll.normalizers.Monotonic(noise=2.0).perturbed(ops.zeros((1, 1, 256, 256)), numbers))
    assert abs(noise.mean()) < 0.04
    assert noise.std() == pytest.approx(2.0, rel=0.02)
    assert (np.abs(noise) > 4).mean() == pytest.approx(0.0455, abs=0.005)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ll.normalizers.GumbelSoftmax(0.7, seed=5),
        lambda: ll.normalizers.GumbelSoftmax(0.7, hard=True, seed=5),
        lambda: ll.normalizers.Monotonic(-0.5, 1.0, 5),
    ],
    ids=["gumbel", "hard gumbel", "monotonic"],
)
def test_noise_is_the_same_on_every_path(make: Callable[[], Any]) -> None:
    random = np.random.default_rng(13)
    query, key = (random.normal(size=(B, N, length, H)).astype("float32") for length in (T, S))
    target = ops.convert_to_tensor(random.normal(size=(B, N, T, H)).astype("float32"))

    def gradient(implementation: str) -> list[np.ndarray]:
        reader = Reader(make())
        with thresholds.using(implementation=implementation, rows=2, columns=3, scores_per_block=17):
            return gradients(lambda *arrays: ops.sum(reader(*arrays, training=True) * target), [query, key])

    for one, other in zip(gradient("blockwise"), gradient("dense"), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert np.abs(other).max() > 0.01


class Reader(keras.Layer):
    """Heads that read keys with a normalizer that knows whether it trains."""

    def __init__(self, normalizer: Any) -> None:
        super().__init__()
        self.normalizer = normalizer

    def call(self, query: Any, key: Any, training: bool | None = None) -> Any:
        return ll.attend(query, key, key, mask=ll.masks.Causal(), normalizer=self.normalizer)
