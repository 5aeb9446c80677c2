"""How good the models of a study are, over their seeds, and how they differ."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limelight.evaluate import Comparison, Estimate, Reliability, holm, over_seeds, paired_over_seeds, sentence
from limelight.evaluate.estimates import bootstrap, wilson
from limelight.evaluate.metrics import classification_statistics, reliability_curve

SHOWN = (
    "accuracy",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "roc_auc",
    "average_precision",
    "log_loss",
    "brier",
    "calibration_error",
)
COMPARED = ("accuracy", "log_loss")


@dataclasses.dataclass(frozen=True)
class Assessment:
    """What the predictions of one model, trained from S seeds, are worth.

    Attributes:
        runs: For each seed, each metric.
        metrics: Each metric's mean over the seeds, with its interval over test examples.
        seeds: The same mean with its interval over seeds; empty for one seed.
        per_class: Precision, recall and F1 of each class, means over the seeds, with the class's test examples.
        confusion: Counts (K, K), row the true class, over all seeds: each test example counts S times.
        reliability: The reliability curve of all predictions of all seeds.
    """

    runs: list[dict[str, float]]
    metrics: dict[str, Estimate]
    seeds: dict[str, Estimate]
    per_class: list[dict[str, Any]]
    confusion: np.ndarray
    reliability: Reliability


def assess(truth: np.ndarray, predictions: Sequence[np.ndarray], classes: Sequence[str]) -> Assessment:
    """Assess one model by its predictions of the test part, one array (examples, classes) for each seed.

    Args:
        truth: The true classes (examples,).
        predictions: Probabilities, rows summing to one.
        classes: Names of the classes.
    """
    single = [classification_statistics(truth, each, float(np.finfo(np.float32).eps)) for each in predictions]

    def mean(weights: np.ndarray) -> dict[str, np.ndarray]:
        values = [statistics(weights) for statistics in single]
        return {name: np.mean([value[name] for value in values], axis=0) for name in values[0]}

    found: dict[str, Any] = bootstrap(mean, len(truth))
    predicted = np.stack([each.argmax(1) for each in predictions])  # (S, examples)
    right = predicted == truth
    if len(predictions) == 1 or right.all() or not right.any():
        # Where every seed is right about every example, so is each resample: a bootstrap would be sure of it.
        found["accuracy"] = wilson(int(right[0].sum()), len(truth))
    ones = np.ones((1, len(truth)))
    runs = [{name: float(value[name][0]) for name in SHOWN} for value in (statistics(ones) for statistics in single)]
    known = [name for name in SHOWN if all(np.isfinite(run[name]) for run in runs)]
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (np.broadcast_to(truth, predicted.shape), predicted), 1)
    surest = np.concatenate([each.max(1) for each in predictions])
    return Assessment(
        runs,
        {name: found[name] for name in SHOWN},
        {name: over_seeds([run[name] for run in runs]) for name in known} if len(runs) > 1 else {},
        [
            {
                "class": name,
                **{metric: found[metric][place].to_dict()["value"] for metric in ("precision", "recall", "f1")},
                "support": int((truth == place).sum()),
            }
            for place, name in enumerate(classes)
        ],
        confusion,
        reliability_curve((predicted == truth).ravel(), surest),
    )


def compare(
    truth: np.ndarray,
    predictions: Mapping[str, Sequence[np.ndarray]],
    titles: Mapping[str, str],
    classes: Sequence[str],
) -> list[Comparison]:
    """Compare the first model with each other one on accuracy and log loss, p values corrected by Holm for their number.

    A model that was trained once, being the same for every seed, meets each seed of the first.

    Args:
        truth: The true classes (examples,).
        predictions: For each model's name, probabilities (examples, classes) of each seed.
        titles: For each model's name, what a sentence calls it.
        classes: Names of the classes.
    """
    first, *others = predictions
    seeds = len(predictions[first])
    found = [
        paired_over_seeds(
            truth,
            predictions[first],
            list(predictions[other]) * (seeds if len(predictions[other]) == 1 else 1),
            metric=metric,
            classes=classes,
            names=(titles[first], titles[other]),
        )
        for metric in COMPARED
        for other in others
    ]
    corrected = holm([comparison.p_value for comparison in found])
    return [
        dataclasses.replace(
            comparison, p_value=p_value, test=f"{comparison.test}; Holm's correction for {len(found)} tests"
        )
        for comparison, p_value in zip(found, corrected, strict=True)
    ]


def in_words(comparison: Comparison, names: Mapping[str, str]) -> dict[str, Any]:
    """Return a comparison as the results hold it; `names` gives the model's name for each title."""
    entry = comparison.to_dict()
    return {
        "first": names[comparison.names[0]],
        "second": names[comparison.names[1]],
        "metric": comparison.metric,
        **{key: entry["difference"][key] for key in ("low", "high")},
        "difference": entry["difference"]["value"],
        "p_value": entry["p_value"],
        "method": comparison.test,
        "sentence": sentence(comparison),
    }
