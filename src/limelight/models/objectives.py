"""Objectives of training: the loss of a model, and a metric beside it that is easier to read."""

from typing import Protocol

import keras
import numpy as np


class Objective(Protocol):
    """The loss of a task, for Keras and in numpy.

    Attributes:
        metric: Name of a metric of Keras's that is shown beside the loss.
    """

    metric: str

    def loss(self) -> keras.losses.Loss:
        """Return the loss: a mean over examples (or steps) with their weights."""
        ...

    def evaluate(self, targets: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the loss and the metric of each example (or step), shaped like the weights."""
        ...


class Classification:
    r"""Cross-entropy of class probabilities: $-\log p_y$, and the accuracy. Targets are class indices (...,)."""

    metric = "accuracy"

    def loss(self) -> keras.losses.Loss:
        """Return the cross-entropy for Keras."""
        return keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight")

    def evaluate(self, targets: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cross-entropy, and whether the most probable class is right."""
        chosen = np.take_along_axis(outputs, targets[..., None].astype(np.int64), axis=-1)[..., 0]
        return -np.log(np.maximum(chosen, keras.config.epsilon())), outputs.argmax(-1) == targets


class Regression:
    r"""Mean squared error $(\hat y - y)^2$ over the outputs of an example, and the mean absolute error. Targets are (n, K)."""

    metric = "mae"

    def loss(self) -> keras.losses.Loss:
        """Return the mean squared error for Keras."""
        return keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")

    def evaluate(self, targets: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean squared and the mean absolute error."""
        errors = np.abs(outputs - targets)
        return (errors**2).mean(-1), errors.mean(-1)
