"""Telling attention from prediction wherever a softmax is called.

A softmax makes weights, or it makes class probabilities. Weights are used up inside the model; probabilities leave it. So a
softmax whose result leaves the model, and is used by no layer, is a prediction. A softmax inside a layer that somebody wrote,
which the layer uses up, and a softmax along another axis than the last, is attention. What else a softmax between layers may be
is told by its length: attention runs along a sequence, and there is a sequence of that length in the model.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from limelight import normalizers
from limelight.inspection.observation import Observation
from limelight.inspection.recorder import Recorder

# Layers that pass on what they get, in another form.
_PASSING = (
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Permute,
    keras.layers.Reshape,
)


@dataclasses.dataclass(eq=False)
class Doubt:
    """What is not known yet of a softmax.

    Args:
        owner: the layer that it belongs to.
        length: how long its axis is, as far as that is known (None where it differs from call to call).
        results: its result, and what that was passed on as. By id; the tensors are held so that the ids stay theirs.
        written: whether somebody wrote the owner, which may use the result up where nobody sees it.
        along: whether the axis must be that of a sequence.
        used: whether another layer took the result.
    """

    owner: Any
    length: int | None
    results: dict[int, Any]
    written: bool
    along: bool
    used: bool = False

    def prediction(self, given: set[int], lengths: set[int | None]) -> bool:
        """Whether it is one, seen from the tensors (by id) that leave a model and the lengths of the sequences in it."""
        leaves = bool(given & set(self.results)) and not self.used
        return leaves or (self.along and self.length not in lengths)


def function(recorder: Recorder, original: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
    """A softmax of Keras, or of the backend, that somebody calls."""
    if normalizers.is_inner():
        return original(x, *args, **kwargs)
    with recorder.muted():
        result = original(x, *args, **kwargs)
    return noticed(recorder, result, args[0] if args else kwargs.get("axis", kwargs.get("dim", -1)))


def noticed(recorder: Recorder, result: Any, axis: Any) -> Any:
    """Record the result of a softmax, until it turns out to be a prediction, and return what the model goes on with."""
    if not recorder.listening or not recorder.stack:
        return result
    rank = len(result.shape)
    axes = sorted(one % rank for one in (axis if isinstance(axis, (list, tuple)) else [-1 if axis is None else axis]))
    if rank < 2 or axes[0] == 0:
        return result
    owner, written = _owner(recorder)
    doubt = Doubt(
        owner, result.shape[axes[-1]], {id(result): result}, written, along=not written and axes[-1] == rank - 1
    )
    multi_head = isinstance(owner, keras.layers.MultiHeadAttention)

    def laid_out(tensor: Any) -> Any:
        weights = layout(tensor, axes, grouped=not multi_head)
        return ops.expand_dims(weights, -3) if len(weights.shape) == 3 else weights

    record = recorder.record(owner, lambda: Observation(weights=laid_out(result)), doubt)
    passed = recorder.touched(record, result, laid_out)
    doubt.results[id(passed)] = passed
    return passed


def layout(weights: Any, axes: list[int], grouped: bool = True) -> Any:
    """Weights as (B, N, T, S): the softmax's axes last and as one, heads before queries.

    Of more axes, `grouped` takes those between examples and queries as groups of heads (B, K, G, T, S); else they stay.
    """
    rank = len(weights.shape)
    others = [axis for axis in range(rank) if axis not in axes]
    if rank == 4 and axes == [2]:
        others = [0, 3, 1]  # from (B, T, S, N)
    weights = ops.transpose(weights, (*others, *axes))
    if len(axes) > 1:
        weights = ops.reshape(weights, (*tuple(ops.shape(weights))[: len(others)], -1))
    if len(weights.shape) > 4 and grouped:
        shape = tuple(ops.shape(weights))
        return ops.reshape(weights, (shape[0], -1, *shape[-2:]))
    return weights[:, None, None] if len(weights.shape) == 2 else weights


def _owner(recorder: Recorder) -> tuple[Any, bool]:
    """The layer that a softmax belongs to, and whether somebody wrote it."""
    stack = list(recorder.stack)
    owner = stack.pop()
    while stack and _only_softmax(owner) and not isinstance(stack[-1], keras.Model):
        owner = stack.pop()
    kinds = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention, keras.layers.Attention)
    if isinstance(owner, kinds):
        return owner, True
    return owner, not (isinstance(owner, keras.Model) or type(owner).__module__.split(".")[0] == "keras")


def _only_softmax(operation: Any) -> bool:
    kinds = (keras.layers.Softmax, keras.layers.Activation)
    return isinstance(operation, kinds) or not isinstance(operation, keras.Layer)


def follow(recorder: Recorder, operation: Any, args: tuple, kwargs: dict[str, Any], outputs: Any) -> None:
    """Take note of what an operation took and gave: sequences, and the results of softmaxes."""
    taken = [leaf for leaf in keras.tree.flatten((args, kwargs)) if ops.is_tensor(leaf)]
    given = [leaf for leaf in keras.tree.flatten(outputs) if ops.is_tensor(leaf)]
    for tensor in (*taken, *given):
        recorder.lengths.update(sequence_lengths(tensor))
    for record in recorder.records:
        doubt = record.doubt
        if doubt is None:
            continue
        if doubt.owner is operation and doubt.written:
            # A layer that gives its softmax alone leaves the use of it to others; one that gives anything else has used it.
            doubt.along = all(id(tensor) in doubt.results for tensor in given)
            doubt.results = doubt.results if doubt.along else {}
        elif any(id(tensor) in doubt.results for tensor in taken):
            doubt.used = doubt.used or not isinstance(operation, _PASSING)
            if isinstance(operation, _PASSING):
                doubt.results.update({id(tensor): tensor for tensor in given})
        elif (
            isinstance(operation, keras.layers.TimeDistributed) and doubt.owner is operation.layer and not doubt.written
        ):
            # It stacks what its layer gives for each step.
            doubt.results.update({id(tensor): tensor for tensor in given})


def sequence_lengths(tensor: Any) -> tuple[int | None, ...]:
    """Lengths of the axes of a tensor that may be sequences: all between batch and features, and the only one of ids."""
    shape = tuple(tensor.shape)
    if len(shape) == 2 and "float" not in keras.backend.standardize_dtype(tensor.dtype):
        return shape[1:]
    return shape[1:-1]


def settle(recorder: Recorder, outputs: Any) -> None:
    """Drop the softmaxes that turned out to be predictions, once it is known what a model, or a step of a loop, gives."""
    given = {id(leaf) for leaf in keras.tree.flatten(outputs)}
    recorder.records[:] = [
        dataclasses.replace(record, doubt=None)
        for record in recorder.records
        if record.doubt is None or not record.doubt.prediction(given, recorder.lengths)
    ]
