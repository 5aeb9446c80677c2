"""JAX: a softmax that runs over blocks of keys, so that no more than one block of scores exists at a time.

Forward, each block of queries keeps the largest score so far, the sum of exponentials and the output, and scales them down when
a larger score turns up (arXiv:1805.02867). What is kept for the backward pass is the output and one number for each
query, the log of that sum, from which any block of weights can be had again (arXiv:2205.14135).

A mask says between which columns a block of rows may attend to anything; the loop over keys runs between those alone. Every
score and every normalizer made of exponentials goes this way; the gradient of a block of scores is found by tracing it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from limelight.core.precision import accumulation_dtype
from limelight.core.random import dropout_mask
from limelight.engine.block_sizes import narrow, reach
from limelight.engine.call import AttentionCall
from limelight.engine.dense_block import prepared
from limelight.engine.jax.blocks import Grid, Place
from limelight.normalizers import LOWEST, Softmax
from limelight.scores import Dot


def output(call: AttentionCall, value: Any, seed: Any = None, *, rows: int, columns: int, dropout: float = 0.0) -> Any:
    """The output (B, N, T, V) of a question for values (B, K, S, V), in blocks of so many rows and columns at most."""
    call = prepared(call)
    few = narrow(call)
    if few is not None:
        rows = min(rows, few)
        columns = min(columns, reach(call, rows))
    path = Running(call, rows, columns, dropout)

    @jax.custom_vjp
    def attend(query: Any, key: Any, value: Any, arrays: Any, seed: Any) -> Any:
        return path.forward(query, key, value, arrays, seed)[0]

    def forward(*given: Any) -> tuple[Any, Any]:
        outputs, totals = path.forward(*given)
        return outputs, (*given, outputs, totals)

    attend.defvjp(forward, path.backward)
    return attend(call.query, call.key, value, path.grid.arrays, seed)


class Running:
    """The two passes.

    Args:
        question: what is asked, with queries and keys prepared.
        rows, columns: the size of a block.
        dropout: the share of weights that is dropped.
    """

    def __init__(self, call: AttentionCall, rows: int, columns: int, dropout: float) -> None:
        self.grid = Grid(call, rows, columns)
        self.dropout = dropout
        self.dtype = accumulation_dtype(call.query.dtype)
        # Scores that are products and no more.
        self.bare = call.score == Dot(scale=1.0) and call.normalizer == Softmax()

    def kept(self, seed: Any, place: Place) -> Any:
        """What dropout multiplies the weights of a block with, (t, s)."""
        return dropout_mask(seed, self.dropout, self.grid.tile_at(*place.starts), self.dtype)[0, 0]

    def forward(self, query: Any, key: Any, value: Any, arrays: Any, seed: Any) -> tuple[Any, Any]:
        """The output (B, N, T, V) and the log of the sum of exponentials (B, N, T)."""
        grid, dtype = self.grid, self.dtype

        def block(index: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            outputs, totals = carry
            place = grid.place(index)
            rows, (first, count) = grid.rows_of(query, place), grid.columns(arrays, place)

            def step(masked: bool, number: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
                peak, total, mixture = state
                here = place.at(grid.column(first, number))
                scores = grid.scores(arrays, rows, grid.columns_of(key, here), here)
                if masked:
                    scores = grid.masked(arrays, scores, here, first + number * grid.bs)
                higher = jnp.maximum(peak, jnp.max(scores, axis=-1))
                raised, fading = jnp.exp(scores - higher[:, None]), jnp.exp(peak - higher)
                total = total * fading + jnp.sum(raised, axis=-1)
                if self.dropout:
                    raised = raised * self.kept(seed, here)
                more = raised @ grid.columns_of(value, here)[0, 0].astype(dtype)
                return higher, total, mixture * fading[:, None] + more

            state = (*self.beginning(arrays, place), jnp.zeros((grid.bt, value.shape[-1]), dtype))
            unmasked = grid.unmasked(arrays, place, first)
            if not isinstance(unmasked, int):
                state = lax.fori_loop(0, unmasked, functools.partial(step, False), state)
            peak, total, mixture = lax.fori_loop(unmasked, count, functools.partial(step, True), state)
            empty = total == 0
            outcome = mixture / jnp.where(empty, 1, total)[:, None]
            # In a row that permits nothing the sum stands above every score, so that its weights come out as zeros again.
            total = jnp.where(empty, jnp.inf, peak + jnp.log(total))
            return grid.put(outputs, outcome, place), grid.put(totals, total, place)

        lead = query.shape[:3]
        nothing = (jnp.zeros((*lead, value.shape[-1]), value.dtype), jnp.zeros(lead, dtype))
        return lax.fori_loop(0, grid.count, block, nothing)

    def beginning(self, arrays: Any, place: Place) -> tuple[Any, Any]:
        """The largest score and the sum of exponentials before any key was seen, (t,) each."""
        sinks = self.grid.sinks(arrays, place)
        if sinks is None:
            return jnp.full((self.grid.bt,), LOWEST, self.dtype), jnp.zeros((self.grid.bt,), self.dtype)
        return sinks.astype(self.dtype), jnp.ones((self.grid.bt,), self.dtype)

    def backward(self, saved: tuple, slope: Any) -> tuple:
        """The gradients by all that `forward` takes."""
        query, key, value, arrays, seed, outputs, totals = saved
        grid, dtype = self.grid, self.dtype
        floats, split = separated(arrays)

        def block(index: Any, carry: tuple) -> tuple:
            by_query, by_key, by_value, by_floats = carry
            place = grid.place(index)
            rows, total = grid.rows_of(query, place), grid.rows_of(totals, place)[0, 0]
            first, count = grid.columns(arrays, place)
            dy = grid.fresh(grid.rows_of(slope, place)[0, 0].astype(dtype), index)
            along = jnp.sum(dy * grid.rows_of(outputs, place)[0, 0].astype(dtype), axis=-1)
            # Turned here, outside of the loop, where they are few: XLA's product over rows of both sides is three times slower.
            turned, slopes = rows[0, 0].astype(dtype).T, dy.T

            def step(number: Any, state: tuple) -> tuple:
                by_rows, by_key, by_value, by_floats = state
                here = place.at(grid.column(first, number))
                columns, values = grid.columns_of(key, here), grid.columns_of(value, here)[0, 0].astype(dtype)
                scores, pull = self.pulled(arrays, rows, columns, turned, here)
                masked = grid.masked(arrays, scores, here, first + number * grid.bs)
                weights = jnp.exp(masked - total[:, None])
                by_weights, dropped = dy @ values.T, weights
                if self.dropout:
                    factor = self.kept(seed, here)
                    by_weights, dropped = by_weights * factor, weights * factor
                more, more_key, more_floats = pull((weights * (by_weights - along[:, None])).astype(scores.dtype))
                by_value = grid.add_turned(by_value, slopes @ dropped, here)
                by_floats = jax.tree.map(jnp.add, by_floats, more_floats)
                return by_rows + more, grid.add_turned(by_key, more_key, here), by_value, by_floats

            state = (jnp.zeros(rows.shape[2:], dtype), by_key, by_value, by_floats)
            by_rows, by_key, by_value, by_floats = lax.fori_loop(0, count, step, state)
            sinks, pull = jax.vjp(lambda floats: grid.sinks(split(floats), place), floats)
            if sinks is not None:
                more = pull((-jnp.exp(sinks - total) * along).astype(sinks.dtype))[0]
                by_floats = jax.tree.map(jnp.add, by_floats, more)
            return grid.gather(by_query, by_rows, place), by_key, by_value, by_floats

        nothing = (
            jnp.zeros_like(query),
            jnp.zeros(jnp.swapaxes(key, 2, 3).shape, dtype),
            jnp.zeros(jnp.swapaxes(value, 2, 3).shape, dtype),
            jax.tree.map(jnp.zeros_like, floats),
        )
        by_query, by_key, by_value, by_floats = lax.fori_loop(0, grid.count, block, nothing)
        by_arrays = jax.tree.map(lambda array, found: found if is_float(array) else None, arrays, split(by_floats))
        by_key, by_value = (jnp.swapaxes(found, 2, 3) for found in (by_key, by_value))
        return by_query, by_key.astype(key.dtype), by_value.astype(value.dtype), by_arrays, None

    def pulled(self, arrays: Any, rows: Any, columns: Any, turned: Any, here: Place) -> tuple[Any, Any]:
        """The scores of a block, and what takes their gradient to those by queries (t, H), keys (H, s) and float arrays."""
        grid, dtype = self.grid, self.dtype
        floats, split = separated(arrays)
        if self.bare:
            keys, nothing = columns[0, 0].astype(dtype), jax.tree.map(jnp.zeros_like, floats)
            return rows[0, 0].astype(dtype) @ keys.T, lambda slope: (slope @ keys, turned @ slope, nothing)
        scores, pull = jax.vjp(
            lambda rows, columns, floats: grid.scores(split(floats), rows, columns, here), rows, columns, floats
        )

        def found(slope: Any) -> tuple[Any, Any, Any]:
            by_rows, by_columns, by_floats = pull(slope)
            return by_rows[0, 0].astype(dtype), by_columns[0, 0].astype(dtype).T, by_floats

        return scores, found


def is_float(array: Any) -> bool:
    """Whether there can be a gradient by an array."""
    return jnp.issubdtype(array.dtype, jnp.inexact)


def separated(arrays: Any) -> tuple[list[Any], Any]:
    """The float arrays of a tree, and a function that puts others in their places."""
    leaves, structure = jax.tree.flatten(arrays)

    def split(floats: list[Any]) -> Any:
        remaining = iter(floats)
        return jax.tree.unflatten(structure, [next(remaining) if is_float(leaf) else leaf for leaf in leaves])

    return [leaf for leaf in leaves if is_float(leaf)], split
