"""Standing in for a few functions of Keras while a recorder is at work, and only then.

Keras has no hooks. The functions below are replaced while anyone records, and put back when the last is done; a thread or task
that records nothing passes through them as if they were not there.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from limelight.observe import keras_layers, loops
from limelight.observe.recorder import Recorder, current

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
    import keras
    from keras.src import backend
    from keras.src.ops.operation import Operation

    multi_head, grouped = keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention
    return [
        (Operation, "__call__", _operation),
        (multi_head, "_compute_attention", keras_layers.compute_attention),
        (multi_head, "_compute_attention_mask", keras_layers.compute_mask),
        (grouped, "_compute_attention", keras_layers.compute_attention),
        (grouped, "_compute_attention_mask", keras_layers.compute_mask),
        (backend.nn, "dot_product_attention", keras_layers.dot_product_attention),
        *loops.table(),
    ]


def _operation(recorder: Recorder, original: Callable[..., Any], operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a layer or operation of the model, knowing that it runs."""
    from limelight.observe import adapters

    with recorder.inside(operation):
        adapter = adapters.of(operation) if recorder.listening else None
        if adapter is None:
            return _run(original, operation, *args, **kwargs)
        with recorder.muted():
            outputs = _run(original, operation, *args, **kwargs)
        recorder.record(operation, lambda: adapter(operation, adapters.arguments(operation, args, kwargs), outputs))
        return outputs


def _run(original: Callable[..., Any], operation: Any, *args: Any, **kwargs: Any) -> Any:
    # Rematerialisation runs a layer inside a transformation that its tensors cannot leave. It saves memory of gradients, and
    # there are none here.
    if getattr(operation, "_remat_mode", None) is not None:
        from keras.src.backend.common.keras_tensor import any_symbolic_tensors

        if not any_symbolic_tensors(args, kwargs):
            quantized = getattr(operation, "quantization_mode", None) is not None
            return (operation.quantized_call if quantized else operation.call)(*args, **kwargs)
    return original(operation, *args, **kwargs)
