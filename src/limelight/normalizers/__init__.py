"""Normalizers: functions that turn the scores of a row into weights."""

from typing import Any

from limelight.core.component import resolve
from limelight.normalizers.discrete import GumbelSoftmax, Hardmax, TopK
from limelight.normalizers.exponential import Sigmoid, Sink, Softmax
from limelight.normalizers.l1 import L1
from limelight.normalizers.monotonic import Monotonic
from limelight.normalizers.normalizer import (
    MASK_VALUE,
    Normalizer,
    build,
    find_layer,
    internal_softmax,
    is_internal_softmax,
    softmax,
)
from limelight.normalizers.sparse import Entmax, Sparsemax

__all__ = [
    "L1",
    "MASK_VALUE",
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
    "find_layer",
    "get",
    "internal_softmax",
    "is_internal_softmax",
    "softmax",
]

DEFAULT = Softmax()
NORMALIZERS: dict[str, type] = {
    "softmax": Softmax,
    "sparsemax": Sparsemax,
    "entmax": Entmax,
    "sigmoid": Sigmoid,
    "sink": Sink,
    "hardmax": Hardmax,
}


def get(value: Any) -> Normalizer:
    """Return a normalizer, given as a normalizer, by its name, or as None for softmax.

    Raises:
        ValueError: The name is unknown.
        TypeError: The value is neither a normalizer nor a name.
    """
    return DEFAULT if value is None else resolve(value, NORMALIZERS, Normalizer, "normalizer")
