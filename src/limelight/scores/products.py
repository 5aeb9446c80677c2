"""Scores made of dot products: dot, bilinear, cosine and negative squared distance."""

import dataclasses
import math
from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, register
from limelight.core.precision import dot_products, project, upcast
from limelight.core.shapes import size_of
from limelight.core.validation import check_positive
from limelight.scores.score import Score, get_num_heads

# Up to this number of features, a squared distance is computed from differences, one feature after another.
MAX_SUBTRACTED_FEATURES = 4


@register
@dataclasses.dataclass(frozen=True)
class Dot(Score):
    r"""Scaled dot product of query and key.

    $$s_{ij} = c\,q_i \cdot k_j$$

    Args:
        scale: The factor $c$; None for $1/\sqrt{H}$, 1.0 for the unscaled product. `LearnedScale(Dot())` learns a factor.

    Shapes: query (..., T, H), key (..., S, H), scores (..., T, S). Products are accumulated in float32 or wider, so that
    float16 does not overflow.

    Raises:
        ValueError: Queries and keys differ in size.

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
        """Return the factor $c$ for heads of the given size."""
        return size**-0.5 if self.scale is None else self.scale

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        check_same_size(query, key, "A dot product")
        scores, factor = dot_products(query, key), self.factor(size_of(query, -1))
        return scores if factor == 1 else scores * factor


@register
class Bilinear(LearnedComponent, Score):
    r"""Luong's "general" score: a learned matrix between query and key, which may differ in size.

    $$s_{ij} = q_i^\top W k_j$$

    Args:
        kernel_initializer, kernel_regularizer: Those of $W$ (H, G).

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
        return dot_products(project(upcast(query), self.kernel), key)

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, Score]:
        return project(upcast(query), self.kernel), key, Dot(scale=1.0)


@register
class Cosine(LearnedComponent, Score):
    r"""Cosine similarity of query and key, divided by a learned temperature for each head.

    $$s_{ij} = \frac{1}{\tau_n} \frac{q_i \cdot k_j}{\lVert q_i \rVert \lVert k_j \rVert}, \qquad
    \frac{1}{\tau_n} = \min(e^{\theta_n}, c_{\max})$$

    A zero vector has cosine 0 with every other.

    Args:
        scale: The initial value of $1/\tau$.
        max_scale: The upper bound $c_{\max}$.

    Shapes: query (..., N, T, H), key (..., N, S, H), scores (..., N, T, S); $\theta$ (N,).

    Raises:
        ValueError: `scale` is not in $(0, c_{\max}]$, or queries and keys differ in size.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> query, key = np.array([[2.0, 0.0]]), np.array([[5.0, 0.0], [0.0, 1.0]])
        >>> weights = ll.attention_weights(query, key, score=ll.scores.Cosine(scale=1.0))
        >>> print(keras.ops.convert_to_numpy(weights).round(3))
        [[0.731 0.269]]

    References:
        Graves et al. 2014, arXiv:1410.5401; Liu et al. 2022, arXiv:2111.09883 (a temperature for each head).
    """

    def __init__(self, scale: float = 10.0, max_scale: float = 100.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < scale <= max_scale:
            raise ValueError(
                f"`scale` must be positive and at most `max_scale`. Received: scale={scale}, max_scale={max_scale}."
            )
        self.scale, self.max_scale = scale, max_scale

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        initializer = keras.initializers.Constant(math.log(self.scale))
        shape = (get_num_heads(query_shape),)
        self.log_scale = self.add_weight(name="log_scale", shape=shape, initializer=initializer, autocast=False)

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        query, key, dot = self.prepare(query, key, block=block)
        return dot(query, key, block=block)

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, Score]:
        check_same_size(query, key, "A cosine")
        scale = ops.exp(ops.minimum(ops.convert_to_tensor(self.log_scale), math.log(self.max_scale)))
        query = l2_normalize(query)
        return query * block.slice(ops.cast(scale, query.dtype), "n"), l2_normalize(key), Dot(scale=1.0)


@register
@dataclasses.dataclass(frozen=True)
class NegativeSquaredDistance(Score):
    r"""Negative squared Euclidean distance of query and key.

    $$s_{ij} = -c\,\lVert q_i - k_j \rVert^2$$

    With softmax it is a Gaussian kernel smoother (Nadaraya-Watson) of variance $1/2c$. With more than 4 features it is computed
    as $2 q \cdot k - \lVert q \rVert^2 - \lVert k \rVert^2$, with an error of about $10^{-7} c \lVert q \rVert^2$ in float32:
    center vectors that lie far from the origin.

    Args:
        scale: The factor $c > 0$.

    Shapes: query (..., T, H), key (..., S, H), scores (..., T, S).

    Raises:
        ValueError: `scale` is not positive, or queries and keys differ in size.

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
        check_positive("scale", self.scale)

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        check_same_size(query, key, "A distance")
        query, key = upcast(query), upcast(key)
        size = size_of(query, -1)
        if size <= MAX_SUBTRACTED_FEATURES:
            # Few features are often times or coordinates, large numbers with small differences, which would cancel below.
            total = 0.0
            for feature in range(size):
                column = ops.swapaxes(key[..., feature : feature + 1], -1, -2)
                total = total + ops.square(query[..., feature : feature + 1] - column)
            return -self.scale * total
        # The differences themselves would need H times the memory.
        squares = squared_norm(query) + ops.swapaxes(squared_norm(key), -1, -2)  # (..., t, s)
        return self.scale * (2.0 * dot_products(query, key) - squares)


def squared_norm(tensor: Any) -> Any:
    """Compute the squared norm of each vector, (..., t, 1)."""
    return ops.sum(tensor * tensor, axis=-1, keepdims=True)


def l2_normalize(tensor: Any) -> Any:
    """Normalize vectors to length 1, in float32 or wider. Zero vectors stay zero."""
    tensor = upcast(tensor)
    total = squared_norm(tensor)
    # Not compared with 0: some devices take numbers below 1e-38 for it, others do not.
    return tensor * ops.rsqrt(ops.where(total < 1e-30, 1.0, total))


def check_same_size(query: Any, key: Any, name: str) -> None:
    """Raise ValueError unless queries and keys have the same size; `name` is that of the score."""
    if size_of(query, -1) != size_of(key, -1):
        raise ValueError(
            f"{name} needs query and key of the same size. Received: query size {query.shape[-1]}, key size "
            f"{key.shape[-1]}. Use Bilinear() or Additive(units), which take different sizes, or project one of them."
        )
