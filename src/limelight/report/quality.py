"""The section on quality: intervals, differences, metrics, comparisons, errors, reliability and training."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from limelight._formatting import (
    MINUS,
    MISSING,
    format_count,
    format_difference,
    format_duration,
    format_p_value,
    format_percent,
    format_title,
    format_value,
    get_metric,
    to_finite,
)
from limelight.report import figures, forecasts, regressions, translations
from limelight.report.figures import Figure, Interval
from limelight.report.results import Model, as_list, as_mapping

_SHADES = 10  # of a cell of the confusion matrix
MAX_CLASSES = 20  # of a confusion matrix; of more classes the page shows the most confused pairs
_NUM_PAIRS = _NUM_WORST = 10


def build(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of the template `quality.html`."""
    models = Model.all(results)
    metrics = list(dict.fromkeys(name for model in models for name in as_mapping(model.entry.get("metrics"))))
    comparisons = [as_mapping(entry) for entry in as_list(results.get("comparisons"))]
    classes = [str(name) for name in as_list(as_mapping(results.get("data")).get("classes"))]
    return {
        "models": models,
        "intervals": _draw_intervals(models, metrics, comparisons),
        "metrics": [_metric_row(models, metric) for metric in metrics],
        "metrics_note": _metrics_note(models, metrics),
        "comparisons": [_comparison_row(models, entry) for entry in comparisons],
        "tests": list(dict.fromkeys(str(entry["method"]) for entry in comparisons if entry.get("method"))),
        "num_classes": len(classes),
        "errors": [errors for model in models if (errors := _errors(model, classes))],
        "regressions": regressions.build(results),
        "forecasts": forecasts.build(results),
        "translations": translations.build(results),
        "reliability": _draw_reliability(models),
        "learning_curves": [
            drawn for quantity in ("loss", "accuracy") if (drawn := _draw_learning_curves(models, quantity))
        ],
        "runs": [{"model": model, "cells": _run_cells(run, metrics)} for model in models for run in model.runs],
    }


def _format_with(format_number: Callable[..., str], metric: str) -> Callable[[float], str]:
    return functools.partial(format_number, metric=metric)


def _draw_intervals(
    models: Sequence[Model], metrics: Sequence[str], comparisons: Sequence[Mapping[str, Any]]
) -> list[Figure]:
    """Draw the most important metric: that of the first comparison, with its value for each model and its differences."""
    if not metrics:
        return []
    metric = next((str(entry["metric"]) for entry in comparisons if entry.get("metric") in metrics), metrics[0])
    intervals = [interval for model in models if (interval := model.interval(metric)) is not None]
    drawn = []
    if intervals:
        note = "Dot and line: the value over all test examples with its 95 % interval."
        if any(interval.points for interval in intervals):
            has_lines = any(interval.seeds for interval in intervals)
            note += " Rings: single seeds" + "; thin line: the 95 % interval over seeds" * has_lines + "."
        title = format_title(metric)
        drawing = figures.forest(intervals, _format_with(format_value, metric), label=f"{title} of each model")
        drawn.append(Figure(f"{title} on the test part", drawing, note))
    chosen = [
        entry
        for entry in comparisons
        if entry.get("metric") == metric and to_finite(entry.get("difference")) is not None
    ]
    return [*drawn, _draw_differences(models, metric, chosen)] if chosen else drawn


def _draw_differences(models: Sequence[Model], metric: str, comparisons: Sequence[Mapping[str, Any]]) -> Figure:
    by_name = {model.name: model for model in models}
    firsts = {str(entry.get("first")) for entry in comparisons}
    intervals = []
    for entry in comparisons:
        first, second = (_title(models, entry.get(side)) for side in ("first", "second"))
        intervals.append(
            Interval(
                f"against {second}" if len(firsts) == 1 else f"{first} {MINUS} {second}",
                to_finite(entry.get("difference")) or 0.0,
                to_finite(entry.get("low")),
                to_finite(entry.get("high")),
                by_name[entry["second"]].index if entry.get("second") in by_name else 0,
            )
        )
    label = get_metric(metric).label
    drawing = figures.forest(
        intervals, _format_with(format_difference, metric), label=f"Differences in {label}", zero=True
    )
    of_first = f" of {_title(models, next(iter(firsts)))}" if len(firsts) == 1 else ""
    unit = ", in points" if get_metric(metric).percent else ""
    direction = "better" if get_metric(metric).higher_is_better else "worse"
    note = (
        f"Right of zero {'it' if of_first else 'the first'} is {direction}. "
        "An interval that contains zero leaves the question open."
    )
    return Figure(f"Difference in {label}{of_first}{unit}", drawing, note)


