"""Small figures as inline SVG, with colors from the style sheet of the page.

All panels are `WIDTH` units wide, so that text has the same size in each; the style sheet determines the number of panels in
a row. Marks of model k have the class `kind-k` and take their color from `currentColor`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from limelight._formatting import format_count, format_percent, format_ticks, format_value

WIDTH = 340
_NUM_COLORS = 8

# The darkest shade of a highlighted word. Shade 2 is an equal share of the attention; each doubling adds 2.
MAX_SHADE = 8

# The heatmap of examples: the size of a cell, the space left of the cells, and the largest numbers of rows and columns.
_CELL_WIDTH, _ROW_HEIGHT, _LEFT = 16, 18, 92
MAX_ROWS = MAX_COLUMNS = 60
_MAX_TOKEN_LENGTH = 40


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing with its title and a note on how to read it."""

    title: str
    drawing: Markup
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Axis:
    """A linear scale from values to coordinates: `low` is at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float, *, margin: float = 0.06) -> "Axis":
        """Return the axis that contains all values, with a margin on both sides."""
        values = list(values) or [0.0, 1.0]
        low, high = min(values), max(values)
        # The axis of equal values must have a length too: a tenth of their size.
        pad = (high - low) * margin if high > low else abs(high) * 0.1 or 1.0
        return cls(low - pad, high + pad, start, end)

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value, rounded to hundredths."""
        fraction = (value - self.low) / (self.high - self.low)
        return round(self.start + fraction * (self.end - self.start), 2)

    def ticks(self, count: int = 4) -> list[float]:
        """Return about `count` round values on the axis."""
        length = self.high - self.low
        power = 10.0 ** math.floor(math.log10(length / count))
        step = min((power * factor for factor in (1, 2, 2.5, 5, 10)), key=lambda step: abs(length / step - count))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]


@dataclasses.dataclass(frozen=True)
class Interval:
    """One row of a forest plot: a value with its interval over examples, and the values and the interval of single seeds."""

    label: str
    value: float
    low: float | None
    high: float | None
    color: int
    points: Sequence[float] = ()
    seeds: tuple[float, float] | None = None

    def values(self) -> list[float]:
        """Return all values that an axis must contain."""
        ends = [end for end in (self.low, self.high, *(self.seeds or ())) if end is not None]
        return [self.value, *ends, *self.points]


@dataclasses.dataclass(frozen=True)
class Band:
    """A line with its interval at each point, in the color of a number.

    Args:
        color: index of the color.
        x, mean, low, high: The points, all of one length.
    """

    color: int
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def forest(rows: Sequence[Interval], format_tick: Callable[[float], str], *, label: str, zero: bool = False) -> Markup:
    """Draw values with their intervals, one row each: a dot on a line, below it a ring for each seed on a thin line.

    Args:
        rows: The rows, from the top.
        format_tick: Formats a value for its row and for the ticks.
        label: Description for screen readers.
        zero: Include zero in the axis and mark it.
    """
    step = 62 if any(row.points for row in rows) else 48
    bottom = len(rows) * step + 4
    axis = Axis.around([*(value for row in rows for value in row.values()), *([0.0] if zero else [])], 8, WIDTH - 8)
    parts = []
    for tick in axis.ticks(4):
        anchor = "start" if axis(tick) < 24 else "end" if axis(tick) > WIDTH - 24 else "middle"
        parts.append(_text(axis(tick), bottom + 15, format_tick(tick), "tick", anchor=anchor))
    for index, row in enumerate(rows):
        top, middle = index * step, index * step + 32
        # The grid does not cross the names.
        parts += [_line(axis(tick), top + 20, axis(tick), top + step, "grid") for tick in axis.ticks(4)]
        if zero:
            parts.append(_line(axis(0), top + 20, axis(0), top + step, "zero"))
        value = format_tick(row.value)
        parts.append(_text(2, top + 14, _clip(row.label, WIDTH - 12 - 8 * len(value)), "name"))
        parts.append(_text(WIDTH - 2, top + 14, value, "value", anchor="end"))
        parts.append(_interval(row, axis, middle))
    return _svg(parts, WIDTH, bottom + 20, label)


