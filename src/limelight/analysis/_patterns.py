"""What heads are known to do: how much of each head's attention follows a pattern."""

import unicodedata

import numpy as np

from limelight.analysis.statistics import mean
from limelight.maps import AttentionMap

# Keys at a fixed distance from the query.
_OFFSETS = {"previous": -1, "self": 0, "next": 1}


def patterns(seen: AttentionMap) -> dict[str, np.ndarray]:
    """The share of each head's attention that follows a known pattern, the mean over queries.

    - "previous", "self", "next": the key before the query, at it, after it
    - "first": the first key
    - "same": other keys with the same token as the query (case does not matter)
    - "punctuation": keys that are punctuation or symbols

    Args:
        seen: a map; the last two patterns need its tokens.

    Returns:
        Name to (N,). Shares may overlap. Queries without attention do not count.

    Example:
        >>> import numpy as np
        >>> from limelight import AttentionMap, analysis
        >>> shares = analysis.patterns(AttentionMap.of(np.array([[1.0, 0.0], [0.75, 0.25]]), tokens=["a", "."]))
        >>> {name: float(share[0]) for name, share in shares.items()}
        {'previous': 0.375, 'self': 0.625, 'next': 0.0, 'first': 0.875, 'same': 0.0, 'punctuation': 0.125}

    References:
        Clark et al. 2019, arXiv:1906.04341; Kovaleva et al. 2019, arXiv:1908.08593.
    """
    names = [*_OFFSETS, "first", *(("same", "punctuation") if seen.tokens is not None else ())]
    total, count = {name: np.zeros(seen.heads) for name in names}, np.zeros(seen.heads)
    columns, shift = np.arange(seen.shape[-1]), seen.source.allowed.shift
    for example, rows, weights, _ in seen.blocks():
        count += (weights.sum(axis=-1) > 0).sum(axis=-1)
        apart = columns[None] - (rows[:, None] + shift)
        follows = {name: apart == offset for name, offset in _OFFSETS.items()}
        follows["first"] = np.broadcast_to(columns == 0, apart.shape)
        if seen.tokens is not None:
            follows |= _by_token(seen, example[0], rows, apart)
        for name in names:
            total[name] += np.einsum("nts,ts->n", weights, follows[name], dtype=np.float64)
    return {name: mean(one, count) for name, one in total.items()}


def _by_token(seen: AttentionMap, example: int, rows: np.ndarray, apart: np.ndarray) -> dict[str, np.ndarray]:
    """MaskFunction the keys' tokens follow a pattern, bool (r, S)."""
    keys = _padded(seen.tokens, example, seen.shape[-1])
    queries = _padded(seen.query_tokens or seen.tokens, example, max(seen.shape[-2:]))[rows]
    same = (queries[:, None] == keys[None]) & (queries[:, None] != "") & (apart != 0)
    return {"same": same, "punctuation": np.broadcast_to([is_punctuation(key) for key in keys], apart.shape)}


def _padded(tokens: object, example: int, length: int) -> np.ndarray:
    """The tokens of an example without case and marks of a new word, with empty ones behind."""
    found = [token.casefold().lstrip("▁Ġ ") for token in tokens[example]]  # pyright: ignore[reportIndexIssue]
    return np.array(found + [""] * (length - len(found)), dtype=object)


def is_punctuation(token: str) -> bool:
    """Whether a token is made of punctuation and symbols alone."""
    return bool(token) and all(unicodedata.category(letter)[0] in "PS" for letter in token)
