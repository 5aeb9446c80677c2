"""Sizes at which one path gives way to another; changed only by tests."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the choice of a path depends on besides the question.

    Args:
        plain: the number of scores up to which they are computed all at once.
        block: how many scores a block of whole rows holds.
        rows, columns: the size of a block where softmax runs over blocks of keys.
        path: the name of a path to take whatever the sizes, where it can do what is asked.
    """

    plain: int = 1 << 22
    block: int = 1 << 20
    rows: int = 1024
    columns: int = 1024
    path: str | None = None


DEFAULTS = Limits()
_current: contextvars.ContextVar[Limits | None] = contextvars.ContextVar("limits", default=None)


def current() -> Limits:
    """The limits that hold now."""
    return _current.get() or DEFAULTS


@contextlib.contextmanager
def using(**changes: Any) -> Iterator[None]:
    """Let other limits hold inside."""
    token = _current.set(dataclasses.replace(current(), **changes))
    try:
        yield
    finally:
        _current.reset(token)
