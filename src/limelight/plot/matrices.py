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

_MOST_CELLS = 1024  # along a side: more could not be seen, and their image would not fit in memory


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
    """Draw attention weights: queries down, keys across, brighter for more.

    Args:
        attention: An `AttentionMap`, or weights (T, S), (N, T, S) or (B, N, T, S). Several heads are averaged.
        tokens: The T query tokens; by default those of the map. Padding of a map is left out.
        key_tokens: The S key tokens; by default those of the map, or `tokens` where T = S.
        heads: Which head or heads; all by default.
        example: Which example of a batch.
        scale: "linear", or "root" for colours by the square root, which shows the many small weights of long inputs.
        limits: Weights at the ends of the colour scale; 0 to the largest weight by default.
        title: Title; shown as it is.
        label: What the colour bar measures.
        ax: Axes to draw on.

    Returns:
        The axes.

    Raises:
        ValueError: The numbers of tokens and of weights differ, a weight is NaN, or the shape is none of the above.

    Beyond 1,024 tokens a cell stands for a block of weights and shows the largest of them, which the colour bar says.

    Example:
        >>> ax = heatmap([[0.9, 0.1], [0.2, 0.8]], ["the", "cat"], title="head 0")
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['the', 'cat']
    """
    weights = Weights.of(attention, tokens, key_tokens, heads, example)
    matrix, block = weights.mean(_MOST_CELLS)
    height, width = (min(8.5, max(1.6, 0.22 * size)) for size in weights.shape[1:])
    ax = canvas.axes(ax, width + 2.0, height + 1.3)
    image = _image(ax, matrix, block, weights, _norm(matrix, limits, scale))
    _name(ax, weights, "y")
    _name(ax, weights, "x")
    canvas.label(ax, "key", "query")
    canvas.title(ax, title)
    canvas.bar(image, _labelled(label, block), ax)
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
    """Draw each head of an attention in a grid, all on one colour scale.

    Args:
        attention: An `AttentionMap`, or weights (N, T, S) or (B, N, T, S).
        tokens: The T query tokens; by default those of the map.
        key_tokens: The S key tokens; by default those of the map, or `tokens` where T = S.
        heads: Which heads; all by default.
        example: Which example of a batch.
        columns: Number of columns of the grid; by default as square as can be, at most 4.
        scale: "linear" or "root", as in `heatmap`.
        title: Title of the figure; shown as it is.
        label: What the colour bar measures.

    Returns:
        The axes, an array (rows, columns); the last ones are switched off where they show no head.

    Raises:
        ValueError: As in `heatmap`.

    Example:
        >>> heads([[[1.0, 0.0], [0.5, 0.5]], [[0.3, 0.7], [0.0, 1.0]]], ["a", "b"]).shape
        (1, 2)
    """
    weights = Weights.of(attention, tokens, key_tokens, heads, example)
    count, rows, keys = weights.shape
    across = columns or min(4, math.ceil(math.sqrt(count)))
    down = math.ceil(count / across)
    side = 2.2 if max(rows, keys) <= 12 else 3.0
    figure = canvas.figure(across * side + 1.4, down * side * min(2.0, max(0.5, rows / keys)) + 1.2)
    grid = figure.subplots(down, across, squeeze=False)
    drawn = [weights.head(place, _MOST_CELLS // across) for place in range(count)]
    norm = _norm(np.array([matrix.max() for matrix, _ in drawn]), None, scale)
    for place, ax in enumerate(grid.ravel()):
        if place >= count:
            ax.set_axis_off()
            continue
        _image(ax, *drawn[place], weights, norm)
        canvas.title(ax, f"head {weights.heads[place]}")
        _name(ax, weights, "y", shown=place % across == 0)
        _name(ax, weights, "x", shown=place + across >= count)
    canvas.bar(ScalarMappable(norm, canvas.AMOUNTS), _labelled(label, drawn[0][1]), list(grid.ravel()))
    canvas.heading(figure, title)
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
    """Draw which source tokens each target token looked at: source across the top, target down.

    Args:
        attention: An `AttentionMap`, or weights (T, S), or more as in `heatmap`.
        source: The S source tokens (the keys).
        target: The T target tokens (the queries).
        heads: Which head or heads; their mean is drawn.
        example: Which example of a batch.
        title: Title; shown as it is.
        label: What the colour bar measures.
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
    canvas.label(ax, "source", "target")
    return ax


def _norm(matrix: np.ndarray, limits: tuple[float, float] | None, scale: str) -> Normalize:
    low, high = limits or (min(0.0, float(matrix.min())), float(matrix.max()))
    high = high if high > low else low + 1.0
    if scale == "linear":
        return Normalize(low, high)
    if scale == "root":
        return PowerNorm(0.5, low, high)
    raise ValueError(f'`scale` must be "linear" or "root". Received: {scale!r}.')


def _image(ax: Axes, matrix: np.ndarray, block: tuple[int, int], weights: Weights, norm: Normalize) -> Any:
    """Draw a matrix whose axes count tokens, whatever number of them a cell stands for."""
    bottom, right = (cells * size - 0.5 for cells, size in zip(matrix.shape, block, strict=True))
    image = ax.imshow(
        matrix,
        cmap=canvas.AMOUNTS,
        norm=norm,
        aspect="auto",
        interpolation="none",
        extent=(-0.5, right, bottom, -0.5),
    )
    ax.set(xlim=(-0.5, weights.shape[2] - 0.5), ylim=(weights.shape[1] - 0.5, -0.5))
    canvas.frameless(ax)
    return image


def _name(ax: Axes, weights: Weights, axis: str, *, shown: bool = True) -> None:
    tokens = weights.tokens if axis == "y" else weights.key_tokens
    if not shown:
        (ax.set_yticks if axis == "y" else ax.set_xticks)([])
    elif tokens is not None:
        canvas.name_ticks(ax, axis, tokens)
    else:
        canvas.count_ticks(ax, axis)


def _labelled(label: str, block: tuple[int, int]) -> str:
    return label if block == (1, 1) else f"{label}, largest of {block[0]} × {block[1]}"
