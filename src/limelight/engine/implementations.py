"""Which path computes an attention, and why: settled by its parts, its sizes and the device, by nothing else."""

import dataclasses
from typing import Any

import keras

from limelight.engine import placement, thresholds
from limelight.engine.call import AttentionCall
from limelight.normalizers import Softmax
from limelight.scores import Dot


@dataclasses.dataclass(frozen=True)
class Implementation:
    """A path and the reason for it.

    Args:
        name: "dense" computes all scores at once; "fused" calls the backend's own kernel; "online_softmax" keeps a running softmax
            over blocks of keys; "blockwise" computes blocks of whole rows.
        why: the reason, a sentence.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def ready(call: AttentionCall) -> AttentionCall:
    """A question as `choose` takes it: prepared where a kernel may do what is left of its score."""
    backend = keras.backend.backend()
    if backend == "torch" or (backend == "jax" and (forced("fused") or placement.accelerated(call.query))):
        return call.prepared()
    return call


def choose(call: AttentionCall, value: Any = None, dropout: float = 0.0) -> Implementation:
    """The path for the output of a ready question, for values (B, K, S, V)."""
    backend, asked = keras.backend.backend(), thresholds.forced()
    parallel = call.block.history is None and not broadcast(call)
    # First, since what a kernel takes may be so small that the choice would take long beside it.
    if parallel and asked in ("fused", None) and not dropout and FUSED[backend](call, value):
        return KERNELS[backend]
    possible = {"dense": Implementation("dense", "it was asked for.")}
    if parallel:
        possible["blockwise"] = Implementation(
            "blockwise", f"{described(call.normalizer)} needs whole rows, which are computed block by block."
        )
        if backend == "jax" and call.normalizer.exponential:
            possible["online_softmax"] = Implementation(
                "online_softmax",
                "a softmax can run over blocks of keys, so that only one block of scores exists at a time.",
            )
    if asked in possible:
        return possible[asked]
    if len(possible) == 1:
        return Implementation("dense", "queries and keys are broadcast against each other, or a history is given.")
    count, few = size(call), thresholds.current(call.query).max_dense_scores
    if backend == "tensorflow":
        # Its blocks are no quicker while all scores fit the cache, and compute them once more for the gradient.
        few *= 2
    if count is not None and count <= few:
        return Implementation("dense", f"{count:,} scores are few enough to be computed at once.")
    if "online_softmax" in possible and placement.accelerated(call.query):
        return Implementation(
            "blockwise",
            "an accelerator is quicker with large blocks of whole rows than with one small block at a time.",
        )
    return possible.get("online_softmax", possible["blockwise"])


def _torch(call: AttentionCall, value: Any) -> bool:
    # A subclass may be something else.
    return type(call.score) is Dot and type(call.normalizer) is Softmax


def _jax(call: AttentionCall, value: Any) -> bool:
    if not forced("fused") and not placement.accelerated(call.query):
        return False
    from limelight.engine.jax import fused

    return fused.fits(call) if forced("fused") else fused.takes(call, value)


def _tensorflow(call: AttentionCall, value: Any) -> bool:
    return False


FUSED = {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}
KERNELS = {
    backend: Implementation("fused", f"{name} has a kernel for the softmax of dot products.")
    for backend, name in {"jax": "cuDNN", "torch": "PyTorch"}.items()
}


def forced(name: str) -> bool:
    """Whether the path with a name is to be taken whatever the sizes."""
    return thresholds.forced() == name


def size(call: AttentionCall) -> int | None:
    """The number of scores, as far as it is known before the model runs; None where the length is not."""
    (batch, heads, rows, _), columns = call.query.shape, call.key.shape[2]
    if rows is None or columns is None:
        return None
    if not all(isinstance(length, int) for length in (batch or 1, rows, columns)):
        # Keras has JAX reason about a shape in symbols, for a layer that does not say what it returns. Nothing is computed.
        return 0
    return (batch or 1) * heads * rows * columns * call.score.cost


def broadcast(call: AttentionCall) -> bool:
    """Whether queries and keys are of different batches."""
    batch, other = call.query.shape[0], call.key.shape[0]
    return batch is not None and other is not None and batch != other


def described(part: Any) -> str:
    """A part as an explanation names it."""
    return type(part).__name__