def sparkline(rows: Sequence[Interval], format_tick: Callable[[float], str], *, label: str, width: int = 200) -> Markup:
    """Draw the intervals of `forest` without names and closer together, for a table cell."""
    values = [value for row in rows for value in (row.value, row.low, row.high) if value is not None]
    axis, low, high = Axis.around(values, 4, width - 4, margin=0), min(values), max(values)
    parts = []
    for index, row in enumerate(rows):
        parts.append(_interval(dataclasses.replace(row, points=(), seeds=None), axis, 7 + 12 * index, radius=3.5))
    bottom = 12 * len(rows) + 14
    parts.append(_line(axis(low), bottom - 11, axis(high), bottom - 11, "base"))
    parts.append(_text(axis(low), bottom, format_tick(low), "tick"))
    parts.append(_text(axis(high), bottom, format_tick(high), "tick", anchor="end"))
    return _svg(parts, width, bottom + 2, label, fixed=True)


def curves(
    series: Sequence[tuple[Sequence[float], str]],
    *,
    label: str,
    percent: bool,
    bounds: tuple[float, float],
    num_epochs: int,
    mark_lowest: bool = False,
) -> Markup:
    """Draw values per epoch, one line for each series.

    Args:
        series: Values and the classes of their line.
        label: Description for screen readers.
        percent: Show the values in percent.
        bounds: The smallest and largest value of the vertical axis, so that panels can share it.
        num_epochs: The last epoch of the horizontal axis.
        mark_lowest: Mark the lowest value of each series with the class `validation`.
    """
    left, bottom, height = 44, 170, 206
    x_axis = Axis(1, max(num_epochs, 2), left + 6, WIDTH - 8)
    y_axis = Axis.around(bounds, bottom, 8)
    parts = _horizontal_grid(y_axis, left, percent=percent)
    # Epochs are whole numbers, and so are the ticks.
    for epoch in sorted({round(tick) for tick in x_axis.ticks(5) if tick >= 1} | {1}):
        parts.append(_text(x_axis(epoch), bottom + 16, str(epoch), "tick", anchor="middle"))
    parts.append(_text(WIDTH - 8, bottom + 32, "epoch", "tick", anchor="end"))
    for values, classes in series:
        points = [(x_axis(epoch), y_axis(value)) for epoch, value in enumerate(values, 1)]
        parts.append(element("polyline", points=" ".join(f"{x},{y}" for x, y in points), class_=f"curve {classes}"))
        if mark_lowest and "validation" in classes:
            x, y = max(points, key=lambda point: point[1])
            parts.append(element("circle", cx=x, cy=y, r=3.5, class_=f"dot {classes}"))
    return _svg(parts, WIDTH, height, label)


def bands(series: Sequence[Band], *, label: str, axis: str) -> Markup:
    """Draw lines over shares from 0 to 1, each with the band of its interval.

    Args:
        series: The lines; the first is drawn on top.
        label: Description for screen readers.
        axis: The title of the horizontal axis.
    """
    left, bottom = 44, 170
    x_axis = Axis(0, 1, left + 6, WIDTH - 14)
    values = [value for band in series for value in (*band.mean, *band.low, *band.high)]
    y_axis = Axis.around(values, bottom, 8)
    parts = _horizontal_grid(y_axis, left)
    for tick in x_axis.ticks(4):
        parts.append(_text(x_axis(tick), bottom + 16, format_percent(tick), "tick", anchor="middle"))
    parts.append(_text(WIDTH - 8, bottom + 32, axis, "tick", anchor="end"))
    for band in reversed(series):
        edge = [*zip(band.x, band.low, strict=True), *reversed([*zip(band.x, band.high, strict=True)])]
        # The fill is an attribute, so that the style sheet need not know of it.
        outline = " ".join(f"{x_axis(x)},{y_axis(y)}" for x, y in edge)
        area = element("polygon", points=outline, fill="currentColor", fill_opacity="0.14", stroke="none")
        line = " ".join(f"{x_axis(x)},{y_axis(y)}" for x, y in zip(band.x, band.mean, strict=True))
        curve = element("polyline", points=line, class_="curve")
        parts.append(element("g", area, curve, class_=color_class(band.color)))
    return _svg(parts, WIDTH, bottom + 38, label)


