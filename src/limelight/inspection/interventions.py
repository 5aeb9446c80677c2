"""Run a model while the outputs of its attention heads are changed: masked, or moved to find a gradient."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from limelight.engine import backend
from limelight.exceptions import AttentionError
from limelight.inspection.interception import recording
from limelight.inspection.loops import group_steps
from limelight.inspection.recorder import CaptureWarning, Record, Recorder, check_model

Layers = str | Sequence[str] | None


@dataclasses.dataclass(frozen=True, eq=False)
class HeadOutputs:
    """The outputs of the heads of one run of an attention.

    Args:
        record: the record of the run.
        output: as the model uses it; the weights, if nothing else was seen.
        to_heads: transposes a tensor of that shape to (B, ..., N, T, V), or (B, ..., N, T, S).
        value: the values that were averaged, (B, ..., K, S, V); None if `output` is the weights.
    """

    record: Record
    output: Any
    to_heads: Callable[[Any], Any]
    value: Any


@dataclasses.dataclass(frozen=True, eq=False)
class HeadSteps:
    """The outputs of the heads of one attention, as its map has it.

    Args:
        path: the path of the layer.
        steps: its run; or, if a loop in Python calls it for one query each time, all of them.
        call_index: which call of the layer this is, from 0.
    """

    path: str
    steps: tuple[HeadOutputs, ...]
    call_index: int = 0

    @property
    def key(self) -> str:
        """The key of its map in `AttentionMaps`."""
        return f"{self.path}#{self.call_index}" if self.call_index else self.path

    @property
    def layer(self) -> Any:
        """The layer that attends; None if it is not known."""
        return getattr(self.steps[0].record.call, "layer", None)

    @property
    def has_values(self) -> bool:
        """True if the values were seen, and not the weights alone; those of the steps of a loop may differ."""
        return len(self.steps) == 1 and self.steps[0].value is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (B, ..., N, T, S) of its weights."""
        first = self.steps[0]
        *leading, rows, columns = first.to_heads(first.output).shape
        columns = columns if first.value is None else first.value.shape[-2]
        return (*leading, rows * len(self.steps), int(columns))


# Receives a run of an attention as it was found, and as it is now; returns what the model is to use in place of its output.
Change = Callable[[HeadOutputs, HeadOutputs], Any]


