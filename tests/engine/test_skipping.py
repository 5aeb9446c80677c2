"""What masks say of runs of columns, so that an engine may skip them or leave out the mask, holds for every block."""

import numpy as np
import pytest
from keras import ops

import limelight as ll
from limelight.tile import Span, Tile

B, T, S = 2, 7, 11
SEGMENTS = ll.Segments(
    np.array([[3, 3, 3, 4, 4, 6, 6], [1] * 7]), np.array([[3, 3, 4, 4, 4, 4, 6, 6, 6, 9, 9], [1] * 11])
)
PADDING = ll.Padding(np.arange(S) < np.array([[5], [8]]))
LEFT = ll.Padding(np.arange(S) > np.array([[2], [4]]))

# A mask, whether it leaves out columns of some block, and whether it says of some block that it permits all of them.
MASKS = {
    "causal": (ll.Causal(), True, True),
    "causal from the start": (ll.Causal("start"), True, True),
    "window": (ll.Window(3, 2), True, True),
    "window to the left": (ll.Window(2), True, True),
    "window to the right": (ll.Window(None, 1), True, True),
    "window from the start": (ll.Window(3, 1, align="start"), True, True),
    "prefix": (ll.Prefix(4), True, True),
    "both": (ll.Causal() & ll.Window(4), True, True),
    "either": (ll.Causal() | ll.Prefix(9), True, True),
    "either, the first of which never permits all": (PADDING | ll.Prefix(4), True, True),
    "not": (~ll.Causal(), False, False),
    "padding": (PADDING, True, False),
    "padding before": (LEFT, True, False),
    "padding and causal": (PADDING & ll.Causal(), True, False),
    "nothing real": (ll.Padding(np.zeros((B, S), bool)), True, False),
    "segments": (SEGMENTS, True, False),
}


@pytest.mark.parametrize("name", MASKS)
def test_runs_of_columns_hold_what_they_say(name: str) -> None:
    mask, skips, opens = MASKS[name]
    whole = Tile.whole(B, 1, T, S)
    permitted = np.broadcast_to(ops.convert_to_numpy(mask(whole)), (B, 1, T, S))
    seen = {"skipped": False, "open": False}
    for example in range(B):
        for start in range(T):
            for size in range(1, T - start + 1):
                tile = whole.replace(batch=Span(B, example, 1), rows=Span(T, start, size))
                rows = permitted[example, 0, start : start + size]
                first, last = (int(bound) for bound in mask.columns(tile))
                assert not rows[:, :first].any()
                assert not rows[:, max(first, last) :].any()
                begin, end = (int(bound) for bound in mask.full(tile))
                assert begin >= 0
                assert end <= S
                assert rows[:, begin : max(begin, end)].all()
                seen["skipped"] |= last - first < S
                seen["open"] |= begin < end
    assert seen == {"skipped": skips, "open": opens}


def test_positions_that_are_given_are_not_guessed() -> None:
    tile = Tile.whole(1, 1, T, S, given_queries=np.arange(T)[::-1].copy(), given_keys=np.arange(S))
    for mask in (ll.Causal(), ll.Window(1, 1), ll.Prefix(3)):
        assert mask.columns(tile) == (0, S)
        assert mask.full(tile) == (0, 0)
