"""The key/value cache: its slots, and decoding with it step by step."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from contracts.representative import full
from gradients import compiled
from limelight.layers import KVCache

B, K, H, V = 2, 3, 4, 5


def numpy(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def random_steps(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random keys and values of some steps."""
    return tuple(random.normal(size=(B, K, count, size)).astype("float32") for size in (H, V))


class SlotsOracle:
    """The cache of one example in numpy, written one step at a time."""

    def __init__(self, size: int) -> None:
        self.key, self.value = np.zeros((K, size, H), "float32"), np.zeros((K, size, V), "float32")
        self.positions, self.length = [-1] * size, 0

    def write(self, key: np.ndarray, value: np.ndarray) -> None:
        slot = self.length % len(self.positions)
        self.key[:, slot], self.value[:, slot], self.positions[slot] = key, value, self.length
        self.length += 1


@pytest.mark.full
@pytest.mark.parametrize("counts", [(1, 1, 1, 1, 1, 1, 1), (3, 4, 1), (2, 5, 5), (11, 1), (6, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_append_writes_each_step_to_its_slot(
    random: np.random.Generator, counts: tuple[int, ...], masked: bool
) -> None:
    cache, slots = KVCache.empty(B, K, 6, H, V), [SlotsOracle(6) for _ in range(B)]
    for count in counts:
        key, value = random_steps(random, count)
        mask = random.random((B, count)) < 0.6 if masked else None
        cache = cache.append(key, value, mask)
        for example in range(B):
            for step in range(count):
                if mask is None or mask[example, step]:
                    slots[example].write(key[example, :, step], value[example, :, step])
        np.testing.assert_array_equal(numpy(cache.key), [slot.key for slot in slots])
        np.testing.assert_array_equal(numpy(cache.value), [slot.value for slot in slots])
        np.testing.assert_array_equal(numpy(cache.positions), [slot.positions for slot in slots])
        np.testing.assert_array_equal(numpy(cache.length), [slot.length for slot in slots])


def test_last_positions(random: np.random.Generator) -> None:
    mask = np.array([[False, True, True], [True, False, True]])
    cache = KVCache.empty(B, K, 4, H, V).append(*random_steps(random, 2)).append(*random_steps(random, 3), mask)
    assert numpy(cache.last_positions(2)).tolist() == [[2, 3], [2, 3]]
    assert numpy(cache.last_positions(3, mask)).tolist() == [[1, 2, 3], [2, 2, 3]]


@pytest.mark.parametrize(
    ("parts", "size"),
    [
        full({"mask": ll.masks.Causal()}, 9),
        full({"mask": ll.masks.Causal() & ll.masks.SlidingWindow(3)}, 4),
        ({"mask": ll.masks.Causal() & ll.masks.SlidingWindow(3), "score": "rotary"}, 4),
        ({"mask": ll.masks.Causal(), "score": "relative", "normalizer": "sparsemax"}, 9),
        full({"mask": ll.masks.Causal() & ll.masks.Dilated(2), "score": "alibi"}, 9),
    ],
    ids=["causal", "rolling window", "rotary in a rolling window", "relative bias", "dilated"],
)
def test_decoding_equals_attention_over_the_whole_sequence(
    random: np.random.Generator, parts: dict[str, Any], size: int
) -> None:
    scores = {
        "rotary": ll.positions.Rotary(ll.scores.Dot()),
        "relative": ll.scores.Dot() + ll.positions.RelativePositionBias(4, 5, initializer="normal"),
        "alibi": ll.scores.Dot() + ll.positions.ALiBi(),
    }
    parts = {**parts, "score": scores.get(parts.get("score", ""))}
    length, heads = 9, 2 * K
    query = random.normal(size=(B, heads, length, H)).astype("float32")
    key, value = random_steps(random, length)
    expected = numpy(ll.attend(query, key, value, **parts))

    @compiled
    def step(cache: KVCache, query: Any, key: Any, value: Any) -> tuple[Any, KVCache]:
        cache = cache.append(key, value)
        output = ll.attend(
            query,
            cache.key,
            cache.value,
            **{**parts, "mask": parts["mask"] & cache.mask()},
            query_positions=cache.last_positions(query.shape[2]),
            key_positions=cache.positions,
        )
        return output, cache

    cache = KVCache.empty(B, K, size, H, V)
    # A prompt that fits even a small cache, then one step at a time.
    ends = [3, *range(4, length + 1)]
    for start, end in zip([0, *ends], ends, strict=False):
        now = slice(start, end)
        tensors = [ops.convert_to_tensor(tensor[:, :, now]) for tensor in (query, key, value)]
        output, cache = step(cache, *tensors)
        np.testing.assert_allclose(numpy(output), expected[:, :, now], atol=2e-5)
    assert tuple(cache.key.shape) == (B, K, size, H)


@pytest.mark.full
def test_append_keeps_the_dtype(random: np.random.Generator) -> None:
    cache = KVCache.empty(B, K, 4, H, dtype="bfloat16").append(*[random_steps(random, 2)[0]] * 2)
    assert keras.backend.standardize_dtype(cache.key.dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(cache.positions.dtype) == "int32"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: KVCache.empty(2, 0, 4, 3), "positive integer.*num_kv_heads=0"),
        (
            lambda: KVCache.empty(2, 1, 4, 3).append(np.ones((2, 1, 1, 5)), np.ones((2, 1, 1, 3))),
            r"\(2, 1, 4, 3\) except for T",
        ),
        (lambda: KVCache.empty(2, 1, 4, 3).append(np.ones((2, 1, 3)), np.ones((2, 1, 3))), r"\(B, K, T, size\)"),
    ],
)
def test_invalid_arguments_raise(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        wrong()
