"""Linear attention: feature maps replace the exponential, so that keys and values are summed once for all queries."""

from typing import Any

import keras
import numpy as np
from keras import ops

from limelight import functional, masks, normalizers, scores
from limelight.core.component import LearnedComponent, deserialize, register
from limelight.core.precision import upcast
from limelight.core.validation import check_positive_int
from limelight.engine.call import AttentionCall, make_call
from limelight.layers.kv_cache import zero_padding
from limelight.layers.projections import (
    ProjectionConfig,
    get_sublayer_policy,
    serialize_dtype_policies,
    zero_padded_inputs,
)

# Number of steps that the causal form computes at once: the scores within a chunk are materialised, those between chunks are not.
CHUNK_SIZE = 64


class Features(LearnedComponent):
    """A feature map of queries or keys. Abstract.

    It is called with a tensor (B, N, T, H) in float32 or wider, for keys the mask (B, 1, S, 1) or None, and `keys`, and returns
    nonnegative features (B, N, T, M). Features of a key that depend on other keys need `map_causal_keys` too.
    """

    def map_causal_keys(self, tensor: Any, mask: Any) -> Any:
        """Return the features of keys, each of which depends on no later one."""
        return self(tensor, mask, keys=True)


@register
class EluFeatures(Features):
    r"""The feature map $\phi(x) = \mathrm{elu}(x) + 1$.

    References:
        Katharopoulos et al. 2020, arXiv:2006.16236.
    """

    def build(self, shape: tuple, *others: tuple) -> None:
        pass

    def call(self, tensor: Any, mask: Any, *, keys: bool) -> Any:
        return ops.elu(tensor) + 1.0


@register
class ReluFeatures(Features):
    r"""The feature map $\phi(x) = \max(x, 0) + \epsilon$.

    Args:
        epsilon: $\epsilon$, which keeps the sum of a query's weights positive.

    References:
        Choromanski et al. 2021, arXiv:2009.14794.
    """

    def __init__(self, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, shape: tuple, *others: tuple) -> None:
        pass

    def call(self, tensor: Any, mask: Any, *, keys: bool) -> Any:
        return ops.relu(tensor) + self.epsilon


