"""Small figures as inline SVG: values in, drawing out, colours from the page's style sheet.

Every panel is `WIDTH` units wide, so that letters come out in one size whatever the screen; the style sheet says how many
panels stand in a row. Marks of kind number k have the class `kind-k`, whose colour they take as `currentColor`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

from limelight.report.markup import Markup, element

WIDTH = 340
KINDS = 8


@dataclasses.dataclass(frozen=True)
class Axis:
    """A straight line from values to places: `low` lies at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float, *, margin: float = 0.06) -> "Axis":
        """The axis that holds all values with a margin on both sides."""
        held = list(values) or [0.0, 1.0]
        low, high = min(held), max(held)
        # Equal values still need an axis of some length; a tenth of their size reads well.
        pad = (high - low) * margin if high > low else abs(high) * 0.1 or 1.0
        return cls(low - pad, high + pad, start, end)

    def __call__(self, value: float) -> float:
        """The place of a value, in hundredths of a unit."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, about: int = 4) -> list[float]:
        """Round values on the axis, about so many."""
        length = self.high - self.low
        power = 10.0 ** math.floor(math.log10(length / about))
        step = min((power * factor for factor in (1, 2, 2.5, 5, 10)), key=lambda step: abs(length / step - about))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]


@dataclasses.dataclass(frozen=True)
class Interval:
    """One row of a forest: a value, what it lies between, and the values of single seeds."""

    label: str
    value: float
    low: float | None
    high: float | None
    kind: int
    points: Sequence[float] = ()
    seeds: tuple[float, float] | None = None

    def values(self) -> list[float]:
        """All that an axis must hold."""
        ends = [end for end in (self.low, self.high, *(self.seeds or ())) if end is not None]
        return [self.value, *ends, *self.points]


def forest(rows: Sequence[Interval], show: Callable[[float], str], *, label: str, zero: bool = False) -> Markup:
    """Values with their intervals, one row each: a dot on a line, below it a ring for each seed on a thin line.

    Args:
        rows: the rows, from the top.
        show: turns a value into the text beside it and beside the ticks.
        label: what a screen reader says.
        zero: whether the axis holds zero and marks it.
    """
    step = 62 if any(row.points for row in rows) else 48
    bottom = len(rows) * step + 4
    axis = Axis.around([*(value for row in rows for value in row.values()), *([0.0] if zero else [])], 8, WIDTH - 8)
    parts = []
    for tick in axis.ticks(4):
        anchor = "start" if axis(tick) < 24 else "end" if axis(tick) > WIDTH - 24 else "middle"
        parts.append(_text(axis(tick), bottom + 15, show(tick), "tick", anchor=anchor))
    for index, row in enumerate(rows):
        top, middle = index * step, index * step + 32
        # The grid leaves the names free.
        parts += [_line(axis(tick), top + 20, axis(tick), top + step, "grid") for tick in axis.ticks(4)]
        if zero:
            parts.append(_line(axis(0), top + 20, axis(0), top + step, "zero"))
        value = show(row.value)
        parts.append(_text(2, top + 14, _clipped(row.label, WIDTH - 12 - 8 * len(value)), "name"))
        parts.append(_text(WIDTH - 2, top + 14, value, "value", anchor="end"))
        parts.append(_interval(row, axis, middle))
    return _svg(parts, WIDTH, bottom + 20, label)


def sparkline(rows: Sequence[Interval], show: Callable[[float], str], *, label: str, width: int = 200) -> Markup:
    """The intervals of `forest` close together and without words, for a cell of a table."""
    values = [value for row in rows for value in (row.value, row.low, row.high) if value is not None]
    axis, least, most = Axis.around(values, 4, width - 4, margin=0), min(values), max(values)
    parts = []
    for index, row in enumerate(rows):
        parts.append(_interval(dataclasses.replace(row, points=(), seeds=None), axis, 7 + 12 * index, radius=3.5))
    bottom = 12 * len(rows) + 14
    parts.append(_line(axis(least), bottom - 11, axis(most), bottom - 11, "base"))
    parts.append(_text(axis(least), bottom, show(least), "tick"))
    parts.append(_text(axis(most), bottom, show(most), "tick", anchor="end"))
    return _svg(parts, width, bottom + 2, label, fixed=True)


def curves(
    series: Sequence[tuple[Sequence[float], str]],
    show: Callable[[float], str],
    *,
    label: str,
    bounds: tuple[float, float],
    longest: int,
    lowest: bool = False,
) -> Markup:
    """Values per epoch, one line for each series.

    Args:
        series: values and the classes of their line.
        show: turns a value into the text of a tick.
        label: what a screen reader says.
        bounds: the least and the greatest value of the vertical axis, so that panels can share it.
        longest: the last epoch of the horizontal axis.
        lowest: whether a dot marks the least value of each series with the class `validation`.
    """
    left, bottom, height = 44, 170, 206
    across = Axis(1, max(longest, 2), left + 6, WIDTH - 8)
    up = Axis.around(bounds, bottom, 8)
    parts = _horizontal_grid(up, left, show)
    # Epochs are whole numbers: no tick between them.
    for epoch in sorted({round(tick) for tick in across.ticks(5) if tick >= 1} | {1}):
        parts.append(_text(across(epoch), bottom + 16, str(epoch), "tick", anchor="middle"))
    parts.append(_text(WIDTH - 8, bottom + 32, "epoch", "tick", anchor="end"))
    for values, classes in series:
        places = [(across(epoch), up(value)) for epoch, value in enumerate(values, 1)]
        parts.append(element("polyline", points=" ".join(f"{x},{y}" for x, y in places), class_=f"curve {classes}"))
        if lowest and "validation" in classes:
            x, y = min(places, key=lambda place: -place[1])
            parts.append(element("circle", cx=x, cy=y, r=3.5, class_=f"dot {classes}"))
    return _svg(parts, WIDTH, height, label)


def reliability(
    bins: Sequence[tuple[float, float, int]], show: Callable[[float], str], *, label: str, kind: int, low: float
) -> Markup:
    """How often the model is right against how sure it is; on the diagonal the two agree.

    Args:
        bins: (mean confidence, accuracy, number of examples) of each bin.
        show: turns a share into the text of a tick.
        label: what a screen reader says.
        kind: the kind whose colour the marks take.
        low: where both axes begin.
    """
    left, bottom = 44, 262
    across, up = Axis(low, 1, left + 10, WIDTH - 14), Axis(low, 1, bottom - 10, 12)
    parts = _horizontal_grid(up, left, show)
    for tick in across.ticks(4):
        parts.append(_text(across(tick), bottom + 16, show(tick), "tick", anchor="middle"))
    parts.append(_text(WIDTH - 8, bottom + 32, "probability given to the prediction", "tick", anchor="end"))
    parts.append(_line(across(low), up(low), across(1), up(1), "diagonal"))
    most = max(count for _, _, count in bins) or 1
    places = [(across(confidence), up(accuracy)) for confidence, accuracy, _ in bins]
    parts.append(
        element("polyline", points=" ".join(f"{x},{y}" for x, y in places), class_=f"curve kind-{kind % KINDS}")
    )
    for (x, y), (confidence, accuracy, count) in zip(places, bins, strict=True):
        title = element("title", f"sure {show(confidence)}, right {show(accuracy)}, {count} examples")
        radius = round(2.5 + 6 * math.sqrt(count / most), 2)
        parts.append(element("circle", title, cx=x, cy=y, r=radius, class_=f"bubble kind-{kind % KINDS}"))
    return _svg(parts, WIDTH, bottom + 38, label)


def _interval(row: Interval, axis: Axis, middle: float, *, radius: float = 5) -> Markup:
    """The marks of one row of a forest around the height `middle`."""
    marks = []
    if row.low is not None and row.high is not None:
        marks.append(_line(axis(row.low), middle, axis(row.high), middle, "interval"))
    marks.append(element("circle", cx=axis(row.value), cy=middle, r=radius, class_="dot"))
    if row.seeds:
        marks.append(_line(axis(row.seeds[0]), middle + 15, axis(row.seeds[1]), middle + 15, "seeds"))
    marks += [element("circle", cx=axis(point), cy=middle + 15, r=3.5, class_="ring") for point in row.points]
    return element("g", marks, class_=f"kind-{row.kind % KINDS}")


def _horizontal_grid(axis: Axis, left: float, show: Callable[[float], str]) -> list[Markup]:
    parts = []
    for tick in axis.ticks(4):
        parts.append(_line(left, axis(tick), WIDTH - 4, axis(tick), "grid"))
        parts.append(_text(left - 6, axis(tick) + 4, show(tick), "tick", anchor="end"))
    return parts


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _clipped(text: str, room: float) -> str:
    """A text cut to what fits into a width, by the breadth of a letter of a name."""
    most = int(room / 7.4)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _text(x: float, y: float, text: str, class_: str, *, anchor: str | None = None) -> Markup:
    return element("text", text, x=x, y=y, class_=class_, text_anchor=anchor)


def _svg(parts: Iterable[Markup], width: float, height: float, label: str, *, fixed: bool = False) -> Markup:
    """The drawing; `fixed` keeps its size, else it grows with its panel."""
    size = {"width": width, "height": height} if fixed else {}
    return element("svg", list(parts), viewBox=f"0 0 {width} {height}", role="img", aria_label=label, **size)
