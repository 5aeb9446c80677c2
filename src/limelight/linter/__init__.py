"""Find what is wrong with the attention of a model."""

from limelight.linter._lint import lint
from limelight.linter.findings import Finding, Findings

__all__ = ["Finding", "Findings", "lint"]
