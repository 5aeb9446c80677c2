"""PyTorch: blocks of whole rows, computed one after another and again in the backward pass."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from limelight.core.block import Block, Slice
from limelight.engine import partition
from limelight.engine.block_sizes import Sizes, sizes
from limelight.engine.call import AttentionCall
from limelight.engine.dense_block import block_weights, mixture

# From a question, a tile, the tile's queries (b, n, t, H), keys (b, k, s, H) and values: its output (b, n, t, V).
Compute = Callable[[AttentionCall, Block, Any, Any, Any], Any]


def output(call: AttentionCall, value: Any, *, size: int, dropout: float = 0.0, seed: Any = None) -> Any:
    """The output (B, N, T, V) of a prepared question for values (B, K, S, V), in blocks of about so many scores."""

    def compute(call: AttentionCall, block: Block, query: Any, key: Any, value: Any) -> Any:
        if 1 < key.shape[1] < query.shape[1]:
            key, value = (tensor.repeat_interleave(query.shape[1] // tensor.shape[1], 1) for tensor in (key, value))
        return mixture(block_weights(call, block, query, key).weights, value, block, dropout, seed)

    return by_blocks(call, value, compute, sizes(call, size))


def by_blocks(call: AttentionCall, value: Any, compute: Compute, sizes: Sizes) -> Any:
    """The output (B, N, T, V) of a prepared question, as `compute` has it for each block.

    Nothing of size T x S is kept for the gradient.
    """
    skeleton, tensors = partition.take(call)
    return Rows.apply(skeleton, call, compute, sizes, call.query, call.key, value, *tensors)


def tiles(call: AttentionCall, sizes: Sizes) -> Iterator[Block]:
    """The blocks: chosen examples, heads and rows, and the columns that these may attend to."""
    whole = call.block
    examples, heads, rows, columns = (span.total for span in (whole.batch, whole.heads, whole.rows, whole.columns))
    for example in range(0, examples, sizes.batch):
        batch = Slice(examples, example, min(sizes.batch, examples - example))
        for head in range(0, heads, sizes.heads):
            some = Slice(heads, head, min(sizes.heads, heads - head))
            for row in range(0, rows, sizes.rows):
                block = whole.replace(batch=batch, heads=some, rows=Slice(rows, row, min(sizes.rows, rows - row)))
                first, last = (0, columns) if call.mask is None else map(int, call.mask.kv_range(block))
                if (first, last) == (0, columns):
                    yield block
                elif first < last:
                    yield block.replace(columns=Slice(columns, first, last - first))


def parts(block: Block, query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
    """Views of a tile's queries, keys and values."""
    heads = block.heads
    group = heads.total // key.shape[1]
    kept = Slice(key.shape[1], heads.start // group, -(-heads.length // group))
    return (
        block.rows.of(heads.of(block.batch.of(query, 0), 1), 2),
        *(block.columns.of(kept.of(block.batch.of(tensor, 0), 1), 2) for tensor in (key, value)),
    )


class Rows(torch.autograd.Function):
    """The loop and its gradient. What is saved is what went in."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        skeleton: partition.Skeleton,
        call: AttentionCall,
        compute: Compute,
        sizes: Sizes,
        query: Any,
        key: Any,
        value: Any,
        *tensors: Any,
    ) -> Any:
        ctx.save_for_backward(query, key, value, *tensors)
        ctx.given = (skeleton, call, compute, sizes)
        found = value.new_zeros((*query.shape[:3], value.shape[-1]))
        with skeleton.filled(call, tensors) as asked:
            for block in tiles(asked, sizes):
                rows, _, _ = parts(block, found, key, value)
                rows.copy_(compute(asked, block, *parts(block, query, key, value)))
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        skeleton, call, compute, sizes = ctx.given
        saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[4:]
        sums = [torch.zeros_like(tensor) if wanted else None for tensor, wanted in zip(saved, needed, strict=True)]
        query, key, value, *tensors = saved
        leaves = [
            tensor.detach().requires_grad_() if total is not None else tensor
            for tensor, total in zip(tensors, sums[3:], strict=True)
        ]
        with torch.enable_grad(), skeleton.filled(call, leaves) as asked:
            for block in tiles(asked, sizes):
                views = [view.detach().requires_grad_() for view in parts(block, query, key, value)]
                rows, _, _ = parts(block, slope, key, value)
                found = compute(asked, block, *views)
                inputs = [*views, *leaves]
                totals = [*places(block, sums, saved), *sums[3:]]
                wanted = [index for index, total in enumerate(totals) if total is not None]
                given = torch.autograd.grad(
                    found, [inputs[index] for index in wanted], rows.to(found.dtype), allow_unused=True
                )
                for index, more in zip(wanted, given, strict=True):
                    if more is not None:
                        totals[index].add_(more)
        return None, None, None, None, *sums


def places(block: Block, sums: list[Any], saved: Any) -> list[Any]:
    """Views of the sums of gradients by queries, keys and values where a tile adds to them; None where none is wanted."""
    given = [tensor if total is None else total for tensor, total in zip(saved[:3], sums[:3], strict=True)]
    return [None if total is None else view for total, view in zip(sums[:3], parts(block, *given), strict=True)]
