"""Attention maps as the page's viewer wants them: tokens, weights without padding, and a summary of each head."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limelight.maps import AttentionMap
from limelight.report.weights import pack, pack_weights

# Up to so many queries and keys every weight travels; beyond, means and maxima of this many blocks a side,
LONGEST = 512
# and so many keys of each query with their weights.
TOP_KEYS = 16


def read(maps: Any) -> list[dict[str, Any]]:
    """The maps as the viewer wants them, in their order.

    Args:
        maps: a mapping from a name to an `AttentionMap`, or one such map.

    Raises:
        TypeError: something else.
    """
    if maps is None:
        return []
    if isinstance(maps, AttentionMap):
        maps = {maps.key: maps}
    if not isinstance(maps, Mapping):
        raise TypeError(
            "`maps` must be a mapping from names to attention maps, as `limelight.capture` returns. Received: "
            f"{type(maps).__name__}. Weights that you have become a map by AttentionMap.from_weights(weights, tokens=...)."
        )
    for name, attention in maps.items():
        if not isinstance(attention, AttentionMap):
            raise TypeError(
                f"`maps` must hold attention maps. Received: {type(attention).__name__} under {name!r}. Weights that you "
                "have become a map by AttentionMap.from_weights(weights, tokens=...)."
            )
    return [_read_map(str(name), attention) for name, attention in maps.items() if 0 not in attention.shape]


def _read_map(name: str, attention: AttentionMap) -> dict[str, Any]:
    read_all = _whole if max(attention.shape[-2:]) <= LONGEST else _coarse
    return {"name": name, "heads": attention.num_heads, "examples": read_all(attention)}


def _whole(attention: AttentionMap) -> list[dict[str, Any]]:
    """Every weight of every example, without padding."""
    statistics = attention.statistics(top_k=1, num_blocks=1)
    examples = []
    for place in np.ndindex(attention.shape[:-3]):
        weights = attention.weights(examples=[place[0]])[(0, *place[1:])]
        query_tokens, key_tokens = _tokens(attention, place)
        rows, columns = _extent(weights, query_tokens, key_tokens)
        example = _example(attention, statistics, place, rows, columns)
        examples.append({**example, "weights": pack_weights(weights[:, :rows, :columns])})
    return examples


def _coarse(attention: AttentionMap) -> list[dict[str, Any]]:
    """Means and maxima of blocks, and the strongest keys of each query, of maps too long to send every weight."""
    statistics = attention.statistics(top_k=TOP_KEYS, num_blocks=1)
    rows = max((len(tokens) for tokens in attention.query_tokens or ()), default=0) or attention.shape[-2]
    columns = max((len(tokens) for tokens in attention.tokens or ()), default=0) or attention.shape[-1]
    tile = attention.tile(rows=slice(0, rows), columns=slice(0, columns), num_blocks=LONGEST)
    examples = []
    for place in np.ndindex(attention.shape[:-3]):
        # Where there is no key the weight is 0, whichever key is named.
        keys = np.maximum(statistics.top_keys[place][:, :rows], 0)
        coarse = {
            "blocks": tile.means.shape[-2:],
            "means": pack_weights(tile.means[place]),
            "maxima": pack_weights(tile.maxima[place]),
            "top": {
                "count": keys.shape[-1],
                "keys": pack(keys.astype(np.uint32)),
                "weights": pack_weights(statistics.top_weights[place][:, :rows]),
            },
        }
        examples.append({**_example(attention, statistics, place, rows, columns), **coarse})
    return examples


def _example(
    attention: AttentionMap, statistics: Any, place: tuple[int, ...], rows: int, columns: int
) -> dict[str, Any]:
    """What every example has: its tokens, and for each head the means of its rows' entropy and distance."""
    query_tokens, key_tokens = _tokens(attention, place)
    queries, keys = _named(query_tokens, rows), _named(key_tokens, columns)
    square = attention.shape[-2] == attention.shape[-1]
    real = slice(0, min(rows, len(query_tokens or ())) or rows)
    return {
        "rows": rows,
        "columns": columns,
        "queries": None if queries == keys else queries,
        "keys": keys,
        "entropy": [_mean(values[real]) for values in statistics.entropy[place]],
        "distance": [_mean(values[real]) for values in statistics.distance[place]] if square else None,
    }


def _tokens(attention: AttentionMap, place: tuple[int, ...]) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """The tokens of the queries and of the keys, where they are known for this example."""
    if len(place) != 1:
        return None, None
    queries, keys = (given[place[0]] if given else None for given in (attention.query_tokens, attention.tokens))
    return queries or None, keys or None


def _extent(
    weights: np.ndarray, query_tokens: Sequence[str] | None, key_tokens: Sequence[str] | None
) -> tuple[int, int]:
    """How many rows and columns of weights (N, T, S) are shown: all that have a token or hold a weight."""
    _, used_rows, used_columns = (int(places.max(initial=0)) + 1 for places in np.nonzero(weights))
    columns = max(used_columns, len(key_tokens or ()))
    if query_tokens:
        # A query of padding can hold weights too; the tokens say where the text ends.
        return len(query_tokens), columns
    return (columns if weights.shape[1] == weights.shape[2] else used_rows), columns


def _mean(values: np.ndarray) -> float:
    return float(f"{float(values.mean()):.4g}")


def _named(tokens: Sequence[str] | None, count: int) -> list[str] | None:
    """So many tokens, the missing ones by their number from 1; None where there are no names at all."""
    if not tokens:
        return None
    return [*tokens[:count], *(f"#{index + 1}" for index in range(len(tokens), count))]
