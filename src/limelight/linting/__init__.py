"""What is wrong with the attention of a model, in words."""

from limelight.linting.findings import Finding, Findings
from limelight.linting.judging import lint

__all__ = ["Finding", "Findings", "lint"]
