"""Analysis of attention maps: which tokens reach which, what each head does, which heads are alike, and how
they change in training.

Everything is computed from numpy arrays; no model is run.
"""

from limelight.analysis._drift import drift
from limelight.analysis._patterns import patterns
from limelight.analysis._rollout import flow, rollout
from limelight.analysis.heads import cluster_heads, distance, entropy, head_divergences, received, sinks

__all__ = [
    "cluster_heads",
    "distance",
    "drift",
    "entropy",
    "flow",
    "head_divergences",
    "patterns",
    "received",
    "rollout",
    "sinks",
]
