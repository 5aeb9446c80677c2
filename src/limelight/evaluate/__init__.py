"""Did attention help, and does it explain the prediction? Metrics with intervals, comparisons, faithfulness.

Everything here takes numpy arrays and plain functions, never a model: what is measured is what was predicted.
"""

try:
    import scipy  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("`limelight.evaluate` needs scipy. Run: pip install 'limelight[study]'") from error

from limelight.evaluate._faithfulness import faithfulness
from limelight.evaluate.compare import Comparison, holm, over_seeds, paired, paired_over_seeds
from limelight.evaluate.distributions import distance, entropy, jensen_shannon, total_variation
from limelight.evaluate.estimates import Estimate
from limelight.evaluate.faithfulness_results import Faithfulness
from limelight.evaluate.metrics import (
    METRICS,
    ClassificationResult,
    Metric,
    RegressionResult,
    Reliability,
    classification,
    regression,
)
from limelight.evaluate.perturbation import Delete, Replace
from limelight.evaluate.rank_agreement import agreement, leave_one_out, permutation_test
from limelight.evaluate.sentences import sentence

__all__ = [
    "METRICS",
    "ClassificationResult",
    "Comparison",
    "Delete",
    "Estimate",
    "Faithfulness",
    "Metric",
    "RegressionResult",
    "Reliability",
    "Replace",
    "agreement",
    "classification",
    "distance",
    "entropy",
    "faithfulness",
    "holm",
    "jensen_shannon",
    "leave_one_out",
    "over_seeds",
    "paired",
    "paired_over_seeds",
    "permutation_test",
    "regression",
    "sentence",
    "total_variation",
]
