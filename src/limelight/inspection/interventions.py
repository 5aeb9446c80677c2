"""Run a model while the outputs of its attention heads are changed: masked, or moved to find a gradient."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from limelight.engine import backend
from limelight.inspection.interception import recording
from limelight.inspection.recorder import CaptureWarning, Intervention, Record, Recorder, check_model

Layers = str | Sequence[str] | None


@dataclasses.dataclass(frozen=True, eq=False)
class HeadOutputs:
    """The outputs of the heads of one attention.

    Args:
        record: the record of the attention.
        output: as the model uses it; the weights, if nothing else was seen.
        to_heads: transposes a tensor of that shape to (B, ..., N, T, V), or (B, ..., N, T, S).
        value: the values that were averaged, (B, ..., K, S, V); None if `output` is the weights.
        call_index: which call of the layer this is, from 0.
    """

    record: Record
    output: Any
    to_heads: Callable[[Any], Any]
    value: Any
    call_index: int = 0

    @property
    def key(self) -> str:
        """The key of its map in `AttentionMaps`."""
        return f"{self.record.path}#{self.call_index}" if self.call_index else self.record.path


def run_with_intervention(model: Any, inputs: Any, layers: Layers, intervention: Intervention) -> tuple[Any, Recorder]:
    """Return a model's outputs under an intervention, and the recorder. The model's own state does not change."""
    recorder = Recorder(model, layers, intervention=intervention)
    values = [variable.value for variable in model.non_trainable_variables]
    with recording(recorder):
        outputs, _ = backend.call_stateless(model, values, inputs, training=False)
    return outputs, recorder


def run_and_collect(model: Any, inputs: Any, layers: Layers) -> tuple[Any, list[HeadOutputs]]:
    """Return a model's outputs and those of the heads of each attention, in the order in which they ran.

    Raises:
        TypeError: `model` is no model or layer of Keras.
    """
    check_model(model)
    if not model.built:
        model(inputs)
    by_number: dict[int, HeadOutputs] = {}

    def collect(record: Record, output: Any, to_heads: Callable[[Any], Any], value: Any) -> Any:
        by_number[record.number] = HeadOutputs(record, output, to_heads, value)
        return output

    with backend.active().no_gradient():
        outputs, recorder = run_with_intervention(model, inputs, layers, collect)
    collected, calls = [], {}
    for message in recorder.skipped:
        warnings.warn(f"No attention was captured of {message}.", CaptureWarning, stacklevel=3)
    # Softmaxes that turned out to be predictions are no longer among the records.
    for record in recorder.records:
        call_index = calls[record.path] = calls.get(record.path, -1) + 1
        if record.number in by_number:
            collected.append(dataclasses.replace(by_number[record.number], record=record, call_index=call_index))
        else:
            warnings.warn(
                f"{record.path!r} ({record.layer}) was left out: the outputs of its heads cannot be changed, because it attends "
                "in a loop, is described by an adapter, or has a softmax of several operations. Its maps can be captured.",
                CaptureWarning,
                stacklevel=3,
            )
    return outputs, collected


def compute_gradients(
    model: Any, inputs: Any, layers: Layers, heads: list[HeadOutputs], target: Callable[[Any], Any]
) -> list[Any]:
    """Return the gradient of the scalar `target(outputs)` by the output of each of `heads`."""
    indices = {head_outputs.record.number: index for index, head_outputs in enumerate(heads)}

    def evaluate(offsets: list[Any]) -> Any:
        def add_offset(record: Record, output: Any, to_heads: Callable[[Any], Any], value: Any) -> Any:
            index = indices.get(record.number)
            return output if index is None else output + offsets[index]

        outputs, _ = run_with_intervention(model, inputs, layers, add_offset)
        return target(outputs)

    offsets = [ops.zeros_like(head_outputs.output) for head_outputs in heads]
    return backend.active().gradients(evaluate, offsets) if offsets else []
