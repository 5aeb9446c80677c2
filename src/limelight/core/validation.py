"""Checks of constructor arguments."""

from typing import Any


def check_positive_int(name: str, value: Any, *, optional: bool = False) -> None:
    """Raise ValueError unless `value` is an int of at least 1, or None if it is optional.

    Args:
        name: The name of the argument, for the error.
        value: The argument.
        optional: Accept None.
    """
    _check_int(name, value, 1, "positive", optional)


def check_non_negative_int(name: str, value: Any, *, optional: bool = False) -> None:
    """Raise ValueError unless `value` is an int of at least 0, or None if it is optional."""
    _check_int(name, value, 0, "non-negative", optional)


def check_positive(name: str, value: Any) -> None:
    """Raise ValueError unless the number `value` is greater than 0."""
    if not value > 0:
        raise ValueError(f"`{name}` must be positive. Received: {name}={value!r}.")


def _check_int(name: str, value: Any, minimum: int, kind: str, optional: bool) -> None:
    if (value is None and optional) or (isinstance(value, int) and value >= minimum):
        return
    raise ValueError(f"`{name}` must be a {kind} integer{' or None' if optional else ''}. Received: {name}={value!r}.")
