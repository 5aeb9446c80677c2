"""Scores that depend on where queries and keys stand."""

from limelight.positions.biases import ALiBi, Gaussian, RelativeBias
from limelight.positions.relative import Shaw, TransformerXL
from limelight.positions.rotary import LinearScaling, NTKScaling, Rotary, YaRNScaling

__all__ = [
    "ALiBi",
    "Gaussian",
    "LinearScaling",
    "NTKScaling",
    "RelativeBias",
    "Rotary",
    "Shaw",
    "TransformerXL",
    "YaRNScaling",
]
