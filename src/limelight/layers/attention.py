"""Attention without projections: a query reads values by their keys."""

import dataclasses
from typing import Any

import keras
from keras import ops

from limelight import masks, scores
from limelight.core.block import Block
from limelight.core.component import register
from limelight.core.precision import upcast
from limelight.layers.attending import Attending
from limelight.layers.masking import explicit


@register
class Attention(Attending):
    r"""Attention of a query over values, with nothing learned but what its parts learn.

    $$y_i = \sum_j w_{ij} v_j, \qquad w_i = \mathrm{normalizer}(\mathrm{score}(q_i, k_j))$$

    It takes the place of `keras.layers.Attention`: the same list form and arguments, the same weights. So the default
    score is the *unscaled* dot product of Luong et al.; `score=limelight.scores.Dot()` scales it.

    Args:
        use_scale: whether a learned number multiplies the scores; Keras's argument.
        score_mode: "dot", or "concat" for $s_{ij} = c \sum \tanh(a(q_i + k_j))$ with a learned number c; Keras's argument.
        dropout, seed: of the weights.
        score: a `Score` in place of `score_mode`, such as `limelight.scores.Additive(64)`.
        mask, normalizer, attention_regularizer: as every attention layer has them.

    Call arguments:
        query, value, key: (..., T, H), (..., S, V), (..., S, H), as three arguments or as a list `[query, value]` or
            `[query, value, key]`. The value is the key where that is not given.
        mask: a list `[query_mask, value_mask]` or `[query_mask, value_mask, key_mask]` of bool (..., T), (..., S), (..., S)
            or None; Keras's implicit masks when not given. A masked query gives zeros, and has weights of 0 (Keras shows others).
        attention_mask: bool, broadcastable to (..., T, S), True where attending is allowed.
        return_attention_scores: whether the weights come too.
        use_causal_mask: whether a query attends to its own position and those before it alone; the last query stands at the
            last key.
        inputs_mask: where Keras puts the implicit masks in a call with `attention_mask`; `mask` comes first.

    Returns:
        (..., T, V), with the query's mask. Asked for, the weights too: (..., T, S), before dropout.

    Raises:
        ValueError: an input that is no list of two or three; an unknown `score_mode`; a mask that is additive or ambiguous.

    Example:
        >>> import keras, limelight as ll
        >>> decoder, encoder = keras.Input((5, 16)), keras.Input((None, 16))
        >>> read, weights = ll.layers.Attention()(decoder, encoder, return_attention_scores=True)
        >>> read.shape, weights.shape
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
        **kwargs: Any,
    ) -> None:
        if score_mode not in ("dot", "concat"):
            raise ValueError(
                "Invalid value for argument score_mode. Expected one of {'dot', 'concat'}. "
                f"Received: score_mode={score_mode}. Any other score is given as score=..., for example limelight.scores.Additive(64)."
            )
        if score is not None and (use_scale or score_mode != "dot"):
            raise ValueError(
                "`score` takes the place of `use_scale` and `score_mode`. Received: "
                f"score={score!r} with use_scale={use_scale}, score_mode={score_mode!r}. Give one or the other."
            )
        self.given_score = score is not None
        super().__init__(score=scores.Dot(scale=1.0) if score is None else score, dropout=dropout, seed=seed, **kwargs)
        self.use_scale, self.score_mode = use_scale, score_mode
        self.scale: Any = None
        self.concat_score_weight: Any = None

    def __call__(self, query: Any = None, value: Any = None, key: Any = None, **kwargs: Any) -> Any:
        if query is None:
            return super().__call__(**kwargs)
        if isinstance(query, (list, tuple)):
            # As Keras's is called: the list, its masks, and whether it trains.
            given = {"mask": value, "training": key}
            kwargs |= {name: one for name, one in given.items() if one is not None}
            return super().__call__(list(query), **kwargs)
        if value is None:
            return super().__call__(query, **kwargs)
        inputs = [query, value] if key is None else [query, value, key]
        return super().__call__(inputs, **kwargs)

    def build(self, input_shape: Any) -> None:
        self._validate(input_shape)
        if self.use_scale:
            self.scale = self.add_weight(name="scale", shape=(), initializer="ones")
        if self.score_mode == "concat":
            self.concat_score_weight = self.add_weight(name="concat_score_weight", shape=(), initializer="ones")
        self.build_parts(tuple(input_shape[0]), tuple(input_shape[-1]))

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
        self._validate(inputs, mask)
        query, value, key = inputs[0], inputs[1], inputs[-1]
        query_mask, *others = mask or [None]
        permitted = masks.Causal() if use_causal_mask else None
        if query_mask is not None:
            permitted = masks.both(permitted, masks.Padding(queries=query_mask))
        for given in others:
            if given is not None:
                permitted = masks.both(permitted, masks.Padding(keys=given))
        if attention_mask is not None:
            queries, keys = tuple(ops.shape(query))[:-1], tuple(ops.shape(key))[:-1]
            permitted = masks.both(permitted, explicit(attention_mask, queries, keys))
        output, weights = self.answer(
            query,
            key,
            value,
            score=self._score(query.shape[-1]),
            mask=permitted,
            weights=return_attention_scores,
            training=training,
        )
        return (output, weights) if return_attention_scores else output

    def _score(self, width: int) -> scores.Score:
        """The layer's score, for queries of a width, with the weights that Keras's layer keeps in itself and in no part."""
        if self.score_mode == "concat":
            return Concat(self.scale, self.concat_score_weight, width)
        return self.score if self.scale is None else LearnedScale(self.score, self.scale)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of the query."""
        self._validate(inputs, mask)
        return None if mask is None or mask[0] is None else ops.convert_to_tensor(mask[0])

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """The shape of the output, without the weights."""
        return (*input_shape[0][:-1], input_shape[1][-1])

    def compute_output_spec(self, inputs: Any, *args: Any, return_attention_scores: bool = False, **kwargs: Any) -> Any:
        self._validate(inputs, kwargs.get("mask"))
        shape = self.compute_output_shape([tensor.shape for tensor in inputs])
        output = keras.KerasTensor(shape, dtype=self.compute_dtype)
        weights = (*inputs[0].shape[:-1], inputs[-1].shape[-2])
        return (output, keras.KerasTensor(weights, dtype=self.compute_dtype)) if return_attention_scores else output

    def _validate(self, inputs: Any, mask: Any = None) -> None:
        """Raise where the inputs or masks are not the list that they must be."""
        if not isinstance(inputs, list):
            raise ValueError(
                "Attention must be called on a list of inputs, [query, value] or [query, value, key], or on these as separate "
                f"arguments. Received: inputs={inputs}. To attend within one sequence, give it twice or use SelfAttention."
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
        config = {**super().get_config(), "use_scale": self.use_scale, "score_mode": self.score_mode}
        return config if self.given_score else {**config, "score": None}


@dataclasses.dataclass(frozen=True, eq=False)
class LearnedScale(scores.Score):
    """A score multiplied by a weight of the layer's."""

    score: scores.Score
    scale: Any

    @property
    def cost(self) -> int:
        return self.score.cost

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        return self.score(query, key, block=block) * upcast(ops.convert_to_tensor(self.scale))


@dataclasses.dataclass(frozen=True, eq=False)
class Concat(scores.Score):
    r"""Keras's score_mode "concat": $s_{ij} = c \sum \tanh(a(q_i + k_j))$."""

    scale: Any
    readout: Any
    width: int

    @property
    def cost(self) -> int:
        return self.width

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        hidden = ops.expand_dims(query, -2) + ops.expand_dims(key, -3)  # (..., t, s, H)
        if self.scale is not None:
            hidden = hidden * ops.cast(self.scale, hidden.dtype)
        total = ops.sum(upcast(ops.tanh(hidden)), axis=-1)
        return total * upcast(ops.convert_to_tensor(self.readout))
