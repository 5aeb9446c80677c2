"""See the attention of an existing model, without changing the model."""

from limelight.inspection._observed_attention import ObservedAttention
from limelight.inspection.adapters import register_adapter
from limelight.inspection.attribution import gradient_times_attention, head_importance
from limelight.inspection.callback import AttentionCallback
from limelight.inspection.extractor import AttentionExtractor, capture
from limelight.inspection.overrides import (
    forbid_keys,
    override_attention,
    permute_keys,
    silence_heads,
    uniform_weights,
)
from limelight.inspection.recorder import CaptureWarning

__all__ = [
    "AttentionCallback",
    "AttentionExtractor",
    "CaptureWarning",
    "ObservedAttention",
    "capture",
    "forbid_keys",
    "gradient_times_attention",
    "head_importance",
    "override_attention",
    "permute_keys",
    "register_adapter",
    "silence_heads",
    "uniform_weights",
]
