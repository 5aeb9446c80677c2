"""Validation of labels, probabilities and values before they are evaluated."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_TOLERANCE = 1e-3  # a softmax in float16 sums to one within this tolerance


def check_class_names(classes: Sequence[Any]) -> tuple[str, ...]:
    """Return class names as strings: at least two, all different."""
    names = tuple(str(name) for name in classes)
    if len(names) < 2 or len(set(names)) != len(names):
        raise ValueError(f"`classes` must be two or more different names. Received: {list(names)}.")
    return names


def check_labels(values: Any, names: tuple[str, ...], argument: str) -> np.ndarray:
    """Return class indices (n,) from indices or names."""
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"`{argument}` must be one class for each example, shape (n,), n > 0. Received: {array.shape}."
        )
    if array.dtype.kind in "USOT":
        index = {name: k for k, name in enumerate(names)}
        unknown = sorted({str(value) for value in array.tolist()} - set(names))
        if unknown:
            raise ValueError(
                f"`{argument}` must hold names out of `classes` {list(names)}. Received also: {unknown[:5]}."
            )
        return np.array([index[str(value)] for value in array.tolist()], dtype=np.int64)
    if array.dtype.kind not in "iub" and not (array.dtype.kind == "f" and np.all(array == np.round(array))):
        raise ValueError(f"`{argument}` must hold class indices or names. Received: dtype {array.dtype}.")
    if array.min() < 0 or array.max() >= len(names):
        raise ValueError(
            f"`{argument}` must hold indices from 0 to {len(names) - 1}, one for each of {len(names)} classes. "
            f"Received: {array.min()} to {array.max()}."
        )
    return array.astype(np.int64)


def machine_epsilon(values: Any) -> float:
    """Return the machine epsilon of the dtype of probabilities, where scikit-learn clips a log loss."""
    dtype = np.asarray(values).dtype
    return float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps)


def check_probabilities(values: Any, num_classes: int, n: int, argument: str) -> np.ndarray:
    """Return probabilities (n, K) in float64 whose rows sum to one, within the rounding of float16."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"`{argument}` must be numbers. Received: dtype {array.dtype}.")
    array = array.astype(np.float64)
    if num_classes == 2 and (array.ndim == 1 or array.shape[1:] == (1,)):
        positive = array.reshape(-1)
        array = np.stack([1 - positive, positive], axis=1)
    if array.shape != (n, num_classes):
        raise ValueError(
            f"`{argument}` must have one row for each of {n} examples and one column for each of {num_classes} classes. "
            f"Received: shape {np.asarray(values).shape}."
        )
    invalid = np.flatnonzero(~np.isfinite(array).all(1))
    if invalid.size:
        raise ValueError(
            f"`{argument}` must be finite. Received: {invalid.size} of {n} rows with NaN or infinity, the first is row "
            f"{invalid[0]}. "
            "A model whose training diverged predicts NaN: lower the learning rate or look at its inputs."
        )
    if array.min() < -_TOLERANCE or array.max() > 1 + _TOLERANCE:
        raise ValueError(
            f"`{argument}` must lie between 0 and 1. Received: {array.min():.4g} to {array.max():.4g}. "
            "Apply softmax (or sigmoid) to logits first."
        )
    array = np.clip(array, 0.0, 1.0)
    sums = array.sum(1)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > _TOLERANCE:
        raise ValueError(
            f"Each row of `{argument}` must sum to 1. Received: row {worst} sums to {sums[worst]:.4g}. "
            "Use a softmax, not a sigmoid for each class, if each example has exactly one class."
        )
    return array  # not divided by the sum, which would break ties between rows


def check_values(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return true and predicted values as finite float64 arrays (n, D), one row for each example."""
    targets, predictions = np.asarray(y_true, dtype=np.float64), np.asarray(y_pred, dtype=np.float64)
    if predictions.shape == (*targets.shape, 1):
        predictions = predictions[..., 0]
    if targets.shape != predictions.shape or targets.size == 0 or targets.ndim == 0:
        raise ValueError(
            f"`y_true` and `y_pred` must have the same shape (n,) or (n, ...), n > 0. "
            f"Received: {targets.shape} and {predictions.shape}."
        )
    for name, array in (("y_true", targets), ("y_pred", predictions)):
        if not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise ValueError(f"`{name}` must be finite. Received: {count} NaN or infinite of {array.size} values.")
    return targets.reshape(len(targets), -1), predictions.reshape(len(targets), -1)


def check_naive_error(naive_error: Any, n: int) -> np.ndarray:
    """Return the errors of a naive forecast, positive, (1,) or (n,)."""
    array = np.asarray(naive_error, dtype=np.float64).reshape(-1)
    if array.size not in (1, n) or not np.all((array > 0) & np.isfinite(array)):
        raise ValueError(
            f"`naive_error` must be one positive number, or one for each of {n} examples. Received: {naive_error!r}. "
            "Use the mean absolute error of a naive forecast on the training part."
        )
    return array


def check_quantile(quantile: float) -> None:
    """Check that a quantile lies between 0 and 1."""
    if not 0 < quantile < 1:
        raise ValueError(f"`quantile` must lie between 0 and 1. Received: {quantile}. Use 0.9 for the 90 % quantile.")


def check_units(groups: Any, block_length: int | None, n: int) -> np.ndarray | None:
    """Return the independent unit of each example (n,); None if the examples are independent."""
    if groups is not None and block_length is not None:
        raise ValueError("Give `groups` or `block_length`, not both. Received both.")
    if groups is not None:
        units = np.asarray(groups)
        if units.shape != (n,):
            raise ValueError(f"`groups` must have one name for each of {n} examples. Received: shape {units.shape}.")
        return units
    if block_length is None:
        return None
    if isinstance(block_length, bool) or not isinstance(block_length, int | np.integer) or not 1 <= block_length <= n:
        raise ValueError(f"`block_length` must be a number of examples from 1 to {n}. Received: {block_length!r}.")
    # The last block would be short: its examples join the block before it.
    return np.minimum(np.arange(n) // block_length, max(n // block_length - 1, 0))
