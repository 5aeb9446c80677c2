"""From words to sentences to a document, by attention at each level."""

import inspect
from typing import Any

import keras
from keras import ops

from limelight.core.component import deserialize, register
from limelight.layers.policies import policies_of
from limelight.layers.pooling import AttentionPooling


@register
class HierarchicalPooling(keras.Layer):
    r"""A document to a vector: the words of each sentence by attention, then the sentences by attention.

    $$s_i = \mathrm{pool}(\mathrm{encode}(w_{i1}, \dots, w_{iW})), \qquad d = \mathrm{pool}(\mathrm{encode}(s_1, \dots, s_S))$$

    Args:
        words, sentences: the encoders of words and of sentences, layers from (B, T, D) to (B, T, E) such as
            `keras.layers.Bidirectional(keras.layers.GRU(32, return_sequences=True))`; none when not given.
        units, score, normalizer, dropout: of both poolings, as `AttentionPooling` takes them.

    Call arguments:
        inputs: (B, S, W, D).
        mask: bool (B, S, W), True where a word is real; Keras's implicit mask when not given. A sentence without a real word is
            not attended to.
        return_attention_scores: whether the weights come too.

    Returns:
        (B, E). Asked for, also the weights of the words in each sentence, (B, S, W), and those of the sentences, (B, S).

    Raises:
        ValueError: an input that has not four axes.

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
        words: Any = None,
        sentences: Any = None,
        score: Any = "additive",
        normalizer: Any = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units, self.words, self.sentences = units, deserialize(words), deserialize(sentences)
        self.score, self.normalizer, self.dropout = deserialize(score), deserialize(normalizer), dropout
        self.supports_masking = True
        self.word_pooling, self.sentence_pooling = (
            AttentionPooling(
                units,
                score=copied(self.score),
                normalizer=copied(self.normalizer),
                dropout=dropout,
                name=name,
                dtype=self.dtype_policy,
            )
            for name in ("word_pooling", "sentence_pooling")
        )

    def build(self, input_shape: tuple) -> None:
        if len(input_shape) != 4:
            raise ValueError(
                f"HierarchicalPooling reads (B, sentences, words, D). Received: input shape {tuple(input_shape)}. "
                "For a single level use AttentionPooling."
            )
        shape = (None, *input_shape[2:])
        for encoder, pooling, length in (
            (self.words, self.word_pooling, input_shape[1]),
            (self.sentences, self.sentence_pooling, None),
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
        batch, sentences, words, size = ops.shape(inputs)
        folded = None if mask is None else ops.reshape(mask, (-1, words))
        vectors, word_weights = self._level(
            self.words, self.word_pooling, ops.reshape(inputs, (-1, words, size)), folded, training
        )
        vectors = ops.reshape(vectors, (batch, sentences, vectors.shape[-1]))
        present = None if mask is None else ops.any(mask, axis=-1)
        vector, sentence_weights = self._level(self.sentences, self.sentence_pooling, vectors, present, training)
        if not return_attention_scores:
            return vector
        return vector, ops.reshape(word_weights, (batch, sentences, words)), sentence_weights

    def _level(
        self, encoder: Any, pooling: AttentionPooling, steps: Any, mask: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Vectors and weights of one level."""
        if encoder is not None:
            takes = mask is not None and "mask" in inspect.signature(encoder.call).parameters
            steps = encoder(steps, **({"mask": mask} if takes else {}), training=training)
        return pooling(steps, mask=mask, return_attention_scores=True, training=training)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Both axes are gone, and their mask with them."""
        return

    def compute_output_spec(
        self, inputs: Any, mask: Any = None, return_attention_scores: bool = False, training: bool | None = None
    ) -> Any:
        shape = (None, *inputs.shape[2:])
        for encoder in (self.words, self.sentences):
            if encoder is not None:
                shape = tuple(encoder.compute_output_shape(shape))
        vector, words, sentences = (
            keras.KerasTensor(shape, dtype=self.compute_dtype)
            for shape in ((inputs.shape[0], shape[-1]), inputs.shape[:3], inputs.shape[:2])
        )
        return (vector, words, sentences) if return_attention_scores else vector

    def get_config(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("words", "sentences", "score", "normalizer")}
        stored = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        dtype = keras.dtype_policies.serialize(policies_of(self))
        return {**super().get_config(), "dtype": dtype, "units": self.units, "dropout": self.dropout, **stored}


def copied(part: Any) -> Any:
    """A part that learns anew, so that two layers do not share its weights; any other as it is."""
    return type(part).from_config(part.get_config()) if isinstance(part, keras.Layer) else part
