"""TensorFlow: statistics of attention, accumulated over blocks of rows, by a Python loop or `tf.while_loop`."""

from typing import Any

import tensorflow as tf

from limelight.core.block import Block
from limelight.core.component import no_autograph
from limelight.core.precision import accumulation_dtype
from limelight.engine.call import AttentionCall
from limelight.engine.dense import compute_block_weights, prepare_for_blocks
from limelight.engine.reductions import ReducedBlock, compute_logits, reduce_softmax, reduce_weights
from limelight.engine.statistics import StatisticsSpec, column_statistics, row_statistics
from limelight.engine.tensorflow.grid import AppliedMask, Grid, add_columns, loop
from limelight.engine.tensorflow.tracing import static_length, under_xla


@no_autograph
def attention_statistics(
    call: AttentionCall, value: Any = None, *, scores_per_block: int, top_k: int, num_blocks: int, align: str | None
) -> dict[str, Any]:
    """Compute the statistics of a call by name, all but the edges, in blocks of about so many scores."""
    if None in (*call.query.shape, *call.key.shape) and under_xla():
        # XLA must know the number of blocks when it compiles.
        scores_per_block = 1 << 60
    call, spec = prepare_for_blocks(call), StatisticsSpec.from_call(call, top_k, num_blocks, align)
    return StatisticsLoop(call, value, spec, scores_per_block).run()


