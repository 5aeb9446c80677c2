"""Write numbers and metric names: one way for sentences, tables, plots and pages.

It imports neither scipy nor matplotlib, so that a report can be written without them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MISSING = "–"
MINUS = "−"
NARROW_SPACE = "\u202f"  # no-break: a number stays with its unit


@dataclass(frozen=True)
class Metric:
    """The name of a metric, its better direction, and its unit: percent or none."""

    label: str
    higher_is_better: bool = True
    percent: bool = False


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("accuracy", percent=True),
    "precision_macro": Metric("macro precision", percent=True),
    "recall_macro": Metric("macro recall", percent=True),
    "f1_macro": Metric("macro F1", percent=True),
    "precision_weighted": Metric("weighted precision", percent=True),
    "recall_weighted": Metric("weighted recall", percent=True),
    "f1_weighted": Metric("weighted F1", percent=True),
    "roc_auc": Metric("ROC AUC"),
    "average_precision": Metric("average precision"),
    "log_loss": Metric("log loss", higher_is_better=False),
    "brier": Metric("Brier score", higher_is_better=False),
    "calibration_error": Metric("calibration error", higher_is_better=False),
    "mse": Metric("mean squared error", higher_is_better=False),
    "rmse": Metric("root mean squared error", higher_is_better=False),
    "mae": Metric("mean absolute error", higher_is_better=False),
    "mape": Metric("mean absolute percentage error", higher_is_better=False, percent=True),
    "smape": Metric("symmetric mean absolute percentage error", higher_is_better=False, percent=True),
    "mase": Metric("mean absolute scaled error", higher_is_better=False),
    "pinball": Metric("pinball loss", higher_is_better=False),
    "r2": Metric("R²"),
    "exact_match": Metric("exact match", percent=True),
    "error_rate": Metric("error rate", higher_is_better=False, percent=True),
    "bleu": Metric("BLEU", percent=True),
    "chrf": Metric("chrF", percent=True),
}

_ACRONYMS = {
    name.lower(): name for name in ("AUC", "AUPRC", "BLEU", "F1", "IOU", "MAE", "MAPE", "MASE", "MSE", "RMSE", "ROC")
}
_ACRONYMS |= {"r2": "R²", "smape": "sMAPE"}
_AVERAGES = frozenset({"macro", "micro", "weighted"})
_PERCENT = frozenset({"accuracy", "precision", "recall", "f1"})
_LOWER_IS_BETTER = frozenset({"loss", "error", "brier", "mse", "rmse", "mae", "mape", "smape", "mase"})


def get_metric(name: Any) -> Metric:
    """Return the metric of this name; one that is not in `METRICS` is described by the words of its name.

    Example:
        >>> get_metric("token_accuracy")
        Metric(label='token accuracy', higher_is_better=True, percent=True)
    """
    name = str(name)
    if name in METRICS:
        return METRICS[name]
    words = set(name.lower().replace("-", "_").replace(" ", "_").split("_"))
    return Metric(_words(name), _LOWER_IS_BETTER.isdisjoint(words), not _PERCENT.isdisjoint(words))


def _words(name: str) -> str:
    words = [_ACRONYMS.get(word.lower(), word) for word in name.replace("_", " ").split()]
    if words and words[-1] in _AVERAGES:
        words = [words[-1], *words[:-1]]
    return " ".join(words)


def format_title(name: Any) -> str:
    """Return a name from code as a heading.

    Example:
        >>> format_title("f1_macro"), format_title("roc_auc"), format_title("log_loss"), format_title("chrf")
        ('Macro F1', 'ROC AUC', 'Log loss', 'chrF')
    """
    label = get_metric(name).label
    # Names with capitals of their own keep them.
    return label if label.split(" ")[0] != label.split(" ")[0].lower() else label[:1].upper() + label[1:]


def to_finite(value: Any) -> float | None:
    """Return `value` as a float, or None if it is not a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def format_value(value: Any, metric: Metric | str, *, unit: bool = True) -> str:
    """Return a value of a metric: in percent with one decimal, or with three decimals.

    Example:
        >>> format_value(0.7691, "accuracy", unit=False), format_value(0.7691, "log_loss")
        ('76.9', '0.769')
    """
    metric = metric if isinstance(metric, Metric) else get_metric(metric)
    number = to_finite(value)
    if number is None:
        return MISSING
    if metric.percent:
        return _sign(f"{100 * number:.1f}") + (f"{NARROW_SPACE}%" if unit else "")
    return _sign(f"{number:{_precision(number)}}")


def format_decimals(value: Any, decimals: int = 3) -> str:
    """Return a number with a fixed number of decimals, for a column whose values are compared.

    Example:
        >>> format_decimals(-0.25), format_decimals(-3e-6), format_decimals(None)
        ('−0.250', '0.000', '–')
    """
    number = to_finite(value)
    return MISSING if number is None else _sign(f"{number:.{decimals}f}")


