"""Multi-head attention: a drop-in replacement for Keras's, with components and a key/value cache."""

from typing import Any

import keras
from keras import ops

from limelight import masks, scores
from limelight._keras_private import arguments_unconverted, get_keras_mask
from limelight.core.component import register
from limelight.engine.call import make_call
from limelight.layers.attention_core import AttentionCore
from limelight.layers.axes import AxisLayout
from limelight.layers.kv_cache import KVCache, zero_padding
from limelight.layers.projections import (
    ProjectionConfig,
    get_sublayer_policy,
    serialize_dtype_policies,
    zero_padded_inputs,
)


@register
class MultiHeadAttention(keras.Layer):
    r"""Multi-head attention, in place of `keras.layers.MultiHeadAttention`: same arguments, same weights, same names.

    $$y = \sum_n \mathrm{Att}(x_q W^Q_n,\, x_k W^K_n,\, x_v W^V_n)\, W^O_n$$

    A subclass may override `_compute_attention`, as a subclass of Keras's layer may.

    Args:
        num_heads: N.
        key_dim: H, the size of each head's queries and keys.
        value_dim: Size of each head's values; `key_dim` when not given.
        dropout: Fraction of the weights that is dropped during training, in [0, 1).
        use_bias: Whether the projections add a bias.
        output_shape: Shape of one output step; the width of the query when not given.
        attention_axes: Axes of the query that attention runs over; all between the batch and the features when not given.
        sliding_window: Restricts a query to positions at most `sliding_window - 1` away on either side.
        flash_attention: Accepted for compatibility with Keras; the kernel is chosen from the components and sizes, and does not
            change results.
        kernel_initializer, bias_initializer: Of the projections.
        kernel_regularizer, bias_regularizer, activity_regularizer: Of the projections.
        kernel_constraint, bias_constraint: Of the projections.
        use_gate: Whether a sigmoid gate, projected from the query, multiplies each head's output (arXiv:2505.06708).
        seed: Seed of the dropout.
        num_kv_heads: K, the number of key and value heads, each of which serves N / K query heads; N when not given. 1 is
            multi-query attention.
        latent_dim: C, the width of the normalised latent that keys and values are both projected from (multi-head latent
            attention); a cache stores the latent in their place. Key and value must then be the same tensor.
        score: A `limelight.scores.Score` or its name; the scaled dot product when not given.
        mask: A `limelight.masks.Mask` or "causal", AND-ed with the masks of each call.
        normalizer: A `limelight.normalizers.Normalizer` or its name; softmax when not given.
        attention_regularizer: Callable from the weights (B, N, T, S) to a scalar loss, added during training.

    Call arguments:
        query: (B, T, D). With more axes, attention runs over `attention_axes`.
        value: (B, S, D). Without it, queries attend to what the cache holds.
        key: (B, S, D); the value when not given.
        query_mask: Bool (B, T), True where a step is real; Keras's implicit mask when not given. The output of a masked query is
            that of an empty sequence.
        value_mask, key_mask: Bool (B, S), likewise. Masked steps are not attended to.
        attention_mask: Bool (B, T, S) or (B, N, T, S), True where attending is allowed; (T, S) where that is unambiguous.
        return_attention_scores: Whether to return the weights too. It changes neither the output nor the kernel that computes it.
        training: Whether dropout is active.
        use_causal_mask: Whether a query attends only to its own position and those before it; the last query is aligned with the
            last key.
        bias: Additive bias on the scores, broadcastable to (B, N, T, S). A layer that overrides `_compute_attention` takes none.
        cache: A `KVCache` of the steps so far, for decoding. Query and value are then the new steps; keys and values are those
            of the cache and the new ones. `layer.empty_cache(batch_size, size)` creates one; `layer.remember(memory)` creates one
            for cross-attention, which is called without a value.

    Returns:
        The output (B, T, D), with the query's mask. With `return_attention_scores`, also the weights (B, N, T, S), before
        dropout. With a cache, the updated cache comes last if there is a value, and S counts its slots; where new steps overwrite
        slots that some of them look back to, S counts the old slots and then the steps.

    Raises:
        ValueError: Sizes do not fit, a mask is additive or ambiguous, or an argument does not go with the others.

    Example:
        >>> import keras, limelight as ll
        >>> steps = keras.Input((None, 32))
        >>> layer = ll.layers.MultiHeadAttention(8, 4, num_kv_heads=2, mask="causal")
        >>> layer(steps, steps).shape
        (None, None, 32)

    References:
        Vaswani et al. 2017, arXiv:1706.03762; Shazeer 2019, arXiv:1911.02150 (multi-query); Ainslie et al. 2023,
        arXiv:2305.13245 (grouped); DeepSeek-AI 2024, arXiv:2405.04434 (latent).
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_shape: Any = None,
        attention_axes: Any = None,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: int | None = None,
        *,
        num_kv_heads: int | None = None,
        latent_dim: int | None = None,
        score: Any = None,
        mask: Any = None,
        normalizer: Any = None,
        attention_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.core = AttentionCore(score, mask, normalizer, dropout, seed, attention_regularizer)
        _check_sizes(num_heads, key_dim, value_dim, num_kv_heads, sliding_window, latent_dim)
        self.num_heads, self.key_dim = num_heads, key_dim
        self.value_dim = value_dim or key_dim
        self.num_kv_heads, self.latent_dim = num_kv_heads or num_heads, latent_dim
        self.use_gate = use_gate
        self.flash_attention, self.seed = flash_attention, seed
        self.attention_axes = _to_tuple(attention_axes, "attention_axes")
        self._output_shape = _to_tuple(output_shape or None, "output_shape")
        self._sliding_window = sliding_window
        self.projection_config = ProjectionConfig(
            use_bias=use_bias,
            kernel_initializer=keras.initializers.get(kernel_initializer),
            bias_initializer=keras.initializers.get(bias_initializer),
            kernel_regularizer=keras.regularizers.get(kernel_regularizer),
            bias_regularizer=keras.regularizers.get(bias_regularizer),
            activity_regularizer=keras.regularizers.get(activity_regularizer),
            kernel_constraint=keras.constraints.get(kernel_constraint),
            bias_constraint=keras.constraints.get(bias_constraint),
        )
        self.supports_masking = True

    @property
    def query_dense(self) -> Any:
        """Projection of the query, (D, N, H)."""
        return self._query_dense

    @property
    def key_dense(self) -> Any:
        """Projection of the key, (D, K, H)."""
        return self._key_dense

    @property
    def value_dense(self) -> Any:
        """Projection of the value, (D, K, V)."""
        return self._value_dense

    @property
    def output_dense(self) -> Any:
        """Projection of the heads' outputs, (N, V, D)."""
        return self._output_dense

    def build(self, query_shape: tuple, value_shape: tuple | None = None, key_shape: tuple | None = None) -> None:
        if value_shape is None:
            raise ValueError(
                "The first call of a MultiHeadAttention must have a `value`. Received: none. Call or build the layer with the "
                "memory before a call with `cache` alone."
            )
        key_shape = value_shape if key_shape is None else key_shape
        _check_lengths(value_shape, key_shape)
        self._axes = self._resolve_axes(len(query_shape))
        if self.latent_dim is not None:
            key_shape = value_shape = self._build_latent(value_shape)

        def split_heads(name: str, shape: tuple, num_heads: int, head_dim: int, activation: str | None = None) -> Any:
            policy = get_sublayer_policy(self, name)
            return self.projection_config.split_heads(
                shape, num_heads, head_dim, name=name, dtype=policy, activation=activation
            )

        # Names of attributes and sublayers are Keras's, so that its weights files can be loaded.
        self._query_dense = split_heads("query", query_shape, self.num_heads, self.key_dim)
        self._key_dense = split_heads("key", key_shape, self.num_kv_heads, self.key_dim)
        if self.use_gate:
            self._gate_dense = split_heads("gate", query_shape, self.num_heads, self.value_dim, "sigmoid")
        self._value_dense = split_heads("value", value_shape, self.num_kv_heads, self.value_dim)
        self._output_dense = self.projection_config.merge_heads(
            (*query_shape[:-1], self.num_heads, self.value_dim),
            self._output_shape or (query_shape[-1],),
            name="attention_output",
            dtype=get_sublayer_policy(self, "attention_output"),
        )
        self.core.build(
            (query_shape[0], self.num_heads, None, self.key_dim),
            (query_shape[0], self.num_kv_heads, None, self.key_dim),
            has_heads=True,
        )

    def _build_latent(self, value_shape: tuple) -> tuple:
        """Build the projection to the latent, and return the latent's shape."""
        latent_shape = (*value_shape[:-1], self.latent_dim)
        policies = (get_sublayer_policy(self, name) for name in ("latent", "latent_norm"))
        self._latent_dense = keras.layers.Dense(self.latent_dim, use_bias=False, dtype=next(policies), name="latent")
        self._latent_norm = keras.layers.RMSNormalization(dtype=next(policies), name="latent_norm")
        # The mask stays on the value, where the layer finds it: no warning that it is lost.
        self._latent_norm.supports_masking = True
        self._latent_dense.build(value_shape)
        self._latent_norm.build(latent_shape)
        return latent_shape

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Keras converts each argument on its own, so that `call` cannot see that key and value are the same object.
        value = args[1] if len(args) > 1 else kwargs.get("value")
        if self.latent_dim is not None and value is not None:
            if len(args) > 2 and args[2] is value:
                args = (*args[:2], None, *args[3:])
            elif kwargs.get("key") is value:
                kwargs = {**kwargs, "key": None}

        bias = kwargs.get("bias")
        if bias is None or self.input_dtype not in ("float16", "bfloat16"):
            return super().__call__(*args, **kwargs)
        # Keras would cast the bias too, which belongs to the scores: float16 has no -1e9. The projections cast their inputs.
        kwargs["bias"] = self.dtype_policy.convert_input(bias, self.autocast, "float32")
        args, kwargs = keras.tree.map_structure(
            lambda argument: self.dtype_policy.convert_input(argument, False, self.input_dtype), (args, kwargs)
        )
        with arguments_unconverted(self):
            return super().__call__(*args, **kwargs)

    def call(
        self,
        query: Any,
        value: Any = None,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
        bias: Any = None,
        cache: Any = None,
    ) -> Any:
        if value is None and (cache is None or any(each is not None for each in (key, value_mask, key_mask))):
            raise ValueError(
                "A call without `value` needs a `cache`, and takes neither a key nor a mask of them. Received: value=None. Give "
                "the mask of a memory to `layer.remember`."
            )
        if bias is not None and self._is_overridden:
            raise ValueError(
                "A layer that overrides `_compute_attention`, which has no argument for it, takes no `bias`. Received: "
                f"`bias` in a call of {type(self).__name__}. Leave the method as it is, or add the bias inside it."
            )
        query = zero_padded_inputs(query, query_mask)
        if value is not None:
            has_own_key = key is not None and key is not value
            value = zero_padded_inputs(value, value_mask, key_mask)
            key = zero_padded_inputs(key, value_mask, key_mask) if has_own_key else None
        if value is not None and self.latent_dim is not None:
            value = key = self._compute_latent(value, key)
        elif key is None:
            key = value
        layout = AxisLayout.from_inputs(query, query if value is None else value, self._axes)
        positions: dict[str, Any] = {}
        projected_query = self._query_dense(query)
        if cache is None:
            mask = layout.combine_masks(query_mask, value_mask, key_mask, attention_mask)
            projected = projected_query, self._key_dense(key), self._value_dense(value)
            heads = tuple(layout.move_heads_first(tensor) for tensor in projected)
        else:
            self._check_cached_call(layout, attention_mask)
            if value is None:
                attended, query_positions = cache, cache.last_positions(ops.shape(query)[1])
            else:
                steps = self._project_steps(layout, key, value)
                cache, attended, query_positions = cache.update(*steps, value_mask, key_mask, self._max_lookback())
            keys, values = self._expand_latent(layout, attended)
            positions = {"query_positions": query_positions, "key_positions": attended.positions}
            projected = heads = layout.move_heads_first(projected_query), keys, values
            mask = masks.intersect(layout.combine_masks(query_mask), attended.mask())
        mask = masks.intersect(mask, self._window_mask())
        mask = masks.intersect(mask, masks.Causal()) if use_causal_mask else mask
        if self._is_overridden:
            array = self._materialize_mask(mask, *heads[:2])
            output, weights = self._compute_attention(*projected, array, training, return_attention_scores)
        else:
            output, weights = self.core.attend(
                *heads,
                layer=self,
                mask=mask,
                score=None if bias is None else self.core.score + scores.Bias(bias),
                return_weights=return_attention_scores,
                training=training,
                has_heads=True,
                **positions,
            )
            output = layout.move_heads_last(output)
            weights = None if weights is None else layout.split_weights(weights)
        if self.use_gate:
            output = output * self._gate_dense(query)
        output = self._output_dense(output)
        results = [
            output,
            *([weights] if return_attention_scores else []),
            *([] if cache is None or value is None else [cache]),
        ]
        return output if len(results) == 1 else tuple(results)

    def _compute_attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> tuple[Any, Any]:
        """Compute the attention of projected heads; a subclass may override it, as with Keras's layer.

        Args:
            query: (B, ..., N, H).
            key: (B, ..., K, H).
            value: (B, ..., K, V).
            attention_mask: Bool (B, 1, T, S) or (B, N, T, S) of everything that the layer and its call mask, or None. B counts
                all axes of batch, T and S all that are attended over.
            training: Whether dropout is active.
            return_attention_scores: Whether to return the weights too.
            use_causal_mask: Whether to apply a causal mask too; the layer passes one in `attention_mask`.

        Returns:
            The output (B, ..., N, V), and the weights or None.
        """
        layout = AxisLayout.from_inputs(query[..., 0, :], value[..., 0, :], self._axes)
        if attention_mask is not None and len(attention_mask.shape) == 4:
            mask = masks.ArrayMask(attention_mask)
        else:
            mask = layout.combine_masks(attention_mask=attention_mask)
        output, weights = self.core.attend(
            layout.move_heads_first(query),
            layout.move_heads_first(key),
            layout.move_heads_first(value),
            layer=self,
            mask=masks.intersect(mask, masks.Causal() if use_causal_mask else None),
            return_weights=return_attention_scores,
            training=training,
            has_heads=True,
        )
        return layout.move_heads_last(output), None if weights is None else layout.split_weights(weights)

    @property
    def _is_overridden(self) -> bool:
        """True if a subclass overrides `_compute_attention`."""
        return type(self)._compute_attention is not MultiHeadAttention._compute_attention

    def _materialize_mask(self, mask: masks.Mask | None, query: Any, key: Any) -> Any:
        """Return the masks of the layer and of a call as one array (B, 1 or N, T, S), or None.

        Args:
            mask: The masks of the call.
            query: (B, ..., N, T, H).
            key: (B, ..., K, S, H).
        """
        combined = masks.intersect(self.core.mask, mask)
        if combined is None:
            return None
        block = make_call(query, key).block
        array = combined(block)
        num_heads = array.shape[1] if len(array.shape) == 4 else 1
        return ops.broadcast_to(array, (block.batch.length, num_heads, block.rows.length, block.columns.length))

    def _compute_latent(self, value: Any, key: Any) -> Any:
        """Return the latent (B, ..., C) that keys and values are projected from."""
        if key is not None and key is not value:
            raise ValueError(
                "With `latent_dim`, key and value must be the same tensor: both are projected from one latent. Received: a `key` "
                "that is not the `value`. Leave `key` out."
            )
        return self._latent_norm(self._latent_dense(value))

    def empty_cache(self, batch_size: Any, size: int) -> KVCache:
        """Return an empty cache for calls of this layer.

        Args:
            batch_size: B.
            size: Number of steps that it holds: those of the longest sequence, or one more than the layer's mask looks back, as
                many as `SlidingWindow(size - 1, 0)` permits.

        Example:
            >>> import limelight as ll
            >>> cache = ll.layers.MultiHeadAttention(8, 16, num_kv_heads=2).empty_cache(1, 100)
            >>> tuple(cache.key.shape)
            (1, 2, 100, 16)
        """
        if self.latent_dim is not None:
            return KVCache.empty(batch_size, 1, size, self.latent_dim, 0, self.compute_dtype)
        return KVCache.empty(batch_size, self.num_kv_heads, size, self.key_dim, self.value_dim, self.compute_dtype)

    def remember(self, memory: Any, mask: Any = None) -> KVCache:
        """Project a memory once, for cross-attention that is computed step by step.

        Args:
            memory: (B, S, D), the `value` and `key` of the calls.
            mask: Bool (B, S), True where a step is real; Keras's implicit mask when not given.

        Returns:
            A cache for calls without `value`, in which queries attend to the memory as in `layer(query, memory)`.

        Raises:
            ValueError: The layer has not been built.

        Example:
            >>> import keras, limelight as ll
            >>> layer, memory = ll.layers.MultiHeadAttention(8, 4), keras.ops.ones((2, 7, 32))
            >>> layer.build((2, 1, 32), memory.shape)
            >>> cache = layer.remember(memory)
            >>> for _ in range(3):
            ...     output = layer(keras.ops.ones((2, 1, 32)), cache=cache)
            >>> tuple(output.shape)
            (2, 1, 32)
        """
        if not self.built:
            raise ValueError("The layer must be built before it remembers a memory. Call it once, or `build` it.")
        mask = get_keras_mask(memory) if mask is None else mask
        layout = AxisLayout.from_inputs(memory, memory, self._axes)
        value = memory if self.latent_dim is None else self._compute_latent(memory, None)
        key, value = self._project_steps(layout, value, value)
        batch_size, length = ops.shape(memory)[:2]
        positions = ops.broadcast_to(ops.arange(length, dtype="int32"), (batch_size, length))
        if mask is not None:
            mask = masks.as_bool(mask, "`mask`")
            positions = ops.where(mask, positions, -1)
            key, value = zero_padding(mask, key, value)
        return KVCache(key, value, positions, ops.zeros_like(positions[:, 0]) + length)

    def _check_cached_call(self, layout: AxisLayout, attention_mask: Any) -> None:
        if (
            len(layout.batch_axes) > 1
            or len(layout.attention_axes) > 1
            or self._is_overridden
            or attention_mask is not None
        ):
            raise ValueError(
                "A call with `cache` takes (B, T, D) and no `attention_mask`, which cannot be matched to the slots of the cache; "
                "nor may a subclass override `_compute_attention`. Give the layer a mask of positions, such as "
                "mask=limelight.masks.Causal(), and padding as `value_mask`."
            )

    def _project_steps(self, layout: AxisLayout, key: Any, value: Any) -> tuple[Any, Any]:
        """Return what a cache stores of steps: keys (B, K, T, H) and values (B, K, T, V), or the latent and nothing."""
        if self.latent_dim is None:
            return layout.move_heads_first(self._key_dense(key)), layout.move_heads_first(self._value_dense(value))
        latent = ops.expand_dims(value, 1)  # (B, 1, T, C)
        return latent, latent[..., :0]

    def _expand_latent(self, layout: AxisLayout, cache: KVCache) -> tuple[Any, Any]:
        """Return the keys (B, K, S, H) and values (B, K, S, V) of a cache."""
        if self.latent_dim is None:
            return cache.key, cache.value
        latent = ops.squeeze(cache.key, 1)
        return layout.move_heads_first(self._key_dense(latent)), layout.move_heads_first(self._value_dense(latent))

    def _window_mask(self) -> masks.Mask | None:
        """Return the mask of `sliding_window`, or None."""
        width = self._sliding_window
        return None if width is None else masks.SlidingWindow(width - 1, width - 1)

    def _max_lookback(self) -> int | None:
        """Return how many positions back a query may attend; None if neither mask nor window limits it."""
        mask = masks.intersect(self.core.mask, self._window_mask())
        return None if mask is None else mask.max_lookback()

    def _resolve_axes(self, rank: int) -> tuple[int, ...]:
        return tuple(axis % rank for axis in self.attention_axes or range(1, rank - 1))

    def compute_output_shape(self, query_shape: Any, value_shape: Any = None, key_shape: Any = None) -> tuple:
        """Return the shape of the output, without the weights."""
        if value_shape is not None and key_shape is not None:
            _check_lengths(tuple(value_shape), tuple(key_shape))
        return (*query_shape[:-1], *(self._output_shape or (query_shape[-1],)))

    def compute_output_spec(
        self,
        query: Any,
        value: Any = None,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
        bias: Any = None,
        cache: Any = None,
    ) -> Any:
        shape = self.compute_output_shape(query.shape, *(None if each is None else each.shape for each in (value, key)))
        results: list[Any] = [keras.KerasTensor(shape, dtype=self.compute_dtype)]
        if return_attention_scores:
            axes = self._resolve_axes(len(query.shape))
            batch_shape = [query.shape[axis] for axis in range(len(query.shape) - 1) if axis not in axes]
            if cache is None:
                lengths = [shape[axis] for shape in (query.shape, value.shape) for axis in axes]
            else:
                num_steps = 0 if value is None else value.shape[1]
                lengths = [query.shape[1], self._num_cached_keys(cache, num_steps)]
            results.append(keras.KerasTensor((*batch_shape, self.num_heads, *lengths), dtype=self.compute_dtype))
        if cache is not None and value is not None:
            # New symbolic tensors: those of the call may be inputs of a model.
            results.append(type(cache)(*(keras.KerasTensor(part.shape, dtype=part.dtype) for part in cache)))
        return results[0] if len(results) == 1 else tuple(results)

    def _num_cached_keys(self, cache: KVCache, num_steps: int | None) -> int | None:
        """Return the number of keys that new steps attend to with a cache; None if it is unknown."""
        size = cache.key.shape[2]
        if not cache.is_rolling(num_steps, self._max_lookback()):
            return size
        return None if num_steps is None or size is None else size + num_steps

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **self.core.get_config(),
            "dtype": serialize_dtype_policies(self),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "num_kv_heads": self.num_kv_heads,
            "latent_dim": self.latent_dim,
            "use_gate": self.use_gate,
            "flash_attention": self.flash_attention,
            "output_shape": self._output_shape,
            "attention_axes": self.attention_axes,
            "sliding_window": self._sliding_window,
            **self.projection_config.get_config(),
        }


