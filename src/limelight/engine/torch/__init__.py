"""Attention on PyTorch."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from keras import ops

from limelight.engine import thresholds
from limelight.engine.backend import Backend
from limelight.engine.call import AttentionCall
from limelight.engine.tensor_operation import OperationObserver
from limelight.engine.torch import blockwise, fused, operations, statistics


class TorchBackend(Backend):
    """PyTorch: its own fused kernel, and blocks of whole rows."""

    cpu_thresholds = thresholds.Thresholds()
    # Nothing compiles the loop over blocks, so that the accelerator waits for each operation to be launched.
    accelerator_thresholds = dataclasses.replace(
        thresholds.ACCELERATOR, statistics_scores_per_block=1 << 26, min_rows=2048
    )
    fused_kernel = "PyTorch"

    def as_tensors(self, *arrays: Any) -> tuple[Any, ...]:
        # Keras's conversion looks for symbolic tensors and for the device, which takes a third of the time of a small call.
        if not _has_accelerator() and all(
            array is None or (isinstance(array, torch.Tensor) and array.is_cpu) for array in arrays
        ):
            return arrays
        return super().as_tensors(*arrays)

    def on_accelerator(self, tensor: Any) -> bool:
        device = getattr(tensor, "device", None)
        if device is None:  # a symbolic tensor of Keras
            device = ops.convert_to_tensor(0.0).device
        return device.type != "cpu"

    def prepare(self, call: AttentionCall) -> AttentionCall:
        return call.prepare()

    def supports_fused(self, call: AttentionCall, value: Any, *, forced: bool = False) -> bool:
        return fused.matches(call)

    def fused(self, call: AttentionCall, value: Any) -> Any:
        return fused.compute_output(call, value)

    def blockwise(self, call: AttentionCall, value: Any, *, dropout: float, seed: Any) -> Any:
        size = thresholds.current(call.query).scores_per_block
        return blockwise.compute_output(call, value, scores_per_block=size, dropout=dropout, seed=seed)

    def attention_statistics(self, call: AttentionCall, value: Any, **settings: Any) -> Any:
        return statistics.attention_statistics(call, value, **settings)

    def is_exporting(self) -> bool:
        # The stubs do not list `is_tracing`.
        return torch.jit.is_tracing() or torch.compiler.is_exporting()  # pyright: ignore[reportPrivateImportUsage]

    # PyTorch's compiler cannot see through the interception of layers, so that `compile` returns the function as it is.

    def no_gradient(self) -> contextlib.AbstractContextManager[Any]:
        return torch.no_grad()

    def gradients(self, function: Callable[[list[Any]], Any], tensors: list[Any]) -> list[Any]:
        with torch.enable_grad():
            tensors = [tensor.detach().requires_grad_() for tensor in tensors]
            gradients = torch.autograd.grad(function(tensors), tensors, allow_unused=True)
        return [
            torch.zeros_like(tensor) if gradient is None else gradient
            for tensor, gradient in zip(tensors, gradients, strict=True)
        ]

    def trace_state(self) -> Any:
        # Inside `torch.func.vmap` and its like, tensors have meaning only in its body.
        return torch._C._functorch.maybe_current_level()  # pyright: ignore[reportAttributeAccessIssue]

    def observe_operations(self, observer: OperationObserver) -> contextlib.AbstractContextManager[Any]:
        return operations.observe(observer)


@functools.cache
def _has_accelerator() -> bool:
    return torch.accelerator.is_available()


BACKEND = TorchBackend()
