"""Objectives of training: the loss of a model, and a metric beside it that is easier to read."""

from collections.abc import Sequence
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops


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


class AbsoluteError:
    r"""Mean absolute error $|\hat y - y|$ over the outputs of an example, and the mean squared error. Targets are (n, K)."""

    metric = "mse"

    def loss(self) -> keras.losses.Loss:
        """Return the mean absolute error for Keras."""
        return keras.losses.MeanAbsoluteError(reduction="mean_with_sample_weight")

    def evaluate(self, targets: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean absolute and the mean squared error."""
        errors = np.abs(outputs - targets)
        return errors.mean(-1), (errors**2).mean(-1)


class Quantiles:
    r"""Pinball loss of forecasts of quantiles, and their mean absolute error.

    $$\ell_q = \max(q\,(y - \hat y_q),\, (q - 1)\,(y - \hat y_q))$$

    averaged over the steps and the levels q. Targets are (n, H, 1), outputs (n, H, Q).

    Args:
        levels: The Q levels, in (0, 1).

    References:
        Koenker and Bassett 1978, Econometrica 46.
    """

    metric = "mae"

    def __init__(self, levels: Sequence[float]) -> None:
        self.levels = tuple(levels)

    def loss(self) -> keras.losses.Loss:
        """Return the pinball loss for Keras."""
        return PinballLoss(self.levels, reduction="mean_with_sample_weight")

    def evaluate(self, targets: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean pinball loss and the mean absolute error."""
        errors, levels = targets - outputs, np.array(self.levels)
        losses = np.maximum(levels * errors, (levels - 1) * errors)
        return losses.mean((1, 2)), np.abs(errors).mean((1, 2))


class PinballLoss(keras.losses.Loss):
    """The pinball loss of `Quantiles`, averaged over the steps and levels of each example."""

    def __init__(self, levels: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.levels = tuple(levels)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        errors = ops.subtract(y_true, y_pred)
        levels = ops.convert_to_tensor(self.levels, dtype=errors.dtype)
        return ops.mean(ops.maximum(levels * errors, (levels - 1) * errors), axis=(1, 2))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "levels": list(self.levels)}
