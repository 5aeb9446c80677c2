"""A mask split into what fused kernels implement and the rest."""

from typing import NamedTuple, TypeGuard, TypeVar

from limelight.core.block import Block
from limelight.core.shapes import is_one
from limelight.masks import And, Causal, Mask, Padding, Prefix, intersect

Kind = TypeVar("Kind", bound=Mask)


class DecomposedMask(NamedTuple):
    """The intersection of masks that is equal to a mask; None stands for a mask that permits everything.

    Args:
        is_causal: True if one of them is the causal mask of kernels, whose first query is at the first key.
        keys: What depends on the example and the key alone.
        queries: What depends on the example and the query alone.
        rest: Everything else.
    """

    is_causal: bool
    keys: Mask | None
    queries: Mask | None
    rest: Mask | None


def decompose_mask(mask: Mask | None, block: Block) -> DecomposedMask:
    """Split the mask of a call, of which `block` covers all scores."""
    is_causal, keys, queries, rest = False, None, None, None
    for part in _intersected(mask):
        if _is_exactly(part, Causal) and _is_kernel_causal(part, block):
            is_causal = True
        elif _is_exactly(part, Causal) and part.align == "end" and is_one(block.rows.total) and not block.has_positions:
            continue  # The only query is the last one, which may attend to all keys.
        elif _is_exactly(part, Padding):
            keys = intersect(keys, None if part.keys is None else Padding(keys=part.keys))
            queries = intersect(queries, None if part.queries is None else Padding(queries=part.queries))
        elif _is_exactly(part, Prefix):
            keys = intersect(keys, part)
        else:
            rest = intersect(rest, part)
    return DecomposedMask(is_causal, keys, queries, rest)


def _intersected(mask: Mask | None) -> list[Mask]:
    """Return the masks that a mask is the intersection of."""
    if mask is None:
        return []
    return [*_intersected(mask.left), *_intersected(mask.right)] if _is_exactly(mask, And) else [mask]


def _is_exactly(mask: Mask | None, cls: type[Kind]) -> TypeGuard[Kind]:
    """Return True if a mask behaves like this class. A subclass that overrides `__call__` may permit something else."""
    return isinstance(mask, cls) and type(mask).__call__ is cls.__call__


def _is_kernel_causal(mask: Causal, block: Block) -> bool:
    return not block.has_positions and (mask.align == "start" or block.rows.total == block.columns.total)
