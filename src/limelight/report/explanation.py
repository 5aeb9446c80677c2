"""The section on whether the attention explains the predictions: verdict, curves with bands, and a row for each ranking."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from limelight._formatting import MISSING, format_count, format_decimals, format_duration, to_finite
from limelight.report import figures
from limelight.report.figures import Band, Figure, Interval
from limelight.report.results import as_list, as_mapping

# The rankings of the curves, each with its color, in the order of the legend: more would hide each other.
_DRAWN = ("attention", "integrated_gradients", "leave_one_out", "random")
_HEADINGS = {
    "comprehensiveness": "Comprehensiveness",
    "sufficiency": "Sufficiency",
    "log_odds": "Log-odds",
    "deletion_auc": "Area under deletion",
    "insertion_auc": "Area under insertion",
    "auprc": "AUPRC",
    "token_f1": "Token F1",
    "iou_f1": "IOU F1",
    "alignment_error_rate": "Alignment error rate",
}
_LOWER_IS_BETTER = ("sufficiency", "log_odds", "deletion_auc", "alignment_error_rate")


def build(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of the template `explanation.html`; without sentences there is nothing to show."""
    document = as_mapping(results.get("explanation"))
    rows = [as_mapping(row) for row in as_list(document.get("table"))]
    measures = [name for name in _HEADINGS if any(to_finite(row.get(name)) is not None for row in rows)]
    titles = {str(row.get("ranking")): str(row.get("title", row.get("ranking"))) for row in rows}
    return {
        "sentences": [str(sentence) for sentence in as_list(document.get("verdict"))],
        "figures": [*_draw_curves(document, titles), *_draw_intervals(rows)],
        "legend": [_label(titles[name], index) for index, name in enumerate(_DRAWN) if name in titles],
        "measures": [(_HEADINGS[name], name in _LOWER_IS_BETTER) for name in measures],
        "rows": [(str(row.get("title", "")), [_cell(row, name) for name in measures]) for row in rows],
        "agreement": _agreement_rows(document),
        "facts": _facts(document),
    }


def _label(title: str, index: int) -> Markup:
    return Markup('<span class="model"><i class="key {}"></i>{}</span>').format(figures.color_class(index), title)


def _draw_curves(document: Mapping[str, Any], titles: Mapping[str, str]) -> list[Figure]:
    """Draw the prediction while tokens are removed, and while they are inserted."""
    faithfulness = as_mapping(document.get("faithfulness"))
    is_probability = document.get("output") != "values"
    drawn = []
    notes = {
        "deletion": "while tokens leave in the order of a ranking: the faster it falls, the more the first tokens matter.",
        "insertion": "while tokens enter in the order of a ranking: the faster it rises, the better.",
    }
    for kind, note in notes.items():
        curves = as_mapping(faithfulness.get(kind))
        bands = [
            Band(index, *(as_list(as_mapping(curves[name]).get(key)) for key in ("shares", "mean", "low", "high")))
            for index, name in enumerate(_DRAWN)
            if name in curves and name in titles
        ]
        bands = [band for band in bands if band.mean and len(band.mean) == len(band.low) == len(band.high)]
        if not bands:
            continue
        explained = document.get("explained", "the predicted class")
        subject = f"Mean probability of {explained}" if is_probability else "Minus the mean change of the prediction"
        drawing = figures.bands(
            bands,
            label=f"{subject} {note}",
            axis=f"share of the tokens that {'left' if kind == 'deletion' else 'entered'}",
        )
        title = "Tokens removed" if kind == "deletion" else "Tokens inserted"
        drawn.append(Figure(title, drawing, f"{subject} {note} Bands: 95 % intervals over examples."))
    return drawn


def _draw_intervals(rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Draw the comprehensiveness of each ranking with its interval."""
    intervals = []
    for row in rows:
        value = to_finite(row.get("comprehensiveness"))
        if value is None:
            continue
        name = str(row.get("ranking"))
        low, high = (to_finite(row.get(f"comprehensiveness_{end}")) for end in ("low", "high"))
        color = _DRAWN.index(name) if name in _DRAWN else len(_DRAWN) + 3
        intervals.append(Interval(str(row.get("title", name)), value, low, high, color))
    if not intervals:
        return []
    drawing = figures.forest(intervals, format_decimals, label="Comprehensiveness of each ranking", zero=True)
    note = "How far the prediction falls without the first 1, 5, 10, 20 and 50 % of the tokens, with 95 % intervals."
    return [Figure("Comprehensiveness", drawing, note)]


def _cell(row: Mapping[str, Any], measure: str) -> dict[str, Any]:
    """Return the value of a measure of a ranking, its interval, and True if it was shown to be better than random."""
    low, high = (to_finite(row.get(f"{measure}_{end}")) for end in ("low", "high"))
    interval = "" if low is None or high is None else f"{format_decimals(low)} to {format_decimals(high)}"
    return {
        "value": format_decimals(row.get(measure)),
        "interval": interval,
        "is_better": bool(row.get(f"{measure}_better")),
    }


def _agreement_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """Return the agreement with gradients and leave-one-out: of all examples, and of those of each predicted class."""
    names = ("gradients", "leave_one_out")
    groups = {"All examples": as_mapping(document.get("agreement"))}
    groups |= {
        f"Predicted {name}": as_mapping(each) for name, each in as_mapping(document.get("agreement_by_class")).items()
    }
    rows = []
    for title, group in groups.items():
        estimates = [as_mapping(group.get(name)) for name in names]
        if any(to_finite(estimate.get("value")) is not None for estimate in estimates):
            rows.append([title, *(_format_estimate(estimate) for estimate in estimates)])
    return rows


def _format_estimate(estimate: Mapping[str, Any]) -> str:
    value, low, high = (to_finite(estimate.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return MISSING
    interval = ""
    if low is not None and high is not None:
        interval = f" ({format_decimals(low, 2)} to {format_decimals(high, 2)})"
    return format_decimals(value, 2) + interval


def _facts(document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    cost = as_mapping(document.get("cost"))
    tokens, outputs = to_finite(document.get("tokens")), to_finite(document.get("num_outputs"))
    facts = [
        ("Test examples", format_count(document["n"]) if document.get("n") else None),
        ("Outputs explained", format_count(outputs) if outputs and outputs != document.get("n") else None),
        ("Tokens of an example", f"{tokens:.0f} on average" if tokens is not None else None),
        ("Attention", document.get("layer")),
        ("Removed tokens are", document.get("perturbation")),
        *(
            ("Left out", f"{name.replace('_', ' ')}: {reason}")
            for name, reason in as_mapping(document.get("left_out")).items()
        ),
        ("Forward passes", format_count(cost["forward"]) if cost.get("forward") else None),
        ("Time", format_duration(cost["seconds"]) if cost.get("seconds") else None),
    ]
    return [(name, value) for name, value in facts if value]
