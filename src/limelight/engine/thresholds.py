"""Sizes at which one path gives way to another; changed only by tests."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras

from limelight.engine import placement


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What the choice of a path depends on besides the question.

    Args:
        max_dense_scores: the number of scores up to which they are computed all at once.
        scores_per_block: how many scores a block of whole rows holds.
        statistics_scores_per_block: the same for statistics, which does more with each block.
        rows, columns: the size of a block where softmax runs over blocks of keys.
        min_rows: rows that may attend to few columns come in blocks of no fewer: each takes some operations, however few its
            scores.
        implementation: the name of an implementation to use whatever the sizes, where it can do what is asked.
    """

    max_dense_scores: int = 1 << 22
    scores_per_block: int = 1 << 20
    statistics_scores_per_block: int = 1 << 20
    rows: int = 1024
    columns: int = 1024
    min_rows: int = 128
    implementation: str | None = None


DEFAULTS = Thresholds()
# On an accelerator an operation takes as long for a little as for much, and there is more memory to use.
ACCELERATED = Thresholds(
    max_dense_scores=1 << 28, scores_per_block=1 << 26, statistics_scores_per_block=1 << 23, rows=4096, columns=4096
)
# Where nothing compiles the loop over blocks, an accelerator waits for each operation to be called.
CALLED = dataclasses.replace(ACCELERATED, min_rows=2048)
_changes: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("limits", default=None)


def current(tensor: Any) -> Thresholds:
    """The limits that hold now, for what is asked of a tensor."""
    limits = DEFAULTS
    if placement.accelerated(tensor):
        limits = CALLED if keras.backend.backend() == "torch" else ACCELERATED
    changes = _changes.get()
    return dataclasses.replace(limits, **changes) if changes else limits


def forced() -> str | None:
    """The path that is to be taken whatever the sizes."""
    return (_changes.get() or {}).get("implementation")


@contextlib.contextmanager
def using(**changes: Any) -> Iterator[None]:
    """Let other limits hold inside."""
    token = _changes.set({**(_changes.get() or {}), **changes})
    try:
        yield
    finally:
        _changes.reset(token)
