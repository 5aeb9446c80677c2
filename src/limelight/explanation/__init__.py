"""Test whether the attention of a model explains its predictions, beside gradients, leave-one-out and random tokens."""

from limelight.explanation._explain import explain
from limelight.explanation._explanation import Explanation

__all__ = ["Explanation", "explain"]
