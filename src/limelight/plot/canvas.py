"""Figures, axes, labels and files: what every drawing shares."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from limelight import _files
from limelight.plot import fonts

# Okabe and Ito, "Color universal design" (2008), in an order that starts with the two that differ most.
KINDS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
AMOUNTS = "viridis"
INK = "#262626"
FAINT = "#8c8c8c"
GRID = "#e4e4e4"

# Every text of ours: data is never markup, neither of mathtext nor of TeX.
LITERAL: dict[str, Any] = {"parse_math": False, "usetex": False}

_LABEL_PITCH = 0.15  # inches from one token's label to the next
_LETTER = 0.085  # inches of a wide letter of a label


def axes(ax: Axes | None, width: float, height: float) -> Axes:
    """Return `ax`, or new axes on a figure of their own of so many inches."""
    return ax if ax is not None else figure(width, height).add_subplot()


def figure(width: float, height: float) -> Figure:
    """Return a figure that pyplot does not know, with a canvas that can measure text."""
    made = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    made.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr]
    FigureCanvasAgg(made)
    return made


def title(ax: Axes, text: str | None) -> None:
    """Set a title on the left, literally."""
    if text:
        ax.set_title(
            fonts.visible(text),
            loc="left",
            fontsize=11,
            color=INK,
            family=fonts.families([str(text)]),
            pad=8,
            **LITERAL,
        )


def label(ax: Axes, x: str | None = None, y: str | None = None) -> None:
    """Name the axes, literally."""
    for text, setter in ((x, ax.set_xlabel), (y, ax.set_ylabel)):
        if text:
            setter(fonts.visible(text), fontsize=9, color=INK, family=fonts.families([text]), **LITERAL)


def quiet(ax: Axes, *, grid: str | None = None) -> None:
    """Take away what carries no data; draw a light grid along `grid` ("x", "y" or "both") behind the data."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(FAINT)
    ax.tick_params(colors=FAINT, labelcolor=INK, labelsize=8.5, length=3)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(True, axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]


def inches(ax: Axes) -> tuple[float, float]:
    """Return the width and height of axes."""
    box = ax.get_window_extent()
    return box.width / ax.figure.dpi, box.height / ax.figure.dpi


def legend(ax: Axes, handles: Mapping[str, Any]) -> None:
    """Draw a legend without a frame from names to lines, the names literal."""
    # Matplotlib would leave out a name that starts with "_": the names are set afterwards.
    drawn = ax.legend(list(handles.values()), ["name"] * len(handles), frameon=False, fontsize=8.5, labelcolor=INK)
    family = fonts.families(handles)
    for text, name in zip(drawn.get_texts(), handles, strict=True):
        text.update({"text": fonts.visible(name, 60), "family": family, **LITERAL})


def frameless(ax: Axes) -> None:
    """Take away the frame and the tick marks, as around an image."""
    ax.tick_params(length=0, labelsize=8, labelcolor=INK)
    for spine in ax.spines.values():
        spine.set_visible(False)


def bar(image: Any, text: str, ax: Any) -> None:
    """Draw a colour bar beside axes, or beside a list of axes of one figure."""
    many = isinstance(ax, list)
    place: dict[str, Any] = {"shrink": 0.8, "aspect": 30, "pad": 0.02} if many else {"fraction": 0.05, "aspect": 25}
    figure = (ax[0] if many else ax).figure
    drawn = figure.colorbar(image, ax=ax, **place)
    drawn.outline.set_visible(False)
    drawn.ax.tick_params(length=0, labelsize=8, labelcolor=INK)
    drawn.set_label(fonts.visible(text), fontsize=9, color=INK, family=fonts.families([text]), **LITERAL)


def heading(figure: Figure, text: str | None) -> None:
    """Set a figure's title on the left, literally."""
    if text:
        figure.suptitle(
            fonts.visible(text), x=0.01, ha="left", fontsize=12, color=INK, family=fonts.families([text]), **LITERAL
        )


def name_ticks(ax: Axes, axis: str, tokens: Sequence[Any], *, longest: int = 20) -> None:
    """Write tokens along an axis of a matrix, every second, third, ... where they would stand too close.

    Labels along x stand upright where all of them are too wide to lie.

    Args:
        ax: The axes.
        axis: "x" or "y".
        tokens: One for each row or column.
        longest: Number of letters beyond which a token is cut.
    """
    side = inches(ax)[0 if axis == "x" else 1]
    step = max(1, math.ceil(len(tokens) * _LABEL_PITCH / side))
    places = range(0, len(tokens), step)
    labels = [fonts.visible(tokens[place], longest) for place in places]
    style: dict[str, Any] = {"fontsize": 8, "color": INK, "family": fonts.families(labels), **LITERAL}
    if axis == "y":
        ax.set_yticks(places, labels, **style)
        return
    wide = max(fonts.columns(text) for text in labels) * _LETTER > side / len(labels)
    ax.set_xticks(places, labels, rotation=90 if wide else 0, **style)


def count_ticks(ax: Axes, axis: str) -> None:
    """Number the positions along an axis of a matrix, in whole numbers."""
    (ax.xaxis if axis == "x" else ax.yaxis).set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))


def save(drawing: Any, path: str | os.PathLike[str], *, dpi: int = 150) -> Path:
    """Write a figure to a PNG, SVG or PDF file, whole or not at all.

    The same drawing gives the same bytes: no date, fixed identifiers in SVG. Letters are drawn as shapes in SVG, so that
    it looks the same where a font is missing.

    Args:
        drawing: A figure, axes, or an array or list of axes of one figure.
        path: Where to; the suffix .png, .svg or .pdf chooses the format.
        dpi: Dots per inch of a PNG.

    Returns:
        The path.

    Raises:
        ValueError: Another suffix.
        TypeError: Neither a figure nor axes.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(axes(None, 2, 2), f"{folder}/empty.svg").stat().st_size > 0
        True
    """
    target = Path(path)
    kind = target.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        raise ValueError(f"`path` must end in .png, .svg or .pdf. Received: {str(path)!r}.")
    metadata: dict[str, Any] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    with (
        _files.atomic_write(target) as temporary,
        matplotlib.rc_context({"svg.hashsalt": "limelight", "svg.fonttype": "path"}),
    ):
        _figure(drawing).savefig(temporary, format=kind, dpi=dpi, metadata=metadata)
    return target


def _figure(drawing: Any) -> Figure:
    while not isinstance(drawing, Figure):
        if isinstance(drawing, Axes):
            drawing = drawing.get_figure(root=True)
        elif isinstance(drawing, Iterable) and not isinstance(drawing, (str, bytes, dict)):
            drawing = next(iter(np.asarray(drawing, dtype=object).ravel()), None)
        else:
            raise TypeError(f"`drawing` must be a figure or axes. Received: {type(drawing).__name__}.")
    return drawing
