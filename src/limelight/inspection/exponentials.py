r"""Softmaxes that a model writes itself: exponentials that are divided by their sum, before or after they weigh the values.

Each tensor that comes from exponentials $e$ has a form: "exponentials", "sum" ($\sum e$), "inverse" ($1 / \sum e$), "log_sum",
"log_weights" ($x - \log \sum e$), "product" ($\sum e v$) or "segment_sum", a sum over the segments of a graph.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from limelight.engine.tensor_operation import TensorOperation, label_axes
from limelight.inspection.layouts import FollowedTensor, WeightUse

# The names of operations on all backends.
_EXP = ("exp", "exp_", "exp2")
_LOG = ("log", "log_")
_LOG_SUM = ("logsumexp",)
_LOG_SOFTMAX = ("log_softmax", "logsoftmax")
_DIVIDE = ("div", "div_", "divide", "true_divide", "truediv", "realdiv", "divnonan", "__truediv__", "__itruediv__")
_INVERT = ("reciprocal", "inv", "__rtruediv__", "__rdiv__")
_MULTIPLY = ("mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__")
_SUBTRACT = ("sub", "sub_", "subtract", "__sub__", "__isub__")
_SEGMENT_SUM = ("segment", "scatter", "index_add")
# Of a sum they make something else.
_NOT_LINEAR = ("sqrt", "rsqrt", "pow", "__pow__", "integer_pow", "square", "tanh", "sigmoid", "logistic")


@dataclasses.dataclass(eq=False)
class Exponentials:
    """Exponentials, which stand in for a softmax as long as they may become one.

    Args:
        layer: the layer in which they were computed, or None.
        use: how a product uses them.
        used: those that the product uses, after a mask for example.
        keys, is_followed: as of a softmax.
    """

    layer: Any = None
    use: WeightUse | None = None
    used: FollowedTensor | None = None
    keys: tuple[int, ...] = ()
    is_followed: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class NormalizedExponentials:
    """A softmax that an operation completes.

    Args:
        keys: its axes.
        exponentials: those that must yet be divided by their sum, as the model divides the product; None if `output` is the
            softmax.
        use: how the product uses them.
        is_hidden: True if the sum is over the segments of a graph, so that no axis is that of the keys.
    """

    keys: tuple[int, ...]
    exponentials: Any = None
    use: WeightUse | None = None
    is_hidden: bool = False


def find_softmax(operation: TensorOperation, sources: Sequence[FollowedTensor | None]) -> NormalizedExponentials | None:
    """Return the softmax that an operation completes, or None."""
    forms = [None if source is None else source.form for source in sources]
    name = operation.name
    if name in _EXP and forms[:1] == ["log_weights"]:
        return _softmax(sources[0], sources[0].summed, operation)  # pyright: ignore
    if len(forms) < 2 or sources[0] is None or sources[1] is None or sources[0].pending is not sources[1].pending:
        return None
    left, right = sources[0], sources[1]
    if name in _MULTIPLY and left.form == "inverse":
        left, right = right, left
    divides = (name in _DIVIDE and right.form == "sum") or (name in _MULTIPLY and right.form == "inverse")
    if divides and left.form == "exponentials" and left.factor_axes is None:
        return _softmax(left, right.summed, operation)
    if divides and left.form in ("exponentials", "product") and left.pending.used is not None:
        used = left.pending.used
        keys = _axes_from(used, right.summed)
        return NormalizedExponentials(keys, used.tensor, left.pending.use) if keys else None
    if name in _DIVIDE and right.form == "segment_sum" and left.form in ("exponentials", "product"):
        return NormalizedExponentials((), is_hidden=True)
    return None


def follow(operation: TensorOperation, sources: Sequence[FollowedTensor | None]) -> FollowedTensor | None:
    """Return the output of an operation if its form is another than those of its inputs, and it is to be followed; or None."""
    name, output = operation.name, operation.output
    first = sources[0] if sources else None
    rank = len(getattr(output, "shape", ()))
    if name in _EXP and (first is None or first.form != "weights"):
        return FollowedTensor(output, Exponentials(), label_axes(rank), form="exponentials")
    if name in _LOG_SUM and first is None and operation.output_axes is not None:
        labels = {label for axes in operation.output_axes for label in axes}
        summed = frozenset(range(len(operation.inputs[0].shape))) - labels
        return FollowedTensor(output, Exponentials(), operation.output_axes, form="log_sum", summed=summed)
    if name in _LOG_SOFTMAX and operation.output_axes is not None:
        # Its axes are described as those of the sum.
        summed = frozenset(axis for axis, labels in enumerate(operation.output_axes) if not labels)
        return FollowedTensor(output, Exponentials(), label_axes(rank), form="log_weights", summed=summed)
    second = sources[1] if len(sources) > 1 else None
    if first is not None and first.form == "sum" and name in _LOG:
        return dataclasses.replace(first, tensor=output, form="log_sum")
    if name in _SUBTRACT and second is not None and second.form == "log_sum" and len(second.axes) == rank:
        keys = [axis for axis, origins in enumerate(second.axes) if not origins and output.shape[axis] != 1]
        return FollowedTensor(output, Exponentials(), label_axes(rank), form="log_weights", summed=frozenset(keys))
    if first is not None and first.form == "sum" and name in _INVERT:
        return dataclasses.replace(first, tensor=output, form="inverse")
    if name in _DIVIDE and first is None and second is not None and second.form == "sum":
        return dataclasses.replace(second, tensor=output, form="inverse")
    for source in sources:
        if source is not None and source.form in ("exponentials", "product") and _is_segment_sum(name):
            return dataclasses.replace(source, tensor=output, form="segment_sum", axes=((),) * rank)
        if source is not None and source.form == "segment_sum":
            return dataclasses.replace(source, tensor=output, axes=((),) * rank)
    return None


def ends(operation: TensorOperation, sources: Sequence[FollowedTensor | None]) -> bool:
    """Return True if an operation makes something else of exponentials or their sum, so that no softmax comes of it."""
    followed = [source for source in sources if source is not None and source.form != "weights"]
    if not followed or operation.name in _EXP:
        return False
    squares = operation.name in _MULTIPLY and len(followed) == 2 and followed[0].form == followed[1].form
    return squares or operation.name in _NOT_LINEAR


def multiply(source: FollowedTensor, output: Any, use: WeightUse) -> FollowedTensor | None:
    """Return the product of exponentials and values."""
    if source.form != "exponentials":
        return None
    source.pending.use = use
    if source.factor_axes is None:
        source.pending.used = source
    return dataclasses.replace(source, tensor=output, form="product", axes=((),) * len(getattr(output, "shape", ())))


def sum_axes(source: FollowedTensor, summed: frozenset[int]) -> FollowedTensor | None:
    """Return the sum of exponentials over some axes."""
    if source.form not in ("exponentials", "sum"):
        return None
    return dataclasses.replace(source, form="sum", summed=source.summed | summed)


def _softmax(source: Any, summed: frozenset[int], operation: TensorOperation) -> NormalizedExponentials | None:
    if len(source.axes) != len(operation.output.shape):
        return None
    keys = _axes_from(source, summed)
    return NormalizedExponentials(keys) if keys else None


def _axes_from(source: FollowedTensor, summed: frozenset[int]) -> tuple[int, ...]:
    """Return the axes of a tensor that were summed in another one."""
    return tuple(axis for axis, origins in enumerate(source.axes) if origins and set(origins) <= summed)


def _is_segment_sum(name: str) -> bool:
    return any(word in name for word in _SEGMENT_SUM)
