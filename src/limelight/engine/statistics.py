"""What a block of whole rows contributes to a survey, on any backend."""

import dataclasses
from typing import Any

from keras import ops

from limelight import surveying
from limelight.engine.block import Block, block, mixture
from limelight.masks.bounds import larger, smaller
from limelight.question import Question
from limelight.scores import Dot
from limelight.tile import Tile

# Below the largest score of a row by so much, an exponential is 0 in float64 too.
FAR = -800.0
TINY = 1e-37
# Rows shorter than this are searched for their largest weights as they are; longer ones by groups of so many keys.
LONG = 512
GROUP = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What a survey is to hold.

    Args:
        top_k: how many keys of each query.
        rows, columns: how many queries and keys there are in all; ints, or scalar tensors.
        row_cells, column_cells: how many coarse blocks there are along either.
        align: "start" or "end", where queries and keys are counted from there; None where they have positions.
    """

    top_k: int
    rows: Any
    columns: Any
    row_cells: Any
    column_cells: Any
    align: str | None = None

    @classmethod
    def of(cls, question: Question, top_k: int, cells: int, align: str | None) -> "Plan":
        """The plan for a question, with at most so many coarse blocks along an axis."""
        rows, columns = question.tile.rows.total, question.tile.columns.total
        return cls(top_k, rows, columns, smaller(cells, rows), smaller(cells, columns), align)

    @property
    def edges(self) -> tuple[Any, Any]:
        """Where the coarse blocks of rows, and those of columns, begin and end."""
        return edges(self.rows, self.row_cells), edges(self.columns, self.column_cells)

    def reach(self, size: Any) -> Any:
        """How many coarse blocks of rows a block of so many rows touches at most."""
        if not isinstance(self.rows, int) or not isinstance(size, int):
            return self.row_cells
        cell = self.rows // self.row_cells
        if self.rows % self.row_cells == 0 and self.rows % size == 0:
            if cell % size == 0:
                return 1
            if size % cell == 0:
                return size // cell
        return min(self.row_cells, (size - 1) // cell + 2)


def edges(length: Any, count: Any) -> Any:
    """Borders of blocks of nearly equal size, (count + 1,); numpy where they are known."""
    if isinstance(length, int):
        return surveying.edges(length, count)
    return ops.arange(count + 1, dtype="int32") * length // count


def cell_of(index: Any, length: Any, count: Any) -> Any:
    """The coarse block in which an index lies."""
    return ((index + 1) * count - 1) // length


def scored(question: Question, tile: Tile, query: Any, key: Any) -> Block:
    """The block at a tile, without its weights where they follow from what else is asked of it."""
    if not question.normalizer.exponential:
        return block(question, tile, query, key)
    scores = question.score(query, key, tile=tile)
    scores = ops.broadcast_to(scores, tuple(span.length for span in (tile.batch, tile.heads, tile.rows, tile.columns)))
    return Block(tile, scores, None if question.mask is None else question.mask(tile), None)


@dataclasses.dataclass(frozen=True, eq=False)
class Weighed:
    """The weights of a block: numbers (b, n, t, s), and what each row of them is multiplied by, (b, n, t, 1), to be weights.

    So the numbers need not be gone through once more where they are exponentials.

    Args:
        raised: the numbers.
        share: what they are multiplied by.
        mass, entropy, logsumexp: of the rows, (b, n, t).
    """

    raised: Any
    share: Any
    mass: Any
    entropy: Any
    logsumexp: Any


def said(question: Question, found: Block, value: Any, plan: Plan) -> tuple[dict[str, Any], Weighed]:
    """What there is to say of each row of a block, (b, n, t, ...) by name, and the block's weights."""
    weighed = of_scores(question, found) if question.normalizer.exponential else of_weights(found)
    raised, share = weighed.raised, weighed.share
    largest, top_keys = top(raised, plan.top_k)
    top_weights = largest * share
    distances = apart(found.tile, plan, raised.dtype)
    rows = {
        "entropy": weighed.entropy,
        "logsumexp": weighed.logsumexp,
        "top_keys": ops.where(top_weights > 0, top_keys + ops.cast(found.tile.columns.start, "int32"), -1),
        "top_weights": top_weights,
        "distance": (total(raised * distances) * share)[..., 0],
        "mass": weighed.mass,
    }
    if value is not None:
        rows["output"] = ops.cast(mixture(raised, value, found.tile) * share, value.dtype)
    return rows, weighed