def reliability(bins: Sequence[tuple[float, float, int]], *, label: str, color: int, start: float) -> Markup:
    """Draw accuracy against confidence; they agree on the diagonal.

    Args:
        bins: (mean confidence, accuracy, number of examples) of each bin.
        label: Description for screen readers.
        color: Index of the color of the marks.
        start: Start of both axes.
    """
    left, bottom = 44, 262
    x_axis, y_axis = Axis(start, 1, left + 10, WIDTH - 14), Axis(start, 1, bottom - 10, 12)
    parts = _horizontal_grid(y_axis, left, percent=True)
    for tick in x_axis.ticks(4):
        parts.append(_text(x_axis(tick), bottom + 16, format_percent(tick), "tick", anchor="middle"))
    parts.append(_text(WIDTH - 8, bottom + 32, "probability given to the prediction", "tick", anchor="end"))
    parts.append(_line(x_axis(start), y_axis(start), x_axis(1), y_axis(1), "diagonal"))
    largest = max(count for _, _, count in bins) or 1
    points = [(x_axis(confidence), y_axis(accuracy)) for confidence, accuracy, _ in bins]
    parts.append(
        element("polyline", points=" ".join(f"{x},{y}" for x, y in points), class_=f"curve {color_class(color)}")
    )
    for (x, y), (confidence, accuracy, count) in zip(points, bins, strict=True):
        title = element(
            "title",
            f"probability {format_percent(confidence)}, correct {format_percent(accuracy)}, {format_count(count)} examples",
        )
        radius = round(2.5 + 6 * math.sqrt(count / largest), 2)
        parts.append(element("circle", title, cx=x, cy=y, r=radius, class_=f"bubble {color_class(color)}"))
    return _svg(parts, WIDTH, bottom + 38, label)


def _interval(row: Interval, axis: Axis, middle: float, *, radius: float = 5) -> Markup:
    """Draw the marks of one row of a forest plot at the height `middle`."""
    marks = []
    if row.low is not None and row.high is not None:
        marks.append(_line(axis(row.low), middle, axis(row.high), middle, "interval"))
    marks.append(element("circle", cx=axis(row.value), cy=middle, r=radius, class_="dot"))
    if row.seeds:
        marks.append(_line(axis(row.seeds[0]), middle + 15, axis(row.seeds[1]), middle + 15, "seeds"))
    marks += [element("circle", cx=axis(point), cy=middle + 15, r=3.5, class_="ring") for point in row.points]
    return element("g", marks, class_=color_class(row.color))


def _horizontal_grid(axis: Axis, left: float, *, percent: bool = False) -> list[Markup]:
    parts, ticks = [], axis.ticks(4)
    for tick, label in zip(ticks, format_ticks(ticks, percent=percent), strict=True):
        parts.append(_line(left, axis(tick), WIDTH - 4, axis(tick), "grid"))
        parts.append(_text(left - 6, axis(tick) + 4, label, "tick", anchor="end"))
    return parts


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _clip(text: str, width: float) -> str:
    """Shorten a name to a width, at 7.4 units per letter."""
    max_length = int(width / 7.4)
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def _text(x: float, y: float, text: str, class_: str, *, anchor: str | None = None) -> Markup:
    return element("text", text, x=x, y=y, class_=class_, text_anchor=anchor)


def _svg(
    parts: Iterable[Markup], width: float, height: float, label: str, *, fixed: bool = False, class_: str | None = None
) -> Markup:
    """Return the drawing; it scales with its panel unless `fixed`."""
    size: dict[str, Any] = {"width": width, "height": height} if fixed else {}
    return element(
        "svg", list(parts), viewBox=f"0 0 {width} {height}", role="img", aria_label=label, class_=class_, **size
    )


def color_class(index: int) -> str:
    """Return the class of the color of model number `index`."""
    return f"kind-{index % _NUM_COLORS}"


