"""Sparsemax and entmax: normalizers that give weights of exactly zero, with exact gradients."""

import dataclasses
from typing import Any

from keras import ops

from limelight.core.block import Block
from limelight.core.component import register
from limelight.core.shapes import take_along_last_axis
from limelight.normalizers.normalizer import Normalizer, row_max

# Enough for float32 where a Newton step follows, as for alpha < 2, and where none does.
BISECTION_STEPS = 30
BISECTION_STEPS_ALONE = 60


@register
@dataclasses.dataclass(frozen=True)
class Sparsemax(Normalizer):
    r"""Sparsemax: the Euclidean projection of the scores onto the probability simplex.

    $$w_{ij} = \max(s_{ij} - \tau_i, 0), \qquad \tau_i \text{ such that } \textstyle\sum_j w_{ij} = 1$$

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
        return entmax(scores, mask, 2.0)


@register
@dataclasses.dataclass(frozen=True)
class Entmax(Normalizer):
    r"""Alpha-entmax: softmax for $\alpha \to 1$, sparsemax for $\alpha = 2$, and sparser for larger $\alpha$.

    $$w_{ij} = \left[(\alpha - 1) s_{ij} - \tau_i\right]_+^{1/(\alpha - 1)}, \qquad
    \tau_i \text{ such that } \textstyle\sum_j w_{ij} = 1$$

    Args:
        alpha: $\alpha > 1$. The threshold $\tau$ has a closed form for 1.5 and 2; otherwise it is found by bisection.

    Shapes: scores and weights (..., T, S).

    Raises:
        ValueError: `alpha` is not above 1.

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
        return entmax(scores, mask, self.alpha)


def entmax(scores: Any, mask: Any, alpha: float) -> Any:
    """Compute the weights [z - tau]_+ ** (1 / (alpha - 1)) of z = (alpha - 1) s, which sum to one.

    The threshold tau is computed without gradient. One Newton step from there, whose derivative is treated as a constant, makes
    the gradient exact: it is that of the implicit function tau(z). It makes the value exact too for alpha <= 2; beyond, where it
    would overshoot, the weights are divided by their sum.
    """
    z = (alpha - 1) * (scores - ops.stop_gradient(row_max(scores, mask)))
    # Only scores less than 1 below the maximum can have a weight, so that lower ones need not be distinguished.
    constant_z = ops.stop_gradient(ops.maximum(z, -2.0))
    constant_z = constant_z if mask is None else ops.where(mask, constant_z, -2.0)
    threshold = compute_threshold(constant_z, alpha)
    power = 1 / (alpha - 1)
    support = constant_z > threshold
    support = support if mask is None else ops.logical_and(support, mask)

    def compute_weights(threshold: Any) -> Any:
        base = z - threshold
        inside = ops.logical_and(support, base > 0)
        # A safe base outside of the support: the derivative of a power is infinite at 0.
        base = ops.where(inside, base, 1.0)
        # A general power is slow.
        powers = base if power == 1 else base * base if power == 2 else base**power
        return ops.where(inside, powers, 0.0)

    weights = compute_weights(threshold)
    derivative = ops.where(weights > 0, ops.where(weights > 0, weights, 1.0) ** (2 - alpha), 0.0)
    derivative = ops.stop_gradient(power * ops.sum(derivative, axis=-1, keepdims=True))
    excess = ops.sum(weights, axis=-1, keepdims=True) - 1.0
    is_empty = derivative == 0
    newton_step = ops.where(is_empty, 0.0, excess / ops.where(is_empty, 1.0, derivative))
    if alpha <= 2:
        return compute_weights(threshold + newton_step)
    # The derivative is infinite at the threshold: a Newton step would overshoot, and rounding the threshold changes the sum.
    weights = compute_weights(threshold + (newton_step - ops.stop_gradient(newton_step)))
    total = ops.stop_gradient(ops.sum(weights, axis=-1, keepdims=True))
    return weights / ops.where(is_empty, 1.0, total)


def compute_threshold(z: Any, alpha: float) -> Any:
    """Compute the threshold tau of each row, (..., t, 1)."""
    if alpha == 2:
        return sparsemax_threshold(z)
    return entmax15_threshold(z) if alpha == 1.5 else bisect_threshold(z, alpha)


def sparsemax_threshold(z: Any) -> Any:
    """Compute the threshold for alpha = 2 from the sum of the support."""
    z, count = _sort_descending(z)
    return _select_threshold(z, (ops.cumsum(z, axis=-1) - 1.0) / count)


def entmax15_threshold(z: Any) -> Any:
    """Compute the threshold for alpha = 1.5 from the mean and the sum of squares of the support."""
    z, count = _sort_descending(z)
    mean = ops.cumsum(z, axis=-1) / count
    sum_of_squares = count * (ops.cumsum(z * z, axis=-1) / count - mean * mean)
    return _select_threshold(z, mean - ops.sqrt(ops.maximum((1.0 - sum_of_squares) / count, 0.0)))


def _sort_descending(z: Any) -> tuple[Any, Any]:
    """Return the rows in descending order, and the size of the support that ends at each column: 1, 2, 3, ..."""
    return ops.flip(ops.sort(z, axis=-1), axis=-1), ops.arange(1, ops.shape(z)[-1] + 1, dtype=z.dtype)


def _select_threshold(z: Any, thresholds: Any) -> Any:
    """Return the threshold of the support, given sorted rows and the threshold for each size of the support."""
    size = ops.sum(ops.cast(z > thresholds, "int32"), axis=-1, keepdims=True)
    return take_along_last_axis(thresholds, ops.maximum(size - 1, 0))


def bisect_threshold(z: Any, alpha: float) -> Any:
    """Compute the threshold for any alpha by bisection."""
    power = 1 / (alpha - 1)

    def halve_interval(step: Any, low: Any) -> Any:
        middle = low + 0.5 ** (ops.cast(step, low.dtype) + 1.0)
        base = ops.maximum(z - middle, 0.0)
        total = ops.sum(ops.where(base > 0, ops.where(base > 0, base, 1.0) ** power, 0.0), axis=-1, keepdims=True)
        return ops.where(total >= 1.0, middle, low)

    steps = BISECTION_STEPS if alpha < 2 else BISECTION_STEPS_ALONE
    return ops.fori_loop(0, steps, halve_interval, ops.max(z, axis=-1, keepdims=True) - 1.0)
