"""The place of a block among the scores of one attention call."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from keras import ops

from limelight.core.component import is_tensor
from limelight.core.shapes import is_one


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """A range of indices `start .. start + size - 1` out of `total`, or a list of them.

    Args:
        total: The length of the whole axis; an int, or a scalar tensor if it is only known at run time.
        start: The first index; an int or a scalar tensor.
        size: The length of the range, by default all. Must be an int if `start` is a tensor.
        indices: A list of indices in place of a range, or an int tensor of a known length.
    """

    total: Any
    start: Any = 0
    size: Any = None
    indices: Any = None

    @property
    def length(self) -> Any:
        """The number of indices."""
        if self.indices is not None:
            return self.indices.shape[0] if hasattr(self.indices, "shape") else len(self.indices)
        return self.total if self.size is None else self.size

    @property
    def is_full(self) -> bool:
        """True if this is the whole axis."""
        return self.indices is None and self.size is None

    def to_indices(self) -> Any:
        """Return the indices, int32 of shape (length,)."""
        if self.indices is not None:
            return ops.convert_to_tensor(self.indices, dtype="int32")
        return ops.arange(self.length, dtype="int32") + ops.cast(self.start, "int32")

    def take(self, tensor: Any, axis: int) -> Any:
        """Return these indices of a tensor along an axis. An axis of length 1 broadcasts and is left alone."""
        if self.is_full or is_one(tensor.shape[axis]):
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
    """The attention of earlier steps, for a layer that attends once for each step of a recurrence.

    Args:
        previous: The weights of the last step, (b, n, t, s).
        coverage: The sum of the weights of all earlier steps, (b, n, t, s).
        reached: For a normalizer that `needs_all_rows`, the weights of the last step that was permitted any key, (b, n, t, s);
            before the first such step, all on the first key.
    """

    previous: Any
    coverage: Any
    reached: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """A block of the scores (B, N, T, S), as it is given to scores, masks and normalizers.

    They see some queries and keys only, so that whatever depends on the position, the head or the example comes from the block.
    `Block.full(B, N, T, S)` covers all scores.

    Args:
        batch, heads, rows, columns: The slices along B, N, T and S.
        given_query_positions: Int positions of all queries, (T,) or (B, T); by default 0, 1, 2, ... aligned at the end.
        given_key_positions: Int positions of all keys, (S,) or (B, S); by default 0, 1, 2, ...
        kv_lengths: A function that returns the number of keys of each example up to its last real one, (B,), or None if that is
            S. A function, because it is rarely needed.
        history: The attention of earlier steps, if there are any.
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
    def full(cls, batch: Any, heads: Any, rows: Any, columns: Any, **fields: Any) -> "Block":
        """Return the block that covers all scores of the given lengths."""
        return cls(Slice(batch), Slice(heads), Slice(rows), Slice(columns), **fields)

    def replace(self, **slices: Slice) -> "Block":
        """Return this block with other slices."""
        return dataclasses.replace(self, **slices)

    @property
    def offset(self) -> Any:
        """The position of the first query if the last query is at the last key: S - T."""
        return self.columns.total - self.rows.total

    @property
    def has_positions(self) -> bool:
        """True if positions of queries or keys were given."""
        return self.given_query_positions is not None or self.given_key_positions is not None

    def slice(self, tensor: Any, axes: str) -> Any:
        """Slice a tensor to this block, in a shape that broadcasts against (b, n, t, s).

        Args:
            tensor: A tensor whose last axes are those named; "b" stands for any number of leading axes, or none.
            axes: Some of the letters "bnts" in that order, such as "bs" for a padding mask.

        Returns:
            A tensor of rank 4, of length 1 along the axes that are not named.

        Raises:
            ValueError: A length is neither that of the scores nor 1.
        """
        last_axes = axes.replace("b", "")
        num_leading = len(tensor.shape) - len(last_axes)
        self._check_shape(tuple(tensor.shape), axes, num_leading)
        shape = tuple(ops.shape(tensor))
        lengths = dict(zip(last_axes, shape[num_leading:], strict=True))
        batch = shape[0] if num_leading == 1 else -1
        tensor = ops.reshape(
            tensor, [batch if "b" in axes and num_leading else 1, *(lengths.get(letter, 1) for letter in "nts")]
        )
        if "b" in axes and num_leading:
            tensor = self.batch.take(tensor, 0)
        for axis, (letter, part) in enumerate((("n", self.heads), ("t", self.rows), ("s", self.columns)), start=1):
            if letter in axes:
                tensor = part.take(tensor, axis)
        return tensor

    def _check_shape(self, shape: tuple, axes: str, num_leading: int) -> None:
        """Raise if a tensor cannot fit the scores, as far as lengths are known. Some backends would crop it silently."""
        slices = {"b": self.batch, "n": self.heads, "t": self.rows, "s": self.columns}
        lengths = dict(zip(axes.replace("b", ""), shape[num_leading:], strict=True))
        leading = shape[:num_leading]
        if "b" in axes and all(isinstance(length, int) for length in leading):
            lengths["b"] = math.prod(leading)
        for letter, length in lengths.items():
            total = slices[letter].total
            if length == 1 or not isinstance(length, int) or not isinstance(total, int) or length == total:
                continue
            if letter != "b" or total != 1:
                sizes = ", ".join(f"{name.upper()}={part.total}" for name, part in slices.items())
                raise ValueError(
                    "A mask, a bias and positions must fit the scores (B, N, T, S): each axis has the same length as theirs, or "
                    f"length 1. Received: shape {shape} for the axes {tuple(axes.upper())}, with {sizes}."
                )

    def query_positions(self, align: str = "end") -> Any:
        """Return the positions of the block's queries, int32 of shape (..., t, 1).

        Args:
            align: "end" puts the last query at the last key (a single query against S keys is the last position); "start" puts
                the first query at the first key. Ignored if positions were given.
        """
        if self.given_query_positions is not None:
            return self.slice(ops.cast(self.given_query_positions, "int32"), "bt")
        positions = ops.expand_dims(self.rows.to_indices(), -1)
        if align == "start":
            return positions
        # An int, or a symbolic one of `torch.export`, stays what it is: as a tensor it would be a constant.
        return positions + (ops.cast(self.offset, "int32") if is_tensor(self.offset) else self.offset)

    def key_positions(self) -> Any:
        """Return the positions of the block's keys, int32 of shape (..., 1, s)."""
        if self.given_key_positions is not None:
            return self.slice(ops.cast(self.given_key_positions, "int32"), "bs")
        return ops.expand_dims(self.columns.to_indices(), 0)
