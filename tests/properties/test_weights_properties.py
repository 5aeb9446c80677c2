"""Properties of weights and outputs that hold for all components."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import limelight as ll
from contracts.cases import B, Case, S, T
from limelight.core.block import Block
from limelight.masks import Mask
from properties.drawing import (
    MORE,
    NORMALIZERS,
    SCORES,
    N,
    Pattern,
    examined,
    normalizers,
    numbers,
    numpy,
    part,
    patterns,
    scores,
    seeds,
)

pytestmark = pytest.mark.full

ROWS, COLUMNS = np.arange(T), np.arange(S)
# The last query is at the position of the last key.
PLACES = {"query_positions": ROWS + S - T, "key_positions": COLUMNS}


def permitted(mask: Mask) -> np.ndarray:
    """Return the dense mask, (B, N, T, S)."""
    return np.broadcast_to(numpy(mask(Block.full(B, N, T, S))), (B, N, T, S))


@examined
@given(scores, patterns, normalizers, seeds, st.permutations(range(S)))
def test_the_order_of_keys_does_not_matter(
    score: Case, pattern: Pattern, normalizer: Case, seed: int, order: list[int]
) -> None:
    # Monotonic attention depends on the order of keys, the center of a Gaussian window on their number.
    assume(normalizer.name != "monotonic" and score.name != "gaussian")
    query, key, value = numbers(seed)
    parts = {"score": part(score), "normalizer": part(normalizer)}
    expected = numpy(ll.attend(query, key, value, mask=pattern.make(ROWS, COLUMNS), **parts, **PLACES))
    shuffled = {"mask": pattern.make(ROWS, np.array(order)), **PLACES, "key_positions": np.array(order)}
    output = numpy(ll.attend(query, key[:, :, order], value[:, :, order], **parts, **shuffled))
    np.testing.assert_allclose(output, expected, atol=2e-5)


# Each component is compiled for another shape: only those on which padding could have different effects.
PADDED = st.sampled_from([case for case in SCORES if case.name in ("scaled", "alibi", "rotary", "shaw", "rms normed")])
SHARED = st.sampled_from([case for case in NORMALIZERS if case.name in ("sink", "sigmoid", "top k", "sparsemax")])


@examined
@given(PADDED, patterns, SHARED, seeds)
def test_padding_changes_nothing(score: Case, pattern: Pattern, normalizer: Case, seed: int) -> None:
    padded_tensors = numbers(seed, T + MORE, S + MORE, S + MORE)
    parts = {"score": part(score), "normalizer": part(normalizer)}
    narrow = [tensor[:, :, :length] for tensor, length in zip(padded_tensors, (T, S, S), strict=True)]
    expected = numpy(ll.attend(*narrow, mask=pattern.make(ROWS, COLUMNS), **parts, **PLACES))
    rows, columns = np.arange(T + MORE), np.arange(S + MORE)
    real = ll.masks.Padding(np.tile(columns < S, (B, 1)), np.tile(rows < T, (B, 1)))
    padded = {"mask": pattern.make(rows, columns) & real, "query_positions": rows + S - T, "key_positions": columns}
    output = numpy(ll.attend(*padded_tensors, **parts, **padded))
    np.testing.assert_allclose(output[:, :, :T], expected, atol=2e-5)
    assert not output[:, :, T:].any()


@examined
@given(scores, patterns, normalizers, seeds)
def test_rows_sum_to_one_or_to_less(score: Case, pattern: Pattern, normalizer: Case, seed: int) -> None:
    mask = pattern.make(ROWS, COLUMNS)
    weights = numpy(ll.attention_weights(*numbers(seed)[:2], score=part(score), mask=mask, normalizer=part(normalizer)))
    seen = permitted(mask)
    assert not weights[~seen].any()
    assert weights.min() >= 0.0
    sums = weights.sum(-1)
    if "sigmoid" in normalizer.name:
        assert weights.max() <= 1.0
    elif "sink" in normalizer.name or normalizer.name == "monotonic":
        assert sums.max() <= 1.0 + 1e-5
    else:
        np.testing.assert_allclose(sums, seen.any(-1), atol=1e-5)


@examined
@given(scores, patterns, normalizers, seeds, st.integers(0, T - 1))
def test_the_future_changes_nothing(score: Case, pattern: Pattern, normalizer: Case, seed: int, now: int) -> None:
    parts: dict[str, Any] = {"score": part(score), "normalizer": part(normalizer)}
    parts["mask"] = ll.masks.Causal() & pattern.make(ROWS, COLUMNS)
    tensors, others = numbers(seed), numbers(seed + 1)
    expected = numpy(ll.attend(*tensors, **parts))[:, :, : now + 1]
    for tensor, other, first in zip(tensors, others, (now + 1, *[now + 1 + S - T] * 2), strict=True):
        tensor[:, :, first:] = 30 * other[:, :, first:]
    np.testing.assert_allclose(numpy(ll.attend(*tensors, **parts))[:, :, : now + 1], expected, atol=1e-6)
