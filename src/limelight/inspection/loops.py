"""Layers that run once for each step of a sequence: in RNN cells, in `TimeDistributed`, in Keras's loops.

The body of a loop may be traced on its own, and its tensors can leave it only as results of the loop. So each body also returns
what was recorded in it, the loop stacks it, and one record with all steps remains.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from limelight.engine import backend
from limelight.engine.call import AttentionCall
from limelight.inspection import softmaxes
from limelight.inspection._observed_attention import ObservedAttention, export_call
from limelight.inspection.recorder import Record, Recorder


@dataclasses.dataclass(frozen=True, eq=False)
class StepRecord:
    """A record of the body of a loop, in the form in which a loop can return it.

    Args:
        record: the record.
        tensors, settings: as from `export_call`; once stacked, tensors have the steps as their first axis.
    """

    record: Record
    tensors: dict[str, Any]
    settings: dict[str, Any]

    @classmethod
    def from_record(cls, record: Record) -> "StepRecord":
        """Export a record; of a single query the weights, which are fewer numbers than its keys."""
        call: Any = record.call
        return cls(record, *export_call(call, as_weights=call.query.shape[2] == 1))

    def map_tensors(self, function: Callable[[Any], Any]) -> "StepRecord":
        """Apply a function to all tensors that have an axis of steps."""
        tensors = {name: x if name == "vector" else function(x) for name, x in self.tensors.items()}
        return dataclasses.replace(self, tensors=tensors)

    def with_tensors(self, tensors: dict[str, Any]) -> "StepRecord":
        """Replace the tensors."""
        return dataclasses.replace(self, tensors=tensors)


class LoopBody:
    """The body of a loop, and what each of its runs recorded.

    Args:
        recorder: the recorder.
        function: the body.
        get_outputs: returns, from its results, those that the loop returns for each step, not those passed to the next step.
    """

    def __init__(
        self,
        recorder: Recorder,
        function: Callable[..., Any],
        get_outputs: Callable[[Any], Any] = lambda results: results,
    ) -> None:
        self.recorder, self.function, self.get_outputs = recorder, function, get_outputs
        self.runs: list[tuple[Any, list[StepRecord]]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        recorder = self.recorder
        rnn_loop, recorder.rnn_loop = recorder.rnn_loop, None
        with recorder.loop_body() as records, backend.active().observe_loop_body(recorder.observer):
            outputs = self.function(*args, **kwargs)
            softmaxes.finish_step(recorder, self.get_outputs(outputs))
            with recorder.muted():
                steps = [StepRecord.from_record(record) for record in records]
                self.runs.append((backend.active().trace_state(), steps))
        recorder.rnn_loop = rnn_loop
        return outputs

    @property
    def last_run(self) -> list[StepRecord]:
        """The records of the last run."""
        return self.runs[-1][1] if self.runs else []

    def stack_runs(self, count: Any = None) -> list[StepRecord]:
        """Stack the records of the last `count` runs, if these ran one after the other and not in a loop of the backend."""
        runs = self.runs[-count:] if isinstance(count, int) else self.runs
        steps = [records for trace_state, records in runs if trace_state == backend.active().trace_state()]
        if len(steps) < len(runs) or len({tuple(each.record.path for each in records) for records in steps}) > 1:
            for record in {each.record.path: each.record for _, records in runs for each in records}.values():
                self.recorder.skip(
                    record.path, record.layer, "it runs inside a loop of the backend, which hides its tensors"
                )
            return []
        return [stack_steps(records) for records in zip(*steps, strict=True)]


@dataclasses.dataclass(eq=False)
class RNNLoop:
    """An RNN that is running.

    Args:
        body: its step function.
        num_steps: an int or a scalar tensor.
        records: the records of all steps, if the backend's own loop returned them.
        in_input_order: True if these follow the input although the loop began at its end.
    """

    body: LoopBody
    num_steps: Any
    records: list[StepRecord] | None = None
    in_input_order: bool = False


def stack_steps(steps: Sequence[StepRecord]) -> StepRecord:
    """Stack records of single steps."""
    first = steps[0].tensors
    tensors = {
        name: first[name] if name == "vector" else ops.stack([step.tensors[name] for step in steps]) for name in first
    }
    return steps[0].with_tensors(tensors)


def emit(recorder: Recorder, steps: Sequence[StepRecord], mask: Any = None, outputs: Sequence[Any] = ()) -> None:
    """Add stacked records to the recorder.

    If a step has one query, the steps become the queries: (B, N, steps, S). Else they become an axis after the batch.

    Args:
        recorder: the recorder.
        steps: the stacked records.
        mask: bool (B, steps), True where a step is real.
        outputs: what the loop returned, structures like the outputs of a step.
    """
    for step in steps:
        if step.record.pending is not None:
            for structure in outputs:
                leaves = keras.tree.flatten(structure)
                step.record.pending.results.update(
                    (id(leaves[index]), leaves[index]) for index in step.record.pending.positions
                )
        step = step.map_tensors(lambda tensor: ops.moveaxis(tensor, 0, 1))
        fields = {**step.tensors, **step.settings}
        weights = fields.get("weights")
        if weights is not None and weights.shape[-2] == 1:
            fields = {"weights": ops.moveaxis(ops.squeeze(weights, -2), 1, -2), "queries": mask}
        recorder.records.append(dataclasses.replace(step.record, call=ObservedAttention(**fields).to_call()))


def join_steps(records: Sequence[Record]) -> list[Record]:
    """Join the records of the steps of each loop in Python into one: (B, N, steps, S)."""
    return [group[0] if len(group) == 1 else _join_group(group) for group in group_steps(records)]


def group_steps(records: Sequence[Record]) -> list[list[Record]]:
    """Group the records of the steps of each loop in Python.

    A layer that is called again and again from one place in the code of another one, with one query each time, attends in a loop.
    """
    groups: list[list[Record]] = []
    depths: list[int | None] = []
    for record in records:
        for index, group in enumerate(groups):
            depth = _find_loop(group[0], record)
            if depth is not None and depths[index] in (None, depth):
                group.append(record)
                depths[index] = depth
                break
        else:
            groups.append([record])
            depths.append(None)
    return groups


def _find_loop(first: Record, record: Record) -> int | None:
    """Return the depth of the layer in whose loop two records are steps, or None."""
    calls = (first.call, record.call)
    if first.path != record.path or first.site is None or record.site is None or None in calls:
        return None
    if not all(isinstance(call, AttentionCall) and call.query.shape[2] == 1 for call in calls):
        return None
    shapes = {(*call.query.shape[:2], call.key.shape[2], len(call.leading_shape)) for call in calls}
    return first.site.find_loop(record.site) if len(shapes) == 1 else None


def _join_group(records: Sequence[Record]) -> Record:
    weights = [StepRecord.from_record(record).tensors["weights"] for record in records]
    observed = ObservedAttention(weights=ops.concatenate(weights, axis=-2))
    return dataclasses.replace(records[0], call=observed.to_call(records[0].call.layer))


def rnn(recorder: Recorder, original: Callable[..., Any], step: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand in for the backend's `rnn`: the cell runs once for each step."""
    time_major = bool(kwargs.get("time_major"))
    mask = kwargs.get("mask")
    if mask is not None:
        mask = ops.squeeze(mask, -1) if len(mask.shape) == 3 else mask
        mask = ops.transpose(mask) if time_major else mask
    num_steps = ops.shape(keras.tree.flatten(inputs)[0])[0 if time_major else 1]
    body = LoopBody(recorder, step, lambda results: results[0])
    loop = RNNLoop(body, num_steps)
    outer, recorder.rnn_loop = recorder.rnn_loop, loop
    try:
        outputs = original(body, inputs, *args, **kwargs)
    finally:
        recorder.rnn_loop = outer
    with recorder.muted():
        records = body.stack_runs(num_steps) if loop.records is None else loop.records
        if kwargs.get("go_backwards") and not loop.in_input_order:
            records = [_reverse(record) for record in records]
        emit(recorder, records, mask, outputs[:2])
    return outputs


