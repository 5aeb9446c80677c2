"""Write the verdict of a study, which claims nothing from models that learned nothing or did not finish."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limelight._formatting import METRICS
from limelight.study.folder import Run

MAJORITY = "majority"
# Classes are imbalanced if the largest has at least so many times the examples of the smallest.
_IMBALANCE = 4


def choose_metric(counts: np.ndarray) -> str:
    """Return the metric that the verdict speaks of.

    Where one class is rare, accuracy hardly depends on it: then it is the average precision (of the second class) for two
    classes, and macro F1 for more.

    Args:
        counts: Training examples of each class (K,).

    Example:
        >>> choose_metric(np.array([50, 40])), choose_metric(np.array([98, 2])), choose_metric(np.array([90, 50, 9]))
        ('accuracy', 'average_precision', 'f1_macro')
    """
    if counts.max() < _IMBALANCE * counts.min():
        return "accuracy"
    return "average_precision" if len(counts) == 2 else "f1_macro"


def majority_run(labels: Mapping[str, np.ndarray], num_classes: int) -> Run:
    """Return the run of a model that has learned the class shares alone, and so always predicts the largest class.

    Args:
        labels: The classes of the examples of each part: train, validation and test.
        num_classes: The number of classes K.
    """
    shares = np.bincount(labels["train"], minlength=num_classes) / len(labels["train"])
    predictions = {name: np.tile(shares, (len(labels[name]), 1)) for name in ("validation", "test")}
    validation = labels["validation"]
    summary = {
        "seconds": 0.0,
        "epochs": None,
        "parameters": num_classes - 1,
        "history": {},
        "validation": {
            "loss": float(-np.log(shares[validation]).mean()),
            "accuracy": float((validation == shares.argmax()).mean()),
        },
    }
    return Run(MAJORITY, 1, summary, predictions)


def find_caveats(
    runs: Mapping[str, Sequence[Run]],
    titles: Mapping[str, str],
    trivial: str = MAJORITY,
    trivial_title: str = "class shares",
) -> dict[str, str]:
    """Return a sentence about each model from which no claim is made; its name is the key.

    A training does not count if the limit of epochs stopped it, or if its loss on the validation part is not below that of
    the trivial model.

    Args:
        runs: For each model its runs.
        titles: For each model its title in sentences.
        trivial: The model that learns next to nothing.
        trivial_title: Its title in sentences.
    """
    shares_loss = runs[trivial][0].summary["validation"]["loss"]
    caveats = {}
    for name, model_runs in runs.items():
        if name == trivial or name not in titles:
            continue
        losses = [loss for run in model_runs if (loss := _validation_loss(run)) is not None]
        limits = [run.summary["epochs"] for run in model_runs if run.summary.get("stopped_by_limit")]
        useless = [loss for loss in losses if loss >= shares_loss]
        reasons = []
        if useless:
            more = " or more" if len(useless) > 1 else ""
            reasons.append(
                f"{_count(len(useless), len(model_runs))} of {titles[name]} predicted no better than the {trivial_title} "
                f"(validation loss {min(useless):.3f}{more}, {trivial_title} {shares_loss:.3f})"
            )
        if limits:
            limit = f"{limits[0]} epoch{'' if limits[0] == 1 else 's'}"
            reasons.append(
                f"{_count(len(limits), len(model_runs))} of {titles[name]} reached the limit of {limit} before "
                "--patience ended it, so that more training might help; raise --epochs"
            )
        if reasons:
            caveats[name] = f"{'; '.join(reasons)}."
            caveats[name] = caveats[name][0].upper() + caveats[name][1:]
    return caveats


def withdraw_claim(entry: dict[str, Any], caveats: Mapping[str, str], titles: Mapping[str, str]) -> dict[str, Any]:
    """Return the entry of a comparison with `claim`, False if a caveat holds for a model; the sentence then says why.

    A caveat of the first model concerns all its comparisons, whose sentences are then equal.
    """
    first, second = entry["first"], entry["second"]
    if first not in caveats and second not in caveats:
        return {**entry, "claim": True}
    subject = titles[first] if first in caveats else f"{titles[first]} and {titles[second]}"
    reason = caveats[first if first in caveats else second]
    reason = reason[:1].lower() + reason[1:]
    sentence = f"No claim about the {METRICS[entry['metric']].label} of {subject} can be made: {reason}"
    return {**entry, "claim": False, "sentence": sentence}


def describe_imbalance(metric: str, classes: Sequence[str], counts: np.ndarray, truth: np.ndarray) -> list[str]:
    """Return a sentence about imbalanced classes; none if they are balanced.

    Args:
        metric: The metric of the verdict, from `choose_metric`.
        classes: The names of the classes.
        counts: Training examples of each class.
        truth: The true classes of the test part.
    """
    if metric == "accuracy":
        return []
    largest = int(counts.argmax())
    of_class = f" of {classes[-1]!r}" if metric == "average_precision" else ""
    return [
        f"The classes are imbalanced ({counts.min():,} to {counts.max():,} training examples), so the models are compared "
        f"by {METRICS[metric].label}{of_class}; always predicting {classes[largest]!r} has an accuracy of "
        f"{100 * float((truth == largest).mean()):.1f} %."
    ]


def write(
    entries: Sequence[Mapping[str, Any]], shown: Sequence[bool], metric: str, preface: Sequence[str] = ()
) -> list[str]:
    """Return the sentences of the verdict.

    Args:
        entries: The comparisons, from `withdraw_claim`.
        shown: For each comparison, whether a difference could be shown.
        metric: The metric of the verdict. A difference in another metric is added where one could be shown.
        preface: Sentences that come first.
    """
    sentences = [*preface, *(str(entry["sentence"]) for entry in entries if entry["metric"] == metric)]
    sentences += [
        str(entry["sentence"])
        for entry, is_shown in zip(entries, shown, strict=True)
        if entry["metric"] != metric and is_shown and entry["claim"]
    ]
    return list(dict.fromkeys(sentences))


def answer(entries: Sequence[Mapping[str, Any]], shown: Sequence[bool], metric: str) -> str:
    """Return the plain word for the question of the study: "Yes:", "No:" or "Cannot tell.", before the first comparison.

    Args:
        entries: The comparisons, from `withdraw_claim`; that with the same model without attention is the first of its metric.
        shown: For each comparison, whether a difference could be shown.
        metric: The metric of the verdict.
    """
    for entry, is_shown in zip(entries, shown, strict=True):
        if entry["metric"] == metric:
            if not is_shown or not entry["claim"]:
                return "Cannot tell."
            return "Yes:" if (entry["difference"] > 0) == METRICS[metric].higher_is_better else "No:"
    return "Cannot tell."


def _validation_loss(run: Run) -> float | None:
    """Return the lowest loss on the validation part; None for a model that is not measured by it."""
    history = run.summary["history"]
    return min(history["val_loss"]) if history else run.summary.get("validation", {}).get("loss")


def _count(number: int, total: int) -> str:
    return "the training" if total == 1 else f"{number} of {total} trainings"
