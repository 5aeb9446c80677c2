"""Replace a few functions of Keras and of the backend while a recorder is active, and only then.

Keras has no hooks. The functions are replaced while any thread records and restored when the last one is done; in a thread or
task that records nothing they behave as ever.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from limelight import _keras_private, functional
from limelight.engine import backend
from limelight.engine.call import AttentionCall
from limelight.inspection import adapters, backend_loops, keras_layers, softmaxes
from limelight.inspection._observed_attention import split_batch
from limelight.inspection.observer import Observer, replace_attention
from limelight.inspection.recorder import Recorder, current_recorder

_lock = threading.Lock()
_num_users = 0
_originals: list[tuple[Any, str, Any]] = []


@contextlib.contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Record the attention of the model that runs inside, in this thread or task only.

    Raises:
        ValueError: a pattern of the recorder matched no attention.
    """

    def listener(call: AttentionCall) -> None:
        recorder.record(call.layer, lambda: call)

    def transform(call: AttentionCall, output: Any, value: Any) -> Any:
        record = next((record for record in reversed(recorder.records) if record.call is call), None)
        return recorder.intervene(
            record, output, lambda tensor: split_batch(call, tensor), lambda: split_batch(call, value)
        )

    hook = functional.on_call(listener, None if recorder.intervention is None else transform)
    recorder.observer = Observer(recorder)
    observed = contextlib.nullcontext()
    if recorder.observes_operations:
        observed = backend.active().observe_operations(recorder.observer)
    try:
        with _replaced_functions(), recorder.activate(), hook, observed, recorder.inside(recorder.model):
            yield
    finally:
        # Break the cycle, so that the tensors of a trace are freed with the recorder, by the thread that traces. Keras has their
        # masks by identity for each thread on JAX; one whose tensor another thread frees would pass to a tensor of a later trace.
        recorder.observer = None
    recorder.check_patterns()


@contextlib.contextmanager
def _replaced_functions() -> Iterator[None]:
    global _num_users
    with _lock:
        if _num_users == 0:
            for owner, name, replacement in _get_replacements():
                original = vars(owner)[name]
                _originals.append((owner, name, original))
                setattr(owner, name, _if_recording(replacement, original))
        _num_users += 1
    try:
        yield
    finally:
        with _lock:
            _num_users -= 1
            while _num_users == 0 and _originals:
                setattr(*_originals.pop())


def _if_recording(replacement: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls the replacement if there is a recorder, and else the original."""

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        recorder = current_recorder()
        return original(*args, **kwargs) if recorder is None else replacement(recorder, original, *args, **kwargs)

    return function


def _get_replacements() -> list[tuple[Any, str, Callable[..., Any]]]:
    """Return the owner and the name of each function, and what is called with the recorder and the original in its place."""
    nn = _keras_private.backend.nn
    multi_head_layers = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
    return [
        (keras.Operation, "__call__", _call_operation),
        (keras.layers.Embedding, "call", _call_embedding),
        *((each, _keras_private.COMPUTE_ATTENTION, keras_layers.compute_attention) for each in multi_head_layers),
        *(
            (each, _keras_private.COMPUTE_ATTENTION_MASK, keras_layers.compute_attention_mask)
            for each in multi_head_layers
        ),
        (nn, "dot_product_attention", keras_layers.dot_product_attention),
        (nn, "softmax", softmaxes.replace_softmax(lambda x, axis=-1: -1 if axis is None else axis)),
        # Code that is written for one backend calls its own functions.
        *(
            (owner, name, softmaxes.replace_softmax(get_axis))
            for owner, name, get_axis in backend.active().softmax_functions()
        ),
        *(
            (owner, name, replace_attention(get_arguments))
            for owner, name, get_arguments in backend.active().attention_functions()
        ),
        *backend_loops.get_replacements(),
    ]


def _call_operation(recorder: Recorder, original: Callable[..., Any], operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand in for `Operation.__call__`: follow which layers and operations run."""
    if _keras_private.any_symbolic_tensors(args, kwargs):
        return original(operation, *args, **kwargs)
    counts = len(recorder.skipped), len(recorder.records)
    with recorder.inside(operation):
        recorder.on_enter(operation, args, kwargs)
        outputs = _run_and_record(recorder, original, operation, args, kwargs)
        recorder.on_exit(operation, args, kwargs, outputs)
        recorder.forget_exponentials(operation)
        if not recorder.is_muted:
            softmaxes.update_pending(recorder, operation, args, kwargs, outputs)
            if operation is recorder.model:
                softmaxes.drop_predictions(recorder, outputs)
            elif counts == (len(recorder.skipped), len(recorder.records)):
                _skip_if_named_attention(recorder, operation, outputs)
    return outputs


def _call_embedding(
    recorder: Recorder, original: Callable[..., Any], layer: Any, ids: Any, *args: Any, **kwargs: Any
) -> Any:
    """Stand in for `Embedding.call`: let an intervention change the vectors. They get their mask afterwards, as ever."""
    vectors = original(layer, ids, *args, **kwargs)
    return vectors if recorder.embed is None or args or kwargs else recorder.embed(ids, vectors)


def _run_and_record(
    recorder: Recorder, original: Callable[..., Any], operation: Any, args: tuple, kwargs: dict[str, Any]
) -> Any:
    """Run an operation, and record its attention if it has an adapter or is a softmax."""
    adapter = None if recorder.is_muted else adapters.get_adapter(operation)
    if adapter is not None:
        with recorder.muted():
            outputs = _run(original, operation, *args, **kwargs)
        arguments = adapters.bind_arguments(operation, args, kwargs)
        record = recorder.record(operation, lambda: adapter(operation, arguments, outputs))
        if adapter is not keras_layers.observe_attention:
            return outputs
        return keras_layers.intervene_on_attention(recorder, record, arguments, outputs)
    if isinstance(operation, keras.layers.Softmax):
        # As a whole: with a mask the layer does more than call a softmax.
        with recorder.muted():
            outputs = _run(original, operation, *args, **kwargs)
        return softmaxes.record_softmax(recorder, outputs, operation.axis)
    return _run(original, operation, *args, **kwargs)


def _skip_if_named_attention(recorder: Recorder, operation: Any, outputs: Any) -> None:
    """Warn of a layer whose name says that it attends, and in which nothing was seen."""
    class_name = type(operation).__name__
    if not isinstance(operation, keras.Layer) or not _names_attention(class_name):
        return
    # A mask is no attention; neither is a layer that returns nothing.
    dtypes = [keras.backend.standardize_dtype(x.dtype) for x in keras.tree.flatten(outputs) if ops.is_tensor(x)]
    path = recorder.path(operation)
    if any("float" in dtype for dtype in dtypes) and recorder.matches(path):
        reason = (
            "it calls no softmax and no fused attention that limelight knows. Describe it with "
            "limelight.inspection.register_adapter"
        )
        recorder.skip(path, class_name, reason)


def _names_attention(class_name: str) -> bool:
    """Return True if the name of a class says that it attends, not that it prepares a mask or bias for one that does."""
    name = class_name.lower()
    return "attention" in name and not any(part in name for part in ("mask", "bias", "embedding", "encoding"))


def _run(original: Callable[..., Any], operation: Any, *args: Any, **kwargs: Any) -> Any:
    # Rematerialization runs a layer inside a transformation that its tensors cannot leave. It saves memory for gradients, of
    # which there are none here.
    if _keras_private.is_rematerialized(operation):
        is_quantized = getattr(operation, "quantization_mode", None) is not None
        return (operation.quantized_call if is_quantized else operation.call)(*args, **kwargs)
    return original(operation, *args, **kwargs)
