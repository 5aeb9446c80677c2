"""What the kernels of backends do of a mask by themselves."""

from typing import TypeGuard, TypeVar

from limelight.core.block import Block
from limelight.masks import And, Causal, Mask, Padding, Prefix, both

Kind = TypeVar("Kind", bound=Mask)


def divided(mask: Mask | None, block: Block) -> tuple[bool, Mask | None, Mask | None, Mask | None]:
    """A mask as: whether it is causal as a kernel is, what concerns keys alone, what concerns queries alone, and the rest."""
    causal, keys, queries, rest = False, None, None, None
    for one in pieces(mask):
        if same(one, Causal) and as_kernel(one, block):
            causal = True
        elif same(one, Causal) and one.align == "end" and block.rows.total == 1 and not placed(block):
            continue
        elif same(one, Padding):
            keys = both(keys, None if one.keys is None else Padding(keys=one.keys))
            queries = both(queries, None if one.queries is None else Padding(queries=one.queries))
        elif same(one, Prefix):
            keys = both(keys, one)
        else:
            rest = both(rest, one)
    return causal, keys, queries, rest


def pieces(mask: Mask | None) -> list[Mask]:
    """The masks that a mask is the intersection of."""
    if mask is None:
        return []
    return [*pieces(mask.left), *pieces(mask.right)] if same(mask, And) else [mask]


def same(mask: Mask | None, kind: type[Kind]) -> TypeGuard[Kind]:
    """Whether a mask is of a kind; a subclass may permit something else."""
    return isinstance(mask, kind) and type(mask).__call__ is kind.__call__


def placed(block: Block) -> bool:
    """Whether positions were given."""
    return block.given_query_positions is not None or block.given_key_positions is not None


def as_kernel(mask: Causal, block: Block) -> bool:
    """Whether a causal mask is that of a kernel, where the first query stands at the first key."""
    return not placed(block) and (mask.align == "start" or block.rows.total == block.columns.total)
