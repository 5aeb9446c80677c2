"""The part that attention layers share: score, mask and normalizer, dropout, and weights on request."""

from typing import Any

import keras
from keras import ops

from limelight import functional, masks, normalizers, scores
from limelight.core.component import deserialize
from limelight.engine.call import flatten_leading, make_call


class AttentionCore(keras.Layer):
    r"""Attention with given components, dropout and a regularizer, without projections.

    A layer holds one, as `keras.layers.RNN` holds a cell. It is a layer so that Keras tracks and saves the components that learn;
    `attend` is called in place of the layer itself, and computes in the dtype of the layer that holds it.

    Args:
        score: A `Score` or its name; the scaled dot product when not given.
        mask: A `Mask`, "causal", or None.
        normalizer: A `Normalizer` or its name; softmax when not given.
        dropout: Fraction of the weights that is dropped during training, in [0, 1).
        seed: Seed of the dropout.
        attention_regularizer: Callable from the weights (..., T, S) to a scalar loss, or None.

    Raises:
        ValueError: `dropout` is outside [0, 1), or a component's name is unknown.
        TypeError: A component is of the wrong class.
    """

    def __init__(
        self,
        score: Any = None,
        mask: Any = None,
        normalizer: Any = None,
        dropout: float = 0.0,
        seed: int | None = None,
        attention_regularizer: Any = None,
    ) -> None:
        super().__init__(name="core", dtype="float32")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={dropout}.")
        self.score = scores.get(deserialize(score))
        self.mask = masks.get(deserialize(mask))
        self.normalizer = normalizers.get(deserialize(normalizer))
        # Keras finds layers in attributes only, not in the fields of a component that is a dataclass.
        inner = normalizers.find_layer(self.normalizer)
        self.inner_normalizer = None if inner is self.normalizer else inner
        self.dropout = dropout
        self.seed = seed
        self.attention_regularizer = keras.regularizers.get(attention_regularizer)
        if dropout > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, query_shape: tuple, key_shape: tuple, has_heads: bool = False) -> None:
        """Build the components that learn.

        Args:
            query_shape: (..., T, H), or with `has_heads` (B, N, T, H).
            key_shape: (..., S, H), or with `has_heads` (B, K, S, H).
            has_heads: Whether the axis before the length is that of the heads.
        """
        if not has_heads:
            query_shape, key_shape = (None, *query_shape[-2:]), (None, *key_shape[-2:])
        scores.build(self.score, query_shape, key_shape)
        normalizers.build(self.normalizer, (*query_shape[:-1], key_shape[-2]))

    def attend(
        self,
        query: Any,
        key: Any,
        value: Any,
        *,
        layer: keras.Layer,
        mask: masks.Mask | None = None,
        score: Any = None,
        return_weights: bool = False,
        training: bool | None = None,
        has_heads: bool = False,
        query_positions: Any = None,
        key_positions: Any = None,
    ) -> tuple[Any, Any]:
        """Attend with the components and the masks of a call, and announce the call to those who capture it.

        Args:
            query: (..., T, H), or with `has_heads` (..., N, T, H).
            key: (..., S, H), or with `has_heads` (..., K, S, H).
            value: (..., S, V), or with `has_heads` (..., K, S, V).
            layer: The layer that attends.
            mask: The mask of the call, AND-ed with that of the layer.
            score: Replaces the layer's score in this call.
            return_weights: Whether to return the weights.
            training: Whether dropout is active.
            has_heads: Whether the axis before the length is that of the heads.
            query_positions: Positions of the queries, as `limelight.attend` takes them.
            key_positions: Positions of the keys.

        Returns:
            The output (..., T, V), and the weights (..., T, S) before dropout in the layer's compute dtype, or None.
        """
        if not has_heads:
            query, key, value = (ops.expand_dims(tensor, -3) for tensor in (query, key, value))
        call = make_call(
            query,
            key,
            value,
            score=self.score if score is None else score,
            mask=masks.intersect(self.mask, mask),
            normalizer=self.normalizer,
            layer=layer,
            query_positions=query_positions,
            key_positions=key_positions,
        )
        functional.announce_call(call)
        # `keras.RematScope` traces `training`, so that it must not be read in vain.
        rate = self.dropout if self.dropout and training else 0.0
        seed = self.seed_generator if rate else None
        output = call.restore_shape(functional.compute_output(call, flatten_leading(value), dropout=rate, seed=seed))
        output = output if has_heads else ops.squeeze(output, -3)
        if not return_weights and (self.attention_regularizer is None or not training):
            return output, None
        weights = call.restore_shape(functional.compute_weights(call))
        weights = weights if has_heads else ops.squeeze(weights, -3)
        if self.attention_regularizer is not None and training:
            self.add_loss(self.attention_regularizer(weights))
        return output, ops.cast(weights, layer.compute_dtype) if return_weights else None

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, to be merged into the config of the layer that holds this one."""
        regularizer = self.attention_regularizer
        return {
            "score": keras.saving.serialize_keras_object(self.score),
            "mask": keras.saving.serialize_keras_object(self.mask),
            "normalizer": keras.saving.serialize_keras_object(self.normalizer),
            "dropout": self.dropout,
            "seed": self.seed,
            "attention_regularizer": None if regularizer is None else keras.regularizers.serialize(regularizer),
        }
