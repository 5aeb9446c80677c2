"""Figures, axes, labels and files: what every drawing shares."""

import math
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from limelight import files
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


def axes(ax: Axes | None, width: float, height: float) -> Axes:
    """Return `ax`, or new axes on a figure of their own of so many inches."""
    return ax if ax is not None else figure(width, height).add_subplot()


def figure(width: float, height: float) -> Figure:
    """Return a figure that pyplot does not know, with a canvas that can measure text."""
    made = Figure(figsize=(width, height), layout="constrained", facecolor="white")
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


def legend(ax: Axes) -> None:
    """Draw a legend without a frame, its names literal."""
    drawn = ax.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    names = [text.get_text() for text in drawn.get_texts()]
    for text in drawn.get_texts():
        text.update({"family": fonts.families(names), **LITERAL})


def name_ticks(
    ax: Axes, axis: str, tokens: Sequence[Any], *, per_cell: int = 1, rotation: float = 90, longest: int = 20
) -> None:
    """Write tokens along an axis of a matrix, every second, third, ... where they would stand too close.

    Args:
        ax: The axes.
        axis: "x" or "y".
        tokens: One for each row or column.
        per_cell: How many tokens share a drawn cell.
        rotation: Of the labels along x.
        longest: Number of letters beyond which a token is cut.
    """
    room = max(1, int(inches(ax)[0 if axis == "x" else 1] / _LABEL_PITCH))
    step = max(1, math.ceil(len(tokens) / room))
    chosen = range(0, len(tokens), step)
    labels = [fonts.visible(tokens[k], longest) for k in chosen]
    style: dict[str, Any] = {"fontsize": 8, "color": INK, "family": fonts.families(labels), **LITERAL}
    places = (np.array(chosen) + 0.5) / per_cell - 0.5
    if axis == "x":
        ax.set_xticks(places, labels, rotation=rotation, **style)
    else:
        ax.set_yticks(places, labels, **style)


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
        files.replacing(target) as temporary,
        matplotlib.rc_context({"svg.hashsalt": "limelight", "svg.fonttype": "path"}),warnings.catch_warnings()
    ):
        # Told once, with a remedy, when the text was drawn; see fonts.families.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
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
