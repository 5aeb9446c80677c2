"""The weights of a block of whole rows and what they say of each row, on any backend."""

import dataclasses
from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.engine.call import AttentionCall
from limelight.engine.dense_block import BlockWeights
from limelight.masks.static_shapes import smaller
from limelight.normalizers import LOWEST, softmax
from limelight.scores import Dot

# Below the largest score of a row by so much, an exponential is 0 in float64 too.
FAR = -800.0
TINY = 1e-37
# Rows shorter than this are searched for their largest weights as they are; longer ones by groups of so many keys.
LONG = 512


@dataclasses.dataclass(frozen=True, eq=False)
class Weighed:
    """The weights of a block: numbers (b, n, t, s), and what each row of them is multiplied by, (b, n, t, 1), to be weights.

    So the numbers need not be gone through once more to become weights.

    Args:
        tile: where the block lies.
        raised: the numbers.
        share: what they are multiplied by; None for 1.
        largest, places: the largest weights of each row and their columns in the block, (b, n, t, top_k).
        mass, entropy, logsumexp: of the rows, (b, n, t).
        peaks: the largest numbers of runs of neighbours that are equally long and cover all columns, (b, n, t, runs); None where
            they are not at hand.
    """

    block: Block
    raised: Any
    share: Any
    largest: Any
    places: Any
    mass: Any
    entropy: Any
    logsumexp: Any
    peaks: Any = None

    def shared(self, rows: Any) -> Any:
        """Sums over rows of the numbers, (b, n, t, ...), as those of the weights."""
        return rows if self.share is None else rows * self.share


class Passes:
    """What goes over all numbers of a block. A backend may do it in fewer passes, or in memory that it has already."""

    # How many keys make a group among which the largest weight is looked for.
    group = 16

    def softmax(self, logits: Any) -> Any:
        """The softmax of each row."""
        return softmax(logits)

    def logits(self, raised: Any, logits: Any, largest: Any, places: Any) -> tuple[Any, Any]:
        """The average of each row's logits (..., t, s), and that of the largest weight, both (..., t, 1).

        Args:
            raised: the weights.
            logits: not needed any more afterwards.
            largest, places: the largest weight of each row and where it is, (..., t, 1).
        """
        picked = self.picked(logits, places)
        return self.averages(raised, logits), picked

    def averages(self, raised: Any, logits: Any) -> Any:
        """The sum of each row of a product (..., t, s), (..., t, 1)."""
        return total(raised * logits)

    def apart(self, raised: Any, queries: Any, keys: Any, place: Any) -> Any:
        """The sum of each row of numbers (..., t, s) times the distances of queries (..., t, 1) from keys (..., s).

        Args:
            place: the column at the position of the first query, where rows and columns stand at 0, 1, 2, ...; None elsewhere.
        """
        return total(raised * ops.abs(queries - keys))

    def summed(self, share: Any, raised: Any) -> Any:
        """Sums (b, n, r, s) of rows (b, n, t, s), each multiplied by its share, (b, n, r, t)."""
        return ops.matmul(share, raised)

    def top(self, weights: Any, count: int) -> tuple[Any, Any, Any]:
        """As `top`, and the largest weights of runs of neighbours, as `Weighed` has them, where that has found them."""
        return *top(weights, count, self), None

    def picked(self, rows: Any, places: Any) -> Any:
        """The numbers of rows (..., s) at places (..., c)."""
        return ops.take_along_axis(rows, places, axis=-1)


PASSES = Passes()


def of_weights(found: BlockWeights, top_k: int) -> Weighed:
    """Weights that are no exponentials of scores."""
    weights = found.weights
    entropy = -total(weights * ops.log(ops.maximum(weights, TINY)))[..., 0]
    unknown = ops.full_like(entropy, float("nan"))
    return Weighed(found.block, weights, None, *top(weights, top_k), total(weights)[..., 0], entropy, unknown)


def of_exponentials(call: AttentionCall, found: BlockWeights, top_k: int) -> Weighed:
    """Weights that are exponentials of scores, shared out over the row, for a backend that fuses what is done to each score."""
    normalizer = call.normalizer
    logits = normalizer.logits(found.scores, block=found.block)
    if found.permitted is not None:
        logits = ops.where(found.permitted, logits, float("-inf"))
    peak = ops.max(logits, axis=-1, keepdims=True)
    empty = ops.logical_not(peak > float("-inf"))
    peak = ops.where(empty, 0.0, peak)
    shifted = logits - peak
    if found.permitted is not None or type(call.score) is not Dot:
        # Not less, so that what is 0 times it is 0.
        shifted = ops.maximum(shifted, FAR)
    raised = ops.exp(shifted)
    alone = whole = total(raised)
    sinks = normalizer.sinks(found.block)
    if sinks is not None:
        # From the larger of the two, lest the exponential of a high sink overflow.
        higher = ops.maximum(peak, ops.cast(sinks, peak.dtype))
        fading = ops.exp(peak - higher)
        whole = (alone * fading + ops.exp(sinks - higher)) / ops.maximum(fading, TINY)
    share = ops.where(empty, 0.0, 1.0 / ops.where(empty, 1.0, whole))
    entropy = (ops.log(ops.maximum(whole, TINY)) * alone - total(raised * shifted)) * share
    summed = ops.where(empty, float("-inf"), peak + ops.log(ops.maximum(alone, TINY)))
    largest, places = top(raised, top_k)
    return Weighed(
        found.block, raised, share, largest * share, places, (alone * share)[..., 0], entropy[..., 0], summed[..., 0]
    )


