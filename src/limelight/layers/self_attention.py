"""Self-attention with one head, as the first chapter of every course has it."""

from typing import Any

import keras
from keras import ops

from limelight import masks
from limelight.core.component import register
from limelight.layers.attending import Attending
from limelight.layers.masking import explicit
from limelight.layers.policies import policy_of


@register
class SelfAttention(Attending):
    r"""Self-attention of one head: learned queries, keys and values of one sequence.

    $$Q = XW_q,\; K = XW_k,\; V = XW_v, \qquad Y = \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt{H}}\right) V$$

    Args:
        units: width H of the queries and keys, and of the output unless `value_units` is given.
        value_units: width of the values, and so of the output.
        use_bias: whether the projections add a bias.
        kernel_initializer, kernel_regularizer: of the three projections.
        score, mask, normalizer, dropout, seed, attention_regularizer: as every attention layer has them; `mask="causal"` for
            a sequence that must not see its future.

    Call arguments:
        inputs: (..., T, D).
        mask: bool (..., T), True where a step is real; Keras's implicit mask when not given. Padded steps are neither attended
            to nor attend: their output is zero.
        attention_mask: bool, broadcastable to (..., T, T), True where attending is allowed.
        return_attention_scores: whether the weights come too.
        inputs_mask: where Keras puts the implicit mask in a call with `attention_mask`; `mask` comes first.

    Returns:
        (..., T, units), with the mask of the input. Asked for, the weights too: (..., T, T).

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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, given in (("units", units), ("value_units", units if value_units is None else value_units)):
            if not isinstance(given, int) or given < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={given!r}.")
        self.units = units
        self.value_units = units if value_units is None else value_units
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: tuple) -> None:
        self.query_dense = self._projection("query", self.units, input_shape)
        self.key_dense = self._projection("key", self.units, input_shape)
        self.value_dense = self._projection("value", self.value_units, input_shape)
        projected = (*input_shape[:-1], self.units)
        self.build_parts(projected, projected)

    def _projection(self, name: str, units: int, input_shape: tuple) -> keras.layers.Dense:
        dense = keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            # A clone: one initializer object would give every weight of the same shape the same values.
            kernel_initializer=self.kernel_initializer.clone(),
            kernel_regularizer=self.kernel_regularizer,
            dtype=policy_of(self, name),
            name=name,
        )
        dense.build(input_shape)
        return dense

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
        own = None if mask is None else masks.Padding(keys=mask, queries=mask)
        given = None if attention_mask is None else explicit(attention_mask, shape, shape)
        output, weights = self.answer(
            self.query_dense(inputs),
            self.key_dense(inputs),
            self.value_dense(inputs),
            mask=masks.both(own, given),
            weights=return_attention_scores,
            training=training,
        )
        return (output, weights) if return_attention_scores else output

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """The shape of the output, without the weights."""
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
            "units": self.units,
            "value_units": self.value_units,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
