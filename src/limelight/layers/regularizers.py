"""Regularizers of attention weights, and a loss that guides them by an alignment."""

from typing import Any

import keras
from keras import ops

from limelight.core.component import register
from limelight.core.precision import upcast
from limelight.core.validation import check_positive


class WeightRegularizer(keras.regularizers.Regularizer):
    """A penalty on the weights (..., T, S) of a layer, passed to it as `attention_regularizer`. Abstract.

    The penalty is the mean over the rows with any weight, so that padding has no effect.

    Args:
        factor: Factor of the penalty.
    """

    def __init__(self, factor: float = 0.01) -> None:
        self.factor = factor

    def __call__(self, weights: Any) -> Any:
        """Return the penalty, a scalar."""
        weights = upcast(ops.convert_to_tensor(weights))
        penalties = self.penalty(weights)
        num_axes = len(weights.shape) - len(penalties.shape)  # that one penalty is computed from
        nonempty = ops.any(self.arrange_axes(weights) > 0, axis=tuple(range(-num_axes, 0)))
        count = ops.sum(ops.cast(nonempty, penalties.dtype))
        return self.factor * ops.sum(ops.where(nonempty, penalties, 0.0)) / ops.maximum(count, 1.0)

    def arrange_axes(self, weights: Any) -> Any:
        """Move the axes last that one penalty is computed from."""
        return weights

    def penalty(self, weights: Any) -> Any:
        """Compute the penalties that are averaged, one for each row or each group of rows."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor}


@register
class Entropy(WeightRegularizer):
    r"""Regularizer by the entropy of each row, in nats: a positive factor sharpens the weights, a negative one flattens them.

    $$-\sum_j w_{ij} \ln w_{ij}$$

    Args:
        factor: Factor of the mean over rows.

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
    r"""Regularizer that makes several distributions over the same keys orthogonal, so that each attends to something else.

    $$\lVert A A^\top - I \rVert_F^2$$

    Args:
        factor: Factor of the mean.
        axis: Axis of the distributions: -3 for heads of (B, N, T, S), -2 for the queries of `AttentionPooling`.

    Raises:
        ValueError: `axis` is neither -3 nor -2.

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

    def arrange_axes(self, weights: Any) -> Any:
        return ops.swapaxes(weights, -3, -2) if self.axis == -3 else weights  # (B, T, N, S)

    def penalty(self, weights: Any) -> Any:
        weights = self.arrange_axes(weights)
        overlaps = ops.matmul(weights, ops.swapaxes(weights, -1, -2))
        return ops.sum(ops.square(overlaps - ops.eye(weights.shape[-2], dtype=overlaps.dtype)), axis=(-2, -1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


@register
class Coverage(WeightRegularizer):
    r"""Regularizer by the weight that each query puts on keys that earlier queries have attended to already.

    $$\sum_j \min\Bigl(w_{ij}, \sum_{k < i} w_{kj}\Bigr)$$

    Args:
        factor: Factor of the mean over queries.

    Example:
        >>> import numpy as np, limelight as ll
        >>> float(ll.layers.Coverage(1.0)(np.array([[1.0, 0.0], [1.0, 0.0]], "float32")))
        0.5

    References:
        See et al. 2017, arXiv:1704.04368.
    """

    def penalty(self, weights: Any) -> Any:
        earlier = ops.cumsum(weights, axis=-2) - weights
        return ops.sum(ops.minimum(weights, earlier), axis=-1)


@register
class Diagonal(WeightRegularizer):
    r"""Regularizer by the weight far from the diagonal, for sequences that are aligned in order at an even pace.

    $$\sum_j w_{ij} \left(1 - \exp\frac{-(j / S - i / T)^2}{2 g^2}\right)$$

    T and S count the queries and keys up to the last one with a weight: the others are taken for padding.

    Args:
        factor: Factor of the mean over queries.
        width: g, the distance from the diagonal as a fraction of the sequence.

    Raises:
        ValueError: `width` is not positive.

    Example:
        >>> import numpy as np, limelight as ll
        >>> float(ll.layers.Diagonal(1.0)(np.eye(5, dtype="float32")))
        0.0

    References:
        Tachibana et al. 2018, arXiv:1710.08969.
    """

    def __init__(self, factor: float = 0.01, width: float = 0.2) -> None:
        super().__init__(factor)
        check_positive("width", width)
        self.width = width

    def penalty(self, weights: Any) -> Any:
        num_queries, num_keys = ops.shape(weights)[-2:]
        query_length, key_length = (_length_with_weight(weights, axis) for axis in (-1, -2))
        row = ops.expand_dims(ops.arange(num_queries, dtype=weights.dtype), 1) / query_length
        column = ops.arange(num_keys, dtype=weights.dtype) / key_length
        return ops.sum(weights * (1.0 - ops.exp(-ops.square((column - row) / self.width) / 2)), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


@register
class GuidedAlignment(keras.losses.Loss):
    r"""Loss on weights that a model returns: the cross-entropy to a given alignment.

    $$-\sum_j a_{ij} \ln w_{ij}$$

    averaged over the queries that have an alignment; a row of zeros has none. Rows of alignments are normalised; weights of
    several heads, (B, N, T, S), are averaged first.

    Call arguments:
        y_true: Nonnegative alignments (B, T, S).
        y_pred: Weights (B, T, S) or (B, N, T, S).

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
        # Bounded, so that a weight of zero gives a finite loss.
        cost = -ops.sum(alignment * ops.log(ops.maximum(weights, 1e-9)), axis=-1)  # (B, T)
        aligned = ops.cast(total[..., 0] > 0, cost.dtype)
        return ops.sum(cost * aligned, axis=-1) / ops.maximum(ops.sum(aligned, axis=-1), 1.0)


def _length_with_weight(weights: Any, axis: int) -> Any:
    """Return the number of queries (axis -1) or keys (axis -2) up to the last one with a weight, (..., 1, 1); at least 1."""
    has_weight = ops.cast(ops.any(weights > 0, axis=axis), "int32")
    numbers = ops.arange(1, ops.shape(has_weight)[-1] + 1, dtype="int32")
    length = ops.max(has_weight * numbers, axis=-1, initial=1)
    return ops.cast(length, weights.dtype)[..., None, None]
