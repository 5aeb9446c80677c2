"""The share of each head's attention that follows one of the patterns that heads are known to learn."""

import unicodedata
from collections.abc import Sequence

import numpy as np

from limelight.analysis.heads import divide
from limelight.maps import AttentionMap

# Keys at a fixed distance from the query.
_OFFSETS = {"previous": -1, "self": 0, "next": 1}


def patterns(attention_map: AttentionMap) -> dict[str, np.ndarray]:
    """Return the share of each head's attention that follows each of several patterns, the mean over queries.

    - "previous", "self", "next": the key before the query, at it, after it
    - "first": the first key
    - "same": other keys with the same token as the query, in upper or lower case
    - "punctuation": keys that are punctuation or symbols

    Args:
        attention_map: a map; the last two patterns need the tokens of its keys, and "same" those of its queries.

    Returns:
        Name to (N,). Patterns overlap. Queries without attention do not count.

    Example:
        >>> import numpy as np
        >>> from limelight import AttentionMap, analysis
        >>> attention_map = AttentionMap.from_weights(np.array([[1.0, 0.0], [0.75, 0.25]]), tokens=["a", "."])
        >>> {name: float(share[0]) for name, share in analysis.patterns(attention_map).items()}
        {'previous': 0.375, 'self': 0.625, 'next': 0.0, 'first': 0.875, 'same': 0.0, 'punctuation': 0.125}

    References:
        Clark et al. 2019, arXiv:1906.04341; Kovaleva et al. 2019, arXiv:1908.08593.
    """
    names = [*_OFFSETS, "first"]
    if attention_map.tokens is not None:
        names += ["punctuation"] if attention_map.query_tokens is None else ["same", "punctuation"]
    total = {name: np.zeros(attention_map.num_heads) for name in names}
    count = np.zeros(attention_map.num_heads)
    num_keys = attention_map.shape[-1]
    for block in attention_map.iter_blocks():
        count += (block.weights.sum(axis=-1) > 0).sum(axis=-1)
        distances = attention_map.source.mask.distances(block.rows, num_keys)
        follows = {name: distances == offset for name, offset in _OFFSETS.items()}
        follows["first"] = np.broadcast_to(np.arange(num_keys) == 0, distances.shape)
        if attention_map.tokens is not None:
            position = int(np.ravel_multi_index(block.example, attention_map.shape[:-3]))
            follows |= _token_patterns(attention_map, position, block.rows, distances)
        for name in names:
            total[name] += np.einsum("nts,ts->n", block.weights, follows[name], dtype=np.float64)
    return {name: divide(mass, count) for name, mass in total.items()}


def _token_patterns(
    attention_map: AttentionMap, example: int, rows: np.ndarray, distances: np.ndarray
) -> dict[str, np.ndarray]:
    """Return where the tokens follow a pattern, bool (r, S) by name."""
    *_, num_queries, num_keys = attention_map.shape
    keys = _normalize((attention_map.tokens or ())[example], num_keys)
    found = {"punctuation": np.broadcast_to([_is_punctuation(key) for key in keys], distances.shape)}
    if attention_map.query_tokens is not None:
        queries = _normalize(attention_map.query_tokens[example], num_queries)[rows, None]
        found["same"] = (queries == keys) & (queries != "") & (distances != 0)
    return found


def _normalize(tokens: Sequence[str], length: int) -> np.ndarray:
    """Return tokens case-folded and without marks of a new word, padded with empty strings."""
    normalized = [token.casefold().lstrip("▁Ġ ") for token in tokens]
    return np.array(normalized + [""] * (length - len(normalized)), dtype=object)


def _is_punctuation(token: str) -> bool:
    """Return True if a token consists of punctuation and symbols alone."""
    return bool(token) and all(unicodedata.category(character)[0] in "PS" for character in token)
