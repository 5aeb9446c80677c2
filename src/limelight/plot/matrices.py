"""Attention as matrices: one map, a grid of heads, an alignment of two sentences."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from limelight.plot import canvas

_MOST_CELLS = 1024  # along a side; more could not be seen, and their image would not fit in memory


def heatmap(
    attention: Any,
    tokens: Sequence[Any] | None = None,
    key_tokens: Sequence[Any] | None = None,
    *,
    heads: int | Sequence[int] | None = None,
    example: int = 0,
    title: str | None = None,
    label: str = "attention weight",
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw attention weights: queries down, keys across, brighter for more.

    Args:
        attention: Weights (T, S), (N, T, S) or (B, N, T, S), or an object whose `weights(heads=...)` gives them, such as
            an `AttentionMap`. Several heads are averaged.
        tokens: The T query tokens; by default those of `attention`, or positions.
        key_tokens: The S key tokens; by default `tokens` where T = S.
        heads: Which head or heads; all by default.
        example: Which example of a batch.
        title: Title; shown as it is.
        label: What the colour bar measures.
        limits: Ends of the colour scale; 0 to the largest weight by default.
        ax: Axes to draw on.

    Returns:
        The axes.

    Raises:
        ValueError: The numbers of tokens and of weights differ, a weight is NaN, or the shape is none of the above.

    Beyond 1,024 tokens a cell stands for a block of weights and shows its largest, which the colour bar says.

    Example:
        >>> ax = heatmap([[0.9, 0.1], [0.2, 0.8]], ["the", "cat"], title="head 0")
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['the', 'cat']
    """
    stack = weights_of(attention, heads, example)
    rows, columns = _tokens(attention, tokens, key_tokens, stack.shape[1:], example)
    matrix = stack.mean(0)
    height, width = (min(9.0, max(1.6, 0.22 * size)) for size in matrix.shape)
    ax = canvas.axes(ax, width + 1.9, height + 1.3)
    image, block = _image(ax, matrix, limits)
    if rows is not None:
        canvas.name_ticks(ax, "y", rows, per_cell=block[0])
    if columns is not None:
        canvas.name_ticks(ax, "x", columns, per_cell=block[1])
    canvas.label(ax, "key", "query")
    canvas.title(ax, title)
    _bar(ax, image, label if block == (1, 1) else f"{label}, largest of {block[0]} × {block[1]}")
    return ax


