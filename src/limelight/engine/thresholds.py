"""Sizes at which one implementation gives way to another, which only tests change, and the sizes of blocks."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any

from limelight.core.block import Slice
from limelight.engine import backend
from limelight.engine.call import AttentionCall


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Sizes on which the choice of an implementation depends.

    Args:
        max_dense_scores: Up to this number of scores, all are computed at once.
        scores_per_block: The number of scores in a block of whole rows.
        statistics_scores_per_block: The same for statistics, which hold several arrays of that size.
        rows, columns: The size of a block for the online softmax.
        min_rows: The fewest rows of a block under a mask that leaves few columns: each block costs some operations, however
            small it is.
        implementation: The name of an implementation to use whatever the sizes, if it can compute the call.
    """

    max_dense_scores: int = 1 << 22
    scores_per_block: int = 1 << 20
    statistics_scores_per_block: int = 1 << 20
    rows: int = 1024
    columns: int = 1024
    min_rows: int = 128
    implementation: str | None = None


# An accelerator takes as long for a small operation as for a large one, and it has more memory to use.
ACCELERATOR = Thresholds(
    max_dense_scores=1 << 28, scores_per_block=1 << 26, statistics_scores_per_block=1 << 23, rows=4096, columns=4096
)
_overrides: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("overrides", default=None)


def current(tensor: Any) -> Thresholds:
    """Return the thresholds for the device of a tensor."""
    active = backend.active()
    thresholds = active.accelerator_thresholds if active.on_accelerator(tensor) else active.cpu_thresholds
    overrides = _overrides.get()
    return dataclasses.replace(thresholds, **overrides) if overrides else thresholds


def forced() -> str | None:
    """Return the name of the implementation to use whatever the sizes, or None."""
    return (_overrides.get() or {}).get("implementation")


@contextlib.contextmanager
def using(**overrides: Any) -> Iterator[None]:
    """Override some thresholds inside, in this thread or task only."""
    token = _overrides.set({**(_overrides.get() or {}), **overrides})
    try:
        yield
    finally:
        _overrides.reset(token)


@dataclasses.dataclass(frozen=True)
class BlockSizes:
    """The numbers of examples, heads and rows in a block.

    `heads` divides the number of heads. It also divides the number of heads that share a key head, or is a multiple of it.
    """

    batch: int
    heads: int
    rows: int


def choose_block_sizes(call: AttentionCall, scores_per_block: int) -> BlockSizes:
    """Choose blocks of about so many scores: all of some examples, or some heads of one, or some rows of one head.

    An unknown length counts as long. Under a mask that leaves few columns to each row, such as a window, blocks have few rows
    of many heads.
    """
    (examples, heads, rows, _), (_, num_kv_heads, columns, _) = call.query.shape, call.key.shape
    rows, columns = rows or 1 << 30, columns or 1 << 14
    narrow_rows = rows_of_narrow_blocks(call)
    if narrow_rows is not None:
        rows, columns = narrow_rows, max_columns(call, narrow_rows) or columns
    max_rows = max(1, scores_per_block // (columns * call.score.cost))
    if call.normalizer.needs_all_rows:
        max_rows = max(max_rows, rows)
    if max_rows < rows:
        return BlockSizes(1, 1, max_rows)
    group = heads // num_kv_heads
    block_heads = max(
        count for count in divisors(heads) if count * rows <= max_rows and (count % group == 0 or group % count == 0)
    )
    if block_heads < heads or not examples:
        return BlockSizes(1, block_heads, rows)
    return BlockSizes(max(count for count in divisors(examples) if count * heads * rows <= max_rows), heads, rows)


def rows_of_narrow_blocks(call: AttentionCall) -> int | None:
    """Return the number of rows in a block if each row may attend to few columns; None if one may attend to many.

    A block needs the columns of all its rows: twice those of one row, if it has as many rows as one row has columns.
    """
    columns_of_row, columns = max_columns(call, 1), call.key.shape[2]
    if columns_of_row is None or call.normalizer.needs_all_rows:
        return None
    rows = max(current(call.query).min_rows, columns_of_row // 2)
    return rows if rows + columns_of_row <= columns // 2 and rows < call.query.shape[2] else None


def max_columns(call: AttentionCall, rows: int) -> int | None:
    """Return the most columns that a block of so many rows needs, of the first, middle and last block; None if unknown."""
    num_rows, num_columns = call.query.shape[2], call.key.shape[2]
    if call.mask is None or not isinstance(num_rows, int) or not isinstance(num_columns, int):
        return None
    widest = 1
    for start in {0, (num_rows - rows) // 2, num_rows - rows}:
        first, last = call.mask.kv_range(call.block.replace(rows=Slice(num_rows, start, rows)))
        if not isinstance(first, int) or not isinstance(last, int):
            return None
        widest = max(widest, last - first)
    return widest


def divisors(number: int) -> list[int]:
    """Return the divisors of a positive number, in ascending order."""
    return [count for count in range(1, number + 1) if number % count == 0]
