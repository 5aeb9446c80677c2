"""The loops that Keras and each backend run, and what stands in for them while a recorder is active."""

from collections.abc import Callable
from typing import Any

import keras

from limelight import _keras_private, normalizers
from limelight.engine import backend
from limelight.inspection import loops
from limelight.inspection.loops import LoopBody
from limelight.inspection.recorder import Recorder


def get_replacements() -> list[tuple[Any, str, Callable[..., Any]]]:
    """Return the owner and the name of each loop, and the function that stands in for it."""
    functions = _keras_private.backend
    replacements = [
        (functions, "rnn", loops.rnn),
        (functions, "vectorized_map", loops.vectorized_map),
        (functions.core, "vectorized_map", loops.vectorized_map),
        (functions.core, "map", loops.vectorized_map),
        (keras.layers.TimeDistributed, "call", loops.time_distributed),
    ]
    return [*replacements, *_BACKEND_LOOPS[keras.backend.backend()]()]


def _jax_loops() -> list[tuple[Any, str, Callable[..., Any]]]:
    import jax
    from jax._src import pjit

    replacements: list[tuple[Any, str, Callable[..., Any]]] = [(jax.lax, "scan", jax_scan)]
    if hasattr(pjit, "_get_fastpath_data"):
        # A function that is jitted would run past the observer from its second call on.
        replacements.append((pjit, "_get_fastpath_data", lambda *_: None))
    return replacements


def _tensorflow_loops() -> list[tuple[Any, str, Callable[..., Any]]]:
    import tensorflow as tf

    return [
        (_keras_private.backend.core, "scan", loops.scan),
        (tf, "while_loop", tensorflow_while_loop),
        (tf.compat.v1, "while_loop", tensorflow_while_loop),
        # `rnn` of `tensorflow.keras.backend`, a function of its own.
        (tf.keras.backend, "rnn", loops.rnn),
        # `tf.function` returns instances of this class, which is not exported.
        (type(tf.function(len)), "__call__", tensorflow_function),
        *_private_functions(),
    ]


def _private_functions() -> list[tuple[Any, str, Callable[..., Any]]]:
    try:
        from tensorflow.python.eager.polymorphic_function.concrete_function import ConcreteFunction
        from tensorflow.python.ops.parallel_for import control_flow_ops
    except ImportError:
        return []
    replacements: list[tuple[Any, str, Callable[..., Any]]] = [
        (ConcreteFunction, "_call_flat", tensorflow_concrete_function),
        (control_flow_ops, "_pfor_impl", tensorflow_vectorized_map),
    ]
    return [replacement for replacement in replacements if replacement[1] in vars(replacement[0])]


def _torch_loops() -> list[tuple[Any, str, Callable[..., Any]]]:
    return [(_keras_private.backend.core, "scan", loops.scan)]


_BACKEND_LOOPS = {"jax": _jax_loops, "tensorflow": _tensorflow_loops, "torch": _torch_loops}