def of_weights(found: Block) -> Weighed:
    """Weights that are no exponentials of scores."""
    weights = found.weights
    entropy = -total(weights * ops.log(ops.maximum(weights, TINY)))[..., 0]
    share = ops.ones_like(weights[..., :1])
    return Weighed(weights, share, total(weights)[..., 0], entropy, ops.full_like(entropy, float("nan")))


def of_scores(question: Question, found: Block) -> Weighed:
    """Weights that are exponentials of scores, shared out over the row."""
    normalizer = question.normalizer
    logits = normalizer.logits(found.scores, tile=found.tile)
    if found.permitted is not None:
        logits = ops.where(found.permitted, logits, float("-inf"))
    peak = ops.max(logits, axis=-1, keepdims=True)
    empty = ops.logical_not(peak > float("-inf"))
    peak = ops.where(empty, 0.0, peak)
    shifted = logits - peak
    if found.permitted is not None or type(question.score) is not Dot:
        # Not less, so that what is 0 times it is 0.
        shifted = ops.maximum(shifted, FAR)
    raised = ops.exp(shifted)
    alone = whole = total(raised)
    sinks = normalizer.sinks(found.tile)
    if sinks is not None:
        # From the larger of the two, lest the exponential of a high sink overflow.
        higher = ops.maximum(peak, ops.cast(sinks, peak.dtype))
        fading = ops.exp(peak - higher)
        whole = (alone * fading + ops.exp(sinks - higher)) / ops.maximum(fading, TINY)
    share = ops.where(empty, 0.0, 1.0 / ops.where(empty, 1.0, whole))
    entropy = (ops.log(ops.maximum(whole, TINY)) * alone - total(raised * shifted)) * share
    summed = ops.where(empty, float("-inf"), peak + ops.log(ops.maximum(alone, TINY)))
    return Weighed(raised, share, (alone * share)[..., 0], entropy[..., 0], summed[..., 0])


def total(tensor: Any) -> Any:
    """The sum of each row (..., s), (..., 1): as a product, since XLA does not vectorise a sum of what it computes on the way."""
    return ops.matmul(tensor, ops.ones((ops.shape(tensor)[-1], 1), dtype=tensor.dtype))


def apart(tile: Tile, plan: Plan, dtype: Any) -> Any:
    """How far each query of a tile is from each key, broadcastable to (b, n, t, s)."""
    if plan.align is None:
        queries, keys = tile.query_positions(), tile.key_positions()
    else:
        shift = ops.cast(tile.shift, "int32") if plan.align == "end" else 0
        queries, keys = ops.expand_dims(tile.rows.indices() + shift, -1), tile.columns.indices()
    # Cast before they are as many as the weights. Up to 16 million both are exact in float32.
    return ops.abs(ops.cast(queries, dtype) - ops.cast(keys, dtype))


def top(weights: Any, count: int) -> tuple[Any, Any]:
    """The largest `count` weights of each row (..., s), largest first, and their places, int32; weight 0 where s is less."""
    lead, columns = tuple(ops.shape(weights))[:-1], weights.shape[-1]
    some = smaller(count, ops.shape(weights)[-1])
    if columns is None or columns < LONG or columns < 2 * count * GROUP:
        values, places = ops.top_k(weights, some)
    else:
        values, places = top_of_groups(weights, count)
    if columns is None or columns < count:
        missing = (*lead, count - some)
        values = ops.concatenate([values, ops.zeros(missing, values.dtype)], axis=-1)
        places = ops.concatenate([places, ops.zeros(missing, places.dtype)], axis=-1)
        values, places = (ops.reshape(tensor, (*lead, count)) for tensor in (values, places))
    return values, ops.cast(places, "int32")


