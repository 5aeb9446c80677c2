"""Masks: which query may attend to which key. True means *may attend*."""

from typing import Any

from limelight.core.component import resolve
from limelight.masks.array import ArrayMask, Padding, Segments, Slots
from limelight.masks.mask import And, Mask, Not, Or
from limelight.masks.patterns import BigBird, Dilated, MaskFunction
from limelight.masks.positional import Causal, Prefix, SlidingWindow
from limelight.masks.static_shapes import larger, smaller
from limelight.masks.validation import boolean, concrete

__all__ = [
    "And",
    "ArrayMask",
    "BigBird",
    "Causal",
    "Dilated",
    "Mask",
    "MaskFunction",
    "Not",
    "Or",
    "Padding",
    "Prefix",
    "Segments",
    "SlidingWindow",
    "Slots",
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
        return MaskFunction(value)
    return resolve(value, MASKS, Mask, "mask")


def both(left: Mask | None, right: Mask | None) -> Mask | None:
    """What two masks permit together, where either may be missing."""
    if left is None or right is None:
        return right if left is None else left
    return left & right
