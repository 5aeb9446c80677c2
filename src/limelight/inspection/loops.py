"""Layers that run once for each step of a sequence: in RNN cells, in `TimeDistributed`, in Keras's loops.

The body of a loop may be traced apart, and its tensors cannot leave it but as results of the loop. So each body gives what was
recorded in it as well, and the loop stacks it: one record with all steps.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops
from keras.src import backend

from limelight.inspection import softmaxes, tracing
from limelight.inspection.observation import Observation
from limelight.inspection.recorder import Record, Recorder

# Parts of an observation that are the same for every step.
_CONSTANT = ("scale", "vector")


@dataclasses.dataclass(eq=False)
class Loop:
    """An RNN that runs.

    Args:
        body: its step function.
        count: how many steps there are; an int or a scalar tensor.
        mask: bool (B, steps), True where a step is real.
        records: all steps, where the backend's own loop was gone into.
    """

    body: "Body"
    count: Any
    mask: Any = None
    records: list[Record] | None = None


def table() -> list[tuple[Any, str, Callable[..., Any]]]:
    """The loops of Keras, and those of the backend under them, whose bodies are seen into."""
    found = [
        (backend, "rnn", rnn),
        (backend, "vectorized_map", mapped),
        (backend.core, "vectorized_map", mapped),
        (backend.core, "map", mapped),
        (keras.layers.TimeDistributed, "call", time_distributed),
    ]
    if keras.backend.backend() == "jax":
        import jax

        return [*found, (jax.lax, "scan", jax_scan)]
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        return [*found, (backend.core, "scan", python_scan), (tensorflow, "while_loop", tensorflow_while)]
    return [*found, (backend.core, "scan", python_scan)]


class Body:
    """A function that runs once for each step, and what each run recorded."""

    def __init__(self, recorder: Recorder, function: Callable[..., Any]) -> None:
        self.recorder, self.function = recorder, function
        self.runs: list[tuple[Any, list[Record]]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        recorder = self.recorder
        loop, recorder.loop = recorder.loop, None
        with recorder.collecting():
            outputs = self.function(*args, **kwargs)
            # What a step gives is a prediction where it is a softmax; what it hands on to the next step is not.
            softmaxes.settle(recorder, outputs[0] if isinstance(outputs, tuple) else outputs)
            with recorder.muted():
                self.runs.append((tracing.state(), [lean(record) for record in recorder.records]))
        recorder.loop = loop
        return outputs

    @property
    def last(self) -> list[Record]:
        """What the last run recorded."""
        return self.runs[-1][1] if self.runs else []

    def stacked(self, count: Any = None) -> list[Record]:
        """The records of the last `count` runs with the steps as their first axis, where the runs followed one another."""
        runs = self.runs[-count:] if isinstance(count, int) else self.runs
        kept = [records for state, records in runs if state == tracing.state()]
        if len(kept) < len(runs) or len({tuple(one.path for one in records) for records in kept}) > 1:
            for record in {record.path: record for _, records in runs for record in records}.values():
                self.recorder.note(
                    record.path, record.layer, "it runs inside a loop of the backend that hides its tensors"
                )
            return []
        return [stacked(steps) for steps in zip(*kept, strict=True)]


def lean(record: Record) -> Record:
    """A record of one step as it is best stacked: of a single query the weights, which are fewer numbers than its keys."""
    query = record.seen.query
    if query is None or query.shape[-2] != 1:
        return record
    return dataclasses.replace(record, seen=record.seen.answered())


def stacked(steps: Sequence[Record]) -> Record:
    """Records of single steps as one, with the steps as the first axis."""
    tensors, _ = steps[0].seen.split()
    return with_tensors(
        steps[0],
        {
            name: value if name in _CONSTANT else ops.stack([getattr(step.seen, name) for step in steps])
            for name, value in tensors.items()
        },
    )


def with_tensors(record: Record, tensors: dict[str, Any]) -> Record:
    """A record with other tensors."""
    return dataclasses.replace(record, seen=dataclasses.replace(record.seen, **tensors))


def tensors_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The tensors of records, as a loop can give them."""
    return [record.seen.split()[0] for record in records]


def deliver(recorder: Recorder, records: Sequence[Record], mask: Any = None) -> None:
    """Record observations of all steps, whose tensors have the steps as their first axis.

    Where a step has one query, the steps become the queries: (B, N, steps, S). Else they are an axis after the batch.
    """
    for record in records:
        tensors, _ = record.seen.split()
        moved = {name: value if name in _CONSTANT else ops.moveaxis(value, 0, 1) for name, value in tensors.items()}
        weights = moved.get("weights")
        if weights is not None and weights.shape[-2] == 1:
            seen = Observation(weights=ops.moveaxis(ops.squeeze(weights, -2), 1, -2), queries=mask)
            recorder.add(dataclasses.replace(record, seen=seen))
        else:
            recorder.add(with_tensors(record, moved))


