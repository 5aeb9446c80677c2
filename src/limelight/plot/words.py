"""Attention as highlighted words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch

from limelight.plot import canvas, fonts

_SIZE = 11.0  # points
_LINE = 21.0
_GAP = 4.0
_LONGEST = 60  # letters


def paper() -> LinearSegmentedColormap:
    """Return viridis turned round and faded into white at its low end: no weight, no ink."""
    shares = np.linspace(0, 1, 256)
    colours = colormaps[canvas.AMOUNTS](0.92 - 0.8 * shares)[:, :3]
    ink = np.minimum(1.0, shares * 1.6)[:, None] ** 0.8
    return LinearSegmentedColormap.from_list("paper", 1 - ink * (1 - colours))


def text(
    tokens: Sequence[Any],
    weights: Any,
    *,
    title: str | None = None,
    label: str = "attention weight",
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw tokens as running text, each on a ground as dark as its weight is large.

    Text of a right-to-left script runs from the right, with what stands in a left-to-right script in its own order.

    Args:
        tokens: The T tokens, in reading order; shown as they are.
        weights: One weight for each token (T,).
        title: Title; shown as it is.
        label: What the colour bar measures.
        limits: Ends of the colour scale; 0 to the largest weight by default.
        ax: Axes to draw on; the lines are broken at its width. By default a figure as tall as the text.

    Returns:
        The axes. Each token is one of its `texts`.

    Raises:
        ValueError: The numbers of tokens and weights differ, there is no token, a weight is not finite.

    Example:
        >>> ax = text(["a", "dull", "film"], [0.1, 0.7, 0.2])
        >>> [word.get_text() for word in ax.texts]
        ['a', 'dull', 'film']
    """
    shares = np.asarray(weights, dtype=np.float64)
    if shares.shape != (len(tokens),) or not len(tokens):
        raise ValueError(
            f"There must be one weight for each token, and at least one. Received: {len(tokens)} tokens, "
            f"weights of shape {shares.shape}."
        )
    if not np.isfinite(shares).all():
        raise ValueError(f"`weights` must be finite. Received: {int((~np.isfinite(shares)).sum())} NaN or infinite.")
    words = [fonts.visible(token, _LONGEST) for token in tokens]
    family = fonts.families(words)
    low, high = limits or (0.0, float(shares.max()))
    norm = Normalize(low, high if high > low else low + 1.0)
    own = ax is None
    ax = canvas.axes(ax, 8.0, 1.0)
    if own:
        ax.figure.set_layout_engine("none")  # type: ignore[union-attr]
        ax.set_position((0.02, 0.0, 0.96, 1.0))
    width = canvas.inches(ax)[0] * 72
    lines = _lines([_width(ax, word, family) for word in words], width)
    height = len(lines) * _LINE
    if own:
        above, below = (26.0 if title else 6.0), 44.0
        total = height + above + below
        ax.figure.set_size_inches(8.0, total / 72)  # type: ignore[union-attr]
        ax.set_position((0.02, below / total, 0.96, height / total))
    ax.set(xlim=(0, width), ylim=(canvas.inches(ax)[1] * 72, 0))
    ax.set_axis_off()
    _draw(ax, words, lines, shares, norm, family, width)
    canvas.title(ax, title)
    if own:
        _scale(ax, norm, label, below / (height + above + below))
    return ax


def _width(ax: Axes, word: str, family: list[str]) -> float:
    """Return the width of a word in points."""
    renderer = ax.figure.canvas.get_renderer()  # type: ignore[union-attr]
    wide, _, _ = renderer.get_text_width_height_descent(word, FontProperties(family=family, size=_SIZE), False)
    return wide * 72 / ax.figure.dpi


def _lines(widths: list[float], room: float) -> list[list[tuple[int, float]]]:
    """Break words into lines; return for each line its words and their widths."""
    lines: list[list[tuple[int, float]]] = [[]]
    used = 0.0
    for place, width in enumerate(widths):
        if lines[-1] and used + width + 2 * _GAP > room:
            lines.append([])
            used = 0.0
        lines[-1].append((place, width))
        used += width + 2 * _GAP
    return lines


def _visual(line: list[tuple[int, float]], words: list[str], leftward: bool) -> list[tuple[int, float]]:
    """Return a line's words from left to right as they are seen: runs against the text's direction turn round."""
    runs: list[tuple[bool, list[tuple[int, float]]]] = []
    for item in line:
        direction = fonts.right_to_left(words[item[0]])
        direction = leftward if direction is None else direction
        if not runs or runs[-1][0] != direction:
            runs.append((direction, []))
        runs[-1][1].append(item)
    ordered = [run[::-1] if against else run for against, run in (runs[::-1] if leftward else runs)]
    return [item for run in ordered for item in run]


def _draw(
    ax: Axes, words: list[str], lines: Any, shares: np.ndarray, norm: Normalize, family: list[str], room: float
) -> None:
    colours = paper()
    leftward = bool(fonts.right_to_left(" ".join(words)))
    drawn: dict[int, tuple[float, float, float]] = {}
    for row, line in enumerate(lines):
        used = sum(width + 2 * _GAP for _, width in line)
        x = room - used if leftward else 0.0
        for place, width in _visual(line, words, leftward):
            drawn[place] = (x, row * _LINE, width)
            x += width + 2 * _GAP
    for place, (x, y, width) in sorted(drawn.items()):
        colour = colours(norm(shares[place]))
        box = FancyBboxPatch(
            (x + 0.8, y + 2.5), width + 2 * _GAP - 1.6, _LINE - 5, boxstyle="round,pad=0,rounding_size=2.5", linewidth=0,
            facecolor=colour,
        )  # fmt: skip
        ax.add_patch(box)
        bright = float(np.dot(colour[:3], (0.299, 0.587, 0.114)))
        ax.text(
            x + _GAP, y + _LINE / 2, words[place], fontsize=_SIZE, family=family, va="center_baseline", ha="left",
            color="white" if bright < 0.5 else canvas.INK, **canvas.LITERAL,
        )  # fmt: skip


def _scale(ax: Axes, norm: Normalize, label: str, share: float) -> None:
    """Draw a small colour bar below the text."""
    figure: Any = ax.figure
    height = figure.get_size_inches()[1] * 72
    inset = figure.add_axes((0.02, share - 16 / height, 0.25, 6 / height))
    bar = figure.colorbar(ScalarMappable(norm, paper()), cax=inset, orientation="horizontal")
    bar.outline.set_edgecolor(canvas.GRID)
    inset.tick_params(length=0, labelsize=8, labelcolor=canvas.INK)
    inset.locator_params(nbins=4)
    inset.text(
        1.04,
        0.5,
        label,
        transform=inset.transAxes,
        va="center_baseline",
        fontsize=9,
        color=canvas.INK,
        **canvas.LITERAL,
    )
