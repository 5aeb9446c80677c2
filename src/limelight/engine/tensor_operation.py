"""The description of a backend's operation for observers: which axes of the inputs become which axes of the output."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

# For each axis of a tensor, the labels of the axes that it consists of: several of a merged axis, none of a new one.
Axes = tuple[tuple[Any, ...], ...]


class TensorOperation(NamedTuple):
    """An operation of the backend that has run.

    Args:
        name: Its name on the backend, in lower case.
        inputs: The tensors that it received.
        output: The tensor that it returned; of several, the first.
        input_axes: The labels of the axes of each input. Axes with equal labels are summed or multiplied together, as in an
            einsum. None for an elementwise or unknown operation.
        output_axes: The labels of the axes of the output. What is in no output axis was summed.
        starts: The first index of each axis that was cut, by label.
    """

    name: str
    inputs: tuple[Any, ...]
    output: Any
    input_axes: tuple[Axes, ...] | None = None
    output_axes: Axes | None = None
    starts: Mapping[Any, int] = {}


class OperationObserver(Protocol):
    """Receives the operations of a backend in one thread."""

    def on_operation(self, operation: TensorOperation) -> Any:
        """Called after each operation; return what the caller receives in place of its output."""

    def on_softmax(self, result: Any, axis: Any, heads_in_batch: int = 1) -> Any:
        """Called after each softmax; return what the caller receives. So many heads are folded into the batch of the result."""

    def on_attention(self, arguments: dict[str, Any], output: Any) -> Any:
        """Called after each fused attention, with arguments named as in `ObservedAttention`; return what the caller receives."""

    def on_hidden_softmax(self) -> None:
        """Called after a softmax that ran inside something that hides its tensors."""

    def is_ignored(self) -> bool:
        """Return True if nothing needs to be observed now."""
        raise NotImplementedError

    def is_followed(self, tensors: Sequence[Any]) -> bool:
        """Return True if it matters what becomes of any of the tensors."""
        raise NotImplementedError

    def replaces_outputs(self) -> bool:
        """Return True if what `on_softmax` and `on_attention` return may differ from what they receive."""
        raise NotImplementedError


def label_axes(rank: int) -> Axes:
    """Label each axis by its number."""
    return tuple((axis,) for axis in range(rank))


def reduce_axes(rank: int, reduced: Sequence[int], keepdims: bool) -> Axes:
    """Return the axes of a sum over some axes."""
    removed = {axis % rank for axis in reduced} if rank else set()
    kept = [() if axis in removed else (axis,) for axis in range(rank)]
    return tuple(axis for axis in kept if keepdims or axis)


def reshape_axes(before: Sequence[int | None], after: Sequence[int | None]) -> Axes:
    """Return the axes of a reshaped tensor: a merged axis has several labels, the pieces of a divided axis have none."""
    axes: list[tuple[int, ...]] = [()] * len(after)
    i, j = len(before), len(after)
    while i > 0 and j > 0:
        left, right = [i - 1], [j - 1]
        size_left, size_right = before[i - 1], after[j - 1]
        while size_left != size_right or size_left is None:
            if size_left is None or size_right is None:
                left, right = list(range(i)), list(range(j))
                break
            side, is_left = (left, True) if size_left < size_right else (right, False)
            if min(side) == 0:
                left, right = list(range(i)), list(range(j))
                break
            side.insert(0, min(side) - 1)
            size = (before if is_left else after)[side[0]]
            product = size_left if is_left else size_right
            product = None if size is None else product * size
            size_left, size_right = (product, size_right) if is_left else (size_left, product)
        long = [axis for axis in right if after[axis] != 1]
        labels = tuple(axis for axis in left if before[axis] != 1) or tuple(left[:1])
        if len(right) == 1:
            axes[right[0]] = labels
        elif len(long) == 1:
            axes[long[0]] = labels
        i, j = left[0], right[0]
    return tuple(axes)


def matmul_axes(left: Sequence[int | None], right: Sequence[int | None]) -> tuple[tuple[Axes, ...], Axes]:
    """Return the axes of the inputs and of the output of a product of matrices, with batch axes that broadcast."""
    num_batch = max(len(left), len(right), 2) - 2

    def label(shape: Sequence[int | None], matrix: tuple[str, ...], own: str) -> list[tuple[Any, ...]]:
        if len(shape) == 1:
            return [(matrix[0] if own == "right" else matrix[1],)]
        batch: list[tuple[Any, ...]] = []
        for index, size in enumerate(shape[:-2]):
            axis = index + num_batch - (len(shape) - 2)
            # An axis of length 1 broadcasts.
            batch.append(((own, axis),) if size == 1 else (axis,))
        return [*batch, *((name,) for name in matrix)]

    axes_left, axes_right = label(left, ("row", "inner"), "left"), label(right, ("inner", "column"), "right")
    output: list[tuple[Any, ...]] = [(axis, ("left", axis), ("right", axis)) for axis in range(num_batch)]
    output += [("row",)] * (len(left) > 1) + [("column",)] * (len(right) > 1)
    return (tuple(axes_left), tuple(axes_right)), tuple(output)


def einsum_axes(equation: str, ranks: Sequence[int]) -> tuple[tuple[Axes, ...], Axes] | None:
    """Return the axes of the inputs and of the output of an einsum; None if the equation has another form."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        return None

    def expand(term: str, rank: int) -> str:
        # Ellipses align at the end.
        width = rank - len(term.replace("...", ""))
        return term.replace("...", "".join(chr(0x391 + index) for index in range(width))[::-1])

    if "..." in left:
        widths = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True) if "..." in term]
        terms = [expand(term, rank) for term, rank in zip(terms, ranks, strict=True)]
        right = expand(right, len(right.replace("...", "")) + max(widths))
    letters = "".join(terms)
    if not arrow:
        right = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    if any(len(term) != rank for term, rank in zip(terms, ranks, strict=True)):
        return None
    return tuple(tuple((letter,) for letter in term) for term in terms), tuple((letter,) for letter in right)
