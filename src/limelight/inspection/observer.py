"""Follow weights through the operations of the backend until a product uses them."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from keras import ops

from limelight import normalizers
from limelight.engine.tensor_operation import TensorOperation
from limelight.inspection import exponentials, softmaxes
from limelight.inspection._observed_attention import ObservedAttention
from limelight.inspection.layouts import FollowedTensor, WeightUse
from limelight.inspection.recorder import Recorder

# A mixture of experts takes the largest weights of its router.
_TOP_K = ("topk", "top_k", "topkv2", "approx_top_k")


class Observer:
    """Observes the operations of the backend for a recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def is_ignored(self) -> bool:
        """Return True while nothing is recorded."""
        recorder = self.recorder
        return recorder.is_muted or not recorder.stack or normalizers.is_internal_softmax()

    def is_followed(self, tensors: Any) -> bool:
        """Return True if any of the tensors was computed from weights."""
        followed = self.recorder.followed
        return bool(followed) and any(id(tensor) in followed for tensor in tensors)

    def replaces_outputs(self) -> bool:
        """Return True if what `on_softmax` returns may differ from the result."""
        return self.recorder.intervention is not None

    def on_softmax(self, result: Any, axis: Any, heads_in_batch: int = 1) -> Any:
        """Record a softmax."""
        with self._noting_records():
            return softmaxes.record_softmax(self.recorder, result, axis, heads_in_batch=heads_in_batch)

    def on_hidden_softmax(self) -> None:
        """Remember that a softmax ran inside something that hides its tensors."""
        recorder = self.recorder
        if not recorder.is_in_loop:
            path, layer = recorder.path(), recorder.stack[-1]
            if recorder.matches(path):
                recorder.skip_hidden(path, type(layer).__name__)

    @contextlib.contextmanager
    def _noting_records(self) -> Iterator[None]:
        """Note that what is recorded inside needs an observer, and is not hidden: JAX may have traced the function before."""
        recorder = self.recorder
        count, num_numbered = len(recorder.records), len(recorder.numbered)
        yield
        if len(recorder.records) > count:
            recorder.forget_hidden(recorder.records[-1])
        recorder.is_observed |= len(recorder.numbered) > num_numbered

    def on_attention(self, arguments: dict[str, Any], output: Any) -> Any:
        """Record a fused attention."""
        with self._noting_records():
            return record_attention(self.recorder, arguments, output)

    def on_operation(self, operation: TensorOperation) -> Any:
        """Follow weights and exponentials among the inputs into the output, and return what the model is to use in its place."""
        followed = self.recorder.followed
        sources = [followed.get(id(x)) for x in operation.inputs] if followed else ()
        for source in sources:
            if operation.name in _TOP_K and source is not None and source.form == "weights":
                source.pending.is_router = True
        softmax = exponentials.find_softmax(operation, sources)
        if softmax is not None:
            with self._noting_records():
                return softmaxes.record_normalized(self.recorder, operation.output, softmax)
        source = exponentials.follow(operation, sources)
        if source is not None:
            source.pending.layer = self.recorder.innermost_layer()
        elif not exponentials.ends(operation, sources):
            source = next((each for each in sources if each is not None), None)
            source = None if source is None else _follow(self.recorder, source, operation)
        followed.pop(id(operation.output), None)
        if source is not None and source.pending.is_followed:
            followed[id(operation.output)] = source
        return operation.output


def record_attention(recorder: Recorder, arguments: dict[str, Any], output: Any) -> Any:
    """Record a fused attention of the backend, and return what the model is to use in place of its output.

    Args:
        recorder: the recorder.
        arguments: the fields of an `ObservedAttention`, and `value`; with `heads_first=False` heads come third, (B, T, N, H).
        output: the output.
    """
    if recorder.is_muted or not recorder.stack:
        return output
    arguments = dict(arguments)
    is_first = arguments.pop("heads_first", True)
    value = arguments.pop("value")

    def to_heads(tensor: Any) -> Any:
        if len(tensor.shape) == 3:
            return ops.expand_dims(tensor, -3)
        return tensor if is_first else ops.transpose(tensor, (0, 2, 1, 3))

    def observe() -> ObservedAttention:
        fields = {name: to_heads(arguments[name]) for name in ("query", "key")}
        return ObservedAttention(**{**arguments, **fields})

    record = recorder.record(recorder.stack[-1], observe)
    return recorder.intervene(record, output, to_heads, lambda: to_heads(value))


