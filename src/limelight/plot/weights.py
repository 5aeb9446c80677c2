"""The weights of one example for a drawing, from an array or a map, reduced block by block to the size of the drawing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limelight.maps import AttentionMap

_MAX_IN_MEMORY = 1 << 22  # weights


@dataclass(frozen=True)
class Weights:
    """Weights (N, T, S) of the chosen heads of one example, and its query and key tokens.

    Args:
        shape: N, T and S, without padding.
        heads: The indices of the heads.
        tokens: The T query tokens, or None.
        key_tokens: The S key tokens, or None.
        rows: Takes the first query and the end, returns the weights (N, r, S) of these queries.
    """

    shape: tuple[int, int, int]
    heads: tuple[int, ...]
    tokens: list[Any] | None
    key_tokens: list[Any] | None
    rows: Callable[[int, int], np.ndarray]

    @classmethod
    def from_attention(
        cls,
        attention: Any,
        tokens: Sequence[Any] | None,
        key_tokens: Sequence[Any] | None,
        heads: int | Sequence[int] | None,
        example: int,
    ) -> "Weights":
        """Check the weights and the tokens of an array or a map.

        Raises:
            ValueError: The shape is not that of weights, the numbers of tokens and weights differ, or a head or the example
                does not exist.
        """
        if isinstance(attention, AttentionMap):
            return cls._from_map(attention, tokens, key_tokens, heads, example)
        array = np.asarray(attention)
        if array.dtype.kind not in "fiub" or not 2 <= array.ndim <= 4 or 0 in array.shape:
            raise ValueError(
                "`attention` must be an AttentionMap, or weights of shape (T, S), (N, T, S) or (B, N, T, S). "
                f"Received: {type(attention).__name__} of shape {array.shape}, dtype {array.dtype}."
            )
        if array.ndim == 4:
            array = array[_check_index(example, len(array), "example")]
        array = array if array.ndim == 3 else array[None]
        chosen = _check_heads(heads, len(array))
        if tokens is not None and key_tokens is None and array.shape[1] == array.shape[2]:
            key_tokens = tokens
        for name, given, size in (("query", tokens, array.shape[1]), ("key", key_tokens, array.shape[2])):
            if given is not None and len(given) != size:
                raise ValueError(
                    f"There must be one {name} token for each of {size} weights along that axis. Received: {len(given)} "
                    "tokens. Remove the padding from the weights, or pass a token for every position."
                )
        return cls(
            (len(chosen), *array.shape[1:]), chosen, _to_list(tokens), _to_list(key_tokens),
            lambda start, stop: array[list(chosen), start:stop].astype(np.float64),
        )  # fmt: skip

    @classmethod
    def _from_map(
        cls, attention_map: AttentionMap, tokens: Any, key_tokens: Any, heads: Any, example: int
    ) -> "Weights":
        if len(attention_map.shape) != 4:
            raise ValueError(
                f"The map must have shape (B, N, T, S). Received: {attention_map.shape}, of a layer that ran once per step. "
                "Pass the weights of one step: map.weights()[:, step]."
            )
        index = _check_index(example, attention_map.shape[0], "example")
        chosen = _check_heads(heads, attention_map.num_heads)
        if key_tokens is None and attention_map.tokens is not None:
            key_tokens = attention_map.tokens[index]
        # Only what the caller gives: a map that knows its queries alone is of cross-attention.
        if key_tokens is None and attention_map.shape[2] == attention_map.shape[3]:
            key_tokens = tokens
        if tokens is None and attention_map.query_tokens is not None:
            tokens = attention_map.query_tokens[index]
        sizes = []
        for name, given, size in (
            ("query", tokens, attention_map.shape[2]),
            ("key", key_tokens, attention_map.shape[3]),
        ):
            if given is not None and not 0 < len(given) <= size:
                raise ValueError(
                    f"There must be at most one {name} token for each of {size} positions, and at least one. "
                    f"Received: {len(given)} tokens."
                )
            sizes.append(size if given is None else len(given))

        def rows(start: int, stop: int) -> np.ndarray:
            return attention_map.weights(list(chosen), slice(start, stop), slice(0, sizes[1]), [index])[0]

        return cls((len(chosen), sizes[0], sizes[1]), chosen, _to_list(tokens), _to_list(key_tokens), rows)

    def mean(self, max_cells: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Return the mean over heads, reduced to at most (max_cells, max_cells) block maxima, and the size of a block."""
        return self._reduce(lambda weights: weights.mean(0), max_cells)

    def head(self, index: int, max_cells: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Return one of the chosen heads, reduced to at most (max_cells, max_cells) block maxima, and the size of a block."""
        return self._reduce(lambda weights: weights[index], max_cells)

    def _reduce(
        self, over_heads: Callable[[np.ndarray], np.ndarray], max_cells: int
    ) -> tuple[np.ndarray, tuple[int, int]]:
        count, queries, keys = self.shape
        block_rows, block_columns = math.ceil(queries / max_cells), math.ceil(keys / max_cells)
        step = block_rows * max(1, _MAX_IN_MEMORY // (count * keys * block_rows))
        parts = []
        for start in range(0, queries, step):
            part = over_heads(self.rows(start, min(start + step, queries)))
            if not np.isfinite(part).all():
                raise ValueError(
                    f"Weights must be finite. Received: {int((~np.isfinite(part)).sum())} NaN or infinite."
                )
            part = np.maximum.reduceat(part, np.arange(0, part.shape[0], block_rows), axis=0)
            parts.append(np.maximum.reduceat(part, np.arange(0, keys, block_columns), axis=1))
        return np.concatenate(parts), (block_rows, block_columns)


def _check_heads(heads: int | Sequence[int] | None, count: int) -> tuple[int, ...]:
    if heads is None:
        return tuple(range(count))
    indices = np.atleast_1d(np.asarray(heads))
    if not indices.size or indices.dtype.kind not in "iu" or indices.min() < -count or indices.max() >= count:
        raise ValueError(f"`heads` must be from 0 to {count - 1}. Received: {heads!r}.")
    return tuple(int(head) % count for head in indices)


def _check_index(index: int, count: int, argument: str) -> int:
    if not -count <= index < count:
        raise ValueError(f"`{argument}` must be from 0 to {count - 1}. Received: {index}.")
    return index % count


def _to_list(tokens: Sequence[Any] | None) -> list[Any] | None:
    return None if tokens is None else list(tokens)
