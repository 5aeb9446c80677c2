"""What all attention layers share: their parts, dropout, weights on request, and being observable."""

from typing import Any

import keras
from keras import ops

from limelight import functional, masks, normalizers, scores
from limelight.core.component import deserialize
from limelight.engine.call import fold, make_call
from limelight.layers.policies import policies_of


class Attending(keras.Layer):
    """A layer that asks a question of its inputs and answers it. Abstract: subclasses say what the queries and keys are.

    Args:
        score, mask, normalizer: the parts, or their names. Defaults: the scaled dot product, no mask, softmax.
        dropout: the share of weights set to zero during training, in [0, 1). Weights that are returned are those before dropout.
        seed: of the dropout.
        attention_regularizer: a callable from the weights (..., T, S) to a scalar loss, or None.

    Raises:
        ValueError: `dropout` is outside [0, 1); an unknown name of a part.
        TypeError: a part of the wrong kind.
    """

    def __init__(
        self,
        *,
        score: Any = None,
        mask: Any = None,
        normalizer: Any = None,
        dropout: float = 0.0,
        seed: int | None = None,
        attention_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={dropout}.")
        self.score = scores.get(deserialize(score))
        self.mask = masks.get(deserialize(mask))
        self.normalizer = normalizers.get(deserialize(normalizer))
        # Keras finds layers in attributes alone, and not in parts that are none.
        within = normalizers.within(self.normalizer)
        self.normalizer_within = None if within is self.normalizer else within
        self.dropout_rate = dropout
        self.seed = seed
        self.attention_regularizer = keras.regularizers.get(attention_regularizer)
        self.supports_masking = True
        if dropout > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def build_parts(self, query_shape: tuple, key_shape: tuple, heads: bool = False) -> None:
        """Build the parts that learn, for queries (..., T, H) and keys (..., S, H), or with `heads` (..., N, T, H)."""
        if not heads:
            query_shape, key_shape = (None, *query_shape[-2:]), (None, *key_shape[-2:])
        scores.build(self.score, query_shape, key_shape)
        normalizers.build(self.normalizer, (*query_shape[:-1], key_shape[-2]))

    def answer(
        self,
        query: Any,
        key: Any,
        value: Any,
        *,
        mask: masks.Mask | None = None,
        score: Any = None,
        weights: bool = False,
        training: bool | None = None,
        heads: bool = False,
        **positions: Any,
    ) -> tuple[Any, Any]:
        """Attend with the layer's parts and the call's mask, and tell whoever listens.

        Args:
            query, key, value: (..., T, H), (..., S, H), (..., S, V); with `heads`, (..., N, T, H) and (..., K, S, H).
            mask: the call's own mask, which is AND-ed with the layer's.
            score: in place of the layer's, where a call brings something of its own.
            weights: whether the weights are wanted too.
            training: whether dropout is active.
            heads: whether the axis before the length is that of heads; otherwise all axes before it are batch.
            positions: `query_positions` and `key_positions`, as `limelight.attend` takes them.

        Returns:
            The output (..., T, V), and the weights (..., T, S) in the layer's compute dtype, or None.
        """
        if not heads:
            query, key, value = (ops.expand_dims(tensor, -3) for tensor in (query, key, value))
        call = make_call(
            query,
            key,
            value,
            score=self.score if score is None else score,
            mask=masks.both(self.mask, mask),
            normalizer=self.normalizer,
            owner=self,
            **positions,
        )
        functional.announce(call)
        active = self.dropout_rate if training else 0.0
        seed = self.seed_generator if active else None
        output = call.unfold(functional.output(call, fold(value), dropout=active, seed=seed))
        output = output if heads else ops.squeeze(output, -3)
        regularized = self.attention_regularizer is not None and training
        if not weights and not regularized:
            return output, None
        given = call.unfold(functional.weights(call))
        given = given if heads else ops.squeeze(given, -3)
        if self.attention_regularizer is not None and training:
            self.add_loss(self.attention_regularizer(given))
        return output, ops.cast(given, self.compute_dtype) if weights else None

    def get_config(self) -> dict[str, Any]:
        config = {
            "score": keras.saving.serialize_keras_object(self.score),
            "mask": keras.saving.serialize_keras_object(self.mask),
            "normalizer": keras.saving.serialize_keras_object(self.normalizer),
            "dropout": self.dropout_rate,
            "seed": self.seed,
            "attention_regularizer": keras.regularizers.serialize(self.attention_regularizer)
            if self.attention_regularizer is not None
            else None,
        }
        return {**super().get_config(), **config, "dtype": keras.dtype_policies.serialize(policies_of(self))}
