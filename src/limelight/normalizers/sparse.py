"""Normalizers that give exactly zero to keys that matter little, with exact gradients."""

import dataclasses
from typing import Any

from keras import ops

from limelight.core.block import Block
from limelight.core.component import register
from limelight.normalizers.normalizer import Normalizer, row_peak

# Steps of the bisection for a general alpha: enough for float32, and the last step is Newton's.
HALVINGS = 30


@register
@dataclasses.dataclass(frozen=True)
class Sparsemax(Normalizer):
    r"""The point of the simplex nearest to the scores.

    $$w_i = \max(s_i - \tau_i, 0), \qquad \tau_i \text{ such that } \textstyle\sum_j w_{ij} = 1$$

    Shapes: scores and weights (..., T, S).

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.array([[1.0]]), np.array([[1.0], [0.5], [-1.0]])
        >>> print(np.array(ll.attention_weights(query, key, normalizer=ll.normalizers.Sparsemax())))
        [[0.75 0.25 0.  ]]

    References:
        Martins and Astudillo 2016, arXiv:1602.02068.
    """

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        return peeled(scores, mask, 2.0)


@register
@dataclasses.dataclass(frozen=True)
class Entmax(Normalizer):
    r"""Between softmax (alpha 1) and sparsemax (alpha 2), and beyond: sparse weights whose sparsity is a choice.

    $$w_{ij} = \left[(\alpha - 1) s_{ij} - \tau_i\right]_+^{1/(\alpha - 1)}, \qquad
    \tau_i \text{ such that } \textstyle\sum_j w_{ij} = 1$$

    Args:
        alpha: $\alpha > 1$. 1.5 is solved in closed form, as is 2; the others by bisection.

    Shapes: scores and weights (..., T, S).

    Raises:
        ValueError: alpha is not above 1.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.array([[1.0]]), np.array([[1.0], [0.5], [-2.0]])
        >>> print(np.array(ll.attention_weights(query, key, normalizer=ll.normalizers.Entmax(1.5))).round(3))
        [[0.674 0.326 0.   ]]

    References:
        Peters et al. 2019, arXiv:1905.05702.
    """

    alpha: float = 1.5

    def __post_init__(self) -> None:
        if not self.alpha > 1:
            raise ValueError(f"`alpha` must be above 1. Received: alpha={self.alpha}. For 1 use Softmax().")

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        return peeled(scores, mask, self.alpha)


def peeled(scores: Any, mask: Any, alpha: float) -> Any:
    """The weights [z - tau]_+ ** (1 / (alpha - 1)) of z = (alpha - 1) s, which sum to one.

    The threshold is searched outside of the gradient. One step of Newton's from there, whose slope is a constant to the gradient,
    makes it exact in value and, because its derivative is that of the implicit function, in gradient.
    """
    z = (alpha - 1) * (scores - ops.stop_gradient(row_peak(scores, mask)))
    # Only what lies less than 1 below the peak can have a weight; what lies lower need not be told apart.
    still = ops.stop_gradient(ops.maximum(z, -2.0))
    still = still if mask is None else ops.where(mask, still, -2.0)
    threshold = threshold_of(still, alpha)
    power = 1 / (alpha - 1)
    support = still > threshold
    support = support if mask is None else ops.logical_and(support, mask)

    def weights(threshold: Any) -> Any:
        # A safe base first: the power of zero has no derivative.
        above = ops.where(support, z - threshold, 1.0)
        # Raised as it stands for the two exact cases: a general power is slow.
        raised = above if power == 1 else above * above if power == 2 else above**power
        return ops.where(support, raised, 0.0)

    rough = weights(threshold)
    slope = ops.stop_gradient(
        power * ops.sum(ops.where(support, ops.where(support, rough, 1.0) ** (2 - alpha), 0.0), axis=-1, keepdims=True)
    )
    excess = ops.sum(rough, axis=-1, keepdims=True) - 1.0
    empty = slope == 0
    threshold = threshold + ops.where(empty, 0.0, excess / ops.where(empty, 1.0, slope))
    return ops.where(support, ops.maximum(weights(threshold), 0.0), 0.0)


def threshold_of(z: Any, alpha: float) -> Any:
    """The threshold of each row, (..., t, 1), in closed form where there is one."""
    if alpha == 2:
        return linear_threshold(z)
    return square_threshold(z) if alpha == 1.5 else searched_threshold(z, alpha)


def linear_threshold(z: Any) -> Any:
    """Sparsemax's threshold of each row, (..., t, 1): the mean of the support less its share of one."""
    ordered, count = _descending(z)
    thresholds = (ops.cumsum(ordered, axis=-1) - 1.0) / count
    size = ops.sum(ops.cast(ordered > thresholds, "int32"), axis=-1, keepdims=True)
    return ops.take_along_axis(thresholds, ops.maximum(size - 1, 0), axis=-1)


def square_threshold(z: Any) -> Any:
    """The threshold of each row for alpha = 1.5, (..., t, 1), from the mean and spread of the support."""
    ordered, count = _descending(z)
    mean = ops.cumsum(ordered, axis=-1) / count
    spread = count * (ops.cumsum(ordered * ordered, axis=-1) / count - mean * mean)
    thresholds = mean - ops.sqrt(ops.maximum((1.0 - spread) / count, 0.0))
    size = ops.sum(ops.cast(ordered > thresholds, "int32"), axis=-1, keepdims=True)
    return ops.take_along_axis(thresholds, ops.maximum(size - 1, 0), axis=-1)


def _descending(z: Any) -> tuple[Any, Any]:
    """Each row from the largest down, and 1, 2, 3, ..."""
    ordered = ops.flip(ops.sort(z, axis=-1), axis=-1)
    return ordered, ops.arange(1, ops.shape(z)[-1] + 1, dtype=z.dtype)


def searched_threshold(z: Any, alpha: float) -> Any:
    """The threshold of each row for any alpha, (..., t, 1), by halving the interval that it must lie in."""
    power = 1 / (alpha - 1)

    def halve(number: Any, low: Any) -> Any:
        middle = low + 0.5 ** (ops.cast(number, low.dtype) + 1.0)
        above = ops.maximum(z - middle, 0.0)
        total = ops.sum(ops.where(above > 0, ops.where(above > 0, above, 1.0) ** power, 0.0), axis=-1, keepdims=True)
        return ops.where(total >= 1.0, middle, low)

    return ops.fori_loop(0, HALVINGS, halve, ops.max(z, axis=-1, keepdims=True) - 1.0)
