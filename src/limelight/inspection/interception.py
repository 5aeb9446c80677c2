"""Standing in for a few functions of Keras while a recorder is at work, and only then.

Keras has no hooks. The functions below are replaced while anyone records, and put back when the last is done; a thread or task
that records nothing passes through them as if they were not there.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src import backend
from keras.src.backend.common.keras_tensor import any_symbolic_tensors
from keras.src.ops.operation import Operation

from limelight import functional
from limelight.inspection import adapters, keras_layers, limelight_layers, loops, softmaxes
from limelight.inspection.recorder import Recorder, current

_lock = threading.Lock()
_users = 0
_originals: list[tuple[Any, str, Any]] = []


@contextlib.contextmanager
def intercepting() -> Iterator[None]:
    """Have the functions replaced inside; they are put back when no thread needs them any more."""
    global _users
    with _lock:
        if _users == 0:
            _install()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _restore()


def _install() -> None:
    for owner, name, wrap in _table():
        original = vars(owner)[name]
        _originals.append((owner, name, original))
        setattr(owner, name, _passing(original, wrap))


def _restore() -> None:
    while _originals:
        owner, name, original = _originals.pop()
        setattr(owner, name, original)


def _passing(original: Callable[..., Any], wrap: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is the original for whoever does not record."""

    @functools.wraps(original)
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        recorder = current()
        return original(*args, **kwargs) if recorder is None else wrap(recorder, original, *args, **kwargs)

    return stand_in


def _table() -> list[tuple[Any, str, Callable[..., Any]]]:
    """What is replaced: the owner, the name, and what runs instead, given the recorder and the original."""
    multi_head, grouped = keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention
    return [
        (Operation, "__call__", _operation),
        (multi_head, "_compute_attention", keras_layers.compute_attention),
        (multi_head, "_compute_attention_mask", keras_layers.compute_mask),
        (grouped, "_compute_attention", keras_layers.compute_attention),
        (grouped, "_compute_attention_mask", keras_layers.compute_mask),
        (backend.nn, "dot_product_attention", keras_layers.dot_product_attention),
        (backend.nn, "softmax", softmaxes.function),
        (functional, "output", limelight_layers.output),
        *_softmaxes_of_backends(),
        *loops.table(),
    ]


def _softmaxes_of_backends() -> list[tuple[Any, str, Callable[..., Any]]]:
    """Softmaxes that layers written for one backend call by its own name."""
    name = keras.backend.backend()
    if name == "jax":
        import jax

        return [(jax.nn, "softmax", softmaxes.function)]
    if name == "tensorflow":
        import tensorflow

        return [(tensorflow.nn, "softmax", softmaxes.function)]
    import torch

    return [(torch, "softmax", softmaxes.function), (torch.nn.functional, "softmax", softmaxes.function)]


def _operation(recorder: Recorder, original: Callable[..., Any], operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a layer or operation of the model, knowing that it runs."""
    if any_symbolic_tensors(args, kwargs):
        return original(operation, *args, **kwargs)
    noted, kept = len(recorder.notes), len(recorder.records)
    with recorder.inside(operation):
        recorder.entered(operation, args, kwargs)
        outputs = _observed(recorder, original, operation, args, kwargs)
        recorder.left(operation, args, kwargs, outputs)
        if recorder.listening:
            softmaxes.follow(recorder, operation, args, kwargs, outputs)
            if operation is recorder.root:
                softmaxes.settle(recorder, outputs)
            elif len(recorder.notes) == noted and len(recorder.records) == kept:
                _miss(recorder, operation)
    return outputs


def _observed(
    recorder: Recorder, original: Callable[..., Any], operation: Any, args: tuple, kwargs: dict[str, Any]
) -> Any:
    """Run an operation and record what it asks, where it is of a kind that is known."""
    adapter = adapters.of(operation) if recorder.listening else None
    if adapter is not None:
        with recorder.muted():
            outputs = _run(original, operation, *args, **kwargs)
        given = adapters.arguments(operation, args, kwargs)
        record = recorder.record(operation, lambda: adapter(operation, given, outputs))
        if adapter is not keras_layers.attention:
            return outputs
        return keras_layers.touched_attention(recorder, record, given, outputs)
    if isinstance(operation, keras.layers.Softmax):
        # As a whole: with a mask, the layer has more to do than the softmax.
        with recorder.muted():
            outputs = _run(original, operation, *args, **kwargs)
        return softmaxes.noticed(recorder, outputs, operation.axis)
    return _run(original, operation, *args, **kwargs)


def _miss(recorder: Recorder, operation: Any) -> None:
    """Say so where a layer by its name attends, and nothing was seen of it."""
    path = recorder.path(operation)
    if isinstance(operation, keras.Layer) and "attention" in type(operation).__name__.lower() and recorder.wants(path):
        reason = "no softmax and no fused attention was seen in it; limelight.inspection.register_adapter can tell what it asks"
        recorder.note(path, type(operation).__name__, reason)


def _run(original: Callable[..., Any], operation: Any, *args: Any, **kwargs: Any) -> Any:
    # Rematerialisation runs a layer inside a transformation that its tensors cannot leave. It saves memory of gradients, and
    # there are none here.
    if getattr(operation, "_remat_mode", None) is not None:
        quantized = getattr(operation, "quantization_mode", None) is not None
        return (operation.quantized_call if quantized else operation.call)(*args, **kwargs)
    return original(operation, *args, **kwargs)
