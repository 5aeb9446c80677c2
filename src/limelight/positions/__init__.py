"""Positions: scores that depend on the positions of queries and keys."""

from limelight.positions.biases import ALiBi, GaussianWindow, RelativePositionBias
from limelight.positions.relative import Shaw, TransformerXL
from limelight.positions.rotary import LinearScaling, NTKScaling, Rotary, YaRNScaling

__all__ = [
    "ALiBi",
    "GaussianWindow",
    "LinearScaling",
    "NTKScaling",
    "RelativePositionBias",
    "Rotary",
    "Shaw",
    "TransformerXL",
    "YaRNScaling",
]
