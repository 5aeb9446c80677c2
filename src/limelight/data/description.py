"""Summarize data sets of every kind in values that can be written as JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from limelight.data.dataset import Dataset
from limelight.data.pairs import Pairs
from limelight.data.panel import Panel

_POINTS = {"minimum": 0, "quartile_1": 0.25, "median": 0.5, "quartile_3": 0.75, "percentile_95": 0.95, "maximum": 1}


def describe(dataset: Dataset | Pairs | Panel) -> dict[str, Any]:
    """Summarize a data set in values that can be written as JSON.

    Args:
        dataset: The data set, as `load`, `load_pairs` or `load_panel` returned it.

    Returns:
        A dictionary with `name`, `kind` ("text", "series", "pairs" or "panel"), `source`, `examples`, `lengths` (`unit`,
        `minimum`, `quartile_1`, `median`, `quartile_3`, `percentile_95`, `maximum`; the unit of a text is the word),
        `published_test` (the number of examples in the published test part, else None) and `repairs` (dictionaries of `what`
        and `count`). Besides, by the kind:

        - text and series: `classes` (name to count), `majority` (the largest class's share), `targets` (`minimum`, `mean`,
          `maximum` and `standard_deviation` of numeric targets, else None) and `channels` (series only, else None);
        - pairs: `references` (the number of all targets) and `target_lengths`; `lengths` are those of the sources;
        - panel: `known`, `observed`, `static` (names of the covariates), `season` and `horizon`.

    Example:
        >>> dataset = Dataset("tiny", "text", ("so good", "bad"), np.array([1, 0]), ("negative", "positive"))
        >>> describe(dataset)["classes"]
        {'negative': 1, 'positive': 1}
    """
    match dataset:
        case Dataset():
            inputs, unit = dataset.inputs, "words" if dataset.kind == "text" else "steps"
            kind, rest = dataset.kind, _describe_outputs(dataset)
        case Pairs():
            inputs, unit, kind = dataset.sources, "words", "pairs"
            targets = [text for references in dataset.targets for text in references]
            rest = {"references": len(targets), "target_lengths": _describe_lengths(targets, unit)}
        case Panel():
            inputs, unit, kind = dataset.values, "steps", "panel"
            names = ("known", "observed", "static")
            rest = {name: list(getattr(dataset, f"{name}_names")) for name in names}
            rest |= {"season": dataset.season, "horizon": dataset.horizon}
    test = dataset.test if dataset.test is None or isinstance(dataset, Panel) else np.flatnonzero(dataset.test)
    return {
        "name": dataset.name,
        "kind": kind,
        "source": dataset.source,
        "examples": len(dataset),
        "lengths": _describe_lengths(inputs, unit),
        "published_test": None if test is None else len(test),
        "repairs": [{"what": repair.what, "count": repair.count} for repair in dataset.repairs],
        **rest,
    }


def _describe_lengths(inputs: Sequence[Any], unit: str) -> dict[str, Any]:
    lengths = [len(value.split()) if isinstance(value, str) else len(value) for value in inputs]
    points = np.quantile(lengths or [0], list(_POINTS.values()))
    return {"unit": unit, **{name: float(point) for name, point in zip(_POINTS, points, strict=True)}}


def _describe_outputs(dataset: Dataset) -> dict[str, Any]:
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    targets = dataset.targets
    summary = None
    if targets is not None and len(targets):
        summary = {
            "minimum": float(targets.min()),
            "mean": float(targets.mean()),
            "maximum": float(targets.max()),
            "standard_deviation": float(targets.std()),
        }
    return {
        "classes": {name: int(count) for name, count in zip(dataset.classes, counts, strict=True)},
        "majority": float(counts.max() / len(dataset)) if len(dataset) and len(counts) else 0.0,
        "targets": summary,
        "channels": dataset.inputs[0].shape[1] if dataset.kind == "series" and len(dataset) else None,
    }
