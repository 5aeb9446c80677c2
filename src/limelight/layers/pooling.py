"""Attention that reduces a sequence to a vector, and a document to a vector by two levels of it."""

import dataclasses
import inspect
from typing import Any

import keras
from keras import ops

from limelight import masks, scores
from limelight.core.component import Component, deserialize, register
from limelight.core.validation import check_positive_int
from limelight.layers.attention_core import AttentionCore
from limelight.layers.projections import get_sublayer_policy, serialize_dtype_policies, zero_padded_inputs


@register
class AttentionPooling(keras.Layer):
    r"""Average of a sequence, weighted by a learned query's attention to each step.

    $$w = \mathrm{softmax}(s), \qquad y = \sum_j w_j x_j$$

    With `score="additive"` (Yang et al. 2016) $s_j = c^\top \tanh(W x_j + b)$, and with `score="dot"`
    $s_j = c^\top x_j / \sqrt{H}$; the vector $c$ is the learned query. With `num_queries=Q` there are Q of them, and Q vectors
    are returned.

    Args:
        units: Width of the hidden layer of `score="additive"`; the width of the input when not given.
        score: "additive", "dot", or a `Score` of the learned query and the steps.
        num_queries: Number of learned queries; None for a single one, whose axis is dropped.
        kernel_initializer: Initializer of $W$ and $c$.
        mask: A `limelight.masks.Mask` or "causal", with a row for each learned query and a column for each step.
        normalizer: A `limelight.normalizers.Normalizer` or its name; softmax when not given.
        dropout: Fraction of the weights that is dropped during training, in [0, 1).
        seed: Seed of the dropout.
        attention_regularizer: Callable from the weights (..., Q, T) to a scalar loss, added during training.

    Call arguments:
        inputs: (..., T, H).
        mask: Bool (..., T), True where a step is real; Keras's implicit mask when not given.
        return_attention_scores: Whether to return the weights too.
        training: Whether dropout is active.

    Returns:
        The vectors (..., H), or (..., Q, H) with `num_queries=Q`. With `return_attention_scores`, also the weights (..., T), or
        (..., Q, T). The vector of a sequence without a real step is zero. Pooling the words of (B, sentences, words, H) returns a
        mask of the sentences that have any.

    Raises:
        ValueError: `units` or `num_queries` is not a positive integer.

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
        num_queries: int | None = None,
        kernel_initializer: Any = "glorot_uniform",
        mask: Any = None,
        normalizer: Any = None,
        dropout: float = 0.0,
        seed: int | None = None,
        attention_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._is_additive = isinstance(score, str) and score == "additive"
        # The layer itself projects the steps once; what remains of the additive score is a dot product.
        core_score = scores.Dot(scale=1.0) if self._is_additive else score
        self.core = AttentionCore(core_score, mask, normalizer, dropout, seed, attention_regularizer)
        check_positive_int("units", units, optional=True)
        check_positive_int("num_queries", num_queries, optional=True)
        if units is not None and not self._is_additive:
            raise ValueError(f'`units` requires score="additive". Received: units={units} with score={score!r}.')
        self.units = units
        self.num_queries = num_queries
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.hidden: keras.layers.Dense | None = None
        self.supports_masking = True

    def build(self, input_shape: tuple) -> None:
        size = input_shape[-1]
        if size is None:
            raise ValueError(
                "The last axis of the input of AttentionPooling must be known. Received: input shape "
                f"{tuple(input_shape)}. Put a Dense or an Embedding of a fixed width before it."
            )
        if self._is_additive:
            size = self.units or size
            # A clone: one initializer object gives every weight of the same shape the same values.
            kernel_initializer = self.kernel_initializer.clone()
            policy = get_sublayer_policy(self, "hidden")
            hidden = keras.layers.Dense(
                size, "tanh", kernel_initializer=kernel_initializer, name="hidden", dtype=policy
            )
            hidden.build(input_shape)
            self.hidden = hidden
        shape = (self.num_queries or 1, size)
        self.query = self.add_weight(name="query", shape=shape, initializer=self.kernel_initializer)
        self.core.build((*input_shape[:-2], *shape), (*input_shape[:-1], size))

    def call(
        self, inputs: Any, mask: Any = None, return_attention_scores: bool = False, training: bool | None = None
    ) -> Any:
        inputs = zero_padded_inputs(inputs, mask)
        key = inputs if self.hidden is None else self.hidden(inputs)
        query = ops.convert_to_tensor(self.query)
        query = ops.broadcast_to(query, (*tuple(ops.shape(key))[:-2], *query.shape))
        vectors, weights = self.core.attend(
            query,
            key,
            inputs,
            layer=self,
            mask=None if mask is None else masks.Padding(keys=mask),
            return_weights=return_attention_scores,
            training=training,
        )
        if self.num_queries is None:
            vectors = ops.squeeze(vectors, -2)
            weights = None if weights is None else ops.squeeze(weights, -2)
        return (vectors, weights) if return_attention_scores else vectors

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Return the mask without the time axis, if there is an axis before it: True where any step is real."""
        if previous_mask is None or len(previous_mask.shape) < 3 or self.num_queries is not None:
            return None
        return ops.any(previous_mask, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Return the shape of the output, without the weights."""
        queries = () if self.num_queries is None else (self.num_queries,)
        return (*input_shape[:-2], *queries, input_shape[-1])

    def compute_output_spec(
        self, inputs: Any, mask: Any = None, return_attention_scores: bool = False, training: bool | None = None
    ) -> Any:
        shape = self.compute_output_shape(inputs.shape)
        vectors = keras.KerasTensor(shape, dtype=self.compute_dtype)
        weights = keras.KerasTensor((*shape[:-1], inputs.shape[-2]), dtype=self.compute_dtype)
        return (vectors, weights) if return_attention_scores else vectors

    def get_config(self) -> dict[str, Any]:
        core = self.core.get_config()
        return {
            **super().get_config(),
            **core,
            "dtype": serialize_dtype_policies(self),
            "score": "additive" if self._is_additive else core["score"],
            "units": self.units,
            "num_queries": self.num_queries,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@register
class HierarchicalPooling(keras.Layer):
    r"""Hierarchical attention: the words of each sentence are pooled by attention, then the sentences of the document.

    $$s_i = \mathrm{pool}(\mathrm{encode}(w_{i1}, \dots, w_{iW})), \qquad d = \mathrm{pool}(\mathrm{encode}(s_1, \dots, s_S))$$

    Args:
        units: Width of the hidden layer of both poolings.
        word_encoder: Layer from (B, T, D) to (B, T, E) that encodes the words of a sentence, such as
            `keras.layers.Bidirectional(keras.layers.GRU(32, return_sequences=True))`; none when not given.
        sentence_encoder: Layer that encodes the sentences of a document, likewise.
        score, normalizer, dropout: Of both poolings, as in `AttentionPooling`.

    Call arguments:
        inputs: (B, S, W, D).
        mask: Bool (B, S, W), True where a word is real; Keras's implicit mask when not given. A sentence without a real word is
            not attended to.
        return_attention_scores: Whether to return the weights too.
        training: Whether dropout is active.

    Returns:
        The vector (B, E). With `return_attention_scores`, also the weights of the words in each sentence, (B, S, W), and those of
        the sentences, (B, S).

    Raises:
        ValueError: The input does not have four axes.

    Example:
        >>> import keras, limelight as ll
        >>> document = keras.Input((None, None, 16))
        >>> vector, words, sentences = ll.layers.HierarchicalPooling(8)(document, return_attention_scores=True)
        >>> vector.shape, words.shape, sentences.shape
        ((None, 16), (None, None, None), (None, None))

    References:
        Yang et al. 2016, "Hierarchical Attention Networks for Document Classification", NAACL.
    """

    def __init__(
        self,
        units: int | None = None,
        *,
        word_encoder: Any = None,
        sentence_encoder: Any = None,
        score: Any = "additive",
        normalizer: Any = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units, self.dropout = units, dropout
        self.word_encoder, self.sentence_encoder = deserialize(word_encoder), deserialize(sentence_encoder)
        self.score, self.normalizer = deserialize(score), deserialize(normalizer)
        self.supports_masking = True
        self.word_pooling, self.sentence_pooling = (
            AttentionPooling(
                units,
                score=_clone(self.score),
                normalizer=_clone(self.normalizer),
                dropout=dropout,
                name=name,
                dtype=self.dtype_policy,
            )
            for name in ("word_pooling", "sentence_pooling")
        )

    def build(self, input_shape: tuple) -> None:
        if len(input_shape) != 4:
            raise ValueError(
                f"HierarchicalPooling takes (B, sentences, words, D). Received: input shape {tuple(input_shape)}. "
                "For a single level use AttentionPooling."
            )
        shape = (None, *input_shape[2:])
        for encoder, pooling, length in (
            (self.word_encoder, self.word_pooling, input_shape[1]),
            (self.sentence_encoder, self.sentence_pooling, None),
        ):
            if encoder is not None:
                if not encoder.built:
                    encoder.build(shape)
                shape = tuple(encoder.compute_output_shape(shape))
            pooling.build(shape)
            shape = (input_shape[0], length, shape[-1])

    def call(
        self, inputs: Any, mask: Any = None, return_attention_scores: bool = False, training: bool | None = None
    ) -> Any:
        # Passed on only if it is set, because `keras.RematScope` traces what a layer is called with.
        settings = {"training": training, **({"return_attention_scores": True} if return_attention_scores else {})}
        inputs = zero_padded_inputs(inputs, mask)
        sentences = _encode_and_pool(self.word_encoder, self.word_pooling, inputs, mask, settings)
        sentences, word_weights = sentences if return_attention_scores else (sentences, None)
        sentence_mask = None if mask is None else ops.any(mask, axis=-1)
        vector = _encode_and_pool(self.sentence_encoder, self.sentence_pooling, sentences, sentence_mask, settings)
        return (vector[0], word_weights, vector[1]) if return_attention_scores else vector

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Return None: no axis of the mask remains."""
        return

    def compute_output_spec(
        self, inputs: Any, mask: Any = None, return_attention_scores: bool = False, training: bool | None = None
    ) -> Any:
        shape = (None, *inputs.shape[2:])
        for encoder in (self.word_encoder, self.sentence_encoder):
            if encoder is not None:
                shape = tuple(encoder.compute_output_shape(shape))
        vector, words, sentences = (
            keras.KerasTensor(shape, dtype=self.compute_dtype)
            for shape in ((inputs.shape[0], shape[-1]), inputs.shape[:3], inputs.shape[:2])
        )
        return (vector, words, sentences) if return_attention_scores else vector

    def get_config(self) -> dict[str, Any]:
        names = ("word_encoder", "sentence_encoder", "score", "normalizer")
        return {
            **super().get_config(),
            "dtype": serialize_dtype_policies(self),
            "units": self.units,
            "dropout": self.dropout,
            **{name: keras.saving.serialize_keras_object(getattr(self, name)) for name in names},
        }


def _encode_and_pool(encoder: Any, pooling: AttentionPooling, inputs: Any, mask: Any, settings: dict[str, Any]) -> Any:
    """Return what the pooling of one level returns with its settings.

    The encoder sees all sentences as one batch, the pooling sees documents.
    """
    if encoder is not None:
        *batch, length, size = ops.shape(inputs)
        takes_mask = mask is not None and "mask" in inspect.signature(encoder.call).parameters
        arguments = {"mask": ops.reshape(mask, (-1, length))} if takes_mask else {}
        encoded = encoder(ops.reshape(inputs, (-1, length, size)), **arguments, training=settings["training"])
        inputs = ops.reshape(encoded, (*batch, length, encoded.shape[-1]))
    return pooling(inputs, mask=mask, **settings)


def _clone(component: Any) -> Any:
    """Return a copy of a component in which all that learns is new, so that two layers do not share its weights."""
    if isinstance(component, keras.Layer):
        return type(component).from_config(component.get_config())
    if isinstance(component, Component) and dataclasses.is_dataclass(component):
        fields = (field.name for field in dataclasses.fields(component) if field.init)
        return dataclasses.replace(component, **{name: _clone(getattr(component, name)) for name in fields})
    return component
