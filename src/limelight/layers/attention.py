"""Attention without projections, in place of Keras's `Attention` and `AdditiveAttention`."""

import dataclasses
from typing import Any

import keras
from keras import ops

from limelight import masks, scores
from limelight.core.block import Block
from limelight.core.component import register
from limelight.core.precision import upcast
from limelight.layers.attention_core import AttentionCore
from limelight.layers.axes import to_mask
from limelight.layers.projections import serialize_dtype_policies
from limelight.scores.additive import Readout


@register
class Attention(keras.Layer):
    r"""Attention of queries over values without projections: only the components may learn.

    $$y_i = \sum_j w_{ij} v_j, \qquad w_i = \mathrm{normalizer}(\mathrm{score}(q_i, k_j))$$

    It replaces `keras.layers.Attention`: same list form, same arguments, same weights. So the default score is the *unscaled* dot
    product of Luong et al.; `score=limelight.scores.Dot()` scales it.

    Args:
        use_scale: Whether a learned number multiplies the scores; Keras's argument.
        score_mode: "dot", or "concat" for $s_{ij} = c \sum \tanh(a(q_i + k_j))$ with a learned number c; Keras's argument.
        dropout: Fraction of the weights that is dropped during training, in [0, 1).
        seed: Seed of the dropout.
        score: A `Score` in place of `score_mode`, such as `limelight.scores.Additive(64)`.
        mask: A `limelight.masks.Mask` or "causal", AND-ed with the masks of each call.
        normalizer: A `limelight.normalizers.Normalizer` or its name; softmax when not given.
        attention_regularizer: Callable from the weights (..., T, S) to a scalar loss, added during training.

    Call arguments:
        query: (..., T, H).
        value: (..., S, V).
        key: (..., S, H); the value when not given. Query, value and key may also be given as one list, `[query, value]` or
            `[query, value, key]`.
        mask: A list `[query_mask, value_mask]` or `[query_mask, value_mask, key_mask]` of bool (..., T), (..., S), (..., S)
            or None; Keras's implicit masks when not given. The output of a masked query is zero, and so are its weights (Keras
            returns others).
        attention_mask: Bool, broadcastable to (..., T, S), True where attending is allowed.
        training: Whether dropout is active.
        return_attention_scores: Whether to return the weights too.
        use_causal_mask: Whether a query attends only to its own position and those before it; the last query is aligned with the
            last key.
        inputs_mask: The implicit masks as Keras passes them in a call with `attention_mask`; `mask` takes precedence.

    Returns:
        The output (..., T, V), with the query's mask. With `return_attention_scores`, also the weights (..., T, S), before
        dropout.

    Raises:
        ValueError: The input is not a list of two or three tensors, `score_mode` is unknown, or a mask is additive or ambiguous.

    Example:
        >>> import keras, limelight as ll
        >>> decoder, encoder = keras.Input((5, 16)), keras.Input((None, 16))
        >>> context, weights = ll.layers.Attention()(decoder, encoder, return_attention_scores=True)
        >>> context.shape, weights.shape
        ((None, 5, 16), (None, 5, None))

    References:
        Luong et al. 2015, arXiv:1508.04025.
    """

    def __init__(
        self,
        use_scale: bool = False,
        score_mode: str = "dot",
        dropout: float = 0.0,
        seed: int | None = None,
        *,
        score: Any = None,
        mask: Any = None,
        normalizer: Any = None,
        attention_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        if score_mode not in ("dot", "concat"):
            raise ValueError(
                "Invalid value for argument score_mode. Expected one of {'dot', 'concat'}. "
                f"Received: score_mode={score_mode}. Pass any other score as score=..., such as limelight.scores.Additive(64)."
            )
        if score is not None and (use_scale or score_mode != "dot"):
            raise ValueError(
                "`score` replaces `use_scale` and `score_mode`. Received: "
                f"score={score!r} with use_scale={use_scale}, score_mode={score_mode!r}. Pass one or the other."
            )
        super().__init__(**kwargs)
        self._has_custom_score = score is not None
        score = scores.Dot(scale=1.0) if score is None else score
        self.core = AttentionCore(score, mask, normalizer, dropout, seed, attention_regularizer)
        self.use_scale, self.score_mode, self.seed = use_scale, score_mode, seed
        self.scale: Any = None
        self.concat_score_weight: Any = None
        self.supports_masking = True

    def __call__(self, query: Any = None, value: Any = None, key: Any = None, **kwargs: Any) -> Any:
        if query is None:
            return super().__call__(**kwargs)
        if isinstance(query, (list, tuple)):
            # The positional arguments of Keras's layer: inputs, mask, training.
            given = {"mask": value, "training": key}
            kwargs |= {name: argument for name, argument in given.items() if argument is not None}
            return super().__call__(list(query), **kwargs)
        if value is None:
            return super().__call__(query, **kwargs)
        inputs = [query, value] if key is None else [query, value, key]
        return super().__call__(inputs, **kwargs)

    def build(self, input_shape: Any) -> None:
        self._check_inputs(input_shape)
        if self.use_scale:
            self.scale = self.add_weight(name="scale", shape=(), initializer="ones")
        if self.score_mode == "concat":
            self.concat_score_weight = self.add_weight(name="concat_score_weight", shape=(), initializer="ones")
        self.core.build(tuple(input_shape[0]), tuple(input_shape[-1]))

    def call(
        self,
        inputs: Any,
        mask: Any = None,
        attention_mask: Any = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
        inputs_mask: Any = None,
    ) -> Any:
        mask = inputs_mask if mask is None else mask
        self._check_inputs(inputs, mask)
        query, value, key = inputs[0], inputs[1], inputs[-1]
        query_mask, *key_masks = mask or [None]
        combined = masks.Causal() if use_causal_mask else None
        if query_mask is not None:
            combined = masks.intersect(combined, masks.Padding(queries=query_mask))
        for key_mask in key_masks:
            if key_mask is not None:
                combined = masks.intersect(combined, masks.Padding(keys=key_mask))
        if attention_mask is not None:
            query_shape, key_shape = tuple(ops.shape(query))[:-1], tuple(ops.shape(key))[:-1]
            combined = masks.intersect(combined, to_mask(attention_mask, query_shape, key_shape))
        output, weights = self.core.attend(
            query,
            key,
            value,
            layer=self,
            score=self._get_score(query.shape[-1]),
            mask=combined,
            return_weights=return_attention_scores,
            training=training,
        )
        return (output, weights) if return_attention_scores else output

    def _get_score(self, width: int) -> scores.Score:
        """Return the score for queries of a width, with the weights that Keras's layer stores itself."""
        if self.score_mode == "concat":
            return KerasConcatScore(self.scale, self.concat_score_weight, width)
        return self.core.score if self.scale is None else MultipliedScore(self.core.score, self.scale)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return the mask of the query."""
        self._check_inputs(inputs, mask)
        return None if mask is None or mask[0] is None else ops.convert_to_tensor(mask[0])

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Return the shape of the output, without the weights."""
        return (*input_shape[0][:-1], input_shape[1][-1])

    def compute_output_spec(
        self,
        inputs: Any,
        mask: Any = None,
        attention_mask: Any = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
        inputs_mask: Any = None,
    ) -> Any:
        self._check_inputs(inputs, mask)
        shape = self.compute_output_shape([tensor.shape for tensor in inputs])
        output = keras.KerasTensor(shape, dtype=self.compute_dtype)
        weights_shape = (*inputs[0].shape[:-1], inputs[-1].shape[-2])
        weights = keras.KerasTensor(weights_shape, dtype=self.compute_dtype)
        return (output, weights) if return_attention_scores else output

    def _check_inputs(self, inputs: Any, mask: Any = None) -> None:
        """Raise if inputs or masks are not a list of two or three."""
        if not isinstance(inputs, list):
            raise ValueError(
                "Attention must be called on a list of inputs, [query, value] or [query, value, key], or on these as separate "
                f"arguments. Received: inputs={inputs}. To attend within one sequence, pass it twice or use SelfAttention."
            )
        if not 2 <= len(inputs) <= 3:
            raise ValueError(
                f"Attention takes a list of length 2 or 3, [query, value, key]. Received length: {len(inputs)}."
            )
        if mask is not None and not isinstance(mask, list):
            raise ValueError(
                f"The Attention layer mask must be a list, [query_mask, value_mask]. Received: mask={mask}."
            )
        if mask is not None and not 2 <= len(mask) <= 3:
            raise ValueError(
                f"Attention takes a mask list of length 2 or 3, [query_mask, value_mask]. Received: {len(mask)}."
            )

    def get_config(self) -> dict[str, Any]:
        core = self.core.get_config()
        return {
            **super().get_config(),
            **core,
            "dtype": serialize_dtype_policies(self),
            "score": core["score"] if self._has_custom_score else None,
            "use_scale": self.use_scale,
            "score_mode": self.score_mode,
        }


@register
class AdditiveAttention(Attention):
    r"""Attention with the score $s_{ij} = c^\top \tanh(q_i + k_j)$, in place of `keras.layers.AdditiveAttention`.

    Nothing is projected. `limelight.recipes.bahdanau` projects query and key, as Bahdanau et al. do.

    Args:
        use_scale: Whether the vector c is learned; all ones if not. Keras's argument.
        dropout: Fraction of the weights that is dropped during training, in [0, 1).
        seed: Seed of the dropout.
        mask: A `limelight.masks.Mask` or "causal", AND-ed with the masks of each call.
        normalizer: A `limelight.normalizers.Normalizer` or its name; softmax when not given.
        attention_regularizer: Callable from the weights (..., T, S) to a scalar loss, added during training.

    Call arguments: those of `Attention`.

    Returns:
        As `Attention` returns.

    Raises:
        ValueError: A `score` is given.

    Example:
        >>> import keras, limelight as ll
        >>> decoder, encoder = keras.Input((5, 16)), keras.Input((None, 16))
        >>> ll.layers.AdditiveAttention()([decoder, encoder]).shape
        (None, 5, 16)

    References:
        Bahdanau et al. 2015, arXiv:1409.0473.
    """

    def __init__(self, use_scale: bool = True, dropout: float = 0.0, seed: int | None = None, **kwargs: Any) -> None:
        if kwargs.get("score") is not None:
            raise ValueError(
                "An AdditiveAttention has a score of its own. Received: "
                f"score={kwargs['score']!r}. Use limelight.layers.Attention(score=...)."
            )
        super().__init__(use_scale=use_scale, dropout=dropout, seed=seed, **kwargs)

    def build(self, input_shape: Any) -> None:
        self._check_inputs(input_shape)
        if self.use_scale:
            shape = (input_shape[0][-1],)
            self.scale = self.add_weight(name="scale", shape=shape, initializer="glorot_uniform")
        self.core.build(tuple(input_shape[0]), tuple(input_shape[-1]))

    def _get_score(self, width: int) -> scores.Score:
        return KerasAdditiveScore(None if self.scale is None else ops.convert_to_tensor(self.scale), width)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {name: value for name, value in config.items() if name not in ("score", "score_mode")}


@dataclasses.dataclass(frozen=True, eq=False)
class MultipliedScore(scores.Score):
    """A score multiplied by a variable of the layer."""

    score: scores.Score
    scale: Any

    @property
    def cost(self) -> int:
        return self.score.cost

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        return self.score(query, key, block=block) * upcast(ops.convert_to_tensor(self.scale))


@dataclasses.dataclass(frozen=True, eq=False)
class KerasConcatScore(scores.Score):
    r"""Score of Keras's `score_mode="concat"`: $s_{ij} = c \sum \tanh(a(q_i + k_j))$ with numbers a and c."""

    scale: Any
    weight: Any
    width: int

    @property
    def cost(self) -> int:
        return self.width

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        hidden = ops.expand_dims(query, -2) + ops.expand_dims(key, -3)  # (..., t, s, H)
        if self.scale is not None:
            hidden = hidden * ops.cast(self.scale, hidden.dtype)
        return ops.sum(upcast(ops.tanh(hidden)), axis=-1) * upcast(ops.convert_to_tensor(self.weight))


@dataclasses.dataclass(frozen=True, eq=False)
class KerasAdditiveScore(scores.Score):
    r"""Score of Keras's `AdditiveAttention`: $s_{ij} = c^\top \tanh(q_i + k_j)$ with a variable c of the layer, or ones."""

    scale: Any
    width: int

    @property
    def cost(self) -> int:
        return self.width

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        query, key, readout = self.prepare(query, key, block=block)
        return readout(query, key, block=block)

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, scores.Score]:
        query, key = upcast(query), upcast(key)
        scale = ops.ones((query.shape[-1],), dtype=query.dtype) if self.scale is None else upcast(self.scale)
        return query, key, Readout(ops.expand_dims(scale, -1))
