"""Attention on TensorFlow."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from limelight.engine import thresholds
from limelight.engine.backend import Backend
from limelight.engine.call import AttentionCall
from limelight.engine.tensor_operation import OperationObserver
from limelight.engine.tensorflow import blockwise, operations, statistics, tracing


def _double(size: thresholds.Thresholds) -> thresholds.Thresholds:
    """Double the sizes of blocks.

    Each operation starts threads of its own, which pays for larger blocks. And blocks are no faster while all scores fit the
    cache, but compute them once more for the gradient.
    """
    return dataclasses.replace(
        size, max_dense_scores=2 * size.max_dense_scores, scores_per_block=2 * size.scores_per_block
    )


class TensorFlowBackend(Backend):
    """TensorFlow: blocks of whole rows."""

    cpu_thresholds = _double(thresholds.Thresholds())
    accelerator_thresholds = _double(thresholds.ACCELERATOR)

    def on_accelerator(self, tensor: Any) -> bool:
        # A tensor of a graph that is being traced does not tell where it will be.
        device = getattr(tensor, "device", None) or ""
        return "CPU" not in device and bool(
            tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU")
        )

    def blockwise_obstacle(self, call: AttentionCall, *, forced: bool = False) -> str | None:
        if None not in (*call.query.shape, *call.key.shape):
            return None
        # XLA must know the number of blocks when it compiles. Elsewhere the running model could choose by `tf.cond`, but then an
        # observer of the layer would not see its tensors.
        lengths_unknown = call.query.shape[2] is None or call.key.shape[2] is None
        if tracing.under_xla() or (lengths_unknown and not forced):
            return "TensorFlow must know the lengths before the model runs to go block by block."
        return None

    def blockwise(self, call: AttentionCall, value: Any, *, dropout: float, seed: Any) -> Any:
        size = thresholds.current(call.query).scores_per_block
        return blockwise.compute_output(call.prepare(), value, scores_per_block=size, dropout=dropout, seed=seed)

    def attention_statistics(self, call: AttentionCall, value: Any, **settings: Any) -> Any:
        return statistics.attention_statistics(call, value, **settings)

    def trace_state(self) -> Any:
        return tracing.trace_state()

    def compile(self, function: Callable[..., Any], *, jit: bool) -> Callable[..., Any]:
        return tracing.compile_function(function, jit=jit)

    def gradients(self, function: Callable[[list[Any]], Any], tensors: list[Any]) -> list[Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            result = function(tensors)
        return tape.gradient(result, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def observe_operations(self, observer: OperationObserver) -> contextlib.AbstractContextManager[Any]:
        return operations.observe(observer)

    def softmax_functions(self) -> list[tuple[Any, str, Callable[..., Any]]]:
        return operations.softmax_functions()


BACKEND = TensorFlowBackend()
