"""Multi-head attention: a drop-in for Keras's, with parts."""

from typing import Any

import keras

from limelight import masks, scores
from limelight.core.component import register
from limelight.layers import projections
from limelight.layers.caching import Caching
from limelight.layers.masking import forbidden
from limelight.layers.policies import policy_of


@register
class MultiHeadAttention(Caching):
    r"""Multi-head attention, in place of `keras.layers.MultiHeadAttention`: same arguments, same weights, same names.

    $$y = \sum_n \mathrm{Att}(x_q W^Q_n,\, x_k W^K_n,\, x_v W^V_n)\, W^O_n$$

    Args:
        num_heads: N.
        key_dim: H, the size of each head's queries and keys.
        value_dim: the size of each head's values; `key_dim` when not given.
        num_kv_heads: K, the number of key and value heads, each of which serves N / K query heads; N when not given. 1 is
            multi-query attention.
        output_shape: the shape of an output step; the width of the query when not given.
        attention_axes: the axes of the query that attention runs over; all between the batch and the features when not given.
        sliding_window: a query attends at most `sliding_window - 1` positions to either side.
        latent_dim: C, the width of a latent step that keys and values are both projected from, normalised ("multi-head latent
            attention"); a cache holds it in their place. Value and key must then be one.
        use_gate: whether a sigmoid gate, projected from the query, multiplies each head's output (arXiv:2505.06708).
        flash_attention: kept for Keras's sake; which kernel runs is chosen from the parts and sizes, and is no matter of results.
        use_bias, kernel_..., bias_..., activity_regularizer: of the projections.
        score, mask, normalizer, dropout, seed, attention_regularizer: as every attention layer has them; `mask="causal"`.

    Call arguments:
        query: (B, T, D). With more axes, attention runs over `attention_axes`.
        value: (B, S, D). key: (B, S, D), the value when not given.
        query_mask, value_mask, key_mask: bool (B, T) and (B, S), True where a step is real; Keras's implicit masks when not
            given. A masked query reads nothing: its output is that of an empty sequence.
        attention_mask: bool (B, T, S) or (B, N, T, S), True where attending is allowed; (T, S) where that cannot be mistaken.
        return_attention_scores: whether the weights come too. It changes neither the output nor the kernel that computes it.
        use_causal_mask: whether a query attends to its own position and those before it alone; the last query stands at the
            last key.
        bias: an additive bias on the scores, broadcastable to (B, N, T, S).
        cache: a `KVCache` of the steps so far, for decoding. Query and value are then the new steps; keys and values are those
            of the cache and the new ones. `layer.empty_cache(batch, size)` makes one.

    Returns:
        (B, T, D), with the query's mask. Asked for, the weights too: (B, N, T, S), before dropout. With a cache, the new cache
        comes last, and S counts its slots; where new steps take slots that some of them look back to, S counts the old slots
        and then the steps.

    Raises:
        ValueError: sizes that do not fit, a mask that is additive or ambiguous.

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
        **kwargs: Any,
    ) -> None:
        super().__init__(dropout=dropout, seed=seed, **kwargs)
        projections.check_sizes(num_heads, key_dim, value_dim, num_kv_heads, sliding_window, latent_dim)
        self.num_heads, self.key_dim = num_heads, key_dim
        self.value_dim = value_dim or key_dim
        self.num_kv_heads, self.latent_dim = num_kv_heads or num_heads, latent_dim
        self.use_bias, self.use_gate = use_bias, use_gate
        self.flash_attention = flash_attention
        self._sliding_window = sliding_window
        self.attention_axes = projections.axes(attention_axes)
        self._output_shape = projections.step_shape(output_shape)
        self.projected = projections.Settings(
            kernel_initializer=keras.initializers.get(kernel_initializer),
            bias_initializer=keras.initializers.get(bias_initializer),
            kernel_regularizer=keras.regularizers.get(kernel_regularizer),
            bias_regularizer=keras.regularizers.get(bias_regularizer),
            activity_regularizer=keras.regularizers.get(activity_regularizer),
            kernel_constraint=keras.constraints.get(kernel_constraint),
            bias_constraint=keras.constraints.get(bias_constraint),
        )

    def build(self, query_shape: tuple, value_shape: tuple, key_shape: tuple | None = None) -> None:
        key_shape = value_shape if key_shape is None else key_shape
        projections.check_lengths(value_shape, key_shape)
        rank = len(query_shape)
        chosen = self.attention_axes or range(1, rank - 1)
        self._axes = tuple(axis % rank for axis in chosen)

        def into_heads(name: str, heads: int, size: int, shape: tuple, activation: str | None = None) -> Any:
            dense = self.projected.into_heads(
                name, len(shape), heads, size, self.use_bias, policy_of(self, name), activation
            )
            dense.build(shape)
            return dense

        key_shape, value_shape = self._build_latent(key_shape, value_shape)
        self._query_dense = into_heads("query", self.num_heads, self.key_dim, query_shape)
        self._key_dense = into_heads("key", self.num_kv_heads, self.key_dim, key_shape)
        if self.use_gate:
            self._gate_dense = into_heads("gate", self.num_heads, self.value_dim, query_shape, "sigmoid")
        self._value_dense = into_heads("value", self.num_kv_heads, self.value_dim, value_shape)
        width = self._output_shape or (query_shape[-1],)
        self._output_dense = self.projected.out_of_heads(
            "attention_output", rank, width, self.use_bias, policy_of(self, "attention_output")
        )
        self._output_dense.build((*query_shape[:-1], self.num_heads, self.value_dim))
        self.build_parts(
            (query_shape[0], self.num_heads, None, self.key_dim),
            (query_shape[0], self.num_kv_heads, None, self.key_dim),
            heads=True,
        )

    def call(
        self,
        query: Any,
        value: Any,
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
        value, key = self._latent_steps(value, key)
        layout = projections.Layout.of(query, value, self._axes)
        positions: dict[str, Any] = {}
        if cache is None:
            mask = forbidden(layout, query_mask, value_mask, key_mask, attention_mask)
            heads = self._query_dense(query), self._key_dense(key), self._value_dense(value)
            folded = tuple(layout.heads_first(head) for head in heads)
        else:
            found = self._remembered(cache, layout, value, key, value_mask, key_mask, attention_mask)
            keys, values, cache, slots, positions = found
            heads = folded = (layout.heads_first(self._query_dense(query)), keys, values)
            mask = masks.both(forbidden(layout, query_mask, None, None), slots)
        mask = masks.both(mask, self._window())
        mask = masks.both(mask, masks.Causal()) if use_causal_mask else mask
        if self.overridden:
            array = self.dense(mask, *folded[:2])
            output, weights = self._compute_attention(*heads, array, training, return_attention_scores)
        else:
            output, weights = self.answer(
                *folded,
                mask=mask,
                score=None if bias is None else self.score + scores.Bias(bias),
                weights=return_attention_scores,
                training=training,
                heads=True,
                **positions,
            )
            output, weights = layout.heads_last(output), None if weights is None else layout.weights(weights)
        if self.use_gate:
            output = output * self._gate_dense(query)
        output = self._output_dense(output)
        results = [output, *([weights] if return_attention_scores else []), *([] if cache is None else [cache])]
        return output if len(results) == 1 else tuple(results)

    def compute_output_shape(self, query_shape: Any, value_shape: Any, key_shape: Any = None) -> tuple:
        """The shape of the output, without the weights."""
        projections.check_lengths(tuple(value_shape), tuple(value_shape if key_shape is None else key_shape))
        return (*query_shape[:-1], *(self._output_shape or (query_shape[-1],)))

    def compute_output_spec(self, query: Any, value: Any, key: Any = None, *args: Any, **kwargs: Any) -> Any:
        shape = self.compute_output_shape(query.shape, value.shape, None if key is None else key.shape)
        results: list[Any] = [keras.KerasTensor(shape, dtype=self.compute_dtype)]
        cache = kwargs.get("cache")
        if kwargs.get("return_attention_scores") or (len(args) > 4 and args[4]):
            rank = len(query.shape)
            axes = tuple(axis % rank for axis in self.attention_axes or range(1, rank - 1))
            lead = [query.shape[axis] for axis in range(rank - 1) if axis not in axes]
            lengths = [shape[axis] for shape in (query.shape, value.shape) for axis in axes]
            lengths = lengths if cache is None else [query.shape[1], self._slots(cache, query.shape[1])]
            results.append(keras.KerasTensor((*lead, self.num_heads, *lengths), dtype=self.compute_dtype))
        if cache is not None:
            # New ones: those of the call may be inputs of a model.
            results.append(type(cache)(*(keras.KerasTensor(part.shape, dtype=part.dtype) for part in cache)))
        return results[0] if len(results) == 1 else tuple(results)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "num_kv_heads": self.num_kv_heads,
            "latent_dim": self.latent_dim,
            "use_bias": self.use_bias,
            "use_gate": self.use_gate,
            "flash_attention": self.flash_attention,
            "output_shape": self._output_shape,
            "attention_axes": self.attention_axes,
            "sliding_window": self._sliding_window,
            **self.projected.get_config(),
        }
