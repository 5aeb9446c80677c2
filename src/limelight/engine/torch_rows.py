"""PyTorch: blocks of whole rows, computed one after another and again in the backward pass."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from limelight.engine import held
from limelight.engine.block import block, mixture
from limelight.engine.sizes import Sizes, sizes
from limelight.question import Question
from limelight.tile import Span, Tile

# From a question, a tile, the tile's queries (b, n, t, H), keys (b, k, s, H) and values: its output (b, n, t, V).
Compute = Callable[[Question, Tile, Any, Any, Any], Any]


def output(question: Question, value: Any, *, size: int, dropout: float = 0.0, seed: Any = None) -> Any:
    """The output (B, N, T, V) of a prepared question for values (B, K, S, V), in blocks of about so many scores."""

    def compute(question: Question, tile: Tile, query: Any, key: Any, value: Any) -> Any:
        if 1 < key.shape[1] < query.shape[1]:
            key, value = (tensor.repeat_interleave(query.shape[1] // tensor.shape[1], 1) for tensor in (key, value))
        return mixture(block(question, tile, query, key).weights, value, tile, dropout, seed)

    return by_blocks(question, value, compute, sizes(question, size))


def by_blocks(question: Question, value: Any, compute: Compute, sizes: Sizes) -> Any:
    """The output (B, N, T, V) of a prepared question, as `compute` has it for each block.

    Nothing of size T x S is kept for the gradient.
    """
    skeleton, tensors = held.take(question)
    return Rows.apply(skeleton, question, compute, sizes, question.query, question.key, value, *tensors)


def tiles(question: Question, sizes: Sizes) -> Iterator[Tile]:
    """The blocks: chosen examples, heads and rows, and the columns that these may attend to."""
    whole = question.tile
    examples, heads, rows, columns = (span.total for span in (whole.batch, whole.heads, whole.rows, whole.columns))
    for example in range(0, examples, sizes.batch):
        batch = Span(examples, example, min(sizes.batch, examples - example))
        for head in range(0, heads, sizes.heads):
            some = Span(heads, head, min(sizes.heads, heads - head))
            for row in range(0, rows, sizes.rows):
                tile = whole.replace(batch=batch, heads=some, rows=Span(rows, row, min(sizes.rows, rows - row)))
                first, last = (0, columns) if question.mask is None else map(int, question.mask.columns(tile))
                if (first, last) == (0, columns):
                    yield tile
                elif first < last:
                    yield tile.replace(columns=Span(columns, first, last - first))


def parts(tile: Tile, query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
    """Views of a tile's queries, keys and values."""
    heads = tile.heads
    group = heads.total // key.shape[1]
    kept = Span(key.shape[1], heads.start // group, -(-heads.length // group))
    return (
        tile.rows.of(heads.of(tile.batch.of(query, 0), 1), 2),
        *(tile.columns.of(kept.of(tile.batch.of(tensor, 0), 1), 2) for tensor in (key, value)),
    )


class Rows(torch.autograd.Function):
    """The loop and its gradient. What is saved is what went in."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        skeleton: held.Skeleton,
        question: Question,
        compute: Compute,
        sizes: Sizes,
        query: Any,
        key: Any,
        value: Any,
        *tensors: Any,
    ) -> Any:
        ctx.save_for_backward(query, key, value, *tensors)
        ctx.given = (skeleton, question, compute, sizes)
        found = value.new_zeros((*query.shape[:3], value.shape[-1]))
        with skeleton.filled(question, tensors) as asked:
            for tile in tiles(asked, sizes):
                rows, _, _ = parts(tile, found, key, value)
                rows.copy_(compute(asked, tile, *parts(tile, query, key, value)))
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        skeleton, question, compute, sizes = ctx.given
        saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[4:]
        sums = [torch.zeros_like(tensor) if wanted else None for tensor, wanted in zip(saved, needed, strict=True)]
        query, key, value, *tensors = saved
        leaves = [
            tensor.detach().requires_grad_() if total is not None else tensor
            for tensor, total in zip(tensors, sums[3:], strict=True)
        ]
        with torch.enable_grad(), skeleton.filled(question, leaves) as asked:
            for tile in tiles(asked, sizes):
                views = [view.detach().requires_grad_() for view in parts(tile, query, key, value)]
                rows, _, _ = parts(tile, slope, key, value)
                found = compute(asked, tile, *views)
                inputs = [*views, *leaves]
                totals = [*places(tile, sums, saved), *sums[3:]]
                wanted = [index for index, total in enumerate(totals) if total is not None]
                given = torch.autograd.grad(
                    found, [inputs[index] for index in wanted], rows.to(found.dtype), allow_unused=True
                )
                for index, more in zip(wanted, given, strict=True):
                    if more is not None:
                        totals[index].add_(more)
        return None, None, None, None, *sums


def places(tile: Tile, sums: list[Any], saved: Any) -> list[Any]:
    """Views of the sums of gradients by queries, keys and values where a tile adds to them; None where none is wanted."""
    given = [tensor if total is None else total for tensor, total in zip(saved[:3], sums[:3], strict=True)]
    return [None if total is None else view for total, view in zip(sums[:3], parts(tile, *given), strict=True)]
