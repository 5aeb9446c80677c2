"""Scores: how well a query and a key match, before any normalisation."""

from typing import Any

from limelight.parts import chosen
from limelight.scores.networks import Additive, Location
from limelight.scores.products import Bilinear, Cosine, Distance, Dot
from limelight.scores.score import Bias, Score, Sum, build
from limelight.scores.wrappers import Normed, Scaled, SoftCap

__all__ = [
    "Additive",
    "Bias",
    "Bilinear",
    "Cosine",
    "Distance",
    "Dot",
    "Location",
    "Normed",
    "Scaled",
    "Score",
    "SoftCap",
    "Sum",
    "build",
    "get",
]

SCALED_DOT = Dot()
SCORES: dict[str, type] = {"dot": Dot, "bilinear": Bilinear, "cosine": Cosine, "distance": Distance}


def get(value: Any) -> Score:
    """A score from a score, its name, or None for the scaled dot product.

    Raises:
        ValueError: an unknown name.
        TypeError: something that is not a score.
    """
    return SCALED_DOT if value is None else chosen(value, SCORES, Score, "score")
