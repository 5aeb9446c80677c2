"""Describe a comparison in one sentence that claims no more than the comparison shows."""

import math

from limelight._formatting import METRICS, format_count, format_difference, format_p_value, format_value
from limelight.evaluate.comparison import Comparison


def sentence(comparison: Comparison, examples: str = "test examples") -> str:
    """Describe in one sentence what a comparison shows, with its interval and p value.

    A difference is claimed only if the interval excludes 0 and p is below 1 - confidence; otherwise the sentence says that
    no difference could be shown, with the same numbers. If the p value is corrected for several tests the sentence says so.

    Args:
        comparison: A result of `paired` or `paired_over_seeds`.
        examples: What the examples are, such as "test series".

    Example:
        >>> from limelight.evaluate import Estimate
        >>> difference = Estimate(0.015, 0.003, 0.027, "", 1061)
        >>> first, second = Estimate(0.774, None, None, "", 3), Estimate(0.759, None, None, "", 3)
        >>> comparison = Comparison(
        ...     "accuracy", ("attention", "mean pooling"), first, second, difference, 0.021, "", n=1061, seeds=3
        ... )
        >>> print(sentence(comparison))
        Attention raised accuracy from 75.9 to 77.4 % against mean pooling (difference +1.5 points, 95 % CI +0.3 to +2.7, p = .02, 3 seeds, 1,061 test examples).
    """  # noqa: E501
    metric = METRICS[comparison.metric]
    first, second = comparison.names
    if math.isnan(comparison.difference.value):
        return f"{metric.label} of {first} and {second} could not be compared: it is undefined on these examples."
    values = comparison.first.value, comparison.second.value
    first_value, second_value = (format_value(value, metric, unit=False) for value in values)
    unit = " %" if metric.percent else ""
    evidence = _evidence(comparison, examples)
    if not comparison.shown:
        return (
            f"No difference in {metric.label} could be shown between {first} ({first_value}{unit}) and "
            f"{second} ({second_value}{unit}): {evidence}."
            + (" Two seeds can hardly show any difference: train at least 3." if comparison.seeds == 2 else "")
        )
    raised = comparison.difference.value > 0
    verdict = "" if metric.higher_is_better else (", which is worse" if raised else ", which is better")
    return (
        f"{first[:1].upper()}{first[1:]} {'raised' if raised else 'lowered'} {metric.label} from {second_value} to "
        f"{first_value}{unit} against {second}{verdict} ({evidence})."
    )


def _evidence(comparison: Comparison, examples: str) -> str:
    """Return the difference, its interval, the p value and the sizes: "difference +1.5 points, ..., 3 seeds"."""
    metric, difference = METRICS[comparison.metric], comparison.difference
    unit = " points" if metric.percent else ""
    interval = f"no interval ({difference.method})"
    if difference.low is not None and difference.high is not None:
        low, high = format_difference(difference.low, metric), format_difference(difference.high, metric)
        interval = f"{100 * difference.confidence:g} % CI {low} to {high}"
    p_value = "no p value" if math.isnan(comparison.p_value) else format_p_value(comparison.p_value)
    if comparison.num_tests > 1:
        p_value += f" after Holm's correction for {comparison.num_tests} tests (the interval is not corrected)"
    one_seed = "1 seed, so without the variation between seeds"
    return ", ".join(
        [
            f"difference {format_difference(difference.value, metric)}{unit}",
            interval,
            p_value,
            f"{comparison.seeds} seeds" if comparison.seeds > 1 else one_seed,
            f"{format_count(comparison.n)} {examples}",
        ]
    )
