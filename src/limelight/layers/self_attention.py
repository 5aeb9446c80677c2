"""Self-attention with one head."""

from typing import Any

import keras
from keras import ops

from limelight import masks
from limelight.core.component import register
from limelight.core.validation import check_positive_int
from limelight.layers.attention_core import AttentionCore
from limelight.layers.axes import to_mask
from limelight.layers.projections import get_sublayer_policy, serialize_dtype_policies, zero_padded_inputs


@register
class SelfAttention(keras.Layer):
    r"""Self-attention with one head: queries, keys and values are learned projections of one sequence.

    $$Q = XW_q,\; K = XW_k,\; V = XW_v, \qquad Y = \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt{H}}\right) V$$

    Args:
        units: H, the width of queries and keys, and of the output unless `value_units` is given.
        value_units: Width of the values, and so of the output.
        use_bias: Whether the projections add a bias.
        kernel_initializer: Initializer of the three projections.
        kernel_regularizer: Regularizer of the three projections.
        score: A `limelight.scores.Score` or its name; the scaled dot product when not given.
        mask: A `limelight.masks.Mask` or "causal", AND-ed with the masks of each call.
        normalizer: A `limelight.normalizers.Normalizer` or its name; softmax when not given.
        dropout: Fraction of the weights that is dropped during training, in [0, 1).
        seed: Seed of the dropout.
        attention_regularizer: Callable from the weights (..., T, T) to a scalar loss, added during training.

    Call arguments:
        inputs: (..., T, D).
        mask: Bool (..., T), True where a step is real; Keras's implicit mask when not given. Padded steps are not attended to,
            and their output is zero.
        attention_mask: Bool, broadcastable to (..., T, T), True where attending is allowed.
        return_attention_scores: Whether to return the weights too.
        training: Whether dropout is active.
        inputs_mask: The implicit mask as Keras passes it in a call with `attention_mask`; `mask` takes precedence.

    Returns:
        The output (..., T, units), with the mask of the input. With `return_attention_scores`, also the weights (..., T, T).

    Raises:
        ValueError: `units` is not a positive integer.

    Example:
        >>> import keras, limelight as ll
        >>> steps = keras.Input((None, 8))
        >>> output, weights = ll.layers.SelfAttention(16)(steps, return_attention_scores=True)
        >>> output.shape, weights.shape
        ((None, None, 16), (None, None, None))

    References:
        Vaswani et al. 2017, arXiv:1706.03762.
    """

    def __init__(
        self,
        units: int,
        *,
        value_units: int | None = None,
        use_bias: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        score: Any = None,
        mask: Any = None,
        normalizer: Any = None,
        dropout: float = 0.0,
        seed: int | None = None,
        attention_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.core = AttentionCore(score, mask, normalizer, dropout, seed, attention_regularizer)
        check_positive_int("units", units)
        check_positive_int("value_units", value_units, optional=True)
        self.units = units
        self.value_units = units if value_units is None else value_units
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.supports_masking = True

    def build(self, input_shape: tuple) -> None:
        self.query_dense = self._build_projection("query", self.units, input_shape)
        self.key_dense = self._build_projection("key", self.units, input_shape)
        self.value_dense = self._build_projection("value", self.value_units, input_shape)
        projected_shape = (*input_shape[:-1], self.units)
        self.core.build(projected_shape, projected_shape)

    def _build_projection(self, name: str, units: int, input_shape: tuple) -> keras.layers.Dense:
        projection = keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            # A clone: one initializer object gives every weight of the same shape the same values.
            kernel_initializer=self.kernel_initializer.clone(),
            kernel_regularizer=self.kernel_regularizer,
            dtype=get_sublayer_policy(self, name),
            name=name,
        )
        projection.build(input_shape)
        return projection

    def call(
        self,
        inputs: Any,
        mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        inputs_mask: Any = None,
    ) -> Any:
        shape = tuple(ops.shape(inputs))[:-1]
        mask = inputs_mask if mask is None else mask
        combined = None if mask is None else masks.Padding(keys=mask, queries=mask)
        inputs = zero_padded_inputs(inputs, mask)
        if attention_mask is not None:
            combined = masks.intersect(combined, to_mask(attention_mask, shape, shape))
        output, weights = self.core.attend(
            self.query_dense(inputs),
            self.key_dense(inputs),
            self.value_dense(inputs),
            layer=self,
            mask=combined,
            return_weights=return_attention_scores,
            training=training,
        )
        return (output, weights) if return_attention_scores else output

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Return the shape of the output, without the weights."""
        return (*input_shape[:-1], self.value_units)

    def compute_output_spec(
        self,
        inputs: Any,
        mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        inputs_mask: Any = None,
    ) -> Any:
        output = keras.KerasTensor((*inputs.shape[:-1], self.value_units), dtype=self.compute_dtype)
        weights = keras.KerasTensor((*inputs.shape[:-1], inputs.shape[-2]), dtype=self.compute_dtype)
        return (output, weights) if return_attention_scores else output

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **self.core.get_config(),
            "dtype": serialize_dtype_policies(self),
            "units": self.units,
            "value_units": self.value_units,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