def top_of_groups(weights: Any, count: int) -> tuple[Any, Any]:
    """As `top`, by way of the largest weight of each group of keys.

    The largest `count` weights lie in the `count` groups with the largest maxima. A group is every so manieth key, because the
    maximum over an axis that is not the last is quicker to compute.
    """
    lead, columns = tuple(ops.shape(weights))[:-1], weights.shape[-1]
    groups = columns // GROUP
    even = weights[..., : groups * GROUP]
    peaks = ops.max(ops.reshape(even, (*lead, GROUP, groups)), axis=-2)
    _, chosen = ops.top_k(peaks, count)
    # In the order of the keys, so that the first of equals comes first.
    chosen = ops.expand_dims(ops.sort(ops.cast(chosen, "int32"), axis=-1), -2)
    steps = ops.expand_dims(ops.arange(GROUP, dtype="int32") * groups, -1)
    places = ops.reshape(chosen + steps, (*lead, GROUP * count))
    if columns > groups * GROUP:
        rest = ops.arange(groups * GROUP, columns, dtype="int32")
        places = ops.concatenate([places, ops.broadcast_to(rest, (*lead, columns - groups * GROUP))], axis=-1)
    values, order = ops.top_k(ops.take_along_axis(weights, places, axis=-1), count)
    return values, ops.take_along_axis(places, ops.cast(order, "int32"), axis=-1)


def gathered(weighed: Weighed, tile: Tile, counted: Any, reach: Any, plan: Plan) -> tuple[Any, Any, Any]:
    """What a block contributes to its keys and coarse blocks.

    Args:
        weighed: its weights.
        tile: where they lie.
        counted: bool (t,), False for rows that another block contributes; None for none.
        reach: of how many coarse blocks of rows, from that of the first row on, there may be something.

    Returns:
        The mass of each key (b, n, s); sums and maxima (b, n, reach, column_cells) of the coarse blocks.
    """
    rows = tile.rows.indices()
    first = cell_of(rows[0], plan.rows, plan.row_cells)
    share = ops.swapaxes(weighed.share, -1, -2)
    if counted is not None:
        share = ops.where(counted, share, 0.0)
    weights = weighed.raised * weighed.share
    if isinstance(reach, int) and reach == 1:
        peaks = ops.max(weights, axis=-2, keepdims=True)
    else:
        places = cell_of(rows, plan.rows, plan.row_cells) - first
        chosen = ops.expand_dims(ops.arange(reach, dtype="int32"), -1) == places
        share = ops.where(chosen, share, 0.0)
        peaks = row_peaks(weights, rows, first, reach, plan)
    sums = ops.matmul(share, weighed.raised)
    by_sum, by_peak = by_columns(sums, tile, plan), by_columns(peaks, tile, plan)
    return ops.sum(sums, axis=-2), ops.sum(by_sum, axis=-1), ops.max(by_peak, axis=-1)


def row_peaks(weights: Any, rows: Any, first: Any, reach: Any, plan: Plan) -> Any:
    """The largest weights (b, n, reach, s) that coarse blocks of rows, from a first one on, have in each column."""
    b, n, t, s = tuple(ops.shape(weights))
    cells = first + ops.arange(reach, dtype="int32")
    begin = ops.maximum(cells * plan.rows // plan.row_cells, rows[0])
    end = ops.minimum((cells + 1) * plan.rows // plan.row_cells, rows[-1] + 1)
    most = smaller(t, -(-plan.rows // plan.row_cells))
    places = ops.minimum(begin[:, None] + ops.arange(most, dtype="int32"), end[:, None] - 1) - rows[0]
    places = ops.reshape(ops.clip(places, 0, t - 1), (-1,))
    picked = ops.reshape(ops.take(weights, places, axis=-2), (b, n, reach, most, s))
    return ops.where((begin < end)[:, None], ops.max(picked, axis=-2), 0.0)


def by_columns(sums: Any, tile: Tile, plan: Plan) -> Any:
    """Numbers (b, n, c, s) of each column by coarse blocks of columns: (b, n, c, column_cells, widest), 0 where there is none."""
    b, n, c, s = tuple(ops.shape(sums))
    count = plan.column_cells
    if tile.columns.whole and isinstance(s, int) and s % count == 0:
        return ops.reshape(sums, (b, n, c, count, s // count))
    cells = ops.arange(count, dtype="int32")
    begin, end = cells * plan.columns // count, (cells + 1) * plan.columns // count
    places = begin[:, None] + ops.arange(-(-plan.columns // count), dtype="int32")
    here = places - ops.cast(tile.columns.start, "int32")
    there = ops.logical_and(ops.logical_and(here >= 0, here < s), places < end[:, None])
    taken = ops.take(sums, ops.reshape(ops.clip(here, 0, larger(s, 1) - 1), (-1,)), axis=-1)
    return ops.where(there, ops.reshape(taken, (b, n, c, count, -1)), 0.0)
