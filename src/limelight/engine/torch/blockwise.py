"""PyTorch: blocks of whole rows, computed one after another and again in the backward pass."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from limelight.core.block import Block, Slice
from limelight.engine.call import AttentionCall
from limelight.engine.dense import apply_weights, compute_block_weights
from limelight.engine.partition import StaticParts, combine, partition
from limelight.engine.thresholds import BlockSizes, choose_block_sizes

# A function of a call, a block, and the block's queries (b, n, t, H), keys (b, k, s, H) and values, to its output (b, n, t, V).
Compute = Callable[[AttentionCall, Block, Any, Any, Any], Any]


def compute_output(
    call: AttentionCall, value: Any, *, scores_per_block: int, dropout: float = 0.0, seed: Any = None
) -> Any:
    """Compute the output (B, N, T, V) of a prepared call for values (B, K, S, V), in blocks of about so many scores."""

    def compute(call: AttentionCall, block: Block, query: Any, key: Any, value: Any) -> Any:
        if 1 < key.shape[1] < query.shape[1]:
            key, value = (tensor.repeat_interleave(query.shape[1] // tensor.shape[1], 1) for tensor in (key, value))
        weights = compute_block_weights(call, block, query, key).weights
        return apply_weights(weights, value, block, dropout, seed)

    return map_blocks(call, value, compute, choose_block_sizes(call, scores_per_block))


def map_blocks(call: AttentionCall, value: Any, compute: Compute, sizes: BlockSizes) -> Any:
    """Compute the output (B, N, T, V) of a prepared call, each block by `compute`.

    Nothing of size T x S is kept for the gradient.
    """
    static, tensors = partition(call)
    return MapBlocks.apply(static, call, compute, sizes, call.query, call.key, value, *tensors)


def iterate_blocks(call: AttentionCall, sizes: BlockSizes) -> Iterator[Block]:
    """Yield the blocks of some examples, heads and rows, with the columns that these may attend to."""
    full = call.block
    examples, heads, rows, columns = (part.total for part in (full.batch, full.heads, full.rows, full.columns))
    for example in range(0, examples, sizes.batch):
        for head in range(0, heads, sizes.heads):
            for row in range(0, rows, sizes.rows):
                block = full.replace(
                    batch=Slice(examples, example, min(sizes.batch, examples - example)),
                    heads=Slice(heads, head, min(sizes.heads, heads - head)),
                    rows=Slice(rows, row, min(sizes.rows, rows - row)),
                )
                first, last = (0, columns) if call.mask is None else map(int, call.mask.kv_range(block))
                if (first, last) == (0, columns):
                    yield block
                elif first < last:
                    yield block.replace(columns=Slice(columns, first, last - first))


def slice_block(block: Block, query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
    """Return views of a block's queries, keys and values."""
    heads = block.heads
    heads_per_key = heads.total // key.shape[1]
    key_heads = Slice(key.shape[1], heads.start // heads_per_key, -(-heads.length // heads_per_key))
    return (
        block.rows.take(heads.take(block.batch.take(query, 0), 1), 2),
        *(block.columns.take(key_heads.take(block.batch.take(tensor, 0), 1), 2) for tensor in (key, value)),
    )


class MapBlocks(torch.autograd.Function):
    """The loop over blocks and its gradient. Only the inputs are saved."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        static: StaticParts,
        call: AttentionCall,
        compute: Compute,
        sizes: BlockSizes,
        query: Any,
        key: Any,
        value: Any,
        *tensors: Any,
    ) -> Any:
        ctx.save_for_backward(query, key, value, *tensors)
        ctx.settings = (static, call, compute, sizes)
        output = value.new_zeros((*query.shape[:3], value.shape[-1]))
        with combine(static, tensors, call) as combined:
            for block in iterate_blocks(combined, sizes):
                rows, _, _ = slice_block(block, output, key, value)
                rows.copy_(compute(combined, block, *slice_block(block, query, key, value)))
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        static, call, compute, sizes = ctx.settings
        saved = ctx.saved_tensors
        totals = [
            torch.zeros_like(tensor) if needed else None
            for tensor, needed in zip(saved, ctx.needs_input_grad[4:], strict=True)
        ]
        query, key, value, *tensors = saved
        leaves = [
            tensor if total is None else tensor.detach().requires_grad_()
            for tensor, total in zip(tensors, totals[3:], strict=True)
        ]
        with torch.enable_grad(), combine(static, leaves, call) as combined:
            for block in iterate_blocks(combined, sizes):
                views = [view.detach().requires_grad_() for view in slice_block(block, query, key, value)]
                grad_rows, _, _ = slice_block(block, grad_output, key, value)
                rows = compute(combined, block, *views)
                inputs = [*views, *leaves]
                block_totals = [*slice_totals(block, totals, saved), *totals[3:]]
                needed = [index for index, total in enumerate(block_totals) if total is not None]
                gradients = torch.autograd.grad(
                    rows, [inputs[index] for index in needed], grad_rows.to(rows.dtype), allow_unused=True
                )
                for index, gradient in zip(needed, gradients, strict=True):
                    if gradient is not None:
                        block_totals[index].add_(gradient)
        return None, None, None, None, *totals


def slice_totals(block: Block, totals: list[Any], saved: Any) -> list[Any]:
    """Return views of the gradients by queries, keys and values to which a block adds; None if one is not needed."""
    tensors = [tensor if total is None else total for tensor, total in zip(saved[:3], totals[:3], strict=True)]
    views = slice_block(block, *tensors)
    return [None if total is None else view for total, view in zip(totals[:3], views, strict=True)]
