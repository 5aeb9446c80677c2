"""Which query may attend to which key, kept in parts so that a long input needs no T x S array."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class StoredMask:
    """Permissions of one captured attention. True means *may attend*; every part that is given must permit.

    Args:
        keys: bool (B, ..., S), True where a key is real.
        queries: bool (B, ..., T), True where a query is real; the weights of the others are 0.
        array: bool (B, ..., N, T, S); axes of length 1 broadcast.
        behind: how many keys before its own position a query reaches; None for all.
        ahead: how many keys after its own position a query reaches; None for all, 0 for causal attention.
        shift: the key position of the first query: 0 where queries and keys start together, S - T where they end together.
    """

    keys: np.ndarray | None = None
    queries: np.ndarray | None = None
    array: np.ndarray | None = None
    left: int | None = None
    right: int | None = None
    shift: int = 0

    def block(self, example: tuple[int, ...], heads: np.ndarray, rows: np.ndarray, columns: int) -> np.ndarray | None:
        """The permissions of some rows of one example: bool, broadcastable to (n, r, S); None where all is permitted."""
        parts = []
        if self.keys is not None:
            parts.append(at(self.keys, example)[None, None])
        if self.queries is not None:
            parts.append(at(self.queries, example)[rows][None, :, None])
        if self.array is not None:
            array = at(self.array, example)
            array = array if array.shape[0] == 1 else array[heads]
            parts.append(array if array.shape[1] == 1 else array[:, rows])
        if self.left is not None or self.right is not None:
            distance = np.arange(columns)[None] - (rows[:, None] + self.shift)
            if self.right is not None:
                parts.append((distance <= self.right)[None])
            if self.left is not None:
                parts.append((distance >= -self.left)[None])
        if not parts:
            return None
        result = parts[0]
        for part in parts[1:]:
            result = result & part
        return result

    def check(self, lead: tuple[int, ...], heads: int, rows: int, columns: int) -> None:
        """Raise where a part does not fit weights of shape (*lead, heads, rows, columns)."""
        wanted = {"keys": (*lead, columns), "queries": (*lead, rows), "array": (*lead, heads, rows, columns)}
        for name, shape in wanted.items():
            given = getattr(self, name)
            if given is None:
                continue
            fits = given.ndim == len(shape) and all(
                one in (1, other) for one, other in zip(given.shape, shape, strict=True)
            )
            if given.dtype != bool or not fits or (name != "array" and given.shape[-1] != shape[-1]):
                raise ValueError(
                    f"`{name}` of the permissions must be bool and broadcast to {shape}. Received: {given.dtype} of shape "
                    f"{given.shape}."
                )


def at(array: np.ndarray, example: tuple[int, ...]) -> np.ndarray:
    """The part of an array that belongs to one example; leading axes of length 1 broadcast."""
    return array[tuple(index if array.shape[axis] > 1 else 0 for axis, index in enumerate(example))]


def selection(chosen: Any, length: int, what: str) -> np.ndarray:
    """Indices from None (all), an int, a slice, a list of ints or a bool array.

    Raises:
        IndexError: an index outside 0 .. length - 1 (negative ones count from the end).
    """
    if chosen is None:
        return np.arange(length)
    if isinstance(chosen, slice):
        return np.arange(length)[chosen]
    indices = np.atleast_1d(np.asarray(chosen))
    if indices.dtype == bool and indices.shape == (length,):
        return np.flatnonzero(indices)
    if indices.size and indices.dtype.kind not in "iu":
        raise TypeError(f"`{what}` must be an int, a slice, a list of ints or {length} bools. Received: {chosen!r}.")
    indices = indices.astype(int)
    if ((indices < -length) | (indices >= length)).any():
        raise IndexError(f"`{what}` must lie in 0 .. {length - 1}. Received: {chosen!r}.")
    return indices % length if length else indices
