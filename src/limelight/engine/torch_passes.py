"""PyTorch: the passes over a block of a survey, in memory that is there already, and while a cache has what they go over."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch

from limelight.engine import devices, limits
from limelight.engine.statistics import Plan, cell_of
from limelight.engine.weighed import LONG, Passes, Weighed
from limelight.normalizers import inner
from limelight.tile import Tile

# Of the rows of some coarse blocks that lie together: which these are, and the sum and maximum of each column, (b, n, count, s).
Columns = tuple[slice, Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """What was found on the way, while the weights of a block were computed strip by strip.

    Args:
        average: the average of each row's logits, (b, n, t, 1).
        peaks: the largest weight of every so manieth key, (b, n, t, groups).
        columns: of the coarse blocks of rows.
    """

    average: Any
    peaks: Any
    columns: Columns


class TorchPasses(Passes):
    """The passes, in memory that is there already: fresh memory takes longer to get than to fill.

    Args:
        plan: what the survey is to hold.
        tile: where the first block lies, or all of them.
    """

    group = 8

    def __init__(self, plan: Plan, tile: Tile) -> None:
        self.plan, self.tile = plan, tile
        self.kept: dict[str, Any] = {}
        self.seen: Seen | None = None

    def begin(self, tile: Tile) -> None:
        """Say where the block lies that comes next."""
        self.tile, self.seen = tile, None

    def room(self, name: str, shape: Any, like: Any) -> Any:
        """Memory of a shape, which has what was last written there under the name."""
        count = math.prod(shape)
        if name not in self.kept or self.kept[name].numel() < count:
            self.kept[name] = torch.empty(count, dtype=like.dtype, device=like.device)
        return self.kept[name][:count].view(shape)

    def product(self, query: Any, key: Any) -> Any:
        """Products of queries (b, n, t, H) and keys (b, k, s, H), where k is n or 1, (b, n, t, s)."""
        shape = (*query.shape[:3], key.shape[2])
        found = self.room("scores", shape, query)
        key = key.expand(*query.shape[:2], -1, -1).flatten(0, 1).transpose(1, 2)
        torch.bmm(query.flatten(0, 1), key, out=found.view(-1, *shape[2:]))
        return found

    def softmax(self, logits: Any) -> Any:
        weights = self.room("weights", logits.shape, logits)
        with inner():
            if logits.shape[:2] == (1, 1) and logits.shape[-1] >= LONG and not devices.accelerated(logits):
                self.seen = self.by_strips(logits, weights)
            else:
                torch.softmax(logits, -1, out=weights)
        return weights

    def by_strips(self, logits: Any, weights: Any) -> Seen:
        """The softmax of the rows of one head, and what there is to be seen of each strip of them while it is at hand."""
        rows, columns = logits.shape[2:]
        logits, weights = logits.view(rows, columns), weights.view(rows, columns)
        groups, most = columns // self.group, max(1, limits.current(logits).strip // columns)
        average = logits.new_empty((1, 1, rows, 1))
        peaks = self.room("peaks", (1, 1, rows, groups), logits)
        even = weights[:, : groups * self.group].unflatten(-1, (self.group, groups))
        pieces = list(cut(self.tile, self.plan, logits))
        sums, largest = logits.new_zeros((2, len(pieces), columns)).unbind()
        for (_, within, _), mass, high in zip(pieces, sums.unbind(), largest.unbind(), strict=True):
            for begin in range(within.start, within.stop, most):
                here = slice(begin, min(begin + most, within.stop))
                some, raised = logits[here], weights[here]
                torch.softmax(some, -1, out=raised)
                torch.amax(even[here], -2, out=peaks[0, 0, here])
                product = torch.mul(raised, some, out=self.room("strip", some.shape, some))
                torch.sum(product, -1, out=average[0, 0, here, 0])
                mass += raised.sum(0)
                torch.maximum(high, raised.amax(0), out=high)
        cells = slice(pieces[0][0].start, pieces[-1][0].stop)
        return Seen(average, peaks, (cells, sums[None, None], largest[None, None]))

    def averages(self, raised: Any, logits: Any) -> Any:
        if self.seen is not None:
            return self.seen.average
        return torch.mul(raised, logits, out=self.room("scores", raised.shape, raised)).sum(-1, keepdim=True)

    def top(self, weights: Any, count: int) -> tuple[Any, Any, Any]:
        return *self.searched(weights, count, None if self.seen is None else self.seen.peaks), None

    def searched(self, weights: Any, count: int, peaks: Any = None) -> tuple[Any, Any]:
        """The largest weights and their places, by way of the largest of each group, which may be known."""
        columns = weights.shape[-1]
        if columns < max(LONG, 4 * count * self.group):
            return super().top(weights, count)[:2]
        groups = columns // self.group
        if peaks is None:
            peaks = weights[..., : groups * self.group].unflatten(-1, (self.group, groups)).amax(-2)
        chosen = self.searched(peaks, count)[1].sort().values
        places = chosen[..., None, :] + groups * torch.arange(self.group, device=weights.device)[:, None]
        places = places.flatten(-2)
        if columns > groups * self.group:
            rest = torch.arange(groups * self.group, columns, device=weights.device)
            places = torch.cat([places, rest.expand(*places.shape[:-1], -1)], -1)
        largest, order = weights.gather(-1, places).topk(count)
        return largest, places.gather(-1, order)

    def picked(self, rows: Any, places: Any) -> Any:
        return rows.gather(-1, places.long())

    def apart(self, raised: Any, queries: Any, keys: Any, place: Any) -> Any:
        rows, columns = raised.shape[2:]
        if place is None or columns < max(LONG, 2 * rows) or devices.accelerated(raised):
            queries = queries.expand(*raised.shape[:-1], 1)
            distances = torch.sub(queries, keys, out=self.room("scores", raised.shape, raised))
            return distances.abs_().mul_(raised).sum(-1, keepdim=True)
        # Of all columns but those beside the rows it is known whether they lie before or after: there a distance is a
        # difference, and its average a difference of averages, which are products with a number for each column.
        first = min(max(int(place), 0), columns - rows)
        index, middle = torch.arange(columns), queries.mean()
        side = (index >= first + rows).to(raised.dtype) - (index < first).to(raised.dtype)
        products = torch.mm(raised.reshape(-1, columns), torch.stack([side * (keys - middle), side]).T)
        offsets, counts = products.view(*raised.shape[:-1], 2).split(1, -1)
        beside = slice(first, first + rows)
        near = (raised[..., beside] * (queries - keys[beside]).abs()).sum(-1, keepdim=True)
        return offsets - (queries - middle) * counts + near

    def columns(self, weighed: Weighed) -> Iterator[Columns]:
        """The sums and maxima of the columns of a block, the rows of each coarse block together."""
        share = weighed.share
        if self.seen is not None and share is None:
            yield self.seen.columns
            return
        for cells, rows, count in cut(weighed.tile, self.plan, weighed.raised):
            some = weighed.raised[:, :, rows].unflatten(2, (count, -1))
            if share is not None:
                some = some * share[:, :, rows].unflatten(2, (count, -1))
            yield cells, some.sum(-2), some.amax(-2)


def cut(tile: Tile, plan: Plan, like: Any) -> Iterator[tuple[slice, slice, int]]:
    """Coarse blocks of rows, which rows of a tile lie in them, and how many they are: one at a time, which fits a cache; on an
    accelerator all at once, where they are equally long and none goes on in another tile."""
    begin, end, edges = tile.rows.start, tile.rows.start + tile.rows.length, plan.edges[0]
    first, last = (cell_of(row, plan.rows, plan.row_cells) for row in (begin, end - 1))
    long = plan.rows // plan.row_cells
    if devices.accelerated(like) and plan.rows % plan.row_cells == 0 and begin % long == 0 and end % long == 0:
        yield slice(first, last + 1), slice(None), last + 1 - first
        return
    for cell in range(first, last + 1):
        rows = slice(max(int(edges[cell]), begin) - begin, min(int(edges[cell + 1]), end) - begin)
        yield slice(cell, cell + 1), rows, 1
