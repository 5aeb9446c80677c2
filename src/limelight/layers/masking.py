"""Masks that are given to a layer as arrays."""

from typing import Any

from keras import ops

from limelight import masks
from limelight.layers.projections import Layout


def forbidden(
    layout: Layout, query_mask: Any, value_mask: Any, key_mask: Any, attention_mask: Any = None
) -> masks.Mask | None:
    """The mask of everything that the masks of one call forbid.

    Args:
        layout: how the axes of the call lie.
        query_mask, value_mask, key_mask: bool, of the steps, or None.
        attention_mask: bool, as the call takes it, or None.
    """
    mask = None
    for given in (value_mask, key_mask):
        if given is not None:
            mask = masks.both(mask, masks.Padding(keys=layout.steps(given)))
    if query_mask is not None:
        mask = masks.both(mask, masks.Padding(queries=layout.steps(query_mask)))
    if attention_mask is not None:
        mask = masks.both(mask, explicit(layout.mask(attention_mask), layout.queries, layout.keys))
    return mask


def explicit(array: Any, queries: tuple, keys: tuple, name: str = "attention_mask") -> masks.Mask:
    """The mask that an array stands for, in a layer whose queries and keys have the shapes (B, ..., T) and (B, ..., S).

    Args:
        array: bool, of shape (B, ..., T, S), (B, ..., N, T, S) or (T, S); an axis of length 1 broadcasts.
        queries, keys: the shapes of queries and keys without their features.
        name: what the argument is called.

    Raises:
        ValueError: numbers other than 0 and 1; an additive mask; a shape that is none of these, or that is two of them: a
            square matrix in a batch of as many examples could be (B, S) as well as (T, S).
    """
    array = masks.boolean(array, f"`{name}`")
    rank, full = len(array.shape), len(queries) + 1
    if rank == 2 and full > 2:
        if not plainly_square(tuple(array.shape), queries, keys):
            raise ValueError(
                f"`{name}` of two axes must be (T, S), and must not be mistakable for a padding mask (B, S). Received: shape "
                f"{tuple(array.shape)} with B={queries[0]}, T={queries[-1]}, S={keys[-1]}. Write {name}[None] for a (T, S) mask, "
                f"{name}[:, None] for a padding mask."
            )
        return masks.ArrayMask(array)
    if rank == full:
        return masks.ArrayMask(flattened(ops.expand_dims(array, -3), queries))
    if rank == full + 1:
        return masks.ArrayMask(flattened(array, queries))
    raise ValueError(
        f"`{name}` must have the shape (..., T, S) or (..., heads, T, S), {full} or {full + 1} axes here. Received: shape "
        f"{tuple(array.shape)}. Add the missing axes with length 1."
    )


def plainly_square(shape: tuple, queries: tuple, keys: tuple) -> bool:
    """Whether a shape of two axes can only be (T, S): the batch is known to be of another size than T."""
    for given, wanted in zip(shape, (queries[-1], keys[-1]), strict=True):
        if isinstance(given, int) and isinstance(wanted, int) and given not in (1, wanted):
            return False
    return isinstance(queries[0], int) and queries[0] != shape[0]


def flattened(array: Any, queries: tuple) -> Any:
    """A mask (B, ..., N, T, S) with its leading axes merged into one, as the scores have them."""
    lead = len(array.shape) - 3
    if lead < 2:
        return array
    shape = tuple(ops.shape(array))
    array = ops.broadcast_to(array, (*queries[:lead], *shape[lead:]))
    return ops.reshape(array, (-1, *shape[lead:]))
