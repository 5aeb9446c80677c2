"""Tell attention from predictions wherever a softmax is called.

A softmax computes attention weights or class probabilities. Weights are consumed inside the model; probabilities leave it. So a
softmax whose result leaves the model, and is used by no layer, is a prediction. A softmax inside a custom layer that consumes the
result, and a softmax along another axis than the last, is attention. Any other softmax between layers is attention if its axis is
as long as a sequence in the model.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from limelight import normalizers
from limelight.inspection._observed_attention import ObservedAttention
from limelight.inspection.exponentials import NormalizedExponentials
from limelight.inspection.layouts import Layout, WeightUse, infer_layout
from limelight.inspection.recorder import SOFTMAX_LAYERS, Record, Recorder

# Layers that return their input in another form.
_PASS_THROUGH = (
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Permute,
    keras.layers.Reshape,
)
_ROUTER_WORDS = {"router", "routers", "gate", "gates", "gating", "expert", "experts"}
_SEGMENTS = (
    "it divides exponentials by sums over the segments of a graph, so that its weights have no axis of keys. Describe it with "
    "limelight.inspection.register_adapter"
)


@dataclasses.dataclass(eq=False)
class PendingSoftmax:
    """A softmax that may still turn out to be a prediction, and whose axes are not known yet.

    Args:
        layer: the layer that it belongs to.
        result: its result.
        keys: its axes.
        results: its result and the tensors that this was passed through as, by id; holding them keeps the ids valid.
        is_custom: True if the layer is not Keras's own, and so may consume the result unseen.
        needs_sequence: True if it is attention only if its axis is that of a sequence.
        is_used: True once another layer has used the result.
        use: the product that uses it, once it was seen.
        is_followed: True until a product has summed its keys.
        heads_in_batch: the number of heads that are folded into its batch.
        is_router: True if it chooses between experts.
        positions: where it stands among the outputs of the step of a loop.
        batch_size: the number of examples that its layer received, or None.
    """

    layer: Any
    result: Any
    keys: tuple[int, ...]
    results: dict[int, Any]
    is_custom: bool
    needs_sequence: bool
    is_used: bool = False
    use: WeightUse | None = None
    is_followed: bool = True
    heads_in_batch: int = 1
    is_router: bool = False
    positions: tuple[int, ...] = ()
    batch_size: int | None = None

    @property
    def length(self) -> int | None:
        """The length of its last axis; None if it differs from call to call."""
        return self.result.shape[self.keys[-1]]

    def is_prediction(self, output_ids: set[int], sequence_lengths: set[int | None]) -> bool:
        """Decide, from the ids of the tensors that leave the model and the lengths of the sequences in it."""
        leaves = bool(output_ids & set(self.results)) and not self.is_used
        return leaves or (self.needs_sequence and self.length not in sequence_lengths)


def replace_softmax(get_axis: Callable[..., Any]) -> Callable[..., Any]:
    """Return what stands in for a softmax; `get_axis` returns the axis from the arguments, or None if it is none."""

    def softmax(recorder: Recorder, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        axis = get_axis(*args, **kwargs)
        if axis is None or normalizers.is_internal_softmax():
            return original(*args, **kwargs)
        if recorder.is_muted or not recorder.is_hidden():
            with recorder.muted():
                result = original(*args, **kwargs)
            return record_softmax(recorder, result, axis)
        # `jax.vmap` passes its operations on to the trace around it, where they are seen.
        count = len(recorder.records)
        result = original(*args, **kwargs)
        return record_softmax(recorder, result, axis) if len(recorder.records) == count else result

    return softmax


def record_normalized(recorder: Recorder, output: Any, softmax: NormalizedExponentials) -> Any:
    """Record a softmax that the model has written itself, and return what the model is to use in place of the output."""
    if recorder.is_muted or not recorder.stack:
        return output
    if softmax.is_hidden:
        layer, _ = _find_layer(recorder)
        path = recorder.path(layer)
        if recorder.matches(path):
            recorder.skip(path, type(layer).__name__, _SEGMENTS)
        return output
    if not ops.is_tensor(output):
        recorder.observer.on_hidden_softmax()
        return output
    if softmax.exponentials is None:
        return record_softmax(recorder, output, softmax.keys)
    with recorder.muted():
        weights = softmax.exponentials / ops.sum(softmax.exponentials, axis=softmax.keys, keepdims=True)
    record_softmax(recorder, weights, softmax.keys, softmax.use)
    return output


def record_softmax(
    recorder: Recorder, result: Any, axis: Any, use: WeightUse | None = None, heads_in_batch: int = 1
) -> Any:
    """Record the result of a softmax as pending, and return what the model is to use in its place.

    Args:
        recorder: the recorder.
        result: the result.
        axis: its axis or axes.
        use: how the model has used it, if it exists only in a product.
        heads_in_batch: the number of heads that are folded into its batch, if the backend says so.
    """
    if recorder.is_muted or not recorder.stack:
        return result
    rank = len(result.shape)
    axes = axis if isinstance(axis, (list, tuple)) else [-1 if axis is None else axis]
    if rank < 2 or len(axes) == rank:
        return result
    keys = tuple(sorted(index % rank for index in axes))
    layer, is_custom = _find_layer(recorder)
    needs_sequence = not is_custom and keys[-1] == rank - 1
    pending = PendingSoftmax(
        layer, result, keys, {id(result): result}, is_custom, needs_sequence, heads_in_batch=heads_in_batch
    )
    pending.batch_size = recorder.batch_size
    record = recorder.record(layer, None, pending)
    if record is None:
        return result
    if use is not None:
        pending.use, pending.is_followed = use, False
        return result
    recorder.follow(pending, result)
    output = recorder.intervene(record, result, lambda tensor: get_layout(recorder, pending).to_heads(tensor))
    if output is not result:
        pending.results[id(output)] = output
        recorder.follow(pending, output)
    return output


def get_layout(recorder: Recorder, pending: PendingSoftmax) -> Layout:
    """Return the layout of a softmax: the user's if it has as many axes, or else the one that its use shows."""
    sizes = tuple(pending.result.shape)
    if recorder.layout is not None and recorder.layout.rank == len(sizes):
        return recorder.layout
    heads_in_batch = max(recorder.heads_in_batch, pending.heads_in_batch)
    return infer_layout(sizes, pending.keys, pending.use, heads_in_batch, pending.batch_size)


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
    return isinstance(operation, SOFTMAX_LAYERS) or not isinstance(operation, keras.Layer)


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
    for record in (*recorder.records, *recorder.unmatched):
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
    """Drop the softmaxes that turn out to be predictions, given the outputs of a model."""
    output_ids = {id(leaf) for leaf in keras.tree.flatten(outputs)}
    recorder.followed.clear()

    def finish(record: Record, pending: PendingSoftmax) -> Record | None:
        if _is_attention(recorder, pending, output_ids):
            return _finish(recorder, record)
        recorder.predictions[record.path] += 1
        return None

    for record in recorder.unmatched:
        if not _is_attention(recorder, record.pending, output_ids):
            recorder.predictions[record.path] += 1
    recorder.unmatched.clear()
    _replace_pending(recorder, finish)


