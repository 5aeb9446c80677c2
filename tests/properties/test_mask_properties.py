"""The blocks of a mask agree with the dense mask: any combination of masks, any slice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.cases import B, N
from limelight.core.block import Block, Slice
from limelight.masks import Mask
from properties.drawing import LARGEST, Pattern, examined, numpy, patterns

ROWS, COLUMNS = LARGEST
SIZES = st.sampled_from([(2, 4), (5, 3)])


def dense(mask: Mask, block: Block) -> np.ndarray:
    """Return the mask of a block, (b, n, t, s)."""
    return np.broadcast_to(
        numpy(mask(block)), [part.length for part in (block.batch, block.heads, block.rows, block.columns)]
    )


def build(pattern: Pattern) -> Mask:
    """Build the mask of all queries and keys."""
    return pattern.make(np.arange(ROWS), np.arange(COLUMNS))


@pytest.mark.full
@examined
@given(patterns, SIZES, st.integers(0, ROWS - 1), st.integers(0, COLUMNS - 1))
def test_a_block_equals_its_slice_of_the_dense_mask(
    pattern: Pattern, size: tuple[int, int], row: int, column: int
) -> None:
    mask, whole = build(pattern), Block.full(B, N, ROWS, COLUMNS)
    # A slice must end within the axis.
    rows, columns = (
        Slice(total, min(start, total - length), length)
        for total, start, length in zip(LARGEST, (row, column), size, strict=True)
    )
    block = whole.replace(rows=rows, columns=columns)
    everything = dense(mask, whole)
    expected = everything[:, :, rows.start :, columns.start :][:, :, : size[0], : size[1]]
    np.testing.assert_array_equal(dense(mask, block), expected)
    kind = mask.block_kind(block)
    assert kind != "empty" or not expected.any()
    assert kind != "full" or expected.all()
    first, last = (numpy(bound) for bound in mask.kv_range(block.replace(columns=Slice(COLUMNS))))
    rows_mask = everything[:, :, rows.start : rows.start + size[0]]
    assert not rows_mask[..., : int(first.min())].any()
    assert not rows_mask[..., max(int(last.max()), 0) :].any()


@pytest.mark.full
@examined
@given(patterns, st.sampled_from([3, 4]))
def test_block_kinds_agree_with_the_dense_mask(pattern: Pattern, size: int) -> None:
    mask = build(pattern)
    everything, kinds = dense(mask, Block.full(B, N, ROWS, COLUMNS)), mask.block_kinds(ROWS, COLUMNS, size)
    assert kinds.shape == (-(-ROWS // size), -(-COLUMNS // size))
    for (row, column), kind in np.ndenumerate(kinds):
        block = everything[:, :, row * size : (row + 1) * size, column * size : (column + 1) * size]
        assert kind != 0 or not block.any()
        assert kind != 2 or block.all()
