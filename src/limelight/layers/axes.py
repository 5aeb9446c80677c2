"""The axes that a multi-head layer attends over, and the masks that a call gives as arrays."""

import dataclasses
import math
from typing import Any, Self

from keras import ops

from limelight import masks


@dataclasses.dataclass(frozen=True, eq=False)
class AxisLayout:
    """The roles of the axes in one call: some are attended over, the others are batch.

    Args:
        batch_axes: Axes of the input that are batch, the first included.
        attention_axes: Axes of the input that are attended over.
        query_shape: (B, ..., T), the attended axes merged into T.
        key_shape: (B, ..., S), the attended axes merged into S.
        query_lengths: Lengths of the query's attended axes, one by one.
        key_lengths: Lengths of the key's attended axes, one by one.
    """

    batch_axes: tuple[int, ...]
    attention_axes: tuple[int, ...]
    query_shape: tuple
    key_shape: tuple
    query_lengths: tuple
    key_lengths: tuple

    @classmethod
    def from_inputs(cls, query: Any, value: Any, attention_axes: tuple[int, ...]) -> Self:
        """Return the layout of a query (B, ..., D) and a value (B, ..., D)."""
        query_shape, value_shape = tuple(ops.shape(query)), tuple(ops.shape(value))
        batch_axes = tuple(axis for axis in range(len(query_shape) - 1) if axis not in attention_axes)
        batch_shape = tuple(query_shape[axis] for axis in batch_axes)
        query_lengths = tuple(query_shape[axis] for axis in attention_axes)
        key_lengths = tuple(value_shape[axis] for axis in attention_axes)
        return cls(
            batch_axes,
            attention_axes,
            (*batch_shape, _product(query_lengths)),
            (*batch_shape, _product(key_lengths)),
            query_lengths,
            key_lengths,
        )

    def move_heads_first(self, tensor: Any) -> Any:
        """Transpose projected heads (B, ..., N, H) to (B, ..., N, T, H), the attended axes merged into T."""
        rank, num_batch = len(tensor.shape), len(self.batch_axes)
        tensor = ops.transpose(tensor, (*self.batch_axes, rank - 2, *self.attention_axes, rank - 1))
        if len(self.attention_axes) == 1:
            return tensor
        shape = tuple(ops.shape(tensor))
        return ops.reshape(tensor, (*shape[: num_batch + 1], _product(shape[num_batch + 1 : -1]), shape[-1]))

    def move_heads_last(self, tensor: Any) -> Any:
        """Transpose an output (B, ..., N, T, V) to (B, ..., N, V), its axes in the order of the query's."""
        if len(self.attention_axes) > 1:
            shape = tuple(ops.shape(tensor))
            tensor = ops.reshape(tensor, (*shape[:-2], *self.query_lengths, shape[-1]))
        order = (*self.batch_axes, None, *self.attention_axes)
        rank = len(order) + 1
        return ops.transpose(tensor, (*(order.index(axis) for axis in range(rank - 2)), order.index(None), rank - 1))

    def split_weights(self, weights: Any) -> Any:
        """Reshape weights (B, ..., N, T, S) so that the attended axes are separate again."""
        if len(self.attention_axes) == 1:
            return weights
        return ops.reshape(weights, (*tuple(ops.shape(weights))[:-2], *self.query_lengths, *self.key_lengths))

    def merge_padding_mask(self, mask: Any) -> Any:
        """Reshape a mask of the input's positions, (B, ...) in the order of its axes, to (B, ..., T)."""
        num_batch = len(self.batch_axes)
        if len(mask.shape) < num_batch + len(self.attention_axes):
            return mask
        mask = ops.transpose(mask, (*self.batch_axes, *self.attention_axes))
        shape = tuple(ops.shape(mask))
        return ops.reshape(mask, (*shape[:num_batch], _product(shape[num_batch:])))

    def merge_attention_mask(self, mask: Any) -> Any:
        """Reshape a mask whose last axes are the attended ones of queries and keys to (..., T, S)."""
        mask = ops.convert_to_tensor(mask)
        num_axes = len(self.attention_axes)
        if num_axes == 1 or len(mask.shape) < 2 * num_axes:
            return mask
        leading = tuple(ops.shape(mask))[: -2 * num_axes]
        mask = ops.broadcast_to(mask, (*leading, *self.query_lengths, *self.key_lengths))
        return ops.reshape(mask, (*leading, _product(self.query_lengths), _product(self.key_lengths)))

    def combine_masks(
        self, query_mask: Any = None, value_mask: Any = None, key_mask: Any = None, attention_mask: Any = None
    ) -> masks.Mask | None:
        """Combine the masks of a call into one; None if all are None.

        Args:
            query_mask: Bool, True where a query is real.
            value_mask: Bool, True where a value is real.
            key_mask: Bool, True where a key is real.
            attention_mask: Bool, as the layer's call takes it.
        """
        mask = None
        for padding in (value_mask, key_mask):
            if padding is not None:
                mask = masks.intersect(mask, masks.Padding(keys=self.merge_padding_mask(padding)))
        if query_mask is not None:
            mask = masks.intersect(mask, masks.Padding(queries=self.merge_padding_mask(query_mask)))
        if attention_mask is not None:
            array = self.merge_attention_mask(attention_mask)
            mask = masks.intersect(mask, to_mask(array, self.query_shape, self.key_shape))
        return mask


