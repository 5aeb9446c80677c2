"""Seeing the attention of a model that exists, without changing it."""

from limelight.observe.adapters import register_adapter
from limelight.observe.attribution import attribute
from limelight.observe.callback import AttentionCallback
from limelight.observe.importance import head_importance
from limelight.observe.observation import Observation
from limelight.observe.probe import Probe, capture
from limelight.observe.recorder import CaptureWarning

__all__ = [
    "AttentionCallback",
    "CaptureWarning",
    "Observation",
    "Probe",
    "attribute",
    "capture",
    "head_importance",
    "register_adapter",
]
