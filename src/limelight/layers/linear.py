"""Attention in linear time: a kernel in place of the exponential, so that keys and values are summed once for all queries."""

from typing import Any

import keras
import numpy as np
from keras import ops

from limelight import functional, masks, normalizers, scores
from limelight.core.component import deserialize, register
from limelight.core.precision import upcast
from limelight.engine.call import AttentionCall, make_call
from limelight.layers.features import FEATURES, Features
from limelight.layers.policies import policies_of, policy_of

# How many steps the causal form computes at once: the scores of a chunk are held, those between chunks are not.
CHUNK = 64


@register
class LinearAttention(keras.Layer):
    r"""Multi-head attention whose time and memory grow with the length, not with its square.

    $$y_i = \frac{\phi(q_i)^\top \sum_j \phi(k_j)\, v_j^\top}{\phi(q_i)^\top \sum_j \phi(k_j)}$$

    with sums over all j, or over j up to i in the causal form.

    Args:
        num_heads, key_dim, value_dim, use_bias, kernel_initializer, output_shape: as in `MultiHeadAttention`.
        features: $\phi$, which must not be negative: "elu" for elu(x) + 1, "relu", or "favor" for Performer's positive random
            features, which approximate softmax; or a `limelight.layers.Features` of one's own.
        causal: whether a step sees only itself and those before it. Queries and keys must then be as many.

    Call arguments:
        query: (B, T, D). value: (B, S, D). key: (B, S, D), the value when not given.
        query_mask, value_mask, key_mask: bool (B, T) and (B, S), True where a step is real; Keras's implicit masks when not
            given.
        return_attention_scores: whether the weights come too. They are computed for this alone, and take T x S numbers.

    Returns:
        (B, T, D), with the query's mask. Asked for, the weights too: (B, N, T, S), which sum to one.

    Raises:
        ValueError: a size that is no positive integer, unknown features, or differing lengths in the causal form.

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
        for name, given in (("num_heads", num_heads), ("key_dim", key_dim), ("value_dim", value_dim)):
            if not isinstance(given, int) or given < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={given!r}.")
        self.num_heads, self.key_dim, self.value_dim = num_heads, key_dim, value_dim
        self.causal, self.use_bias, self.width = causal, use_bias, output_shape
        self.features = resolve_features(deserialize(features))
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def build(self, query_shape: tuple, value_shape: tuple, key_shape: tuple | None = None) -> None:
        key_shape = value_shape if key_shape is None else key_shape
        self.query_dense = self._projection("query", query_shape, (self.num_heads, self.key_dim))
        self.key_dense = self._projection("key", key_shape, (self.num_heads, self.key_dim))
        self.value_dense = self._projection("value", value_shape, (self.num_heads, self.value_dim))
        self.output_dense = keras.layers.EinsumDense(
            "abyz,yzc->abc",
            output_shape=[None, self.width or query_shape[-1]],
            bias_axes="c" if self.use_bias else None,
            kernel_initializer=self.kernel_initializer.clone(),
            name="attention_output",
            dtype=policy_of(self, "attention_output"),
        )
        self.output_dense.build((*query_shape[:-1], self.num_heads, self.value_dim))
        if not self.features.built:
            self.features.build((query_shape[0], self.num_heads, None, self.key_dim))

    def _projection(self, name: str, shape: tuple, heads: tuple[int, int]) -> keras.layers.EinsumDense:
        dense = keras.layers.EinsumDense(
            "abx,xyz->abyz",
            output_shape=[None, *heads],
            bias_axes="yz" if self.use_bias else None,
            # A clone: one initializer object would give every weight of the same shape the same values.
            kernel_initializer=self.kernel_initializer.clone(),
            name=name,
            dtype=policy_of(self, name),
        )
        # The mask is this layer's business, and it keeps it.
        dense.supports_masking = True
        dense.build(shape)
        return dense

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
        permitted = None
        for given in (value_mask, key_mask):
            if given is not None:
                given = masks.boolean(given, "a mask")[:, None, :, None]  # (B, 1, S, 1)
                permitted = given if permitted is None else ops.logical_and(permitted, given)
        heads = (self.query_dense(query), self.key_dense(key), self.value_dense(value))
        query_heads, key_heads, values = (upcast(ops.transpose(head, (0, 2, 1, 3))) for head in heads)
        queries = self.features(query_heads, None, keys=False)
        keys = self.features(key_heads, permitted, keys=True)
        if permitted is not None:
            keys = ops.where(permitted, keys, 0.0)
        if query_mask is not None:
            queries = ops.where(masks.boolean(query_mask, "`query_mask`")[:, None, :, None], queries, 0.0)
        functional.announce(lambda: self._question(queries, keys))
        read = summed_causally if self.causal else summed
        # One more value, 1 everywhere, sums to what the others are divided by.
        read = read(queries, keys, ops.concatenate([values, ops.ones_like(values[..., :1])], axis=-1))
        total = read[..., -1:]
        output = read[..., :-1] / ops.where(total == 0, 1.0, total)
        output = ops.cast(ops.transpose(output, (0, 2, 1, 3)), self.compute_dtype)
        output = self.output_dense(output)
        return (output, self._weights(queries, keys)) if return_attention_scores else output

    def _question(self, queries: Any, keys: Any) -> AttentionCall:
        """What the layer asks, of features in which padding is 0 already."""
        mask = masks.Causal() if self.causal else None
        return make_call(queries, keys, score=scores.Dot(scale=1.0), mask=mask, normalizer=normalizers.L1(), owner=self)

    def _weights(self, queries: Any, keys: Any) -> Any:
        """The weights, (B, N, T, S), that the output is as if computed by."""
        weights = ops.matmul(queries, ops.swapaxes(keys, -1, -2))
        if self.causal:
            weights = ops.tril(weights)
        total = ops.sum(weights, axis=-1, keepdims=True)
        return ops.cast(weights / ops.where(total == 0, 1.0, total), self.compute_dtype)

    def compute_mask(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """The mask of the query."""
        return getattr(query, "_keras_mask", None)

    def compute_output_spec(
        self, query: Any, value: Any, *args: Any, return_attention_scores: bool = False, **kwargs: Any
    ) -> Any:
        shape = (*query.shape[:-1], self.width or query.shape[-1])
        output = keras.KerasTensor(shape, dtype=self.compute_dtype)
        weights = (query.shape[0], self.num_heads, query.shape[1], value.shape[1])
        return (output, keras.KerasTensor(weights, dtype=self.compute_dtype)) if return_attention_scores else output

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "features": keras.saving.serialize_keras_object(self.features),
            "causal": self.causal,
            "use_bias": self.use_bias,
            "output_shape": self.width,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "dtype": keras.dtype_policies.serialize(policies_of(self)),
        }


def resolve_features(given: Any) -> Features:
    """Features from an object or a name."""
    if isinstance(given, str) and given in FEATURES:
        return FEATURES[given]()
    if isinstance(given, Features):
        return given
    raise ValueError(f"`features` must be one of {sorted(FEATURES)} or a Features. Received: {given!r}.")


def summed(queries: Any, keys: Any, values: Any) -> Any:
    r"""$\phi(q_i)^\top \sum_j \phi(k_j) v_j^\top$ for features (..., T, M) and (..., S, M) and values (..., S, V)."""
    return ops.matmul(queries, ops.matmul(ops.swapaxes(keys, -1, -2), values))


def summed_causally(queries: Any, keys: Any, values: Any) -> Any:
    """The same with sums up to each query alone, chunk by chunk: all earlier chunks as one sum, the own chunk step by step."""
    batch, heads, length, _ = ops.shape(queries)
    if isinstance(length, int) and keys.shape[2] is not None and keys.shape[2] != length:
        raise ValueError(
            f"Causal linear attention needs as many queries as keys. Received: {length} queries, {keys.shape[2]} keys."
        )
    count = -(-length // CHUNK)
    short = count * CHUNK - length

    def chunked(tensor: Any) -> Any:
        width = tensor.shape[-1]
        tensor = ops.concatenate([tensor, ops.zeros((batch, heads, short, width), dtype=tensor.dtype)], axis=2)
        return ops.reshape(tensor, (batch, heads, count, CHUNK, width))

    queries, keys, values = chunked(queries), chunked(keys), chunked(values)
    sums = ops.matmul(ops.swapaxes(keys, -1, -2), values)  # (B, N, count, M, V)
    before = ops.cumsum(sums, axis=2) - sums
    lower = np.tril(np.ones((CHUNK, CHUNK), "float32"))
    own = ops.matmul(queries, ops.swapaxes(keys, -1, -2)) * ops.cast(lower, keys.dtype)
    read = ops.matmul(queries, before) + ops.matmul(own, values)
    return ops.reshape(read, (batch, heads, count * CHUNK, values.shape[-1]))[:, :, :length]


def associate(
    query: Any,
    key: Any,
    value: Any,
    *,
    decay: Any = None,
    rate: Any = None,
    scale: float | None = None,
    state: Any = None,
) -> tuple[Any, Any]:
    r"""Linear attention as a memory that is written and read step by step.

    $$S_t = \mathrm{diag}(e^{g_t}) S_{t-1} + k_t\,u_t^\top, \qquad y_t = c\, S_t^\top q_t$$

    where $u_t = v_t$, or with a `rate` the error of what the memory already holds, the delta rule:

    $$u_t = \beta_t (v_t - (\mathrm{diag}(e^{g_t}) S_{t-1})^\top k_t)$$

    Nothing is normalised.

    Args:
        query: (B, N, T, H).
        key: (B, K, T, H), where K divides N. value: (B, K, T, V).
        decay: $g$, (B, K, T, H) or (B, K, T, 1), zero or negative; none when not given.
        rate: $\beta$, (B, K, T, 1), between 0 and 1.
        scale: $c$; $1/\sqrt{H}$ when not given.
        state: $S$ before the first step, (B, K, H, V); zeros when not given.

    Returns:
        The outputs (B, N, T, V) in the dtype of `value`, and the state after the last step, in float32 or wider.

    Example:
        >>> import numpy as np
        >>> from limelight.layers.linear import associate
        >>> x = np.ones((1, 1, 3, 4), "float32")
        >>> output, state = associate(x, x, x, scale=1.0)
        >>> [float(row[0]) for row in np.array(output)[0, 0]]
        [4.0, 8.0, 12.0]

    References:
        Katharopoulos et al. 2020, arXiv:2006.16236; Schlag et al. 2021, arXiv:2102.11174 (delta rule); Yang et al. 2024,
        arXiv:2412.06464 (gated).
    """
    query, key, value = (ops.convert_to_tensor(tensor) for tensor in (query, key, value))
    dtype, scale = value.dtype, query.shape[-1] ** -0.5 if scale is None else scale
    groups = query.shape[1] // key.shape[1]
    batch, kept, _, size = ops.shape(key)
    start = ops.zeros((batch, kept, size, value.shape[-1]), dtype=upcast(value).dtype) if state is None else state
    steps = {"query": query, "key": key, "value": value, "decay": decay, "rate": rate}
    steps = {name: ops.moveaxis(upcast(ops.convert_to_tensor(t)), 2, 0) for name, t in steps.items() if t is not None}

    def step(before: Any, now: Any) -> tuple[Any, Any]:
        memory = before[0]
        if "decay" in now:
            memory = memory * ops.exp(now["decay"])[..., None]
        written = now["value"]
        if "rate" in now:
            held = ops.squeeze(ops.matmul(ops.expand_dims(now["key"], -2), memory), -2)
            written = (written - held) * now["rate"]
        memory = memory + ops.expand_dims(now["key"], -1) * ops.expand_dims(written, -2)
        shared = ops.repeat(memory, groups, axis=1) if groups > 1 else memory
        after = (memory, scale * ops.squeeze(ops.matmul(ops.expand_dims(now["query"], -2), shared), -2))
        # On TensorFlow a scan can only stack what is shaped as its state.
        return after, after

    start = upcast(ops.convert_to_tensor(start))
    blank = ops.zeros((batch, query.shape[1], value.shape[-1]), dtype=start.dtype)
    (memory, _), (_, outputs) = ops.scan(step, (start, blank), steps)
    return ops.cast(ops.moveaxis(outputs, 0, 2), dtype), memory
