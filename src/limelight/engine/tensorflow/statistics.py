"""TensorFlow: a survey, gathered block by block, in a loop of Python's or `tf.while_loop`."""

from typing import Any

import tensorflow as tf

from limelight.core.block import Block
from limelight.core.component import no_autograph
from limelight.core.precision import accumulation_dtype
from limelight.engine.call import AttentionCall
from limelight.engine.dense_block import block_weights, prepared
from limelight.engine.reductions import Weighed, logits_of, of_softmax, of_weights
from limelight.engine.statistics import Plan, cell_of, gathered, said
from limelight.engine.tensorflow.grid import Grid, added, loop
from limelight.engine.tensorflow.lengths import known, under_xla
from limelight.engine.tensorflow.reductions import TensorFlowPasses
from limelight.engine.tensorflow.softmax import Veil


@no_autograph
def taken(
    call: AttentionCall, value: Any = None, *, size: int, top_k: int, num_blocks: int, align: str | None
) -> tuple[dict[str, Any], tuple[Any, Any, Any]]:
    """What there is to say of each row, by name, and of keys and coarse blocks; in blocks of about so many scores."""
    if None in (*call.query.shape, *call.key.shape) and under_xla():
        # XLA cannot turn a loop over blocks into code before it knows how many there are.
        size = 1 << 60
    call, plan = prepared(call), Plan.of(call, top_k, num_blocks, align)
    return Walk(call, value, plan, size).all()


PASSES = TensorFlowPasses()


