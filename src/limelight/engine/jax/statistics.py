"""JAX: a survey, gathered block by block."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from limelight.core.precision import accumulation_dtype
from limelight.engine.block_sizes import sizes
from limelight.engine.call import AttentionCall
from limelight.engine.dense_block import BlockWeights, prepared
from limelight.engine.jax import blockwise
from limelight.engine.jax.reductions import JaxPasses
from limelight.engine.reductions import of_exponentials, of_weights
from limelight.engine.statistics import Plan, cell_of, gathered, said

PASSES = JaxPasses()


def taken(
    call: AttentionCall, value: Any = None, *, size: int, top_k: int, num_blocks: int, align: str | None
) -> tuple[dict[str, Any], tuple[Any, Any, Any]]:
    """What there is to say of each row, by name, and of keys and coarse blocks; in blocks of about so many scores."""
    call, plan = prepared(call), Plan.of(call, top_k, num_blocks, align)
    reach = plan.reach(min(sizes(call, size).rows, plan.rows))

    def visit(found: BlockWeights, value: Any, counted: Any, sums: tuple) -> tuple[Any, tuple]:
        exponential = call.normalizer.exponential
        weighed = of_exponentials(call, found, plan.top_k) if exponential else of_weights(found, plan.top_k)
        rows = said(weighed, value, plan, PASSES)
        received, means, peaks = gathered(weighed, counted, reach, plan)
        first = cell_of(found.block.rows.to_indices()[0], plan.rows, plan.row_cells)
        return rows, (
            placed(sums[0], received, found.block.columns.start, jnp.add),
            placed(sums[1], means, first, jnp.add),
            placed(sums[2], peaks, first, jnp.maximum),
        )

    dtype = accumulation_dtype(call.query.dtype)
    # Room for the coarse blocks that the last rows do not reach.
    coarse = jnp.zeros((plan.row_cells + reach - 1, plan.column_cells), dtype)
    nothing = (jnp.zeros((plan.columns,), dtype), coarse, coarse)
    rows, (received, means, peaks) = blockwise.walk(call, value, visit, nothing, size)
    return rows, (received, means[:, :, : plan.row_cells], peaks[:, :, : plan.row_cells])


def placed(total: Any, more: Any, start: Any, join: Any) -> Any:
    """A total (b, n, length, ...) joined with more from a place along that axis on."""
    if more.shape[2] == total.shape[2]:
        return join(total, more)
    here = lax.dynamic_slice_in_dim(total, start, more.shape[2], 2)
    return lax.dynamic_update_slice_in_dim(total, join(here, more), start, 2)
