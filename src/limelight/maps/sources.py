"""Where the weights of a map come from: queries and keys, captured weights, or statistics alone."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from limelight._attention_statistics import AttentionStatistics
from limelight._distributions import softmax
from limelight.maps.stored_mask import ALL, Columns, StoredMask, broadcasts_to, select_rows

# Numbers held at once while a map is computed in blocks of rows: 32 MiB of float32.
MAX_BLOCK_SIZE = 1 << 23
# The additive score needs a hidden vector for each pair of query and key: so many pairs are held at once.
_MAX_PAIRS = 1 << 16
# Scores held at once while whole rows are reduced: they stay in the processor's cache.
_MAX_SCORES = 1 << 18
# A sum of exponentials is rescaled when a score exceeds its reference by this: e^60 times 100 million terms fits in float32.
_MAX_EXCESS = 60.0


@dataclasses.dataclass(frozen=True, eq=False)
class QKSource:
    r"""The queries and keys of one attention, from which any of its weights can be computed.

    $$w_{ij} = \mathrm{softmax}_j\big(\mathrm{cap}(c\,q_i \cdot k_j) + b_{ij}\big)$$ over the permitted keys, or with `vector`
    $$s_{ij} = v^\top \tanh(q_i + k_j)$$ in place of the product.

    Args:
        query: (B, ..., N, T, H).
        key: (B, ..., K, S, H), where K divides N: each key head serves N / K query heads.
        scale: the factor $c$.
        vector: $v$, (H,), for the additive score; None for the dot product.
        softcap: scores pass through $m \tanh(s / m)$; None for no cap.
        bias: added to the scores, (B, ..., N, T, S); axes of length 1 broadcast.
        mask: the mask. A row that permits nothing has weights 0.

    Raises:
        ValueError: the shapes do not fit together.
    """

    query: np.ndarray
    key: np.ndarray
    scale: float = 1.0
    vector: np.ndarray | None = None
    softcap: float | None = None
    bias: np.ndarray | None = None
    mask: StoredMask = dataclasses.field(default_factory=StoredMask)

    def __post_init__(self) -> None:
        query, key = self.query.shape, self.key.shape
        if len(query) < 4 or len(query) != len(key) or query[:-3] != key[:-3] or query[-1] != key[-1]:
            raise ValueError(f"`query` must be (B, N, T, H) and `key` (B, K, S, H). Received: {query} and {key}.")
        if not key[-3] or query[-3] % key[-3]:
            raise ValueError(f"The heads of `key` must divide those of `query`. Received: {query} and {key}.")
        if self.vector is not None and self.vector.shape != query[-1:]:
            raise ValueError(f"`vector` must have shape {query[-1:]}. Received: {self.vector.shape}.")
        if self.bias is not None and not broadcasts_to(self.bias, self.shape):
            raise ValueError(f"`bias` must broadcast to {self.shape}. Received: {self.bias.shape}.")
        self.mask.check_shape(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all weights: (B, ..., N, T, S)."""
        return (*self.query.shape[:-1], self.key.shape[-2])

    def scores(
        self, example: tuple[int, ...], heads: np.ndarray, rows: np.ndarray, columns: Columns = ALL
    ) -> np.ndarray:
        """Compute the scores (n, r, s) of some rows and columns of one example, before the mask."""
        return self._scores(example, heads, rows, columns, keys_first=False)

    def row_weights(
        self,
        example: tuple[int, ...],
        heads: np.ndarray,
        rows: np.ndarray,
        columns: Columns | None = None,
        logsumexp: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the weights (n, r, s) of some rows of one example, and the logsumexp (n, r) of all scores of these rows.

        Of whole rows without `columns`; else of these keys alone, and nothing of the size of a row is held. With the `logsumexp`
        of an earlier call the other keys are not read.
        """
        if columns is None:
            mask = self.mask.for_rows(example, heads, rows, self.key.shape[-2])
            return softmax(self.scores(example, heads, rows), mask)
        if logsumexp is None:
            logsumexp, _, _ = self.reduce_rows(example, heads, rows, block_size=1024)
        scores = self._masked_scores(example, heads, rows, columns, keys_first=False)
        # A row that permits nothing has scores -inf.
        exact = np.where(np.isfinite(logsumexp), logsumexp, 0)[..., None]
        shift = exact.astype(np.float32)
        scores -= shift
        np.exp(scores, out=scores)
        scores *= np.exp(shift - exact).astype(np.float32)
        return scores, logsumexp

    def reduce_rows(
        self, example: tuple[int, ...], heads: np.ndarray, rows: np.ndarray, block_size: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compute the logsumexp (n, r) of rows, and sums and maxima (n, r, c) of their weights over blocks of keys, in one pass.

        The logsumexp is in float64. Exponentials are relative to a reference of each row, a score that none exceeds by far.
        """
        num_keys = self.key.shape[-2]
        shape = (len(heads), len(rows), -(-num_keys // block_size))
        sums, maxima = np.zeros(shape, np.float32), np.full(shape, -np.inf, np.float32)
        reference = np.full((*shape[:2], 1), -np.inf, np.float32)
        step = block_size * max(1, _MAX_SCORES // (max(1, len(heads) * len(rows)) * block_size))
        for start in range(0, num_keys, step):
            stop = min(start + step, num_keys)
            blocks = slice(start // block_size, -(-stop // block_size))
            scores = self._masked_scores(example, heads, rows, slice(start, stop), keys_first=True)
            maxima[..., blocks] = _reduce_columns(np.maximum, scores, block_size)
            largest = maxima[..., blocks].max(axis=-1, keepdims=True)
            is_larger = (largest > reference + np.float32(_MAX_EXCESS)) | np.isneginf(reference)
            if is_larger.any():
                larger = np.where(is_larger, largest, reference)
                # Nothing has been summed where the reference is still -inf.
                difference = np.where(np.isneginf(reference), 0, reference - np.where(np.isneginf(larger), 0, larger))
                sums *= np.exp(difference)
                reference = larger
            scores -= np.where(np.isneginf(reference), 0, reference)
            sums[..., blocks] = _reduce_columns(np.add, np.exp(scores, out=scores), block_size)
        total = sums.sum(axis=-1, keepdims=True, dtype=np.float64)
        scale = np.where(total > 0, total, 1).astype(np.float32)
        reference = np.where(np.isneginf(reference), 0, reference)
        maxima -= reference
        np.exp(maxima, out=maxima)
        with np.errstate(divide="ignore"):
            return (np.log(total) + reference)[..., 0], sums / scale, maxima / scale

    def _scores(
        self, example: tuple[int, ...], heads: np.ndarray, rows: np.ndarray, columns: Columns, keys_first: bool
    ) -> np.ndarray:
        """Compute scores (n, r, s). With `keys_first` neighbouring rows lie together in memory, to be reduced over keys."""
        query = self.query[example][heads[:, None], rows].astype(np.float32)  # (n, r, H)
        group = heads // (self.query.shape[-3] // self.key.shape[-3])
        key = self.key[example]
        # A slice of one head is not copied.
        key = key[group[0], columns][None] if len(group) == 1 else key[:, columns][group]  # (n, s, H)
        key = key.astype(np.float32, copy=False)
        if self.vector is None:
            query *= np.float32(self.scale)
            scores = (
                np.swapaxes(key @ np.swapaxes(query, -1, -2), -1, -2)
                if keys_first
                else query @ np.swapaxes(key, -1, -2)
            )
        else:
            scores = _additive_scores(query, key, self.vector.astype(np.float32)) * np.float32(self.scale)
        if self.softcap is not None:
            scores /= np.float32(self.softcap)
            np.tanh(scores, out=scores)
            scores *= np.float32(self.softcap)
        if self.bias is not None:
            scores += select_rows(self.bias, example, heads, rows, columns).astype(np.float32)
        return scores

    def _masked_scores(
        self, example: tuple[int, ...], heads: np.ndarray, rows: np.ndarray, columns: Columns, keys_first: bool
    ) -> np.ndarray:
        """Compute scores (n, r, s) that are -inf where the mask permits nothing."""
        scores = self._scores(example, heads, rows, columns, keys_first)
        mask = self.mask.for_rows(example, heads, rows, self.key.shape[-2], columns)
        if mask is not None:
            np.copyto(scores, np.float32(-np.inf), where=~mask)
        return scores


def _reduce_columns(function: np.ufunc, array: np.ndarray, block_size: int) -> np.ndarray:
    """Reduce (n, r, s) over blocks of columns, of which the last may be smaller: (n, r, c)."""
    if block_size == 1:
        return array
    *lead, columns = array.shape
    whole = columns // block_size * block_size
    # The last axis is split in place: its memory may be in any order.
    blocks = function.reduce(array[..., :whole].reshape(*lead, whole // block_size, block_size), axis=-1)
    if whole == columns:
        return blocks
    return np.concatenate([blocks, function.reduce(array[..., whole:], axis=-1, keepdims=True)], axis=-1)


def _additive_scores(query: np.ndarray, key: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Compute $v^\\top \\tanh(q_i + k_j)$, (n, r, S), a few rows at a time."""
    heads, rows, size = query.shape
    columns = key.shape[1]
    scores = np.empty((heads, rows, columns), np.float32)
    step = max(1, _MAX_PAIRS // max(1, columns))
    for head in range(heads):
        for start in range(0, rows, step):
            hidden = np.tanh(query[head, start : start + step, None] + key[head][None])  # (r, S, H)
            scores[head, start : start + step] = hidden.reshape(-1, size).dot(vector).reshape(hidden.shape[:-1])
    return scores


@dataclasses.dataclass(frozen=True, eq=False)
class WeightSource:
    """Captured weights, of a layer whose queries and keys could not be captured.

    Args:
        array: (B, ..., N, T, S).
        mask: which queries and keys are real. Weights outside are 0.

    Raises:
        ValueError: the weights have fewer than four axes, or the mask does not fit them.
    """

    array: np.ndarray
    mask: StoredMask = dataclasses.field(default_factory=StoredMask)

    def __post_init__(self) -> None:
        if self.array.ndim < 4:
            raise ValueError(f"Weights must have shape (B, N, T, S). Received: {self.array.shape}.")
        self.mask.check_shape(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all weights: (B, ..., N, T, S)."""
        return self.array.shape

    def row_weights(
        self,
        example: tuple[int, ...],
        heads: np.ndarray,
        rows: np.ndarray,
        columns: Columns | None = None,
        logsumexp: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (n, r, s) of some rows of one example, and NaN (n, r) for their unknown logsumexp."""
        columns = ALL if columns is None else columns
        weights = self.array[example][heads][:, rows][..., columns].astype(np.float32)
        mask = self.mask.for_rows(example, heads, rows, self.array.shape[-1], columns)
        weights = weights if mask is None else np.where(mask, weights, np.float32(0))
        return weights, np.full(weights.shape[:2], np.nan, np.float32)

    def reduce_rows(
        self, example: tuple[int, ...], heads: np.ndarray, rows: np.ndarray, block_size: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return NaN (n, r) for the unknown logsumexp of rows, and sums and maxima (n, r, c) of weights over blocks of keys."""
        weights, logsumexp = self.row_weights(example, heads, rows)
        sums, maxima = (_reduce_columns(function, weights, block_size) for function in (np.add, np.maximum))
        return logsumexp, sums, maxima


@dataclasses.dataclass(frozen=True, eq=False)
class StatisticsSource:
    """Statistics that were computed inside the model, where nothing else was kept. The fields are those of `AttentionStatistics`.

    Args:
        mask: empty; the statistics have taken the mask into account.

    Raises:
        ValueError: the shapes do not fit together.
    """

    entropy: np.ndarray
    logsumexp: np.ndarray
    top_keys: np.ndarray
    top_weights: np.ndarray
    distance: np.ndarray
    received: np.ndarray
    block_sums: np.ndarray
    mass: np.ndarray
    row_edges: np.ndarray
    column_edges: np.ndarray
    block_max: np.ndarray
    mask: StoredMask = dataclasses.field(default_factory=StoredMask)

    def __post_init__(self) -> None:
        rows = self.entropy.shape
        lead, blocks = rows[:-1], (len(self.row_edges) - 1, len(self.column_edges) - 1)
        expected = {
            **dict.fromkeys(("entropy", "logsumexp", "distance", "mass"), rows),
            **dict.fromkeys(("top_keys", "top_weights"), (*rows, *self.top_keys.shape[-1:])),
            "received": (*lead, *self.received.shape[-1:]),
            **dict.fromkeys(("block_sums", "block_max"), (*lead, *blocks)),
        }
        shapes = {name: getattr(self, name).shape for name in expected}
        if len(rows) < 3 or shapes != expected or self.row_edges.ndim != 1 or self.column_edges.ndim != 1:
            raise ValueError(f"All statistics must have the same heads and queries. Received: shapes {shapes}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all weights: (B, ..., N, T, S)."""
        return (*self.entropy.shape, self.received.shape[-1])

    def statistics(self, top_k: int) -> AttentionStatistics:
        """Return the statistics, with `top_k` keys of each query.

        Raises:
            ValueError: fewer keys were captured.
        """
        captured = self.top_keys.shape[-1]
        if top_k > captured:
            raise ValueError(
                f"`top_k` must be at most {captured}, the number of keys of each query that were captured. Received: "
                f"top_k={top_k}. Capture again, with top_k={top_k}."
            )
        fields = {name: getattr(self, name) for name in AttentionStatistics._fields if name != "output"}
        fields["top_keys"] = self.top_keys[..., :top_k].astype(np.int32)
        return AttentionStatistics(**{**fields, "top_weights": self.top_weights[..., :top_k]})


Source = QKSource | WeightSource | StatisticsSource


class RowBlock(NamedTuple):
    """Weights of some rows of one example, of all keys unless some were chosen.

    Args:
        example: the index along B and any axes between B and N.
        part: which of the chosen rows these are.
        rows: the indices of the rows, (r,).
        weights: (n, r, S), or (n, r, s) of the chosen keys.
        logsumexp: of each row's scores, (n, r); NaN where only weights were captured.
    """

    example: tuple[int, ...]
    part: slice
    rows: np.ndarray
    weights: np.ndarray
    logsumexp: np.ndarray


def require_weights(source: Source) -> QKSource | WeightSource:
    """Return a source if weights can be computed from it.

    Raises:
        ValueError: only statistics were captured.
    """
    if isinstance(source, StatisticsSource):
        raise ValueError(
            "This needs weights, but only statistics were captured. Call the map's `statistics()`, or capture without "
            'store="statistics".'
        )
    return source


def iter_row_blocks(
    source: Source,
    heads: np.ndarray,
    rows: np.ndarray,
    examples: np.ndarray | None = None,
    columns: Columns | None = None,
) -> Iterator[RowBlock]:
    """Compute the weights of some heads and rows in blocks of rows that fit in memory, one example after another.

    With `columns`, of these keys alone.

    Raises:
        ValueError: only statistics were captured.
    """
    source = require_weights(source)
    batch, *steps, _, _, num_keys = source.shape
    width = (
        num_keys
        if columns is None
        else len(range(*columns.indices(num_keys)))
        if isinstance(columns, slice)
        else len(columns)
    )
    size = max(1, MAX_BLOCK_SIZE // max(1, width * len(heads)))
    for index in range(batch) if examples is None else examples.tolist():
        for step in np.ndindex(*steps):
            for start in range(0, len(rows), size):
                part = slice(start, start + size)
                weights, logsumexp = source.row_weights((index, *step), heads, rows[part], columns)
                yield RowBlock((index, *step), part, rows[part], weights, logsumexp)
