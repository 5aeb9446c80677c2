"""JAX: an online softmax over blocks of keys, so that only one block of scores exists at a time.

Forward, each block of queries keeps the largest score so far, the sum of exponentials and the output, and rescales them when a
larger score appears (arXiv:1805.02867). The backward pass needs the output and one number for each query, the log of that sum:
from it, any block of weights can be computed again (arXiv:2205.14135).

The loop over keys covers only the columns that the mask leaves to a block of rows. Any score and any normalizer made of
exponentials can be computed so: the gradient of a block of scores comes from `jax.vjp`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import eval_jaxpr

from limelight.core.block import Block, Slice
from limelight.core.precision import accumulation_dtype
from limelight.core.random import dropout_mask
from limelight.engine.call import AttentionCall
from limelight.engine.dense import prepare_for_blocks
from limelight.engine.thresholds import max_columns, rows_of_narrow_blocks
from limelight.normalizers import MASK_VALUE, Softmax
from limelight.scores import Dot


def compute_output(
    call: AttentionCall, value: Any, seed: Any = None, *, rows: int, columns: int, dropout: float = 0.0
) -> Any:
    """Compute the output (B, N, T, V) of a call for values (B, K, S, V), in blocks of at most so many rows and columns."""
    call = prepare_for_blocks(call)
    narrow_rows = rows_of_narrow_blocks(call)
    if narrow_rows is not None:
        rows = min(rows, narrow_rows)
        columns = min(columns, max_columns(call, rows) or columns)
    passes = OnlineSoftmax(call, rows, columns, dropout)

    @jax.custom_vjp
    def attend(query: Any, key: Any, value: Any, closure: Any, seed: Any) -> Any:
        return passes.forward(query, key, value, closure, seed)[0]

    def forward(*inputs: Any) -> tuple[Any, Any]:
        outputs, logsumexp = passes.forward(*inputs)
        return outputs, (*inputs, outputs, logsumexp)

    attend.defvjp(forward, passes.backward)
    return attend(call.query, call.key, value, passes.grid.closure, seed)


@dataclasses.dataclass(frozen=True, eq=False)
class ClosureConverted:
    """A function of which the arrays in its closure became an argument, as a custom derivative requires.

    `jax.closure_convert` leaves integers and bools in the closure, and so leaks a traced mask into the backward pass.

    Args:
        jaxpr: The traced function.
        structure: The tree structure of its result.
        closure: The arrays of the closure.
    """

    jaxpr: Any
    structure: Any
    closure: list[Any]

    def __call__(self, closure: list[Any], *args: Any) -> Any:
        return jax.tree.unflatten(self.structure, eval_jaxpr(self.jaxpr, closure, *jax.tree.leaves(args)))


def closure_convert(function: Callable[..., Any], *examples: Any) -> ClosureConverted:
    """Trace a function for arrays of the examples' shapes and dtypes."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*examples)
    return ClosureConverted(closed.jaxpr, jax.tree.structure(shapes), list(closed.consts))


@dataclasses.dataclass(frozen=True, eq=False)
class Corner:
    """The first example, head, row and column of a block."""

    batch: Any
    head: Any
    row: Any
    column: Any = 0

    def at_column(self, column: Any) -> "Corner":
        """Return the corner of a block of the same rows."""
        return dataclasses.replace(self, column=column)

    @property
    def starts(self) -> tuple[Any, ...]:
        """The four indices, int32."""
        return tuple(jnp.asarray(start, "int32") for start in (self.batch, self.head, self.row, self.column))


