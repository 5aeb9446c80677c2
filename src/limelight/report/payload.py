"""The data in the page: attention maps as JSON, with tokens, weights without padding, and a summary of each head.

Weights are stored as square roots in 8 bits, deflated, in base64.
"""

import base64
import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from limelight.maps import AttentionMap

# Maps up to this length are stored with every weight; longer ones as means and maxima of at most this many blocks per side,
MAX_LENGTH = 512
# and the strongest keys of each query.
NUM_TOP_KEYS = 16

# In a script element `<` can open `<!--` or `</script`; `>` and `&` matter to XML; U+2028 and U+2029 ended a line in old scripts.
_JSON_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
_SURROGATES = re.compile("[\ud800-\udfff]")


def read_maps(maps: Any) -> list[dict[str, Any]]:
    """Return the maps in the form that the viewer reads.

    Args:
        maps: A mapping from names to `AttentionMap`, one `AttentionMap`, or None.

    Raises:
        TypeError: `maps` is none of these.
    """
    if maps is None:
        return []
    if isinstance(maps, AttentionMap):
        maps = {maps.key: maps}
    if not isinstance(maps, Mapping):
        raise TypeError(
            "`maps` must be a mapping from names to attention maps, as `limelight.capture` returns. Received: "
            f"{type(maps).__name__}. Make a map of weights with AttentionMap.from_weights(weights, tokens=...)."
        )
    for name, attention in maps.items():
        if not isinstance(attention, AttentionMap):
            raise TypeError(
                f"`maps` must hold attention maps. Received: {type(attention).__name__} under {name!r}. Make a map of "
                "weights with AttentionMap.from_weights(weights, tokens=...)."
            )
    return [_read_map(str(name), attention) for name, attention in maps.items() if 0 not in attention.shape]


def _read_map(name: str, attention: AttentionMap) -> dict[str, Any]:
    read_all = _read_weights if max(attention.shape[-2:]) <= MAX_LENGTH else _read_blocks
    return {"name": name, "heads": attention.num_heads, "examples": read_all(attention)}


def _read_weights(attention: AttentionMap) -> list[dict[str, Any]]:
    """Return every weight of every example, without padding."""
    statistics = attention.statistics(top_k=1, num_blocks=1)
    examples = []
    for index in np.ndindex(attention.shape[:-3]):
        weights = attention.weights(examples=[index[0]])[(0, *index[1:])]
        query_tokens, key_tokens = _tokens(attention, index)
        rows, columns = _unpadded_shape(weights, query_tokens, key_tokens)
        example = _describe_example(attention, statistics, index, rows, columns)
        examples.append({**example, "weights": pack_weights(weights[:, :rows, :columns])})
    return examples


def _read_blocks(attention: AttentionMap) -> list[dict[str, Any]]:
    """Return means and maxima of blocks, and the strongest keys of each query, of maps too long for every weight."""
    statistics = attention.statistics(top_k=NUM_TOP_KEYS, num_blocks=1)
    rows = max((len(tokens) for tokens in attention.query_tokens or ()), default=0) or attention.shape[-2]
    columns = max((len(tokens) for tokens in attention.tokens or ()), default=0) or attention.shape[-1]
    blocks = attention.downsample(rows=slice(0, rows), columns=slice(0, columns), num_blocks=MAX_LENGTH)
    examples = []
    for index in np.ndindex(attention.shape[:-3]):
        # A missing key has index -1 and weight 0, so any index will do.
        keys = np.maximum(statistics.top_keys[index][:, :rows], 0)
        example = {
            **_describe_example(attention, statistics, index, rows, columns),
            "blocks": blocks.means.shape[-2:],
            "means": pack_weights(blocks.means[index]),
            "maxima": pack_weights(blocks.maxima[index]),
            "top": {
                "count": keys.shape[-1],
                "keys": pack(keys.astype(np.uint32)),
                "weights": pack_weights(statistics.top_weights[index][:, :rows]),
            },
        }
        examples.append(example)
    return examples


