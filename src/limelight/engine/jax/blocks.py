"""JAX: the parts of a question as functions of the place of a block, for loops whose index is only known at run time."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import eval_jaxpr

from limelight.core.block import Block, Slice
from limelight.engine.call import AttentionCall


@dataclasses.dataclass(frozen=True, eq=False)
class Hoisted:
    """A traced function whose closed-over arrays were made arguments, since a custom gradient may close over none.

    Args:
        jaxpr: what was traced.
        structure: of the result.
        arrays: those that the function closed over.
    """

    jaxpr: Any
    structure: Any
    arrays: list[Any]

    @classmethod
    def trace(cls, function: Callable[..., Any], *examples: Any) -> "Hoisted":
        """Trace a function of arrays of the examples' shapes."""
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*examples)
        return cls(closed.jaxpr, jax.tree.structure(shapes), list(closed.consts))

    def __call__(self, arrays: list[Any], *given: Any) -> Any:
        flat = eval_jaxpr(self.jaxpr, arrays, *jax.tree.leaves(given))
        return jax.tree.unflatten(self.structure, flat)


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """MaskFunction a block begins: indices of its example, head, first row and first column."""

    example: Any
    head: Any
    row: Any
    column: Any = 0

    def at(self, column: Any) -> "Place":
        """The same rows at another column."""
        return dataclasses.replace(self, column=column)

    @property
    def starts(self) -> tuple[Any, ...]:
        """The indices, int32."""
        return tuple(jnp.asarray(start, "int32") for start in (self.example, self.head, self.row, self.column))