def finish_step(recorder: Recorder, outputs: Any) -> None:
    """Finish the softmaxes of a step of a loop. One that the step returns stays pending: the loop's results may be used yet."""
    leaves = [id(leaf) for leaf in keras.tree.flatten(outputs)]

    def finish(record: Record, pending: PendingSoftmax) -> Record | None:
        positions = tuple(index for index, number in enumerate(leaves) if number in pending.results)
        if positions and not pending.is_used:
            pending = dataclasses.replace(pending, results={}, positions=positions)
            return dataclasses.replace(_finish(recorder, record), pending=pending)
        return _finish(recorder, record) if _is_attention(recorder, pending, set()) else None

    _replace_pending(recorder, finish)


def _replace_pending(recorder: Recorder, finish: Callable[[Record, PendingSoftmax], Record | None]) -> None:
    """Replace each record of a pending softmax by what `finish` returns; None drops it."""
    with recorder.muted():
        records = [record if record.pending is None else finish(record, record.pending) for record in recorder.records]
    recorder.records[:] = [record for record in records if record is not None]


def _is_attention(recorder: Recorder, pending: PendingSoftmax, output_ids: set[int]) -> bool:
    """Return True if a softmax is no prediction; nor a router between experts, unless the user names layers."""
    is_wanted = recorder.layers is not None or not (pending.is_router or _names_router(pending.layer))
    return is_wanted and not pending.is_prediction(output_ids, recorder.sequence_lengths)


def _names_router(layer: Any) -> bool:
    """Return True if the name of a layer, or of its class, says that it chooses between experts."""
    names = f"{type(layer).__name__} {getattr(layer, 'name', '')}"
    words = {word.lower() for word in re.findall("[A-Z]?[a-z]+", names)}
    return "attention" not in names.lower() and ("moe" in names.lower() or bool(words & _ROUTER_WORDS))


def _finish(recorder: Recorder, record: Record) -> Record:
    """Return the record of a softmax that is attention, now that its use is known."""
    if record.call is not None:  # of a loop, whose steps are finished
        return dataclasses.replace(record, pending=None)
    layout = get_layout(recorder, record.pending)
    if not layout.is_certain:
        recorder.note_layout(record, layout)
    weights = layout.to_heads(record.pending.result)
    return dataclasses.replace(
        record, call=ObservedAttention(weights=weights).to_call(record.pending.layer), pending=None
    )
