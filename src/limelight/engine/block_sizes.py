"""How large the blocks of whole rows are."""

import dataclasses
from typing import Any

from limelight.core.block import Slice
from limelight.engine import thresholds
from limelight.engine.call import AttentionCall


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How many examples, heads and rows a block has. Heads divide the number of heads, and either divide a group of heads
    that share a key or are a multiple of it."""

    batch: int
    heads: int
    rows: int


def sizes(call: AttentionCall, block: int) -> Sizes:
    """BigBird of about so many scores: all of some examples, or some heads of one, or some rows of one head.

    Where a length is not known before the model runs, it is taken for long. Where the mask leaves few columns to each row, as a
    window does, blocks have few rows of many heads.
    """
    (examples, heads, rows, _), (_, kept, columns, _) = call.query.shape, call.key.shape
    rows, columns = rows or 1 << 30, columns or 1 << 14
    few = narrow(call)
    if few is not None:
        rows, columns = few, reach(call, few)
    room = max(1, block // (columns * call.score.cost))
    if call.normalizer.linked_rows:
        room = max(room, rows)
    if room < rows:
        return Sizes(1, 1, room)
    group = heads // kept
    some = max(
        count for count in divisors(heads) if count * rows <= room and (count % group == 0 or group % count == 0)
    )
    if some < heads or not examples:
        return Sizes(1, some, rows)
    return Sizes(max(count for count in divisors(examples) if count * heads * rows <= room), heads, rows)


def narrow(call: AttentionCall) -> int | None:
    """How many rows a block should have where each may attend to few columns; None where one may attend to many.

    A block has the columns of all of its rows: as many again as one has, when there are as many rows as one has columns.
    """
    one, columns = reach(call, 1), call.key.shape[2]
    rows = call.query.shape[2]
    if one is None or call.normalizer.linked_rows:
        return None
    few = max(thresholds.current(call.query).min_rows, one // 2)
    return few if few + one <= columns // 2 and few < rows else None


def reach(call: AttentionCall, rows: int) -> Any:
    """How many columns a block of so many rows needs, at the start, in the middle or at the end; None where not known."""
    t, s = call.query.shape[2], call.key.shape[2]
    if call.mask is None or not isinstance(t, int) or not isinstance(s, int):
        return None
    most = 1
    for start in {0, (t - rows) // 2, t - rows}:
        first, last = call.mask.kv_range(call.block.replace(rows=Slice(t, start, rows)))
        if not isinstance(first, int) or not isinstance(last, int):
            return None
        most = max(most, last - first)
    return most


def divisors(number: int) -> list[int]:
    """The numbers that divide a number."""
    return [count for count in range(1, number + 1) if number % count == 0]
