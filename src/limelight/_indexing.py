"""Selections of heads, rows and columns."""

from typing import Any

import numpy as np


def resolve_indices(selection: Any, length: int, name: str) -> np.ndarray:
    """Return the indices (n,) that a selection stands for, each in 0 .. length - 1.

    Args:
        selection: None for all, an int, a slice, a list of ints (negative ones count from the end), or `length` bools.
        length: the length of the axis.
        name: the argument's name, for errors.

    Raises:
        IndexError: an index lies outside the axis.
        TypeError: the selection is of another kind.
    """
    if selection is None:
        return np.arange(length)
    if isinstance(selection, slice):
        return np.arange(length)[selection]
    indices = np.atleast_1d(np.asarray(selection))
    if indices.dtype == bool and indices.shape == (length,):
        return np.flatnonzero(indices)
    if indices.ndim > 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise TypeError(f"`{name}` must be an int, a slice, a list of ints or {length} bools. Received: {selection!r}.")
    indices = indices.astype(int)
    if ((indices < -length) | (indices >= length)).any():
        raise IndexError(f"`{name}` must lie in 0 .. {length - 1}. Received: {selection!r}.")
    return indices % length if length else indices
