"""Attention written as loops in numpy, on its own: what every path, part and backend must equal."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Place:
    """MaskFunction one head of one example stands: what a score, mask or normalizer may depend on besides query and key.

    Positions are those of all queries and all keys; `parameters` are the learned values of the part, by name.
    """

    example: int
    head: int
    heads: int
    queries: Sequence[int]
    keys: Sequence[int]
    parameters: dict[str, np.ndarray]


def attention_weights(
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
    """Compute outputs (B, N, T, V) for values (B, K, S, V), in float64."""
    return average(attention_weights(query, key, **parts), value)


def average(weights: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Average values (B, K, S, V) with weights (B, N, T, S), in float64."""
    examples, heads, rows, columns = weights.shape
    output = np.zeros((examples, heads, rows, value.shape[-1]))
    for example in range(examples):
        for head in range(heads):
            own = value[example, head // (heads // value.shape[1])].astype("float64")
            for i in range(rows):
                for j in range(columns):
                    output[example, head, i] += weights[example, head, i, j] * own[j]
    return output


def directional_derivative(
    function: Callable[..., float], arrays: Sequence[np.ndarray], directions: Sequence[np.ndarray]
) -> float:
    """Compute the derivative of a scalar function of arrays along given directions, by central differences."""
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


@each_pair
def cosine(q: np.ndarray, k: np.ndarray, i: int, j: int, place: Place) -> float:
    """The cosine over a temperature for each head."""
    scale = min(math.exp(place.parameters["log_scale"][place.head]), 100.0)
    return scale * inner(q, k) / math.sqrt(inner(q, q) * inner(k, k))


def distance(scale: float) -> Callable[..., np.ndarray]:
    """Squared distances, negative."""
    return each_pair(lambda q, k, i, j, place: -scale * sum((a - b) ** 2 for a, b in zip(q, k, strict=True)))


def summed(*terms: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Several scores added."""
    return lambda query, key, place: sum(term(query, key, place) for term in terms)


def bias(array: np.ndarray) -> Callable[..., np.ndarray]:
    """A bias (N, T, S)."""
    return lambda query, key, place: array[place.head].astype("float64")


def soft_cap(cap: float, score: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A score between -cap and cap."""
    return lambda query, key, place: cap * np.tanh(score(query, key, place) / cap)


def scaled(score: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A score times the learned factor of its head."""
    return lambda query, key, place: math.exp(place.parameters["log_scale"][place.head]) * score(query, key, place)


def normed(kind: str, score: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A score of normalised queries and keys."""

    def one(vector: np.ndarray, gain: np.ndarray) -> list[float]:
        mean = inner(vector, vector) / len(vector)
        if kind == "l2":
            return [x / math.sqrt(inner(vector, vector)) for x in vector]
        return [x / math.sqrt(mean + 1e-6) * g for x, g in zip(vector, gain, strict=True)]

    def scores(query: np.ndarray, key: np.ndarray, place: Place) -> np.ndarray:
        gains = [place.parameters.get(name) for name in ("query_gain", "key_gain")]
        query, key = (np.array([one(x, gain) for x in side]) for side, gain in zip((query, key), gains, strict=True))
        return score(query, key, place)

    return scores


def alibi(slopes: Sequence[float]) -> Callable[..., np.ndarray]:
    """A penalty for distance, with the slopes of the heads."""
    return each_pair(lambda q, k, i, j, place: -slopes[place.head] * abs(place.queries[i] - place.keys[j]))


def t5_bucket(offset: int, buckets: int, farthest: int, bidirectional: bool) -> int:
    """The bucket of a key minus query position, as T5's paper and code have it."""
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if offset > 0 else 0
        steps = abs(offset)
    else:
        steps = max(-offset, 0)
    if steps < buckets // 2:
        return first + steps
    far = math.log(steps / (buckets // 2)) / math.log(farthest / (buckets // 2)) * (buckets - buckets // 2)
    return first + min(buckets // 2 + int(far + 1e-9), buckets - 1)


def relative_bias(buckets: int, farthest: int, bidirectional: bool = True) -> Callable[..., np.ndarray]:
    """T5's learned number of each bucket and head."""

    def one(q: np.ndarray, k: np.ndarray, i: int, j: int, place: Place) -> float:
        bucket = t5_bucket(place.keys[j] - place.queries[i], buckets, farthest, bidirectional)
        return place.parameters["table"][bucket, place.head]

    return each_pair(one)


def shaw(farthest: int) -> Callable[..., np.ndarray]:
    """Shaw's vector of each distance, met by the query."""

    def one(q: np.ndarray, k: np.ndarray, i: int, j: int, place: Place) -> float:
        offset = max(-farthest, min(farthest, place.keys[j] - place.queries[i]))
        return inner(q, place.parameters["table"][offset + farthest]) / math.sqrt(len(q))

    return each_pair(one)


def transformer_xl(size: int) -> Callable[..., np.ndarray]:
    """Transformer-XL's score, its sinusoids written out for each distance."""

    def one(q: np.ndarray, k: np.ndarray, i: int, j: int, place: Place) -> float:
        apart, half, learned = place.queries[i] - place.keys[j], size // 2, place.parameters
        waves = [math.sin(apart * 10000 ** (-f / half)) for f in range(half)]
        waves += [math.cos(apart * 10000 ** (-f / half)) for f in range(half)]
        kernel = learned["position_kernel"][place.head]
        placed = [sum(waves[e] * kernel[e, h] for e in range(size)) for h in range(len(q))]
        content = inner(q + learned["content_bias"][place.head], k)
        return (content + inner(q + learned["position_bias"][place.head], placed)) / math.sqrt(len(q))

    return each_pair(one)


def gaussian(width: float, extent: Callable[[Place], int]) -> Callable[..., np.ndarray]:
    """Luong's local-p in the logarithm, around a share of the extent that the query predicts."""

    def one(q: np.ndarray, k: np.ndarray, i: int, j: int, place: Place) -> float:
        kernel, readout = place.parameters["query_kernel"], place.parameters["readout"]
        raised = sum(math.tanh(inner(q, kernel[:, unit])) * readout[unit, 0] for unit in range(len(readout)))
        center = extent(place) / (1 + math.exp(-raised))
        return -((place.keys[j] - center) ** 2) / (2 * (width / 2) ** 2)

    return each_pair(one)


def rotary(
    score: Callable[..., np.ndarray],
    frequencies: Callable[[int], Sequence[float]],
    size: int | None = None,
    neighbours: bool = False,
    magnitude: float = 1.0,
) -> Callable[..., np.ndarray]:
    """A score of vectors whose pairs are turned by their position times the pair's frequency."""

    def turned(vector: np.ndarray, position: int) -> np.ndarray:
        width = len(vector) if size is None else size
        result = vector.copy()
        for pair, frequency in enumerate(frequencies(width)):
            a, b = (2 * pair, 2 * pair + 1) if neighbours else (pair, pair + width // 2)
            cosine, sine = magnitude * math.cos(position * frequency), magnitude * math.sin(position * frequency)
            result[a], result[b] = vector[a] * cosine - vector[b] * sine, vector[b] * cosine + vector[a] * sine
        return result

    def scores(query: np.ndarray, key: np.ndarray, place: Place) -> np.ndarray:
        query = np.array([turned(vector, place.queries[i]) for i, vector in enumerate(query)])
        key = np.array([turned(vector, place.keys[j]) for j, vector in enumerate(key)])
        return score(query, key, place)

    return scores


def rotary_frequencies(base: float = 10000.0, divided: float = 1.0) -> Callable[[int], list[float]]:
    """The frequencies of the pairs, all divided by one number."""
    return lambda size: [base ** (-2 * pair / size) / divided for pair in range(size // 2)]


def yarn_frequencies(factor: float, trained: int, base: float = 10000.0) -> Callable[[int], list[float]]:
    """YaRN's frequencies: pairs that turn more than 32 times stay, those that turn less than once are divided."""

    def frequencies(size: int) -> list[float]:
        first = max(math.floor(size * math.log(trained / (32 * 2 * math.pi)) / (2 * math.log(base))), 0)
        last = min(math.ceil(size * math.log(trained / (2 * math.pi)) / (2 * math.log(base))), size - 1)
        found = []
        for pair in range(size // 2):
            plain = base ** (-2 * pair / size)
            share = min(max((pair - first) / (last - first), 0.0), 1.0)
            found.append(share * plain / factor + (1 - share) * plain)
        return found

    return frequencies


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


def window(left: int | None, right: int | None) -> Callable[..., bool]:
    """Neighbours so far to the left and to the right."""

    def permits(i: int, j: int, place: Place) -> bool:
        offset = place.keys[j] - place.queries[i]
        return (left is None or offset >= -left) and (right is None or offset <= right)

    return permits


def prefix(length: int) -> Callable[..., bool]:
    """The first keys."""
    return lambda i, j, place: place.keys[j] < length


def segments(queries: np.ndarray, keys: np.ndarray) -> Callable[..., bool]:
    """Pairs of one sequence."""
    return lambda i, j, place: queries[place.example, i] == keys[place.example, j]


def dilated(step: int) -> Callable[..., bool]:
    """Every so many positions from the query's own."""
    return lambda i, j, place: (place.queries[i] - place.keys[j]) % step == 0


def block_pattern(size: int, everywhere: int, window: int, partners: int, seed: int) -> Callable[..., bool]:
    """BigBird's blocks, their random partners drawn anew from the rule that the mask documents."""

    def drawn(block: int) -> set[int]:
        found = set()
        for draw in range(partners):
            number = (block * 1103 + draw * 4099 + seed * 7919 + 12345) % 32749
            number = (number * number % 32749 * 181 + block + draw) % 32749
            found.add(number % (block + 1))
        return found

    def permits(i: int, j: int, place: Place) -> bool:
        a, b = place.queries[i] // size, place.keys[j] // size
        if 0 <= a < everywhere or 0 <= b < everywhere or abs(a - b) <= window:
            return True
        return min(a, b) in drawn(max(a, b))

    return permits


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


def sink(logit: float | None = 0.0) -> Callable[..., np.ndarray]:
    """Softmax with one more score that gives nothing; the learned one of the head where none is given."""

    @each_row
    def weights(row: np.ndarray, permitted: list[bool], place: Place) -> list[float]:
        extra = float(place.parameters["sink"][place.head]) if logit is None else logit
        peak = max([extra, *(s for s, allowed in zip(row, permitted, strict=True) if allowed)])
        raised = [math.exp(s - peak) if allowed else 0.0 for s, allowed in zip(row, permitted, strict=True)]
        return [value / (sum(raised) + math.exp(extra - peak)) for value in raised]

    return weights


def sigmoid(bias: float | None) -> Callable[..., np.ndarray]:
    """Each weight on its own."""

    @each_row
    def weights(row: np.ndarray, permitted: list[bool], place: Place) -> list[float]:
        shift = -math.log(max(sum(permitted), 1)) if bias is None else bias
        return [1 / (1 + math.exp(-s - shift)) if allowed else 0.0 for s, allowed in zip(row, permitted, strict=True)]

    return weights


def entmax(alpha: float) -> Callable[..., np.ndarray]:
    """The weights of any alpha above 1, their threshold found by halving in float64."""

    @each_row
    def weights(row: np.ndarray, permitted: list[bool], place: Place) -> list[float]:
        if not any(permitted):
            return [0.0] * len(row)
        z = [(alpha - 1) * s for s in row]

        def at(threshold: float) -> list[float]:
            return [
                max(value - threshold, 0.0) ** (1 / (alpha - 1)) if allowed else 0.0
                for value, allowed in zip(z, permitted, strict=True)
            ]

        peak = max(value for value, allowed in zip(z, permitted, strict=True) if allowed)
        low, high = peak - 1.0, peak
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if sum(at(middle)) >= 1 else (low, middle)
        found = at(low)
        return [value / sum(found) for value in found]

    return weights


def top_k(k: int, normalizer: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """The largest scores of each row alone."""

    def weights(scores: np.ndarray, permitted: list[list[bool]], place: Place) -> np.ndarray:
        kept = []
        for row, allowed in zip(scores, permitted, strict=True):
            ranked = sorted((s for s, a in zip(row, allowed, strict=True) if a), reverse=True)[:k]
            kept.append([a and s >= ranked[-1] for s, a in zip(row, allowed, strict=True)])
        return normalizer(scores, kept, place)

    return weights


@each_row
def hard(row: np.ndarray, permitted: list[bool], place: Place) -> list[float]:
    """All weight on the largest."""
    best = max((s for s, allowed in zip(row, permitted, strict=True) if allowed), default=None)
    first = next((j for j, s in enumerate(row) if permitted[j] and s == best), None)
    return [1.0 if j == first else 0.0 for j in range(len(row))]


def monotonic(scores: np.ndarray, permitted: list[list[bool]], place: Place) -> np.ndarray:
    """The expected attention of a reader that only moves forward, summed over all ways to get to each key."""
    weights, before = np.zeros(scores.shape), [1.0] + [0.0] * (scores.shape[1] - 1)
    for i in range(len(scores)):
        if not any(permitted[i]):
            continue
        stop = [
            1 / (1 + math.exp(-s - float(place.parameters["shift"]))) if allowed else 0.0
            for s, allowed in zip(scores[i], permitted[i], strict=True)
        ]
        for j in range(scores.shape[1]):
            for k in range(j + 1):
                weights[i, j] += before[k] * math.prod(1 - stop[m] for m in range(k, j)) * stop[j]
        before = list(weights[i])
    return weights