def format_difference(value: Any, metric: Metric | str) -> str:
    """Return a difference of two values with its sign, without a unit: percentages differ in points.

    Example:
        >>> format_difference(0.0151, "accuracy"), format_difference(-0.25, "r2"), format_difference(-0.0001, "accuracy")
        ('+1.5', '−0.250', '0.0')
    """
    metric = metric if isinstance(metric, Metric) else get_metric(metric)
    number = to_finite(value)
    if number is None:
        return MISSING
    return _sign(f"{100 * number:+.1f}" if metric.percent else f"{number:+{_precision(number)}}")


def format_differences(values: Sequence[Any], metric: Metric | str, digits: int = 3) -> list[str]:
    """Return differences of one sentence, such as one and its interval, all with the same decimals.

    Args:
        values: The differences.
        metric: Their metric; percentages differ in points with one decimal.
        digits: The number of decimals, and of digits of the largest value if it has none in these decimals.

    Example:
        >>> format_differences([0.0000441, -0.000339, 0.000644], "mae", digits=2)
        ['+0.00004', '−0.00034', '+0.00064']
        >>> format_differences([0.0000441, -0.2], "mae"), format_differences([1234.5, -20.0], "mae")
        (['0.000', '−0.200'], ['+1,234', '−20'])
    """
    metric = metric if isinstance(metric, Metric) else get_metric(metric)
    numbers = [to_finite(value) for value in values]
    if metric.percent:
        return [format_difference(number, metric) for number in numbers]
    largest = max((abs(number) for number in numbers if number is not None), default=0.0)
    if largest >= 100:
        form = ",.0f" if largest >= 1000 else ",.1f"
    elif largest >= 10.0**-digits or not largest:
        form = f".{digits}f"
    else:
        decimals = digits - 1 - math.floor(math.log10(largest))
        form = f".{decimals}f" if decimals < 8 else f".{digits - 1}e"
    return [MISSING if number is None else _sign(f"{number:+{form}}") for number in numbers]


def format_probability_change(value: float) -> str:
    """Return a change of a probability with its sign and two decimals.

    Example:
        >>> format_probability_change(-0.306), format_probability_change(0.0)
        ('−0.31', '0.00')
    """
    return _sign(f"{value:+.2f}")


def _precision(number: float) -> str:
    if 0 < abs(number) < 1e-3:
        return ".3g"
    return ".3f" if abs(number) < 100 else ".4g"


def _sign(text: str) -> str:
    """Write a real minus sign, and no sign before a number that is rounded to zero."""
    if text[:1] in "+-" and not text.strip("+-0."):
        return text[1:]
    return text.replace("-", MINUS)


def format_p_value(value: Any) -> str:
    """Return a p value; near .05, where a digit decides, with three decimals.

    Example:
        >>> format_p_value(0.0213), format_p_value(0.049), format_p_value(0.0004), format_p_value(1.0)
        ('p = .02', 'p = .049', 'p < .001', 'p = 1')
    """
    number = to_finite(value)
    if number is None:
        return MISSING
    if number < 0.001:
        return "p < .001"
    text = f"{number:.{3 if number < 0.01 or 0.045 <= number < 0.055 else 2}f}"
    return "p = 1" if float(text) >= 1 else f"p = {text[1:]}"


def format_percent(fraction: float) -> str:
    """Return a fraction as a whole number of percent."""
    return f"{format_decimals(100 * fraction, 0)}{NARROW_SPACE}%"


def format_ticks(ticks: Sequence[float], *, percent: bool = False) -> list[str]:
    """Return the round values of an axis, all with the decimals that the finest of them needs.

    Example:
        >>> format_ticks([0.95, 0.975, 1.0]), format_ticks([0.97, 0.975], percent=True)[0][:4], format_ticks([1e-9, 2e-9])
        (['0.950', '0.975', '1.000'], '97.0', ['1e−09', '2e−09'])
    """
    values = [100 * tick if percent else tick for tick in ticks]
    size = max(map(abs, values), default=0.0)
    decimals = next(
        (count for count in range(7) if all(abs(round(each, count) - each) <= 1e-9 * size for each in values)), None
    )
    unit = f"{NARROW_SPACE}%" if percent else ""
    return [_sign(f"{each:.3g}" if decimals is None else f"{each:,.{decimals}f}") + unit for each in values]


def format_count(value: Any) -> str:
    """Return a whole number with commas between the thousands."""
    number = to_finite(value)
    return MISSING if number is None else _sign(f"{round(number):,}")


def format_duration(seconds: Any) -> str:
    """Return a time in seconds, or in minutes and seconds from 90 seconds on."""
    number = to_finite(seconds)
    if number is None:
        return MISSING
    if number < 90:
        return f"{number:.{0 if number >= 10 else 1}f}{NARROW_SPACE}s"
    minutes, rest = divmod(round(number), 60)
    return f"{minutes}{NARROW_SPACE}min {rest}{NARROW_SPACE}s"
