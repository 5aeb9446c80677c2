"""How the models were trained: learning curves, and every run by itself."""

from collections.abc import Sequence

from limelight.report import figures, formatting, tables
from limelight.report.markup import Markup, element
from limelight.report.models import Model
from limelight.report.tables import listing, mapping


def curves(models: Sequence[Model]) -> Markup | None:
    """Loss and accuracy per epoch: one line a seed, training dashed, validation solid."""
    grids = []
    for quantity in ("loss", "accuracy"):
        drawn, panels = [], []
        for model in models:
            series = []
            for run in model.runs:
                history = mapping(run.get("history"))
                for key, part in ((quantity, "training"), (f"val_{quantity}", "validation")):
                    values = [value for value in map(formatting.finite, listing(history.get(key))) if value is not None]
                    if values:
                        series.append((values, f"{part} kind-{model.kind % figures.KINDS}"))
            if series:
                drawn.append((model, series))
        values = [value for _, series in drawn for line, _ in series for value in line]
        longest = max((len(line) for _, series in drawn for line, _ in series), default=0)
        for model, series in drawn:
            drawing = figures.curves(
                series,
                formatting.per_cent if quantity == "accuracy" else "{:.3g}".format,
                label=f"{formatting.title_of(quantity)} per epoch of {model.title}",
                bounds=(min(values), max(values)),
                longest=longest,
                lowest=quantity == "loss",
            )
            panels.append(tables.panel(f"{formatting.title_of(quantity)}, {model.title}", drawing))
        if panels:
            grids.append(element("div", panels, class_="panels"))
    if not grids:
        return None
    lead = element(
        "p", "One line a seed. Solid: validation, with a dot at its lowest loss. Dashed: training.", class_="lead"
    )
    return Markup(element("h3", "Learning curves") + lead + "".join(grids))


def runs(models: Sequence[Model], metrics: Sequence[str]) -> Markup | None:
    """Every run by itself: seed, time, epochs, metrics."""
    rows = []
    for model in models:
        for run in model.runs:
            values = mapping(run.get("metrics"))
            rows.append(
                [
                    model.label(),
                    run.get("seed", formatting.MISSING),
                    formatting.count(run.get("epochs")),
                    formatting.duration(run.get("seconds")),
                    *(formatting.amount(values.get(metric), metric) for metric in metrics),
                ]
            )
    if not rows:
        return None
    head = ["Model", "Seed", "Epochs", "Time", *(formatting.title_of(metric) for metric in metrics)]
    inner = tables.table(head, rows, caption="Every run", class_="compact")
    return element("details", element("summary", f"All {len(rows)} runs"), inner)