def _check_sizes(
    num_heads: Any, key_dim: Any, value_dim: Any, num_kv_heads: Any, sliding_window: Any, latent_dim: Any
) -> None:
    """Raise if an argument is not a positive integer, or `num_kv_heads` does not divide `num_heads`."""
    optional = {
        "value_dim": value_dim,
        "num_kv_heads": num_kv_heads,
        "sliding_window": sliding_window,
        "latent_dim": latent_dim,
    }
    for name, size in {"num_heads": num_heads, "key_dim": key_dim, **optional}.items():
        if name in optional and size is None:
            continue
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(
                f"The argument `{name}` must be a positive integer{' or None' if name in optional else ''}. "
                f"Received: {name}={size!r}."
            )
    if num_kv_heads is not None and num_heads % num_kv_heads:
        divisors = [size for size in range(1, num_heads + 1) if num_heads % size == 0]
        raise ValueError(
            f"`num_kv_heads` must divide `num_heads`. Received: num_heads={num_heads}, num_kv_heads={num_kv_heads}. "
            f"Use one of {divisors}."
        )


def _check_lengths(value_shape: tuple, key_shape: tuple) -> None:
    """Raise if keys and values do not correspond one to one."""
    if tuple(value_shape[1:-1]) != tuple(key_shape[1:-1]):
        raise ValueError(
            "All dimensions of `value` and `key`, except the last one, must be equal. Received: value_shape="
            f"{tuple(value_shape)}, key_shape={tuple(key_shape)}. Each key belongs to one value."
        )


def _to_tuple(value: Any, name: str) -> tuple[int, ...] | None:
    """Return an argument that is an int, list or tuple as a tuple; None stays None."""
    if value is None:
        return None
    if isinstance(value, int):
        return (value,)
    if isinstance(value, (list, tuple)):
        return tuple(value)
    raise ValueError(f"Invalid `{name}`: it must be an int, list, or tuple. Received: {name}={value!r}.")