def rnn(recorder: Recorder, original: Callable[..., Any], step: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """An RNN: its cell attends once for each step."""
    major = bool(kwargs.get("time_major"))
    mask = kwargs.get("mask")
    if mask is not None:
        mask = ops.squeeze(mask, -1) if len(mask.shape) == 3 else mask
        mask = ops.transpose(mask) if major else mask
    count = ops.shape(keras.tree.flatten(inputs)[0])[0 if major else 1]
    body = Body(recorder, step)
    loop = Loop(body, count, mask)
    outer, recorder.loop = recorder.loop, loop
    # JAX's scan is gone into by itself; elsewhere the steps, or the tracing of one, are seen from here.
    scanned = keras.backend.backend() == "jax" and not kwargs.get("unroll")
    try:
        outputs = original(step if scanned else body, inputs, *args, **kwargs)
    finally:
        recorder.loop = outer
    with recorder.muted():
        records = body.stacked(count) if loop.records is None and not scanned else loop.records or []
        if kwargs.get("go_backwards") and not scanned:
            records = [_reversed(record) for record in records]
        deliver(recorder, records, mask)
    return outputs


def _reversed(record: Record) -> Record:
    """All steps in the order of the input, where the loop went through it from the end."""
    tensors, _ = record.seen.split()
    return with_tensors(
        record, {name: value if name in _CONSTANT else ops.flip(value, 0) for name, value in tensors.items()}
    )


def jax_scan(recorder: Recorder, original: Callable[..., Any], f: Any, init: Any, *args: Any, **kwargs: Any) -> Any:
    """JAX's scan, under RNNs and `keras.ops.scan`."""
    loop, recorder.loop = recorder.loop, None
    body = Body(recorder, f if loop is None else lambda carry, x: tuple(reversed(f(carry, x))))

    def with_records(carry: Any, x: Any) -> Any:
        outputs = body(carry, x)
        carry, result = outputs if loop is None else reversed(outputs)
        return carry, (result, tensors_of(body.last))

    try:
        carry, (results, tensors) = original(with_records, init, *args, **kwargs)
    finally:
        recorder.loop = loop
    records = [with_tensors(record, found) for record, found in zip(body.last, tensors, strict=True)]
    if loop is not None:
        loop.records = records
    else:
        with recorder.muted():
            deliver(recorder, records)
    return carry, results


def tensorflow_while(
    recorder: Recorder, original: Callable[..., Any], cond: Any, body: Any, loop_vars: Any, **kwargs: Any
) -> Any:
    """TensorFlow's loop under an RNN in a graph. Its first variable is the step."""
    loop, recorder.loop = recorder.loop, None
    first = [] if loop is None else loop.body.last
    if loop is None or not first or tracing.state() == "eager":
        try:
            return original(cond, body, loop_vars, **kwargs)
        finally:
            recorder.loop = loop
    import tensorflow

    template = tensors_of(first)
    arrays = [
        tensorflow.TensorArray(one.dtype, size=loop.count, element_shape=one.shape)
        for one in keras.tree.flatten(template)
    ]

    def with_records(*variables: Any) -> Any:
        *own, held = variables
        results = body(*own)
        found = keras.tree.flatten(tensors_of(loop.body.last))
        written = [array.write(own[0], value) for array, value in zip(held, found, strict=True)]
        return (*results, written)

    try:
        *results, arrays = original(
            lambda *variables: cond(*variables[:-1]), with_records, (*loop_vars, arrays), **kwargs
        )
    finally:
        recorder.loop = loop
    tensors = keras.tree.pack_sequence_as(template, [array.stack() for array in arrays])
    loop.records = [with_tensors(record, found) for record, found in zip(first, tensors, strict=True)]
    return tuple(results)


def python_scan(recorder: Recorder, original: Callable[..., Any], f: Any, *args: Any, **kwargs: Any) -> Any:
    """`keras.ops.scan` where it is a loop in Python."""
    body = Body(recorder, f)
    results = original(body, *args, **kwargs)
    with recorder.muted():
        records = body.stacked()
        deliver(recorder, [_reversed(one) for one in records] if kwargs.get("reverse") else records)
    return results


def mapped(recorder: Recorder, original: Callable[..., Any], function: Any, elements: Any) -> Any:
    """`keras.ops.vectorized_map` and `keras.ops.map`: the body runs once, for all elements."""
    body = Body(recorder, function)

    def with_records(element: Any) -> Any:
        outputs = body(element)
        return {"outputs": outputs, "records": tensors_of(body.last)}

    results = original(with_records, elements)
    with recorder.muted():
        found = zip(body.last, results["records"], strict=True)
        deliver(recorder, [with_tensors(record, tensors) for record, tensors in found])
    return results["outputs"]


def time_distributed(
    recorder: Recorder, original: Callable[..., Any], layer: Any, inputs: Any, *args: Any, **kwargs: Any
) -> Any:
    """`TimeDistributed`: its layer runs once for each step, one after the other where their number is known."""
    # It calls its layer's `call`, so that the layer itself is not seen to run.
    inner = recorder.inside(layer.layer)
    count = inputs.shape[1]
    if count is None:
        with inner:
            return original(layer, inputs, *args, **kwargs)
    with recorder.collecting() as records, inner:
        outputs = original(layer, inputs, *args, **kwargs)
        softmaxes.follow(recorder, layer, (inputs,), {}, outputs)
        softmaxes.settle(recorder, outputs)
        with recorder.muted():
            steps = [lean(record) for record in records]
    each = len(steps) // count
    with recorder.muted():
        deliver(recorder, [stacked(steps[first::each]) for first in range(each)])
    return outputs
