"""Did attention help, and does it explain the prediction? Metrics with intervals, comparisons, faithfulness.

Everything here takes numpy arrays and plain functions, never a model: what is measured is what was predicted.
"""

try:
    import scipy  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("`limelight.evaluate` needs scipy. Run: pip install 'limelight[study]'") from error

from limelight.evaluate.compare import Comparison, holm, over_seeds, paired, paired_over_seeds
from limelight.evaluate.estimates import Estimate
from limelight.evaluate.metrics import (
    METRICS,
    ClassificationResult,
    Metric,
    RegressionResult,
    Reliability,
    classification,
    regression,
)
from limelight.evaluate.sentences import sentence

__all__ = [
    "METRICS",
    "ClassificationResult",
    "Comparison",
    "Estimate",
    "Metric",
    "RegressionResult",
    "Reliability",
    "classification",
    "holm",
    "over_seeds",
    "paired",
    "paired_over_seeds",
    "regression",
    "sentence",
]
