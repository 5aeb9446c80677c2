"""Test whether the attention of a model explains its predictions, beside gradients, leave-one-out and random tokens."""

from limelight.explanation._explain import Explanation, explain

__all__ = ["Explanation", "explain"]
