"""Which path computes an attention, and why: settled by its parts, its sizes and the device, by nothing else."""

import dataclasses
from typing import Any

import keras

from limelight.engine import devices, limits
from limelight.normalizers import Softmax
from limelight.question import Question
from limelight.scores import Dot


@dataclasses.dataclass(frozen=True)
class Path:
    """A path and the reason for it.

    Args:
        name: "plain" computes all scores at once; "fused" calls the backend's own kernel; "running" keeps a running softmax
            over blocks of keys; "rows" computes blocks of whole rows.
        why: the reason, a sentence.
    """

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


def ready(question: Question) -> Question:
    """A question as `choose` takes it: prepared where a kernel may do what is left of its score."""
    backend = keras.backend.backend()
    if backend == "torch" or (backend == "jax" and (forced("fused") or devices.accelerated(question.query))):
        return question.prepared()
    return question


def choose(question: Question, value: Any = None, dropout: float = 0.0) -> Path:
    """The path for the output of a ready question, for values (B, K, S, V)."""
    backend, asked = keras.backend.backend(), limits.forced()
    parallel = question.tile.history is None and not broadcast(question)
    # First, since what a kernel takes may be so small that the choice would take long beside it.
    if parallel and asked in ("fused", None) and not dropout and FUSED[backend](question, value):
        return KERNELS[backend]
    possible = {"plain": Path("plain", "it was asked for.")}
    if parallel:
        possible["rows"] = Path(
            "rows", f"{described(question.normalizer)} needs whole rows, which are computed block by block."
        )
        if backend == "jax" and question.normalizer.exponential:
            possible["running"] = Path(
                "running", "a softmax can run over blocks of keys, so that only one block of scores exists at a time."
            )
    if asked in possible:
        return possible[asked]
    if len(possible) == 1:
        return Path("plain", "queries and keys are broadcast against each other, or a history is given.")
    count, few = size(question), limits.current(question.query).plain
    if backend == "tensorflow":
        # Its blocks are no quicker while all scores fit the cache, and compute them once more for the gradient.
        few *= 2
    if count is not None and count <= few:
        return Path("plain", f"{count:,} scores are few enough to be computed at once.")
    if "running" in possible and devices.accelerated(question.query):
        return Path(
            "rows", "an accelerator is quicker with large blocks of whole rows than with one small block at a time."
        )
    return possible.get("running", possible["rows"])


def _torch(question: Question, value: Any) -> bool:
    # A subclass may be something else.
    return type(question.score) is Dot and type(question.normalizer) is Softmax


def _jax(question: Question, value: Any) -> bool:
    if not forced("fused") and not devices.accelerated(question.query):
        return False
    from limelight.engine import jax_fused

    return jax_fused.fits(question) if forced("fused") else jax_fused.takes(question, value)


def _tensorflow(question: Question, value: Any) -> bool:
    return False


FUSED = {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}
KERNELS = {
    backend: Path("fused", f"{name} has a kernel for the softmax of dot products.")
    for backend, name in {"jax": "cuDNN", "torch": "PyTorch"}.items()
}


def forced(name: str) -> bool:
    """Whether the path with a name is to be taken whatever the sizes."""
    return limits.forced() == name


def size(question: Question) -> int | None:
    """The number of scores, as far as it is known before the model runs; None where the length is not."""
    (batch, heads, rows, _), columns = question.query.shape, question.key.shape[2]
    if rows is None or columns is None:
        return None
    if not all(isinstance(length, int) for length in (batch or 1, rows, columns)):
        # Keras has JAX reason about a shape in symbols, for a layer that does not say what it returns. Nothing is computed.
        return 0
    return (batch or 1) * heads * rows * columns * question.score.cost


def broadcast(question: Question) -> bool:
    """Whether queries and keys are of different batches."""
    batch, other = question.query.shape[0], question.key.shape[0]
    return batch is not None and other is not None and batch != other


def described(part: Any) -> str:
    """A part as an explanation names it."""
    return type(part).__name__
