"""Position terms that are added to another score."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, register
from limelight.core.precision import upcast
from limelight.scores.score import Score, Term, head_count


@register
@dataclasses.dataclass(frozen=True)
class ALiBi(Term):
    r"""A penalty that grows with the distance, steeper for some heads than for others.

    $$s_{ij} = -m_n \lvert i - j \rvert, \qquad m_n = 2^{-8 (n + 1) / N}$$

    for a number of heads N that is a power of two; the slopes of other numbers are taken from the powers of two around them,
    as in the paper. Added to another score: `Dot() + ALiBi()`.

    Args:
        largest: the exponent of the last slope, 8 in the paper.

    Shapes: scores (1, N, T, S). Positions count from the end: the last query stands at the last key.

    Raises:
        ValueError: `largest` is not positive.

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.zeros((1, 1, 2, 4), "float32")
        >>> print(np.array(ll.attention_weights(x, x, score=ll.scores.Dot() + ll.positions.ALiBi())).round(4))
        [[[[0.501 0.499]
           [0.499 0.501]]]]

    References:
        Press et al. 2022, arXiv:2108.12409.
    """

    largest: float = 8.0

    def __post_init__(self) -> None:
        if not self.largest > 0:
            raise ValueError(f"`largest` must be positive. Received: largest={self.largest}.")

    def slopes(self, heads: int) -> np.ndarray:
        """The slopes $m_n$ of so many heads, (N,)."""
        power = 2 ** math.floor(math.log2(heads))
        slopes = [2 ** (-self.largest * (head + 1) / power) for head in range(power)]
        # Every other slope of twice as many heads fills up a number that is no power of two.
        slopes += [2 ** (-self.largest * (head + 1) / (2 * power)) for head in range(0, 2 * (heads - power), 2)]
        return np.array(slopes, "float32")

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        distance = ops.abs(block.key_positions() - block.query_positions())
        return -block.align(self.slopes(block.heads.total), "n") * ops.cast(distance, "float32")


@register
class RelativePositionBias(LearnedComponent, Term):
    r"""A learned number for each head and each distance, with the far distances put together in buckets.

    $$s_{ij} = b_{n, \mathrm{bucket}(j - i)}$$

    Half of the buckets hold one distance each; the other half grow exponentially up to `max_distance`, and the last holds all
    beyond. With `bidirectional` one half of all buckets serves keys after the query. Added to another score:
    `Dot() + RelativePositionBias(32)`.

    Args:
        buckets: how many.
        max_distance: the distance from which on all are the same.
        bidirectional: whether keys after the query are told apart; if not, they all count as distance 0.
        initializer: of the numbers, (buckets, N).

    Shapes: scores (1, N, T, S). Positions count from the end: the last query stands at the last key.

    Raises:
        ValueError: too few buckets for the distances.

    Example:
        >>> import numpy as np, limelight as ll
        >>> [int(bucket) for bucket in ll.positions.RelativePositionBias(8, max_distance=8).bucket(np.arange(-9, 4))]
        [3, 3, 3, 3, 3, 3, 2, 2, 1, 0, 5, 6, 6]

    References:
        Raffel et al. 2020, arXiv:1910.10683.
    """

    def __init__(
        self,
        buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = True,
        initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        smallest = 4 if bidirectional else 2
        if not isinstance(buckets, int) or buckets < smallest or buckets % 2:
            raise ValueError(
                f"`buckets` must be an even integer of at least {smallest}. Received: buckets={buckets!r}."
            )
        if max_distance <= buckets // smallest:
            raise ValueError(
                f"`max_distance` must be more than {buckets // smallest}, the distances that have a bucket of their own. "
                f"Received: max_distance={max_distance} with buckets={buckets}."
            )
        self.buckets, self.max_distance, self.bidirectional = buckets, max_distance, bidirectional
        self.initializer = keras.initializers.get(initializer)

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        shape = (self.buckets, head_count(query_shape))
        self.table = self.add_weight(name="table", shape=shape, initializer=self.initializer, autocast=False)

    def bucket(self, offsets: Any) -> Any:
        """The bucket of each offset j - i, int32."""
        count = self.buckets // 2 if self.bidirectional else self.buckets
        exact = count // 2
        # A table made once in float64: logarithms at run time would round differently on every backend.
        far = np.arange(exact, self.max_distance + 1)
        grown = exact + np.log(far / exact) / np.log(self.max_distance / exact) * (count - exact) + 1e-9
        by_distance = np.concatenate([np.arange(exact), np.minimum(grown.astype("int32"), count - 1)]).astype("int32")
        offsets = ops.convert_to_tensor(offsets, dtype="int32")
        if self.bidirectional:
            after, distance = ops.cast(offsets > 0, "int32") * count, ops.abs(offsets)
        else:
            after, distance = 0, ops.maximum(-offsets, 0)
        return after + ops.take(by_distance, ops.minimum(distance, self.max_distance))

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        heads = ops.transpose(block.heads.of(ops.convert_to_tensor(self.table), 1))  # (n, buckets)
        return by_head(heads, self.bucket(block.key_positions() - block.query_positions()))


@register
class GaussianWindow(LearnedComponent, Score):
    r"""Luong's predictive local attention: each query says where to look, and keys far from there lose.

    $$s_{ij} = -\frac{(j - p_i)^2}{2 \sigma^2}, \qquad p_i = S\,\sigma_{\mathrm{logistic}}(v^\top \tanh(W q_i)), \qquad
    \sigma = D / 2$$

    Added to another score, `Bilinear() + GaussianWindow(5.0)`, it multiplies the weights by a Gaussian before they are normalised.
    (Luong et al. multiply after; their weights do not sum to one.) S is the number of keys up to the last that is not padding.

    Args:
        width: D, how far from $p_i$ a query looks; $\sigma$ is half of it.
        units: width of the hidden layer; that of the query when not given.
        kernel_initializer: of $W$ (H, units) and $v$ (units, 1).

    Shapes: query (..., T, H), scores (..., T, S). Keys count 0, 1, 2, ... unless positions are given.

    Raises:
        ValueError: a width that is not positive.

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.zeros((2, 3), "float32")
        >>> print(np.array(ll.attention_weights(x, x, score=ll.positions.GaussianWindow(2.0))).round(2))
        [[0.38 0.62]
         [0.38 0.62]]

    References:
        Luong et al. 2015, arXiv:1508.04025 (local-p).
    """

    def __init__(
        self, width: float, units: int | None = None, kernel_initializer: Any = "glorot_uniform", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not width > 0:
            raise ValueError(f"`width` must be positive. Received: width={width}.")
        self.width, self.units = width, units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        units = query_shape[-1] if self.units is None else self.units
        for name, shape in (("query_kernel", (query_shape[-1], units)), ("readout", (units, 1))):
            initializer = self.kernel_initializer.clone()
            setattr(self, name, self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False))

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        hidden = ops.tanh(ops.matmul(upcast(query), self.query_kernel))
        share = ops.sigmoid(ops.matmul(hidden, self.readout))  # (b, n, t, 1)
        given = None if block.kv_lengths is None else block.kv_lengths()
        kv_lengths = block.columns.total if given is None else block.align(given, "b")
        distance = ops.cast(block.key_positions(), share.dtype) - share * ops.cast(kv_lengths, share.dtype)
        return -2.0 * ops.square(distance / self.width)


def by_head(table: Any, index: Any) -> Any:
    """Entries of a table (n, size) by an index (t, s) or (b, 1, t, s): (1, n, t, s) or (b, n, t, s)."""
    if len(index.shape) == 2:
        return ops.expand_dims(ops.take(table, index, axis=1), 0)
    return ops.swapaxes(ops.take(table, ops.squeeze(index, 1), axis=1), 0, 1)
