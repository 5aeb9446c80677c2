"""The error of a request that the server refuses."""

from typing import Any

_MAX_QUOTED = 80
_MAX_LINE = 500


class InputError(ValueError):
    """An input that cannot be used; the message is for the person who sent it.

    Args:
        message: What must hold, what arrived and what to do.
        status: The status of HTTP.
    """

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


def quote(value: Any) -> str:
    """Return a value of a request as it is shown in a message: on one line, and not long."""
    try:
        written = repr(value)
    except (ValueError, RecursionError):
        # Python refuses to write integers of more than 4,300 digits.
        written = f"a value of type {type(value).__name__}"
    return written if len(written) <= _MAX_QUOTED else f"{written[: _MAX_QUOTED - 1]}…"


def to_line(error: Exception) -> str:
    """Return the message of an error on one line, and not long."""
    line = " ".join(str(error).split())
    return line if len(line) <= _MAX_LINE else f"{line[: _MAX_LINE - 1]}…"
