"""Scores of a query and an embedding of its distance to the key."""

from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, register
from limelight.core.precision import dot_products, project, upcast
from limelight.core.shapes import shape_of, size_of, take_along_last_axis
from limelight.core.validation import check_positive_int
from limelight.positions.rotary import rotary_angles
from limelight.scores.products import check_same_size
from limelight.scores.score import Score, get_num_heads


@register
class Shaw(LearnedComponent, Score):
    r"""Shaw's relative position embeddings: the query times a learned vector for each distance. Use as `Dot() + Shaw(16)`.

    $$s_{ij} = \frac{1}{\sqrt{H}}\, q_i \cdot a_{\mathrm{clip}(j - i, -k, k)}$$

    The vectors are shared between heads.

    Args:
        max_distance: $k$; larger distances share the vectors of distance $k$.
        initializer: The initializer of the vectors, (2k + 1, H).

    Shapes: query (..., T, H), scores (..., T, S). By default the last query is at the position of the last key.

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
        check_positive_int("max_distance", max_distance)
        self.max_distance = max_distance
        self.initializer = keras.initializers.get(initializer)

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        shape = (2 * self.max_distance + 1, query_shape[-1])
        self.table = self.add_weight(name="table", shape=shape, initializer=self.initializer, autocast=False)

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        query = upcast(query)
        products = project(query, ops.transpose(self.table)) * size_of(query, -1) ** -0.5  # (b, n, t, 2k + 1)
        offset = block.key_positions() - block.query_positions()
        index = ops.clip(offset, -self.max_distance, self.max_distance) + self.max_distance  # (..., t, s)
        shape = (*shape_of(products)[:-1], shape_of(index)[-1])
        return take_along_last_axis(products, ops.broadcast_to(index, shape))


@register
class TransformerXL(LearnedComponent, Score):
    r"""Transformer-XL's score: a dot product with the key and one with an embedding of the distance, each with a learned bias.

    $$s_{ij} = \frac{1}{\sqrt{H}} \left( (q_i + u_n) \cdot k_j + (q_i + v_n) \cdot W_n r_{i-j} \right)$$

    where $r$ are sinusoids. It is a complete score, not to be added to `Dot()`. Sinusoids of differences are computed from
    sinusoids of positions, so that it needs no more memory than a dot product.

    Args:
        size: The even size E of the sinusoids; None for that of the query.
        base: The longest wavelength over $2\pi$.
        kernel_initializer: The initializer of $W$ (N, E, H). $u$ and $v$, (N, H), are initialized with zeros.

    Shapes: query (..., N, T, H), key (..., N, S, H), scores (..., N, T, S). By default the last query is
    at the position of the last key.

    Raises:
        ValueError: `size` is not even and positive, or queries and keys differ in size.

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
        num_heads, width = get_num_heads(query_shape), query_shape[-1]
        size = width + width % 2 if self.size is None else self.size
        kernel: dict[str, Any] = {"initializer": self.kernel_initializer, "autocast": False}
        bias: dict[str, Any] = {"shape": (num_heads, width), "initializer": "zeros", "autocast": False}
        self.position_kernel = self.add_weight(name="position_kernel", shape=(num_heads, size, width), **kernel)
        self.content_bias = self.add_weight(name="content_bias", **bias)
        self.position_bias = self.add_weight(name="position_bias", **bias)

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        check_same_size(query, key, "Transformer-XL's score")
        query, factor = upcast(query), size_of(query, -1) ** -0.5
        content, position = (
            ops.add(query, ops.expand_dims(block.heads.take(ops.convert_to_tensor(bias), 0), 1))
            for bias in (self.content_bias, self.position_bias)
        )
        kernel = block.heads.take(ops.convert_to_tensor(self.position_kernel), 0)  # (n, E, H)
        products = ops.matmul(position, ops.transpose(kernel, (0, 2, 1)))  # (b, n, t, E)
        sine, cosine = ops.split(products, 2, axis=-1)
        size = size_of(sine, -1)
        frequencies = self.base ** (-ops.arange(size, dtype="float32") / size)
        query_angles = ops.cast(rotary_angles(block.query_positions(), frequencies), sine.dtype)
        key_angles = ops.cast(rotary_angles(block.key_positions(), frequencies, keys=True), sine.dtype)
        rotated = ops.concatenate(
            [
                cosine * ops.cos(query_angles) + sine * ops.sin(query_angles),
                cosine * ops.sin(query_angles) - sine * ops.cos(query_angles),
            ],
            axis=-1,
        )
        sinusoids = ops.concatenate([ops.cos(key_angles), ops.sin(key_angles)], axis=-1)
        return (dot_products(content, key) + dot_products(rotated, sinusoids)) * factor
