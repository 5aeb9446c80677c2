"""What a mask says of blocks is what it is: any combination of masks, any span."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contracts.cases import B, N
from limelight.masks import Mask
from limelight.tile import Span, Tile
from properties.drawing import LARGEST, Pattern, examined, numpy, patterns

ROWS, COLUMNS = LARGEST
SIZES = st.sampled_from([(2, 4), (5, 3)])


def dense(mask: Mask, tile: Tile) -> np.ndarray:
    """A mask on a tile, (b, n, t, s)."""
    return np.broadcast_to(
        numpy(mask(tile)), [span.length for span in (tile.batch, tile.heads, tile.rows, tile.columns)]
    )


def made(pattern: Pattern) -> Mask:
    """A pattern of all queries and keys."""
    return pattern.make(np.arange(ROWS), np.arange(COLUMNS))


@examined
@given(patterns, SIZES, st.integers(0, ROWS - 1), st.integers(0, COLUMNS - 1))
def test_a_tile_is_a_part_of_the_whole(pattern: Pattern, size: tuple[int, int], row: int, column: int) -> None:
    mask, whole = made(pattern), Tile.whole(B, N, ROWS, COLUMNS)
    # A span never reaches beyond the end: there it is moved back.
    rows, columns = (
        Span(total, min(start, total - length), length)
        for total, start, length in zip(LARGEST, (row, column), size, strict=True)
    )
    tile = whole.replace(rows=rows, columns=columns)
    everything = dense(mask, whole)
    block = everything[:, :, rows.start :, columns.start :][:, :, : size[0], : size[1]]
    np.testing.assert_array_equal(dense(mask, tile), block)
    cover = mask.cover(tile)
    assert cover != "empty" or not block.any()
    assert cover != "full" or block.all()
    first, last = (numpy(bound) for bound in mask.columns(tile.replace(columns=Span(COLUMNS))))
    seen = everything[:, :, rows.start : rows.start + size[0]]
    assert not seen[..., : int(first.min())].any()
    assert not seen[..., max(int(last.max()), 0) :].any()


@examined
@given(patterns, st.sampled_from([3, 4]))
def test_blocks_are_those_of_the_dense_mask(pattern: Pattern, size: int) -> None:
    mask = made(pattern)
    everything, covers = dense(mask, Tile.whole(B, N, ROWS, COLUMNS)), mask.blocks(ROWS, COLUMNS, size)
    assert covers.shape == (-(-ROWS // size), -(-COLUMNS // size))
    for (row, column), cover in np.ndenumerate(covers):
        block = everything[:, :, row * size : (row + 1) * size, column * size : (column + 1) * size]
        assert cover != 0 or not block.any()
        assert cover != 2 or block.all()
