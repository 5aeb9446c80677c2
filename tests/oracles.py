"""Attention written as loops in numpy, on its own: what every path, part and backend must equal."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one head of one example stands: what a score, mask or normalizer may depend on besides query and key.

    Positions are those of all queries and all keys; `parameters` are the learned values of the part, by name.
    """

    example: int
    head: int
    heads: int
    queries: Sequence[int]
    keys: Sequence[int]
    parameters: dict[str, np.ndarray]


def weigh(
    query: np.ndarray,
    key: np.ndarray,
    *,
    score: Callable[..., Any],
    mask: Callable[..., bool],
    normalizer: Callable[..., Any],
    parameters: dict[str, np.ndarray] | None = None,
    query_positions: Sequence[int] | None = None,
    key_positions: Sequence[int] | None = None,
) -> np.ndarray:
    """Weights (B, N, T, S) of queries (B, N, T, H) on keys (B, K, S, H), in float64."""
    (examples, heads, rows, _), (_, kept, columns, _) = query.shape, key.shape
    queries = [row + columns - rows for row in range(rows)] if query_positions is None else query_positions
    keys = range(columns) if key_positions is None else key_positions
    weights = np.zeros((examples, heads, rows, columns))
    for example in range(examples):
        for head in range(heads):
            place = Place(example, head, heads, queries, keys, parameters or {})
            own = key[example, head // (heads // kept)].astype("float64")
            scores = score(query[example, head].astype("float64"), own, place)
            permitted = [[bool(mask(i, j, place)) for j in range(columns)] for i in range(rows)]
            weights[example, head] = normalizer(scores, permitted, place)
    return weights


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray, **parts: Any) -> np.ndarray:
    """Outputs (B, N, T, V) for values (B, K, S, V), in float64."""
    weights = weigh(query, key, **parts)
    examples, heads, rows, columns = weights.shape
    output = np.zeros((examples, heads, rows, value.shape[-1]))
    for example in range(examples):
        for head in range(heads):
            own = value[example, head // (heads // value.shape[1])].astype("float64")
            for i in range(rows):
                for j in range(columns):
                    output[example, head, i] += weights[example, head, i, j] * own[j]
    return output


def slope(function: Callable[..., float], arrays: Sequence[np.ndarray], directions: Sequence[np.ndarray]) -> float:
    """The derivative of a scalar function of arrays along one direction in all of them, by central differences."""
    step = 1e-6
    ahead = function(*(array + step * direction for array, direction in zip(arrays, directions, strict=True)))
    behind = function(*(array - step * direction for array, direction in zip(arrays, directions, strict=True)))
    return (ahead - behind) / (2 * step)


def each_pair(function: Callable[..., float]) -> Callable[..., np.ndarray]:
    """A score (T, S) of one head from a function of one query, one key, their indices and the place."""

    def scores(query: np.ndarray, key: np.ndarray, place: Place) -> np.ndarray:
        table = np.zeros((len(query), len(key)))
        for i in range(len(query)):
            for j in range(len(key)):
                table[i, j] = function(query[i], key[j], i, j, place)
        return table

    return scores


def each_row(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """A normalizer of one head from a function of one row's scores, its permissions and the place."""

    def weights(scores: np.ndarray, permitted: list[list[bool]], place: Place) -> np.ndarray:
        return np.array([function(row, allowed, place) for row, allowed in zip(scores, permitted, strict=True)])

    return weights


# Scores


def inner(left: np.ndarray, right: np.ndarray) -> float:
    """The dot product of two vectors."""
    return sum(a * b for a, b in zip(left, right, strict=True))


def dot(scale: float | None = None) -> Callable[..., np.ndarray]:
    """Dot products, over the root of the size where no scale is given."""
    return each_pair(lambda q, k, i, j, place: inner(q, k) * (1 / math.sqrt(len(q)) if scale is None else scale))


@each_pair
def bilinear(q: np.ndarray, k: np.ndarray, i: int, j: int, place: Place) -> float:
    """Luong's general score."""
    kernel = place.parameters["kernel"]
    return sum(q[a] * kernel[a, b] * k[b] for a in range(len(q)) for b in range(len(k)))


@each_pair
def additive(q: np.ndarray, k: np.ndarray, i: int, j: int, place: Place) -> float:
    """Bahdanau's score."""
    learned, total = place.parameters, 0.0
    for unit in range(len(learned["bias"])):
        hidden = learned["bias"][unit] + inner(q, learned["query_kernel"][:, unit])
        hidden += inner(k, learned["key_kernel"][:, unit])
        total += learned["readout"][unit, 0] * math.tanh(hidden)
    return total


# Masks: each is asked about row i and column j


def everything(i: int, j: int, place: Place) -> bool:
    """No mask."""
    return True


def causal(i: int, j: int, place: Place) -> bool:
    """Keys up to the query's own position, the last query at the last key."""
    return place.keys[j] <= place.queries[i]


def causal_from_start(i: int, j: int, place: Place) -> bool:
    """Keys up to the query's own position, the first query at the first key."""
    return j <= i


def padding(keys: np.ndarray, queries: np.ndarray | None = None) -> Callable[..., bool]:
    """Real keys (B, S) and, where given, real queries (B, T)."""
    return lambda i, j, place: keys[place.example, j] and (queries is None or queries[place.example, i])


def allowed(array: np.ndarray) -> Callable[..., bool]:
    """An array (B or 1, N or 1, T, S)."""
    return lambda i, j, place: array[place.example % array.shape[0], place.head % array.shape[1], i, j]


# Normalizers: each is asked about one row


def softmax(temperature: float = 1.0) -> Callable[..., np.ndarray]:
    """Exponentials that sum to one."""

    @each_row
    def weights(row: np.ndarray, permitted: list[bool], place: Place) -> list[float]:
        peak = max((s for s, allowed in zip(row, permitted, strict=True) if allowed), default=0.0)
        raised = [
            math.exp((s - peak) / temperature) if allowed else 0.0 for s, allowed in zip(row, permitted, strict=True)
        ]
        return [value / sum(raised) if any(permitted) else 0.0 for value in raised]

    return weights
