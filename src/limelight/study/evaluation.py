"""Evaluate the predictions of a study, compare the models, and choose examples to look at."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from limelight import inspection
from limelight.data import padded_length
from limelight.evaluate import Comparison, Estimate, Reliability, holm, over_seeds, paired_over_seeds, sentence
from limelight.evaluate.estimates import Statistics, bootstrap, wilson
from limelight.evaluate.metrics import classification_statistics, reliability_curve, widen_constant_metrics
from limelight.maps import AttentionMaps
from limelight.models.examples import Sequences

METRICS = (
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
CORRECT, WRONG, UNCERTAIN = "most confident, right", "most confident, wrong", "least certain"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The quality of one model, trained from S seeds, on the test part.

    Attributes:
        runs: The metrics of each seed.
        metrics: The mean of each metric over the seeds, with its interval over test examples.
        seeds: The same mean with its interval over seeds; empty for one seed.
        per_class: Precision, recall and F1 of each class, means over the seeds, with the number of test examples; of classes.
        confusion: Counts (K, K), row the true class, over all seeds: each test example counts S times; of classes.
        reliability: The reliability curve of all predictions of all seeds; of classes.
        details: What else the results hold about the model, ready for JSON.
    """

    runs: list[dict[str, float]]
    metrics: dict[str, Estimate]
    seeds: dict[str, Estimate]
    per_class: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    confusion: Any = None
    reliability: Reliability | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what the results hold about a model besides its runs, ready for JSON."""
        document: dict[str, Any] = {
            "metrics": {key: estimate.to_dict() for key, estimate in self.metrics.items()},
            "seeds": {key: estimate.to_dict() for key, estimate in self.seeds.items()},
            **self.details,
        }
        if self.confusion is not None and self.reliability is not None:
            document |= {
                "per_class": self.per_class,
                "confusion": self.confusion.tolist(),
                "reliability": [
                    {"confidence": confidence, "accuracy": accuracy, "count": count}
                    for confidence, accuracy, count in zip(*self.reliability.to_dict().values(), strict=True)
                ],
            }
        return document


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The quality of all models on the test part.

    Attributes:
        evaluations: The quality of each model.
        comparisons: The first model beside each other one.
        metric: The metric of the verdict.
        preface: Sentences before the verdict.
        notes: Sentences that limit what the results show.
        examples_title: What the examples of the comparisons are.
    """

    evaluations: dict[str, Evaluation]
    comparisons: list[Comparison]
    metric: str
    preface: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    examples_title: str = "test examples"


@dataclasses.dataclass(frozen=True)
class Samples:
    """Test examples for the report.

    Attributes:
        examples: Texts or series with a weight for each token, ready for JSON.
        maps: The attention maps of the examples, in the same order; None if there are none.
        sections: Further parts of the results, by their name in the document.
    """

    examples: list[dict[str, Any]]
    maps: AttentionMaps | None
    sections: dict[str, Any] = dataclasses.field(default_factory=dict)


def mean_over_seeds(per_seed: Sequence[Statistics]) -> Statistics:
    """Return the means over the seeds of metrics that are functions of weights."""

    def mean(weights: np.ndarray) -> dict[str, np.ndarray]:
        values = [statistics(weights) for statistics in per_seed]
        return {name: np.mean([value[name] for value in values], axis=0) for name in values[0]}

    return mean


def summarize_seeds(
    per_seed: Sequence[Statistics], estimates: Mapping[str, Any], count: int, metrics: Sequence[str], **others: Any
) -> Evaluation:
    """Return the evaluation of one model.

    Args:
        per_seed: For each seed its metrics as a function of weights.
        estimates: The means over the seeds, with their intervals over examples.
        count: The number of test examples.
        metrics: The names of the metrics.
        others: Further attributes of the evaluation.
    """
    ones = np.ones((1, count))
    runs = [{name: float(value[name][0]) for name in metrics} for value in (each(ones) for each in per_seed)]
    defined = [name for name in metrics if all(math.isfinite(run[name]) for run in runs)]
    seeds = {name: over_seeds([run[name] for run in runs], metric=name) for name in defined} if len(runs) > 1 else {}
    return Evaluation(runs, {name: estimates[name] for name in metrics}, seeds, **others)


