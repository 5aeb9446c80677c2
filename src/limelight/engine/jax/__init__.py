"""Attention on JAX."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer

from limelight.engine import thresholds
from limelight.engine.backend import Backend
from limelight.engine.call import AttentionCall
from limelight.engine.jax import blockwise, fused, online_softmax, operations, statistics, tracing
from limelight.engine.tensor_operation import OperationObserver


class JaxBackend(Backend):
    """JAX: cuDNN's kernel on NVIDIA's GPUs, an online softmax, and blocks of whole rows."""

    cpu_thresholds = thresholds.Thresholds()
    accelerator_thresholds = thresholds.ACCELERATOR
    fused_kernel = "cuDNN"
    has_online_softmax = True

    def on_accelerator(self, tensor: Any) -> bool:
        if isinstance(tensor, jax.Array) and not isinstance(tensor, Tracer):
            return next(iter(tensor.devices())).platform != "cpu"
        config: Any = jax.config
        device = config.jax_default_device
        if device is None:
            return jax.default_backend() != "cpu"
        return getattr(device, "platform", device) != "cpu"

    def prepare(self, call: AttentionCall) -> AttentionCall:
        # Elsewhere the call is prepared inside the compiled function.
        return call.prepare() if thresholds.forced() == "fused" or self.on_accelerator(call.query) else call

    def supports_fused(self, call: AttentionCall, value: Any, *, forced: bool = False) -> bool:
        if forced:
            return fused.matches(call)
        return self.on_accelerator(call.query) and fused.supports(call, value)

    def fused(self, call: AttentionCall, value: Any) -> Any:
        # Without a GPU, JAX computes the same function by a formula, which is how tests reach it.
        kernel = "cudnn" if self.on_accelerator(call.query) else "xla"
        size = thresholds.current(call.query).scores_per_block
        return tracing.run_compiled(fused.compute_output, call, value, scores_per_block=size, implementation=kernel)

    def blockwise(self, call: AttentionCall, value: Any, *, dropout: float, seed: Any) -> Any:
        size = thresholds.current(call.query).scores_per_block
        return tracing.run_compiled(blockwise.compute_output, call, value, seed, scores_per_block=size, dropout=dropout)

    def online_softmax(self, call: AttentionCall, value: Any, *, dropout: float, seed: Any) -> Any:
        size = thresholds.current(call.query)
        return tracing.run_compiled(
            online_softmax.compute_output, call, value, seed, rows=size.rows, columns=size.columns, dropout=dropout
        )

    def attention_statistics(self, call: AttentionCall, value: Any, **settings: Any) -> Any:
        return tracing.run_compiled(statistics.attention_statistics, call, value, **settings)

    def trace_state(self) -> Any:
        return tracing.trace_state()

    def state_variables(self, model: Any) -> list[Any]:
        return model.variables

    def compile(self, function: Callable[..., Any], *, jit: bool) -> Callable[..., Any]:
        return jax.jit(function) if jit else function

    def gradients(self, function: Callable[[list[Any]], Any], tensors: list[Any]) -> list[Any]:
        return jax.grad(function)(tensors)

    def observe_operations(self, observer: OperationObserver) -> contextlib.AbstractContextManager[Any]:
        return operations.observe(observer)

    def observe_loop_body(self, observer: OperationObserver) -> contextlib.AbstractContextManager[Any]:
        # JAX traces the body on its own.
        return operations.observe(observer)

    def softmax_functions(self) -> list[tuple[Any, str, Callable[..., Any]]]:
        return operations.softmax_functions()

    def attention_functions(self) -> list[tuple[Any, str, Callable[..., dict[str, Any]]]]:
        return operations.attention_functions()


BACKEND = JaxBackend()
