"""Measure models with confidence intervals, compare them, and test whether a ranking of tokens explains the predictions.

Everything takes numpy arrays and plain functions, never a model.
"""

try:
    import scipy  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("`limelight.evaluate` needs scipy. Run: pip install 'limelight[study]'") from error

from limelight._distributions import distance, entropy, jensen_shannon, total_variation
from limelight._formatting import METRICS, Metric
from limelight.evaluate._faithfulness import Faithfulness, faithfulness
from limelight.evaluate._plausibility import plausibility
from limelight.evaluate.comparison import Comparison, holm, over_seeds, paired, paired_over_seeds
from limelight.evaluate.estimates import Estimate
from limelight.evaluate.metrics import (
    ClassificationResult,
    RegressionResult,
    Reliability,
    classification,
    regression,
)
from limelight.evaluate.perturbation import Delete, Replace, leave_one_out, permutation_test
from limelight.evaluate.rank_agreement import agreement
from limelight.evaluate.sentences import sentence
from limelight.evaluate.translations import TranslationResult, alignment_error_rate, translation

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
    "TranslationResult",
    "agreement",
    "alignment_error_rate",
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
    "plausibility",
    "regression",
    "sentence",
    "total_variation",
    "translation",
]
