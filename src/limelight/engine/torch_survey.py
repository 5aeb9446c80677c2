"""PyTorch: a survey, gathered block by block."""

import functools
from typing import Any

import torch

from limelight.engine import torch_rows
from limelight.engine.block import block, prepared
from limelight.engine.sizes import sizes
from limelight.engine.statistics import Plan, by_columns, said
from limelight.engine.torch_passes import TorchPasses
from limelight.engine.weighed import Weighed, logits_of, of_softmax, of_weights
from limelight.normalizers import LOWEST, Softmax
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
    rows, passes = room(question, value, plan, dtype), TorchPasses(plan, question.tile)
    received = query.new_zeros((*lead, plan.columns), dtype=dtype)
    sums, peaks = (query.new_zeros((*lead, plan.row_cells, plan.column_cells), dtype=dtype) for _ in range(2))
    for tile in torch_rows.tiles(question, sizes(question, size)):
        passes.begin(tile)
        part = torch_rows.parts(tile, query, key, key if value is None else value)
        if 1 < part[1].shape[1] < part[0].shape[1]:
            part = (part[0], *(one.repeat_interleave(part[0].shape[1] // one.shape[1], 1) for one in part[1:]))
        weighed = weights(question, tile, *part[:2], plan.top_k, passes)
        for name, one in said(weighed, None if value is None else part[2], plan, passes).items():
            here(rows[name], tile).copy_(one)
        gather(weighed, tile, plan, passes, received, sums, peaks)
    return rows, (received, sums, peaks)


def gather(weighed: Weighed, tile: Tile, plan: Plan, passes: TorchPasses, received: Any, sums: Any, peaks: Any) -> None:
    """Add what a block contributes to its keys and coarse blocks. The rows of each coarse block lie together."""
    received, sums, peaks = (tile.heads.of(tile.batch.of(one, 0), 1) for one in (received, sums, peaks))
    received = tile.columns.of(received, 2)
    for cells, mass, most in passes.columns(weighed):  # (b, n, count, s)
        received.add_(mass.sum(2))
        mass, most = (by_columns(one, tile, plan) for one in (mass, most))
        sums[:, :, cells].add_(mass.sum(-1))
        peaks[:, :, cells] = torch.maximum(peaks[:, :, cells], most.amax(-1))


def weights(question: Question, tile: Tile, query: Any, key: Any, top_k: int, passes: TorchPasses) -> Weighed:
    """The weights of a block. A mask is looked at only in those columns that it does not permit to all rows."""
    if not question.normalizer.exponential:
        return of_weights(block(question, tile, query, key), top_k)
    if question.score == Dot(scale=1.0) and question.normalizer == Softmax():
        logits = passes.product(query, widened(key))
    else:
        logits = logits_of(question, tile, query, key).contiguous()
    mask, columns = question.mask, tile.columns
    if mask is None:
        return of_softmax(question, tile, logits, None, top_k, passes)
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
    return of_softmax(question, tile, logits, empty, top_k, passes)


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
