"""Figures, axes, labels and files of all drawings."""

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

# Okabe and Ito, "Color universal design" (2008), the two most different colors first.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
COLORMAP = "viridis"
INK = "#262626"
GRAY = "#8c8c8c"
GRID = "#e4e4e4"

# For every text: data is never markup, neither mathtext nor TeX.
LITERAL: dict[str, Any] = {"parse_math": False, "usetex": False}

_LABEL_SPACING = 0.15  # inches between the labels of two tokens
_LETTER_WIDTH = 0.085  # inches of a wide letter of a label


def make_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """Return `ax`, or new axes on a new figure of this size in inches."""
    return ax if ax is not None else make_figure(width, height).add_subplot()


def make_figure(width: float, height: float) -> Figure:
    """Return a figure that pyplot does not know, with a canvas that can measure text."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr]
    FigureCanvasAgg(figure)
    return figure


def set_title(ax: Axes, text: str | None) -> None:
    """Set a literal title on the left."""
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


def label_axes(ax: Axes, x: str | None = None, y: str | None = None) -> None:
    """Set literal labels of the axes."""
    for text, setter in ((x, ax.set_xlabel), (y, ax.set_ylabel)):
        if text:
            setter(fonts.visible(text), fontsize=9, color=INK, family=fonts.families([text]), **LITERAL)


def style_axes(ax: Axes, *, grid: str | None = None) -> None:
    """Hide the upper and right spines; draw a light grid along `grid` ("x", "y" or "both") behind the data."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(GRAY)
    ax.tick_params(colors=GRAY, labelcolor=INK, labelsize=8.5, length=3)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(True, axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]


def size_in_inches(ax: Axes) -> tuple[float, float]:
    """Return the width and height of axes in inches."""
    box = ax.get_window_extent()
    return box.width / ax.figure.dpi, box.height / ax.figure.dpi


def draw_legend(ax: Axes, handles: Mapping[str, Any]) -> None:
    """Draw a legend without a frame from a mapping of literal names to lines."""
    # Matplotlib leaves out names that start with "_", so the names are set afterwards.
    legend = ax.legend(list(handles.values()), ["name"] * len(handles), frameon=False, fontsize=8.5, labelcolor=INK)
    family = fonts.families(handles)
    for text, name in zip(legend.get_texts(), handles, strict=True):
        text.update({"text": fonts.visible(name, 60), "family": family, **LITERAL})


def hide_frame(ax: Axes) -> None:
    """Hide the frame and the tick marks, as around an image."""
    ax.tick_params(length=0, labelsize=8, labelcolor=INK)
    for spine in ax.spines.values():
        spine.set_visible(False)


def draw_colorbar(image: Any, text: str, ax: Any) -> None:
    """Draw a color bar next to axes, or next to a list of axes of one figure."""
    is_list = isinstance(ax, list)
    layout: dict[str, Any] = {"shrink": 0.8, "aspect": 30, "pad": 0.02} if is_list else {"fraction": 0.05, "aspect": 25}
    figure = (ax[0] if is_list else ax).figure
    colorbar = figure.colorbar(image, ax=ax, **layout)
    colorbar.outline.set_visible(False)
    colorbar.ax.tick_params(length=0, labelsize=8, labelcolor=INK)
    colorbar.set_label(fonts.visible(text), fontsize=9, color=INK, family=fonts.families([text]), **LITERAL)


def set_figure_title(figure: Figure, text: str | None) -> None:
    """Set a literal title of a figure on the left."""
    if text:
        figure.suptitle(
            fonts.visible(text), x=0.01, ha="left", fontsize=12, color=INK, family=fonts.families([text]), **LITERAL
        )


def label_ticks(ax: Axes, axis: str, tokens: Sequence[Any], *, max_length: int = 20) -> None:
    """Label the ticks of an axis of a matrix with tokens, every second, third, ... token if they would be too close.

    Labels along x are rotated by 90 degrees if the widest does not fit.

    Args:
        ax: The axes.
        axis: "x" or "y".
        tokens: One token for each row or column.
        max_length: Maximum number of letters; longer tokens are cut.
    """
    length = size_in_inches(ax)[0 if axis == "x" else 1]
    step = max(1, math.ceil(len(tokens) * _LABEL_SPACING / length))
    positions = range(0, len(tokens), step)
    labels = [fonts.visible(tokens[position], max_length) for position in positions]
    style: dict[str, Any] = {"fontsize": 8, "color": INK, "family": fonts.families(labels), **LITERAL}
    if axis == "y":
        ax.set_yticks(positions, labels, **style)
        return
    is_wide = max(fonts.display_width(text) for text in labels) * _LETTER_WIDTH > length / len(labels)
    ax.set_xticks(positions, labels, rotation=90 if is_wide else 0, **style)


def number_ticks(ax: Axes, axis: str) -> None:
    """Number the positions along an axis of a matrix, in whole numbers."""
    (ax.xaxis if axis == "x" else ax.yaxis).set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))


def save(path: str | os.PathLike[str], drawing: Any, *, dpi: int = 150) -> Path:
    """Write a figure to a PNG, SVG or PDF file atomically.

    The same drawing gives the same bytes: no date, fixed identifiers in SVG. Letters are shapes in SVG, so it looks the same
    if a font is missing.

    Args:
        path: The file; its suffix .png, .svg or .pdf determines the format.
        drawing: A figure, axes, or an array or list of axes of one figure.
        dpi: Dots per inch of a PNG.

    Returns:
        The path.

    Raises:
        ValueError: The suffix is not .png, .svg or .pdf.
        TypeError: `drawing` is not a figure or axes.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/empty.svg", make_axes(None, 2, 2)).stat().st_size > 0
        True
    """
    target = Path(path)
    format = target.suffix.lower().removeprefix(".")
    if format not in ("png", "svg", "pdf"):
        raise ValueError(f"`path` must end in .png, .svg or .pdf. Received: {str(path)!r}.")
    metadata: dict[str, Any] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[format]
    with (
        _files.atomic_write(target) as temporary,
        matplotlib.rc_context({"svg.hashsalt": "limelight", "svg.fonttype": "path"}),
    ):
        _get_figure(drawing).savefig(temporary, format=format, dpi=dpi, metadata=metadata)
    return target


def _get_figure(drawing: Any) -> Figure:
    while not isinstance(drawing, Figure):
        if isinstance(drawing, Axes):
            drawing = drawing.get_figure(root=True)
        elif isinstance(drawing, Iterable) and not isinstance(drawing, (str, bytes, dict)):
            drawing = next(iter(np.asarray(drawing, dtype=object).ravel()), None)
        else:
            raise TypeError(f"`drawing` must be a figure or axes. Received: {type(drawing).__name__}.")
    return drawing
