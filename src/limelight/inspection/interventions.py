"""Running a model with something done to its heads: silenced, or moved a little to see what the result does."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from limelight import functional
from limelight.inspection import limelight_layers, tracing
from limelight.inspection.interception import intercepting
from limelight.inspection.recorder import Record, Recorder

Touch = Callable[[Record, Any, Callable[[Any], Any], Any], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Heads:
    """What the heads of one attention gave.

    Args:
        record: the attention.
        result: the heads' outputs, or the weights where only those are seen, as the model goes on with them.
        laid_out: brings a tensor of that shape to (B, ..., N, T, V), or (B, ..., N, T, S).
        value: what the outputs are averages of, (B, ..., K, S, V); None where `result` is weights.
        call: which call of the layer this is, from 0.
    """

    record: Record
    result: Any
    laid_out: Callable[[Any], Any]
    value: Any
    call: int = 0

    @property
    def key(self) -> str:
        """The name of its map among others."""
        return f"{self.record.path}#{self.call}" if self.call else self.record.path


def run(model: Any, inputs: Any, layers: Sequence[str] | None, touch: Touch) -> tuple[Any, Recorder]:
    """A model's outputs with `touch` at work, and the recorder. The model's own state is left alone."""
    recorder = Recorder(model, layers, touch)

    def hear(attention_call: Any) -> None:
        recorder.record(attention_call.owner, lambda: limelight_layers.observation(attention_call))

    state = [(variable, variable.value) for variable in model.non_trainable_variables]
    with keras.StatelessScope(state), intercepting(), recorder.recording(), functional.listening(hear):
        return model(inputs, training=False), recorder


def heads(model: Any, inputs: Any, layers: str | Sequence[str] | None) -> tuple[Any, list[Heads]]:
    """A model's outputs, and what the heads of each attention gave, in the order in which they ran."""
    if not model.built:
        model(inputs)
    found: dict[int, Heads] = {}

    def keep(record: Record, result: Any, laid_out: Callable[[Any], Any], value: Any) -> Any:
        found[record.number] = Heads(record, result, laid_out, value)
        return result

    with tracing.no_gradient():
        outputs, recorder = run(model, inputs, patterns(layers), keep)
    kept, calls = [], {}
    # Softmaxes that turned out to be predictions are no longer among the records.
    for record in recorder.records:
        call = calls[record.path] = calls.get(record.path, -1) + 1
        if record.number in found:
            kept.append(dataclasses.replace(found[record.number], call=call))
    return outputs, kept


def slopes(model: Any, inputs: Any, layers: str | Sequence[str] | None, of: list[Heads], total: Any) -> list[Any]:
    """The gradient of `total(outputs)`, a scalar, by the result of each of some heads."""
    places = {one.record.number: place for place, one in enumerate(of)}

    def scalar(moves: list[Any]) -> Any:
        def move(record: Record, result: Any, laid_out: Callable[[Any], Any], value: Any) -> Any:
            place = places.get(record.number)
            return result if place is None else result + moves[place]

        outputs, _ = run(model, inputs, patterns(layers), move)
        return total(outputs)

    return _gradients(scalar, [ops.zeros_like(one.result) for one in of])


def patterns(layers: str | Sequence[str] | None) -> Sequence[str] | None:
    """Patterns of layers' paths, from one or several."""
    return (layers,) if isinstance(layers, str) else layers


def _gradients(function: Callable[[list[Any]], Any], tensors: list[Any]) -> list[Any]:
    backend = keras.backend.backend()
    if not tensors:
        return []
    if backend == "jax":
        import jax

        return jax.grad(function)(tensors)
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            result = function(tensors)
        return tape.gradient(result, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    import torch

    with torch.enable_grad():
        tensors = [tensor.detach().requires_grad_() for tensor in tensors]
        found = torch.autograd.grad(function(tensors), tensors, allow_unused=True)
    return [torch.zeros_like(tensor) if slope is None else slope for tensor, slope in zip(tensors, found, strict=True)]
