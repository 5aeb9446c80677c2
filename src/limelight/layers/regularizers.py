"""What a loss may ask of weights: that they be sharp, that heads differ, that all is read once, that they follow an alignment."""

from typing import Any

import keras
from keras import ops

from limelight.core.component import register
from limelight.core.precision import upcast


class WeightRegularizer(keras.regularizers.Regularizer):
    """A penalty on the weights (..., T, S) of a layer, given to it as `attention_regularizer`. Abstract.

    Args:
        factor: what the penalty is multiplied by.
    """

    def __init__(self, factor: float = 0.01) -> None:
        self.factor = factor

    def __call__(self, weights: Any) -> Any:
        """The penalty, a scalar: the mean over what has any weight, so that padding changes nothing."""
        weights = upcast(ops.convert_to_tensor(weights))
        penalties = self.penalty(weights)
        missing = len(weights.shape) - 1 - len(penalties.shape)
        present = ops.any(self.arranged(weights) > 0, axis=tuple(range(-1 - missing, 0)))
        count = ops.sum(ops.cast(present, penalties.dtype))
        return self.factor * ops.sum(ops.where(present, penalties, 0.0)) / ops.maximum(count, 1.0)

    def arranged(self, weights: Any) -> Any:
        """The weights with those axes last that one penalty is computed from."""
        return weights

    def penalty(self, weights: Any) -> Any:
        """The penalty of each row, or of whatever it concerns, before it is averaged."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor}


@register
class Entropy(WeightRegularizer):
    r"""The entropy of each row, in nats: a positive factor sharpens weights, a negative one spreads them.

    $$-\sum_j w_{ij} \ln w_{ij}$$

    Args:
        factor: what the mean over rows is multiplied by.

    Example:
        >>> import numpy as np, limelight as ll
        >>> round(float(ll.layers.Entropy(1.0)(np.full((1, 4), 0.25, "float32"))), 4)
        1.3863

    References:
        Pereyra et al. 2017, arXiv:1701.06548.
    """

    def penalty(self, weights: Any) -> Any:
        safe = ops.where(weights > 0, weights, 1.0)
        return -ops.sum(weights * ops.log(safe), axis=-1)


@register
class Orthogonality(WeightRegularizer):
    r"""How far several distributions over the same keys are from being orthogonal, so that each attends to something else.

    $$\lVert A A^\top - I \rVert_F^2$$

    Args:
        factor: what the mean is multiplied by.
        axis: which axis counts the distributions: -3 for heads of (B, N, T, S), -2 for the queries of `AttentionPooling`.

    Raises:
        ValueError: another axis.

    Example:
        >>> import numpy as np, limelight as ll
        >>> float(ll.layers.Orthogonality(1.0, axis=-2)(np.eye(3, dtype="float32")))
        0.0

    References:
        Lin et al. 2017, arXiv:1703.03130.
    """

    def __init__(self, factor: float = 0.01, axis: int = -3) -> None:
        super().__init__(factor)
        if axis not in (-3, -2):
            raise ValueError(f"`axis` must be -3 (heads) or -2 (queries). Received: axis={axis}.")
        self.axis = axis

    def arranged(self, weights: Any) -> Any:
        return ops.swapaxes(weights, -3, -2) if self.axis == -3 else weights  # (B, T, N, S)

    def penalty(self, weights: Any) -> Any:
        weights = self.arranged(weights)
        overlaps = ops.matmul(weights, ops.swapaxes(weights, -1, -2))
        return ops.sum(ops.square(overlaps - ops.eye(weights.shape[-2], dtype=overlaps.dtype)), axis=(-2, -1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


@register
class Coverage(WeightRegularizer):
    r"""How much each query attends to what earlier ones have attended to already.

    $$\sum_j \min\Bigl(w_{ij}, \sum_{k < i} w_{kj}\Bigr)$$

    Args:
        factor: what the mean over queries is multiplied by.

    Example:
        >>> import numpy as np, limelight as ll
        >>> float(ll.layers.Coverage(1.0)(np.array([[1.0, 0.0], [1.0, 0.0]], "float32")))
        0.5

    References:
        See et al. 2017, arXiv:1704.04368.
    """

    def penalty(self, weights: Any) -> Any:
        before = ops.cumsum(weights, axis=-2) - weights
        return ops.sum(ops.minimum(weights, before), axis=-1)


@register
class Diagonal(WeightRegularizer):
    r"""How much weight lies far from the diagonal, for sequences that are read in order at an even pace.

    $$\sum_j w_{ij} \left(1 - \exp\frac{-(j / S - i / T)^2}{2 g^2}\right)$$

    Args:
        factor: what the mean over queries is multiplied by.
        width: g, the share of the sequence that a query may be off.

    Raises:
        ValueError: the width is not positive.

    Example:
        >>> import numpy as np, limelight as ll
        >>> float(ll.layers.Diagonal(1.0)(np.eye(5, dtype="float32")))
        0.0

    References:
        Tachibana et al. 2018, arXiv:1710.08969.
    """

    def __init__(self, factor: float = 0.01, width: float = 0.2) -> None:
        super().__init__(factor)
        if not width > 0:
            raise ValueError(f"`width` must be positive. Received: width={width}.")
        self.width = width

    def penalty(self, weights: Any) -> Any:
        rows, columns = ops.shape(weights)[-2:]
        # Lengths without padding, which has no weight.
        height = ops.sum(ops.cast(ops.any(weights > 0, axis=-1), weights.dtype), axis=-1)[..., None, None]
        width = ops.sum(ops.cast(ops.any(weights > 0, axis=-2), weights.dtype), axis=-1)[..., None, None]
        row = ops.expand_dims(ops.arange(rows, dtype=weights.dtype), 1) / ops.maximum(height, 1.0)
        column = ops.arange(columns, dtype=weights.dtype) / ops.maximum(width, 1.0)
        apart = column - row
        return ops.sum(weights * (1.0 - ops.exp(-ops.square(apart / self.width) / 2)), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


@register
class GuidedAlignment(keras.losses.Loss):
    r"""A loss on weights that a model returns: the cross-entropy to a given alignment.

    $$-\sum_j a_{ij} \ln w_{ij}$$

    averaged over the queries that have an alignment. A query without one, a row of zeros, costs nothing. Rows of alignments are
    divided by their sum; weights of several heads, (B, N, T, S), are averaged first.

    Call arguments:
        y_true: alignments (B, T, S), not negative.
        y_pred: weights (B, T, S) or (B, N, T, S).

    Example:
        >>> import numpy as np, limelight as ll
        >>> weights = np.array([[[0.5, 0.5], [0.9, 0.1]]], "float32")
        >>> alignment = np.array([[[1.0, 0.0], [0.0, 0.0]]], "float32")
        >>> round(float(ll.layers.GuidedAlignment()(alignment, weights)), 4)
        0.6931

    References:
        Chen et al. 2016, arXiv:1607.01628; Mi et al. 2016, arXiv:1608.00112.
    """

    def __init__(
        self, name: str = "guided_alignment", reduction: str = "sum_over_batch_size", dtype: Any = None
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        weights, alignment = upcast(y_pred), upcast(y_true)
        if len(weights.shape) == 4:
            weights = ops.mean(weights, axis=1)
        total = ops.sum(alignment, axis=-1, keepdims=True)
        alignment = alignment / ops.where(total == 0, 1.0, total)
        # A weight of zero where the alignment wants one is as bad as it gets, not infinitely bad.
        cost = -ops.sum(alignment * ops.log(ops.maximum(weights, 1e-9)), axis=-1)  # (B, T)
        aligned = ops.cast(total[..., 0] > 0, cost.dtype)
        return ops.sum(cost * aligned, axis=-1) / ops.maximum(ops.sum(aligned, axis=-1), 1.0)