class StatisticsLoop:
    """The loop over examples and heads, and inside it the loop over blocks of rows.

    Args:
        call: The prepared call.
        value: (B, K, S, V), or None.
        spec: What the statistics contain.
        scores_per_block: About how many scores a block has.
    """

    def __init__(self, call: AttentionCall, value: Any, spec: StatisticsSpec, scores_per_block: int) -> None:
        self.call, self.value, self.spec = call, value, spec
        self.grid = Grid(call, call.query, call.key, scores_per_block)
        self.max_row_blocks = spec.max_row_blocks(self.grid.bt)
        self.dtype = getattr(tf, accumulation_dtype(call.query.dtype))

    def run(self) -> dict[str, Any]:
        """Return the statistics by name."""
        grid, spec = self.grid, self.spec
        num_row_blocks, num_heads = grid.across, grid.units * grid.inner
        specs = self._row_specs()
        leading = (grid.cb, grid.cn)
        received = tf.zeros((*leading, 1, spec.columns), self.dtype)
        coarse = tf.zeros((*leading, spec.num_row_blocks + self.max_row_blocks - 1, spec.num_column_blocks), self.dtype)

        def head_step(index: Any, *arrays: Any) -> tuple:
            unit, first = index // grid.inner, index % grid.inner * num_row_blocks
            keys, values = (
                None if tensor is None else grid.unit(tensor, unit) for tensor in (self.call.key, self.value)
            )
            transposed_keys = grid.transpose_key(self.call, keys)

            def row_step(number: Any, *state: Any) -> tuple:
                block = grid.block(self.call, unit, first + number)
                reduced, value = self._reduce(block, keys, values, transposed_keys)
                rows = row_statistics(reduced, value, spec, sum_distances(reduced, spec))
                is_new = block.rows.to_indices() >= number * grid.bt if grid.has_overlap else None
                columns = column_statistics(reduced, is_new, self.max_row_blocks, spec)
                *arrays, received, sums, maxima = state
                written = [array.write(number, rows[name]) for name, array in zip(specs, arrays, strict=True)]
                return (*written, *self._add(received, sums, maxima, columns, block))

            # Row statistics lie in memory between the large arrays of the blocks. Each head's are stacked when it is done, so
            # that the gaps can be used again.
            blocks = (tf.TensorArray(dtype, num_row_blocks, element_shape=shape) for shape, dtype in specs.values())
            *rows, received_sums, sums, maxima = loop(num_row_blocks, row_step, (*blocks, received, coarse, coarse))
            results = (*(array.stack() for array in rows), received_sums, sums, maxima)
            return tuple(array.write(index, result) for array, result in zip(arrays, results, strict=True))

        row_arrays = [
            tf.TensorArray(dtype, num_heads, element_shape=(static_length(num_row_blocks), *shape))
            for shape, dtype in specs.values()
        ]
        column_arrays = [
            tf.TensorArray(self.dtype, num_heads, element_shape=like.shape) for like in (received, coarse, coarse)
        ]
        *rows, received, sums, maxima = loop(num_heads, head_step, (*row_arrays, *column_arrays))
        fields = {name: self._concat_rows(array.stack()) for name, array in zip(specs, rows, strict=True)}
        received, sums, maxima = (self._concat_heads(array.stack()) for array in (received, sums, maxima))
        coarse_rows = slice(spec.num_row_blocks)
        return {
            **fields,
            "received": received[:, :, 0],
            "block_sums": sums[:, :, coarse_rows],
            "block_max": maxima[:, :, coarse_rows],
        }

    def _row_specs(self) -> dict[str, tuple[tuple, Any]]:
        """Return the shape (b, n, t, ...) and the dtype of the row statistics of a block, by name."""
        grid, top_k = self.grid, self.spec.top_k
        leading = (static_length(grid.cb), static_length(grid.cn), static_length(grid.bt))
        specs: dict[str, tuple[tuple, Any]] = {
            **dict.fromkeys(("entropy", "logsumexp", "distance", "mass"), (leading, self.dtype)),
            "top_keys": ((*leading, top_k), tf.int32),
            "top_weights": ((*leading, top_k), self.dtype),
        }
        if self.value is not None:
            specs["output"] = ((*leading, self.value.shape[-1]), self.value.dtype)
        return specs

    def _reduce(self, block: Block, keys: Any, values: Any, transposed_keys: Any) -> tuple[ReducedBlock, Any]:
        """Reduce a block, and return it with its values. Transposed keys are used if there are any."""
        call, grid, top_k = self.call, self.grid, self.spec.top_k
        query = grid.rows(call.query, block)
        key, value = (
            None if tensor is None else grid.repeat_heads(grid.columns(tensor, block)) for tensor in (keys, values)
        )
        if not call.normalizer.exponential:
            return reduce_weights(compute_block_weights(call, block, query, key), top_k), value
        mask = AppliedMask(call.mask, block)
        if transposed_keys is None:
            logits = mask.apply(compute_logits(call, block, query, key))
        else:
            logits = call.normalizer.logits(tf.matmul(query, transposed_keys), block=block)
        is_empty = None if mask.mask is None else mask.zero_empty_rows(tf.ones_like(logits[..., :1])) == 0
        return reduce_softmax(call, block, logits, is_empty, top_k), value

    def _add(
        self, received: Any, sums: Any, maxima: Any, columns: tuple[Any, Any, Any], block: Block
    ) -> tuple[Any, ...]:
        """Add a block to the statistics of keys and coarse blocks."""
        block_received, block_sums, block_maxima = columns
        first = self.spec.row_block(block.rows.to_indices()[0])
        totals = (
            add_columns(received, block_received[:, :, None], block.columns),
            self._update(sums, block_sums, first, tf.add),
            self._update(maxima, block_maxima, first, tf.maximum),
        )
        return tuple(
            tf.ensure_shape(total, like.shape) for total, like in zip(totals, (received, sums, maxima), strict=True)
        )

    def _update(self, total: Any, part: Any, first: Any, combine: Any) -> Any:
        """Combine a part (b, n, max_row_blocks, s) with a total (b, n, length, s) from a row on."""
        if not under_xla():
            rest = self.spec.num_row_blocks - 1 - first
            return combine(total, tf.pad(part, [[0, 0], [0, 0], [first, rest], [0, 0]]))
        # XLA needs constant paddings.
        rows_first = (2, 0, 1, 3)
        indices = tf.reshape(first + tf.range(self.max_row_blocks), (-1, 1))
        scatter = tf.tensor_scatter_nd_add if combine is tf.add else tf.tensor_scatter_nd_max
        total = scatter(tf.transpose(total, rows_first), indices, tf.transpose(part, rows_first))
        return tf.transpose(total, (1, 2, 0, 3))

    def _concat_rows(self, blocks: Any) -> Any:
        """Return (B, N, T, ...) from blocks (heads, across, b, n, t, ...)."""
        if blocks.shape.rank == 6:
            return self.grid.concat_rows(blocks, blocks.shape[-1])
        return self.grid.concat_rows(blocks[..., None], 1)[..., 0]

    def _concat_heads(self, blocks: Any) -> Any:
        """Return (B, N, x, y) from blocks (units * inner, b, n, x, y)."""
        grid = self.grid
        size = tf.shape(blocks)[3:]
        shape = tf.concat([(grid.b // grid.cb, grid.n // grid.cn, grid.cb, grid.cn), size], axis=0)
        blocks = tf.transpose(tf.reshape(blocks, shape), (0, 2, 1, 3, 4, 5))
        return tf.reshape(blocks, tf.concat([(grid.b, grid.n), size], axis=0))


def sum_distances(reduced: ReducedBlock, spec: StatisticsSpec) -> Any:
    """Return the sum of each row of weights times its distances, (b, n, t, 1), in one pass; None if that is not possible.

    If positions count up, most keys lie on one side of all queries of a block. There a distance is a difference, and the sum of
    weighted differences is a product with one number per key. Only the keys between are compared with each query.
    """
    weights, block = reduced.unnormalized, reduced.block
    queries, keys = spec.positions(block, weights.dtype)
    # Positions count up unless they were given, with axes for examples and heads.
    if not len(queries.shape) == len(keys.shape) == 2 or not weights.shape.is_fully_defined() or under_xla():
        return None
    t, s = weights.shape[2:]
    if 2 * t > s:
        return None
    keys = keys[0]
    begin = tf.clip_by_value(tf.cast(queries[0, 0] - keys[0], tf.int32), 0, s - t)
    middle, columns = queries[t // 2, 0], tf.range(s)
    sides = tf.cast(columns >= begin + t, weights.dtype) - tf.cast(columns < begin, weights.dtype)
    # As two vectors: with a matrix of two columns the product takes longer.
    sums, shares = (
        tf.reshape(tf.linalg.matvec(tf.reshape(weights, (-1, s)), factors), (*weights.shape[:3], 1))
        for factors in (sides * (keys - middle), sides)
    )
    near = weights[..., begin : begin + t] * tf.abs(queries - keys[begin : begin + t])
    return sums - (queries - middle) * shares + tf.reduce_sum(near, axis=-1, keepdims=True)
