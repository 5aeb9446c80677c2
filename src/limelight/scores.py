"""Scores: how well a query and a key match, before any normalisation."""

import dataclasses
from typing import Any

import keras
from keras import ops

from limelight.parts import Part, chosen, register, restored
from limelight.product import product, widened
from limelight.tile import Tile


class Score(Part):
    """Scores of queries against keys.

    It is called with a block of queries (b, n, t, H), a block of keys (b, n, s, H) and the tile that says where the block lies,
    and returns scores (b, n, t, s), or what broadcasts to them, in float32 or wider.
    """

    def __call__(self, query: Any, key: Any, *, tile: Tile) -> Any:
        """Scores of one block."""
        raise NotImplementedError

    def __add__(self, other: "Score") -> "Sum":
        if not isinstance(other, Score):
            raise TypeError(
                f"A score adds to another score. Received: {other!r} of type {type(other).__name__}. "
                "Wrap an additive bias as limelight.Bias(array)."
            )
        return Sum(self, other)


@register
class Sum(keras.Layer, Score):
    r"""Two scores added.

    $$s_{ij} = a_{ij} + b_{ij}$$

    Written as `first + second`.

    Args:
        left, right: the scores.
    """

    def __init__(self, left: Score, right: Score, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.left, self.right = restored(left), restored(right)
        self.supports_masking = True

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        build(self.left, query_shape, key_shape)
        build(self.right, query_shape, key_shape)

    def call(self, query: Any, key: Any, tile: Tile | None = None) -> Any:
        return self.left(query, key, tile=tile) + self.right(query, key, tile=tile)

    def get_config(self) -> dict[str, Any]:
        return {
            **keras.Layer.get_config(self),
            "left": keras.saving.serialize_keras_object(self.left),
            "right": keras.saving.serialize_keras_object(self.right),
        }


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Bias(Score):
    r"""A bias that is given for one call.

    $$s_{ij} = b_{ij}$$

    Args:
        array: float, broadcastable to (B, N, T, S). To forbid, use a mask: a large negative bias can leak.

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.zeros((2, 3), "float32")
        >>> print(np.array(ll.weigh(x, x, score=ll.Dot() + ll.Bias(np.log([[1.0, 3.0]])))))
        [[0.25 0.75]
         [0.25 0.75]]
    """

    array: Any

    def __call__(self, query: Any, key: Any, *, tile: Tile) -> Any:
        array = widened(ops.convert_to_tensor(self.array))
        return tile.align(array, "bnts" if len(array.shape) > 2 else "ts")


@register
@dataclasses.dataclass(frozen=True)
class Dot(Score):
    r"""Dot product of query and key.

    $$s_{ij} = c\,q_i \cdot k_j$$ with $c = 1/\sqrt{H}$ unless it is given.

    Args:
        scale: the factor $c$; None for $1/\sqrt{H}$, 1.0 for the unscaled product.

    Shapes: query (..., T, H), key (..., S, H), scores (..., T, S). The product is accumulated in float32 or wider, so that
    float16 does not overflow.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.array([[2.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> print(np.array(ll.weigh(query, key, score=ll.Dot(scale=1.0))).round(3))
        [[0.881 0.119]]

    References:
        Luong et al. 2015, arXiv:1508.04025 (unscaled); Vaswani et al. 2017, arXiv:1706.03762 (scaled).
    """

    scale: float | None = None

    def factor(self, size: int) -> float:
        """The number that the product is multiplied by, for heads of the given size."""
        return size**-0.5 if self.scale is None else self.scale

    def __call__(self, query: Any, key: Any, *, tile: Tile) -> Any:
        if query.shape[-1] != key.shape[-1]:
            raise ValueError(
                f"A dot product needs query and key of the same size. Received: query size {query.shape[-1]}, key size "
                f"{key.shape[-1]}. Use Bilinear() or Additive(units), which take different sizes, or project one of them."
            )
        return product(query, key) * self.factor(query.shape[-1])


@register
class Bilinear(keras.Layer, Score):
    r"""Luong's general score: a learned matrix between query and key, which may differ in size.

    $$s_{ij} = q_i^\top W k_j$$

    Args:
        kernel_initializer, kernel_regularizer: of $W$, shape (query size, key size).

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.ones((1, 2, 3), "float32"), np.ones((1, 5, 4), "float32")
        >>> tuple(ll.weigh(query, key, score=ll.Bilinear()).shape)
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
        self.supports_masking = True

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(query_shape[-1], key_shape[-1]),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )

    def call(self, query: Any, key: Any, tile: Tile | None = None) -> Any:
        return product(ops.matmul(query, self.kernel), key)

    def get_config(self) -> dict[str, Any]:
        return {
            **keras.Layer.get_config(self),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


@register
class Additive(keras.Layer, Score):
    r"""Bahdanau's score: a small network of one hidden layer over query and key, which may differ in size.

    $$s_{ij} = v^\top \tanh(W q_i + U k_j + b)$$

    Args:
        units: width of the hidden layer.
        kernel_initializer, kernel_regularizer: of $W$ (query size, units), $U$ (key size, units) and $v$ (units,).

    Raises:
        ValueError: `units` is not a positive integer.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.ones((1, 2, 3), "float32"), np.ones((1, 5, 4), "float32")
        >>> tuple(ll.weigh(query, key, score=ll.Additive(7)).shape)
        (1, 2, 5)

    References:
        Bahdanau et al. 2015, arXiv:1409.0473.
    """

    def __init__(
        self, units: int, kernel_initializer: Any = "glorot_uniform", kernel_regularizer: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(units, int) or units < 1:
            raise ValueError(f"`units` must be a positive integer. Received: units={units!r}.")
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.supports_masking = True

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        learned: dict[str, Any] = {"initializer": self.kernel_initializer, "regularizer": self.kernel_regularizer}
        self.query_kernel = self.add_weight(name="query_kernel", shape=(query_shape[-1], self.units), **learned)
        self.key_kernel = self.add_weight(name="key_kernel", shape=(key_shape[-1], self.units), **learned)
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")
        # Glorot over a vector: as if it were the matrix (units, 1) that it stands for.
        self.readout = self.add_weight(name="readout", shape=(self.units, 1), **learned)

    def call(self, query: Any, key: Any, tile: Tile | None = None) -> Any:
        queries = ops.expand_dims(ops.matmul(query, self.query_kernel) + self.bias, -2)  # (..., t, 1, units)
        keys = ops.expand_dims(ops.matmul(key, self.key_kernel), -3)  # (..., 1, s, units)
        return widened(ops.squeeze(ops.matmul(ops.tanh(queries + keys), self.readout), -1))

    def get_config(self) -> dict[str, Any]:
        return {
            **keras.Layer.get_config(self),
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


SCORES: dict[str, type] = {"dot": Dot, "bilinear": Bilinear}


def get(value: Any) -> Score:
    """A score from a score, its name, or None for the scaled dot product.

    Raises:
        ValueError: an unknown name.
        TypeError: something that is not a score.
    """
    return Dot() if value is None else chosen(value, SCORES, Score, "score")


def build(score: Any, query_shape: tuple, key_shape: tuple) -> None:
    """Build a score that learns, for queries and keys of the given shapes; nothing for one that does not."""
    if isinstance(score, keras.Layer) and not score.built:
        score.build(query_shape, key_shape)
