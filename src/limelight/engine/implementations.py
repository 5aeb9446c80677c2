"""The choice of an implementation by the parts, the sizes, the backend and its device, and the output that it computes."""

import dataclasses
import functools
from typing import Any

import keras
import numpy as np

from limelight import masks, normalizers, scores
from limelight.core.block import Block
from limelight.core.component import is_tensor
from limelight.core.random import sample_seed
from limelight.engine import backend, dense, thresholds
from limelight.engine.call import AttentionCall, check_shapes, make_call, mask_from_array


@dataclasses.dataclass(frozen=True)
class Implementation:
    """An implementation of attention and the reason for choosing it.

    Args:
        name: "dense" computes all scores at once; "fused" calls the backend's own kernel; "online_softmax" runs a softmax over
            blocks of keys; "blockwise" computes blocks of whole rows.
        reason: A sentence.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def compute_output(call: AttentionCall, value: Any, *, dropout: float = 0.0, seed: Any = None) -> Any:
    """Compute the output (B, N, T, V) of a call for values (B, K, S, V), in the dtype of the values."""
    active = backend.active()
    call = active.prepare(call)
    implementation = choose(call, value, dropout).name
    if implementation == "fused":
        return active.fused(call, value)
    call_seed = sample_seed(seed) if dropout else None
    if implementation == "dense":
        return dense.compute_output(call, value, dropout=dropout, seed=call_seed)
    compute = active.online_softmax if implementation == "online_softmax" else active.blockwise
    return compute(call, value, dropout=dropout, seed=call_seed)


def choose(call: AttentionCall, value: Any = None, dropout: float = 0.0) -> Implementation:
    """Choose the implementation of the output of a prepared call (see `Backend.prepare`) for values (B, K, S, V)."""
    active, forced = backend.active(), thresholds.forced()
    if active.is_exporting():
        return Implementation("dense", "blocks and kernels depend on lengths, and an exported model must run at any.")
    in_parallel = call.block.history is None and not call.is_broadcast
    # First, because a call that suits the kernel may be so small that the rest of the choice would take long beside it.
    may_fuse = in_parallel and not dropout and forced in ("fused", None)
    if may_fuse and active.supports_fused(call, value, forced=forced is not None):
        return _fused(active.fused_kernel)
    candidates = {"dense": Implementation("dense", "it was requested.")}
    obstacle = "queries and keys are broadcast against each other, or a history is given."
    if in_parallel:
        obstacle = active.blockwise_obstacle(call, forced=forced is not None)
    if obstacle is None:
        candidates["blockwise"] = Implementation(
            "blockwise", f"{type(call.normalizer).__name__} needs whole rows, which are computed block by block."
        )
        if active.has_online_softmax and call.normalizer.exponential:
            candidates["online_softmax"] = Implementation(
                "online_softmax",
                "a softmax can run over blocks of keys, so that only one block of scores exists at a time.",
            )
    if forced in candidates:
        return candidates[forced]
    num_scores, limit = count_scores(call), thresholds.current(call.query).max_dense_scores
    if in_parallel and num_scores is not None and num_scores <= limit:
        return Implementation("dense", f"{num_scores:,} scores are few enough to be computed at once.")
    if obstacle is not None:
        return Implementation("dense", obstacle)
    if "online_softmax" in candidates and active.on_accelerator(call.query):
        return Implementation(
            "blockwise",
            "an accelerator is faster with large blocks of whole rows than with one small block at a time.",
        )
    return candidates.get("online_softmax", candidates["blockwise"])


@functools.cache
def _fused(kernel: str) -> Implementation:
    return Implementation("fused", f"{kernel} has a kernel for the softmax of dot products.")


def count_scores(call: AttentionCall) -> int | None:
    """Return the number of scores, weighted by their cost; None if a length is only known at run time."""
    (batch, heads, rows, _), columns = call.query.shape, call.key.shape[2]
    if rows is None or columns is None:
        return None
    if not all(isinstance(length, int) for length in (batch or 1, rows, columns)):
        # Keras infers shapes symbolically here; nothing is computed.
        return 0
    return (batch or 1) * heads * rows * columns * call.score.cost


def explain(query: Any, key: Any, *, score: Any, mask: Any, normalizer: Any, dropout: float) -> Implementation:
    """Choose the implementation for queries and keys, or for their shapes (see `limelight.explain_implementation`)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={dropout}.")
    query, key = _as_symbolic(query, "query"), _as_symbolic(key, "key")
    if isinstance(mask, keras.KerasTensor):
        mask = masks.ArrayMask(np.ones((1, 1), bool))
    elif isinstance(mask, (list, tuple)) or is_tensor(mask):
        mask = mask_from_array(mask, tuple(query.shape))
    check_shapes(query, key)
    shapes = [_flatten_leading_shape(x.shape) for x in (query, key)]
    # Parts are built, and the score is prepared, on a single query and key; the real shapes are put back afterwards.
    single = [np.zeros((1, heads, 1, size), "float32") for _, heads, _, size in shapes]
    call = make_call(*single, score=scores.get(score), normalizer=normalizers.get(normalizer))
    call = backend.active().prepare(call)
    (batch, heads, rows, _), columns = shapes[0], shapes[1][2]
    call = dataclasses.replace(
        call,
        query=keras.KerasTensor(shapes[0], query.dtype),
        key=keras.KerasTensor(shapes[1], key.dtype),
        mask=masks.get(mask),
        block=Block.full(batch, heads, rows, columns),
    )
    return choose(call, dropout=dropout)


def _as_symbolic(value: Any, name: str) -> Any:
    """Return a tensor unchanged, and a symbolic tensor for a shape."""
    if is_tensor(value):
        return value
    if not isinstance(value, (list, tuple)) or not all(length is None or isinstance(length, int) for length in value):
        raise TypeError(f"`{name}` must be a tensor or a shape such as (None, 8, 4096, 64). Received: {value!r}.")
    return keras.KerasTensor(tuple(value))


def _flatten_leading_shape(shape: tuple) -> tuple:
    """Return a shape (..., N, T, H) as (B, N, T, H): leading axes are merged, missing ones added."""
    if len(shape) < 4:
        return (*(shape[:-2] or (1,)), 1, *shape[-2:])
    leading = shape[:-3]
    return (None if None in leading else int(np.prod(leading)), *shape[-3:])
