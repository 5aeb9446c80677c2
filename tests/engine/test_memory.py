"""No path by blocks ever holds an array of T x S, forward or backward; a formula that does is found out."""

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
PATHS = {"jax": ("online_softmax", "blockwise"), "tensorflow": ("blockwise",), "torch": ("fused", "blockwise")}[BACKEND]
PARTS = {
    "defaults": {},
    "additive": {"score": "additive"},
    "causal window": {"mask": ll.masks.Causal() & ll.masks.SlidingWindow(9)},
    "sparsemax": {"normalizer": "sparsemax"},
}


def held(run: Callable[..., Any], arrays: list[np.ndarray]) -> int:
    """The most elements of any array that comes up while a function of arrays and its gradients are computed."""
    return {"jax": _held_by_jax, "tensorflow": _held_by_tensorflow, "torch": _held_by_torch}[BACKEND](run, arrays)


def _held_by_jax(run: Callable[..., Any], arrays: list[np.ndarray]) -> int:
    import jax

    traced = jax.make_jaxpr(jax.grad(lambda *given: ops.sum(run(*given) ** 2), argnums=(0, 1, 2)))(*arrays)

    def sizes(jaxpr: Any) -> Iterator[int]:
        for equation in jaxpr.eqns:
            yield from (int(np.prod(variable.aval.shape)) for variable in equation.outvars)
            for parameter in equation.params.values():
                for inner in parameter if isinstance(parameter, (list, tuple)) else [parameter]:
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        yield from sizes(inner)

    return max(sizes(traced.jaxpr))


def _held_by_tensorflow(run: Callable[..., Any], arrays: list[np.ndarray]) -> int:
    import tensorflow as tf
    from tensorflow.python.framework import op_callbacks

    found = []

    def callback(kind: Any, inputs: Any, attributes: Any, outputs: Any, *context: Any) -> None:
        found.extend(int(np.prod(tensor.shape)) for tensor in outputs if hasattr(tensor, "shape"))

    given = [tf.constant(array) for array in arrays]
    op_callbacks.add_op_callback(callback)
    try:
        with tf.GradientTape() as tape:
            tape.watch(given)
            total = tf.reduce_sum(run(*given) ** 2)
        tape.gradient(total, given)
    finally:
        op_callbacks.remove_op_callback(callback)
    return max(found)


def _held_by_torch(run: Callable[..., Any], arrays: list[np.ndarray]) -> int:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    found = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
            output = function(*given, **(named or {}))
            several = output if isinstance(output, (list, tuple)) else [output]
            found.extend(tensor.numel() for tensor in several if isinstance(tensor, torch.Tensor))
            return output

    given = [torch.from_numpy(array).requires_grad_() for array in arrays]
    with Watching():
        torch.autograd.grad((run(*given) ** 2).sum(), given)
    return max(found)


@pytest.mark.parametrize("name", PARTS)
def test_nothing_of_size_t_by_s_comes_up(name: str) -> None:
    random = np.random.default_rng(47)
    arrays = [random.normal(size=(1, 1, length, H)).astype("float32") for length in (T, S, S)]
    parts = dict(PARTS[name])
    if name == "additive":
        parts["score"] = ll.scores.Additive(2)
        ll.attend(*arrays, **parts)

    def run(*given: Any) -> Any:
        return ll.attend(*given, **parts)

    for implementation in PATHS:
        # Blocks of six rows at most. Where a path cannot do what is asked, another by blocks does.
        with thresholds.using(
            implementation=implementation, max_dense_scores=0, rows=5, columns=7, scores_per_block=3 * S
        ):
            assert held(run, arrays) < T * S // 3, implementation
    with thresholds.using(implementation="dense"):
        assert held(run, arrays) >= T * S
