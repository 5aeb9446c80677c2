"""Position biases, which are added to another score."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, register
from limelight.core.precision import project, upcast
from limelight.core.shapes import has_traced_shape
from limelight.core.validation import check_positive, check_positive_int
from limelight.scores.score import Score, Term, get_num_heads


@register
@dataclasses.dataclass(frozen=True)
class ALiBi(Term):
    r"""ALiBi: a penalty that is linear in the distance, with another slope for each head. Use as `Dot() + ALiBi()`.

    $$s_{ij} = -m_n \lvert i - j \rvert, \qquad m_n = 2^{-8 (n + 1) / N}$$

    if the number of heads N is a power of two. Otherwise the slopes are taken from those of the powers of two below and above N,
    as in the paper's code.

    Args:
        bias_max: The exponent of the last slope, 8 in the paper.

    Shapes: scores (1, N, T, S). By default the last query is at the position of the last key.

    Raises:
        ValueError: `bias_max` is not positive.

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.zeros((1, 1, 2, 4), "float32")
        >>> print(np.array(ll.attention_weights(x, x, score=ll.scores.Dot() + ll.positions.ALiBi())).round(4))
        [[[[0.501 0.499]
           [0.499 0.501]]]]

    References:
        Press et al. 2022, arXiv:2108.12409.
    """

    bias_max: float = 8.0

    def __post_init__(self) -> None:
        check_positive("bias_max", self.bias_max)

    def slopes(self, num_heads: int) -> np.ndarray:
        """Return the slopes $m_n$, (N,)."""
        power = 2 ** math.floor(math.log2(num_heads))
        slopes = [2 ** (-self.bias_max * (head + 1) / power) for head in range(power)]
        # The remaining heads get every other slope of the next power of two.
        slopes += [2 ** (-self.bias_max * (head + 1) / (2 * power)) for head in range(0, 2 * (num_heads - power), 2)]
        return np.array(slopes, "float32")

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        distance = ops.abs(block.key_positions() - block.query_positions())
        return -block.slice(self.slopes(block.heads.total), "n") * ops.cast(distance, "float32")


@register
class RelativePositionBias(LearnedComponent, Term):
    r"""T5's relative position bias: a learned bias for each head and bucket of distances.

    $$s_{ij} = b_{n, \mathrm{bucket}(j - i)}$$

    Half of the buckets hold one distance each. The other half grow exponentially up to `max_distance`, and the last also holds
    all larger distances. If `bidirectional`, half of all buckets are for keys after the query. Add it to another score:
    `Dot() + RelativePositionBias()`.

    Args:
        num_buckets: The number of buckets.
        max_distance: The distance from which all distances share a bucket.
        bidirectional: Distinguish keys after the query; if False they all have distance 0.
        initializer: The initializer of $b$, (num_buckets, N).

    Shapes: scores (1, N, T, S). By default the last query is at the position of the last key.

    Raises:
        ValueError: `num_buckets` is odd or too small, or `max_distance` is too small for it.

    Example:
        >>> import numpy as np, limelight as ll
        >>> [int(bucket) for bucket in ll.positions.RelativePositionBias(8, max_distance=8).bucket(np.arange(-9, 4))]
        [3, 3, 3, 3, 3, 3, 2, 2, 1, 0, 5, 6, 6]

    References:
        Raffel et al. 2020, arXiv:1910.10683.
    """

    def __init__(
        self,
        num_buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = True,
        initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        smallest = 4 if bidirectional else 2
        if not isinstance(num_buckets, int) or num_buckets < smallest or num_buckets % 2:
            raise ValueError(
                f"`num_buckets` must be an even integer of at least {smallest}. Received: num_buckets={num_buckets!r}."
            )
        if max_distance <= num_buckets // smallest:
            raise ValueError(
                f"`max_distance` must be more than {num_buckets // smallest}, the number of distances with their own bucket. "
                f"Received: max_distance={max_distance} with num_buckets={num_buckets}."
            )
        self.num_buckets, self.max_distance, self.bidirectional = num_buckets, max_distance, bidirectional
        self.initializer = keras.initializers.get(initializer)

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        shape = (self.num_buckets, get_num_heads(query_shape))
        self.table = self.add_weight(name="table", shape=shape, initializer=self.initializer, autocast=False)

    def bucket(self, offsets: Any) -> Any:
        """Return the bucket of each offset j - i, int32."""
        count = self.num_buckets // 2 if self.bidirectional else self.num_buckets
        num_exact = count // 2
        # A table in float64: logarithms at run time would be rounded differently by each backend.
        far = np.arange(num_exact, self.max_distance + 1)
        far = num_exact + np.log(far / num_exact) / np.log(self.max_distance / num_exact) * (count - num_exact) + 1e-9
        table = np.concatenate([np.arange(num_exact), np.minimum(far.astype("int32"), count - 1)]).astype("int32")
        offsets = ops.convert_to_tensor(offsets, dtype="int32")
        if self.bidirectional:
            first, distance = ops.cast(offsets > 0, "int32") * count, ops.abs(offsets)
        else:
            first, distance = 0, ops.maximum(-offsets, 0)
        # As a table with one column, which PyTorch exports to ONNX.
        return first + ops.take(table[:, None], ops.minimum(distance, self.max_distance), axis=0)[..., 0]

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        table = ops.transpose(block.heads.take(ops.convert_to_tensor(self.table), 1))  # (n, num_buckets)
        return gather_bias(table, self.bucket(block.key_positions() - block.query_positions()))


@register
class GaussianWindow(LearnedComponent, Score):
    r"""Luong's predictive local attention ("local-p"): each query predicts a position, and distant keys are penalized.

    $$s_{ij} = -\frac{(j - p_i)^2}{2 \sigma^2}, \qquad p_i = S\,\sigma_{\mathrm{logistic}}(v^\top \tanh(W q_i)), \qquad
    \sigma = D / 2$$

    Added to another score, `Bilinear() + GaussianWindow(5.0)`, it multiplies the weights by a Gaussian before normalization.
    (Luong et al. multiply after it, so that their weights do not sum to one.) S is the number of keys up to the last real one.

    Args:
        width: $D$, the distance from $p_i$ at which the window ends in the paper; $\sigma$ is half of it.
        units: The width of the hidden layer; None for that of the query.
        kernel_initializer: The initializer of $W$ (H, units) and $v$ (units, 1).

    Shapes: query (..., T, H), scores (..., T, S). By default keys are at positions 0, 1, 2, ...

    Raises:
        ValueError: `width` is not positive, or `units` is not a positive integer.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> x = np.zeros((2, 3), "float32")
        >>> weights = ll.attention_weights(x, x, score=ll.positions.GaussianWindow(2.0))
        >>> print(keras.ops.convert_to_numpy(weights).round(2))
        [[0.38 0.62]
         [0.38 0.62]]

    References:
        Luong et al. 2015, arXiv:1508.04025 (local-p).
    """

    def __init__(
        self, width: float, units: int | None = None, kernel_initializer: Any = "glorot_uniform", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_positive("width", width)
        check_positive_int("units", units, optional=True)
        self.width, self.units = width, units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        units = query_shape[-1] if self.units is None else self.units
        for name, shape in (("query_kernel", (query_shape[-1], units)), ("readout", (units, 1))):
            initializer = self.kernel_initializer.clone()
            setattr(self, name, self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False))

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        hidden = ops.tanh(project(upcast(query), self.query_kernel))
        fraction = ops.sigmoid(project(hidden, self.readout))  # (b, n, t, 1)
        kv_lengths = None if block.kv_lengths is None else block.kv_lengths()
        kv_lengths = block.columns.total if kv_lengths is None else block.slice(kv_lengths, "b")
        distance = ops.cast(block.key_positions(), fraction.dtype) - fraction * ops.cast(kv_lengths, fraction.dtype)
        return -2.0 * ops.square(distance / self.width)


def gather_bias(table: Any, index: Any) -> Any:
    """Gather from a table (n, size) by an index (t, s) or (b, 1, t, s), to (1, n, t, s) or (b, n, t, s)."""
    index = index if len(index.shape) == 2 else ops.squeeze(index, 1)
    if has_traced_shape(index):
        # PyTorch exports the lookup of rows to ONNX, but not that of columns.
        biases = ops.take(ops.transpose(table), index, axis=0)
        return ops.transpose(biases[None] if len(index.shape) == 2 else biases, (0, 3, 1, 2))
    biases = ops.take(table, index, axis=1)
    return ops.expand_dims(biases, 0) if len(index.shape) == 2 else ops.swapaxes(biases, 0, 1)
