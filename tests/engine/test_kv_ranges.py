"""`kv_range` and `kv_full_range` hold for every block, so that an engine may skip columns, or not apply the mask."""

import numpy as np
import pytest
from keras import ops

import limelight as ll
from limelight.core.block import Block, Slice

B, T, S = 2, 7, 11
SEGMENTS = ll.masks.Segments(
    np.array([[3, 3, 3, 4, 4, 6, 6], [1] * 7]), np.array([[3, 3, 4, 4, 4, 4, 6, 6, 6, 9, 9], [1] * 11])
)
PADDING = ll.masks.Padding(np.arange(S) < np.array([[5], [8]]))
LEFT = ll.masks.Padding(np.arange(S) > np.array([[2], [4]]))

# Each mask, with: `kv_range` is ever shorter than all columns; `kv_full_range` is ever not empty.
MASKS = {
    "causal": (ll.masks.Causal(), True, True),
    "causal from the start": (ll.masks.Causal("start"), True, True),
    "window": (ll.masks.SlidingWindow(3, 2), True, True),
    "window to the left": (ll.masks.SlidingWindow(2), True, True),
    "window to the right": (ll.masks.SlidingWindow(None, 1), True, True),
    "window from the start": (ll.masks.SlidingWindow(3, 1, align="start"), True, True),
    "prefix": (ll.masks.Prefix(4), True, True),
    "both": (ll.masks.Causal() & ll.masks.SlidingWindow(4), True, True),
    "either": (ll.masks.Causal() | ll.masks.Prefix(9), True, True),
    "either, one of which is never full": (PADDING | ll.masks.Prefix(4), True, True),
    "not": (~ll.masks.Causal(), False, False),
    "padding": (PADDING, True, False),
    "padding before": (LEFT, True, False),
    "padding and causal": (PADDING & ll.masks.Causal(), True, False),
    "padding only": (ll.masks.Padding(np.zeros((B, S), bool)), True, False),
    "segments": (SEGMENTS, True, False),
}


@pytest.mark.parametrize("name", MASKS)
def test_ranges_are_correct(name: str) -> None:
    mask, ever_shorter, ever_full = MASKS[name]
    full = Block.full(B, 1, T, S)
    permitted = np.broadcast_to(ops.convert_to_numpy(mask(full)), (B, 1, T, S))
    seen = {"shorter": False, "full": False}
    for example in range(B):
        for start in range(T):
            for size in range(1, T - start + 1):
                block = full.replace(batch=Slice(B, example, 1), rows=Slice(T, start, size))
                rows = permitted[example, 0, start : start + size]
                first, last = (int(bound) for bound in mask.kv_range(block))
                assert not rows[:, :first].any()
                assert not rows[:, max(first, last) :].any()
                begin, end = (int(bound) for bound in mask.kv_full_range(block))
                assert begin >= 0
                assert end <= S
                assert rows[:, begin : max(begin, end)].all()
                seen["shorter"] |= last - first < S
                seen["full"] |= begin < end
    assert seen == {"shorter": ever_shorter, "full": ever_full}


def test_ranges_assume_nothing_about_given_positions() -> None:
    block = Block.full(1, 1, T, S, given_query_positions=np.arange(T)[::-1].copy(), given_key_positions=np.arange(S))
    for mask in (ll.masks.Causal(), ll.masks.SlidingWindow(1, 1), ll.masks.Prefix(3)):
        assert mask.kv_range(block) == (0, S)
        assert mask.kv_full_range(block) == (0, 0)