def element(name: str, *children: Any, **attributes: Any) -> Markup:
    """Return an element with its children and attributes escaped.

    Args:
        name: The tag.
        children: Text, numbers, `Markup`, or lists of these.
        attributes: `class_` and `aria_label` are written `class` and `aria-label`; None is left out.

    Example:
        >>> element("text", "a < b", class_="tick", text_anchor=None)
        Markup('<text class="tick">a &lt; b</text>')
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    written = "".join(f' {key}="{escape(value)}"' for key, value in given.items())
    content = "".join(escape(part) for child in children for part in (child if isinstance(child, list) else [child]))
    return Markup(f"<{name}{written}>{content}</{name}>")


def shade(weight: float, count: int) -> int:
    """Return the shade of a token: the logarithm of its weight relative to an equal share 1 / count.

    The meaning of a shade does not depend on the length of the text, and equal weights are pale, not dark.

    Example:
        >>> [shade(weight, 10) for weight in (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)]
        [0, 0, 2, 4, 6, 8]
    """
    ratio = weight * count
    if ratio <= 0:
        return 0
    return max(0, min(MAX_SHADE, round(2 * (math.log2(ratio) + 1))))


def bars(example: Mapping[str, Any]) -> Markup:
    """Draw the weights of one example, a bar for each step."""
    weights = example["weights"]
    most, step = max(weights) or 1.0, WIDTH / len(weights)
    parts = [
        element(
            "rect",
            x=round(index * step, 2),
            y=round(70 - 70 * weight / most, 2),
            width=round(max(step - 1, 0.5), 2),
            height=round(70 * weight / most, 2),
            class_="amount",
        )
        for index, weight in enumerate(weights)
    ]
    return _svg(
        [*parts, _line(0, 70, WIDTH, 70, "base")], WIDTH, 74, "Weights of the steps of one example", class_="steps"
    )


def heatmap(examples: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Draw the weights of examples, one row each, in the shades of the highlighted texts; None without weights.

    Args:
        examples: The result of `read_examples`.
    """
    weighted = [example for example in examples if example["weights"]]
    rows = weighted[:MAX_ROWS]
    if not rows:
        return None
    longest = max(len(example["weights"]) for example in rows)
    num_columns = min(longest, MAX_COLUMNS)
    parts = [
        _text(_LEFT + (number - 0.5) * _CELL_WIDTH, 11, str(number), "tick", anchor="middle")
        for number in (1, *range(5, num_columns + 1, 5))
    ]
    kind = None
    for index, example in enumerate(rows):
        top = 18 + index * _ROW_HEIGHT
        if example["kind"] != kind:
            kind = example["kind"]
            parts.append(_text(0, top + 13, _short_kind(kind), "tick"))
        parts += [_cell(example, column, top) for column in range(min(len(example["weights"]), num_columns))]
    label = f"Heatmap of the attention of {len(rows)} examples over the positions of their tokens"
    drawing = _svg(
        parts, _LEFT + num_columns * _CELL_WIDTH, 22 + len(rows) * _ROW_HEIGHT, label, fixed=True, class_="overview"
    )
    note = "Each row is an example, each column the position of a token; the shades are those of the texts above."
    if len(weighted) > MAX_ROWS:
        note += f" Only the first {MAX_ROWS} of {format_count(len(weighted))} examples are drawn."
    if longest > MAX_COLUMNS:
        note += f" Only the first {MAX_COLUMNS} of up to {format_count(longest)} tokens are drawn."
    return Figure("All examples at a glance", drawing, note)


def _cell(example: Mapping[str, Any], column: int, top: int) -> Markup:
    weight, piece = example["weights"][column], example["pieces"][column]
    token = piece if len(piece) <= _MAX_TOKEN_LENGTH else piece[:_MAX_TOKEN_LENGTH] + "…"
    title = element("title", f"{token}: {format_value(weight, 'accuracy')}")
    box = {"x": _LEFT + column * _CELL_WIDTH, "y": top, "width": _CELL_WIDTH - 1, "height": _ROW_HEIGHT - 2}
    return element("rect", title, class_=f"weight-{shade(weight, len(example['weights']))}", **box)


def _short_kind(kind: str) -> str:
    """Return the name of a kind, shortened to fit next to its rows."""
    return {"most confident, right": "right", "most confident, wrong": "wrong"}.get(kind, kind)[:14].capitalize()
