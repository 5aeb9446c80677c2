"""Numbers and texts as JSON in the page: square roots of weights as bytes, deflated, in base64."""

import base64
import json
import math
import re
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from markupsafe import Markup

# In a script element `<` can open `<!--` or `</script`; `>` and `&` matter to XML; U+2028 and U+2029 ended a line in old scripts.
_JSON_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
_SURROGATES = re.compile("[\ud800-\udfff]")


def quantize(weights: np.ndarray, steps: int = 255) -> tuple[float, np.ndarray]:
    """Quantize weights to bytes q with w = scale (q / steps)^2, where scale is the largest weight.

    The square root distinguishes small weights, which are the most frequent. Negative and non-finite values become 0; a view
    says in `missing` which queries have the latter.

    Example:
        >>> scale, levels = quantize(np.array([0.0, 0.01, 0.25]))
        >>> scale, levels.tolist()
        (0.25, [0, 51, 255])
    """
    clipped = np.where(np.isfinite(weights), weights, 0.0).clip(min=0.0)
    scale = float(clipped.max(initial=0.0))
    if scale == 0.0:
        return 0.0, np.zeros(clipped.shape, np.uint8)
    return scale, np.rint(steps * np.sqrt(clipped / scale)).astype(np.uint8)


def pack(array: np.ndarray) -> str:
    """Return the bytes of an array, little-endian, deflated (zlib), in base64."""
    little_endian = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(little_endian.tobytes(), 6)).decode("ascii")


def pack_tiles(heads: Iterable[np.ndarray], size: int, steps: int = 255) -> dict[str, Any]:
    """Return the quantized weights of several heads (T, S): a scale for each head, and its tiles of size x size, row by row."""
    scales, tiles = [], []
    for weights in heads:
        scale, levels = quantize(weights, steps)
        rows, columns = (range(0, length, size) for length in levels.shape)
        scales.append(scale)
        tiles.append([pack(levels[row : row + size, column : column + size]) for row in rows for column in columns])
    return {"scale": scales, "steps": steps, "tiles": tiles}


def pack_signed(values: np.ndarray) -> tuple[float, str]:
    """Quantize signed values to bytes q with v = scale q |q| / 127^2, and return the scale and the packed bytes."""
    scale = float(np.abs(values).max(initial=0.0))
    levels = np.rint(127.0 * np.sign(values) * np.sqrt(np.abs(values) / (scale or 1.0)))
    return scale, pack(levels.astype(np.int8))


def round_digits(value: Any) -> float:
    """Return a number with four significant digits."""
    return float(f"{float(value):.4g}")


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
