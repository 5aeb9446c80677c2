"""MaskFunction the weights of a map come from: what a layer asked, or its weights where only those can be had."""

import dataclasses
from typing import Any

import numpy as np

from limelight._attention_statistics import AttentionStatistics
from limelight.maps.stored_mask import StoredMask, at

# The additive score needs one hidden vector for each pair; so many pairs are held at once.
_PAIRS = 1 << 16


@dataclasses.dataclass(frozen=True, eq=False)
class QKSource:
    r"""The question of one attention, from which any of its weights can be computed.

    $$w_{ij} = \mathrm{softmax}_j\big(\mathrm{cap}(c\,q_i \cdot k_j) + b_{ij}\big)$$ over the permitted keys, or with `vector`
    $$s_{ij} = v^\top \tanh(q_i + k_j)$$ in place of the product.

    Args:
        query: (B, ..., N, T, H).
        key: (B, ..., K, S, H), where K divides N: each key head serves N / K query heads.
        scale: the factor $c$.
        vector: $v$, (H,), for the additive score; None for the dot product.
        softcap: scores pass through $m \tanh(s / m)$; None for no cap.
        bias: added to the scores, (B, ..., N, T, S); axes of length 1 broadcast.
        allowed: the permissions. A row that permits nothing has weights 0.

    Raises:
        ValueError: shapes that do not belong together.
    """

    query: np.ndarray
    key: np.ndarray
    scale: float = 1.0
    vector: np.ndarray | None = None
    softcap: float | None = None
    bias: np.ndarray | None = None
    allowed: StoredMask = dataclasses.field(default_factory=StoredMask)

    def __post_init__(self) -> None:
        query, key = self.query.shape, self.key.shape
        if len(query) < 4 or len(query) != len(key) or query[:-3] != key[:-3] or query[-1] != key[-1]:
            raise ValueError(f"`query` must be (B, N, T, H) and `key` (B, K, S, H). Received: {query} and {key}.")
        if not key[-3] or query[-3] % key[-3]:
            raise ValueError(f"The heads of `key` must divide those of `query`. Received: {query} and {key}.")
        if self.vector is not None and self.vector.shape != query[-1:]:
            raise ValueError(f"`vector` must have shape {query[-1:]}. Received: {self.vector.shape}.")
        shape = self.shape
        if self.bias is not None and not (
            self.bias.ndim == len(shape) and all(a in (1, b) for a, b in zip(self.bias.shape, shape, strict=True))
        ):
            raise ValueError(f"`bias` must broadcast to {shape}. Received: {self.bias.shape}.")
        self.allowed.check(shape[:-3], *shape[-3:])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all weights: (B, ..., N, T, S)."""
        return (*self.query.shape[:-1], self.key.shape[-2])

    def scores(self, example: tuple[int, ...], heads: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, Any]:
        """Scores (n, r, S) of some rows of one example, and their permissions."""
        query = self.query[example][heads][:, rows].astype(np.float32)  # (n, r, H)
        groups = self.query.shape[-3] // self.key.shape[-3]
        key = self.key[example][heads // groups].astype(np.float32)  # (n, S, H)
        if self.vector is None:
            scores = (query * np.float32(self.scale)) @ np.swapaxes(key, -1, -2)
        else:
            scores = self._additive(query, key) * np.float32(self.scale)
        if self.softcap is not None:
            scores = np.float32(self.softcap) * np.tanh(scores / np.float32(self.softcap))
        if self.bias is not None:
            bias = at(self.bias, example)
            bias = bias if bias.shape[0] == 1 else bias[heads]
            scores = scores + (bias if bias.shape[1] == 1 else bias[:, rows]).astype(np.float32)
        return scores, self.allowed.block(example, heads, rows, self.key.shape[-2])

    def block(self, example: tuple[int, ...], heads: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Weights (n, r, S) of some rows of one example."""
        weights, _ = softmax(*self.scores(example, heads, rows))
        return weights

    def logsumexp(self, example: tuple[int, ...], heads: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (n, r, S), and the log of the sum of exponentials of each row's scores, (n, r)."""
        return softmax(*self.scores(example, heads, rows))

    @property
    def cost(self) -> int:
        """Numbers that one row of one head needs while it is computed."""
        return self.key.shape[-2]

    def _additive(self, query: np.ndarray, key: np.ndarray) -> np.ndarray:
        heads, rows, size = query.shape
        columns = key.shape[1]
        scores = np.empty((heads, rows, columns), np.float32)
        step = max(1, _PAIRS // max(1, columns))
        vector = np.asarray(self.vector, np.float32)
        for head in range(heads):
            for start in range(0, rows, step):
                hidden = np.tanh(query[head, start : start + step, None] + key[head][None])  # (r, S, H)
                scores[head, start : start + step] = hidden.reshape(-1, size).dot(vector).reshape(-1, columns)
        return scores


@dataclasses.dataclass(frozen=True, eq=False)
class WeightSource:
    """Weights as they were captured, where a layer showed nothing else.

    Args:
        array: (B, ..., N, T, S).
        allowed: which queries and keys are real. Weights outside are 0.

    Raises:
        ValueError: fewer than four axes.
    """

    array: np.ndarray
    allowed: StoredMask = dataclasses.field(default_factory=StoredMask)

    def __post_init__(self) -> None:
        if self.array.ndim < 4:
            raise ValueError(f"Weights must have shape (B, N, T, S). Received: {self.array.shape}.")
        self.allowed.check(self.shape[:-3], *self.shape[-3:])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all weights: (B, ..., N, T, S)."""
        return self.array.shape

    def block(self, example: tuple[int, ...], heads: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Weights (n, r, S) of some rows of one example."""
        weights = self.array[example][heads][:, rows].astype(np.float32)
        allowed = self.allowed.block(example, heads, rows, self.array.shape[-1])
        return weights if allowed is None else np.where(allowed, weights, np.float32(0))

    def logsumexp(self, example: tuple[int, ...], heads: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (n, r, S), and NaN (n, r): scores cannot be had from weights."""
        weights = self.block(example, heads, rows)
        return weights, np.full(weights.shape[:2], np.nan, np.float32)

    @property
    def cost(self) -> int:
        """Numbers that one row of one head needs while it is computed."""
        return self.array.shape[-1]


@dataclasses.dataclass(frozen=True, eq=False)
class StatisticsSource:
    """Statistics that were computed while the model ran, where nothing else was kept. The fields are those of a `AttentionStatistics`.

    Args:
        allowed: none; a survey has permissions in it already.

    Raises:
        ValueError: shapes that do not belong together.
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
    allowed: StoredMask = dataclasses.field(default_factory=StoredMask)

    def __post_init__(self) -> None:
        rows = self.entropy.shape
        lead, blocks = rows[:-1], (len(self.row_edges) - 1, len(self.column_edges) - 1)
        wanted = {
            **dict.fromkeys(("entropy", "logsumexp", "distance", "mass"), rows),
            **dict.fromkeys(("top_keys", "top_weights"), (*rows, *self.top_keys.shape[-1:])),
            "received": (*lead, *self.received.shape[-1:]),
            **dict.fromkeys(("block_sums", "block_max"), (*lead, *blocks)),
        }
        found = {name: getattr(self, name).shape for name in wanted}
        if len(rows) < 3 or found != wanted or self.row_edges.ndim != 1 or self.column_edges.ndim != 1:
            raise ValueError(f"The parts of a survey must have the same heads and queries. Received: {found}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all weights: (B, ..., N, T, S)."""
        return (*self.entropy.shape, self.received.shape[-1])

    def statistics(self, top_k: int) -> AttentionStatistics:
        """The survey, with so many keys of each query.

        Raises:
            ValueError: fewer were kept.
        """
        kept = self.top_keys.shape[-1]
        if top_k > kept:
            raise ValueError(
                f"`top_k` must not be above the {kept} keys of each query that were kept. Received: top_k={top_k}. Capture "
                f"again, with top_k={top_k}."
            )
        fields = {name: getattr(self, name) for name in AttentionStatistics._fields if name != "output"}
        fields["top_keys"] = self.top_keys[..., :top_k].astype(np.int32)
        return AttentionStatistics(**{**fields, "top_weights": self.top_weights[..., :top_k]})

    def block(self, example: tuple[int, ...], heads: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """No weights.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "Weights must have been captured to be looked at. Received: a map of which only a survey was captured. Call its "
            'survey(), or capture without store="statistics".'
        )


def softmax(scores: np.ndarray, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Weights of each row of scores (n, r, S) over its permitted keys, and the row's log of the sum of exponentials."""
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    peak = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    peak = np.where(np.isfinite(peak), peak, 0)
    raised = np.exp(scores - peak)
    total = raised.sum(axis=-1, keepdims=True)
    weights = raised / np.where(total == 0, 1, total)
    with np.errstate(divide="ignore"):
        return weights, (np.log(total) + peak)[..., 0]


Source = QKSource | WeightSource | StatisticsSource
