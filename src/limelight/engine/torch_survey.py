"""PyTorch: a survey, gathered block by block."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch

from limelight.engine import devices, torch_rows
from limelight.engine.block import block, prepared
from limelight.engine.sizes import sizes
from limelight.engine.statistics import Plan, by_columns, cell_of, said
from limelight.engine.weighed import LONG, Passes, Weighed, logits_of, of_softmax, of_weights
from limelight.normalizers import LOWEST, Softmax, inner
from limelight.product import wide, widened
from limelight.question import Question
from limelight.scores import Dot
from limelight.tile import Span, Tile


@torch.no_grad()
def taken(
    question: Question, value: Any = None, *, size: int, top_k: int, cells: int, align: str | None
) -> tuple[dict[str, Any], tuple[Any, Any, Any]]:
    """What there is to say of each row, by name, and of keys and coarse blocks; in blocks of about so many scores."""
    question, plan = prepared(question), Plan.of(question, top_k, cells, align)
    query, key = question.query, question.key
    lead = tuple(query.shape[:2])
    dtype = getattr(torch, wide(query.dtype))
    rows, scratch = room(question, value, plan, dtype), Scratch()
    received = query.new_zeros((*lead, plan.columns), dtype=dtype)
    sums, peaks = (query.new_zeros((*lead, plan.row_cells, plan.column_cells), dtype=dtype) for _ in range(2))
    for tile in torch_rows.tiles(question, sizes(question, size)):
        part = torch_rows.parts(tile, query, key, key if value is None else value)
        if 1 < part[1].shape[1] < part[0].shape[1]:
            part = (part[0], *(one.repeat_interleave(part[0].shape[1] // one.shape[1], 1) for one in part[1:]))
        weighed = weights(question, tile, *part[:2], plan.top_k, scratch)
        for name, one in said(weighed, None if value is None else part[2], plan, scratch).items():
            here(rows[name], tile).copy_(one)
        gather(weighed, tile, plan, received, sums, peaks)
    return rows, (received, sums, peaks)


def gather(weighed: Weighed, tile: Tile, plan: Plan, received: Any, sums: Any, peaks: Any) -> None:
    """Add what a block contributes to its keys and coarse blocks. The rows of each coarse block lie together."""
    received, sums, peaks = (tile.heads.of(tile.batch.of(one, 0), 1) for one in (received, sums, peaks))
    received = tile.columns.of(received, 2)
    for cells, rows, count in cut(tile, plan, weighed.raised):
        some, share = weighed.raised[:, :, rows].unflatten(2, (count, -1)), weighed.share
        if share is not None:
            some = some * share[:, :, rows].unflatten(2, (count, -1))
        mass, most = some.sum(-2), some.amax(-2)  # (b, n, count, s)
        received.add_(mass.sum(2))
        mass, most = (by_columns(one, tile, plan) for one in (mass, most))
        sums[:, :, cells].add_(mass.sum(-1))
        peaks[:, :, cells] = torch.maximum(peaks[:, :, cells], most.amax(-1))


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


class Scratch(Passes):
    """The passes over a block in memory that is there already: fresh memory takes longer to get than to fill."""

    group = 8

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

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
        with inner():
            return torch.softmax(logits, -1, out=self.room("weights", logits.shape, logits))

    def averages(self, raised: Any, logits: Any) -> Any:
        return torch.mul(raised, logits, out=self.room("scores", raised.shape, raised)).sum(-1, keepdim=True)

    def top(self, weights: Any, count: int) -> tuple[Any, Any, Any]:
        columns = weights.shape[-1]
        if columns < max(LONG, 4 * count * self.group):
            return super().top(weights, count)
        groups = columns // self.group
        peaks = weights[..., : groups * self.group].unflatten(-1, (self.group, groups)).amax(-2)
        chosen = self.top(peaks, count)[1].sort().values
        places = chosen[..., None, :] + groups * torch.arange(self.group, device=weights.device)[:, None]
        places = places.flatten(-2)
        if columns > groups * self.group:
            rest = torch.arange(groups * self.group, columns, device=weights.device)
            places = torch.cat([places, rest.expand(*places.shape[:-1], -1)], -1)
        largest, order = weights.gather(-1, places).topk(count)
        return largest, places.gather(-1, order), None

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
        offsets, counts = (
            torch.mv(raised.reshape(-1, columns), one).view(*raised.shape[:-1], 1)
            for one in (side * (keys - middle), side)
        )
        beside = slice(first, first + rows)
        near = (raised[..., beside] * (queries - keys[beside]).abs()).sum(-1, keepdim=True)
        return offsets - (queries - middle) * counts + near


def weights(question: Question, tile: Tile, query: Any, key: Any, top_k: int, scratch: Scratch) -> Weighed:
    """The weights of a block. A mask is looked at only in those columns that it does not permit to all rows."""
    if not question.normalizer.exponential:
        return of_weights(block(question, tile, query, key), top_k)
    if question.score == Dot(scale=1.0) and question.normalizer == Softmax():
        logits = scratch.product(query, widened(key))
    else:
        logits = logits_of(question, tile, query, key).contiguous()
    mask, columns = question.mask, tile.columns
    if mask is None:
        return of_softmax(question, tile, logits, None, top_k, scratch)
    begin, end = (int(bound) - columns.start for bound in mask.full(tile))
    begin = min(max(begin, 0), columns.length)
    end = min(max(end, begin), columns.length)
    some = torch.full((), begin < end, device=logits.device)
    for first, last in ((0, begin), (end, columns.length)):
        if first < last:
            permitted = mask(tile.replace(columns=Span(columns.total, columns.start + first, last - first)))
            logits[..., first:last].masked_fill_(~permitted, LOWEST)
            some = some | permitted.any(-1, keepdim=True)
    empty = None if bool(some.all()) else ~some
    return of_softmax(question, tile, logits, empty, top_k, scratch)


def room(question: Question, value: Any, plan: Plan, dtype: Any) -> dict[str, Any]:
    """Room for what is said of all rows, (B, N, T, ...), filled with what is said of those that may attend to nothing."""
    shape = tuple(question.query.shape[:3])
    nothing = float("-inf" if question.normalizer.exponential else "nan")
    make = functools.partial(torch.full, dtype=dtype, device=question.query.device)
    found = {
        **{name: make(shape, 0.0) for name in ("entropy", "distance", "mass")},
        "logsumexp": make(shape, nothing),
        "top_keys": make((*shape, plan.top_k), -1, dtype=torch.int32),
        "top_weights": make((*shape, plan.top_k), 0.0),
    }
    return found if value is None else {**found, "output": make((*shape, value.shape[-1]), 0.0, dtype=value.dtype)}


def here(tensor: Any, tile: Any) -> Any:
    """The view of a tensor (B, N, T, ...) at the rows of a tile."""
    return tile.rows.of(tile.heads.of(tile.batch.of(tensor, 0), 1), 2)
