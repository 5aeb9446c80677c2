"""Softmax, softmax with a sink, and sigmoid."""

import dataclasses
from typing import Any, ClassVar

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, register
from limelight.core.validation import check_positive
from limelight.normalizers.normalizer import MASK_VALUE, Normalizer, row_max, softmax, zero_masked


@register
@dataclasses.dataclass(frozen=True)
class Softmax(Normalizer):
    r"""Softmax over the permitted keys.

    $$w_{ij} = \frac{m_{ij}\,e^{s_{ij}/\tau}}{\sum_k m_{ik}\,e^{s_{ik}/\tau}}$$

    The maximum of *each row* is subtracted first. (With the maximum of the whole matrix, a row that lies more than about 88 below
    it would underflow to zeros in float32.)

    Args:
        temperature: $\tau > 0$; above 1 the weights are flatter, below 1 sharper.

    Shapes: scores and weights (..., T, S).

    Raises:
        ValueError: `temperature` is not positive.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.eye(2, dtype="float32"), np.eye(2, dtype="float32")
        >>> print(np.array(ll.attention_weights(query, key, normalizer=ll.normalizers.Softmax(temperature=0.1))).round(3))
        [[0.999 0.001]
         [0.001 0.999]]

    References:
        Bahdanau et al. 2015, arXiv:1409.0473; Vaswani et al. 2017, arXiv:1706.03762.
    """

    temperature: float = 1.0
    exponential: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)

    def logits(self, scores: Any, *, block: Block) -> Any:
        return scores if self.temperature == 1 else scores / self.temperature

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        scores = self.logits(scores, block=block)
        if mask is not None:
            scores = ops.where(mask, scores, MASK_VALUE)
        # The softmax of a row that permits no key is uniform: set it to 0.
        return zero_masked(softmax(scores), mask)


@register
class Sink(LearnedComponent, Normalizer):
    r"""Softmax with an attention sink: one more logit that takes weight, so that a head can attend to nothing.

    $$w_{ij} = \frac{m_{ij}\,e^{s_{ij}}}{e^{b_n} + \sum_k m_{ik}\,e^{s_{ik}}}$$

    With $b = 0$ it is "softmax off by one". Weights sum to less than one.

    Args:
        logit: $b$, or its initial value if it is learned.
        learned: Learn one $b_n$ for each head, as in gpt-oss.

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
            initializer = keras.initializers.Constant(self.logit)
            num_heads = scores_shape[-3] if len(scores_shape) > 3 else 1
            self.sink = self.add_weight(name="sink", shape=(num_heads,), initializer=initializer, autocast=False)

    def call(self, scores: Any, mask: Any, *, block: Block) -> Any:
        sink = ops.cast(ops.convert_to_tensor(self.sinks(block)), scores.dtype)
        maximum = ops.stop_gradient(ops.maximum(row_max(scores, mask), sink))
        shifted = scores - maximum
        if mask is not None:
            # Masked before the exponential: a forbidden score may lie far above the maximum and overflow.
            shifted = ops.where(mask, shifted, float("-inf"))
        exponentials = ops.exp(shifted)
        return exponentials / (ops.exp(sink - maximum) + ops.sum(exponentials, axis=-1, keepdims=True))

    def sinks(self, block: Block) -> Any:
        """Return $b$ for the heads of a block: a number, or (1, n, 1, 1)."""
        return block.slice(ops.convert_to_tensor(self.sink), "n") if self.learned else self.logit


@register
@dataclasses.dataclass(frozen=True)
class Sigmoid(Normalizer):
    r"""Sigmoid attention: each weight between 0 and 1, independently of the others.

    $$w_{ij} = m_{ij}\,\sigma(s_{ij} + b)$$

    Args:
        bias: $b$; None for $-\ln$ of the number of keys that the row permits, so that weights sum to about one at first.

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
            return zero_masked(ops.sigmoid(scores + self.bias), mask)
        count = ops.sum(zero_masked(ops.ones_like(scores), mask), axis=-1, keepdims=True)
        return zero_masked(ops.sigmoid(scores - ops.log(ops.maximum(count, 1.0))), mask)
