"""Results of models: confusion matrix, reliability curve, learning curves and differences with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from limelight._formatting import METRICS, Metric, format_count, format_difference, format_p_value
from limelight.evaluate import Comparison
from limelight.plot import canvas

_MAX_CLASSES_WITH_COUNTS = 25  # with more classes the counts in the cells are too small to read


def confusion(
    matrix: Any, classes: Sequence[Any] | None = None, *, title: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a confusion matrix: true class down, predicted class across, colored by the fraction of each row.

    Args:
        matrix: Counts (K, K), row the true class; or a result of `evaluate.classification`.
        classes: The K class names.
        title: Title; shown literally.
        ax: Axes to draw on.

    Raises:
        ValueError: The matrix is not square, or the number of names differs.

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
    fractions = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    side = min(10.0, max(2.4, 0.45 * len(counts)))
    ax = canvas.make_axes(ax, side + 2.2, side + 1.2)
    image = ax.imshow(fractions, cmap=canvas.COLORMAP, vmin=0, vmax=1, interpolation="none")
    if len(counts) <= _MAX_CLASSES_WITH_COUNTS:
        for (row, column), count in np.ndenumerate(counts):
            is_dark = fractions[row, column] < 0.6
            ax.text(
                column, row, format_count(count), ha="center", va="center", fontsize=9,
                color="white" if is_dark else canvas.INK, **canvas.LITERAL,
            )  # fmt: skip
    canvas.label_ticks(ax, "y", names)
    canvas.label_ticks(ax, "x", names)
    canvas.hide_frame(ax)
    canvas.label_axes(ax, "predicted", "true")
    canvas.set_title(ax, title)
    canvas.draw_colorbar(image, "fraction of the true class", ax)
    return ax


def reliability(curves: Any, *, title: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw accuracy against confidence; the predictions of a calibrated model lie on the diagonal.

    Args:
        curves: A `Reliability`, a result of `evaluate.classification`, or a mapping from names of models to either.
        title: Title; shown literally.
        ax: Axes to draw on.

    Example:
        >>> from limelight import evaluate
        >>> result = evaluate.classification([0, 1, 1, 0], [0.1, 0.9, 0.4, 0.2], ["bad", "good"])
        >>> ax = reliability({"attention": result})
        >>> ax.get_xlabel()
        'probability of the predicted class'
    """
    by_name = dict(curves) if isinstance(curves, Mapping) else {"": curves}
    ax = canvas.make_axes(ax, 4.6, 4.2)
    canvas.style_axes(ax, grid="both")
    ax.plot([0, 1], [0, 1], color=canvas.GRAY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    smallest, lines = 1.0, {}
    for index, (name, curve) in enumerate(by_name.items()):
        curve = getattr(curve, "reliability", curve)
        color = canvas.COLORS[index % len(canvas.COLORS)]
        (lines[str(name)],) = ax.plot(
            curve.confidence, curve.accuracy, color=color, marker="o", markersize=4.5, linewidth=1.6
        )
        smallest = min(smallest, float(np.min(curve.confidence)), float(np.min(curve.accuracy)))
    start = np.floor(10 * max(0.0, smallest - 0.02)) / 10
    ax.set(xlim=(start, 1.01), ylim=(start, 1.01), aspect="equal")
    canvas.label_axes(ax, "probability of the predicted class", "fraction correct")
    canvas.set_title(ax, title)
    if any(lines):
        canvas.draw_legend(ax, lines)
    return ax


def curves(
    runs: Mapping[Any, Sequence[Sequence[float]]],
    *,
    metric: str = "loss",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw learning curves: a thin line for each seed, and a thick one for the mean of the seeds that have that epoch.

    Args:
        runs: For each model name its runs, one for each seed, each with a value for each epoch; the lengths may differ.
        metric: Label of the vertical axis.
        title: Title; shown literally.
        ax: Axes to draw on.

    Raises:
        ValueError: There is no model, a model has no run, or a run has no epoch.

    Example:
        >>> ax = curves({"attention": [[0.7, 0.5, 0.4], [0.8, 0.5]], "pooling": [[0.7, 0.6, 0.6]]})
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('epoch', 'loss')
    """
    if not runs or any(not len(seeds) or any(not len(run) for run in seeds) for seeds in runs.values()):
        raise ValueError(
            "`runs` must have at least one run of at least one epoch for each model. "
            f"Received: { ({name: [len(run) for run in seeds] for name, seeds in runs.items()}) } epochs."
        )
    ax = canvas.make_axes(ax, 5.6, 3.4)
    canvas.style_axes(ax, grid="y")
    lines: dict[str, Any] = {}
    for index, (name, seeds) in enumerate(runs.items()):
        color = canvas.COLORS[index % len(canvas.COLORS)]
        num_epochs = max(len(run) for run in seeds)
        values = np.full((len(seeds), num_epochs), np.nan)
        for row, run in enumerate(seeds):
            values[row, : len(run)] = run
            if len(seeds) > 1:
                ax.plot(np.arange(1, len(run) + 1), run, color=color, linewidth=0.9, alpha=0.35)
        finite = np.isfinite(values)
        count = finite.sum(0)
        mean = np.divide(np.where(finite, values, 0).sum(0), count, out=np.full(num_epochs, np.nan), where=count > 0)
        marker = "o" if num_epochs == 1 else None
        (lines[str(name)],) = ax.plot(np.arange(1, num_epochs + 1), mean, color=color, linewidth=2.2, marker=marker)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    canvas.label_axes(ax, "epoch", metric)
    canvas.set_title(ax, title)
    canvas.draw_legend(ax, lines)
    return ax


def difference(comparisons: Any, *, title: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw differences between models with their intervals, and a vertical line at zero.

    A difference that could be shown has a filled dot, others an open one. The numbers are written next to it.

    Args:
        comparisons: A `Comparison` or several of one metric, from `evaluate.paired` or `evaluate.paired_over_seeds`.
        title: Title; shown literally.
        ax: Axes to draw on.

    Raises:
        ValueError: There is no comparison, or there are several metrics.

    Example:
        >>> from limelight import evaluate
        >>> comparison = evaluate.paired([0, 1, 1, 0], [0, 1, 1, 1], [0, 1, 0, 1], names=("attention", "pooling"))
        >>> [label.get_text() for label in difference(comparison).get_yticklabels()]
        ['attention − pooling']
    """
    items = list(comparisons) if isinstance(comparisons, (list, tuple)) else [comparisons]
    metrics = {item.metric for item in items}
    if len(metrics) != 1:
        raise ValueError(f"`comparisons` must have one metric. Received: {sorted(metrics)}.")
    metric = METRICS[metrics.pop()]
    scale = 100.0 if metric.percent else 1.0
    ax = canvas.make_axes(ax, 7.6, 1.1 + 0.42 * len(items))
    canvas.style_axes(ax, grid="x")
    ax.axvline(0, color=canvas.INK, linewidth=1)
    for row, item in enumerate(items):
        estimate = item.difference
        if estimate.low is not None and estimate.high is not None:
            ax.plot([scale * estimate.low, scale * estimate.high], [row, row], color=canvas.COLORS[0], linewidth=2.4)
        face = canvas.COLORS[0] if item.shown else "white"
        ax.plot(
            [scale * estimate.value], [row], "o", color=canvas.COLORS[0], markerfacecolor=face, markersize=8, mew=1.8
        )
        ax.text(
            1.02, row, _describe(item, metric), transform=ax.get_yaxis_transform(), va="center", fontsize=8.5,
            color=canvas.INK, **canvas.LITERAL,
        )  # fmt: skip
    names = [f"{item.names[0]} − {item.names[1]}" for item in items]
    canvas.label_ticks(ax, "y", names, max_length=60)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(len(items) - 0.4, -0.6)
    unit = " in points" if metric.percent else ""
    direction = "" if metric.higher_is_better else ", lower is better"
    canvas.label_axes(
        ax, f"difference in {metric.label}{unit}{direction}, {100 * items[0].difference.confidence:g} % interval"
    )
    canvas.set_title(ax, title)
    return ax


def _describe(comparison: Comparison, metric: Metric) -> str:
    estimate = comparison.difference
    text = format_difference(estimate.value, metric)
    if estimate.low is not None and estimate.high is not None:
        text += f" ({format_difference(estimate.low, metric)} to {format_difference(estimate.high, metric)})"
    return f"{text}, {format_p_value(comparison.p_value)}"