class Walk:
    """How the blocks lie, and the loops over them: one over examples and heads, and inside it one over blocks of rows.

    Args:
        question: what is asked, with queries and keys prepared.
        value: (B, K, S, V), or None.
        plan: what the survey is to hold.
        size: about how many scores a block has.
    """

    def __init__(self, call: AttentionCall, value: Any, plan: Plan, size: int) -> None:
        self.call, self.value, self.plan = call, value, plan
        self.grid = Grid(call, call.query, call.key, size)
        self.reach = plan.reach(self.grid.bt)
        self.dtype = getattr(tf, accumulation_dtype(call.query.dtype))

    def all(self) -> tuple[dict[str, Any], tuple[Any, Any, Any]]:
        """What there is to say of all rows, keys and coarse blocks."""
        grid, plan = self.grid, self.plan
        across, heads = grid.across, grid.units * grid.inner
        shapes = self.shapes()
        names = list(shapes)
        rows = [tf.TensorArray(dtype, heads, element_shape=(known(across), *shape)) for shape, dtype in shapes.values()]
        lead = (grid.cb, grid.cn)
        received = tf.zeros((*lead, 1, plan.columns), self.dtype)
        coarse = tf.zeros((*lead, plan.row_cells + self.reach - 1, plan.column_cells), self.dtype)
        sums = [tf.TensorArray(self.dtype, heads, element_shape=one.shape) for one in (received, coarse, coarse)]

        def head(index: Any, *arrays: Any) -> tuple:
            unit, first = index // grid.inner, index % grid.inner * across
            keys, values = (None if one is None else grid.unit(one, unit) for one in (self.call.key, self.value))
            turned = grid.turned(self.call, keys)

            def step(number: Any, *state: Any) -> tuple:
                block = grid.block(self.call, unit, first + number)
                found, more = self.block(block, keys, values, turned, number)
                written = [array.write(number, found[name]) for name, array in zip(names, state[:-3], strict=True)]
                return (*written, *self.joined(state[-3:], more, block))

            # What is kept of each block lies in memory between what is not. Once a head is done it is put together, so that the
            # gaps can be used again.
            blocks = (tf.TensorArray(dtype, across, element_shape=shape) for shape, dtype in shapes.values())
            *found, mass, means, peaks = loop(across, step, (*blocks, received, coarse, coarse))
            kept = (*(array.stack() for array in found), mass, means, peaks)
            return tuple(array.write(index, total) for array, total in zip(arrays, kept, strict=True))

        *rows, mass, means, peaks = loop(heads, head, (*rows, *sums))
        said = {name: self.laid_out(array.stack(), *shapes[name]) for name, array in zip(names, rows, strict=True)}
        mass, means, peaks = (self.of_heads(array.stack()) for array in (mass, means, peaks))
        return said, (mass[:, :, 0], means[:, :, : plan.row_cells], peaks[:, :, : plan.row_cells])

    def shapes(self) -> dict[str, tuple[tuple, Any]]:
        """The shape (b, n, t, ...) and the dtype of what is said of a block of rows, by name."""
        grid = self.grid
        lead = (known(grid.cb), known(grid.cn), known(grid.bt))
        found: dict[str, tuple[tuple, Any]] = {}
        found |= dict.fromkeys(("entropy", "logsumexp", "distance", "mass"), (lead, self.dtype))
        found["top_keys"] = ((*lead, self.plan.top_k), tf.int32)
        found["top_weights"] = ((*lead, self.plan.top_k), self.dtype)
        if self.value is not None:
            found["output"] = ((*lead, self.value.shape[-1]), self.value.dtype)
        return found

    def block(
        self, block: Block, keys: Any, values: Any, turned: Any, number: Any
    ) -> tuple[dict[str, Any], tuple[Any, Any, Any]]:
        """What a block says of its rows, and of keys and coarse blocks."""
        grid = self.grid
        key, value = (None if one is None else grid.shared(grid.columns(one, block)) for one in (keys, values))
        weighed = self.weighed(block, grid.rows(self.call.query, block), key, turned)
        counted = None
        if not (isinstance(grid.t, int) and isinstance(grid.bt, int) and grid.t % grid.bt == 0):
            counted = block.rows.to_indices() >= number * grid.bt
        found = said(weighed, value, self.plan, PASSES)
        return found, gathered(weighed, counted, self.reach, self.plan, PASSES)

    def weighed(self, block: Block, query: Any, key: Any, turned: Any) -> Weighed:
        """The weights of a block; from keys that are turned already, where they are."""
        call, top_k = self.call, self.plan.top_k
        if not call.normalizer.exponential:
            return of_weights(block_weights(call, block, query, key), top_k)
        veil = Veil(call.mask, block)
        if turned is None:
            logits = veil.over(logits_of(call, block, query, key))
        else:
            logits = call.normalizer.logits(tf.matmul(query, turned), block=block)
        some = None if veil.permitted is None else veil.answered(tf.ones_like(logits[..., :1]))
        return of_softmax(call, block, logits, None if some is None else some == 0, top_k, PASSES)

    def joined(self, totals: Any, more: tuple[Any, Any, Any], block: Block) -> tuple[Any, ...]:
        """The masses of keys, and the sums and maxima of coarse blocks, with those of one more block."""
        received, sums, peaks = totals
        first = cell_of(block.rows.to_indices()[0], self.plan.rows, self.plan.row_cells)
        rest = self.plan.row_cells - 1 - first
        sums, peaks = (
            join(total, tf.pad(one, [[0, 0], [0, 0], [first, rest], [0, 0]]))
            if not under_xla()
            else self.scattered(total, one, first, join)
            for total, one, join in zip((sums, peaks), more[1:], (tf.add, tf.maximum), strict=True)
        )
        found = (added(received, more[0][:, :, None], block.columns), sums, peaks)
        return tuple(tf.ensure_shape(one, total.shape) for one, total in zip(found, totals, strict=True))

    def scattered(self, total: Any, more: Any, first: Any, join: Any) -> Any:
        """A total (b, n, length, s) joined with more from a place on, where paddings must be constants."""
        turn = (2, 0, 1, 3)
        places = tf.reshape(first + tf.range(self.reach), (-1, 1))
        scatter = tf.tensor_scatter_nd_add if join is tf.add else tf.tensor_scatter_nd_max
        return tf.transpose(scatter(tf.transpose(total, turn), places, tf.transpose(more, turn)), (1, 2, 0, 3))

    def laid_out(self, blocks: Any, shape: tuple, dtype: Any) -> Any:
        """(B, N, T, ...) from blocks (units * inner * across, b, n, t, ...)."""
        found = self.grid.joined(blocks if len(shape) == 4 else blocks[..., None], shape[3] if len(shape) == 4 else 1)
        return found if len(shape) == 4 else found[..., 0]

    def of_heads(self, blocks: Any) -> Any:
        """(B, N, x, y) from blocks (units * inner, b, n, x, y)."""
        grid = self.grid
        size = tf.shape(blocks)[3:]
        blocks = tf.reshape(blocks, tf.concat([(grid.b // grid.cb, grid.n // grid.cn, grid.cb, grid.cn), size], axis=0))
        blocks = tf.transpose(blocks, (0, 2, 1, 3, 4, 5))
        return tf.reshape(blocks, tf.concat([(grid.b, grid.n), size], axis=0))
