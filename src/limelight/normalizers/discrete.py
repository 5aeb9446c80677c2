"""Normalizers that choose: the largest few, one, or one at random."""

import dataclasses
from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, register
from limelight.core.random import sample_seed, uniform
from limelight.normalizers.exponential import Softmax
from limelight.normalizers.normalizer import LOWEST, Normalizer, masked


@register
@dataclasses.dataclass(frozen=True)
class TopK(Normalizer):
    r"""The largest scores of each row alone, normalised by another normalizer.

    $$w_i = \mathrm{normalizer}(s_i,\, m_i \wedge s_i \ge s_i^{(k)})$$

    where $s^{(k)}$ is the k-th largest permitted score. Scores that are equal to it are all kept, so that the order of the keys
    does not matter.

    Args:
        k: how many.
        normalizer: what makes weights of them; softmax when not given.

    Shapes: scores and weights (..., T, S).

    Raises:
        ValueError: k is not a positive integer.
        TypeError: `normalizer` is not a normalizer.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.array([[1.0]]), np.array([[1.0], [3.0], [3.0]])
        >>> print(np.array(ll.attention_weights(query, key, normalizer=ll.normalizers.TopK(2))))
        [[0.  0.5 0.5]]

    References:
        Zhao et al. 2019, arXiv:1912.11637; Gupta et al. 2021, arXiv:2106.06899.
    """

    k: int
    normalizer: Normalizer = Softmax()  # noqa: RUF009 (it is frozen)

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"`k` must be a positive integer. Received: k={self.k!r}.")
        if not isinstance(self.normalizer, Normalizer):
            raise TypeError(
                f"`normalizer` must be a Normalizer. Received: {self.normalizer!r} of type {type(self.normalizer).__name__}. "
                "For example limelight.normalizers.Sparsemax()."
            )

    @property
    def linked_rows(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the normalizer."""
        return self.normalizer.linked_rows

    def sample_seed(self) -> Normalizer:
        inner = self.normalizer.sample_seed()
        return Noisy(self, inner.number) if isinstance(inner, Noisy) else self

    def perturbed(self, scores: Any, uniform: Any) -> Any:
        """Scores with the noise of the normalizer, of which the largest are taken: the top k of Gumbel are a random sample."""
        return self.normalizer.perturbed(scores, uniform)  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        columns = scores.shape[-1]
        count = min(self.k, columns) if columns is not None else ops.minimum(self.k, ops.shape(scores)[-1])
        still = ops.stop_gradient(scores if mask is None else ops.where(mask, scores, LOWEST))
        least = ops.top_k(still, count)[0][..., -1:]
        kept = still >= least
        return self.normalizer(scores, kept if mask is None else ops.logical_and(kept, mask), block=block)


@register
@dataclasses.dataclass(frozen=True)
class Hardmax(Normalizer):
    r"""All weight on the largest score; the gradient is that of softmax ("straight through").

    $$w_{ij} = 1 \text{ where } j = \arg\max_k s_{ik}, \text{ else } 0$$

    Among equal scores the first is taken.

    Args:
        temperature: of the softmax whose gradient is used.

    Shapes: scores and weights (..., T, S).

    Raises:
        ValueError: the temperature is not positive.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.array([[1.0]]), np.array([[1.0], [3.0], [2.0]])
        >>> print(np.array(ll.attention_weights(query, key, normalizer=ll.normalizers.Hardmax())))
        [[0. 1. 0.]]

    References:
        Xu et al. 2015, arXiv:1502.03044 (hard attention); Bengio et al. 2013, arXiv:1308.3432 (straight through).
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        Softmax(self.temperature)

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        return straight_through(Softmax(self.temperature)(scores, mask, block=block), scores, mask)


@register
class GumbelSoftmax(LearnedComponent, Normalizer):
    r"""A random choice during training: softmax of scores with Gumbel noise.

    $$w_i = \mathrm{softmax}((s_i + g_i) / \tau), \qquad g_{ij} = -\ln(-\ln u_{ij}),\; u_{ij} \sim U(0, 1)$$

    Outside of training there is no noise. The noise is a function of a number that each call draws and of the place, so that the
    output and the weights of one call see the same, and blocks of any size too.

    Args:
        temperature: $\tau > 0$.
        hard: whether all weight goes to the largest, with the gradient of softmax ("straight through").
        seed: of the noise.

    Shapes: scores and weights (..., T, S).

    Raises:
        ValueError: the temperature is not positive.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.array([[1.0]]), np.array([[1.0], [3.0], [2.0]])
        >>> print(np.array(ll.attention_weights(query, key, normalizer=ll.normalizers.GumbelSoftmax(hard=True))))
        [[0. 1. 0.]]

    References:
        Jang et al. 2017, arXiv:1611.01144; Maddison et al. 2017, arXiv:1611.00712.
    """

    def __init__(self, temperature: float = 1.0, hard: bool = False, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = Softmax(temperature)
        self.temperature, self.hard, self.seed = temperature, hard, seed
        self.noise = Noise(seed)

    def build(self, scores_shape: tuple) -> None:
        self.noise.build(scores_shape)

    def call(self, scores: Any, mask: Any, *, block: Block) -> Any:
        weights = self.inner(scores, mask, block=block)
        return straight_through(weights, scores, mask) if self.hard else weights

    def sample_seed(self) -> Normalizer:
        number = self.noise()
        return self if number is None else Noisy(self, number)

    def perturbed(self, scores: Any, uniform: Any) -> Any:
        """Scores with Gumbel noise, made of uniform numbers."""
        return scores - ops.log(-ops.log(uniform))


@dataclasses.dataclass(frozen=True, eq=False)
class Noisy(Normalizer):
    """A normalizer of scores with noise, which is a function of the place.

    Args:
        normalizer: whose `perturbed` says how uniform numbers change its scores.
        number: int32 (1,), drawn for one question.
    """

    normalizer: Any
    number: Any

    @property
    def linked_rows(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the normalizer."""
        return self.normalizer.linked_rows

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        numbers = uniform(self.number, block, scores.dtype)
        return self.normalizer(self.normalizer.perturbed(scores, numbers), mask, block=block)

    def at(self, step: Any) -> Normalizer:
        return dataclasses.replace(self, number=self.number + step)


class Noise(keras.Layer):
    """A number for one question while a model trains, nothing otherwise. A layer, because layers know whether they train."""

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, training: bool | None = None) -> Any:
        return sample_seed(self.generator) if training else None


def straight_through(weights: Any, scores: Any, mask: Any) -> Any:
    """One-hot weights at the largest score of each row, with the gradient of the given weights."""
    still = scores if mask is None else ops.where(mask, scores, LOWEST)
    chosen = ops.one_hot(ops.argmax(still, axis=-1), ops.shape(scores)[-1], dtype=weights.dtype)
    return ops.stop_gradient(masked(chosen, mask) - weights) + weights
