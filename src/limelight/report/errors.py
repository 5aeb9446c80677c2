"""Where the models err: confusion, values per class, and how far their probabilities can be trusted."""

from collections.abc import Mapping, Sequence
from typing import Any

from limelight.report import figures, tables, words
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
            parts.append(tables.confusion(counts, names, of=model.title))
        if per_class:
            parts.append(_per_class(model, per_class))
        if len(parts) > 1:
            cards.append(element("div", parts, class_="card"))
    if not cards:
        return None
    wide = " wide" if len(classes) > 5 else ""
    heading = element("h3", "Where each model errs")
    return Markup(heading + element("div", cards, class_=f"cards{wide}"))


def _per_class(model: Model, entries: Sequence[Mapping[str, Any]]) -> Markup:
    columns = ("precision", "recall", "f1")
    rows = [
        [
            str(entry.get("class", "")),
            *(words.amount(entry.get(column), column) for column in columns),
            words.count(entry.get("support")),
        ]
        for entry in entries
    ]
    head = ["Class", *(words.title_of(column) for column in columns), "Examples"]
    return tables.table(head, rows, caption="Per class", of=model.title, class_="compact")


def reliability(models: Sequence[Model]) -> Markup | None:
    panels = []
    for model in models:
        bins = []
        for entry in map(mapping, listing(model.entry.get("reliability"))):
            confidence, accuracy = words.finite(entry.get("confidence")), words.finite(entry.get("accuracy"))
            count = words.finite(entry.get("count"))
            if confidence is not None and accuracy is not None and count:
                bins.append((confidence, accuracy, int(count)))
        if bins:
            drawing = figures.reliability(bins, words.per_cent, label=f"Reliability of {model.title}", kind=model.kind)
            panels.append(
                tables.panel(model.title, drawing, f"Share that is right, in {len(bins)} groups by how sure it is.")
            )
    if not panels:
        return None
    lead = element(
        "p", "On the dashed line a model is right as often as it says. Below it, it is too sure.", class_="lead"
    )
    return Markup(element("h3", "Reliability") + lead + element("div", panels, class_="panels"))
