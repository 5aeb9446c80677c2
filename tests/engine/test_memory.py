"""No implementation but "dense" ever holds an array of size T x S, forward or backward."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from limelight.engine import thresholds

BACKEND = keras.backend.backend()
T, S, H = 61, 67, 3
IMPLEMENTATIONS = {
    "jax": ("online_softmax", "blockwise"),
    "tensorflow": ("blockwise",),
    "torch": ("fused", "blockwise"),
}[BACKEND]
PARTS = {
    "defaults": {},
    "additive": {"score": "additive"},
    "causal window": {"mask": ll.masks.Causal() & ll.masks.SlidingWindow(9)},
    "sparsemax": {"normalizer": "sparsemax"},
}


def max_array_size(run: Callable[..., Any], arrays: list[np.ndarray]) -> int:
    """Return the size of the largest array that a function of arrays and its gradient make."""
    measure = {"jax": _max_size_on_jax, "tensorflow": _max_size_on_tensorflow, "torch": _max_size_on_torch}[BACKEND]
    return measure(run, arrays)


def _max_size_on_jax(run: Callable[..., Any], arrays: list[np.ndarray]) -> int:
    import jax

    traced = jax.make_jaxpr(jax.grad(lambda *inputs: ops.sum(run(*inputs) ** 2), argnums=(0, 1, 2)))(*arrays)

    def sizes(jaxpr: Any) -> Iterator[int]:
        for equation in jaxpr.eqns:
            yield from (int(np.prod(variable.aval.shape)) for variable in equation.outvars)
            for parameter in equation.params.values():
                for inner in parameter if isinstance(parameter, (list, tuple)) else [parameter]:
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        yield from sizes(inner)

    return max(sizes(traced.jaxpr))


def _max_size_on_tensorflow(run: Callable[..., Any], arrays: list[np.ndarray]) -> int:
    import tensorflow as tf
    from tensorflow.python.framework import op_callbacks

    sizes = []

    def callback(kind: Any, inputs: Any, attributes: Any, outputs: Any, *context: Any) -> None:
        sizes.extend(int(np.prod(tensor.shape)) for tensor in outputs if hasattr(tensor, "shape"))

    tensors = [tf.constant(array) for array in arrays]
    op_callbacks.add_op_callback(callback)
    try:
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = tf.reduce_sum(run(*tensors) ** 2)
        tape.gradient(total, tensors)
    finally:
        op_callbacks.remove_op_callback(callback)
    return max(sizes)


def _max_size_on_torch(run: Callable[..., Any], arrays: list[np.ndarray]) -> int:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    sizes = []

    class SizeRecorder(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = function(*args, **(kwargs or {}))
            outputs = output if isinstance(output, (list, tuple)) else [output]
            sizes.extend(tensor.numel() for tensor in outputs if isinstance(tensor, torch.Tensor))
            return output

    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    with SizeRecorder():
        torch.autograd.grad((run(*tensors) ** 2).sum(), tensors)
    return max(sizes)


@pytest.mark.parametrize("name", PARTS)
def test_no_array_of_size_t_by_s_is_made(name: str) -> None:
    random = np.random.default_rng(47)
    arrays = [random.normal(size=(1, 1, length, H)).astype("float32") for length in (T, S, S)]
    parts = dict(PARTS[name])
    if name == "additive":
        parts["score"] = ll.scores.Additive(2)
        ll.attend(*arrays, **parts)

    def run(*inputs: Any) -> Any:
        return ll.attend(*inputs, **parts)

    for implementation in IMPLEMENTATIONS:
        # Blocks of at most six rows. If an implementation cannot compute the call, another one in blocks does.
        with thresholds.using(
            implementation=implementation, max_dense_scores=0, rows=5, columns=7, scores_per_block=3 * S
        ):
            assert max_array_size(run, arrays) < T * S // 3, implementation
    with thresholds.using(implementation="dense"):
        assert max_array_size(run, arrays) >= T * S
