"""Masks: which query may attend to which key. True means *may attend*."""

from typing import Any

from limelight.core.component import resolve
from limelight.masks.array import ArrayMask, CacheSlots, Padding, Segments, as_bool, concrete_value
from limelight.masks.mask import And, Mask, Not, Or, intersect, static_max, static_min
from limelight.masks.patterns import BigBird, Dilated, MaskFunction
from limelight.masks.positional import Causal, Prefix, SlidingWindow

__all__ = [
    "And",
    "ArrayMask",
    "BigBird",
    "CacheSlots",
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
    "as_bool",
    "concrete_value",
    "get",
    "intersect",
    "static_max",
    "static_min",
]

MASKS: dict[str, type] = {"causal": Causal}


def get(value: Any) -> Mask | None:
    """Return a mask, given as a mask, as "causal", as a function of positions, or as None for no mask.

    Raises:
        ValueError: The name is unknown.
        TypeError: The value is neither a mask, a name nor a function.
    """
    if value is None:
        return None
    if callable(value) and not isinstance(value, (Mask, type)):
        return MaskFunction(value)
    return resolve(value, MASKS, Mask, "mask")
