"""Normalizers: from scores to weights."""

from typing import Any

from limelight.normalizers.choices import Gumbel, Hard, TopK
from limelight.normalizers.exponential import Sigmoid, Sink, Softmax
from limelight.normalizers.monotonic import Monotonic
from limelight.normalizers.normalizer import LOWEST, Normalizer, build, inner, is_inner, row_peak, softmax, within
from limelight.normalizers.shares import Shares
from limelight.normalizers.sparse import Entmax, Sparsemax
from limelight.parts import chosen

__all__ = [
    "LOWEST",
    "Entmax",
    "Gumbel",
    "Hard",
    "Monotonic",
    "Normalizer",
    "Shares",
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
    "hard": Hard,
}


def get(value: Any) -> Normalizer:
    """A normalizer from a normalizer, its name, or None for softmax.

    Raises:
        ValueError: an unknown name.
        TypeError: something that is not a normalizer.
    """
    return PLAIN_SOFTMAX if value is None else chosen(value, NORMALIZERS, Normalizer, "normalizer")
