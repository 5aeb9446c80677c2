"""Normalizers: from scores to weights."""

from typing import Any

from limelight.core.component import resolve
from limelight.normalizers.discrete import GumbelSoftmax, Hardmax, TopK
from limelight.normalizers.exponential import Sigmoid, Sink, Softmax
from limelight.normalizers.l1 import L1
from limelight.normalizers.monotonic import Monotonic
from limelight.normalizers.normalizer import LOWEST, Normalizer, build, inner, is_inner, row_peak, softmax, within
from limelight.normalizers.sparse import Entmax, Sparsemax

__all__ = [
    "L1",
    "LOWEST",
    "Entmax",
    "GumbelSoftmax",
    "Hardmax",
    "Monotonic",
    "Normalizer",
    "Sigmoid",
    "Sink",
    "Softmax",
    "Sparsemax",
    "TopK",
    "build",
    "get",
    "inner",
    "is_inner",
    "row_peak",
    "softmax",
    "within",
]

PLAIN_SOFTMAX = Softmax()
NORMALIZERS: dict[str, type] = {
    "softmax": Softmax,
    "sparsemax": Sparsemax,
    "entmax": Entmax,
    "sigmoid": Sigmoid,
    "sink": Sink,
    "hard": Hardmax,
}


def get(value: Any) -> Normalizer:
    """A normalizer from a normalizer, its name, or None for softmax.

    Raises:
        ValueError: an unknown name.
        TypeError: something that is not a normalizer.
    """
    return PLAIN_SOFTMAX if value is None else resolve(value, NORMALIZERS, Normalizer, "normalizer")
