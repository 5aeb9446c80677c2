"""What is wrong with the attention of a model, in words."""

from limelight.linter.checks import lint
from limelight.linter.findings import Finding, Findings

__all__ = ["Finding", "Findings", "lint"]