class Grid:
    """Queries and keys cut into blocks of one example, one head, some rows and some columns, all of the same size.

    If a length is not a multiple of the size, the last block is moved back to end with the sequence, and what it shares with the
    block before is ignored in one of them.

    Args:
        call: The call, with prepared queries and keys.
        rows, columns: The size of a block.
    """

    def __init__(self, call: AttentionCall, rows: int, columns: int) -> None:
        query, key = call.query, call.key
        self.block = call.block
        self.b, self.n, self.t, self.h = query.shape
        self.k, self.s = key.shape[1:3]
        self.bt, self.bs = min(rows, self.t), min(columns, self.s)
        self.blocks_per_head = -(-self.t // self.bt)
        self.num_blocks = self.b * self.n * self.blocks_per_head
        self.starts_at_zero = True  # for every block of rows, the first column needed is column 0
        self._convert_closures(call)

    def _convert_closures(self, call: AttentionCall) -> None:
        """Trace the parts of the call as functions of the corner of a block, which is known only while the loop runs."""
        mask, normalizer = call.mask, call.normalizer
        shape = (1, 1, self.bt, self.bs)

        def scores(query: Any, key: Any, *starts: Any) -> Any:
            block = self.block_at(*starts)
            return jnp.broadcast_to(normalizer.logits(call.score(query, key, block=block), block=block), shape)[0, 0]

        def permitted(*starts: Any) -> Any:
            return None if mask is None else jnp.broadcast_to(mask(self.block_at(*starts)), shape)[0, 0]

        def kv_range(*starts: Any) -> Any:
            first, last = 0, self.s
            if mask is not None:
                first, last = mask.kv_range(self.block_at(*starts).replace(columns=Slice(self.s)))
            self.starts_at_zero = isinstance(first, int) and first == 0
            return [jnp.asarray(bound, "int32").reshape(()) for bound in (first, last)]

        def kv_full_range(*starts: Any) -> Any:
            first, last = 0, 0
            if mask is not None and self.blocks_per_head > 1:
                first, last = mask.kv_full_range(self.block_at(*starts).replace(columns=Slice(self.s)))
            if isinstance(last, int) and last <= 0:
                return None
            return [jnp.asarray(bound, "int32").reshape(()) for bound in (first, last)]

        def sinks(*starts: Any) -> Any:
            logits = normalizer.sinks(self.block_at(*starts).replace(columns=Slice(self.s)))
            return None if logits is None else jnp.broadcast_to(jnp.asarray(logits), (1, 1, self.bt, 1))[0, 0, :, 0]

        starts = (jax.ShapeDtypeStruct((), "int32"),) * 4
        blocks = (
            jax.ShapeDtypeStruct((1, 1, self.bt, self.h), call.query.dtype),
            jax.ShapeDtypeStruct((1, 1, self.bs, call.key.shape[-1]), call.key.dtype),
        )
        self._scores = closure_convert(scores, *blocks, *starts)
        self._permitted = closure_convert(permitted, *starts)
        self._kv_range = closure_convert(kv_range, *starts)
        self._kv_full_range = closure_convert(kv_full_range, *starts)
        self._sinks = closure_convert(sinks, *starts)
        self.closure = {
            "scores": self._scores.closure,
            "permitted": self._permitted.closure,
            "kv_range": self._kv_range.closure,
            "kv_full_range": self._kv_full_range.closure,
            "sinks": self._sinks.closure,
        }

    def block_at(self, batch: Any, head: Any, row: Any, column: Any) -> Block:
        """Return the block with this corner."""
        return self.block.replace(
            batch=Slice(self.b, batch, 1),
            heads=Slice(self.n, head, 1),
            rows=Slice(self.t, row, self.bt),
            columns=Slice(self.s, column, self.bs),
        )

    def corner(self, index: Any) -> Corner:
        """Return the corner of the first block in a step of the loop over examples, heads and blocks of rows."""
        batch, rest = jnp.divmod(index, self.n * self.blocks_per_head)
        head, row = jnp.divmod(rest, self.blocks_per_head)
        return Corner(batch, head, jnp.minimum(row * self.bt, self.t - self.bt))

    def column_blocks(self, closure: Any, corner: Corner) -> tuple[Any, Any]:
        """Return the first column that a block of rows needs, and the number of blocks of columns from there on."""
        first, last = self._kv_range(closure["kv_range"], *corner.starts)
        return first, (last - first + self.bs - 1) // self.bs

    def count_unmasked(self, closure: Any, corner: Corner, first: Any) -> Any:
        """Return how many blocks of columns, from the first one on, the mask permits wholly; 0 if it does not know."""
        bounds = self._kv_full_range(closure["kv_full_range"], *corner.starts)
        if bounds is None:
            return 0
        full_first, full_last = bounds
        return jnp.where(full_first <= first, jnp.maximum(full_last - first, 0) // self.bs, 0)

    def column_start(self, first: Any, index: Any) -> Any:
        """Return the first column of a block of columns."""
        return jnp.minimum(first + index * self.bs, self.s - self.bs)

    def scores(self, closure: Any, query: Any, key: Any, corner: Corner) -> Any:
        """Compute the logits (t, s) of a block, before the mask."""
        return self._scores(closure["scores"], query, key, *corner.starts)

    def mask_scores(self, closure: Any, scores: Any, corner: Corner, first_new: Any) -> Any:
        """Set scores to -inf where the mask forbids, and in columns before `first_new`, which an earlier block had."""
        permitted = self._permitted(closure["permitted"], *corner.starts)
        if permitted is not None:
            scores = jnp.where(permitted, scores, -jnp.inf)
        if self.s % self.bs or not self.starts_at_zero:
            scores = jnp.where(corner.column + jnp.arange(self.bs) >= first_new, scores, -jnp.inf)
        return scores

    def sinks(self, closure: Any, corner: Corner) -> Any:
        """Return the logits (t,) of the normalizer's sinks, which take weight without being keys, or None."""
        return self._sinks(closure["sinks"], *corner.starts)

    def zero_overlap(self, rows: Any, index: Any) -> Any:
        """Zero the rows (t, ...) that the block before has too."""
        if self.t % self.bt == 0:
            return rows
        row = index % self.blocks_per_head * self.bt
        indices = jnp.minimum(row, self.t - self.bt) + jnp.arange(self.bt)
        return jnp.where((indices >= row)[:, None], rows, 0)

    def slice_rows(self, tensor: Any, corner: Corner) -> Any:
        """Return the rows (1, 1, t, ...) of a tensor (B, N, T, ...)."""
        return lax.dynamic_slice(tensor, self._row_start(tensor, corner), (1, 1, self.bt, *tensor.shape[3:]))

    def slice_columns(self, tensor: Any, corner: Corner) -> Any:
        """Return the columns (1, 1, s, H) of keys or values (B, K, S, H)."""
        return lax.dynamic_slice(tensor, self._column_start(tensor, corner), (1, 1, self.bs, tensor.shape[-1]))

    def write_rows(self, tensor: Any, rows: Any, corner: Corner) -> Any:
        """Write rows (t, ...) into a tensor (B, N, T, ...)."""
        return lax.dynamic_update_slice(tensor, rows[None, None].astype(tensor.dtype), self._row_start(tensor, corner))

    def add_rows(self, tensor: Any, rows: Any, corner: Corner) -> Any:
        """Add rows (t, ...) to a tensor (B, N, T, ...) that is zero except where blocks overlap."""
        if self.t % self.bt:
            rows = rows + self.slice_rows(tensor, corner)[0, 0].astype(rows.dtype)
        return self.write_rows(tensor, rows, corner)

    def add_columns(self, tensor: Any, columns: Any, corner: Corner) -> Any:
        """Add columns (H, s) to transposed keys or values (B, K, H, S)."""
        batch, head, column, _ = self._column_start(tensor, corner)
        start, shape = (batch, head, 0, column), (1, 1, tensor.shape[2], self.bs)
        total = lax.dynamic_slice(tensor, start, shape) + columns.reshape(shape).astype(tensor.dtype)
        return lax.dynamic_update_slice(tensor, total, start)

    def _row_start(self, tensor: Any, corner: Corner) -> tuple:
        return (corner.batch, corner.head, corner.row, *(0,) * (tensor.ndim - 3))

    def _column_start(self, tensor: Any, corner: Corner) -> tuple:
        return corner.batch, corner.head // (self.n // tensor.shape[1]), corner.column, 0


class OnlineSoftmax:
    """The forward and the backward pass.

    Args:
        call: The call, with prepared queries and keys.
        rows, columns: The size of a block.
        dropout: The fraction of weights to drop.
    """

    def __init__(self, call: AttentionCall, rows: int, columns: int, dropout: float) -> None:
        self.grid = Grid(call, rows, columns)
        self.dropout = dropout
        self.dtype = accumulation_dtype(call.query.dtype)
        self.is_dot_product = call.score == Dot(scale=1.0) and call.normalizer == Softmax()

    def dropout_mask(self, seed: Any, corner: Corner) -> Any:
        """Return the factors (t, s) by which dropout multiplies the weights of a block."""
        return dropout_mask(seed, self.dropout, self.grid.block_at(*corner.starts), self.dtype)[0, 0]

    def forward(self, query: Any, key: Any, value: Any, closure: Any, seed: Any) -> tuple[Any, Any]:
        """Compute the output (B, N, T, V) and the log of the sum of exponentials (B, N, T)."""
        grid, dtype = self.grid, self.dtype

        def attend_rows(index: Any, results: tuple[Any, Any]) -> tuple[Any, Any]:
            outputs, logsumexp = results
            row_corner = grid.corner(index)
            query_rows, (first, count) = grid.slice_rows(query, row_corner), grid.column_blocks(closure, row_corner)

            def step(is_masked: bool, number: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
                max_score, exp_sum, weighted_sum = state
                corner = row_corner.at_column(grid.column_start(first, number))
                scores = grid.scores(closure, query_rows, grid.slice_columns(key, corner), corner)
                if is_masked:
                    scores = grid.mask_scores(closure, scores, corner, first + number * grid.bs)
                new_max = jnp.maximum(max_score, jnp.max(scores, axis=-1))
                unnormalized, rescale = jnp.exp(scores - new_max[:, None]), jnp.exp(max_score - new_max)
                exp_sum = exp_sum * rescale + jnp.sum(unnormalized, axis=-1)
                if self.dropout:
                    unnormalized = unnormalized * self.dropout_mask(seed, corner)
                product = unnormalized @ grid.slice_columns(value, corner)[0, 0].astype(dtype)
                return new_max, exp_sum, weighted_sum * rescale[:, None] + product

            state = (*self.initial_state(closure, row_corner), jnp.zeros((grid.bt, value.shape[-1]), dtype))
            num_unmasked = grid.count_unmasked(closure, row_corner, first)
            if not isinstance(num_unmasked, int):
                state = lax.fori_loop(0, num_unmasked, functools.partial(step, False), state)
            max_score, exp_sum, weighted_sum = lax.fori_loop(num_unmasked, count, functools.partial(step, True), state)
            is_empty = exp_sum == 0
            output = weighted_sum / jnp.where(is_empty, 1, exp_sum)[:, None]
            # In an empty row the sum counts as infinite, so that the backward pass finds weights of 0 again.
            row_logsumexp = jnp.where(is_empty, jnp.inf, max_score + jnp.log(exp_sum))
            return (
                grid.write_rows(outputs, output, row_corner),
                grid.write_rows(logsumexp, row_logsumexp, row_corner),
            )

        shape = query.shape[:3]
        initial = (jnp.zeros((*shape, value.shape[-1]), value.dtype), jnp.zeros(shape, dtype))
        return lax.fori_loop(0, grid.num_blocks, attend_rows, initial)

    def initial_state(self, closure: Any, corner: Corner) -> tuple[Any, Any]:
        """Return the largest score and the sum of exponentials, (t,) each, before the first key."""
        sinks = self.grid.sinks(closure, corner)
        if sinks is None:
            return jnp.full((self.grid.bt,), MASK_VALUE, self.dtype), jnp.zeros((self.grid.bt,), self.dtype)
        return sinks.astype(self.dtype), jnp.ones((self.grid.bt,), self.dtype)

    def backward(self, residuals: tuple, grad_output: Any) -> tuple:
        """Compute the gradients by all arguments of `forward`."""
        query, key, value, closure, seed, outputs, logsumexp = residuals
        grid, dtype = self.grid, self.dtype
        floats, merge_floats = split_floats(closure)

        def differentiate_rows(index: Any, gradients: tuple) -> tuple:
            grad_query, *grad_others = gradients
            row_corner = grid.corner(index)
            query_rows, row_logsumexp = (
                grid.slice_rows(query, row_corner),
                grid.slice_rows(logsumexp, row_corner)[0, 0],
            )
            first, count = grid.column_blocks(closure, row_corner)
            grad_rows = grid.zero_overlap(grid.slice_rows(grad_output, row_corner)[0, 0].astype(dtype), index)
            # The term of the softmax's gradient that all keys of a row share.
            delta = jnp.sum(grad_rows * grid.slice_rows(outputs, row_corner)[0, 0].astype(dtype), axis=-1)
            # Transposed outside of the loop: XLA's product that contracts the rows of both factors is three times slower.
            transposed_query, transposed_grad = query_rows[0, 0].astype(dtype).T, grad_rows.T

            def step(number: Any, gradients: tuple) -> tuple:
                grad_query_rows, grad_key, grad_value, grad_floats = gradients
                corner = row_corner.at_column(grid.column_start(first, number))
                key_block = grid.slice_columns(key, corner)
                value_block = grid.slice_columns(value, corner)[0, 0].astype(dtype)
                scores, vjp = self.scores_vjp(closure, query_rows, key_block, transposed_query, corner)
                masked = grid.mask_scores(closure, scores, corner, first + number * grid.bs)
                weights = jnp.exp(masked - row_logsumexp[:, None])
                grad_weights, dropped = grad_rows @ value_block.T, weights
                if self.dropout:
                    factors = self.dropout_mask(seed, corner)
                    grad_weights, dropped = grad_weights * factors, weights * factors
                grad_scores = (weights * (grad_weights - delta[:, None])).astype(scores.dtype)
                more_query, more_key, more_floats = vjp(grad_scores)
                return (
                    grad_query_rows + more_query,
                    grid.add_columns(grad_key, more_key, corner),
                    grid.add_columns(grad_value, transposed_grad @ dropped, corner),
                    jax.tree.map(jnp.add, grad_floats, more_floats),
                )

            initial = (jnp.zeros(query_rows.shape[2:], dtype), *grad_others)
            grad_query_rows, grad_key, grad_value, grad_floats = lax.fori_loop(0, count, step, initial)
            sinks, vjp = jax.vjp(lambda floats: grid.sinks(merge_floats(floats), row_corner), floats)
            if sinks is not None:
                more_floats = vjp((-jnp.exp(sinks - row_logsumexp) * delta).astype(sinks.dtype))[0]
                grad_floats = jax.tree.map(jnp.add, grad_floats, more_floats)
            return grid.add_rows(grad_query, grad_query_rows, row_corner), grad_key, grad_value, grad_floats

        initial = (
            jnp.zeros_like(query),
            jnp.zeros(jnp.swapaxes(key, 2, 3).shape, dtype),
            jnp.zeros(jnp.swapaxes(value, 2, 3).shape, dtype),
            jax.tree.map(jnp.zeros_like, floats),
        )
        grad_query, grad_key, grad_value, grad_floats = lax.fori_loop(0, grid.num_blocks, differentiate_rows, initial)
        grad_closure = jax.tree.map(
            lambda array, gradient: gradient if is_float(array) else None, closure, merge_floats(grad_floats)
        )
        grad_key, grad_value = (jnp.swapaxes(gradient, 2, 3) for gradient in (grad_key, grad_value))
        return grad_query, grad_key.astype(key.dtype), grad_value.astype(value.dtype), grad_closure, None

    def scores_vjp(
        self, closure: Any, query: Any, key: Any, transposed_query: Any, corner: Corner
    ) -> tuple[Any, Callable[[Any], tuple[Any, Any, Any]]]:
        """Compute the scores of a block and their vector-Jacobian product.

        Returns:
            The scores (t, s), and a function of their gradient to those by queries (t, H), transposed keys (H, s) and the float
            arrays of the closure.
        """
        grid, dtype = self.grid, self.dtype
        floats, merge_floats = split_floats(closure)
        if self.is_dot_product:
            keys, zeros = key[0, 0].astype(dtype), jax.tree.map(jnp.zeros_like, floats)
            scores = query[0, 0].astype(dtype) @ keys.T
            return scores, lambda grad_scores: (grad_scores @ keys, transposed_query @ grad_scores, zeros)
        scores, vjp = jax.vjp(
            lambda query, key, floats: grid.scores(merge_floats(floats), query, key, corner), query, key, floats
        )

        def without_unit_axes(grad_scores: Any) -> tuple[Any, Any, Any]:
            grad_query, grad_key, grad_floats = vjp(grad_scores)
            return grad_query[0, 0].astype(dtype), grad_key[0, 0].astype(dtype).T, grad_floats

        return scores, without_unit_axes


def is_float(array: Any) -> bool:
    """Return True if an array is of a dtype that has gradients."""
    return jnp.issubdtype(array.dtype, jnp.inexact)


def split_floats(arrays: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Return the float arrays of a tree, and a function that puts others in their place."""
    leaves, structure = jax.tree.flatten(arrays)

    def merge_floats(floats: list[Any]) -> Any:
        remaining = iter(floats)
        return jax.tree.unflatten(structure, [next(remaining) if is_float(leaf) else leaf for leaf in leaves])

    return [leaf for leaf in leaves if is_float(leaf)], merge_floats
