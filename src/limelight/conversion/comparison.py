"""Compare the outputs of a model with those of its copy."""

import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight import functional
from limelight._keras_private import iterate_layers
from limelight.engine import backend

# The sizes of a batch, and what any other axis of unknown length gets: a model with strides or pooling may need the longer ones,
# and a mask of the wrong shape may fit one example only.
_SIZES = ((2, 7), (1, 7), (2, 32), (2, 128))
# The largest difference that rounding explains, relative to the largest output. Accelerators round the factors of products.
_TOLERANCES = {"float16": 2e-2, "bfloat16": 1e-1}
_TOLERANCE, _ACCELERATOR_TOLERANCE = 5e-5, 1e-2


def compare_outputs(old: Any, new: Any) -> list[str]:
    """Check that a model and its copy have the same outputs for a random batch in which nothing is padding.

    Args:
        old: the model.
        new: the copy.

    Returns:
        Why they could not be compared, or nothing.

    Raises:
        ValueError: the outputs differ.
    """
    reason = "its inputs are not described as numbers"
    failure: Exception | None = None
    for batch in _make_batches(old):
        try:
            outputs, state = _run(old, batch)
        except Exception as error:
            reason = f"it fails for a random batch: {summarize_error(error)}"
            continue
        if not any(np.isfinite(output).any() for output in outputs):
            reason = "its outputs for a random batch are not finite"
            continue
        try:
            new_outputs, _ = _run(new, batch)
        except Exception as error:
            failure = error
            continue
        tolerance = _get_tolerance(old)
        differing = _find_difference(outputs, new_outputs, tolerance)
        if differing is None:
            return []
        if _find_difference(outputs, _run(old, batch, state)[0], tolerance) is not None:
            return [_explain(old, "they are random")]
        if _has_empty_rows(new, batch):
            reason = (
                "some queries of a random batch have nothing to attend to, and Keras lets these attend to everything"
            )
            return [_explain(old, reason)]
        index, difference, largest = differing
        raise ValueError(
            f"The copy must have the outputs of the model {old.name!r}. Received: output {index} differs by {difference:.3g} for "
            f"a random batch, where the largest number is {largest:.3g}. A layer may use functions, "
            "classes or values that its config and weights do not hold; register functions and classes with "
            "keras.saving.register_keras_serializable, or write limelight's layers in their place by hand."
        )
    if failure is not None:
        raise ValueError(
            f"The copy must accept what the model {old.name!r} accepts. Received, for a random batch: {summarize_error(failure)}"
        ) from failure
    return [_explain(old, reason)]


def summarize_error(error: Exception) -> str:
    """Return the class and the cause of an error in one line, without the config and arguments that Keras quotes."""
    message = re.sub(r"\x1b\[\d+m", "", str(error).split("Exception encountered: ")[-1])
    message = " ".join(message.split("Arguments received by")[0].split())[:300]
    return f"{type(error).__name__}: {message.removesuffix('.')}"


def _explain(model: Any, reason: str) -> str:
    return f"Not compared: the outputs of {model.name!r} and of its copy: {reason}."


def _make_batches(model: Any) -> Iterator[Any]:
    """Make random batches from the input specs of a model, the most varied first."""
    if not model.inputs or any(tensor.dtype == "string" for tensor in model.inputs):
        return
    vocabularies = {
        id(layer.input): layer.input_dim for layer in model.layers if isinstance(layer, keras.layers.Embedding)
    }
    integers = [tensor for tensor in model.inputs if "int" in tensor.dtype]
    if len(integers) == 1:
        sizes = [layer.input_dim for layer in iterate_layers(model) if isinstance(layer, keras.layers.Embedding)]
        vocabularies.setdefault(id(integers[0]), min(sizes, default=2))
    for batch_size, length in _SIZES:
        for numbers in (vocabularies, {}) if vocabularies else ({},):
            generator = np.random.default_rng(0)
            arrays = [
                _make_input(spec, (batch_size, length), numbers.get(id(spec), 2), generator) for spec in model.inputs
            ]
            yield keras.tree.pack_sequence_as(model.input, arrays)


def _make_input(spec: Any, free: tuple[int, int], num_ids: int, generator: np.random.Generator) -> Any:
    """Make one random input. Numbers that are no floats are never zero, which would be padding."""
    shape = [free[min(axis, 1)] if size is None else size for axis, size in enumerate(spec.shape)]
    if "float" in spec.dtype or "complex" in spec.dtype:
        array = generator.normal(size=shape)
    elif spec.dtype == "bool":
        array = np.ones(shape)
    else:
        array = generator.integers(1, 255 if spec.dtype == "uint8" else max(num_ids, 2), shape)
    return ops.convert_to_tensor(array, dtype=spec.dtype)


def _run(model: Any, batch: Any, state: list[Any] | None = None) -> tuple[list[np.ndarray], list[Any]]:
    """Return the outputs of a model in inference, flat, and its new state. The model's own state does not change."""
    state = [variable.value for variable in model.non_trainable_variables] if state is None else state
    with backend.active().no_gradient():
        outputs, state = backend.call_stateless(model, state, batch, training=False)
    flat = [ops.convert_to_numpy(ops.cast(output, "float32")) for output in keras.tree.flatten(outputs)]
    return flat, state


def _find_difference(old: list[np.ndarray], new: list[np.ndarray], tolerance: float) -> tuple[int, float, float] | None:
    """Return the first output that differs where the old one is finite: its index, the difference, the largest number there."""
    for index, (before, after) in enumerate(zip(old, new, strict=True)):
        if before.shape != after.shape:
            return index, float("inf"), float(np.abs(before).max(initial=0.0))
        is_finite = np.isfinite(before)
        before, after = before[is_finite], after[is_finite]
        difference = float(np.nan_to_num(np.abs(after - before), nan=np.inf).max(initial=0.0))
        largest = float(np.abs(before).max(initial=0.0))
        if difference > tolerance * largest:
            return index, difference, largest
    return None


def _get_tolerance(model: Any) -> float:
    tolerance = max(_TOLERANCES.get(layer.compute_dtype, _TOLERANCE) for layer in iterate_layers(model))
    devices = {str(getattr(weight.value, "device", "cpu")).lower() for weight in model.weights}
    return tolerance if all("cpu" in device for device in devices) else max(tolerance, _ACCELERATOR_TOLERANCE)


def _has_empty_rows(model: Any, batch: Any) -> bool:
    """Return True if a query of an attention of limelight's in a model has nothing to attend to."""
    is_empty: list[bool] = []

    def listener(call: Any) -> None:
        sums = ops.convert_to_numpy(ops.sum(ops.cast(functional.compute_weights(call), "float32"), axis=-1))
        is_empty.append(bool((sums == 0).any()))

    with functional.on_call(listener):
        _run(model, batch)
    return any(is_empty)
