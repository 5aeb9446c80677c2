"""How good the predictions are: confusion matrix and reliability curve."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from limelight.plot import canvas

_MOST_NUMBERS = 25  # classes, beyond which counts in cells could not be read


def confusion(
    matrix: Any, classes: Sequence[Any] | None = None, *, title: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a confusion matrix: true class down, predicted class across, coloured by the share of each row.

    Args:
        matrix: Counts (K, K), row the true class; or a result with `confusion` and `classes`, as `evaluate.classification` gives.
        classes: The K class names.
        title: Title; shown as it is.
        ax: Axes to draw on.

    Raises:
        ValueError: The matrix is not square, or the number of names is another.

    Example:
        >>> ax = confusion([[8, 2], [1, 9]], ["bad", "good"])
        >>> [cell.get_text() for cell in ax.texts]
        ['8', '2', '1', '9']
    """
    if hasattr(matrix, "confusion"):
        matrix, classes = matrix.confusion, (classes if classes is not None else matrix.classes)
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise ValueError(f"`matrix` must be square, one row and column for each class. Received: shape {counts.shape}.")
    names = list(range(len(counts))) if classes is None else list(classes)
    if len(names) != len(counts):
        raise ValueError(f"`classes` must name each of {len(counts)} classes. Received: {len(names)} names.")
    support = counts.sum(1, keepdims=True)
    shares = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    side = min(10.0, max(2.4, 0.45 * len(counts)))
    ax = canvas.axes(ax, side + 2.2, side + 1.2)
    image = ax.imshow(shares, cmap=canvas.AMOUNTS, vmin=0, vmax=1, interpolation="none")
    if len(counts) <= _MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            dark = shares[row, column] < 0.6
            ax.text(
                column, row, f"{count:,}", ha="center", va="center", fontsize=9, color="white" if dark else canvas.INK,
                **canvas.LITERAL,
            )  # fmt: skip
    canvas.name_ticks(ax, "y", names)
    canvas.name_ticks(ax, "x", names)
    canvas.frameless(ax)
    canvas.label(ax, "predicted", "true")
    canvas.title(ax, title)
    canvas.bar(image, "share of the true class", ax)
    return ax


def reliability(curves: Any, *, title: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw how often predictions of a given confidence are right; on the diagonal they are as sure as they should be.

    Args:
        curves: A `Reliability`, a result that has one, or a mapping from a model's name to either.
        title: Title; shown as it is.
        ax: Axes to draw on.

    Example:
        >>> from limelight import evaluate
        >>> result = evaluate.classification([0, 1, 1, 0], [0.1, 0.9, 0.4, 0.2], ["bad", "good"])
        >>> ax = reliability({"attention": result})
        >>> ax.get_xlabel()
        'probability of the predicted class'
    """
    named = dict(curves) if isinstance(curves, Mapping) else {"": curves}
    ax = canvas.axes(ax, 4.6, 4.2)
    canvas.quiet(ax, grid="both")
    ax.plot([0, 1], [0, 1], color=canvas.FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    lowest, drawn = 1.0, {}
    for place, (name, curve) in enumerate(named.items()):
        curve = getattr(curve, "reliability", curve)
        colour = canvas.KINDS[place % len(canvas.KINDS)]
        (drawn[str(name)],) = ax.plot(
            curve.confidence, curve.accuracy, color=colour, marker="o", markersize=4.5, linewidth=1.6
        )
        lowest = min(lowest, float(np.min(curve.confidence)), float(np.min(curve.accuracy)))
    start = np.floor(10 * max(0.0, lowest - 0.02)) / 10
    ax.set(xlim=(start, 1.01), ylim=(start, 1.01), aspect="equal")
    canvas.label(ax, "probability of the predicted class", "share that is right")
    canvas.title(ax, title)
    if any(drawn):
        canvas.legend(ax, drawn)
    return ax