class Grid:
    """How queries and keys are cut into blocks: one example, one head, some rows and some columns at a time.

    Every block has the same size. Where a length is no multiple of it, the last block is moved back to end with the
    sequence, and what it shares with the block before is left out on one side.

    Args:
        question: what is asked, with queries and keys prepared.
        rows, columns: the size of a block.
    """

    def __init__(self, call: AttentionCall, rows: int, columns: int) -> None:
        query, key = call.query, call.key
        self.block = call.block
        self.b, self.n, self.t, self.h = query.shape
        self.k, self.s = key.shape[1:3]
        self.bt, self.bs = min(rows, self.t), min(columns, self.s)
        self.across = -(-self.t // self.bt)
        self.count = self.b * self.n * self.across
        corner = (jax.ShapeDtypeStruct((), "int32"),) * 4
        blocks = (
            jax.ShapeDtypeStruct((1, 1, self.bt, self.h), query.dtype),
            jax.ShapeDtypeStruct((1, 1, self.bs, key.shape[-1]), key.dtype),
        )
        mask, normalizer = call.mask, call.normalizer
        self.from_start = True  # whether the first column that a block of rows needs is always the first of all

        def scores(q: Any, k: Any, *starts: Any) -> Any:
            block = self.tile_at(*starts)
            scores = normalizer.logits(call.score(q, k, block=block), block=block)
            return jnp.broadcast_to(scores, (1, 1, self.bt, self.bs))[0, 0]

        def permitted(*starts: Any) -> Any:
            found = None if mask is None else mask(self.tile_at(*starts))
            return None if found is None else jnp.broadcast_to(found, (1, 1, self.bt, self.bs))[0, 0]

        def between(*starts: Any) -> Any:
            first, last = 0, self.s
            if mask is not None:
                first, last = mask.kv_range(self.tile_at(*starts).replace(columns=Slice(self.s)))
            self.from_start = isinstance(first, int) and first == 0
            return [jnp.asarray(bound, "int32").reshape(()) for bound in (first, last)]

        def full(*starts: Any) -> Any:
            begin, end = 0, 0
            if mask is not None and self.across > 1:
                begin, end = mask.kv_full_range(self.tile_at(*starts).replace(columns=Slice(self.s)))
            if isinstance(end, int) and end <= 0:
                return None
            return [jnp.asarray(bound, "int32").reshape(()) for bound in (begin, end)]

        def sinks(*starts: Any) -> Any:
            found = normalizer.sinks(self.tile_at(*starts).replace(columns=Slice(self.s)))
            return None if found is None else jnp.broadcast_to(jnp.asarray(found), (1, 1, self.bt, 1))[0, 0, :, 0]

        self._scores = Hoisted.trace(scores, *blocks, *corner)
        self._permitted = Hoisted.trace(permitted, *corner)
        self._between = Hoisted.trace(between, *corner)
        self._full = Hoisted.trace(full, *corner)
        self._sinks = Hoisted.trace(sinks, *corner)
        self.arrays = {
            "scores": self._scores.arrays,
            "permitted": self._permitted.arrays,
            "between": self._between.arrays,
            "full": self._full.arrays,
            "sinks": self._sinks.arrays,
        }

    def tile_at(self, example: Any, head: Any, row: Any, column: Any) -> Block:
        """The tile of the block that begins there."""
        return self.block.replace(
            batch=Slice(self.b, example, 1),
            heads=Slice(self.n, head, 1),
            rows=Slice(self.t, row, self.bt),
            columns=Slice(self.s, column, self.bs),
        )

    def place(self, index: Any) -> Place:
        """The place of one step of the loop over examples, heads and blocks of rows."""
        batch, rest = jnp.divmod(index, self.n * self.across)
        head, row = jnp.divmod(rest, self.across)
        return Place(batch, head, jnp.minimum(row * self.bt, self.t - self.bt))

    def columns(self, arrays: Any, place: Place) -> tuple[Any, Any]:
        """The first column that a block of rows needs, and the number of blocks of columns from there on."""
        first, last = self._between(arrays["between"], *place.starts)
        return first, (last - first + self.bs - 1) // self.bs

    def unmasked(self, arrays: Any, place: Place, first: Any) -> Any:
        """How many of the blocks of columns, from the first on, a mask permits wholly; 0 where it does not say."""
        found = self._full(arrays["full"], *place.starts)
        if found is None:
            return 0
        begin, end = found
        return jnp.where(begin <= first, jnp.maximum(end - first, 0) // self.bs, 0)

    def column(self, first: Any, number: Any) -> Any:
        """MaskFunction the block of columns with a number begins."""
        return jnp.minimum(first + number * self.bs, self.s - self.bs)

    def scores(self, arrays: Any, query: Any, key: Any, place: Place) -> Any:
        """The scores of one block, (t, s), as the exponential takes them."""
        return self._scores(arrays["scores"], query, key, *place.starts)

    def masked(self, arrays: Any, scores: Any, place: Place, start: Any) -> Any:
        """Scores that are -inf where the mask forbids, and before a column, since the block before has had those already."""
        permitted = self._permitted(arrays["permitted"], *place.starts)
        if permitted is not None:
            scores = jnp.where(permitted, scores, -jnp.inf)
        if self.s % self.bs or not self.from_start:
            scores = jnp.where(place.column + jnp.arange(self.bs) >= start, scores, -jnp.inf)
        return scores

    def sinks(self, arrays: Any, place: Place) -> Any:
        """The logits (t,) of what takes part in the softmax without being a key, or None."""
        return self._sinks(arrays["sinks"], *place.starts)

    def fresh(self, rows: Any, index: Any) -> Any:
        """Rows (t, ...) with zeros in place of those that the block before has had already."""
        if self.t % self.bt == 0:
            return rows
        row = index % self.across * self.bt
        numbers = jnp.minimum(row, self.t - self.bt) + jnp.arange(self.bt)
        return jnp.where((numbers >= row)[:, None], rows, 0)

    def rows_of(self, tensor: Any, place: Place) -> Any:
        """The rows at a place of a tensor (B, N, T, ...): (1, 1, t, ...)."""
        start = self.start(tensor, place)
        return lax.dynamic_slice(tensor, start, (1, 1, self.bt, *tensor.shape[3:]))

    def columns_of(self, tensor: Any, place: Place) -> Any:
        """The columns at a place of keys or values (B, K, S, H): (1, 1, s, H)."""
        return lax.dynamic_slice(tensor, self.corner(tensor, place), (1, 1, self.bs, tensor.shape[-1]))

    def put(self, tensor: Any, rows: Any, place: Place) -> Any:
        """A tensor (B, N, T, ...) with rows (t, ...) written at a place."""
        return lax.dynamic_update_slice(tensor, rows[None, None].astype(tensor.dtype), self.start(tensor, place))

    def gather(self, tensor: Any, rows: Any, place: Place) -> Any:
        """A tensor (B, N, T, ...) with rows (t, ...) added at a place."""
        if self.t % self.bt:
            rows = rows + self.rows_of(tensor, place)[0, 0].astype(rows.dtype)
        return self.put(tensor, rows, place)

    def add_turned(self, tensor: Any, more: Any, place: Place) -> Any:
        """Keys or values with their last axes swapped, (B, K, H, S), with more (H, s) added at the columns of a place."""
        example, head, column, _ = self.corner(tensor, place)
        corner, shape = (example, head, 0, column), (1, 1, tensor.shape[2], self.bs)
        here = lax.dynamic_slice(tensor, corner, shape)
        return lax.dynamic_update_slice(tensor, here + more.reshape(shape).astype(tensor.dtype), corner)

    def start(self, tensor: Any, place: Place) -> tuple:
        """MaskFunction the rows at a place begin in a tensor (B, N, T, ...)."""
        return (place.example, place.head, place.row, *(0,) * (tensor.ndim - 3))

    def corner(self, tensor: Any, place: Place) -> tuple:
        """MaskFunction the columns at a place begin in keys or values (B, K, S, H)."""
        return place.example, place.head // (self.n // tensor.shape[1]), place.column, 0
