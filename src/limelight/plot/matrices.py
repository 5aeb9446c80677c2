"""Attention as matrices: one map, a grid of heads, an alignment of two sentences."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm

from limelight.plot import canvas
from limelight.plot.weights import Weights

_MAX_CELLS = 1024  # per side: more cells would not be visible, and the image might not fit in memory


def heatmap(
    attention: Any,
    tokens: Sequence[Any] | None = None,
    key_tokens: Sequence[Any] | None = None,
    *,
    heads: int | Sequence[int] | None = None,
    example: int = 0,
    scale: str = "linear",
    limits: tuple[float, float] | None = None,
    title: str | None = None,
    label: str = "attention weight",
    ax: Axes | None = None,
) -> Axes:
    """Draw attention weights: queries down, keys across, brighter colors for larger weights.

    Args:
        attention: An `AttentionMap`, or weights (T, S), (N, T, S) or (B, N, T, S). The mean of several heads is drawn.
        tokens: The T query tokens; by default those of the map. Padding is left out.
        key_tokens: The S key tokens; by default those of the map, or `tokens` if T = S.
        heads: Which head or heads; all by default.
        example: Which example of a batch.
        scale: "linear", or "root" for colors by the square root, which shows the small weights of long inputs.
        limits: Weights at the ends of the color scale; 0 to the largest weight by default.
        title: Title; shown literally.
        label: Label of the color bar.
        ax: Axes to draw on.

    Returns:
        The axes.

    Raises:
        ValueError: The numbers of tokens and weights differ, a weight is NaN, or the shape is none of the above.

    Beyond 1,024 tokens a cell shows the largest weight of a block; the label of the color bar says so.

    Example:
        >>> ax = heatmap([[0.9, 0.1], [0.2, 0.8]], ["the", "cat"], title="head 0")
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['the', 'cat']
    """
    weights = Weights.from_attention(attention, tokens, key_tokens, heads, example)
    matrix, block = weights.mean(_MAX_CELLS)
    height, width = (min(8.5, max(1.6, 0.22 * size)) for size in weights.shape[1:])
    ax = canvas.make_axes(ax, width + 2.0, height + 1.3)
    image = _draw_image(ax, matrix, block, weights, _make_norm(matrix, limits, scale))
    _label_tokens(ax, weights, "y")
    _label_tokens(ax, weights, "x")
    canvas.label_axes(ax, "key", "query")
    canvas.set_title(ax, title)
    canvas.draw_colorbar(image, _block_label(label, block), ax)
    return ax


def heads(
    attention: Any,
    tokens: Sequence[Any] | None = None,
    key_tokens: Sequence[Any] | None = None,
    *,
    heads: Sequence[int] | None = None,
    example: int = 0,
    columns: int | None = None,
    scale: str = "linear",
    title: str | None = None,
    label: str = "attention weight",
) -> np.ndarray:
    """Draw each head in a grid, all on one color scale.

    Args:
        attention: An `AttentionMap`, or weights (N, T, S) or (B, N, T, S).
        tokens: The T query tokens; by default those of the map.
        key_tokens: The S key tokens; by default those of the map, or `tokens` if T = S.
        heads: Which heads; all by default.
        example: Which example of a batch.
        columns: Number of columns of the grid; by default the grid is nearly square, at most 4 columns.
        scale: "linear" or "root", as in `heatmap`.
        title: Title of the figure; shown literally.
        label: Label of the color bar.

    Returns:
        The axes, an array (rows, columns); axes without a head are hidden.

    Raises:
        ValueError: As in `heatmap`.

    Example:
        >>> heads([[[1.0, 0.0], [0.5, 0.5]], [[0.3, 0.7], [0.0, 1.0]]], ["a", "b"]).shape
        (1, 2)
    """
    weights = Weights.from_attention(attention, tokens, key_tokens, heads, example)
    count, rows, keys = weights.shape
    num_columns = columns or min(4, math.ceil(math.sqrt(count)))
    num_rows = math.ceil(count / num_columns)
    side = 2.2 if max(rows, keys) <= 12 else 3.0
    figure = canvas.make_figure(num_columns * side + 1.4, num_rows * side * min(2.0, max(0.5, rows / keys)) + 1.2)
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    reduced = [weights.head(index, _MAX_CELLS // num_columns) for index in range(count)]
    norm = _make_norm(np.array([matrix.max() for matrix, _ in reduced]), None, scale)
    for index, ax in enumerate(grid.ravel()):
        if index >= count:
            ax.set_axis_off()
            continue
        _draw_image(ax, *reduced[index], weights, norm)
        canvas.set_title(ax, f"head {weights.heads[index]}")
        _label_tokens(ax, weights, "y", shown=index % num_columns == 0)
        _label_tokens(ax, weights, "x", shown=index + num_columns >= count)
    canvas.draw_colorbar(ScalarMappable(norm, canvas.COLORMAP), _block_label(label, reduced[0][1]), list(grid.ravel()))
    canvas.set_figure_title(figure, title)
    return grid


def alignment(
    attention: Any,
    source: Sequence[Any],
    target: Sequence[Any],
    *,
    heads: int | Sequence[int] | None = None,
    example: int = 0,
    title: str | None = None,
    label: str = "attention weight",
    ax: Axes | None = None,
) -> Axes:
    """Draw the alignment of two sequences: source tokens across the top, target tokens down.

    Args:
        attention: An `AttentionMap`, or weights (T, S), or more as in `heatmap`.
        source: The S source tokens (the keys).
        target: The T target tokens (the queries).
        heads: Which head or heads; the mean of several is drawn.
        example: Which example of a batch.
        title: Title; shown literally.
        label: Label of the color bar.
        ax: Axes to draw on.

    Raises:
        ValueError: As in `heatmap`.

    Example:
        >>> ax = alignment([[0.9, 0.1], [0.2, 0.8]], source=["le", "chat"], target=["the", "cat"])
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['le', 'chat']

    After figure 3 of Bahdanau et al., "Neural machine translation by jointly learning to align and translate"
    (arXiv:1409.0473).
    """
    ax = heatmap(attention, target, source, heads=heads, example=example, title=title, label=label, ax=ax)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.tick_params(length=0)
    canvas.label_axes(ax, "source", "target")
    return ax


def _make_norm(matrix: np.ndarray, limits: tuple[float, float] | None, scale: str) -> Normalize:
    low, high = limits or (min(0.0, float(matrix.min())), float(matrix.max()))
    high = high if high > low else low + 1.0
    if scale == "linear":
        return Normalize(low, high)
    if scale == "root":
        return PowerNorm(0.5, low, high)
    raise ValueError(f'`scale` must be "linear" or "root". Received: {scale!r}.')


def _draw_image(ax: Axes, matrix: np.ndarray, block: tuple[int, int], weights: Weights, norm: Normalize) -> Any:
    """Draw a matrix whose axes count tokens, also if a cell is a block of several."""
    bottom, right = (cells * size - 0.5 for cells, size in zip(matrix.shape, block, strict=True))
    image = ax.imshow(
        matrix,
        cmap=canvas.COLORMAP,
        norm=norm,
        aspect="auto",
        interpolation="none",
        extent=(-0.5, right, bottom, -0.5),
    )
    ax.set(xlim=(-0.5, weights.shape[2] - 0.5), ylim=(weights.shape[1] - 0.5, -0.5))
    canvas.hide_frame(ax)
    return image


def _label_tokens(ax: Axes, weights: Weights, axis: str, *, shown: bool = True) -> None:
    tokens = weights.tokens if axis == "y" else weights.key_tokens
    if not shown:
        (ax.set_yticks if axis == "y" else ax.set_xticks)([])
    elif tokens is not None:
        canvas.label_ticks(ax, axis, tokens)
    else:
        canvas.number_ticks(ax, axis)


def _block_label(label: str, block: tuple[int, int]) -> str:
    return label if block == (1, 1) else f"{label}, largest of {block[0]} × {block[1]}"
