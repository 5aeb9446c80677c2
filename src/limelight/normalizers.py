"""Normalizers: from scores to weights."""

import dataclasses
from typing import Any

from keras import ops

from limelight.parts import Part, chosen, register
from limelight.tile import Tile

# Below every score that float32 can hold but -inf; stands only under a maximum, never in an exponential.
LOWEST = -3.0e38


class Normalizer(Part):
    """Turns the scores of each row into weights.

    It is called with scores in float32 or wider, the mask (bool, broadcastable to the scores, or None) and the tile. Weights
    where the mask is False are exactly 0, also in a row that permits nothing, and gradients are finite.
    """

    def __call__(self, scores: Any, mask: Any, tile: Tile) -> Any:
        """Weights of the same shape and dtype as the scores."""
        raise NotImplementedError


@register
@dataclasses.dataclass(frozen=True)
class Softmax(Normalizer):
    r"""Exponentials that sum to one.

    $$w_{ij} = \frac{m_{ij}\,e^{s_{ij}/\tau}}{\sum_k m_{ik}\,e^{s_{ik}/\tau}}$$

    The largest score of *each row* is subtracted first. (The largest of the whole matrix will not do: a row that lies more than
    about 88 below it would be all zeros in float32.)

    Args:
        temperature: $\tau > 0$; above 1 flattens the weights, below 1 sharpens them.

    Raises:
        ValueError: the temperature is not positive.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.eye(2, dtype="float32"), np.eye(2, dtype="float32")
        >>> print(np.array(ll.weigh(query, key, normalizer=ll.Softmax(temperature=0.1))).round(3))
        [[0.999 0.001]
         [0.001 0.999]]
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"`temperature` must be positive. Received: temperature={self.temperature}.")

    def __call__(self, scores: Any, mask: Any, tile: Tile) -> Any:
        scores = scores / self.temperature
        peak = ops.stop_gradient(row_peak(scores, mask))
        shifted = scores - peak
        if mask is not None:
            # Masked before the exponential: a forbidden score may lie far above the peak and overflow.
            shifted = ops.where(mask, shifted, float("-inf"))
        raised = ops.exp(shifted)
        total = ops.sum(raised, axis=-1, keepdims=True)
        return raised / ops.where(total == 0, 1.0, total)


def row_peak(scores: Any, mask: Any) -> Any:
    """The largest permitted score of each row, (..., t, 1); 0 in a row that permits nothing."""
    if mask is None:
        return ops.max(scores, axis=-1, keepdims=True)
    peak = ops.max(ops.where(mask, scores, LOWEST), axis=-1, keepdims=True)
    return ops.where(peak <= LOWEST, 0.0, peak)


NORMALIZERS: dict[str, type] = {"softmax": Softmax}


def get(value: Any) -> Normalizer:
    """A normalizer from a normalizer, its name, or None for softmax.

    Raises:
        ValueError: an unknown name.
        TypeError: something that is not a normalizer.
    """
    return Softmax() if value is None else chosen(value, NORMALIZERS, Normalizer, "normalizer")
