"""JAX: a survey, gathered block by block."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from limelight.engine import jax_rows
from limelight.engine.block import Block, prepared
from limelight.engine.jax_passes import JaxPasses
from limelight.engine.sizes import sizes
from limelight.engine.statistics import Plan, cell_of, gathered, said
from limelight.engine.weighed import of_exponentials, of_weights
from limelight.product import wide
from limelight.question import Question

PASSES = JaxPasses()


def taken(
    question: Question, value: Any = None, *, size: int, top_k: int, cells: int, align: str | None
) -> tuple[dict[str, Any], tuple[Any, Any, Any]]:
    """What there is to say of each row, by name, and of keys and coarse blocks; in blocks of about so many scores."""
    question, plan = prepared(question), Plan.of(question, top_k, cells, align)
    reach = plan.reach(min(sizes(question, size).rows, plan.rows))

    def visit(found: Block, value: Any, counted: Any, sums: tuple) -> tuple[Any, tuple]:
        exponential = question.normalizer.exponential
        weighed = of_exponentials(question, found, plan.top_k) if exponential else of_weights(found, plan.top_k)
        rows = said(weighed, value, plan, PASSES)
        received, means, peaks = gathered(weighed, counted, reach, plan)
        first = cell_of(found.tile.rows.indices()[0], plan.rows, plan.row_cells)
        return rows, (
            placed(sums[0], received, found.tile.columns.start, jnp.add),
            placed(sums[1], means, first, jnp.add),
            placed(sums[2], peaks, first, jnp.maximum),
        )

    dtype = wide(question.query.dtype)
    # Room for the coarse blocks that the last rows do not reach.
    coarse = jnp.zeros((plan.row_cells + reach - 1, plan.column_cells), dtype)
    nothing = (jnp.zeros((plan.columns,), dtype), coarse, coarse)
    rows, (received, means, peaks) = jax_rows.walk(question, value, visit, nothing, size)
    return rows, (received, means[:, :, : plan.row_cells], peaks[:, :, : plan.row_cells])


def placed(total: Any, more: Any, start: Any, join: Any) -> Any:
    """A total (b, n, length, ...) joined with more from a place along that axis on."""
    if more.shape[2] == total.shape[2]:
        return join(total, more)
    here = lax.dynamic_slice_in_dim(total, start, more.shape[2], 2)
    return lax.dynamic_update_slice_in_dim(total, join(here, more), start, 2)
