"""The part on numbers that were predicted: each against its true value."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from limelight._formatting import to_finite
from limelight.report.figures import WIDTH, Axis, Figure, color_class, element
from limelight.report.results import Model, as_list

_LEFT, _BOTTOM = 52, 262


def build(results: Mapping[str, Any]) -> list[Figure]:
    """Return a drawing for each model, all on the same axes: the predictions of test examples against their true values."""
    points = {}
    for model in Model.all(results):
        pairs = [tuple(map(to_finite, as_list(pair))) for pair in as_list(model.entry.get("predictions"))]
        points[model.index] = (model, [pair for pair in pairs if len(pair) == 2 and None not in pair])
    values = [value for _, pairs in points.values() for pair in pairs for value in pair]
    if not values:
        return []
    x_axis, y_axis = Axis.around(values, _LEFT + 6, WIDTH - 8), Axis.around(values, _BOTTOM - 6, 8)
    return [Figure(model.title, _draw(model, pairs, x_axis, y_axis)) for model, pairs in points.values() if pairs]


def _draw(model: Model, pairs: list[Any], x_axis: Axis, y_axis: Axis) -> Markup:
    parts = []
    for tick in y_axis.ticks(4):
        parts.append(element("line", x1=_LEFT, y1=y_axis(tick), x2=WIDTH - 4, y2=y_axis(tick), class_="grid"))
        parts.append(_label(_LEFT - 6, y_axis(tick) + 4, f"{tick:.4g}", "end"))
    for tick in x_axis.ticks(4):
        parts.append(_label(x_axis(tick), _BOTTOM + 14, f"{tick:.4g}", "middle"))
    parts.append(_label(WIDTH - 8, _BOTTOM + 30, "true value", "end"))
    low, high = x_axis.low, x_axis.high
    diagonal = {"x1": x_axis(low), "y1": y_axis(low), "x2": x_axis(high), "y2": y_axis(high)}
    parts.append(element("line", **diagonal, class_="curve", stroke_dasharray="4 3"))
    parts += [
        element("circle", cx=x_axis(truth), cy=y_axis(prediction), r=2.5, class_="dot", fill_opacity=0.45)
        for truth, prediction in pairs
    ]
    label = f"Predictions of {model.title} against the true values"
    group = element("g", parts, class_=color_class(model.index))
    return element("svg", [group], viewBox=f"0 0 {WIDTH} {_BOTTOM + 36}", role="img", aria_label=label)


def _label(x: float, y: float, text: str, anchor: str) -> Markup:
    return element("text", text, x=x, y=y, class_="tick", text_anchor=anchor)