def of_softmax(
    call: AttentionCall, block: Block, logits: Any, empty: Any, top_k: int, passes: Passes = PASSES
) -> Weighed:
    """The same for a backend where each operation goes through memory: of the scores, no more is made than their softmax.

    A row's largest weight is the exponential of its largest score over their sum, from which that sum follows.

    Args:
        question: what is asked.
        tile: where the block lies.
        logits: (b, n, t, s), as low as can be where that is not permitted.
        empty: bool (b, n, t, 1), which rows permit nothing; None where each permits something.
        top_k: how many weights of each row.
        passes: the backend's.
    """
    raised = passes.softmax(logits)
    largest, places, peaks = passes.top(raised, top_k)
    average, logit = passes.logits(raised, logits, largest[..., :1], places[..., :1])
    summed = logit - ops.log(largest[..., :1])
    entropy, share = summed - average, None
    sinks = call.normalizer.sinks(block)
    if sinks is not None:
        above = ops.softplus(ops.cast(sinks, summed.dtype) - summed)
        share = ops.exp(-above)
        entropy = share * (entropy + above)
    if empty is not None:
        share = ops.where(empty, 0.0, ops.ones_like(summed) if share is None else share)
        summed, entropy = ops.where(empty, float("-inf"), summed), ops.where(empty, 0.0, entropy)
    mass = ops.ones_like(summed) if share is None else share
    largest = largest if share is None else largest * share
    return Weighed(block, raised, share, largest, places, mass[..., 0], entropy[..., 0], summed[..., 0], peaks)


def logits_of(call: AttentionCall, block: Block, query: Any, key: Any) -> Any:
    """What the exponentials of a block are taken of, (b, n, t, s), before the mask; not less than can be multiplied by 0."""
    logits = call.normalizer.logits(call.score(query, key, block=block), block=block)
    if type(call.score) is not Dot:
        logits = ops.maximum(logits, LOWEST)
    return ops.broadcast_to(
        logits, tuple(span.length for span in (block.batch, block.heads, block.rows, block.columns))
    )


def total(tensor: Any) -> Any:
    """The sum of each row (..., s), (..., 1)."""
    if keras.backend.backend() == "jax":
        # XLA does not vectorise a sum of what it computes on the way.
        return ops.matmul(tensor, ops.ones((ops.shape(tensor)[-1], 1), dtype=tensor.dtype))
    return ops.sum(tensor, axis=-1, keepdims=True)


def top(weights: Any, count: int, passes: Passes = PASSES) -> tuple[Any, Any]:
    """The largest `count` weights of each row (..., s), largest first, and their places, int32; weight 0 where s is less."""
    lead, columns = tuple(ops.shape(weights))[:-1], weights.shape[-1]
    some = smaller(count, ops.shape(weights)[-1])
    if columns is None or columns < LONG or columns < 4 * count * passes.group:
        values, places = ops.top_k(weights, some)
    else:
        values, places = top_of_groups(weights, count, passes)
    if columns is None or columns < count:
        missing = (*lead, count - some)
        values = ops.concatenate([values, ops.zeros(missing, values.dtype)], axis=-1)
        places = ops.concatenate([places, ops.zeros(missing, places.dtype)], axis=-1)
        values, places = (ops.reshape(tensor, (*lead, count)) for tensor in (values, places))
    return values, ops.cast(places, "int32")


def top_of_groups(weights: Any, count: int, passes: Passes) -> tuple[Any, Any]:
    """As `top`, by way of the largest weight of each group of keys.

    The largest `count` weights lie in the `count` groups with the largest maxima. A group is every so manieth key, because the
    maximum over an axis that is not the last is quicker to compute.
    """
    lead, columns = tuple(ops.shape(weights))[:-1], weights.shape[-1]
    group = passes.group
    groups = columns // group
    even = weights[..., : groups * group]
    peaks = ops.max(ops.reshape(even, (*lead, group, groups)), axis=-2)
    _, chosen = top(peaks, count, passes)
    # In the order of the keys, so that the first of equals comes first.
    chosen = ops.expand_dims(ops.sort(ops.cast(chosen, "int32"), axis=-1), -2)
    steps = ops.expand_dims(ops.arange(group, dtype="int32") * groups, -1)
    places = ops.reshape(chosen + steps, (*lead, group * count))
    if columns > groups * group:
        rest = ops.arange(groups * group, columns, dtype="int32")
        places = ops.concatenate([places, ops.broadcast_to(rest, (*lead, columns - groups * group))], axis=-1)
    values, order = ops.top_k(passes.picked(weights, places), count)
    return values, passes.picked(places, ops.cast(order, "int32"))
