"""Seeing the attention of a model that exists, without changing it."""

from limelight.inspection.adapters import register_adapter
from limelight.inspection.attribution import gradient_times_attention
from limelight.inspection.callback import AttentionCallback
from limelight.inspection.extractor import AttentionExtractor, capture
from limelight.inspection.importance import head_importance
from limelight.inspection.observation import Observation
from limelight.inspection.recorder import CaptureWarning

__all__ = [
    "AttentionCallback",
    "AttentionExtractor",
    "CaptureWarning",
    "Observation",
    "capture",
    "gradient_times_attention",
    "head_importance",
    "register_adapter",
]
