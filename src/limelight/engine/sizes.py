"""How large the blocks of whole rows are."""

import dataclasses

from limelight.question import Question


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How many examples, heads and rows a block has. Heads divide the number of heads, and either divide a group of heads
    that share a key or are a multiple of it."""

    batch: int
    heads: int
    rows: int


def sizes(question: Question, block: int) -> Sizes:
    """Blocks of about so many scores: all of some examples, or some heads of one, or some rows of one head.

    Where a length is not known before the model runs, it is taken for long.
    """
    (examples, heads, rows, _), (_, kept, columns, _) = question.query.shape, question.key.shape
    rows = rows or 1 << 30
    room = max(1, block // ((columns or 1 << 14) * question.score.cost))
    if question.normalizer.linked_rows:
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


def divisors(number: int) -> list[int]:
    """The numbers that divide a number."""
    return [count for count in range(1, number + 1) if number % count == 0]
