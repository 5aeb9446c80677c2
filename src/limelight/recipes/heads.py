"""What the recipes of multi-head attention share."""

from typing import Any

from limelight.layers import MultiHeadAttention
from limelight.masks import Causal, Mask, SlidingWindow


def heads(num_heads: int, key_dim: int, *, use_bias: bool = False, **kwargs: Any) -> MultiHeadAttention:
    """Multi-head attention as papers have it, without biases unless they are asked for."""
    return MultiHeadAttention(num_heads, key_dim, use_bias=use_bias, **kwargs)


def causal_mask(causal: bool) -> Mask | None:
    """The causal mask, or none."""
    return Causal() if causal else None


def recent(window: int | None) -> Mask:
    """What came before, as far back as the window reaches."""
    return Causal() if window is None else Causal() & SlidingWindow(window - 1, 0)
