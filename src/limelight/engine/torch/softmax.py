"""PyTorch: what the softmax of a block says of its rows, in memory that is there already."""

import dataclasses
import math
from typing import Any

import torch

from limelight.core.block import Block
from limelight.engine.reductions import LONG, Weighed
from limelight.normalizers import inner

# How many keys make a group among which the largest weight is looked for.
GROUP = 8


class Scratch:
    """Memory that is there already: fresh memory takes longer to get than to fill."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def room(self, name: str, shape: Any, like: Any) -> Any:
        """Memory of a shape, which has what was last written there under the name."""
        count = math.prod(shape)
        if name not in self.kept or self.kept[name].numel() < count:
            self.kept[name] = torch.empty(count, dtype=like.dtype, device=like.device)
        return self.kept[name][:count].view(shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Softmaxed:
    """The softmax of a block and what was seen on the way.

    Args:
        raised: the weights, (b, n, t, s).
        highest: the largest logit of each row, (b, n, t, 1).
        average: the average of each row's logits, (b, n, t, 1).
        peaks: the largest weight of every so manieth key, (b, n, t, groups), where it is known.
        columns: sums and maxima of the weights of each column in pieces of rows, (b, n, pieces, s) each, where they are known.
    """

    raised: Any
    highest: Any
    average: Any
    peaks: Any = None
    columns: tuple[Any, Any] | None = None


def whole(logits: Any, scratch: Scratch) -> Softmaxed:
    """The softmax of logits (b, n, t, s), which are not needed any more afterwards."""
    raised = scratch.room("weights", logits.shape, logits)
    with inner():
        torch.softmax(logits, -1, out=raised)
    return Softmaxed(raised, logits.amax(-1, keepdim=True), logits.mul_(raised).sum(-1, keepdim=True))


def by_strips(logits: Any, pieces: list[slice], most: int, scratch: Scratch) -> Softmaxed:
    """The softmax of the rows of one head: one strip after another, so that a cache has what each operation goes over.

    Args:
        logits: (rows, s), in the place of which the weights are put.
        pieces: runs of rows that make up the block.
        most: how many rows a strip has at most.
        scratch: memory.
    """
    rows, columns = logits.shape
    groups = columns // GROUP
    even = logits[:, : groups * GROUP].unflatten(-1, (GROUP, groups))
    highest, average = logits.new_empty((2, 1, 1, rows, 1)).unbind()
    peaks = scratch.room("peaks", (1, 1, rows, groups), logits)
    sums, largest = logits.new_zeros((2, 1, 1, len(pieces), columns)).unbind()
    for number, piece in enumerate(pieces):
        mass, high = sums[0, 0, number], largest[0, 0, number]
        for begin in range(piece.start, piece.stop, most):
            here = slice(begin, min(begin + most, piece.stop))
            some = logits[here]
            strip = scratch.room("strip", some.shape, some)
            with inner():
                torch.softmax(some, -1, out=strip)
            torch.amax(some, -1, out=highest[0, 0, here, 0])
            torch.sum(some.mul_(strip), -1, out=average[0, 0, here, 0])
            some.copy_(strip)
            torch.amax(even[here], -2, out=peaks[0, 0, here])
            mass += strip.sum(0)
            torch.maximum(high, strip.amax(0), out=high)
    return Softmaxed(logits[None, None], highest, average, peaks, (sums, largest))


def weighed(block: Block, found: Softmaxed, empty: Any, sinks: Any, top_k: int) -> Weighed:
    """What the weights of a block say of each row.

    A row's largest weight is the exponential of its largest score over their sum, from which that sum follows.

    Args:
        tile: where the block lies.
        found: its weights.
        empty: bool (b, n, t, 1), which rows permit nothing; None where each permits something.
        sinks: scores of what takes weight and gives nothing, broadcastable to (b, n, t, 1), or None.
        top_k: how many weights of each row, where there are as many.
    """
    largest, places = top(found.raised, min(top_k, found.raised.shape[-1]), found.peaks)
    summed = found.highest - largest[..., :1].log()
    entropy, share = summed - found.average, None
    if sinks is not None:
        above = torch.nn.functional.softplus(sinks - summed)
        share = torch.exp(-above)
        entropy = share * (entropy + above)
    if empty is not None:
        share = (torch.ones_like(summed) if share is None else share).masked_fill(empty, 0.0)
        summed, entropy = summed.masked_fill(empty, float("-inf")), entropy.masked_fill(empty, 0.0)
    mass = torch.ones_like(summed) if share is None else share
    largest = largest if share is None else largest * share
    return Weighed(block, found.raised, share, largest, places, mass[..., 0], entropy[..., 0], summed[..., 0])


def top(weights: Any, count: int, peaks: Any = None) -> tuple[Any, Any]:
    """The largest weights of each row (..., s), largest first, and their places, the first of equals first.

    The largest `count` weights lie in the `count` groups with the largest maxima. A group is every so manieth key, because the
    maximum over an axis that is not the last is quicker to compute. Those maxima may be known.
    """
    columns = weights.shape[-1]
    if columns < max(LONG, 4 * count * GROUP):
        return weights.topk(count)
    groups = columns // GROUP
    if peaks is None:
        peaks = weights[..., : groups * GROUP].unflatten(-1, (GROUP, groups)).amax(-2)
    # In the order of the keys, so that the first of equals comes first.
    chosen = top(peaks, count)[1].sort().values
    steps = torch.arange(0, GROUP * groups, groups, device=weights.device)[:, None]
    places = (chosen[..., None, :] + steps).flatten(-2)
    if columns > groups * GROUP:
        rest = torch.arange(groups * GROUP, columns, device=weights.device)
        places = torch.cat([places, rest.expand(*places.shape[:-1], -1)], -1)
    largest, order = weights.gather(-1, places).topk(count)
    return largest, places.gather(-1, order)
