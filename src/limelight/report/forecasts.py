"""The part on forecasts: the error of each step, and single forecasts with their bands and what they attend to."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from limelight._formatting import format_percent, format_value, to_finite
from limelight.report.figures import WIDTH, Axis, Figure, color_class, element
from limelight.report.results import Model, as_list, as_mapping

_LEFT, _BOTTOM, _WEIGHTS_TOP, _WEIGHTS_BOTTOM, _HEIGHT = 44, 150, 164, 196, 218


def build(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of the template `forecasts.html`."""
    section = as_mapping(results.get("forecasts"))
    levels = [level for level in map(to_finite, as_list(section.get("levels"))) if level is not None]
    entries = [as_mapping(entry) for entry in as_list(section.get("entries"))]
    models = Model.all(results)
    band = f" with its band from {format_percent(levels[0])} to {format_percent(levels[-1])}" if len(levels) > 1 else ""
    return {
        "steps": _draw_steps(models),
        "band": band,
        "coverage": [
            (model.title, format_percent(coverage))
            for model in models
            if (coverage := to_finite(model.entry.get("coverage"))) is not None
        ],
        "figures": [figure for entry in entries if (figure := _draw_forecast(entry)) is not None],
    }


def _draw_steps(models: Sequence[Model]) -> list[Figure]:
    """Draw the scaled error of each step of the horizon, one line for each model."""
    lines = [(model, _numbers(as_mapping(model.entry.get("steps")).get("mase"))) for model in models]
    lines = [(model, values) for model, values in lines if values]
    if not lines:
        return []
    x_axis = Axis(1, max(2, max(len(values) for _, values in lines)), _LEFT + 6, WIDTH - 8)
    y_axis = Axis.around([0.0, *(value for _, values in lines for value in values)], _BOTTOM, 8)
    parts = _grid(y_axis)
    for model, values in lines:
        points = [(x_axis(step), y_axis(value)) for step, value in enumerate(values, 1)]
        parts.append(_polyline(points, f"curve {color_class(model.index)}"))
        parts += [element("circle", cx=x, cy=y, r=2.5, class_=f"dot {color_class(model.index)}") for x, y in points]
    for step in sorted({1, *(round(tick) for tick in x_axis.ticks(5) if tick >= 1)}):
        parts.append(_label(x_axis(step), _BOTTOM + 16, str(step), "middle"))
    drawing = _svg(parts, _BOTTOM + 24, "Scaled error of each step of the forecasts")
    note = Markup("").join(model.label for model, _ in lines)
    return [Figure("Mean absolute scaled error of each step", drawing, note)]


def _draw_forecast(entry: Mapping[str, Any]) -> Figure | None:
    """Draw the past, the true and the forecast values of one series, and the weights of the past steps."""
    past, actual, forecast = (_numbers(entry.get(name)) for name in ("past", "actual", "forecast"))
    low, high, naive = (_numbers(entry.get(name)) for name in ("low", "high", "naive"))
    if not past or not forecast:
        return None
    x_axis = Axis(0, max(len(past) + len(forecast) - 1, 1), _LEFT + 2, WIDTH - 6)
    y_axis = Axis.around([*past, *actual, *forecast, *low, *high, *naive], _BOTTOM, 8)

    def points(values: Sequence[float], start: int) -> list[tuple[float, float]]:
        return [(x_axis(start + index), y_axis(value)) for index, value in enumerate(values)]

    parts, origin = _grid(y_axis), len(past)
    if low and high:
        outline = [*points(low, origin), *points(high, origin)[::-1]]
        parts.append(
            element(
                "polygon",
                points=" ".join(f"{x},{y}" for x, y in outline),
                class_=color_class(0),
                fill="currentColor",
                fill_opacity=0.2,
            )
        )
    # The lines begin at the last value that is known.
    parts.append(_polyline(points([*past, *actual], 0), "curve"))
    parts.append(_polyline(points([past[-1], *forecast], origin - 1), f"curve {color_class(0)}"))
    # Last, because the forecast may be nearly the same.
    parts.append(_polyline(points([past[-1], *naive], origin - 1), "curve", stroke_dasharray="2 3"))
    weights = _numbers(entry.get("weights"))
    parts += _draw_weights(weights, x_axis)
    for name, index, x, anchor in (
        ("past_times", 0, x_axis(0), "start"),
        ("past_times", -1, x_axis(origin - 1), "end"),
        ("times", -1, WIDTH - 4, "end"),
    ):
        times = as_list(entry.get(name))
        # The last label of a short horizon would lie on the one before.
        if times and (name == "past_times" or x - x_axis(origin - 1) > 6 * len(str(times[index])) + 6):
            parts.append(_label(x, _HEIGHT - 6, str(times[index]), anchor))
    title = f"{entry.get('id', '')}: {entry.get('kind', '')}"
    drawing = _svg(parts, _HEIGHT, f"Forecast of {title}")
    return Figure(title, drawing, f"mean absolute scaled error {format_value(entry.get('error'), 'mase')}")


def _draw_weights(weights: Sequence[float], x_axis: Axis) -> list[Markup]:
    """Draw a bar for the weight of each past step."""
    most, parts = max(weights, default=0.0) or 1.0, []
    width = max(x_axis(1) - x_axis(0) - 1, 1)
    for index, weight in enumerate(weights):
        height = round((_WEIGHTS_BOTTOM - _WEIGHTS_TOP) * max(weight, 0.0) / most, 2)
        x = round(x_axis(index) - width / 2, 2)
        parts.append(
            element("rect", x=x, y=_WEIGHTS_BOTTOM - height, width=round(width, 2), height=height, class_="amount")
        )
    return parts


def _numbers(values: Any) -> list[float]:
    return [number for number in map(to_finite, as_list(values)) if number is not None]


def _grid(axis: Axis) -> list[Markup]:
    parts = []
    for tick in axis.ticks(4):
        parts.append(element("line", x1=_LEFT, y1=axis(tick), x2=WIDTH - 4, y2=axis(tick), class_="grid"))
        parts.append(_label(_LEFT - 6, axis(tick) + 4, f"{tick:.4g}", "end"))
    return parts


def _label(x: float, y: float, text: str, anchor: str) -> Markup:
    return element("text", text, x=x, y=y, class_="tick", text_anchor=anchor)


def _polyline(points: Sequence[tuple[float, float]], class_: str, **attributes: Any) -> Markup:
    return element("polyline", points=" ".join(f"{x},{y}" for x, y in points), class_=class_, **attributes)


def _svg(parts: list[Markup], height: float, label: str) -> Markup:
    return element("svg", parts, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=label)
