"""MaskFunction a block lies among the scores of one attention: which examples, heads, rows and columns it covers."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from keras import ops


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """A run of indices `start .. start + size - 1` out of `total`, or a chosen list of them.

    Args:
        total: how many indices there are in all; an int, or a scalar tensor where it is only known at run time.
        start: the first index of the run; an int or a scalar tensor.
        size: the length of the run, `total` when not given. Must be an int where `start` is a tensor.
        picked: a list of indices to take instead of a run, or an int tensor of a known length.
    """

    total: Any
    start: Any = 0
    size: Any = None
    indices: Any = None

    @property
    def length(self) -> Any:
        """How many indices there are in the span."""
        if self.indices is not None:
            return self.indices.shape[0] if hasattr(self.indices, "shape") else len(self.indices)
        return self.total if self.size is None else self.size

    @property
    def is_full(self) -> bool:
        """Whether the span covers everything."""
        return self.indices is None and self.size is None

    def to_indices(self) -> Any:
        """The indices themselves, int32 of shape (length,)."""
        if self.indices is not None:
            return ops.convert_to_tensor(self.indices, dtype="int32")
        return ops.arange(self.length, dtype="int32") + ops.cast(self.start, "int32")

    def of(self, tensor: Any, axis: int) -> Any:
        """The span's part of a tensor along an axis; an axis of length 1 broadcasts and stays."""
        if self.is_full or tensor.shape[axis] == 1:
            return tensor
        if self.indices is not None:
            return ops.take(tensor, self.to_indices(), axis=axis)
        if isinstance(self.start, int) and isinstance(self.size, int):
            slices = [slice(None)] * len(tensor.shape)
            slices[axis] = slice(self.start, self.start + self.size)
            return tensor[tuple(slices)]
        shape = ops.shape(tensor)
        axis %= len(shape)
        starts = [self.start if index == axis else 0 for index in range(len(shape))]
        sizes = [self.size if index == axis else length for index, length in enumerate(shape)]
        return ops.slice(tensor, starts, sizes)


@dataclasses.dataclass(frozen=True, eq=False)
class History:
    """MaskFunction attention was before, for a layer that walks along the queries.

    Args:
        previous: the weights of the step before, (b, n, t, s).
        coverage: the sum of the weights of all earlier steps, (b, n, t, s).
    """

    previous: Any
    coverage: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """A block of the scores (B, N, T, S): what a part is told about where it works.

    Parts see only a block of queries and keys, so whatever depends on the place in the sequence, the head or the example
    is asked of the tile. `Block.whole(B, N, T, S)` is all of it.

    Args:
        batch, heads, rows, columns: the spans along B, N, T and S.
        given_queries: int positions of all queries, (T,) or (B, T), where they are not 0, 1, 2, ... aligned at the end.
        given_keys: int positions of all keys, (S,) or (B, S), where they are not 0, 1, 2, ...
        extent: says how many keys each example has up to its last real one, (B,), or None where that is S: a function, since it
            is seldom asked.
        history: where attention was before, where that is known.
    """

    batch: Slice
    heads: Slice
    rows: Slice
    columns: Slice
    given_query_positions: Any = None
    given_key_positions: Any = None
    kv_lengths: Callable[[], Any] | None = None
    history: History | None = None

    @classmethod
    def full(cls, batch: Any, heads: Any, rows: Any, columns: Any, **given: Any) -> "Block":
        """The tile that covers everything."""
        return cls(Slice(batch), Slice(heads), Slice(rows), Slice(columns), **given)

    def replace(self, **spans: Slice) -> "Block":
        """The same tile with other spans."""
        return dataclasses.replace(self, **spans)

    @property
    def offset(self) -> Any:
        """How far the rows are moved so that the last query stands at the last key: S - T."""
        return self.columns.total - self.rows.total

    def align(self, tensor: Any, axes: str) -> Any:
        """The tile's part of a tensor, shaped to broadcast against (b, n, t, s).

        Args:
            tensor: a tensor whose last axes are those named; "b" stands for any number of leading axes, or none.
            axes: some of the letters "bnts" in that order, such as "bs" for a padding mask.

        Returns:
            A tensor of rank 4 in which axes that were not named have length 1.
        """
        named = axes.replace("b", "")
        lead = len(tensor.shape) - len(named)
        self._check(tuple(tensor.shape), axes, lead)
        lengths = tuple(ops.shape(tensor))
        present = dict(zip(named, lengths[lead:], strict=True))
        examples = lengths[0] if lead == 1 else -1
        shape = [examples if "b" in axes and lead else 1, *(present.get(letter, 1) for letter in "nts")]
        tensor = ops.reshape(tensor, shape)
        if "b" in axes and lead:
            tensor = self.batch.of(tensor, 0)
        for axis, (letter, span) in enumerate((("n", self.heads), ("t", self.rows), ("s", self.columns)), start=1):
            if letter in axes:
                tensor = span.of(tensor, axis)
        return tensor

    def _check(self, shape: tuple, axes: str, lead: int) -> None:
        """Raise where a tensor cannot belong to these scores, as far as lengths are known: a backend might cut it to fit."""
        spans = {"b": self.batch, "n": self.heads, "t": self.rows, "s": self.columns}
        lengths = dict(zip(axes.replace("b", ""), shape[lead:], strict=True))
        first = shape[:lead]
        if "b" in axes and all(isinstance(length, int) for length in first):
            lengths["b"] = math.prod(first)
        for letter, length in lengths.items():
            total = spans[letter].total
            if length == 1 or not isinstance(length, int) or not isinstance(total, int) or length == total:
                continue
            if letter != "b" or total != 1:
                sizes = ", ".join(f"{name.upper()}={span.total}" for name, span in spans.items())
                raise ValueError(
                    "A mask, a bias and positions must fit the scores (B, N, T, S), or have length 1 where they are the same "
                    f"for all. Received: shape {shape} for {tuple(axes.upper())}, with {sizes}."
                )

    def query_positions(self, align: str = "end") -> Any:
        """Positions of the tile's queries, int32, shaped (..., t, 1).

        Args:
            align: "end" puts the last query at the last key (a single query against S keys is the last position); "start"
                puts the first query at the first key. Positions that were given are taken as they are.
        """
        if self.given_query_positions is not None:
            return self.align(ops.cast(self.given_query_positions, "int32"), "bt")
        positions = ops.expand_dims(self.rows.to_indices(), -1)
        return positions + ops.cast(self.offset, "int32") if align == "end" else positions

    def key_positions(self) -> Any:
        """Positions of the tile's keys, int32, shaped (..., 1, s)."""
        if self.given_key_positions is not None:
            return self.align(ops.cast(self.given_key_positions, "int32"), "bs")
        return ops.expand_dims(self.columns.to_indices(), 0)
