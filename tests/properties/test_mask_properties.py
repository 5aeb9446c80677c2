"""What a mask says of blocks is what it is: any combination of masks, any span."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contracts.cases import B, N
from limelight.core.block import Block, Slice
from limelight.masks import Mask
from properties.drawing import LARGEST, Pattern, examined, numpy, patterns

ROWS, COLUMNS = LARGEST
SIZES = st.sampled_from([(2, 4), (5, 3)])


def dense(mask: Mask, block: Block) -> np.ndarray:
    """A mask on a tile, (b, n, t, s)."""
    return np.broadcast_to(
        numpy(mask(block)), [span.length for span in (block.batch, block.heads, block.rows, block.columns)]
    )


def made(pattern: Pattern) -> Mask:
    """A pattern of all queries and keys."""
    return pattern.make(np.arange(ROWS), np.arange(COLUMNS))


@examined
@given(patterns, SIZES, st.integers(0, ROWS - 1), st.integers(0, COLUMNS - 1))
def test_a_tile_is_a_part_of_the_whole(pattern: Pattern, size: tuple[int, int], row: int, column: int) -> None:
    mask, whole = made(pattern), Block.full(B, N, ROWS, COLUMNS)
    # A span never reaches beyond the end: there it is moved back.
    rows, columns = (
        Slice(total, min(start, total - length), length)
        for total, start, length in zip(LARGEST, (row, column), size, strict=True)
    )
    block = whole.replace(rows=rows, columns=columns)
    everything = dense(mask, whole)
    block = everything[:, :, rows.start :, columns.start :][:, :, : size[0], : size[1]]
    np.testing.assert_array_equal(dense(mask, block), block)
    cover = mask.block_kind(block)
    assert cover != "empty" or not block.any()
    assert cover != "full" or block.all()
    first, last = (numpy(bound) for bound in mask.kv_range(block.replace(columns=Slice(COLUMNS))))
    seen = everything[:, :, rows.start : rows.start + size[0]]
    assert not seen[..., : int(first.min())].any()
    assert not seen[..., max(int(last.max()), 0) :].any()


@examined
@given(patterns, st.sampled_from([3, 4]))
def test_blocks_are_those_of_the_dense_mask(pattern: Pattern, size: int) -> None:
    mask = made(pattern)
    everything, covers = dense(mask, Block.full(B, N, ROWS, COLUMNS)), mask.block_kinds(ROWS, COLUMNS, size)
    assert covers.shape == (-(-ROWS // size), -(-COLUMNS // size))
    for (row, column), cover in np.ndenumerate(covers):
        block = everything[:, :, row * size : (row + 1) * size, column * size : (column + 1) * size]
        assert cover != 0 or not block.any()
        assert cover != 2 or block.all()
