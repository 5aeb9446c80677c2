"""Numbers and names as a reader wants them."""

import math
from typing import Any

MISSING = "–"
MINUS = "−"

_NAMES = {
    "auc": "AUC",
    "auprc": "AUPRC",
    "bleu": "BLEU",
    "f1": "F1",
    "iou": "IOU",
    "mae": "MAE",
    "mape": "MAPE",
    "mase": "MASE",
    "mse": "MSE",
    "r2": "R²",
    "rmse": "RMSE",
    "roc": "ROC",
    "smape": "sMAPE",
}
_AVERAGES = frozenset({"macro", "micro", "weighted"})
_SHARES = frozenset({"accuracy", "precision", "recall", "f1"})
_LOWER_IS_BETTER = frozenset({"loss", "error", "brier", "mse", "rmse", "mae", "mape", "smape", "mase"})


def title_of(name: Any) -> str:
    """A name from code as words: `roc_auc` is "ROC AUC", `log_loss` "Log loss".

    Example:
        >>> title_of("f1_macro")
        'Macro F1'
    """
    formatting = [_NAMES.get(part.lower(), part) for part in str(name).replace("_", " ").split()]
    if formatting and formatting[-1] in _AVERAGES:
        formatting = [formatting[-1], *formatting[:-1]]
    text = " ".join(formatting)
    return text[:1].upper() + text[1:]


def within(name: str) -> str:
    """A title in the middle of a sentence: "accuracy", but "F1"."""
    return name if name[1:2].isupper() or name[1:2].isdigit() else name[:1].lower() + name[1:]


def is_share(metric: str) -> bool:
    """Whether a metric is a share of examples, which reads best in per cent."""
    return not _SHARES.isdisjoint(_parts(metric))


def lower_is_better(metric: str) -> bool:
    """Whether less of a metric is better, as with losses and errors."""
    return not _LOWER_IS_BETTER.isdisjoint(_parts(metric))


def _parts(metric: str) -> list[str]:
    return str(metric).lower().replace("-", "_").replace(" ", "_").split("_")


def finite(value: Any) -> float | None:
    """`value` as a float, or None where it is no finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def amount(value: Any, metric: str, *, unit: bool = True) -> str:
    """A value of a metric: "76.9 %" for shares, three decimals or four digits for the rest."""
    number = finite(value)
    if number is None:
        return MISSING
    if is_share(metric):
        return signed(f"{100 * number:.1f}") + ("\u202f%" if unit else "")
    return signed(f"{number:.3f}" if abs(number) < 100 else f"{number:.4g}")


def per_cent(share: float) -> str:
    """A share as a whole number of per cent, for a tick."""
    return f"{100 * share:.0f}\u202f%"


def change(value: Any, metric: str) -> str:
    """A difference with its sign: "+1.5" points for shares, three decimals for the rest."""
    number = finite(value)
    if number is None:
        return MISSING
    text = f"{100 * number:+.1f}" if is_share(metric) else f"{number:+.3f}"
    return signed(text)


def signed(text: str) -> str:
    """A number with a real minus, and without one before nothing but zeros."""
    if text[:1] in "+-" and not text.strip("+-0."):
        return text[1:]
    return text.replace("-", MINUS)


def p_value(value: Any) -> str:
    """A p value: "p = .02", "p < .001".

    Example:
        >>> p_value(0.0204), p_value(1e-5)
        ('p = .02', 'p < .001')
    """
    number = finite(value)
    if number is None:
        return MISSING
    if number < 0.001:
        return "p < .001"
    digits = 3 if number < 0.0095 else 2
    text = f"{number:.{digits}f}"
    return f"p = {text.removeprefix('0')}" if number < 1 else "p = 1"


def count(value: Any) -> str:
    """A whole number with thin spaces between its thousands: "10 605"."""
    number = finite(value)
    return MISSING if number is None else f"{round(number):,}".replace(",", "\u202f").replace("-", MINUS)


def duration(seconds: Any) -> str:
    """A time: "41 s", "3 min 20 s"."""
    number = finite(seconds)
    if number is None:
        return MISSING
    if number < 90:
        return f"{number:.0f}\u202fs" if number >= 10 else f"{number:.1f}\u202fs"
    minutes, rest = divmod(round(number), 60)
    return f"{minutes}\u202fmin {rest}\u202fs"
