"""How good the models are, and how much better than each other: values with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from limelight.report import figures, formatting, tables
from limelight.report.figures import Interval
from limelight.report.markup import Markup, element
from limelight.report.models import Model
from limelight.report.tables import mapping


def lead(models: Sequence[Model], metrics: Sequence[str], comparisons: Sequence[Mapping[str, Any]]) -> Markup | None:
    """The figures that matter most: the first metric of each model, and the differences in it."""
    if not metrics:
        return None
    compared = [str(entry.get("metric")) for entry in comparisons if entry.get("metric") in metrics]
    metric = compared[0] if compared else metrics[0]
    panels = [panel for panel in (_values(models, metric), _differences(models, metric, comparisons)) if panel]
    return element("div", panels, class_="panels two") if panels else None


def _values(models: Sequence[Model], metric: str) -> Markup | None:
    rows = [row for model in models if (row := _row(model, metric)) is not None]
    if not rows:
        return None
    note = "Dot and line: the value over all test examples with its 95 % interval."
    if any(row.points for row in rows):
        note += " Rings: single seeds; thin line: the 95 % interval over seeds."
    name = formatting.title_of(metric)
    drawing = figures.forest(rows, lambda value: formatting.amount(value, metric), label=f"{name} of each model")
    return tables.panel(f"{name} on the test part", drawing, note)


def _differences(models: Sequence[Model], metric: str, compared: Sequence[Mapping[str, Any]]) -> Markup | None:
    known = {model.name: model for model in models}
    entries = [entry for entry in compared if entry.get("metric") == metric and _difference(entry) is not None]
    if not entries:
        return None
    firsts = {str(entry.get("first")) for entry in entries}
    rows = []
    for entry in entries:
        first, second = (_title(known, entry.get(side)) for side in ("first", "second"))
        label = f"against {second}" if len(firsts) == 1 else f"{first} {formatting.MINUS} {second}"
        kind = known[entry["second"]].kind if entry.get("second") in known else 0
        low, high = formatting.finite(entry.get("low")), formatting.finite(entry.get("high"))
        rows.append(Interval(label, _difference(entry) or 0.0, low, high, kind))
    name = formatting.within(formatting.title_of(metric))
    drawing = figures.forest(
        rows, lambda value: formatting.change(value, metric), label=f"Differences in {name}", zero=True
    )
    whose = f" of {_title(known, next(iter(firsts)))}" if len(firsts) == 1 else ""
    unit = ", in points" if formatting.is_share(metric) else ""
    meaning = "worse" if formatting.lower_is_better(metric) else "better"
    note = f"Right of zero {'it' if whose else 'the first'} is {meaning}. An interval that holds zero leaves it open."
    return tables.panel(f"Difference in {name}{whose}{unit}", drawing, note)


def _difference(entry: Mapping[str, Any]) -> float | None:
    return formatting.finite(entry.get("difference"))


def _title(known: Mapping[str, Model], name: Any) -> str:
    """What tables call a model."""
    return known[name].title if name in known else str(name)


def _row(model: Model, metric: str) -> Interval | None:
    """A metric of a model with its intervals over examples and over seeds."""
    estimate = model.metric(metric)
    value = formatting.finite(estimate.get("value"))
    if value is None:
        return None
    points = [formatting.finite(mapping(run.get("metrics")).get(metric)) for run in model.runs]
    over = mapping(mapping(model.entry.get("seeds")).get(metric))
    low, high = formatting.finite(over.get("low")), formatting.finite(over.get("high"))
    return Interval(
        model.title,
        value,
        formatting.finite(estimate.get("low")),
        formatting.finite(estimate.get("high")),
        model.kind,
        [point for point in points if point is not None] if len(points) > 1 else [],
        (low, high) if low is not None and high is not None else None,
    )


def every_metric(models: Sequence[Model], metrics: Sequence[str]) -> Markup | None:
    """Metrics down, models across, and the intervals drawn beside each other."""
    if not metrics:
        return None
    rows, methods = [], {}
    for metric in metrics:
        cells = [_estimate(model.metric(metric), metric) for model in models]
        intervals = [row for model in models if (row := _row(model, metric)) is not None]
        label = f"{formatting.title_of(metric)}: the intervals of the models"
        drawing = (
            figures.sparkline(intervals, lambda value, metric=metric: formatting.amount(value, metric), label=label)
            if intervals
            else None
        )
        note = element("small", "lower is better") if formatting.lower_is_better(metric) else None
        rows.append([[formatting.title_of(metric), note], *cells, element("td", drawing, class_="drawing")])
        for model in models:
            estimate = model.metric(metric)
            if estimate.get("method"):
                methods.setdefault(str(estimate["method"]), []).append(formatting.title_of(metric))
    head = ["Metric", *(_heading(model) for model in models), "95 % intervals"]
    sizes = sorted(
        {size for model in models for metric in metrics if (size := formatting.finite(model.metric(metric).get("n")))}
    )
    how = "; ".join(f"{method}: {', '.join(dict.fromkeys(names))}" for method, names in methods.items())
    count = f"Over {' or '.join(formatting.count(size) for size in sizes)} test examples. " if sizes else ""
    foot = element("p", f"{count}{'Intervals by ' + how + '.' if how else ''}", class_="note") if count or how else None
    return Markup(tables.table(head, rows, caption="Every metric of every model", class_="estimates") + (foot or ""))


def _heading(model: Model) -> list[Markup]:
    size = formatting.finite(model.entry.get("parameters"))
    return [model.label(), *([element("small", f"{formatting.count(size)} parameters")] if size else [])]


def _estimate(estimate: Mapping[str, Any], metric: str) -> Markup:
    low, high = formatting.finite(estimate.get("low")), formatting.finite(estimate.get("high"))
    between = None
    if low is not None and high is not None:
        between = element(
            "small", f"{formatting.amount(low, metric, unit=False)} to {formatting.amount(high, metric, unit=False)}"
        )
    return element("td", formatting.amount(estimate.get("value"), metric), between)


def comparisons(models: Sequence[Model], compared: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Each paired comparison in words and numbers, and below how they were made."""
    if not compared:
        return None
    known = {model.name: model for model in models}
    rows = []
    for entry in compared:
        metric, low, high = str(entry.get("metric", "")), entry.get("low"), entry.get("high")
        first, second = (_title(known, entry.get(side)) for side in ("first", "second"))
        between = f"{formatting.change(low, metric)} to {formatting.change(high, metric)}"
        rows.append(
            [
                [f"{first} against {second}", element("small", tables.unbroken(str(entry.get("sentence") or "")))],
                formatting.title_of(metric),
                [
                    formatting.change(_difference(entry), metric),
                    element("small", "points") if formatting.is_share(metric) else None,
                ],
                between if formatting.finite(low) is not None else formatting.MISSING,
                formatting.p_value(entry.get("p_value")),
            ]
        )
    head = ["On the same test examples", "Metric", "Difference", "95 % interval", "Test"]
    drawn = tables.table(head, rows, caption="Paired comparisons", class_="comparisons")
    methods = dict.fromkeys(str(entry["method"]) for entry in compared if entry.get("method"))
    return Markup(drawn + (element("p", f"Tests: {'; '.join(methods)}.", class_="note") if methods else ""))
