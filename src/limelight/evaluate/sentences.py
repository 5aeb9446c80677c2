"""A comparison in words that claim no more than it shows."""

import math

from limelight.evaluate.compare import Comparison
from limelight.evaluate.metrics import METRICS, Metric


def sentence(comparison: Comparison) -> str:
    """Say in one sentence what a comparison shows, with its interval and p value.

    A difference is claimed only where the interval leaves out 0 and p is below 1 - confidence; otherwise the sentence
    says that none could be shown, with the same numbers.

    Args:
        comparison: What `paired` or `paired_over_seeds` returned.

    Example:
        >>> from limelight.evaluate import Estimate
        >>> difference = Estimate(0.015, 0.003, 0.027, "", 1061)
        >>> ours, theirs = Estimate(0.774, None, None, "", 3), Estimate(0.759, None, None, "", 3)
        >>> found = Comparison(
        ...     "accuracy", ("attention", "mean pooling"), ours, theirs, difference, 0.021, "", n=1061, seeds=3
        ... )
        >>> print(sentence(found))
        Attention raised accuracy from 75.9 to 77.4 % against mean pooling (difference +1.5 points, 95 % CI +0.3 to +2.7, p = .02, 3 seeds, 1,061 test examples).
    """  # noqa: E501
    metric = METRICS[comparison.metric]
    if math.isnan(comparison.difference.value):
        return f"{metric.label} of {' and '.join(comparison.names)} could not be compared: it is undefined on these examples."
    first, second = comparison.names
    ours, theirs = number(comparison.first.value, metric), number(comparison.second.value, metric)
    unit = " %" if metric.percent else ""
    facts = evidence(comparison)
    if not comparison.shown:
        return (
            f"No difference in {metric.label} could be shown between {first} ({ours}{unit}) and "
            f"{second} ({theirs}{unit}): {facts}."
        )
    verb = "raised" if comparison.difference.value > 0 else "lowered"
    better = (comparison.difference.value > 0) == metric.higher_is_better
    judged = "" if metric.higher_is_better else (", which is better" if better else ", which is worse")
    start = first[:1].upper() + first[1:]
    return f"{start} {verb} {metric.label} from {theirs} to {ours}{unit} against {second}{judged} ({facts})."


def evidence(comparison: Comparison) -> str:
    """Return the difference, its interval, the p value and what they rest on: "difference +1.5 points, ..., 3 seeds"."""
    metric, difference = METRICS[comparison.metric], comparison.difference
    unit = " points" if metric.percent else ""
    parts = [f"difference {number(difference.value, metric, signed=True)}{unit}"]
    if difference.low is not None and difference.high is not None:
        ends = f"{number(difference.low, metric, signed=True)} to {number(difference.high, metric, signed=True)}"
        parts.append(f"{100 * difference.confidence:g} % CI {ends}")
    else:
        parts.append(f"no interval ({difference.method})")
    parts.append(probability(comparison.p_value))
    parts.append(
        f"{comparison.seeds} seeds" if comparison.seeds > 1 else "1 seed, so without the variation between seeds"
    )
    parts.append(f"{comparison.n:,} test examples")
    return ", ".join(parts)


def number(value: float, metric: Metric, *, signed: bool = False) -> str:
    """Return a value as readers of this metric expect it: percentages with one decimal, others with three digits."""
    text = f"{100 * value:{'+' if signed else ''}.1f}" if metric.percent else f"{value:{'+' if signed else ''}.3g}"
    if not metric.percent and 1e-3 <= abs(value) < 10:
        text = f"{value:{'+' if signed else ''}.3f}"
    return text.replace("-", "−")


def probability(p_value: float) -> str:
    """Return a p value as it is written in prose.

    Example:
        >>> probability(0.0213), probability(0.0004), probability(1.0)
        ('p = .02', 'p < .001', 'p = 1')
    """
    if math.isnan(p_value):
        return "no p value"
    if p_value < 0.001:
        return "p < .001"
    digits = 3 if p_value < 0.01 or 0.045 <= p_value < 0.055 else 2
    text = f"{p_value:.{digits}f}"
    return "p = 1" if float(text) >= 1 else f"p = {text[1:]}"
