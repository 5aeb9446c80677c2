"""What predictions must be before they are measured: errors that say what arrived and what to do."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_TOLERANCE = 1e-3  # float16 rows of a softmax sum to one within this


def class_names(classes: Sequence[Any]) -> tuple[str, ...]:
    """Return class names as strings; at least two, all different."""
    names = tuple(str(name) for name in classes)
    if len(names) < 2 or len(set(names)) != len(names):
        raise ValueError(f"`classes` must be two or more different names. Received: {list(names)}.")
    return names


def labels(values: Any, names: tuple[str, ...], what: str) -> np.ndarray:
    """Return class indices (n,) from indices or names."""
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"`{what}` must be one class for each example, shape (n,), n > 0. Received: {array.shape}.")
    if array.dtype.kind in "USOT":
        index = {name: k for k, name in enumerate(names)}
        unknown = sorted({str(value) for value in array.tolist()} - set(names))
        if unknown:
            raise ValueError(f"`{what}` must hold names out of `classes` {list(names)}. Received also: {unknown[:5]}.")
        return np.array([index[str(value)] for value in array.tolist()], dtype=np.int64)
    if array.dtype.kind not in "iub" and not (array.dtype.kind == "f" and np.all(array == np.round(array))):
        raise ValueError(f"`{what}` must hold class indices or names. Received: dtype {array.dtype}.")
    if array.min() < 0 or array.max() >= len(names):
        raise ValueError(
            f"`{what}` must hold indices from 0 to {len(names) - 1}, one for each of {len(names)} classes. "
            f"Received: {array.min()} to {array.max()}."
        )
    return array.astype(np.int64)


def smallest(values: Any) -> float:
    """Return the machine epsilon of the probabilities' dtype, at which a logarithm is clipped."""
    dtype = np.asarray(values).dtype
    return float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps)


def probabilities(values: Any, count: int, n: int, what: str) -> np.ndarray:
    """Return probabilities (n, K) in float64 whose rows sum to one, within the rounding of float16."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"`{what}` must be numbers. Received: dtype {array.dtype}.")
    array = array.astype(np.float64)
    if count == 2 and (array.ndim == 1 or array.shape[1:] == (1,)):
        second = array.reshape(-1)
        array = np.stack([1 - second, second], axis=1)
    if array.shape != (n, count):
        raise ValueError(
            f"`{what}` must have one row for each of {n} examples and one column for each of {count} classes. "
            f"Received: shape {np.asarray(values).shape}."
        )
    bad = np.flatnonzero(~np.isfinite(array).all(1))
    if bad.size:
        raise ValueError(
            f"`{what}` must be finite. Received: {bad.size} of {n} rows with NaN or infinity, the first is row {bad[0]}. "
            "A model whose training diverged predicts NaN: lower the learning rate or look at its inputs."
        )
    if array.min() < -_TOLERANCE or array.max() > 1 + _TOLERANCE:
        raise ValueError(
            f"`{what}` must lie between 0 and 1. Received: {array.min():.4g} to {array.max():.4g}. "
            "Apply softmax (or sigmoid) to logits first."
        )
    array = np.clip(array, 0.0, 1.0)
    sums = array.sum(1)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > _TOLERANCE:
        raise ValueError(
            f"Each row of `{what}` must sum to 1. Received: row {worst} sums to {sums[worst]:.4g}. "
            "Use softmax, not a sigmoid for each class, where exactly one class is true."
        )
    return array  # as it came: dividing by the sum would break ties between rows


def values(truth: Any, prediction: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return true and predicted numbers, finite, in float64, as (n, D) with one row for each example."""
    true, predicted = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if predicted.shape == (*true.shape, 1):
        predicted = predicted[..., 0]
    if true.shape != predicted.shape or true.size == 0 or true.ndim == 0:
        raise ValueError(
            f"`truth` and `prediction` must have one shape (n,) or (n, ...), n > 0. "
            f"Received: {true.shape} and {predicted.shape}."
        )
    for name, array in (("truth", true), ("prediction", predicted)):
        if not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise ValueError(f"`{name}` must be finite. Received: {count} NaN or infinite of {array.size} values.")
    return true.reshape(len(true), -1), predicted.reshape(len(true), -1)
