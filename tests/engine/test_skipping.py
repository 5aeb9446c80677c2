"""What masks say of runs of columns, so that an engine may skip them or leave out the mask, holds for every block."""

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

# A mask, whether it leaves out columns of some block, and whether it says of some block that it permits all of them.
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
    "either, the first of which never permits all": (PADDING | ll.masks.Prefix(4), True, True),
    "not": (~ll.masks.Causal(), False, False),
    "padding": (PADDING, True, False),
    "padding before": (LEFT, True, False),
    "padding and causal": (PADDING & ll.masks.Causal(), True, False),
    "nothing real": (ll.masks.Padding(np.zeros((B, S), bool)), True, False),
    "segments": (SEGMENTS, True, False),
}


@pytest.mark.parametrize("name", MASKS)
def test_runs_of_columns_hold_what_they_say(name: str) -> None:
    mask, skips, opens = MASKS[name]
    whole = Block.full(B, 1, T, S)
    permitted = np.broadcast_to(ops.convert_to_numpy(mask(whole)), (B, 1, T, S))
    seen = {"skipped": False, "open": False}
    for example in range(B):
        for start in range(T):
            for size in range(1, T - start + 1):
                block = whole.replace(batch=Slice(B, example, 1), rows=Slice(T, start, size))
                rows = permitted[example, 0, start : start + size]
                first, last = (int(bound) for bound in mask.kv_range(block))
                assert not rows[:, :first].any()
                assert not rows[:, max(first, last) :].any()
                begin, end = (int(bound) for bound in mask.kv_full_range(block))
                assert begin >= 0
                assert end <= S
                assert rows[:, begin : max(begin, end)].all()
                seen["skipped"] |= last - first < S
                seen["open"] |= begin < end
    assert seen == {"skipped": skips, "open": opens}


def test_positions_that_are_given_are_not_guessed() -> None:
    block = Block.full(1, 1, T, S, given_query_positions=np.arange(T)[::-1].copy(), given_key_positions=np.arange(S))
    for mask in (ll.masks.Causal(), ll.masks.SlidingWindow(1, 1), ll.masks.Prefix(3)):
        assert mask.kv_range(block) == (0, S)
        assert mask.kv_full_range(block) == (0, 0)
