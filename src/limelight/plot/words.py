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

_FONT_SIZE = 11.0  # points, as the next two
_LINE_HEIGHT = 21.0
_PADDING = 4.0
_MAX_LENGTH = 60  # letters


def background_colormap() -> LinearSegmentedColormap:
    """Return the reversed viridis, faded to white at its low end."""
    levels = np.linspace(0, 1, 256)
    colors = colormaps[canvas.COLORMAP](0.92 - 0.8 * levels)[:, :3]
    opacity = np.minimum(1.0, levels * 1.6)[:, None] ** 0.8
    return LinearSegmentedColormap.from_list("background", 1 - opacity * (1 - colors))


def text(
    tokens: Sequence[Any],
    weights: Any,
    *,
    title: str | None = None,
    label: str = "attention weight",
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw tokens as running text, each on a background whose darkness grows with its weight.

    Right-to-left text starts on the right; runs of left-to-right words within it keep their own order.

    Args:
        tokens: The T tokens, in reading order; shown literally.
        weights: One weight for each token (T,).
        title: Title; shown literally.
        label: Label of the color bar.
        limits: Ends of the color scale; 0 to the largest weight by default.
        ax: Axes to draw on; lines are wrapped at their width. By default a new figure of the height of the text.

    Returns:
        The axes; `ax.texts` are the tokens.

    Raises:
        ValueError: The numbers of tokens and weights differ, there is no token, or a weight is not finite.

    Example:
        >>> ax = text(["a", "dull", "film"], [0.1, 0.7, 0.2])
        >>> [word.get_text() for word in ax.texts]
        ['a', 'dull', 'film']
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (len(tokens),) or not len(tokens):
        raise ValueError(
            f"There must be one weight for each token, and at least one. Received: {len(tokens)} tokens, "
            f"weights of shape {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"`weights` must be finite. Received: {int((~np.isfinite(values)).sum())} NaN or infinite.")
    words = [fonts.visible(token, _MAX_LENGTH) for token in tokens]
    family = fonts.families(words)
    low, high = limits or (0.0, float(values.max()))
    norm = Normalize(low, high if high > low else low + 1.0)
    is_new = ax is None
    ax = canvas.make_axes(ax, 8.0, 1.0)
    if is_new:
        ax.figure.set_layout_engine("none")  # type: ignore[union-attr]
        ax.set_position((0.02, 0.0, 0.96, 1.0))
    width = canvas.size_in_inches(ax)[0] * 72
    lines = _wrap([_width(ax, word, family) for word in words], width)
    height = len(lines) * _LINE_HEIGHT
    if is_new:
        above, below = (26.0 if title else 6.0), 44.0
        total = height + above + below
        ax.figure.set_size_inches(8.0, total / 72)  # type: ignore[union-attr]
        ax.set_position((0.02, below / total, 0.96, height / total))
    ax.set(xlim=(0, width), ylim=(canvas.size_in_inches(ax)[1] * 72, 0))
    ax.set_axis_off()
    _draw_words(ax, words, lines, values, norm, family, width)
    canvas.set_title(ax, title)
    if is_new:
        _draw_colorbar(ax, norm, label, below / (height + above + below))
    return ax


def _width(ax: Axes, word: str, family: list[str]) -> float:
    """Return the width of a word in points."""
    renderer = ax.figure.canvas.get_renderer()  # type: ignore[union-attr]
    width, _, _ = renderer.get_text_width_height_descent(word, FontProperties(family=family, size=_FONT_SIZE), False)
    return width * 72 / ax.figure.dpi


def _wrap(widths: list[float], line_width: float) -> list[list[tuple[int, float]]]:
    """Wrap words into lines; return for each line the indices and widths of its words."""
    lines: list[list[tuple[int, float]]] = [[]]
    used = 0.0
    for index, width in enumerate(widths):
        if lines[-1] and used + width + 2 * _PADDING > line_width:
            lines.append([])
            used = 0.0
        lines[-1].append((index, width))
        used += width + 2 * _PADDING
    return lines


def _visual_order(line: list[tuple[int, float]], words: list[str], right_to_left: bool) -> list[tuple[int, float]]:
    """Return the words of a line from left to right: runs of the other direction are reversed."""
    runs: list[tuple[bool, list[tuple[int, float]]]] = []
    for item in line:
        direction = fonts.is_right_to_left(words[item[0]])
        direction = right_to_left if direction is None else direction
        if not runs or runs[-1][0] != direction:
            runs.append((direction, []))
        runs[-1][1].append(item)
    ordered = [run[::-1] if is_reversed else run for is_reversed, run in (runs[::-1] if right_to_left else runs)]
    return [item for run in ordered for item in run]


def _draw_words(
    ax: Axes, words: list[str], lines: Any, values: np.ndarray, norm: Normalize, family: list[str], line_width: float
) -> None:
    colormap = background_colormap()
    right_to_left = bool(fonts.is_right_to_left(" ".join(words)))
    positions: dict[int, tuple[float, float, float]] = {}
    for row, line in enumerate(lines):
        used = sum(width + 2 * _PADDING for _, width in line)
        x = line_width - used if right_to_left else 0.0
        for index, width in _visual_order(line, words, right_to_left):
            positions[index] = (x, row * _LINE_HEIGHT, width)
            x += width + 2 * _PADDING
    for index, (x, y, width) in sorted(positions.items()):
        color = colormap(norm(values[index]))
        box = FancyBboxPatch(
            (x + 0.8, y + 2.5), width + 2 * _PADDING - 1.6, _LINE_HEIGHT - 5, linewidth=0, facecolor=color,
            boxstyle="round,pad=0,rounding_size=2.5",
        )  # fmt: skip
        ax.add_patch(box)
        brightness = float(np.dot(color[:3], (0.299, 0.587, 0.114)))
        ax.text(
            x + _PADDING, y + _LINE_HEIGHT / 2, words[index], fontsize=_FONT_SIZE, family=family, va="center_baseline", ha="left",
            color="white" if brightness < 0.5 else canvas.INK, **canvas.LITERAL,
        )  # fmt: skip


def _draw_colorbar(ax: Axes, norm: Normalize, label: str, top: float) -> None:
    """Draw a small color bar below the text, under the height `top` of the figure."""
    figure: Any = ax.figure
    height = figure.get_size_inches()[1] * 72
    inset = figure.add_axes((0.02, top - 16 / height, 0.25, 6 / height))
    bar = figure.colorbar(ScalarMappable(norm, background_colormap()), cax=inset, orientation="horizontal")
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