def heads(
    attention: Any,
    tokens: Sequence[Any] | None = None,
    key_tokens: Sequence[Any] | None = None,
    *,
    heads: Sequence[int] | None = None,
    example: int = 0,
    columns: int | None = None,
    title: str | None = None,
    label: str = "attention weight",
) -> np.ndarray:
    """Draw every head of an attention in a grid, on one colour scale.

    Args:
        attention: Weights (N, T, S) or (B, N, T, S), or an object whose `weights(heads=...)` gives them.
        tokens: The T query tokens.
        key_tokens: The S key tokens.
        heads: Which heads; all by default.
        example: Which example of a batch.
        columns: Number of columns of the grid; by default as square as can be, at most 4.
        title: Title of the figure; shown as it is.
        label: What the colour bar measures.

    Returns:
        The axes, an array (rows, columns) of which the last ones are switched off where they show no head.

    Example:
        >>> heads([[[1.0, 0.0], [0.5, 0.5]], [[0.3, 0.7], [0.0, 1.0]]], ["a", "b"]).shape
        (1, 2)
    """
    stack = weights_of(attention, heads, example)
    row_tokens, column_tokens = _tokens(attention, tokens, key_tokens, stack.shape[1:], example)
    names = list(heads) if heads is not None else list(range(len(stack)))
    across = columns or min(4, max(1, math.ceil(math.sqrt(len(stack)))))
    down = math.ceil(len(stack) / across)
    side = 2.2 if max(stack.shape[1:]) <= 12 else 3.0
    ratio = min(2.0, max(0.5, stack.shape[1] / stack.shape[2]))
    figure = canvas.figure(across * side + 1.2, down * side * ratio + 0.6 + 0.7)
    grid = figure.subplots(down, across, squeeze=False)
    limits = (0.0, float(stack.max()) or 1.0)
    for place, ax in enumerate(grid.ravel()):
        if place >= len(stack):
            ax.set_axis_off()
            continue
        _, block = _image(ax, stack[place], limits)
        canvas.title(ax, f"head {names[place]}")
        if row_tokens is not None and place % across == 0:
            canvas.name_ticks(ax, "y", row_tokens, per_cell=block[0])
        elif row_tokens is not None:
            ax.set_yticks([])
        if column_tokens is not None and place + across >= len(stack):
            canvas.name_ticks(ax, "x", column_tokens, per_cell=block[1])
        elif column_tokens is not None:
            ax.set_xticks([])
    scale = ScalarMappable(Normalize(*limits), canvas.AMOUNTS)
    _style_bar(figure.colorbar(scale, ax=list(grid.ravel()), shrink=0.7, aspect=30, pad=0.02), label)
    if title:
        from limelight.plot import fonts

        figure.suptitle(
            fonts.visible(title), x=0.01, ha="left", fontsize=12, color=canvas.INK, family=fonts.families([title]),
            **canvas.LITERAL,
        )  # fmt: skip
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
    """Draw which source tokens each produced target token looked at: source across the top, target down.

    Args:
        attention: Weights (T, S), or more as in `heatmap`; T target tokens, S source tokens.
        source: The S source tokens.
        target: The T target tokens.
        heads: Which head or heads; their mean is drawn.
        example: Which example of a batch.
        title: Title; shown as it is.
        label: What the colour bar measures.
        ax: Axes to draw on.

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
    ax.tick_params(axis="x", length=0)
    canvas.label(ax, "source", "target")
    return ax


def weights_of(attention: Any, heads: int | Sequence[int] | None, example: int) -> np.ndarray:
    """Return weights (N, T, S) of one example, of the chosen heads."""
    chosen = [heads] if isinstance(heads, (int, np.integer)) else heads
    if hasattr(attention, "weights") and callable(attention.weights):
        array, chosen = np.asarray(attention.weights(heads=None if chosen is None else list(chosen))), None
    else:
        array = np.asarray(attention)
    if array.dtype.kind not in "fiub" or not 2 <= array.ndim <= 4 or 0 in array.shape:
        raise ValueError(
            "`attention` must be weights of shape (T, S), (N, T, S) or (B, N, T, S), or an object with a method `weights`. "
            f"Received: {type(attention).__name__} of shape {array.shape}, dtype {array.dtype}."
        )
    if array.ndim == 4:
        if not -len(array) <= example < len(array):
            raise ValueError(f"`example` must be one of {len(array)} examples. Received: {example}.")
        array = array[example]
    array = array.astype(np.float64) if array.ndim == 3 else array[None].astype(np.float64)
    if chosen is not None:
        wrong = [head for head in chosen if not -len(array) <= head < len(array)]
        if wrong or not len(chosen):
            raise ValueError(f"`heads` must be out of 0 to {len(array) - 1}. Received: {list(chosen)}.")
        array = array[list(chosen)]
    if not np.isfinite(array).all():
        raise ValueError(f"The weights must be finite. Received: {int((~np.isfinite(array)).sum())} NaN or infinite.")
    return array


def _tokens(
    attention: Any, tokens: Any, key_tokens: Any, shape: tuple[int, ...], example: int
) -> tuple[list[Any] | None, list[Any] | None]:
    """Return the tokens of both axes, checked; None where they are not known."""
    if tokens is None and not isinstance(attention, np.ndarray):
        tokens = getattr(attention, "tokens", None)
    if tokens is not None and key_tokens is None and shape[0] == shape[1]:
        key_tokens = tokens
    for what, given, size in (("query", tokens, shape[0]), ("key", key_tokens, shape[1])):
        if given is not None and len(given) != size:
            raise ValueError(
                f"There must be one {what} token for each of {size} {'rows' if what == 'query' else 'columns'} of weights. "
                f"Received: {len(given)} tokens. Cut padding off both, or add the special tokens."
            )
    return (None if tokens is None else list(tokens)), (None if key_tokens is None else list(key_tokens))


def _image(ax: Axes, matrix: np.ndarray, limits: tuple[float, float] | None) -> tuple[Any, tuple[int, int]]:
    """Draw a matrix; return the image and the size of the block that each cell stands for."""
    block = (math.ceil(matrix.shape[0] / _MOST_CELLS), math.ceil(matrix.shape[1] / _MOST_CELLS))
    for axis, size in enumerate(block):
        if size > 1:
            matrix = np.maximum.reduceat(matrix, np.arange(0, matrix.shape[axis], size), axis=axis)
    low, high = limits or (min(0.0, float(matrix.min())), float(matrix.max()) or 1.0)
    image = ax.imshow(matrix, cmap=canvas.AMOUNTS, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    ax.tick_params(length=0, labelsize=8, labelcolor=canvas.INK)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return image, block


def _bar(ax: Axes, image: Any, label: str) -> None:
    _style_bar(ax.figure.colorbar(image, ax=ax, fraction=0.05, pad=0.03, aspect=25), label)


def _style_bar(bar: Any, label: str) -> None:
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=canvas.INK)
    bar.set_label(label, fontsize=9, color=canvas.INK, **canvas.LITERAL)
