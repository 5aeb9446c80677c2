"""Random numbers by position: as random as those of a sequential generator, and the same in blocks of any size."""

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
# The number of samples in frequency tests.
NUM_SAMPLES = 8192


def numpy(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def chi_square_z(counts: np.ndarray, expected: np.ndarray) -> float:
    """Return the chi-square statistic, standardized by its mean and standard deviation."""
    freedom = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_uniform_numbers_are_uniform_and_independent(seed: int) -> None:
    call_seed = ops.convert_to_tensor(np.array([seed], "int32"))
    numbers = numpy(uniform(call_seed, Block.full(B, N, 128, 128), "float32"))
    assert numbers.dtype == np.float32
    assert 0 < numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    bins = (numbers * 16).astype(int)
    assert chi_square_z(np.bincount(bins.ravel(), minlength=16), np.full(16, bins.size / 16)) < 4
    # Each pair of bins of neighbors along an axis is as frequent as any other.
    for axis in range(4):
        first, second = (np.take(bins, range(i, bins.shape[axis] - 1 + i), axis) for i in (0, 1))
        pairs = np.bincount((16 * first + second).ravel(), minlength=256)
        assert abs(chi_square_z(pairs, np.full(256, first.size / 256))) < 4, axis


def test_uniform_numbers_are_independent_of_dropout() -> None:
    seed, block = ops.convert_to_tensor(np.array([5], "int32")), Block.full(1, 1, 128, 128)
    numbers, is_kept = numpy(uniform(seed, block, "float32")), numpy(dropout_mask(seed, 0.5, block, "float32")) > 0
    assert abs(numbers[is_kept].mean() - numbers[~is_kept].mean()) < 0.02


def test_numbers_of_a_block_depend_on_its_position() -> None:
    seed = sample_seed(3)
    numbers = numpy(uniform(seed, Block.full(B, N, T, S), "float32"))
    block = Block(Slice(B, 1, 1), Slice(N, indices=(2, 0)), Slice(T, 1, 3), Slice(S, ops.convert_to_tensor(2), 4))
    np.testing.assert_array_equal(numpy(uniform(seed, block, "float32")), numbers[1:, [2, 0], 1:4, 2:6])


def attention(normalizer: Any) -> Any:
    return ll.layers.Attention(score=ll.scores.Dot(scale=1.0), normalizer=normalizer)


def sample_keys(seed: int, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the key that each of many equal queries sampled, (NUM_SAMPLES,), and the softmax of their scores, (S,)."""
    scores = np.array([0.3, -1.0, 1.2, 0.0, 0.7], "float32")
    query, key = np.ones((1, NUM_SAMPLES, 1), "float32"), scores[None, :, None]
    layer = attention(ll.normalizers.GumbelSoftmax(temperature, hard=True, seed=seed))
    _, weights = layer(query, key, return_attention_scores=True, training=True)
    weights = numpy(weights)[0]
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(weights.max(-1), 1.0, atol=1e-6)
    return weights.argmax(-1), np.exp(scores) / np.exp(scores).sum()


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_gumbel_frequencies_are_softmax(temperature: float) -> None:
    sampled, probability = sample_keys(11, temperature)
    counts = np.bincount(sampled, minlength=len(probability))
    assert abs(chi_square_z(counts, NUM_SAMPLES * probability)) < 4
    pairs = np.bincount(sampled[:-1] * len(probability) + sampled[1:], minlength=len(probability) ** 2)
    assert abs(chi_square_z(pairs, (NUM_SAMPLES - 1) * np.outer(probability, probability).ravel())) < 4


def test_a_seed_reproduces_the_sequence_of_calls() -> None:
    arrays = [np.random.default_rng(3).normal(size=(B, length, H)).astype("float32") for length in (T, S)]
    layers = (attention(ll.normalizers.GumbelSoftmax(seed=seed)) for seed in (1, 1, 2))
    first, second, other = ([numpy(layer(*arrays, training=True)) for _ in range(2)] for layer in layers)
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first[0], first[1])
    assert not np.allclose(first[0], other[0])


@pytest.mark.parametrize("hard", [False, True])
def test_inference_has_no_noise(hard: bool) -> None:
    arrays = [np.random.default_rng(3).normal(size=(B, length, H)).astype("float32") for length in (T, S)]
    layer = attention(ll.normalizers.GumbelSoftmax(0.5, hard))
    without_noise = attention(ll.normalizers.Hardmax() if hard else ll.normalizers.Softmax(0.5))
    np.testing.assert_allclose(numpy(layer(*arrays)), numpy(without_noise(*arrays)), atol=1e-6)


def test_monotonic_noise_is_normal() -> None:
    numbers = uniform(sample_seed(3), Block.full(1, 1, 256, 256), "float32")
    noise = numpy(ll.normalizers.Monotonic(noise=2.0).add_noise(ops.zeros((1, 1, 256, 256)), numbers))
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
def test_noise_is_the_same_with_every_implementation(make: Callable[[], Any]) -> None:
    random = np.random.default_rng(13)
    query, key = (random.normal(size=(B, N, length, H)).astype("float32") for length in (T, S))
    target = ops.convert_to_tensor(random.normal(size=(B, N, T, H)).astype("float32"))

    def gradient(implementation: str) -> list[np.ndarray]:
        layer = AttentionInTraining(make())
        with thresholds.using(implementation=implementation, rows=2, columns=3, scores_per_block=17):
            return gradients(lambda *arrays: ops.sum(layer(*arrays, training=True) * target), [query, key])

    for actual, expected in zip(gradient("blockwise"), gradient("dense"), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)
        assert np.abs(expected).max() > 0.01


class AttentionInTraining(keras.Layer):
    """Attention over heads whose normalizer is told by Keras whether it is training."""

    def __init__(self, normalizer: Any) -> None:
        super().__init__()
        self.normalizer = normalizer

    def call(self, query: Any, key: Any, training: bool | None = None) -> Any:
        return ll.attend(query, key, key, mask=ll.masks.Causal(), normalizer=self.normalizer)


@pytest.mark.parametrize("heads", [(), (N,)])
def test_dropout_differs_between_examples_that_share_their_queries(heads: tuple[int, ...]) -> None:
    # Uniform weights of values that are the identity: the output is the weights after dropout.
    size, rate = 40, 0.5
    query, key = np.zeros((1, *heads, size, H), "float32"), np.zeros((3, *heads, size, H), "float32")
    value = np.broadcast_to(np.eye(size, dtype="float32"), (3, *heads, size, size)).copy()
    output = numpy(ll.attend(query, key, value, dropout=rate, seed=1))
    is_dropped = output == 0
    np.testing.assert_allclose(output[~is_dropped], 1 / (1 - rate) / size, rtol=1e-5)
    assert is_dropped.mean() == pytest.approx(rate, abs=0.03)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (is_dropped[one] == is_dropped[other]).mean() == pytest.approx(0.5, abs=0.05)
