"""Scores in which a query meets a vector for the distance to a key."""

from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, register, shape_of
from limelight.core.precision import dot_products, upcast
from limelight.positions.rotary import angles
from limelight.scores.products import same_size
from limelight.scores.score import Score, head_count


@register
class Shaw(LearnedComponent, Score):
    r"""A learned vector for each distance, which the query is multiplied with.

    $$s_{ij} = \frac{1}{\sqrt{H}}\, q_i \cdot a_{\mathrm{clip}(j - i, -k, k)}$$

    Added to another score, `Dot() + Shaw(16)`, it gives the paper's score. The vectors are shared between heads.

    Args:
        max_distance: $k$; keys farther away share the vector of distance $k$.
        initializer: of the vectors, (2k + 1, H).

    Shapes: query (..., T, H), scores (..., T, S). Positions count from the end: the last query stands at the last key.

    Raises:
        ValueError: `max_distance` is not a positive integer.

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.ones((1, 4, 8), "float32")
        >>> tuple(ll.attention_weights(x[:, :2], x, score=ll.scores.Dot() + ll.positions.Shaw(3)).shape)
        (1, 2, 4)

    References:
        Shaw et al. 2018, arXiv:1803.02155; Huang et al. 2019, arXiv:1809.04281 (without vectors for values).
    """

    def __init__(self, max_distance: int, initializer: Any = "glorot_uniform", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(max_distance, int) or max_distance < 1:
            raise ValueError(f"`max_distance` must be a positive integer. Received: max_distance={max_distance!r}.")
        self.max_distance = max_distance
        self.initializer = keras.initializers.get(initializer)

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        shape = (2 * self.max_distance + 1, query_shape[-1])
        self.table = self.add_weight(name="table", shape=shape, initializer=self.initializer, autocast=False)

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        query = upcast(query)
        met = ops.matmul(query, ops.transpose(self.table)) * query.shape[-1] ** -0.5  # (b, n, t, 2k + 1)
        offset = block.key_positions() - block.query_positions()
        index = ops.clip(offset, -self.max_distance, self.max_distance) + self.max_distance  # (..., t, s)
        shape = (*shape_of(met)[:-1], shape_of(index)[-1])
        return ops.take_along_axis(met, ops.broadcast_to(index, shape), axis=-1)


@register
class TransformerXL(LearnedComponent, Score):
    r"""Transformer-XL's score: content and distance, each met by the query and by a learned vector in its place.

    $$s_{ij} = \frac{1}{\sqrt{H}} \left( (q_i + u_n) \cdot k_j + (q_i + v_n) \cdot W_n r_{i-j} \right)$$

    where $r$ are sinusoids. It is a whole score: nothing need be added. Sines of differences are products of sines of positions,
    so that it takes no more room than a dot product.

    Args:
        size: the width E of the sinusoids; that of the query when not given. Even.
        base: the longest wavelength over $2\pi$.
        kernel_initializer: of $W$ (N, E, H). $u$ and $v$, (N, H), start at zero.

    Shapes: query (..., N, T, H), key (..., N, S, H), scores (..., N, T, S). Positions count from the end.

    Raises:
        ValueError: an odd size, or queries and keys of different sizes.

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.ones((1, 2, 4, 8), "float32")
        >>> tuple(ll.attention_weights(x[:, :, :3], x, score=ll.positions.TransformerXL()).shape)
        (1, 2, 3, 4)

    References:
        Dai et al. 2019, arXiv:1901.02860.
    """

    def __init__(
        self,
        size: int | None = None,
        base: float = 10000.0,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if size is not None and (not isinstance(size, int) or size < 2 or size % 2):
            raise ValueError(f"`size` must be an even positive integer or None. Received: size={size!r}.")
        self.size, self.base = size, base
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        heads, width = head_count(query_shape), query_shape[-1]
        size = width + width % 2 if self.size is None else self.size
        kernel: dict[str, Any] = {"initializer": self.kernel_initializer, "autocast": False}
        bias: dict[str, Any] = {"shape": (heads, width), "initializer": "zeros", "autocast": False}
        self.position_kernel = self.add_weight(name="position_kernel", shape=(heads, size, width), **kernel)
        self.content_bias = self.add_weight(name="content_bias", **bias)
        self.position_bias = self.add_weight(name="position_bias", **bias)

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        same_size(query, key, "Transformer-XL's score")
        query, factor = upcast(query), query.shape[-1] ** -0.5
        content, position = (
            ops.add(query, ops.expand_dims(block.heads.of(ops.convert_to_tensor(bias), 0), 1))
            for bias in (self.content_bias, self.position_bias)
        )
        kernel = block.heads.of(ops.convert_to_tensor(self.position_kernel), 0)  # (n, E, H)
        met = ops.matmul(position, ops.transpose(kernel, (0, 2, 1)))  # (b, n, t, E)
        sine, cosine = ops.split(met, 2, axis=-1)
        frequencies = self.base ** (-ops.arange(sine.shape[-1], dtype="float32") / sine.shape[-1])
        here, there = (
            angles(block.query_positions(), frequencies),
            angles(block.key_positions(), frequencies, keys=True),
        )
        here, there = ops.cast(here, sine.dtype), ops.cast(there, sine.dtype)
        turned = ops.concatenate(
            [
                cosine * ops.cos(here) + sine * ops.sin(here),
                cosine * ops.sin(here) - sine * ops.cos(here),
            ],
            axis=-1,
        )
        waves = ops.concatenate([ops.cos(there), ops.sin(there)], axis=-1)
        return (dot_products(content, key) + dot_products(turned, waves)) * factor
