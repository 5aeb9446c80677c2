"""Monotonic attention."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, register
from limelight.normalizers.discrete import NoiseSeed, NoisyNormalizer
from limelight.normalizers.normalizer import Normalizer, zero_masked


@register
class Monotonic(LearnedComponent, Normalizer):
    r"""Monotonic attention in expectation: each query moves forward from the key of the query before, until it stops.

    $$p_{ij} = \sigma(s_{ij} + r), \qquad w_{ij} = p_{ij} \sum_{k \le j} w_{i-1,k} \prod_{l=k}^{j-1} (1 - p_{il})$$

    with all of $w_{-1}$ on the first key. Weights sum to at most one: the rest has moved beyond the last key. The recurrence
    along the keys is computed by a parallel scan, without dividing by cumulative products that vanish, as the paper's form does.
    A query that may attend to no key does not move.

    Args:
        offset: The initial value of the learned $r$; negative to move on easily at first.
        noise: The standard deviation of the normal noise that is added to scores in training, which makes $p$ nearly discrete.
        seed: The seed of the noise.

    Shapes: scores and weights (..., T, S). All queries must be given at once, in order.

    Raises:
        ValueError: `noise` is negative.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> query, key = np.array([[1.0], [1.0]]), np.array([[-50.0], [50.0], [50.0]])
        >>> weights = ll.attention_weights(query, key, normalizer=ll.normalizers.Monotonic())
        >>> print(keras.ops.convert_to_numpy(weights).round(3) + 0)
        [[0. 1. 0.]
         [0. 1. 0.]]

    References:
        Raffel et al. 2017, arXiv:1704.00784.
    """

    needs_all_rows = True

    def __init__(self, offset: float = 0.0, noise: float = 0.0, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if noise < 0:
            raise ValueError(f"`noise` must not be negative. Received: noise={noise}.")
        self.offset, self.noise, self.seed = offset, noise, seed
        self.noise_seed = NoiseSeed(seed)

    def build(self, scores_shape: tuple) -> None:
        initializer = keras.initializers.Constant(self.offset)
        self.shift = self.add_weight(name="shift", shape=(), initializer=initializer, autocast=False)
        self.noise_seed.build(scores_shape)

    def call(self, scores: Any, mask: Any, *, block: Block) -> Any:
        stop = zero_masked(ops.sigmoid(ops.add(scores, self.shift)), mask)  # p, (b, n, t, s)
        initial = ops.zeros_like(stop[..., :1, :])
        initial = ops.concatenate([ops.ones_like(initial[..., :1]), initial[..., 1:]], axis=-1)
        if block.history is not None:
            # One step of a recurrent layer: continue from where the steps before have come to.
            initial = ops.cast(block.history.reached, initial.dtype)
        move = ops.concatenate([ops.ones_like(stop[..., :1]), 1.0 - stop[..., :-1]], axis=-1)
        can_move = ops.ones_like(stop[..., :1])
        if mask is not None:
            can_move = ops.where(ops.any(mask, axis=-1, keepdims=True), can_move, 0.0)
        num_keys = ops.shape(stop)[-1]

        def step(previous: Any, row: Any) -> tuple[Any, Any]:
            stop, move, can_move = row[..., :num_keys], row[..., num_keys:-1], row[..., -1:]
            weights = stop * linear_recurrence(move, previous)
            return ops.where(can_move > 0, weights, previous), weights

        # One tensor, because on TensorFlow `ops.scan` over several fails if their length is not known.
        rows = ops.concatenate([stop, move, can_move], axis=-1)
        return ops.moveaxis(ops.scan(step, initial[..., 0, :], ops.moveaxis(rows, -2, 0))[1], 0, -2)

    def with_noise(self) -> Normalizer:
        seed = self.noise_seed() if self.noise else None
        return self if seed is None else NoisyNormalizer(self, seed)

    def add_noise(self, scores: Any, uniform: Any) -> Any:
        """Add normal noise, made from uniform random numbers."""
        return scores + self.noise * math.sqrt(2.0) * ops.erfinv(2.0 * uniform - 1.0)


def linear_recurrence(factor: Any, term: Any) -> Any:
    """Compute $x_j = a_j x_{j-1} + b_j$ along the last axis from $a$ and $b$, in logarithmically many steps.

    (On TensorFlow, XLA cannot compile `ops.associative_scan` inside a loop if the length is odd.)
    """
    shape = tuple(ops.shape(term))
    # A length that is only known at run time is at most a million keys.
    max_length = shape[-1] if isinstance(shape[-1], int) else 2**20
    step = 1
    while step < max_length:
        shifted_factor, shifted_term = _shift(factor, step, ops.ones, shape), _shift(term, step, ops.zeros, shape)
        factor, term = factor * shifted_factor, term + factor * shifted_term
        step *= 2
    return term


def _shift(tensor: Any, step: int, fill: Callable[..., Any], shape: tuple) -> Any:
    """Move a tensor of shape (..., S) by some keys to the right, and fill the first ones."""
    *leading, length = shape
    if not isinstance(length, int):
        if not ops.is_tensor(length):
            # JAX exports for any length, and takes no minimum of a symbolic one.
            source = ops.arange(length) - step
            return ops.where(
                source >= 0, ops.take(tensor, ops.maximum(source, 0), axis=-1), fill((), dtype=tensor.dtype)
            )
        step = ops.minimum(step, length)
    return ops.concatenate([fill((*leading, step), dtype=tensor.dtype), tensor[..., : length - step]], axis=-1)
