"""Scores that are products: dot, bilinear, cosine, and the distance that is made of them."""

import dataclasses
import math
from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, register
from limelight.core.precision import dot_products, upcast
from limelight.scores.score import Score, head_count

# Of so many features a distance is the sum of the squares of their differences, which are held one after another.
FEW = 4


@register
@dataclasses.dataclass(frozen=True)
class Dot(Score):
    r"""Dot product of query and key.

    $$s_{ij} = c\,q_i \cdot k_j$$ with $c = 1/\sqrt{H}$ unless it is given.

    Args:
        scale: the factor $c$; None for $1/\sqrt{H}$, 1.0 for the unscaled product. `LearnedScale(Dot())` learns a factor.

    Shapes: query (..., T, H), key (..., S, H), scores (..., T, S). The product is accumulated in float32 or wider, so that
    float16 does not overflow.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.array([[2.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> print(np.array(ll.attention_weights(query, key, score=ll.scores.Dot(scale=1.0))).round(3))
        [[0.881 0.119]]

    References:
        Luong et al. 2015, arXiv:1508.04025 (unscaled); Vaswani et al. 2017, arXiv:1706.03762 (scaled).
    """

    scale: float | None = None

    def factor(self, size: int) -> float:
        """The number that the product is multiplied by, for heads of the given size."""
        return size**-0.5 if self.scale is None else self.scale

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        same_size(query, key, "A dot product")
        found, factor = dot_products(query, key), self.factor(query.shape[-1])
        return found if factor == 1 else found * factor


@register
class Bilinear(LearnedComponent, Score):
    r"""Luong's general score: a learned matrix between query and key, which may differ in size.

    $$s_{ij} = q_i^\top W k_j$$

    Args:
        kernel_initializer, kernel_regularizer: of $W$, shape (query size, key size).

    Shapes: query (..., T, H), key (..., S, G), scores (..., T, S).

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.ones((1, 2, 3), "float32"), np.ones((1, 5, 4), "float32")
        >>> tuple(ll.attention_weights(query, key, score=ll.scores.Bilinear()).shape)
        (1, 2, 5)

    References:
        Luong et al. 2015, arXiv:1508.04025.
    """

    def __init__(
        self, kernel_initializer: Any = "glorot_uniform", kernel_regularizer: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(query_shape[-1], key_shape[-1]),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            autocast=False,
        )

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        return dot_products(ops.matmul(upcast(query), self.kernel), key)

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, Score]:
        return ops.matmul(upcast(query), self.kernel), key, Dot(scale=1.0)


@register
class Cosine(LearnedComponent, Score):
    r"""The cosine between query and key, over a learned temperature for each head.

    $$s_{ij} = \frac{1}{\tau_n} \frac{q_i \cdot k_j}{\lVert q_i \rVert \lVert k_j \rVert}, \qquad
    \frac{1}{\tau_n} = \min(e^{\theta_n}, c_{\max})$$

    A vector of zeros has the cosine 0 with every other.

    Args:
        scale: the first value of $1/\tau$.
        largest: $c_{\max}$.

    Shapes: query (..., N, T, H), key (..., N, S, H), scores (..., N, T, S); $\theta$ (N,).

    Raises:
        ValueError: a scale that is not positive, or above the largest.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.array([[2.0, 0.0]]), np.array([[5.0, 0.0], [0.0, 1.0]])
        >>> print(np.array(ll.attention_weights(query, key, score=ll.scores.Cosine(scale=1.0))).round(3))
        [[0.731 0.269]]

    References:
        Graves et al. 2014, arXiv:1410.5401; Liu et al. 2022, arXiv:2111.09883 (a temperature for each head).
    """

    def __init__(self, scale: float = 10.0, largest: float = 100.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < scale <= largest:
            raise ValueError(
                f"`scale` must be positive and at most `largest`. Received: scale={scale}, largest={largest}."
            )
        self.scale, self.largest = scale, largest

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        first = keras.initializers.Constant(math.log(self.scale))
        shape = (head_count(query_shape),)
        self.log_scale = self.add_weight(name="log_scale", shape=shape, initializer=first, autocast=False)

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        query, key, dot = self.prepare(query, key, block=block)
        return dot(query, key, block=block)

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, Score]:
        same_size(query, key, "A cosine")
        scale = ops.exp(ops.minimum(ops.convert_to_tensor(self.log_scale), math.log(self.largest)))
        query = unit(query)
        return query * block.align(ops.cast(scale, query.dtype), "n"), unit(key), Dot(scale=1.0)


@register
@dataclasses.dataclass(frozen=True)
class NegativeSquaredDistance(Score):
    r"""The squared distance between query and key, negative.

    $$s_{ij} = -c\,\lVert q_i - k_j \rVert^2$$

    With softmax it is a Gaussian kernel smoother (Nadaraya-Watson) of variance $1/2c$. Of more than 4 features it is multiplied
    out, which is exact to about $10^{-7} c \lVert q \rVert^2$ in float32: vectors that lie far from the origin are centred first.

    Args:
        scale: the factor $c > 0$.

    Shapes: query (..., T, H), key (..., S, H), scores (..., T, S).

    Raises:
        ValueError: the scale is not positive.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.array([[0.0]]), np.array([[0.0], [1.0]])
        >>> print(np.array(ll.attention_weights(query, key, score=ll.scores.NegativeSquaredDistance())).round(3))
        [[0.731 0.269]]

    References:
        Tsai et al. 2019, arXiv:1908.11775; Kim et al. 2021, arXiv:2006.04710.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"`scale` must be positive. Received: scale={self.scale}.")

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        same_size(query, key, "A distance")
        query, key = upcast(query), upcast(key)
        if query.shape[-1] <= FEW:
            # Of times and places the differences are small beside the numbers: multiplied out, nothing would be left of them.
            total = 0.0
            for feature in range(query.shape[-1]):
                there = ops.swapaxes(key[..., feature : feature + 1], -1, -2)
                total = total + ops.square(query[..., feature : feature + 1] - there)
            return -self.scale * total
        # Multiplied out: the differences themselves would take H times the room.
        squares = squared(query) + ops.swapaxes(squared(key), -1, -2)  # (..., t, s)
        return self.scale * (2.0 * dot_products(query, key) - squares)


def squared(tensor: Any) -> Any:
    """The squared length of each vector, (..., t, 1)."""
    return ops.sum(tensor * tensor, axis=-1, keepdims=True)


def unit(tensor: Any) -> Any:
    """Vectors of length 1, in float32 or wider; zeros stay zeros."""
    tensor = upcast(tensor)
    return tensor * ops.rsqrt(ops.maximum(squared(tensor), 1e-12))


def same_size(query: Any, key: Any, what: str) -> None:
    """Raise where queries and keys are of different sizes."""
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(
            f"{what} needs query and key of the same size. Received: query size {query.shape[-1]}, key size "
            f"{key.shape[-1]}. Use Bilinear() or Additive(units), which take different sizes, or project one of them."
        )