def _title(models: Sequence[Model], name: Any) -> str:
    return next((model.title for model in models if model.name == name), str(name))


def _metric_row(models: Sequence[Model], metric: str) -> dict[str, Any]:
    """Return one row of the table of metrics: a cell for each model, and their intervals next to each other."""
    estimates = []
    for estimate in (model.estimate(metric) for model in models):
        low, high = to_finite(estimate.get("low")), to_finite(estimate.get("high"))
        interval = ""
        if low is not None and high is not None:
            interval = f"{format_value(low, metric, unit=False)} to {format_value(high, metric, unit=False)}"
        estimates.append({"value": format_value(estimate.get("value"), metric), "interval": interval})
    title = format_title(metric)
    intervals = [interval for model in models if (interval := model.interval(metric)) is not None]
    drawing = None
    if intervals:
        label = f"{title}: the intervals of the models"
        drawing = figures.sparkline(intervals, _format_with(format_value, metric), label=label)
    lower_is_better = not get_metric(metric).higher_is_better
    return {"title": title, "lower_is_better": lower_is_better, "estimates": estimates, "drawing": drawing}


def _metrics_note(models: Sequence[Model], metrics: Sequence[str]) -> str:
    """Return the numbers of test examples and the methods of the intervals."""
    estimates = [(metric, model.estimate(metric)) for metric in metrics for model in models]
    sizes = sorted({size for _, estimate in estimates if (size := to_finite(estimate.get("n")))})
    methods: dict[str, dict[str, None]] = {}
    for metric, estimate in estimates:
        if estimate.get("method"):
            methods.setdefault(str(estimate["method"]), {})[format_title(metric)] = None
    note = f"Over {' or '.join(map(format_count, sizes))} test examples. " if sizes else ""
    if methods:
        described = [f"{method}: {', '.join(names)}" for method, names in methods.items()]
        note += f"Intervals by {'; '.join(described)}."
    return note


def _comparison_row(models: Sequence[Model], entry: Mapping[str, Any]) -> dict[str, Any]:
    metric = str(entry.get("metric", ""))
    first, second = (_title(models, entry.get(side)) for side in ("first", "second"))
    low, high = (format_difference(entry.get(end), metric) for end in ("low", "high"))
    return {
        "title": f"{first} against {second}",
        "sentence": str(entry.get("sentence") or ""),
        "has_numbers": " CI " in str(entry.get("sentence") or ""),
        "metric": format_title(metric),
        "difference": format_difference(entry.get("difference"), metric),
        "unit": "points" if get_metric(metric).percent else "",
        "interval": MISSING if low == MISSING else f"{low} to {high}",
        "p_value": format_p_value(entry.get("p_value")),
    }


def _errors(model: Model, classes: Sequence[str]) -> dict[str, Any] | None:
    """Return the confusion matrix and the metrics of each class of one model; None if the model has neither."""
    counts = [as_list(row) for row in as_list(model.entry.get("confusion"))]
    per_class = [as_mapping(row) for row in as_list(model.entry.get("per_class"))]
    if not counts and not per_class:
        return None
    names = list(classes) if len(classes) == len(counts) else [str(row.get("class", "")) for row in per_class]
    if len(names) != len(counts):
        names = [str(index) for index in range(len(counts))]
    rows = [_class_row(str(entry.get("class", "")), entry) for entry in per_class]
    if max(len(names), len(rows)) > MAX_CLASSES:
        summary, pairs = _summarize_classes(per_class, rows), _confused_pairs(names, counts)
        return {"model": model, "confusion": None, "confused": pairs, "per_class": summary, "all_classes": rows}
    confusion = {
        "classes": names,
        "rows": [(name, _confusion_cells(row)) for name, row in zip(names, counts, strict=True)],
    }
    shown = confusion if counts else None
    return {"model": model, "confusion": shown, "confused": [], "per_class": rows, "all_classes": []}


def _class_row(name: str, entry: Mapping[str, Any]) -> list[str]:
    values = (format_value(entry.get(metric), metric) for metric in ("precision", "recall", "f1"))
    return [name, *values, format_count(entry.get("support"))]


