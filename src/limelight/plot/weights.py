"""The weights of one example for a drawing, from an array or from a map, without holding more of them than are drawn."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limelight.maps import AttentionMap

_HELD = 1 << 22  # weights held at a time


@dataclass(frozen=True)
class Weights:
    """Weights (N, T, S) of the chosen heads of one example, and the names of its queries and keys.

    Args:
        shape: N, T and S, without padding.
        heads: The numbers of the heads.
        tokens: The T query tokens, or None.
        key_tokens: The S key tokens, or None.
        rows: Gives the weights (N, r, S) from one query to another.
    """

    shape: tuple[int, int, int]
    heads: tuple[int, ...]
    tokens: list[Any] | None
    key_tokens: list[Any] | None
    rows: Callable[[int, int], np.ndarray]

    @classmethod
    def of(
        cls,
        attention: Any,
        tokens: Sequence[Any] | None,
        key_tokens: Sequence[Any] | None,
        heads: int | Sequence[int] | None,
        example: int,
    ) -> "Weights":
        """Check an attention and its tokens.

        Raises:
            ValueError: A shape that is none of weights, numbers of tokens that differ, a head or example that is not there.
        """
        if isinstance(attention, AttentionMap):
            return cls._of_map(attention, tokens, key_tokens, heads, example)
        array = np.asarray(attention)
        if array.dtype.kind not in "fiub" or not 2 <= array.ndim <= 4 or 0 in array.shape:
            raise ValueError(
                "`attention` must be an AttentionMap, or weights of shape (T, S), (N, T, S) or (B, N, T, S). "
                f"Received: {type(attention).__name__} of shape {array.shape}, dtype {array.dtype}."
            )
        if array.ndim == 4:
            array = array[_index(example, len(array), "example")]
        array = array if array.ndim == 3 else array[None]
        chosen = _heads(heads, len(array))
        if tokens is not None and key_tokens is None and array.shape[1] == array.shape[2]:
            key_tokens = tokens
        for what, given, size in (("query", tokens, array.shape[1]), ("key", key_tokens, array.shape[2])):
            if given is not None and len(given) != size:
                raise ValueError(
                    f"There must be one {what} token for each of {size} weights along that axis. Received: {len(given)} "
                    "tokens. Cut padding off the weights, or name every position."
                )
        return cls(
            (len(chosen), *array.shape[1:]), chosen, _listed(tokens), _listed(key_tokens),
            lambda start, stop: array[list(chosen), start:stop].astype(np.float64),
        )  # fmt: skip

    @classmethod
    def _of_map(cls, seen: AttentionMap, tokens: Any, key_tokens: Any, heads: Any, example: int) -> "Weights":
        if len(seen.shape) != 4:
            raise ValueError(
                f"The map must have shape (B, N, T, S). Received: {seen.shape}, of a layer that ran once for each step. "
                "Pass the weights of one step: map.weights()[:, step]."
            )
        place = _index(example, seen.shape[0], "example")
        chosen = _heads(heads, seen.num_heads)
        if tokens is None and seen.query_tokens is not None:
            tokens = seen.query_tokens[place]
        if key_tokens is None and seen.tokens is not None:
            key_tokens = seen.tokens[place]
        if key_tokens is None and seen.shape[2] == seen.shape[3]:
            key_tokens = tokens
        sizes = []
        for what, given, size in (("query", tokens, seen.shape[2]), ("key", key_tokens, seen.shape[3])):
            if given is not None and not 0 < len(given) <= size:
                raise ValueError(
                    f"There must be at most one {what} token for each of {size} positions, and at least one. "
                    f"Received: {len(given)} tokens."
                )
            sizes.append(size if given is None else len(given))

        def rows(start: int, stop: int) -> np.ndarray:
            return seen.weights(list(chosen), slice(start, stop), slice(0, sizes[1]), [place])[0]

        return cls((len(chosen), sizes[0], sizes[1]), chosen, _listed(tokens), _listed(key_tokens), rows)

    def mean(self, cells: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Return the mean over heads, at most (cells, cells) of the largest of each block, and the size of a block."""
        return self._reduced(lambda weights: weights.mean(0), cells)

    def head(self, place: int, cells: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Return one of the chosen heads, at most (cells, cells) of the largest of each block, and a block's size."""
        return self._reduced(lambda weights: weights[place], cells)

    def _reduced(self, flat: Callable[[np.ndarray], np.ndarray], cells: int) -> tuple[np.ndarray, tuple[int, int]]:
        count, queries, keys = self.shape
        down, across = math.ceil(queries / cells), math.ceil(keys / cells)
        step = down * max(1, _HELD // (count * keys * down))
        parts = []
        for start in range(0, queries, step):
            part = flat(self.rows(start, min(start + step, queries)))
            if not np.isfinite(part).all():
                raise ValueError(
                    f"Weights must be finite. Received: {int((~np.isfinite(part)).sum())} NaN or infinite."
                )
            part = np.maximum.reduceat(part, np.arange(0, part.shape[0], down), axis=0)
            parts.append(np.maximum.reduceat(part, np.arange(0, keys, across), axis=1))
        return np.concatenate(parts), (down, across)


def _heads(heads: int | Sequence[int] | None, count: int) -> tuple[int, ...]:
    if heads is None:
        return tuple(range(count))
    given = np.atleast_1d(np.asarray(heads))
    if not given.size or given.dtype.kind not in "iu" or given.min() < -count or given.max() >= count:
        raise ValueError(f"`heads` must be out of 0 to {count - 1}. Received: {heads!r}.")
    return tuple(int(head) % count for head in given)


def _index(place: int, count: int, what: str) -> int:
    if not -count <= place < count:
        raise ValueError(f"`{what}` must be out of 0 to {count - 1}. Received: {place}.")
    return place % count


def _listed(tokens: Sequence[Any] | None) -> list[Any] | None:
    return None if tokens is None else list(tokens)
