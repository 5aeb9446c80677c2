"""Targets of estimators: classes as indices, numbers in units of their spread."""

import contextlib
from typing import Any, Self

import numpy as np

from limelight.exceptions import DataError


class Classes:
    """Class labels as indices.

    Args:
        values: The labels (K,), in the order of the probabilities: those that `fit` finds are sorted.
    """

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    @classmethod
    def fit(cls, y: Any) -> Self:
        """Return the classes of the training targets."""
        from sklearn.utils.multiclass import check_classification_targets
        from sklearn.utils.validation import column_or_1d

        y = column_or_1d(to_array(y), warn=True)
        missing = next((row for row, label in enumerate(y.tolist()) if label is None or label != label), None)
        if missing is not None:
            raise DataError(
                f"Every label must be given. Received: Label {missing} of {len(y):,} is missing (NaN or None). Drop the example."
            )
        try:
            classes = cls(np.unique(y))
        except TypeError as error:
            kinds = ", ".join(sorted({type(label).__name__ for label in y.tolist()}))
            raise DataError(
                f"Labels must be of one type. Received: {kinds}. Convert them, such as to strings."
            ) from error
        check_classification_targets(y)
        if len(classes.values) < 2:
            raise ValueError(
                f"A classifier needs at least two classes. Received: one class, {classes.values.tolist()[0]!r}."
            )
        return classes

    def encode(self, y: Any) -> np.ndarray:
        """Return the index of each label.

        Raises:
            ValueError: A label did not occur in the training.
        """
        from sklearn.utils.validation import column_or_1d

        y = column_or_1d(to_array(y))
        order = np.argsort(self.values, kind="stable")
        indices = order[np.searchsorted(self.values, y, sorter=order).clip(0, len(order) - 1)]
        unknown = np.flatnonzero(self.values[indices] != y)
        if len(unknown):
            known = ", ".join(map(repr, self.values[:10].tolist()))
            raise ValueError(
                f"A label must be one of the training's: {known}. Received: {y[unknown[:1]].tolist()[0]!r}."
            )
        return indices

    def to_dict(self) -> dict[str, Any]:
        """Return the labels and their type."""
        return {"values": self.values.tolist(), "dtype": self.values.dtype.str}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Return the classes that `to_dict` described."""
        return cls(_restore(document))


class Numbers:
    """Numbers, standardized for training.

    Args:
        mean, scale: Mean and standard deviation of each output over the training targets (K,).
        is_column: Targets are (n,) instead of (n, K).
    """

    def __init__(self, mean: Any, scale: Any, is_column: bool) -> None:
        self.mean, self.scale, self.is_column = np.asarray(mean, float), np.asarray(scale, float), is_column

    @classmethod
    def fit(cls, y: Any) -> Self:
        """Return the mean and the spread of the training targets."""
        values = _check_numbers(y)
        columns = values.reshape(len(values), -1)
        scale = columns.std(0)
        return cls(columns.mean(0), np.where(scale > 0, scale, 1.0), values.ndim == 1)

    def encode(self, y: Any) -> np.ndarray:
        """Return the standardized targets (n, K)."""
        values = _check_numbers(y)
        values = values.reshape(len(values), -1)
        if values.shape[1] != len(self.mean):
            raise ValueError(f"`y` must have {len(self.mean)} outputs. Received: {values.shape[1]}.")
        return ((values - self.mean) / self.scale).astype(np.float32)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return predictions in the unit of the targets."""
        values = outputs * self.scale + self.mean
        return values[:, 0] if self.is_column else values

    def to_dict(self) -> dict[str, Any]:
        """Return the means, the spreads, and the number of axes."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist(), "is_column": self.is_column}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Return the numbers that `to_dict` described."""
        return cls(document["mean"], document["scale"], bool(document["is_column"]))


def to_array(y: Any) -> np.ndarray:
    """Return targets in any form as an array; those of a data frame of one column as (n,)."""
    if y is None:
        raise ValueError("This estimator requires y to be passed, but the target y is None.")
    if hasattr(y, "columns") and len(y.columns) == 1:
        y = y[y.columns[0]]
    return y.to_numpy() if hasattr(y, "to_numpy") else np.asarray(y)


def _check_numbers(y: Any) -> np.ndarray:
    from sklearn.utils import check_array

    y = to_array(y)
    try:
        return check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
    except ValueError as error:
        rows: Any = []
        with contextlib.suppress(TypeError, ValueError):
            rows = np.flatnonzero(~np.isfinite(np.asarray(y, np.float64)).reshape(len(y), -1).all(1))
        if not len(rows):
            row = next((row for row, target in enumerate(y) if not _are_numbers(target)), None)
            if row is None:
                raise
            raise DataError(
                f"Every target must be a number. Received: {str(y[row])[:60]!r} at position {row}. Convert it, or classify."
            ) from error
        message = f"{str(error).splitlines()[0]} Target {rows[0]} of {len(y):,} is the first of {len(rows):,}."
        raise DataError(f"{message} Drop these examples, or fill the targets.") from error


def _are_numbers(target: Any) -> bool:
    """Return True for a number, or several of one example."""
    try:
        np.asarray(target, np.float64)
    except (TypeError, ValueError):
        return False
    return True


def _restore(document: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(document["dtype"])
    if dtype.kind not in "biufUO":
        raise ValueError(f"Labels must be numbers or strings. Received: the type {document['dtype']!r}.")
    return np.array(document["values"], dtype=dtype)