class EditableModel:
    """A model whose outputs of heads can be changed: those that a first run of it finds.

    Args:
        model: a built model.
        inputs: its inputs.
        layers: patterns of the layers' paths; all by default.

    Attributes:
        outputs: those of the first run.
        attentions: the attention, in the order in which it runs.

    Raises:
        TypeError: `model` is no model or layer of Keras.
    """

    def __init__(self, model: Any, inputs: Any, layers: Layers = None) -> None:
        check_model(model)
        if not model.built:
            model(inputs)
        self.model, self.layers = model, layers
        by_number: dict[int, HeadOutputs] = {}

        def collect(record: Record, output: Any, to_heads: Callable[[Any], Any], value: Any) -> Any:
            by_number[record.number] = HeadOutputs(record, output, to_heads, value)
            return output

        recorder = Recorder(model, layers, intervention=collect)
        with backend.active().no_gradient():
            self.outputs = self._without_state(self._record, recorder, inputs)
        for message in (
            *(f"No attention was captured of {message}." for message in recorder.skipped),
            *recorder.unclear,
        ):
            warnings.warn(message, CaptureWarning, stacklevel=3)
        self.attentions = _collect(recorder.records, by_number)
        self._steps = {step.record.number: step for each in self.attentions for step in each.steps}
        self._numbered = recorder.numbered
        # Watching operations takes time on PyTorch.
        self._is_observed = recorder.is_observed

    def run(self, inputs: Any, change: Change, embed: Callable[[Any, Any], Any] | None = None) -> Any:
        """Run the model in inference mode, and return its outputs. What keeps its state (`run_stateless`) is up to the caller.

        Args:
            inputs: the inputs.
            change: see `Change`.
            embed: receives the ids and the output of each embedding, and returns what the model is to use in its place.

        Raises:
            AttentionError: the model attends in another way than in the run that found its attention.
        """

        def intervene(record: Record, output: Any, to_heads: Callable[[Any], Any], value: Any) -> Any:
            found = self._steps.get(record.number)
            if found is None:
                return output
            if value is None:
                # How a model uses its weights, which tells their axes, is seen only after it has them.
                to_heads = found.to_heads
                _check_kept(found, output)
            return change(found, HeadOutputs(record, output, to_heads, value))

        recorder = Recorder(self.model, self.layers, intervention=intervene, embed=embed)
        recorder.observes_operations = self._is_observed
        outputs = self._record(recorder, inputs)
        if recorder.numbered != self._numbered:
            raise AttentionError(
                "To change its weights, the model must attend in the same layers, as often and in the same order, in each run. "
                f"Received: attention in {self._numbered} at first, and now in {recorder.numbered}. If it loops over its inputs "
                "in Python, give all of them one length."
            )
        return outputs

    def run_stateless(self, inputs: Any, change: Change) -> Any:
        """Run the model without changing its state."""
        return self._without_state(self.run, inputs, change)

    def gradients(self, inputs: Any, target: Callable[[Any], Any]) -> list[list[Any]]:
        """Return the gradient of the scalar `target(outputs)` by the output of each step of each attention."""
        indices = {step: index for index, step in enumerate(self._steps.values())}

        def evaluate(offsets: list[Any]) -> Any:
            def add_offset(found: HeadOutputs, heads: HeadOutputs) -> Any:
                return heads.output + offsets[indices[found]]

            return target(self.run_stateless(inputs, add_offset))

        offsets = [ops.zeros_like(step.output) for step in self._steps.values()]
        gradients = iter(backend.active().gradients(evaluate, offsets) if offsets else [])
        return [[next(gradients) for _ in each.steps] for each in self.attentions]

    def _record(self, recorder: Recorder, inputs: Any) -> Any:
        with recording(recorder):
            return self.model(inputs, training=False)

    def _without_state(self, function: Callable[..., Any], *args: Any) -> Any:
        variables = self.model.non_trainable_variables
        values = [variable.value for variable in variables]
        return backend.run_stateless(function, variables, values, *args)[0]


def _collect(records: list[Record], by_number: dict[int, HeadOutputs]) -> list[HeadSteps]:
    """Return the attention of each map whose outputs were seen, and warn of the others."""
    collected, calls = [], {}
    # Softmaxes that turned out to be predictions are no longer among the records.
    for group in group_steps(records):
        path = group[0].path
        call_index = calls[path] = calls.get(path, -1) + 1
        if all(record.number in by_number for record in group):
            steps = (dataclasses.replace(by_number[record.number], record=record) for record in group)
            collected.append(HeadSteps(path, tuple(steps), call_index))
        else:
            warnings.warn(
                f"{path!r} ({group[0].layer}) was left out: the outputs of its heads cannot be changed, because it attends in a "
                "loop, is described by an adapter, or has a softmax of several operations. Its maps can be captured.",
                CaptureWarning,
                stacklevel=4,
            )
    return collected


def _check_kept(found: HeadOutputs, output: Any) -> None:
    """Check that the weights that a model does not use, such as those of a sink, are where they were found."""
    before, now = tuple(found.output.shape), tuple(output.shape)
    is_cut = math.prod(found.to_heads(found.output).shape) < math.prod(before)
    if is_cut and before[1:] != now[1:]:
        raise AttentionError(
            f"The weights of {found.record.path!r} must have as many keys as when they were found, because the model does not "
            f"use all of them. Received: weights of shape {now} in place of {before}. Give all inputs one length."
        )