def estimate_proportion(correct: np.ndarray, mean: Estimate) -> Estimate:
    """Return the share of correct examples, the mean over seeds, with its interval over examples.

    It is Wilson's if all seeds are right on the same examples. Otherwise the share of the seeds that are right on an example
    varies less than a single trial, Wilson's interval would be too long, and that of the mean stays.

    Args:
        correct: For each seed whether each example is correct (S, n).
        mean: The mean over seeds with the bootstrap interval over examples.
    """
    return wilson(int(correct[0].sum()), correct.shape[1]) if (correct == correct[0]).all() else mean


def evaluate_predictions(truth: np.ndarray, predictions: Sequence[np.ndarray], classes: Sequence[str]) -> Evaluation:
    """Evaluate the predictions of one model on the test part.

    Args:
        truth: The true classes (examples,).
        predictions: For each seed, class probabilities (examples, classes).
        classes: The names of the classes.
    """
    per_seed = [classification_statistics(truth, each, float(np.finfo(np.float32).eps)) for each in predictions]
    predicted = np.stack([each.argmax(1) for each in predictions])  # (S, examples)
    intervals = bootstrap(mean_over_seeds(per_seed), len(truth))
    estimates: dict[str, Any] = widen_constant_metrics(intervals, truth, predicted, len(classes))
    correct = predicted == truth
    estimates["accuracy"] = estimate_proportion(correct, estimates["accuracy"])
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (np.broadcast_to(truth, predicted.shape), predicted), 1)
    confidence = np.concatenate([each.max(1) for each in predictions])
    per_class = [
        {
            "class": name,
            **{metric: estimates[metric][index].to_dict()["value"] for metric in ("precision", "recall", "f1")},
            "support": int((truth == index).sum()),
        }
        for index, name in enumerate(classes)
    ]
    curve = reliability_curve(correct.ravel(), confidence)
    return summarize_seeds(
        per_seed, estimates, len(truth), METRICS, per_class=per_class, confusion=confusion, reliability=curve
    )


def compare_models(
    truth: Any,
    predictions: Mapping[str, Sequence[Any]],
    titles: Mapping[str, str],
    classes: Sequence[str] | None = None,
    metrics: Sequence[str] = ("accuracy", "log_loss"),
    unit: str = "word",
) -> list[Comparison]:
    """Compare the first model with each other model on some metrics, with Holm's correction of the p values.

    A model that was trained once is compared with each seed of the first.

    Args:
        truth: The true classes, numbers or references (examples,).
        predictions: For each model, the predictions of each seed, as `paired_over_seeds` takes them.
        titles: For each model, its title in sentences.
        classes: The names of the classes.
        metrics: The names of the metrics.
        unit: What an error of a translation is counted in.
    """
    first, *others = predictions
    num_seeds = len(predictions[first])
    comparisons = [
        paired_over_seeds(
            truth,
            predictions[first],
            list(predictions[other]) * (num_seeds if len(predictions[other]) == 1 else 1),
            metric=metric,
            classes=classes,
            unit=unit,
            names=(titles[first], titles[other]),
        )
        for metric in metrics
        for other in others
    ]
    return correct_p_values(comparisons)


