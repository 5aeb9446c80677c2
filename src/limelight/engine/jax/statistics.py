"""JAX: statistics of attention, accumulated over a scan of blocks of rows."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from limelight.core.precision import accumulation_dtype
from limelight.engine.call import AttentionCall
from limelight.engine.dense import BlockWeights, prepare_for_blocks
from limelight.engine.jax import blockwise
from limelight.engine.reductions import reduce_exponentials, reduce_weights
from limelight.engine.statistics import StatisticsSpec, column_statistics, row_statistics
from limelight.engine.thresholds import choose_block_sizes


def attention_statistics(
    call: AttentionCall, value: Any = None, *, scores_per_block: int, top_k: int, num_blocks: int, align: str | None
) -> dict[str, Any]:
    """Compute the statistics of a call by name, all but the edges, in blocks of about so many scores."""
    call, spec = prepare_for_blocks(call), StatisticsSpec.from_call(call, top_k, num_blocks, align)
    max_row_blocks = spec.max_row_blocks(min(choose_block_sizes(call, scores_per_block).rows, spec.rows))

    def visit(weights: BlockWeights, value: Any, is_new: Any, carry: tuple) -> tuple[Any, tuple]:
        exponential = call.normalizer.exponential
        reduced = reduce_exponentials(call, weights, top_k) if exponential else reduce_weights(weights, top_k)
        received, sums, maxima = column_statistics(reduced, is_new, max_row_blocks, spec)
        first = spec.row_block(weights.block.rows.to_indices()[0])
        return row_statistics(reduced, value, spec), (
            _update(carry[0], received, weights.block.columns.start, jnp.add),
            _update(carry[1], sums, first, jnp.add),
            _update(carry[2], maxima, first, jnp.maximum),
        )

    dtype = accumulation_dtype(call.query.dtype)
    # Padded, because the last blocks overlap fewer coarse blocks than `max_row_blocks`.
    coarse = jnp.zeros((spec.num_row_blocks + max_row_blocks - 1, spec.num_column_blocks), dtype)
    init = (jnp.zeros((spec.columns,), dtype), coarse, coarse)
    fields, (received, sums, maxima) = blockwise.scan_blocks(call, value, visit, init, scores_per_block)
    coarse_rows = slice(spec.num_row_blocks)
    return {
        **fields,
        "received": received,
        "block_sums": sums[:, :, coarse_rows],
        "block_max": maxima[:, :, coarse_rows],
    }


def _update(total: Any, part: Any, start: Any, combine: Any) -> Any:
    """Combine a part (b, n, l, ...) with a total (b, n, length, ...) from a start on."""
    if part.shape[2] == total.shape[2]:
        return combine(total, part)
    current = lax.dynamic_slice_in_dim(total, start, part.shape[2], 2)
    return lax.dynamic_update_slice_in_dim(total, combine(current, part), start, 2)
