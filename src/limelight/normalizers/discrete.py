"""Top-k, hardmax and Gumbel-softmax, and the noise of random normalizers."""

import dataclasses
from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, register
from limelight.core.random import sample_seed, uniform
from limelight.core.validation import check_positive, check_positive_int
from limelight.normalizers.exponential import Softmax
from limelight.normalizers.normalizer import MASK_VALUE, Normalizer, zero_masked


@register
@dataclasses.dataclass(frozen=True)
class TopK(Normalizer):
    r"""Top-k attention: the k largest scores of each row, normalized by another normalizer.

    $$w_i = \mathrm{normalizer}(s_i,\, m_i \wedge s_i \ge s_i^{(k)})$$

    where $s^{(k)}$ is the k-th largest permitted score. Scores equal to it are all kept, so that the order of the keys does not
    matter.

    Args:
        k: The number of scores to keep.
        normalizer: The normalizer of the scores that are kept.

    Shapes: scores and weights (..., T, S).

    Raises:
        ValueError: `k` is not a positive integer.
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
        check_positive_int("k", self.k)
        if not isinstance(self.normalizer, Normalizer):
            raise TypeError(
                f"`normalizer` must be a Normalizer. Received: {self.normalizer!r} of type {type(self.normalizer).__name__}. "
                "For example limelight.normalizers.Sparsemax()."
            )

    @property
    def needs_all_rows(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if the inner normalizer needs all rows."""
        return self.normalizer.needs_all_rows

    def with_noise(self) -> Normalizer:
        inner = self.normalizer.with_noise()
        return NoisyNormalizer(self, inner.seed) if isinstance(inner, NoisyNormalizer) else self

    def add_noise(self, scores: Any, uniform: Any) -> Any:
        """Add the noise of the inner normalizer before the selection: the top k of Gumbel scores are a random sample."""
        return self.normalizer.add_noise(scores, uniform)  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        constant_scores = ops.stop_gradient(scores if mask is None else ops.where(mask, scores, MASK_VALUE))
        is_kept = constant_scores >= kth_largest(constant_scores, self.k)
        return self.normalizer(scores, is_kept if mask is None else ops.logical_and(is_kept, mask), block=block)


def kth_largest(scores: Any, k: int) -> Any:
    """Return the k-th largest score of each row, (..., 1); a row of fewer keys has at most `MASK_VALUE`."""
    num_keys = scores.shape[-1]
    if isinstance(num_keys, int):
        return ops.top_k(scores, min(k, num_keys))[0][..., -1:]
    # An exporter takes no k that depends on the length.
    missing = ops.full((*ops.shape(scores)[:-1], k), MASK_VALUE, dtype=scores.dtype)
    return ops.top_k(ops.concatenate([scores, missing], axis=-1), k)[0][..., -1:]


@register
@dataclasses.dataclass(frozen=True)
class Hardmax(Normalizer):
    r"""Hard attention: all weight on the largest score, with the gradient of softmax (straight-through estimator).

    $$w_{ij} = 1 \text{ if } j = \arg\max_k s_{ik}, \text{ else } 0$$

    Of equal scores the first is chosen.

    Args:
        temperature: The temperature of the softmax whose gradient is used.

    Shapes: scores and weights (..., T, S).

    Raises:
        ValueError: `temperature` is not positive.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.array([[1.0]]), np.array([[1.0], [3.0], [2.0]])
        >>> print(np.array(ll.attention_weights(query, key, normalizer=ll.normalizers.Hardmax())))
        [[0. 1. 0.]]

    References:
        Xu et al. 2015, arXiv:1502.03044 (hard attention); Bengio et al. 2013, arXiv:1308.3432 (straight-through estimator).
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        return straight_through(Softmax(self.temperature)(scores, mask, block=block), scores, mask)


@register
class GumbelSoftmax(LearnedComponent, Normalizer):
    r"""Gumbel-softmax: softmax of scores with Gumbel noise during training, a differentiable random choice of a key.

    $$w_i = \mathrm{softmax}((s_i + g_i) / \tau), \qquad g_{ij} = -\ln(-\ln u_{ij}),\; u_{ij} \sim U(0, 1)$$

    There is no noise in inference. The noise is a function of the seed of the call and of the position, so that the output, the
    weights and blocks of any size see the same noise.

    Args:
        temperature: $\tau > 0$.
        hard: Put all weight on the largest noisy score, with the gradient of softmax (straight-through estimator).
        seed: The seed of the noise.

    Shapes: scores and weights (..., T, S).

    Raises:
        ValueError: `temperature` is not positive.

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
        self.softmax = Softmax(temperature)
        self.temperature, self.hard, self.seed = temperature, hard, seed
        self.noise_seed = NoiseSeed(seed)

    def build(self, scores_shape: tuple) -> None:
        self.noise_seed.build(scores_shape)

    def call(self, scores: Any, mask: Any, *, block: Block) -> Any:
        weights = self.softmax(scores, mask, block=block)
        return straight_through(weights, scores, mask) if self.hard else weights

    def with_noise(self) -> Normalizer:
        seed = self.noise_seed()
        return self if seed is None else NoisyNormalizer(self, seed)

    def add_noise(self, scores: Any, uniform: Any) -> Any:
        """Add Gumbel noise, made from uniform random numbers."""
        return scores - ops.log(-ops.log(uniform))


@dataclasses.dataclass(frozen=True, eq=False)
class NoisyNormalizer(Normalizer):
    """A normalizer that adds noise to the scores, which is a function of the seed and of the position.

    Args:
        normalizer: A normalizer with the method `add_noise(scores, uniform)`.
        seed: int32 (1,), the seed of one call.
    """

    normalizer: Any
    seed: Any

    @property
    def needs_all_rows(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if the inner normalizer needs all rows."""
        return self.normalizer.needs_all_rows

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        noisy_scores = self.normalizer.add_noise(scores, uniform(self.seed, block, scores.dtype))
        return self.normalizer(noisy_scores, mask, block=block)

    def at_step(self, step: Any) -> Normalizer:
        return dataclasses.replace(self, seed=self.seed + step)


class NoiseSeed(keras.Layer):
    """Seed for the noise of one call: int32 (1,) in training, None in inference.

    It is a layer because Keras tells layers whether the model trains.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, training: bool | None = None) -> Any:
        return sample_seed(self.generator) if training else None


def straight_through(weights: Any, scores: Any, mask: Any) -> Any:
    """Return one-hot weights at the largest score of each row, with the gradient of `weights`."""
    constant_scores = scores if mask is None else ops.where(mask, scores, MASK_VALUE)
    # Not `ops.one_hot`, which makes the number of keys a constant of what torch.export exports.
    positions = ops.cumsum(ops.ones_like(scores, dtype="int32"), axis=-1) - 1
    largest = ops.cast(ops.argmax(constant_scores, axis=-1), "int32")[..., None]
    one_hot = ops.cast(ops.equal(positions, largest), weights.dtype)
    return ops.stop_gradient(zero_masked(one_hot, mask) - weights) + weights
