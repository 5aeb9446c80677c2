"""The mask of a captured attention, in parts, so that a long input needs no T x S array."""

import dataclasses
import functools

import numpy as np

# Some of the keys: a slice or indices.
Columns = slice | np.ndarray
ALL = slice(None)


@dataclasses.dataclass(frozen=True, eq=False)
class StoredMask:
    """The mask of one captured attention. True means *may attend*; the parts that are present are AND-ed.

    Args:
        keys: bool (B, ..., S), True where a key is real.
        queries: bool (B, ..., T), True where a query is real; the weights of the others are 0.
        array: bool (B, ..., N, T, S); axes of length 1 broadcast.
        left: how many keys before its own position a query may attend to; None for all.
        right: how many keys after its own position a query may attend to; None for all, 0 for causal attention.
        offset: the key position of the first query: 0 where queries and keys are aligned at the start, S - T at the end.
    """

    keys: np.ndarray | None = None
    queries: np.ndarray | None = None
    array: np.ndarray | None = None
    left: int | None = None
    right: int | None = None
    offset: int = 0

    def for_rows(
        self, example: tuple[int, ...], heads: np.ndarray, rows: np.ndarray, num_keys: int, columns: Columns = ALL
    ) -> np.ndarray | None:
        """Return the mask of some rows of one example: bool, broadcastable to (n, r, s); None where all is permitted."""
        parts = []
        if self.keys is not None:
            parts.append(select_example(self.keys, example)[columns][None, None])
        if self.queries is not None:
            parts.append(select_example(self.queries, example)[rows][None, :, None])
        if self.array is not None:
            parts.append(select_rows(self.array, example, heads, rows, columns))
        if self.left is not None or self.right is not None:
            distance = self.distances(rows, num_keys, columns)[None]
            if self.right is not None:
                parts.append(distance <= self.right)
            if self.left is not None:
                parts.append(distance >= -self.left)
        return functools.reduce(np.logical_and, parts) if parts else None

    def distances(self, rows: np.ndarray, num_keys: int, columns: Columns = ALL) -> np.ndarray:
        """Return how many positions each key lies after each query: (r, s), negative for keys before it."""
        return np.arange(num_keys)[columns][None] - (rows[:, None] + self.offset)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Check that the parts fit weights of a shape (B, ..., N, T, S).

        Raises:
            ValueError: a part is not bool, or does not broadcast.
        """
        lead = shape[:-3]
        part_shapes = {"keys": (*lead, shape[-1]), "queries": (*lead, shape[-2]), "array": shape}
        for name, part_shape in part_shapes.items():
            part = getattr(self, name)
            if part is None:
                continue
            fits = broadcasts_to(part, part_shape) and (name == "array" or part.shape[-1] == part_shape[-1])
            if part.dtype != bool or not fits:
                raise ValueError(
                    f"`{name}` of the mask must be bool and broadcast to {part_shape}. Received: {part.dtype} of shape "
                    f"{part.shape}."
                )


def select_example(array: np.ndarray, example: tuple[int, ...]) -> np.ndarray:
    """Return the part of an array that belongs to one example; leading axes of length 1 broadcast."""
    return array[tuple(index if array.shape[axis] > 1 else 0 for axis, index in enumerate(example))]


def select_rows(
    array: np.ndarray, example: tuple[int, ...], heads: np.ndarray, rows: np.ndarray, columns: Columns = ALL
) -> np.ndarray:
    """Return heads, rows and columns of one example from an array that broadcasts to the weights (B, ..., N, T, S)."""
    array = select_example(array, example)
    if isinstance(columns, slice) and array.shape[2] > 1:
        # A slice copies nothing: what is selected by indices is then small.
        array, columns = array[..., columns], ALL
    if array.shape[0] > 1 and array.shape[1] > 1:
        array = array[heads[:, None], rows]
    elif array.shape[0] > 1:
        array = array[heads]
    elif array.shape[1] > 1:
        array = array[:, rows]
    return array if array.shape[2] == 1 else array[..., columns]


def broadcasts_to(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Return True if an array has as many axes as a shape, each of the same length or of length 1."""
    return array.ndim == len(shape) and all(a in (1, b) for a, b in zip(array.shape, shape, strict=True))