def to_mask(array: Any, query_shape: tuple, key_shape: tuple) -> masks.Mask:
    """Return the mask that a layer's argument `attention_mask` stands for.

    Args:
        array: Bool, of shape (B, ..., T, S), (B, ..., N, T, S) or (T, S); an axis of length 1 broadcasts.
        query_shape: (B, ..., T).
        key_shape: (B, ..., S).

    Raises:
        ValueError: The mask is additive or holds other numbers than 0 and 1; its shape is none of these, or it is ambiguous: a
            square matrix in a batch of as many examples could be (B, S) as well as (T, S).
    """
    array = masks.as_bool(array, "`attention_mask`")
    rank, full_rank = len(array.shape), len(query_shape) + 1
    if rank == 2 and full_rank > 2:
        if not _is_unambiguous(tuple(array.shape), query_shape, key_shape):
            raise ValueError(
                "`attention_mask` with two axes must be (T, S), and must differ in shape from a padding mask (B, S). Received: "
                f"shape {tuple(array.shape)} with B={query_shape[0]}, T={query_shape[-1]}, S={key_shape[-1]}. Write "
                "attention_mask[None] for a (T, S) mask, attention_mask[:, None] for a padding mask."
            )
        return masks.ArrayMask(array)
    if rank == full_rank:
        return masks.ArrayMask(_merge_leading(ops.expand_dims(array, -3), query_shape))
    if rank == full_rank + 1:
        return masks.ArrayMask(_merge_leading(array, query_shape))
    raise ValueError(
        f"`attention_mask` must have the shape (..., T, S) or (..., heads, T, S), {full_rank} or {full_rank + 1} axes here. "
        f"Received: shape {tuple(array.shape)}. Add the missing axes with length 1."
    )


def _is_unambiguous(shape: tuple, query_shape: tuple, key_shape: tuple) -> bool:
    """Return True if a shape of two axes can only be (T, S): the batch size is known and differs from T."""
    for length, expected in zip(shape, (query_shape[-1], key_shape[-1]), strict=True):
        if isinstance(length, int) and isinstance(expected, int) and length not in (1, expected):
            return False
    return isinstance(query_shape[0], int) and query_shape[0] != shape[0]


def _merge_leading(array: Any, query_shape: tuple) -> Any:
    """Merge the leading axes of a mask (B, ..., N, T, S) into one, as those of the scores are."""
    num_leading = len(array.shape) - 3
    if num_leading < 2:
        return array
    shape = tuple(ops.shape(array))
    array = ops.broadcast_to(array, (*query_shape[:num_leading], *shape[num_leading:]))
    return ops.reshape(array, (-1, *shape[num_leading:]))


def _product(lengths: tuple) -> Any:
    return lengths[0] if len(lengths) == 1 else math.prod(lengths)
