"""Normalizers made of exponentials: softmax, softmax with a sink, and sigmoid."""

import dataclasses
from typing import Any, ClassVar

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, register
from limelight.normalizers.normalizer import LOWEST, Normalizer, masked, row_peak, softmax


@register
@dataclasses.dataclass(frozen=True)
class Softmax(Normalizer):
    r"""Exponentials that sum to one.

    $$w_{ij} = \frac{m_{ij}\,e^{s_{ij}/\tau}}{\sum_k m_{ik}\,e^{s_{ik}/\tau}}$$

    The largest score of *each row* is subtracted first. (The largest of the whole matrix will not do: a row that lies more than
    about 88 below it would be all zeros in float32.)

    Args:
        temperature: $\tau > 0$; above 1 flattens the weights, below 1 sharpens them.

    Shapes: scores and weights (..., T, S).

    Raises:
        ValueError: the temperature is not positive.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.eye(2, dtype="float32"), np.eye(2, dtype="float32")
        >>> print(np.array(ll.attention_weights(query, key, normalizer=ll.normalizers.Softmax(temperature=0.1))).round(3))
        [[0.999 0.001]
         [0.001 0.999]]
    """

    temperature: float = 1.0
    exponential: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"`temperature` must be positive. Received: temperature={self.temperature}.")

    def logits(self, scores: Any, *, block: Block) -> Any:
        return scores if self.temperature == 1 else scores / self.temperature

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        scores = self.logits(scores, block=block)
        if mask is not None:
            scores = ops.where(mask, scores, LOWEST)
        # Of a row that permits nothing it makes weights, which go again.
        return masked(softmax(scores), mask)


@register
class Sink(LearnedComponent, Normalizer):
    r"""Softmax with one more score that takes weight and gives nothing, so that a head may attend to nothing.

    $$w_{ij} = \frac{e^{s_{ij}}}{e^{b_n} + \sum_k e^{s_{ik}}}$$

    With $b = 0$ it is "softmax off by one". Weights sum to less than one.

    Args:
        logit: $b$, or its first value where it is learned.
        learned: whether each head learns its own $b_n$, as in gpt-oss.

    Shapes: scores and weights (..., N, T, S); $b$ (N,).

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.zeros((1, 2), "float32"), np.zeros((3, 2), "float32")
        >>> print(np.array(ll.attention_weights(query, key, normalizer=ll.normalizers.Sink())))
        [[0.25 0.25 0.25]]

    References:
        Miller 2023, "Attention is off by one"; Xiao et al. 2023, arXiv:2309.17453; OpenAI 2025, arXiv:2508.10925 (learned).
    """

    exponential: ClassVar[bool] = True

    def __init__(self, logit: float = 0.0, learned: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.logit, self.learned = float(logit), learned

    def build(self, scores_shape: tuple) -> None:
        if self.learned:
            first = keras.initializers.Constant(self.logit)
            heads = scores_shape[-3] if len(scores_shape) > 3 else 1
            self.sink = self.add_weight(name="sink", shape=(heads,), initializer=first, autocast=False)

    def call(self, scores: Any, mask: Any, *, block: Block) -> Any:
        sink = ops.cast(ops.convert_to_tensor(self.sinks(block)), scores.dtype)
        peak = ops.stop_gradient(ops.maximum(row_peak(scores, mask), sink))
        raised = exponentials(scores, mask, peak)
        return raised / (ops.exp(sink - peak) + ops.sum(raised, axis=-1, keepdims=True))

    def sinks(self, block: Block) -> Any:
        """$b$ for the heads of a tile: a number, or (1, n, 1, 1)."""
        return block.align(ops.convert_to_tensor(self.sink), "n") if self.learned else self.logit


@register
@dataclasses.dataclass(frozen=True)
class Sigmoid(Normalizer):
    r"""Each weight on its own, between 0 and 1.

    $$w_{ij} = \sigma(s_{ij} + b)$$

    Args:
        bias: $b$; when not given $-\ln$ of the number of keys that the row permits, so that weights first sum to about one.

    Shapes: scores and weights (..., T, S).

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.zeros((1, 2), "float32"), np.zeros((3, 2), "float32")
        >>> print(np.array(ll.attention_weights(query, key, normalizer=ll.normalizers.Sigmoid())))
        [[0.25 0.25 0.25]]

    References:
        Ramapuram et al. 2024, arXiv:2409.04431.
    """

    bias: float | None = None

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        if self.bias is not None:
            return masked(ops.sigmoid(scores + self.bias), mask)
        ones = ops.ones_like(scores)
        count = ops.sum(masked(ones, mask), axis=-1, keepdims=True)
        return masked(ops.sigmoid(scores - ops.log(ops.maximum(count, 1.0))), mask)


def exponentials(scores: Any, mask: Any, peak: Any) -> Any:
    """Exponentials of scores above the peak of their row, 0 where the mask is False."""
    shifted = scores - peak
    if mask is not None:
        # Masked before the exponential: a forbidden score may lie far above the peak and overflow.
        shifted = ops.where(mask, shifted, float("-inf"))
    return ops.exp(shifted)