def correct_p_values(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons with p values after Holm's correction for their number."""
    p_values = holm([comparison.p_value for comparison in comparisons])
    return [
        dataclasses.replace(
            comparison,
            p_value=p_value,
            test=f"{comparison.test}; Holm's correction for {len(comparisons)} tests",
            num_tests=len(comparisons),
        )
        for comparison, p_value in zip(comparisons, p_values, strict=True)
    ]


def comparison_to_dict(
    comparison: Comparison, names: Mapping[str, str], examples: str = "test examples"
) -> dict[str, Any]:
    """Return a comparison as it is stored in the results.

    Args:
        comparison: The comparison.
        names: The name of each model, by its title.
        examples: What the examples are.
    """
    entry = comparison.to_dict()
    return {
        "first": names[comparison.names[0]],
        "second": names[comparison.names[1]],
        "metric": comparison.metric,
        **{key: entry["difference"][key] for key in ("low", "high")},
        "difference": entry["difference"]["value"],
        "p_value": entry["p_value"],
        "method": comparison.test,
        "sentence": sentence(comparison, examples),
    }


def note_groups(groups: Sequence[str | None] | None, test: np.ndarray) -> list[str]:
    """Return a sentence if several test examples belong to one group: intervals and p values take them as independent.

    Args:
        groups: For each example of the data set the name of its group, or None; None if there are no groups.
        test: The indices of the test part.

    Example:
        >>> note_groups(("a", "a", None, "b"), np.array([0, 1, 2]))[0][:60]
        'The intervals and p values take the 3 test examples as indep'
    """
    names = [] if groups is None else [groups[index] for index in test]
    count = len({name for name in names if name is not None}) + names.count(None)
    if count == len(names):
        return []
    return [
        f"The intervals and p values take the {len(names):,} test examples as independent, though they belong to {count:,} "
        "groups: if examples of a group are alike, the true intervals are wider."
    ]


def choose_examples(probabilities: np.ndarray, truth: np.ndarray, count: int) -> dict[str, list[int]]:
    """Choose up to `count` examples of each kind, none twice.

    The confident ones have the largest probability and alternate between the predicted classes; the uncertain ones have the
    smallest difference between their two largest probabilities.

    Args:
        probabilities: Class probabilities (examples, classes).
        truth: The true classes (examples,).
        count: The number of examples of each kind.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.45, 0.55]])
        >>> choose_examples(probabilities, np.array([0, 1, 1, 0]), 1)
        {'most confident, right': [0], 'most confident, wrong': [2], 'least certain': [3]}
    """
    predicted, ordered = probabilities.argmax(1), np.sort(probabilities, axis=1)
    by_confidence = np.argsort(-ordered[:, -1], kind="stable").tolist()
    by_margin = np.argsort(ordered[:, -1] - ordered[:, -2], kind="stable").tolist()
    correct = predicted == truth
    chosen = {
        CORRECT: _alternate([index for index in by_confidence if correct[index]], predicted)[:count],
        WRONG: _alternate([index for index in by_confidence if not correct[index]], predicted)[:count],
    }
    confident = {*chosen[CORRECT], *chosen[WRONG]}
    chosen[UNCERTAIN] = [index for index in by_margin if index not in confident][:count]
    return chosen


def capture_examples(
    model: keras.Model, test: Sequences, chosen: Mapping[str, list[int]], described: Sequence[Mapping[str, Any]]
) -> Samples:
    """Capture the attention of a model on test examples.

    Args:
        model: A model whose layer `attention` pools.
        test: The test part.
        chosen: The indices of the examples of each kind.
        described: Each of them in the same order, with its `tokens`, ready for JSON.
    """
    indices = [index for group in chosen.values() for index in group]
    if not indices:
        return Samples([], None)
    sequences = [test.sequences[index] for index in indices]
    inputs, _, _ = test.batch(np.array(indices), padded_length(max(len(sequence) for sequence in sequences)))
    maps = inspection.capture(model, inputs, tokens=[example["tokens"] for example in described])
    weights = maps["attention"].weights()[:, 0, 0]  # (examples, steps)
    kinds = [kind for kind, group in chosen.items() for _ in group]
    examples = [
        {**example, "weights": row[: len(sequence)].astype(float).tolist(), "kind": kind}
        for example, row, sequence, kind in zip(described, weights, sequences, kinds, strict=True)
    ]
    return Samples(examples, maps)


def _alternate(indices: list[int], predicted: np.ndarray) -> list[int]:
    """Reorder examples so that the predicted classes alternate; within a class the order stays."""
    counts: dict[int, int] = {}
    rank = {}
    for position, index in enumerate(indices):
        class_id = int(predicted[index])
        rank[index] = (counts.get(class_id, 0), position)
        counts[class_id] = counts.get(class_id, 0) + 1
    return sorted(indices, key=rank.__getitem__)
