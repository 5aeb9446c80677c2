"""Decoding with a cache is the whole computation, however it is cut into steps."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import limelight as ll
from contracts.cases import B, Case, N, V
from limelight.layers import KVCache
from properties.drawing import NORMALIZERS, SCORES, SIZE, Pattern, examined, numbers, numpy, part, positional, seeds

pytestmark = pytest.mark.full

# The steps of a sequence, the slots of a cache, and the steps of one call.
LENGTH, SLOTS, COUNT = 9, 5, 3
ALL = np.arange(LENGTH)

# Scores that go by positions in different ways, and one that does not.
PLACED = st.sampled_from([case for case in SCORES if case.name in ("scaled", "rotary", "relative bias")])
SHARED = st.sampled_from([case for case in NORMALIZERS if case.name in ("sink", "sigmoid", "top k")])
# How many of the steps that come are real: those of one call are none, some or all, in each example others.
SHARE = st.sampled_from([0.3, 0.6, 1.0])


def decoded(cache: KVCache, tensors: list[np.ndarray], real: np.ndarray, parts: dict[str, Any]) -> Any:
    """The output of all steps, read from a cache a few steps at a time."""
    outputs = []
    for start in range(0, LENGTH, COUNT):
        now = slice(start, start + COUNT)
        query, key, value = (tensor[:, :, now] for tensor in tensors)
        cache, seen, queries = cache.update(key, value, real[:, now], None, parts["mask"].max_lookback())
        given = {
            **parts,
            "mask": parts["mask"] & seen.mask(),
            "query_positions": queries,
            "key_positions": seen.positions,
        }
        outputs.append(numpy(ll.attend(query, seen.key, seen.value, **given)))
    return np.concatenate(outputs, axis=2)


@examined
@given(PLACED, positional, SHARED, st.booleans(), SHARE, seeds)
def test_any_cut_gives_the_whole(
    score: Case, pattern: Pattern, normalizer: Case, rolling: bool, share: float, seed: int
) -> None:
    tensors = numbers(seed, LENGTH, LENGTH, LENGTH)
    parts = {"score": part(score), "normalizer": part(normalizer), "mask": ll.masks.Causal() & pattern.make(ALL, ALL)}
    # The others are padding, which the cache leaves out.
    real = np.random.default_rng(seed).random((B, LENGTH)) < share
    places = np.cumsum(real, axis=1) - 1
    if rolling:
        # As far back as a full cache holds: the last of the new steps take slots that the first of them still look at.
        parts["mask"] &= ll.masks.SlidingWindow(SLOTS - 1, 0)
    else:
        real &= places < SLOTS
    whole = {
        **parts,
        "mask": parts["mask"] & ll.masks.Padding(real),
        "query_positions": places,
        "key_positions": places,
    }
    expected = numpy(ll.attend(*tensors, **whole))
    found = decoded(KVCache.empty(B, N, SLOTS, SIZE, V), tensors, real, parts)
    for example in range(B):
        rows = real[example]
        np.testing.assert_allclose(found[example][:, rows], expected[example][:, rows], atol=2e-5)
