"""Sizes at which one implementation gives way to another; only tests change them."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any

from limelight.engine import backend


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What the choice of an implementation depends on besides the call.

    Args:
        max_dense_scores: Up to this number of scores, all are computed at once.
        scores_per_block: The number of scores in a block of whole rows.
        statistics_scores_per_block: The same for statistics, which hold several arrays of that size.
        rows, columns: The size of a block for the online softmax.
        min_rows: The fewest rows of a block under a mask that leaves few columns: each block costs some operations, however
            small it is.
        implementation: The name of an implementation to use whatever the sizes, if it can compute the call.
    """

    max_dense_scores: int = 1 << 22
    scores_per_block: int = 1 << 20
    statistics_scores_per_block: int = 1 << 20
    rows: int = 1024
    columns: int = 1024
    min_rows: int = 128
    implementation: str | None = None


# An accelerator takes as long for a small operation as for a large one, and it has more memory to use.
ACCELERATOR = Thresholds(
    max_dense_scores=1 << 28, scores_per_block=1 << 26, statistics_scores_per_block=1 << 23, rows=4096, columns=4096
)
_overrides: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("overrides", default=None)


def current(tensor: Any) -> Thresholds:
    """Return the thresholds for the device of a tensor."""
    active = backend.active()
    thresholds = active.accelerator_thresholds if active.on_accelerator(tensor) else active.cpu_thresholds
    overrides = _overrides.get()
    return dataclasses.replace(thresholds, **overrides) if overrides else thresholds


def forced() -> str | None:
    """Return the name of the implementation to use whatever the sizes, or None."""
    return (_overrides.get() or {}).get("implementation")


@contextlib.contextmanager
def using(**overrides: Any) -> Iterator[None]:
    """Override some thresholds inside, in this thread or task only."""
    token = _overrides.set({**(_overrides.get() or {}), **overrides})
    try:
        yield
    finally:
        _overrides.reset(token)
