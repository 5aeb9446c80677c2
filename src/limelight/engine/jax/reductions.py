"""JAX: what a survey makes of all weights of a block, in few passes over them."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from limelight.engine import placement
from limelight.engine.reductions import LONG, Passes


class JaxPasses(Passes):
    """As products, which go over the weights once and make no second array of as many numbers."""

    def apart(self, raised: Any, queries: Any, keys: Any, place: Any) -> Any:
        rows, columns = raised.shape[2:]
        # An accelerator may round what goes into a product, and makes no second array anyhow.
        if place is None or columns < max(LONG, 4 * rows) or placement.accelerated(raised):
            return super().apart(raised, queries, keys, place)
        # Of all columns but those beside the rows it is known whether they lie before or after: there a distance is a
        # difference, and its average a difference of averages, which are products with a number for each column.
        first = jnp.clip(place, 0, columns - rows)
        middle, index = queries[rows // 2, 0], jnp.arange(columns)
        side = (index >= first + rows).astype(raised.dtype) - (index < first).astype(raised.dtype)
        # One column at a time: a product of two adds up one number after another, which is less exact.
        offsets, counts = (jnp.matmul(raised, one[:, None]) for one in (side * (keys - middle), side))
        beside = lax.dynamic_slice_in_dim(raised, first, rows, 3)
        near = beside * abs(queries - lax.dynamic_slice_in_dim(keys, first, rows, 0))
        return offsets - (queries - middle) * counts + jnp.sum(near, axis=-1, keepdims=True)