@register
class FavorFeatures(Features):
    r"""Performer's positive orthogonal random features, whose products approximate the exponential of the scaled dot product.

    $$\phi(x)_f = \exp(\omega_f \cdot \hat x - \lVert \hat x \rVert^2 / 2), \qquad \hat x = x / H^{1/4}$$

    In causal attention the exponent of a key is clipped to -60 .. 60.

    Args:
        num_features: Number of features; $H \ln H$, rounded up, when not given.
        seed: Seed of the random directions $\omega_f$.

    Raises:
        ValueError: `num_features` is not a positive integer.

    References:
        Choromanski et al. 2021, arXiv:2009.14794.
    """

    def __init__(self, num_features: int | None = None, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_positive_int("num_features", num_features, optional=True)
        self.num_features, self.seed = num_features, seed

    def build(self, shape: tuple, *others: tuple) -> None:
        size = shape[-1]
        default = int(np.ceil(size * np.log(max(size, 2))))
        self.directions = self.add_weight(
            name="directions",
            shape=(size, default if self.num_features is None else self.num_features),
            initializer=Orthogonal(self.seed),
            trainable=False,
            autocast=False,
        )

    def _compute_exponent(self, tensor: Any) -> Any:
        tensor = tensor * tensor.shape[-1] ** -0.25
        return ops.matmul(tensor, self.directions) - ops.sum(tensor * tensor, axis=-1, keepdims=True) / 2

    def map_causal_keys(self, tensor: Any, mask: Any) -> Any:
        # The largest exponent may be that of a later key. Those of usual keys are about 0, and between these bounds the
        # exponential is in the range of float32.
        return ops.exp(ops.clip(self._compute_exponent(tensor), -60.0, 60.0))

    def call(self, tensor: Any, mask: Any, *, keys: bool) -> Any:
        exponent = self._compute_exponent(tensor)
        # A factor of each query, or of all keys of a head, cancels in the quotient: it keeps the exponential in range.
        masked = exponent if mask is None else ops.where(mask, exponent, -3.0e38)
        maximum = ops.stop_gradient(ops.max(masked, axis=(-2, -1) if keys else -1, keepdims=True, initial=-3.0e38))
        exponent = exponent - ops.where(maximum <= -3.0e38, 0.0, maximum)
        return ops.exp(exponent if mask is None else ops.where(mask, exponent, 0.0)) + 1e-10


@register
class Orthogonal(keras.initializers.Initializer):
    """Initializer with random directions (size, count): orthogonal within each `size` of them, with the norms of normal vectors.

    Args:
        seed: Seed of the directions; a new one for each weight when not given.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def __call__(self, shape: tuple, dtype: Any = None) -> Any:
        size, count = shape
        seed = keras.random.randint((), 0, 2**31 - 1, dtype="int32") if self.seed is None else self.seed
        random = np.random.default_rng(int(ops.convert_to_numpy(seed)))
        blocks = [np.linalg.qr(random.normal(size=(size, size)))[0] for _ in range(-(-count // size))]
        norms = np.linalg.norm(random.normal(size=(count, size)), axis=1)
        return ops.convert_to_tensor(np.concatenate(blocks, axis=1)[:, :count] * norms, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


FEATURES: dict[str, type[Features]] = {"elu": EluFeatures, "relu": ReluFeatures, "favor": FavorFeatures}


@register
class LinearAttention(keras.Layer):
    r"""Multi-head attention whose time and memory grow linearly with the length.

    $$y_i = \frac{\phi(q_i)^\top \sum_j \phi(k_j)\, v_j^\top}{\phi(q_i)^\top \sum_j \phi(k_j)}$$

    with sums over all j, or over j up to i in the causal form.

    Args:
        num_heads: N.
        key_dim: H, the size of each head's queries and keys.
        value_dim: Size of each head's values; `key_dim` when not given.
        features: The feature map $\phi$, which must not be negative: "elu" for elu(x) + 1, "relu", or "favor" for Performer's
            positive random features, which approximate softmax; or a `limelight.layers.Features`.
        causal: Whether a step attends only to itself and those before it. There must then be as many queries as keys.
        use_bias: Whether the projections add a bias.
        output_shape: Width of the output; that of the query when not given.
        kernel_initializer: Initializer of the projections.

    Call arguments:
        query: (B, T, D).
        value: (B, S, D).
        key: (B, S, D); the value when not given.
        query_mask: Bool (B, T), True where a step is real; Keras's implicit mask when not given.
        value_mask, key_mask: Bool (B, S), likewise.
        return_attention_scores: Whether to return the weights too. They are computed for this only, and take T x S numbers.

    Returns:
        The output (B, T, D), with the query's mask. With `return_attention_scores`, also the weights (B, N, T, S), which sum to
        one.

    Raises:
        ValueError: A size is not a positive integer, the features are unknown, or the lengths differ in the causal form.

    Example:
        >>> import keras, limelight as ll
        >>> steps = keras.Input((None, 32))
        >>> ll.layers.LinearAttention(4, 8, causal=True)(steps, steps).shape
        (None, None, 32)

    References:
        Katharopoulos et al. 2020, arXiv:2006.16236 (elu); Choromanski et al. 2021, arXiv:2009.14794 (Performer).
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        *,
        features: Any = "elu",
        causal: bool = False,
        use_bias: bool = True,
        output_shape: int | None = None,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        value_dim = key_dim if value_dim is None else value_dim
        for name, size in (("num_heads", num_heads), ("key_dim", key_dim), ("value_dim", value_dim)):
            check_positive_int(name, size)
        self.num_heads, self.key_dim, self.value_dim = num_heads, key_dim, value_dim
        self.causal, self.use_bias, self._output_width = causal, use_bias, output_shape
        self.features = _resolve_features(deserialize(features))
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def build(self, query_shape: tuple, value_shape: tuple, key_shape: tuple | None = None) -> None:
        key_shape = value_shape if key_shape is None else key_shape
        projections = ProjectionConfig(self.use_bias, self.kernel_initializer)

        def split_heads(name: str, shape: tuple, head_dim: int) -> keras.layers.EinsumDense:
            policy = get_sublayer_policy(self, name)
            return projections.split_heads(shape, self.num_heads, head_dim, name=name, dtype=policy)

        self.query_dense = split_heads("query", query_shape, self.key_dim)
        self.key_dense = split_heads("key", key_shape, self.key_dim)
        self.value_dense = split_heads("value", value_shape, self.value_dim)
        self.output_dense = projections.merge_heads(
            (*query_shape[:-1], self.num_heads, self.value_dim),
            (self._output_width or query_shape[-1],),
            name="attention_output",
            dtype=get_sublayer_policy(self, "attention_output"),
        )
        if not self.features.built:
            self.features.build((query_shape[0], self.num_heads, None, self.key_dim))

    def call(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        return_attention_scores: bool = False,
    ) -> Any:
        key = value if key is None else key
        mask = None
        for padding in (value_mask, key_mask):
            if padding is not None:
                padding = masks.as_bool(padding, "a mask")
                mask = padding if mask is None else ops.logical_and(mask, padding)
        query = zero_padded_inputs(query, query_mask)
        key, value = (zero_padded_inputs(tensor, mask) for tensor in (key, value))
        projected = (self.query_dense(query), self.key_dense(key), self.value_dense(value))
        query_heads, key_heads, values = (upcast(ops.transpose(tensor, (0, 2, 1, 3))) for tensor in projected)
        if mask is not None:
            key_heads, values = zero_padding(mask, key_heads, values)
            mask = mask[:, None, :, None]
        queries = self.features(query_heads, None, keys=False)
        features = self.features
        keys = features.map_causal_keys(key_heads, mask) if self.causal else features(key_heads, mask, keys=True)
        if mask is not None:
            keys = ops.where(mask, keys, 0.0)
        if query_mask is not None:
            queries = ops.where(masks.as_bool(query_mask, "`query_mask`")[:, None, :, None], queries, 0.0)
        functional.announce_call(lambda: self._make_call(queries, keys))
        attend = _attend_causally if self.causal else _attend
        # One more value, 1 everywhere: its sum normalizes the others.
        sums = attend(queries, keys, ops.concatenate([values, ops.ones_like(values[..., :1])], axis=-1))
        total = sums[..., -1:]
        output = sums[..., :-1] / ops.where(total == 0, 1.0, total)
        output = ops.cast(ops.transpose(output, (0, 2, 1, 3)), self.compute_dtype)
        output = self.output_dense(output)
        return (output, self._compute_weights(queries, keys)) if return_attention_scores else output

    def _make_call(self, queries: Any, keys: Any) -> AttentionCall:
        """Return the attention call that is equal to this layer's, of features in which padding is 0 already."""
        mask = masks.Causal() if self.causal else None
        return make_call(queries, keys, score=scores.Dot(scale=1.0), mask=mask, normalizer=normalizers.L1(), layer=self)

    def _compute_weights(self, queries: Any, keys: Any) -> Any:
        """Compute the weights (B, N, T, S) that the output implies."""
        weights = ops.matmul(queries, ops.swapaxes(keys, -1, -2))
        if self.causal:
            weights = ops.tril(weights)
        total = ops.sum(weights, axis=-1, keepdims=True)
        return ops.cast(weights / ops.where(total == 0, 1.0, total), self.compute_dtype)

    def compute_mask(self, query: Any, previous_mask: Any = None) -> Any:
        """Return the mask of the query."""
        return previous_mask

    def compute_output_spec(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        return_attention_scores: bool = False,
    ) -> Any:
        shape = (*query.shape[:-1], self._output_width or query.shape[-1])
        output = keras.KerasTensor(shape, dtype=self.compute_dtype)
        weights_shape = (query.shape[0], self.num_heads, query.shape[1], value.shape[1])
        weights = keras.KerasTensor(weights_shape, dtype=self.compute_dtype)
        return (output, weights) if return_attention_scores else output

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dtype": serialize_dtype_policies(self),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "features": keras.saving.serialize_keras_object(self.features),
            "causal": self.causal,
            "use_bias": self.use_bias,
            "output_shape": self._output_width,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def _resolve_features(features: Any) -> Features:
    """Return a feature map, given as such or by its name."""
    if isinstance(features, str) and features in FEATURES:
        return FEATURES[features]()
    if isinstance(features, Features):
        return features
    raise ValueError(f"`features` must be one of {sorted(FEATURES)} or a Features. Received: {features!r}.")


def _attend(queries: Any, keys: Any, values: Any) -> Any:
    r"""Return $\phi(q_i)^\top \sum_j \phi(k_j) v_j^\top$ for features (..., T, M) and (..., S, M) and values (..., S, V)."""
    return ops.matmul(queries, ops.matmul(ops.swapaxes(keys, -1, -2), values))


def _attend_causally(queries: Any, keys: Any, values: Any) -> Any:
    """Return the same with sums up to each query, chunk by chunk: earlier chunks as one sum, its own chunk by its scores."""
    batch_size, num_heads, length, _ = ops.shape(queries)
    if isinstance(length, int) and keys.shape[2] is not None and keys.shape[2] != length:
        raise ValueError(
            f"Causal linear attention needs as many queries as keys. Received: {length} queries, {keys.shape[2]} keys."
        )
    # Not -(-length // CHUNK_SIZE): the division of ONNX rounds towards zero.
    num_chunks = (length + CHUNK_SIZE - 1) // CHUNK_SIZE
    padding = num_chunks * CHUNK_SIZE - length

    def split_chunks(tensor: Any) -> Any:
        width = tensor.shape[-1]
        zeros = ops.zeros((batch_size, num_heads, padding, width), dtype=tensor.dtype)
        tensor = ops.concatenate([tensor, zeros], axis=2)
        return ops.reshape(tensor, (batch_size, num_heads, num_chunks, CHUNK_SIZE, width))

    queries, keys, values = split_chunks(queries), split_chunks(keys), split_chunks(values)
    sums = ops.matmul(ops.swapaxes(keys, -1, -2), values)  # (B, N, num_chunks, M, V)
    # Of the chunks before each. A difference of sums would hold what is rounded off a large value in the chunk itself.
    earlier = ops.cumsum(ops.concatenate([ops.zeros_like(sums[:, :, :1]), sums], axis=2)[:, :, :-1], axis=2)
    lower = np.tril(np.ones((CHUNK_SIZE, CHUNK_SIZE), "float32"))
    own_scores = ops.matmul(queries, ops.swapaxes(keys, -1, -2)) * ops.cast(lower, keys.dtype)
    output = ops.matmul(queries, earlier) + ops.matmul(own_scores, values)
    return ops.reshape(output, (batch_size, num_heads, num_chunks * CHUNK_SIZE, values.shape[-1]))[:, :, :length]
