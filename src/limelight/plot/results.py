"""How training went and how models differ: learning curves and intervals of differences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from limelight._formatting import format_difference, format_p_value
from limelight.evaluate import METRICS, Comparison, Metric
from limelight.plot import canvas


def curves(
    runs: Mapping[Any, Sequence[Sequence[float]]],
    *,
    metric: str = "loss",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw learning curves: a thin line for each seed, and a thick one for the mean of the seeds that still run.

    Args:
        runs: Model name to its runs, one for each seed, each a value for each epoch (their lengths may differ).
        metric: What is measured.
        title: Title; shown as it is.
        ax: Axes to draw on.

    Raises:
        ValueError: No model, or a model without a run, or a run without an epoch.

    Example:
        >>> ax = curves({"attention": [[0.7, 0.5, 0.4], [0.8, 0.5]], "pooling": [[0.7, 0.6, 0.6]]})
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('epoch', 'loss')
    """
    if not runs or any(not len(seeds) or any(not len(run) for run in seeds) for seeds in runs.values()):
        raise ValueError(
            "`runs` must hold at least one run of at least one epoch for each model. Received none for some."
        )
    ax = canvas.axes(ax, 5.6, 3.4)
    canvas.quiet(ax, grid="y")
    drawn: dict[str, Any] = {}
    for place, (name, seeds) in enumerate(runs.items()):
        colour = canvas.KINDS[place % len(canvas.KINDS)]
        longest = max(len(run) for run in seeds)
        table = np.full((len(seeds), longest), np.nan)
        for row, run in enumerate(seeds):
            table[row, : len(run)] = run
            if len(seeds) > 1:
                ax.plot(np.arange(1, len(run) + 1), run, color=colour, linewidth=0.9, alpha=0.35)
        known = np.isfinite(table)
        count = known.sum(0)
        mean = np.divide(np.where(known, table, 0).sum(0), count, out=np.full(longest, np.nan), where=count > 0)
        marker = "o" if longest == 1 else None
        (drawn[str(name)],) = ax.plot(np.arange(1, longest + 1), mean, color=colour, linewidth=2.2, marker=marker)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    canvas.label(ax, "epoch", metric)
    canvas.title(ax, title)
    canvas.legend(ax, drawn)
    return ax


def difference(comparisons: Any, *, title: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw differences between models with their intervals, and a line where there is none.

    A difference that could be shown has a filled dot, another an open one. The numbers stand beside it.

    Args:
        comparisons: A `Comparison` or several of one metric, as `evaluate.paired` and `evaluate.paired_over_seeds` give.
        title: Title; shown as it is.
        ax: Axes to draw on.

    Raises:
        ValueError: No comparison, or of several metrics.

    Example:
        >>> from limelight import evaluate
        >>> found = evaluate.paired([0, 1, 1, 0], [0, 1, 1, 1], [0, 1, 0, 1], names=("attention", "pooling"))
        >>> [label.get_text() for label in difference(found).get_yticklabels()]
        ['attention − pooling']
    """
    items = list(comparisons) if isinstance(comparisons, (list, tuple)) else [comparisons]
    metrics = {item.metric for item in items}
    if len(metrics) != 1:
        raise ValueError(f"`comparisons` must be of one metric. Received: {sorted(metrics)}.")
    metric = METRICS[metrics.pop()]
    scale = 100.0 if metric.percent else 1.0
    ax = canvas.axes(ax, 7.6, 1.1 + 0.42 * len(items))
    canvas.quiet(ax, grid="x")
    ax.axvline(0, color=canvas.INK, linewidth=1)
    for row, item in enumerate(items):
        found = item.difference
        if found.low is not None and found.high is not None:
            ax.plot([scale * found.low, scale * found.high], [row, row], color=canvas.KINDS[0], linewidth=2.4)
        face = canvas.KINDS[0] if item.shown else "white"
        ax.plot([scale * found.value], [row], "o", color=canvas.KINDS[0], markerfacecolor=face, markersize=8, mew=1.8)
        ax.text(
            1.02, row, _numbers(item, metric), transform=ax.get_yaxis_transform(), va="center", fontsize=8.5,
            color=canvas.INK, **canvas.LITERAL,
        )  # fmt: skip
    names = [f"{item.names[0]} − {item.names[1]}" for item in items]
    canvas.name_ticks(ax, "y", names, longest=60)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(len(items) - 0.4, -0.6)
    unit = " in points" if metric.percent else ""
    worse = "" if metric.higher_is_better else ", less is better"
    canvas.label(ax, f"difference in {metric.label}{unit}{worse}, {100 * items[0].difference.confidence:g} % interval")
    canvas.title(ax, title)
    return ax


def _numbers(item: Comparison, metric: Metric) -> str:
    found = item.difference
    text = format_difference(found.value, metric)
    if found.low is not None and found.high is not None:
        text += f" ({format_difference(found.low, metric)} to {format_difference(found.high, metric)})"
    return f"{text}, {format_p_value(item.p_value)}"
