"""A sequence to a vector, by attention."""

from typing import Any

import keras
from keras import ops

from limelight import masks, scores
from limelight.core.component import register
from limelight.layers.attending import Attending
from limelight.layers.policies import policy_of


@register
class AttentionPooling(Attending):
    r"""The average of a sequence, weighted by how much each step matters to a learned query.

    $$w = \mathrm{softmax}(s), \qquad y = \sum_j w_j x_j$$

    With `score="additive"` (Yang et al. 2016) $s_j = c^\top \tanh(W x_j + b)$, and with `score="dot"`
    $s_j = c^\top x_j / \sqrt{H}$; the vector $c$ is the learned query. With `queries=Q` there are Q of them, and Q vectors
    come out.

    Args:
        units: width of the hidden layer of `score="additive"`; the width of the input when not given.
        score: "additive", "dot", or a `Score` that sees the learned query and the steps.
        queries: how many vectors to read; None for one, without an axis of its own.
        kernel_initializer: of $W$ and $c$.
        normalizer, dropout, seed, attention_regularizer, mask: as every attention layer has them; `mask` sees a row for each
            query and a column for each step.

    Call arguments:
        inputs: (..., T, H).
        mask: bool (..., T), True where a step is real; Keras's implicit mask when not given.
        return_attention_scores: whether the weights come too.

    Returns:
        (..., H), or (..., Q, H) with `queries=Q`. Asked for, the weights too: (..., T), or (..., Q, T). A sequence with no
        real step gives zeros. Pooling the words of (B, sentences, words, H) leaves a mask of the sentences that have any.

    Raises:
        ValueError: `units` or `queries` is not a positive integer.

    Example:
        >>> import keras, limelight as ll
        >>> steps = keras.Input((None, 16))
        >>> vector, weights = ll.layers.AttentionPooling()(steps, return_attention_scores=True)
        >>> vector.shape, weights.shape
        ((None, 16), (None, None))

    References:
        Yang et al. 2016, Hierarchical Attention Networks; Lin et al. 2017, arXiv:1703.03130 (several queries).
    """

    def __init__(
        self,
        units: int | None = None,
        *,
        score: Any = "additive",
        queries: int | None = None,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        self.additive = isinstance(score, str) and score == "additive"
        super().__init__(score=scores.Dot(scale=1.0) if self.additive else score, **kwargs)
        for name, given in (("units", units), ("queries", queries)):
            if given is not None and (not isinstance(given, int) or given < 1):
                raise ValueError(f"`{name}` must be a positive integer or None. Received: {name}={given!r}.")
        if units is not None and not self.additive:
            raise ValueError(f'`units` belongs to score="additive". Received: units={units} with score={score!r}.')
        self.units = units
        self.queries = queries
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.hidden: keras.layers.Dense | None = None

    def build(self, input_shape: tuple) -> None:
        size = input_shape[-1]
        if size is None:
            raise ValueError(
                "The last axis of the input of AttentionPooling must be known. Received: input shape "
                f"{tuple(input_shape)}. Put a Dense or an Embedding of a fixed width before it."
            )
        if self.additive:
            size = self.units or size
            # A clone: one initializer object would give every weight of the same shape the same values.
            kernel = self.kernel_initializer.clone()
            policy = policy_of(self, "hidden")
            hidden = keras.layers.Dense(size, "tanh", kernel_initializer=kernel, name="hidden", dtype=policy)
            hidden.build(input_shape)
            self.hidden = hidden
        self.query = self.add_weight(name="query", shape=(self.queries or 1, size), initializer=self.kernel_initializer)
        self.build_parts((*input_shape[:-2], self.queries or 1, size), (*input_shape[:-1], size))

    def call(
        self, inputs: Any, mask: Any = None, return_attention_scores: bool = False, training: bool | None = None
    ) -> Any:
        key = inputs if self.hidden is None else self.hidden(inputs)
        query = ops.convert_to_tensor(self.query)
        query = ops.broadcast_to(query, (*tuple(ops.shape(key))[:-2], *query.shape))
        padding = None if mask is None else masks.Padding(keys=mask)
        vectors, weights = self.answer(
            query, key, inputs, mask=padding, weights=return_attention_scores, training=training
        )
        if self.queries is None:
            vectors = ops.squeeze(vectors, -2)
            weights = None if weights is None else ops.squeeze(weights, -2)
        return (vectors, weights) if return_attention_scores else vectors

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """The time axis is gone, and its mask with it; of an axis before it, what holds a real step is real itself."""
        if previous_mask is None or len(previous_mask.shape) < 3 or self.queries is not None:
            return None
        return ops.any(previous_mask, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """The shape of the output, without the weights."""
        return (*input_shape[:-2], *(() if self.queries is None else (self.queries,)), input_shape[-1])

    def compute_output_spec(
        self, inputs: Any, mask: Any = None, return_attention_scores: bool = False, training: bool | None = None
    ) -> Any:
        shape = self.compute_output_shape(inputs.shape)
        vectors = keras.KerasTensor(shape, dtype=self.compute_dtype)
        weights = keras.KerasTensor((*shape[:-1], inputs.shape[-2]), dtype=self.compute_dtype)
        return (vectors, weights) if return_attention_scores else vectors

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "units": self.units,
            "queries": self.queries,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
        return {**config, "score": "additive"} if self.additive else config
