"""Masks: which query may attend to which key. True means *may attend*."""

from typing import Any

from limelight.masks.arrays import boolean, concrete
from limelight.masks.bounds import larger, smaller
from limelight.masks.given import Allowed, Padding, Segments, Slots
from limelight.masks.mask import And, Mask, Not, Or
from limelight.masks.patterns import Blocks, Dilated, Where
from limelight.masks.places import Causal, Prefix, Window
from limelight.parts import chosen

__all__ = [
    "Allowed",
    "And",
    "Blocks",
    "Causal",
    "Dilated",
    "Mask",
    "Not",
    "Or",
    "Padding",
    "Prefix",
    "Segments",
    "Slots",
    "Where",
    "Window",
    "boolean",
    "both",
    "concrete",
    "get",
    "larger",
    "smaller",
]

MASKS: dict[str, type] = {"causal": Causal}


def get(value: Any) -> Mask | None:
    """A mask from a mask, the name "causal", a function of positions, or None.

    Raises:
        ValueError: an unknown name.
        TypeError: something that is not a mask.
    """
    if value is None:
        return None
    if callable(value) and not isinstance(value, (Mask, type)):
        return Where(value)
    return chosen(value, MASKS, Mask, "mask")


def both(left: Mask | None, right: Mask | None) -> Mask | None:
    """What two masks permit together, where either may be missing."""
    if left is None or right is None:
        return right if left is None else left
    return left & right
