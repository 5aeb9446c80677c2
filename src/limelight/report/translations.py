"""The part on translations: n-best lists, and the alignment of the best one as source x target."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from limelight._formatting import format_count, format_percent, to_finite
from limelight.report.figures import color_class, element
from limelight.report.results import as_list, as_mapping

_CELL, _LETTER, _MAX_UNITS, _MAX_LETTERS = 18, 7, 60, 16


def build(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of the template `translations.html`."""
    rates = as_mapping(results.get("alignment_error_rate"))
    attention, diagonal = (to_finite(rates.get(name)) for name in ("attention", "diagonal"))
    note = ""
    if attention is not None and diagonal is not None:
        note = (
            f"Against alignments by hand of {format_count(rates.get('pairs'))} test pairs, the attention has an alignment error "
            f"rate of {attention:.2f}, the diagonal one of {diagonal:.2f}."
        )
    return {"note": note, "entries": [_read(as_mapping(entry)) for entry in as_list(results.get("translations"))]}


def _read(entry: Mapping[str, Any]) -> dict[str, Any]:
    hypotheses = [as_mapping(each) for each in as_list(entry.get("hypotheses"))]
    rows = [
        ["" if probability is None else format_percent(probability), str(each.get("text", ""))]
        for each in hypotheses
        for probability in [to_finite(each.get("probability"))]
    ]
    best = hypotheses[0] if hypotheses else {}
    source = [str(unit) for unit in as_list(entry.get("source_units"))]
    target = [str(unit) for unit in as_list(best.get("units"))]
    weights = [[to_finite(weight) or 0.0 for weight in as_list(row)] for row in as_list(best.get("weights"))]
    return {
        "kind": str(entry.get("kind", "")),
        "source": str(entry.get("source", "")),
        "references": [str(reference) for reference in as_list(entry.get("references"))],
        "rows": rows,
        "drawing": draw_alignment(source, target, weights) if source and target and weights else None,
    }


def draw_alignment(source: Sequence[str], target: Sequence[str], weights: Sequence[Sequence[float]]) -> Markup:
    """Draw the weights of an alignment as a matrix: a column for each source unit, a row for each target unit.

    Args:
        source: The units of the source (S,).
        target: The units of the target (T,).
        weights: (T, S).
    """
    source, target = [_shorten(unit) for unit in source[:_MAX_UNITS]], [_shorten(unit) for unit in target[:_MAX_UNITS]]
    left, top = (10 + _LETTER * max(map(len, units), default=0) for units in (target, source))
    top, parts = max(top, 20), []
    # Single letters need no rotation.
    is_short = max(map(len, source)) <= 2
    for column, unit in enumerate(source):
        x, y = left + (column + (0.5 if is_short else 0.7)) * _CELL, top - 6
        place = {"text_anchor": "middle"} if is_short else {"transform": f"rotate(-90 {x} {y})"}
        parts.append(element("text", unit, x=x, y=y, class_="tick", **place))
    for row, unit in enumerate(target):
        y = top + row * _CELL
        parts.append(element("text", unit, x=left - 6, y=y + 0.7 * _CELL, class_="tick", text_anchor="end"))
        for column, weight in enumerate(weights[row][: len(source)]):
            title = element("title", f"{unit} – {source[column]}: {weight:.3f}")
            parts.append(
                element(
                    "rect",
                    title,
                    x=left + column * _CELL,
                    y=y,
                    width=_CELL - 1,
                    height=_CELL - 1,
                    class_=color_class(0),
                    fill="currentColor",
                    # Every cell can be seen.
                    fill_opacity=round(0.04 + 0.96 * min(max(weight, 0.0), 1.0), 3),
                )
            )
    width, height = left + len(source) * _CELL + 4, top + len(target) * _CELL + 4
    label = "Alignment of the translation with its source"
    return element(
        "svg", parts, viewBox=f"0 0 {width} {height}", width=width, height=height, role="img", aria_label=label
    )


def _shorten(unit: str) -> str:
    return unit if len(unit) <= _MAX_LETTERS else f"{unit[: _MAX_LETTERS - 1]}…"
