"""Scores: how well a query and a key match, before any normalisation."""

from typing import Any

from limelight.core.component import resolve
from limelight.scores.networks import Additive, LocationSensitive
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

SCALED_DOT = Dot()
SCORES: dict[str, type] = {"dot": Dot, "bilinear": Bilinear, "cosine": Cosine, "distance": NegativeSquaredDistance}


def get(value: Any) -> Score:
    """A score from a score, its name, or None for the scaled dot product.

    Raises:
        ValueError: an unknown name.
        TypeError: something that is not a score.
    """
    return SCALED_DOT if value is None else resolve(value, SCORES, Score, "score")
