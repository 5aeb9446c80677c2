"""Layouts of weights: which axes of a softmax are batch, heads, queries and keys."""

import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import Any

from keras import ops

from limelight.core.shapes import shape_of
from limelight.engine.tensor_operation import Axes


@dataclasses.dataclass(frozen=True)
class WeightUse:
    """The use of weights by a product.

    Args:
        shared: the axes that the values have too: batch and heads.
        contracted: the axes that are summed: keys.
        start, size: the range of keys that is used; the rest is a sink.
    """

    shared: frozenset[int]
    contracted: frozenset[int]
    start: int = 0
    size: int | None = None


@dataclasses.dataclass(frozen=True)
class Layout:
    """The axes of weights by what they mean.

    Args:
        batch, heads, queries, keys: numbers of axes. Several heads, queries or keys become one axis.
        heads_in_batch: the number of heads that vary fastest along the first axis of the batch.
        start, size: the range of keys to keep.
        is_certain: False if the layout is the usual one, and not known.
    """

    batch: tuple[int, ...]
    heads: tuple[int, ...]
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    heads_in_batch: int = 1
    start: int = 0
    size: int | None = None
    is_certain: bool = True

    @classmethod
    def parse(cls, letters: str, heads_in_batch: int = 1) -> "Layout":
        """Make a layout from a letter for each axis: b batch, n heads, t queries, s keys, any other a further batch axis.

        Raises:
            ValueError: a letter stands twice, or there is no s.
        """
        if not letters.isalpha() or len(set(letters)) < len(letters) or "s" not in letters:
            raise ValueError(
                "`layout` must have one letter for each axis of the weights, with s for the keys: b batch, n heads, t queries, "
                f'as in "btns"; any other letter is a further batch axis. Received: layout={letters!r}.'
            )
        numbers = {letter: letters.index(letter) for letter in letters}
        named = {letter: (numbers[letter],) if letter in numbers else () for letter in "bnts"}
        others = tuple(axis for letter, axis in numbers.items() if letter not in "bnts")
        return cls(named["b"] + others, named["n"], named["t"], named["s"], heads_in_batch)

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len((*self.batch, *self.heads, *self.queries, *self.keys))

    @property
    def names(self) -> list[str]:
        """The meaning of each axis."""
        names = {axis: name for name in ("batch", "heads", "queries", "keys") for axis in getattr(self, name)}
        return [names[axis] for axis in sorted(names)]

    def to_heads(self, tensor: Any) -> Any:
        """Transpose a tensor of this layout to (B, ..., N, T, S)."""
        order = (*self.batch, *self.heads, *self.queries, *self.keys)
        sizes = shape_of(tensor)
        tensor = tensor if order == tuple(range(len(order))) else ops.transpose(tensor, order)
        batch = [sizes[axis] for axis in self.batch] or [1]
        heads = _product([sizes[axis] for axis in self.heads])
        if self.heads_in_batch > 1:
            batch[0], heads = -1, heads * self.heads_in_batch
        merged = [
            *batch,
            heads,
            _product([sizes[axis] for axis in self.queries]),
            _product([sizes[axis] for axis in self.keys]),
        ]
        if (
            len(merged) != len(sizes)
            or self.heads_in_batch > 1
            or max(map(len, (self.heads, self.queries, self.keys))) > 1
        ):
            tensor = ops.reshape(tensor, merged)
        return tensor if self.size is None else tensor[..., self.start : self.start + self.size]


@dataclasses.dataclass(frozen=True, eq=False)
class FollowedTensor:
    """Weights or exponentials, or a tensor that was computed from them.

    Args:
        tensor: it; holding it keeps its id valid.
        pending: the softmax, or the exponentials, that it came from.
        axes: for each axis, the axes of the weights that it consists of.
        factor_axes: the axes that the values have too, if the weights have been multiplied by values.
        start, size: the range of keys that is left.
        form: what it is, if it came from exponentials; see `inspection.exponentials`.
        summed: the axes that were summed, if it came from exponentials.
    """

    tensor: Any
    pending: Any
    axes: Axes
    factor_axes: frozenset[int] | None = None
    start: int = 0
    size: int | None = None
    form: str = "weights"
    summed: frozenset[int] = frozenset()


def check_layout(layout: str | None, heads_in_batch: int) -> None:
    """Check the arguments that describe a layout.

    Raises:
        ValueError: `layout` has no keys or a letter twice, or `heads_in_batch` is below 1.
    """
    if layout is not None:
        Layout.parse(layout)
    if heads_in_batch < 1:
        raise ValueError(f"`heads_in_batch` must be at least 1. Received: heads_in_batch={heads_in_batch}.")


