"""PyTorch: a survey, gathered block by block."""

import functools
from typing import Any

import torch

from limelight.engine import torch_rows
from limelight.engine.block import prepared
from limelight.engine.sizes import sizes
from limelight.engine.statistics import Plan, cell_of, gathered, said, scored
from limelight.product import wide
from limelight.question import Question


@torch.no_grad()
def taken(
    question: Question, value: Any = None, *, size: int, top_k: int, cells: int, align: str | None
) -> tuple[dict[str, Any], tuple[Any, Any, Any]]:
    """What there is to say of each row, by name, and of keys and coarse blocks; in blocks of about so many scores."""
    question, plan = prepared(question), Plan.of(question, top_k, cells, align)
    query, key = question.query, question.key
    lead = tuple(query.shape[:2])
    dtype = getattr(torch, wide(query.dtype))
    rows = room(question, value, plan, dtype)
    received = query.new_zeros((*lead, plan.columns), dtype=dtype)
    sums, peaks = (query.new_zeros((*lead, plan.row_cells, plan.column_cells), dtype=dtype) for _ in range(2))
    for tile in torch_rows.tiles(question, sizes(question, size)):
        part = torch_rows.parts(tile, query, key, key if value is None else value)
        if 1 < part[1].shape[1] < part[0].shape[1]:
            part = (part[0], *(one.repeat_interleave(part[0].shape[1] // one.shape[1], 1) for one in part[1:]))
        found, weighed = said(question, scored(question, tile, *part[:2]), None if value is None else part[2], plan)
        for name, one in found.items():
            here(rows[name], tile).copy_(one)
        first, last = (
            cell_of(row, plan.rows, plan.row_cells) for row in (tile.rows.start, tile.rows.start + tile.rows.length - 1)
        )
        mass, means, most = gathered(weighed, tile, None, last - first + 1, plan)
        tile.columns.of(tile.heads.of(tile.batch.of(received, 0), 1), 2).add_(mass)
        tile.heads.of(tile.batch.of(sums, 0), 1)[:, :, first : last + 1].add_(means)
        cell = tile.heads.of(tile.batch.of(peaks, 0), 1)[:, :, first : last + 1]
        cell.copy_(torch.maximum(cell, most))
    return rows, (received, sums, peaks)


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