def replace_attention(get_arguments: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """Return what stands in for a fused attention of a backend; `get_arguments` returns what `record_attention` takes."""

    def attention(recorder: Recorder, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with recorder.muted():
            output = original(*args, **kwargs)
        if normalizers.is_internal_softmax():
            return output
        return record_attention(recorder, get_arguments(*args, **kwargs), output)

    return attention


def _follow(recorder: Recorder, source: FollowedTensor, operation: TensorOperation) -> FollowedTensor | None:
    """Return the output of an operation with the axes of its source; None if it is no longer to be followed."""
    index = next(index for index, x in enumerate(operation.inputs) if x is source.tensor)
    others = [number for number in range(len(operation.inputs)) if number != index]
    if operation.input_axes is None or operation.output_axes is None:
        return _through_elementwise(source, operation, others)
    return _through_axes(recorder, source, operation, index, others)


def _through_elementwise(
    source: FollowedTensor, operation: TensorOperation, others: list[int]
) -> FollowedTensor | None:
    """Follow weights through an elementwise operation, by the rules of broadcasting; None if it is no such operation."""
    before, after = _shape(source.tensor), _shape(operation.output)
    offset = len(after) - len(before)
    if offset < 0 or any(size not in (1, after[axis + offset]) for axis, size in enumerate(before)):
        return None
    axes: list[tuple[Any, ...]] = [()] * offset
    for axis, size in enumerate(before):
        axes.append(source.axes[axis] if size == after[axis + offset] else ())
    new = [axis for axis, origins in enumerate(axes) if not origins and after[axis] != 1]
    factor_axes = source.factor_axes
    for number in others:
        shape = _shape(operation.inputs[number])
        long = {axis + len(after) - len(shape) for axis, size in enumerate(shape) if size != 1}
        if set(new) & long:
            # Not a mask or a sum of the row: these have no other axes than the weights.
            factor_axes = frozenset(origin for axis in long for origin in axes[axis])
            if source.form == "exponentials" and source.factor_axes is None:
                source.pending.used = source
    return dataclasses.replace(source, tensor=operation.output, axes=tuple(axes), factor_axes=factor_axes)


def _through_axes(
    recorder: Recorder, source: FollowedTensor, operation: TensorOperation, index: int, others: list[int]
) -> FollowedTensor | None:
    """Follow weights through an operation that says what becomes of their axes; None if they are used up."""
    input_axes: Any = operation.input_axes
    output_axes: Any = operation.output_axes
    origins: dict[Any, tuple[int, ...]] = {}
    for labels, axes in zip(input_axes[index], source.axes, strict=True):
        for label in labels:
            origins[label] = axes
    kept = {label for labels in output_axes for label in labels}
    summed = frozenset(origin for label, axes in origins.items() if label not in kept for origin in axes)
    other_labels = {label for number in others for labels in input_axes[number] for label in labels}
    if source.form == "product" and other_labels:
        return None
    start, size = source.start, source.size
    for label, first in operation.starts.items():
        axis = next((axis for axis, labels in enumerate(output_axes) if label in labels), None)
        if axis is None or origins.get(label) != source.pending.keys:
            continue
        length = _shape(operation.output)[axis]
        if length != _shape(source.tensor)[input_axes[index].index((label,))]:
            start, size = start + first, length
    if summed and (other_labels or source.factor_axes is not None):
        shared = source.factor_axes or frozenset()
        shared |= {origin for label in other_labels for origin in origins.get(label, ())}
        use = WeightUse(frozenset(shared - summed), summed, start, size)
        if source.form != "weights":
            return exponentials.multiply(source, operation.output, use)
        recorder.use(source.pending, use)
        return None
    axes = tuple(tuple(origin for label in labels for origin in origins.get(label, ())) for labels in output_axes)
    followed = dataclasses.replace(source, tensor=operation.output, axes=axes, start=start, size=size)
    return exponentials.sum_axes(followed, summed) if summed and source.form != "weights" else followed


def _shape(tensor: Any) -> tuple[int | None, ...]:
    return tuple(getattr(tensor, "shape", ()))
