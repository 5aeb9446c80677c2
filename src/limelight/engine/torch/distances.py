"""PyTorch: how far queries are from the keys that they attend to."""

from typing import Any

import torch

from limelight.core.block import Block
from limelight.engine import placement
from limelight.engine.reductions import LONG
from limelight.engine.statistics import Plan, positions
from limelight.engine.torch.softmax import Scratch

# So many rows at a time: each is compared with as many columns one by one.
RUN = 128


class Distances:
    """Mean distances of queries and the keys that they attend to.

    Args:
        tile: where all blocks lie.
        plan: what the survey is to hold.
        like: a tensor of the dtype and on the device of the weights.
    """

    def __init__(self, block: Block, plan: Plan, like: Any) -> None:
        self.plan = plan
        given = block.given_query_positions is not None or block.given_key_positions is not None
        self.align = plan.align or (None if given else "end")
        shift = plan.columns - plan.rows if self.align == "end" else 0
        # Up to 16 million all are exact in float32.
        self.low, self.shift = min(0, shift), shift
        high = max(plan.columns, plan.rows + shift)
        self.index = torch.arange(self.low, high, dtype=like.dtype, device=like.device)

    def sums(self, block: Block, weights: Any, scratch: Scratch) -> Any:
        """The sum of each row of numbers (b, n, t, s) times the distances, (b, n, t, 1)."""
        rows, columns = weights.shape[2:]
        if self.align is None:
            queries, keys, place = positions(block, self.plan, weights.dtype)
        else:
            place = block.rows.start + self.shift - block.columns.start
            queries = self.index[block.rows.start + self.shift - self.low :][:rows, None]
            keys = self.index[block.columns.start - self.low :][:columns]
        few = RUN if weights.shape[:2] == (1, 1) and not placement.accelerated(weights) else rows
        known = columns >= max(LONG, 2 * few) and not placement.accelerated(weights)
        found = []
        for begin in range(0, rows, few):
            some, here = weights[:, :, begin : begin + few], queries[..., begin : begin + few, :]
            if known and place is not None:
                found.append(by_sides(some, here, keys, place + begin, scratch))
            else:
                found.append(one_by_one(some, here, keys, scratch))
        return torch.cat(found, 2)


def one_by_one(weights: Any, queries: Any, keys: Any, scratch: Scratch) -> Any:
    """The sum of each row of numbers (b, n, t, s) times the distances of positions (..., t, 1) and (..., s), (b, n, t, 1)."""
    # The scores are needed no more, but the weights of one head may have been put in their place.
    name = "scores" if weights.shape[1] > 1 else "distances"
    distances = scratch.room(name, weights.shape, weights)
    torch.sub(queries.expand(*weights.shape[:-1], 1), keys, out=distances)
    return distances.abs_().mul_(weights).sum(-1, keepdim=True)


def by_sides(weights: Any, queries: Any, keys: Any, place: int, scratch: Scratch) -> Any:
    """The same for positions (t, 1) and (s,) that are counted one by one.

    Of all columns but those beside the rows it is known whether they lie before or after: there a distance is a difference, and
    its average a difference of averages, which are products with a number for each column.

    Args:
        place: the column at the position of the first row, if there were one.
    """
    rows, columns = weights.shape[2:]
    first = min(max(place, 0), columns - rows)
    beside, middle = slice(first, first + rows), queries[rows // 2, 0]
    sides = scratch.room("sides", (2, columns), weights)
    torch.sub(keys, middle, out=sides[0])
    sides[1] = 1.0
    sides[:, :first].neg_()
    sides[:, beside] = 0.0
    products = torch.mm(weights.reshape(-1, columns), sides.T).view(*weights.shape[:-1], 2)
    near = (weights[..., beside] * (queries - keys[beside]).abs()).sum(-1, keepdim=True)
    return products[..., :1] - (queries - middle) * products[..., 1:] + near