def scan(recorder: Recorder, original: Callable[..., Any], f: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand in for the backend's `scan` where it is a loop in Python."""
    body = LoopBody(recorder, f, lambda results: results[1])
    results = original(body, *args, **kwargs)
    with recorder.muted():
        records = body.stack_runs()
        records = [_reverse(record) for record in records] if kwargs.get("reverse") else records
        emit(recorder, records, outputs=results[1:])
    return results


def _reverse(record: StepRecord) -> StepRecord:
    """Put the steps in the order of the input, after a loop that began at its end."""
    return record.map_tensors(lambda tensor: ops.flip(tensor, 0))


def vectorized_map(recorder: Recorder, original: Callable[..., Any], function: Any, elements: Any) -> Any:
    """Stand in for the backend's `vectorized_map` and `map`: the body runs once, for all elements."""
    body = LoopBody(recorder, function)
    unmuted = contextlib.nullcontext if recorder.is_muted else recorder.unmuted

    def with_records(element: Any) -> Any:
        with unmuted():
            outputs = body(element)
        return {"outputs": outputs, "records": [step.tensors for step in body.last_run]}

    # What the backend makes of the body is the same attention again.
    with recorder.muted():
        results = original(with_records, elements)
    with recorder.muted():
        steps = zip(body.last_run, results["records"], strict=True)
        emit(recorder, [step.with_tensors(tensors) for step, tensors in steps], outputs=[results["outputs"]])
    return results["outputs"]


def time_distributed(
    recorder: Recorder, original: Callable[..., Any], layer: Any, inputs: Any, *args: Any, **kwargs: Any
) -> Any:
    """Stand in for `TimeDistributed.call`: its layer runs once for each step, in a Python loop if their number is known."""
    # It calls its layer's `call`, which does not pass through `Operation.__call__`.
    inner = recorder.inside(layer.layer)
    num_steps = inputs.shape[1]
    if num_steps is None:
        with inner:
            return original(layer, inputs, *args, **kwargs)
    with recorder.loop_body() as records, inner:
        outputs = original(layer, inputs, *args, **kwargs)
        softmaxes.update_pending(recorder, layer, (inputs,), {}, outputs)
        softmaxes.drop_predictions(recorder, outputs)
        with recorder.muted():
            steps = [StepRecord.from_record(record) for record in records]
    per_step = len(steps) // num_steps
    with recorder.muted():
        emit(recorder, [stack_steps(steps[first::per_step]) for first in range(per_step)])
    return outputs
