"""MaskFunction the models err: confusion, values per class, and how far their probabilities can be trusted."""

from collections.abc import Mapping, Sequence
from typing import Any

from limelight.report import figures, formatting, tables
from limelight.report.markup import Markup, element
from limelight.report.models import Model
from limelight.report.tables import listing, mapping


def by_class(models: Sequence[Model], classes: Sequence[str]) -> Markup | None:
    """For each model its confusion matrix and its values per class."""
    cards = []
    for model in models:
        counts = [listing(row) for row in listing(model.entry.get("confusion"))]
        per_class = [mapping(row) for row in listing(model.entry.get("per_class"))]
        names = list(classes) if len(classes) == len(counts) else [str(row.get("class", "")) for row in per_class]
        if len(names) != len(counts):
            names = [str(index) for index in range(len(counts))]
        parts = [element("h4", model.label())]
        if counts:
            parts.append(tables.confusion(counts, names, of=model.title, runs=len(model.runs)))
        if per_class:
            parts.append(_per_class(model, per_class))
        if len(parts) > 1:
            cards.append(element("div", parts, class_="card"))
    if not cards:
        return None
    wide = " wide" if len(classes) > 5 else ""
    heading = element("h3", "MaskFunction each model errs")
    return Markup(heading + element("div", cards, class_=f"cards{wide}"))


def _per_class(model: Model, entries: Sequence[Mapping[str, Any]]) -> Markup:
    columns = ("precision", "recall", "f1")
    rows = [
        [
            str(entry.get("class", "")),
            *(formatting.amount(entry.get(column), column) for column in columns),
            formatting.count(entry.get("support")),
        ]
        for entry in entries
    ]
    head = ["Class", *(formatting.title_of(column) for column in columns), "Examples"]
    return tables.table(head, rows, caption="Per class", of=model.title, class_="compact")


def reliability(models: Sequence[Model]) -> Markup | None:
    """For each model how often it is right against how sure it is, all on the same axes."""
    binned = [(model, bins) for model in models if (bins := _bins(model))]
    if not binned:
        return None
    least = min(min(confidence, accuracy) for _, bins in binned for confidence, accuracy, _ in bins)
    panels = []
    for model, bins in binned:
        label = f"Reliability of {model.title}"
        low = 0.0 if least < 0.4 else 0.4
        drawing = figures.reliability(bins, formatting.per_cent, label=label, kind=model.kind, low=low)
        panels.append(tables.panel(model.title, drawing, f"Share right, in {len(bins)} groups by probability"))
    lead = "On the dashed line a model is right as often as it says. Below it, it is too sure."
    grid = element("div", panels, class_="panels")
    return Markup(element("h3", "Reliability") + element("p", lead, class_="lead") + grid)


def _bins(model: Model) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, number of examples) of each group that has examples."""
    bins = []
    for entry in map(mapping, listing(model.entry.get("reliability"))):
        confidence, accuracy, count = (formatting.finite(entry.get(key)) for key in ("confidence", "accuracy", "count"))
        if confidence is not None and accuracy is not None and count:
            bins.append((confidence, accuracy, int(count)))
    return bins