def jax_scan(recorder: Recorder, original: Callable[..., Any], f: Any, init: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand in for JAX's scan, which RNNs and `keras.ops.scan` use."""
    rnn_loop, recorder.rnn_loop = recorder.rnn_loop, None
    body = LoopBody(recorder, f, lambda results: results[1]) if rnn_loop is None else rnn_loop.body
    # In an RNN, `f` calls the body.
    function = body if rnn_loop is None else f

    def with_records(carry: Any, x: Any) -> Any:
        carry, outputs = function(carry, x)
        return carry, (outputs, [step.tensors for step in body.last_run])

    is_in_loop, recorder.is_in_loop = recorder.is_in_loop, True
    try:
        carry, (outputs, tensors) = original(with_records, init, *args, **kwargs)
    finally:
        recorder.rnn_loop, recorder.is_in_loop = rnn_loop, is_in_loop
    records = [step.with_tensors(stacked) for step, stacked in zip(body.last_run, tensors, strict=True)]
    if rnn_loop is not None:
        # JAX goes through the input from its end, and stacks the outputs in the order of the input.
        rnn_loop.records, rnn_loop.in_input_order = records, True
    else:
        with recorder.muted():
            loops.emit(recorder, records, outputs=[outputs])
    return carry, outputs


def tensorflow_function(
    recorder: Recorder, original: Callable[..., Any], function: Any, *args: Any, **kwargs: Any
) -> Any:
    """Stand in for the call of a `tf.function`: its operations run, or become part of the graph around it, one by one."""
    python_function = function.python_function
    # Keras compiles grouped convolutions by XLA; one by one, their operations differ in the last digit, or fail.
    is_internal = getattr(python_function, "__module__", "").startswith(
        ("tensorflow.", _keras_private.backend.nn.__name__)
    )
    if recorder.is_muted or normalizers.is_internal_softmax() or is_internal:
        return original(function, *args, **kwargs)
    import tensorflow as tf

    if not tf.executing_eagerly():
        autograph: Any = tf.__internal__.autograph
        python_function = autograph.tf_convert(python_function, autograph.control_status_ctx())
    return python_function(*args, **kwargs)


def tensorflow_concrete_function(
    recorder: Recorder, original: Callable[..., Any], function: Any, *args: Any, **kwargs: Any
) -> Any:
    """Stand in for the call of a function that is a graph already, such as one of a SavedModel: no operation of it is seen."""
    if not recorder.observer.is_ignored():
        names = {operation.type for operation in function.graph.get_operations()}
        library = function.graph.as_graph_def().library.function
        names.update(node.op for each in library for node in each.node_def)
        if "Softmax" in names or {"Exp", "Sum", "RealDiv"} <= names:
            recorder.observer.on_hidden_softmax()
    return original(function, *args, **kwargs)


def tensorflow_vectorized_map(
    recorder: Recorder, original: Callable[..., Any], function: Any, *args: Any, **kwargs: Any
) -> Any:
    """Stand in for what `tf.vectorized_map` calls: the operations of all elements are seen, not those of the one before."""

    def muted(*indices: Any) -> Any:
        with recorder.muted():
            return function(*indices)

    return original(function if recorder.is_muted else muted, *args, **kwargs)


def tensorflow_while_loop(
    recorder: Recorder, original: Callable[..., Any], cond: Any, body: Any, loop_vars: Any, **kwargs: Any
) -> Any:
    """Stand in for TensorFlow's loop, which an RNN in a graph uses. Its first variable is the number of the step."""
    rnn_loop, recorder.rnn_loop = recorder.rnn_loop, None
    # Keras's `rnn` has traced the step once, for the structure of its outputs, before it begins the loop.
    first_run = [] if rnn_loop is None else rnn_loop.body.last_run
    if rnn_loop is None or not first_run or backend.active().trace_state() == "eager":
        try:
            return original(cond, body, loop_vars, **kwargs)
        finally:
            recorder.rnn_loop = rnn_loop
    import tensorflow as tf

    structure = [step.tensors for step in first_run]
    arrays = [
        tf.TensorArray(tensor.dtype, size=rnn_loop.num_steps, element_shape=tensor.shape)
        for tensor in keras.tree.flatten(structure)
    ]

    def with_records(step: Any, *variables: Any) -> Any:
        *others, arrays = variables
        results = body(step, *others)
        tensors = keras.tree.flatten([record.tensors for record in rnn_loop.body.last_run])
        written = [array.write(step, tensor) for array, tensor in zip(arrays, tensors, strict=True)]
        return (*results, written)

    try:
        *results, arrays = original(
            lambda *variables: cond(*variables[:-1]), with_records, (*loop_vars, arrays), **kwargs
        )
    finally:
        recorder.rnn_loop = rnn_loop
    tensors = keras.tree.pack_sequence_as(structure, [array.stack() for array in arrays])
    rnn_loop.records = [step.with_tensors(stacked) for step, stacked in zip(first_run, tensors, strict=True)]
    return tuple(results)
