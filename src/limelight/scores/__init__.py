"""Scores: functions of a query and a key, which a normalizer turns into weights."""

from typing import Any

from limelight.core.component import resolve
from limelight.scores.additive import Additive, LocationSensitive
from limelight.scores.products import Bilinear, Cosine, Dot, NegativeSquaredDistance
from limelight.scores.score import Bias, Score, Sum, build
from limelight.scores.wrappers import LearnedScale, QKNorm, SoftCap

__all__ = [
    "Additive",
    "Bias",
    "Bilinear",
    "Cosine",
    "Dot",
    "LearnedScale",
    "LocationSensitive",
    "NegativeSquaredDistance",
    "QKNorm",
    "Score",
    "SoftCap",
    "Sum",
    "build",
    "get",
]

DEFAULT = Dot()
SCORES: dict[str, type] = {
    "dot": Dot,
    "bilinear": Bilinear,
    "cosine": Cosine,
    "negative_squared_distance": NegativeSquaredDistance,
}


def get(value: Any) -> Score:
    """Return a score, given as a score, by its name, or as None for the scaled dot product.

    Raises:
        ValueError: The name is unknown.
        TypeError: The value is neither a score nor a name.
    """
    return DEFAULT if value is None else resolve(value, SCORES, Score, "score")