def _describe_example(
    attention: AttentionMap, statistics: Any, index: tuple[int, ...], rows: int, columns: int
) -> dict[str, Any]:
    """Return the tokens of an example, and for each head the mean entropy and distance of its rows."""
    query_tokens, key_tokens = _tokens(attention, index)
    queries, keys = _complete_tokens(query_tokens, rows), _complete_tokens(key_tokens, columns)
    is_square = attention.shape[-2] == attention.shape[-1]
    unpadded = slice(0, min(rows, len(query_tokens or ())) or rows)
    return {
        "rows": rows,
        "columns": columns,
        "queries": None if queries == keys else queries,
        "keys": keys,
        "entropy": [_mean(values[unpadded]) for values in statistics.entropy[index]],
        "distance": [_mean(values[unpadded]) for values in statistics.distance[index]] if is_square else None,
    }


def _tokens(attention: AttentionMap, index: tuple[int, ...]) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Return the query tokens and the key tokens of an example, or None where the map has none."""
    position = int(np.ravel_multi_index(index, attention.shape[:-3]))
    queries, keys = (tokens[position] if tokens else None for tokens in (attention.query_tokens, attention.tokens))
    return queries or None, keys or None


def _unpadded_shape(
    weights: np.ndarray, query_tokens: Sequence[str] | None, key_tokens: Sequence[str] | None
) -> tuple[int, int]:
    """Return the numbers of rows and columns of weights (N, T, S) that have a token or a weight."""
    _, used_rows, used_columns = (int(indices.max(initial=0)) + 1 for indices in np.nonzero(weights))
    columns = max(used_columns, len(key_tokens or ()))
    if query_tokens:
        # A padded query may have weights too; the tokens determine where the text ends.
        return len(query_tokens), columns
    return (columns if weights.shape[1] == weights.shape[2] else used_rows), columns


def _mean(values: np.ndarray) -> float:
    return float(f"{float(values.mean()):.4g}")


def _complete_tokens(tokens: Sequence[str] | None, count: int) -> list[str] | None:
    """Return `count` tokens, missing ones numbered from 1; None without tokens."""
    if not tokens:
        return None
    return [*tokens[:count], *(f"#{index + 1}" for index in range(len(tokens), count))]


def quantize(weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Quantize weights to bytes q with w = scale (q / 255)^2, where scale is the largest weight.

    The square root distinguishes small weights, which are the most frequent. Negative and non-finite values become 0.

    Example:
        >>> scale, levels = quantize(np.array([0.0, 0.01, 0.25]))
        >>> scale, levels.tolist()
        (0.25, [0, 51, 255])
    """
    clipped = np.where(np.isfinite(weights), weights, 0.0).clip(min=0.0)
    scale = float(clipped.max(initial=0.0))
    if scale == 0.0:
        return 0.0, np.zeros(clipped.shape, np.uint8)
    return scale, np.rint(255.0 * np.sqrt(clipped / scale)).astype(np.uint8)


def pack(array: np.ndarray) -> str:
    """Return the bytes of an array, little-endian, deflated (zlib), in base64."""
    little_endian = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(little_endian.tobytes(), 9)).decode("ascii")


def pack_weights(heads: Iterable[np.ndarray]) -> dict[str, Any]:
    """Return the quantized weights of several heads of the same shape: a scale for each head, and their bytes in order."""
    quantized = [quantize(weights) for weights in heads]
    return {"scale": [scale for scale, _ in quantized], "bytes": pack(np.stack([levels for _, levels in quantized]))}


def to_json(document: Any) -> Markup:
    """Serialize a document as JSON that is safe in a `<script type="application/json">`.

    `<`, `>`, `&` and the two line separators become \\u escapes; lone surrogates become U+FFFD, non-finite numbers null,
    numpy values Python values, and keys strings.
    """
    text = json.dumps(to_plain(document), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_JSON_ESCAPES))


def to_plain(value: Any) -> Any:
    """Convert a value to dict, list, str, int, float, bool and None."""
    if value is None or (isinstance(value, bool | int) and not isinstance(value, np.generic)):
        return value
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if isinstance(value, np.ndarray | np.generic):
        return to_plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if hasattr(value, "items"):
        return {to_plain(str(key)): to_plain(item) for key, item in value.items()}
    if hasattr(value, "__iter__"):
        return [to_plain(item) for item in value]
    return to_plain(str(value))
