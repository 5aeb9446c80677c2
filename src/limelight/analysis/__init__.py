"""What maps say about a model: which tokens reach which, what each head does, and which heads are alike.

Numbers from numpy arrays: nothing here runs a model.
"""

from limelight.analysis._patterns import patterns
from limelight.analysis._rollout import flow, rollout
from limelight.analysis.heads import clusters, similarity
from limelight.analysis.statistics import distance, entropy, received, sinks

__all__ = ["clusters", "distance", "entropy", "flow", "patterns", "received", "rollout", "similarity", "sinks"]