def _confused_pairs(names: Sequence[str], counts: Sequence[Sequence[Any]]) -> list[list[str]]:
    """Return the most frequent errors: true and predicted class, count, and fraction of the true class."""
    pairs: list[tuple[float, float, int, int]] = []
    for truth, row in enumerate(counts):
        values = [to_finite(value) or 0.0 for value in row]
        total = sum(values) or 1.0
        pairs += [(count, count / total, truth, k) for k, count in enumerate(values) if k != truth and count]
    pairs.sort(key=lambda pair: (-pair[0], -pair[1]))
    return [
        [names[truth], names[predicted], format_count(count), format_percent(fraction)]
        for count, fraction, truth, predicted in pairs[:_NUM_PAIRS]
    ]


def _summarize_classes(per_class: Sequence[Mapping[str, Any]], rows: list[list[str]]) -> list[list[str]]:
    """Return the rows of the mean over the classes that occur and of the worst classes."""
    if not rows:
        return []
    occurring = [entry for entry in per_class if to_finite(entry.get("support"))]
    means: dict[str, Any] = {"support": sum(to_finite(entry.get("support")) or 0 for entry in occurring)}
    for metric in ("precision", "recall", "f1"):
        values = [value for entry in occurring if (value := to_finite(entry.get(metric))) is not None]
        means[metric] = sum(values) / len(values) if values else None
    worst = sorted(
        (index for index, entry in enumerate(per_class) if to_finite(entry.get("support"))),
        key=lambda index: (to_finite(per_class[index].get("f1")) or 0.0, rows[index][0]),
    )
    mean_row = _class_row(f"Mean of {len(occurring)} classes", means)
    return [mean_row, *(rows[index] for index in worst[:_NUM_WORST])]


def _confusion_cells(row: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the cells of one true class, each shaded by its fraction of the row."""
    counts = [to_finite(value) or 0 for value in row]
    total = sum(counts) or 1
    return [
        {
            "count": format_count(count),
            "percent": format_percent(count / total) if count else "",
            "shade": round(_SHADES * count / total),
        }
        for count in counts
    ]


def _draw_reliability(models: Sequence[Model]) -> list[Figure]:
    """Draw the reliability curve of each model, all on the same axes."""
    curves = [(model, bins) for model in models if (bins := model.reliability)]
    smallest = min((min(bin[:2]) for _, bins in curves for bin in bins), default=0.0)
    return [
        Figure(
            model.title,
            figures.reliability(
                bins, label=f"Reliability of {model.title}", color=model.index, start=0.0 if smallest < 0.4 else 0.4
            ),
            f"Fraction correct, in {len(bins)} {'groups' if len(bins) > 1 else 'group'} by probability",
        )
        for model, bins in curves
    ]


def _draw_learning_curves(models: Sequence[Model], quantity: str) -> list[Figure]:
    """Draw a quantity of each epoch, one line for each seed, all models on the same axes."""
    series: dict[int, list[tuple[list[float], str]]] = {}
    for model in models:
        for run in model.runs:
            history = as_mapping(run.get("history"))
            for key, part in ((quantity, "training"), (f"val_{quantity}", "validation")):
                values = [value for value in map(to_finite, as_list(history.get(key))) if value is not None]
                if values:
                    color = figures.color_class(model.index)
                    series.setdefault(model.index, []).append((values, f"{part} {color}"))
    lines = [values for each in series.values() for values, _ in each]
    if not lines:
        return []
    title = format_title(quantity)
    return [
        Figure(
            f"{title}, {model.title}",
            figures.curves(
                series[model.index],
                label=f"{title} per epoch of {model.title}",
                percent=quantity == "accuracy",
                bounds=(min(map(min, lines)), max(map(max, lines))),
                num_epochs=max(map(len, lines)),
                mark_lowest=quantity == "loss",
            ),
        )
        for model in models
        if model.index in series
    ]


def _run_cells(run: Mapping[str, Any], metrics: Sequence[str]) -> list[Any]:
    values = as_mapping(run.get("metrics"))
    return [
        run.get("seed", MISSING),
        format_count(run.get("epochs")),
        format_duration(run.get("seconds")),
        *(format_value(values.get(metric), metric) for metric in metrics),
    ]
