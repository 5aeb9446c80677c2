"""Attention that only moves forward."""

from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, register
from limelight.normalizers.discrete import Noise, Noisy
from limelight.normalizers.normalizer import Normalizer, masked


@register
class Monotonic(LearnedComponent, Normalizer):
    r"""The expected attention of a reader that starts where it stopped before and moves forward until it stops.

    $$p_{ij} = \sigma(s_{ij} + r), \qquad w_{ij} = p_{ij} \sum_{k \le j} w_{i-1,k} \prod_{l=k}^{j-1} (1 - p_{il})$$

    with all of $w_{-1}$ on the first key. Weights sum to at most one: what is missing has run off the end. The recurrence along
    the keys is solved by a parallel scan, without the division by vanishing products that the paper's form needs. A query
    that may attend to nothing leaves the reader where it is.

    Args:
        offset: the first value of $r$, which is learned; negative for a reader that first moves on easily.
        noise: the spread of the normal noise that is added to scores during training, so that choices become clear.
        seed: of the noise.

    Shapes: scores and weights (..., T, S). Queries must come in order, all at once.

    Raises:
        ValueError: a negative spread.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.array([[1.0], [1.0]]), np.array([[-50.0], [50.0], [50.0]])
        >>> print(np.array(ll.attention_weights(query, key, normalizer=ll.normalizers.Monotonic())).round(3) + 0)
        [[0. 1. 0.]
         [0. 1. 0.]]

    References:
        Raffel et al. 2017, arXiv:1704.00784.
    """

    linked_rows = True

    def __init__(self, offset: float = 0.0, noise: float = 0.0, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if noise < 0:
            raise ValueError(f"`noise` must not be negative. Received: noise={noise}.")
        self.offset, self.noise, self.seed = offset, noise, seed
        self.generator = Noise(seed)

    def build(self, scores_shape: tuple) -> None:
        first = keras.initializers.Constant(self.offset)
        self.shift = self.add_weight(name="shift", shape=(), initializer=first, autocast=False)
        self.generator.build(scores_shape)

    def call(self, scores: Any, mask: Any, *, block: Block) -> Any:
        stops = masked(ops.sigmoid(scores + self.shift), mask)  # (b, n, t, s)
        start = ops.zeros_like(stops[..., :1, :])
        start = ops.concatenate([ops.ones_like(start[..., :1]), start[..., 1:]], axis=-1)
        if block.history is not None:
            # One step of a layer that walks along the queries: the reader is where the step before left it.
            begun = ops.any(block.history.coverage > 0, axis=-1, keepdims=True)
            start = ops.where(begun, ops.cast(block.history.previous, start.dtype), start)
        first = start[..., 0, :]
        passes = ops.concatenate([ops.ones_like(stops[..., :1]), 1.0 - stops[..., :-1]], axis=-1)
        # A row that permits nothing hands on where the reader was.
        idle = ops.logical_not(ops.any(stops > 0, axis=-1, keepdims=True))

        def step(reader: Any, row: Any) -> tuple[Any, Any]:
            stop, keep, still = row
            weights = stop * carried(keep, reader)
            return ops.where(still, reader, weights), weights

        rows = tuple(ops.moveaxis(part, -2, 0) for part in (stops, passes, idle))
        return ops.moveaxis(ops.scan(step, first, rows)[1], 0, -2)

    def sample_seed(self) -> Normalizer:
        number = self.generator() if self.noise else None
        return self if number is None else Noisy(self, number)

    def perturbed(self, scores: Any, uniform: Any) -> Any:
        """Scores with normal noise, made of uniform numbers."""
        return scores + self.noise * ops.sqrt(2.0) * ops.erfinv(2.0 * uniform - 1.0)


def carried(factor: Any, term: Any) -> Any:
    """The sequence $x_j = a_j x_{j-1} + b_j$ along the last axis, from $a$ and $b$, in steps of 1, 2, 4, ... at once.

    (`ops.associative_scan` cannot be compiled by XLA inside a loop on TensorFlow where the length is odd.)
    """
    length = ops.shape(term)[-1]
    # Where the length is only known at run time, there are steps for a million keys.
    longest = length if isinstance(length, int) else 2**20
    step = 1
    while step < longest:
        shift = step if isinstance(length, int) else ops.minimum(step, length)
        lead = tuple(ops.shape(term))[:-1]
        before_factor, before_term = (
            ops.concatenate([fill((*lead, shift), dtype=term.dtype), part[..., : length - shift]], axis=-1)
            for fill, part in ((ops.ones, factor), (ops.zeros, term))
        )
        factor, term = factor * before_factor, term + factor * before_term
        step *= 2
    return term
