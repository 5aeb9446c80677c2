"""How weights travel in a page: square roots in 8 bits, deflated, base64."""

import base64
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np


def quantise(weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Weights as bytes q with w = scale (q / 255)^2, where scale is the greatest weight.

    The root keeps small weights apart, of which there are most. What is not finite, or below zero, becomes 0.

    Example:
        >>> scale, levels = quantise(np.array([0.0, 0.01, 0.25]))
        >>> scale, levels.tolist()
        (0.25, [0, 51, 255])
    """
    held = np.where(np.isfinite(weights), weights, 0.0).clip(min=0.0)
    scale = float(held.max(initial=0.0))
    if scale == 0.0:
        return 0.0, np.zeros(held.shape, np.uint8)
    return scale, np.rint(255.0 * np.sqrt(held / scale)).astype(np.uint8)


def pack(array: np.ndarray) -> str:
    """The bytes of an array, little-endian, deflated (zlib), as base64."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(little.tobytes(), 9)).decode("ascii")


def pack_weights(heads: Iterable[np.ndarray]) -> dict[str, Any]:
    """The weights of some heads, all of one shape: a scale for each, and their bytes one head after another."""
    quantised = [quantise(weights) for weights in heads]
    return {"scale": [scale for scale, _ in quantised], "bytes": pack(np.stack([levels for _, levels in quantised]))}
