"""Tell attention from predictions wherever a softmax is called.

A softmax computes attention weights or class probabilities. Weights are consumed inside the model; probabilities leave it. So a
softmax whose result leaves the model, and is used by no layer, is a prediction. A softmax inside a custom layer that consumes the
result, and a softmax along another axis than the last, is attention. Any other softmax between layers is attention if its axis is
as long as a sequence in the model.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from limelight import normalizers
from limelight.inspection._observed_attention import ObservedAttention
from limelight.inspection.recorder import Recorder

# Layers that return their input in another form.
_PASS_THROUGH = (
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Permute,
    keras.layers.Reshape,
)


@dataclasses.dataclass(eq=False)
class PendingSoftmax:
    """A softmax that may still turn out to be a prediction.

    Args:
        layer: the layer that it belongs to.
        length: the length of its axis; None if it differs from call to call.
        results: its result and the tensors that this was passed through as, by id; holding them keeps the ids valid.
        is_custom: True if the layer is not Keras's own, and so may consume the result unseen.
        needs_sequence: True if it is attention only if its axis is that of a sequence.
        is_used: True once another layer has used the result.
    """

    layer: Any
    length: int | None
    results: dict[int, Any]
    is_custom: bool
    needs_sequence: bool
    is_used: bool = False

    def is_prediction(self, output_ids: set[int], sequence_lengths: set[int | None]) -> bool:
        """Decide, from the ids of the tensors that leave the model and the lengths of the sequences in it."""
        leaves = bool(output_ids & set(self.results)) and not self.is_used
        return leaves or (self.needs_sequence and self.length not in sequence_lengths)


def softmax(recorder: Recorder, original: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand in for a softmax of Keras or of the backend."""
    if normalizers.is_internal_softmax():
        return original(x, *args, **kwargs)
    with recorder.muted():
        result = original(x, *args, **kwargs)
    return record_softmax(recorder, result, args[0] if args else kwargs.get("axis", kwargs.get("dim", -1)))


def record_softmax(recorder: Recorder, result: Any, axis: Any) -> Any:
    """Record the result of a softmax as pending, and return what the model is to use in its place."""
    if recorder.is_muted or not recorder.stack:
        return result
    rank = len(result.shape)
    axes = axis if isinstance(axis, (list, tuple)) else [-1 if axis is None else axis]
    axes = sorted(index % rank for index in axes)
    if rank < 2 or axes[0] == 0:
        return result
    layer, is_custom = _find_layer(recorder)
    needs_sequence = not is_custom and axes[-1] == rank - 1
    pending = PendingSoftmax(layer, result.shape[axes[-1]], {id(result): result}, is_custom, needs_sequence)
    merge_groups = not isinstance(layer, keras.layers.MultiHeadAttention)

    def to_heads(tensor: Any) -> Any:
        weights = _to_weights(tensor, axes, merge_groups)
        return ops.expand_dims(weights, -3) if len(weights.shape) == 3 else weights

    record = recorder.record(layer, lambda: ObservedAttention(weights=to_heads(result)), pending)
    output = recorder.intervene(record, result, to_heads)
    pending.results[id(output)] = output
    return output


def _to_weights(tensor: Any, axes: list[int], merge_groups: bool) -> Any:
    """Transpose the result of a softmax to weights (B, N, T, S): its axes last, as one, and heads before queries.

    With `merge_groups`, any axes between B and T are groups of heads, (B, K, G, T, S), and merged; without, they stay.
    """
    rank = len(tensor.shape)
    others = [axis for axis in range(rank) if axis not in axes]
    if rank == 4 and axes == [2]:
        others = [0, 3, 1]  # from (B, T, S, N)
    weights = ops.transpose(tensor, (*others, *axes))
    if len(axes) > 1:
        weights = ops.reshape(weights, (*tuple(ops.shape(weights))[: len(others)], -1))
    if len(weights.shape) > 4 and merge_groups:
        shape = tuple(ops.shape(weights))
        return ops.reshape(weights, (shape[0], -1, *shape[-2:]))
    return weights[:, None, None] if len(weights.shape) == 2 else weights


def _find_layer(recorder: Recorder) -> tuple[Any, bool]:
    """Return the layer that a softmax belongs to, and True if it is custom or one of Keras's that attend."""
    *outer, layer = recorder.stack
    while outer and _only_computes_softmax(layer) and not isinstance(outer[-1], keras.Model):
        layer = outer.pop()
    attention_layers = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention, keras.layers.Attention)
    if isinstance(layer, attention_layers):
        return layer, True
    return layer, not (isinstance(layer, keras.Model) or type(layer).__module__.split(".")[0] == "keras")


def _only_computes_softmax(operation: Any) -> bool:
    softmax_layers = (keras.layers.Softmax, keras.layers.Activation)
    return isinstance(operation, softmax_layers) or not isinstance(operation, keras.Layer)


def update_pending(recorder: Recorder, operation: Any, args: tuple, kwargs: dict[str, Any], outputs: Any) -> None:
    """Update what is known of sequences and of pending softmaxes after an operation of the model has run."""
    input_tensors, output_tensors = (
        [leaf for leaf in keras.tree.flatten(structure) if ops.is_tensor(leaf)]
        for structure in ((args, kwargs), outputs)
    )
    for tensor in (*input_tensors, *output_tensors):
        recorder.sequence_lengths.update(_get_sequence_lengths(tensor))
    results = {id(tensor): tensor for tensor in output_tensors}
    is_time_distributed = isinstance(operation, keras.layers.TimeDistributed)
    for record in recorder.records:
        pending = record.pending
        if pending is None:
            continue
        if pending.layer is operation and pending.is_custom:
            # A layer that returns its softmax alone leaves the use to others; one that returns anything else has used it.
            returns_softmax = all(number in pending.results for number in results)
            pending.needs_sequence = returns_softmax
            pending.results = pending.results if returns_softmax else {}
        elif any(id(tensor) in pending.results for tensor in input_tensors):
            if isinstance(operation, _PASS_THROUGH):
                pending.results.update(results)
            else:
                pending.is_used = True
        elif not pending.is_custom and is_time_distributed and operation.layer is pending.layer:
            # It stacks what its layer returns for each step.
            pending.results.update(results)


def _get_sequence_lengths(tensor: Any) -> tuple[int | None, ...]:
    """Return the lengths of axes that may be sequences: those between batch and features, or the only one of ids."""
    shape = tuple(tensor.shape)
    if len(shape) == 2 and "float" not in keras.backend.standardize_dtype(tensor.dtype):
        return shape[1:]
    return shape[1:-1]


def drop_predictions(recorder: Recorder, outputs: Any) -> None:
    """Drop the softmaxes that turn out to be predictions, given the outputs of a model or of a step of a loop."""
    output_ids = {id(leaf) for leaf in keras.tree.flatten(outputs)}
    recorder.records[:] = [
        dataclasses.replace(record, pending=None)
        for record in recorder.records
        if record.pending is None or not record.pending.is_prediction(output_ids, recorder.sequence_lengths)
    ]