def infer_layout(
    sizes: Sequence[int | None],
    keys: tuple[int, ...],
    use: WeightUse | None,
    heads_in_batch: int = 1,
    batch_size: int | None = None,
) -> Layout:
    """Infer the layout of weights from the product that uses them.

    The axes that the values have too are batch and heads, of which the batch is the one with the size of the batch, and an axis
    that they do not have is the queries. Without a product, or where it leaves a choice, the layout is the usual one:
    (B, ..., N, T, S).

    Args:
        sizes: the lengths of the axes.
        keys: the axes of the softmax.
        use: how the weights are used, if it was seen.
        heads_in_batch: as in `Layout`.
        batch_size: the number of examples that the layer receives, or None if it is unknown or differs from call to call.
    """
    others = [axis for axis in range(len(sizes)) if axis not in keys]
    long = [axis for axis in others if sizes[axis] != 1]
    if use is None or not use.contracted or (heads_in_batch > 1 and len(sizes) == 3):
        return _usual_layout(others, long, keys, heads_in_batch)
    if not use.contracted & set(keys):
        # A softmax along the queries, as in external attention: what is summed has the place of the queries.
        queries = [axis for axis in others if axis in use.contracted]
        shared = [axis for axis in others if axis not in queries]
        batch, heads = (shared[:1], shared[1:]) if 0 in shared else ([], shared)
        return Layout(tuple(batch), tuple(heads), tuple(queries), keys, heads_in_batch)
    all_shared = [axis for axis in others if axis in use.shared]
    # The first axis is the batch, but for groups of heads that `jax.vmap` has put in front.
    is_batch_first = 0 in others and (0 in use.shared or len(all_shared) < 2)
    first = others[:1] if is_batch_first else all_shared[:1]
    is_certain = True
    if heads_in_batch == 1:
        # An axis of length 1 is one that the values may have too.
        candidates = [axis for axis in others if axis in use.shared or (sizes[axis] == 1 and axis != others[-1])]
        first, is_certain = _find_batch(sizes, first, candidates, batch_size)
    free = [axis for axis in others if axis not in use.shared and axis not in first]
    shared = [axis for axis in others if axis in use.shared and axis not in first]
    free_long = [axis for axis in free if axis in long] or free
    queries = free_long[-len(keys) :]
    if len(free_long) > len(keys) and not shared:
        # Values without heads: queries are as many as keys in self-attention, and nothing else tells them from heads.
        equal = [axis for axis in free_long if sizes[axis] is not None and sizes[axis] == sizes[keys[-1]]]
        is_clear = len(keys) == len(equal) == 1
        queries, is_certain = (equal, is_certain) if is_clear else (queries, False)
    groups = [axis for axis in free if axis not in queries]
    heads = sorted([*shared[-1:], *groups], key=lambda axis: (axis < min(first, default=0), axis))
    batch = [*first, *shared[:-1]]
    return Layout(
        tuple(batch), tuple(heads), tuple(queries), keys, heads_in_batch, use.start, use.size, is_certain=is_certain
    )


def _find_batch(
    sizes: Sequence[int | None], usual: list[int], candidates: list[int], batch_size: int | None
) -> tuple[list[int], bool]:
    """Return the axis of the batch among those that the values have too, and True if nothing else can be meant."""
    fitting = [axis for axis in candidates if sizes[axis] == batch_size]
    length = sizes[usual[0]] if usual else 1
    if length in (1, batch_size) or len(candidates) < 2 or (batch_size is None and len(fitting) != 1):
        return usual, True
    # Windows or steps may be folded into the batch.
    may_be_folded = length is None or (bool(batch_size) and length % batch_size == 0)
    if len(fitting) == 1:
        return fitting, not may_be_folded
    return usual, may_be_folded


def _usual_layout(others: list[int], long: list[int], keys: tuple[int, ...], heads_in_batch: int) -> Layout:
    """Return the layout (B, ..., N, T, S) with the batch first and the queries last."""
    if 0 in keys and len(others) == 1:
        return Layout((), (), tuple(others), keys, heads_in_batch)
    batch, rest = others[:1], others[1:]
    queries, heads = rest[-len(keys) :], rest[: -len(keys)]
    is_certain = len([axis for axis in rest if axis in long]) < 2
    return Layout(tuple(batch), tuple(heads), tuple(queries), keys, heads_in_batch, is_certain=is_certain)


def _product(sizes: Sequence[Any]) -> Any:
    return functools.reduce(operator.mul, sizes, 1)
