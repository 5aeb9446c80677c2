"""Keras models of the estimators, each Functional and not compiled: encode the steps, pool them, and predict from the vector."""

import inspect
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight.core.validation import check_positive_int
from limelight.layers import AttentionPooling, HierarchicalPooling
from limelight.models.pretrained import BertEncoder
from limelight.recipes import roformer
from limelight.scores import Dot

ENCODERS = ("bilstm", "lstm", "bigru", "gru", "conv", "fcn", "transformer")
POOLINGS = ("attention", "mean", "max", "last")


def build_text_classifier(
    vocabulary_size: int,
    num_classes: int,
    *,
    encoder: Any = "bilstm",
    pooling: Any = "attention",
    units: int = 64,
    embedding_dim: int = 64,
    embeddings: Any = None,
    dropout: float = 0.5,
    word_dropout: float = 0.0,
) -> keras.Model:
    r"""Build a classifier of texts, which are sequences of token ids.

    $$h = \mathrm{encode}(E_{x}), \qquad p = \mathrm{softmax}(W\,\mathrm{pool}(h) + b)$$

    Id 0 is padding, which is masked.

    Args:
        vocabulary_size: Number of token ids, including padding. Ids are in [0, vocabulary_size).
        num_classes: Number of classes K.
        encoder: "bilstm", "lstm", "bigru", "gru", "conv" (two convolutions of width 5), "fcn" (three of widths 8, 5 and 3, each
            normalized over the batch), "transformer" (two blocks with rotary positions), None for the embeddings themselves, a
            layer from (B, T, D) to (B, T, E), whose padded steps are zero, or a `BertEncoder`, which has embeddings of its own.
        pooling: "attention" (an additive `AttentionPooling`), "mean", "max", "last" (the last real step), or a layer from
            (B, T, E) to (B, F) whose call takes a mask.
        units: Units of the encoder, in each direction if it has two.
        embedding_dim: Width of the token embeddings.
        embeddings: Their initial values (vocabulary_size, D), such as pretrained word vectors; they replace `embedding_dim`.
        dropout: Fraction of the features that is dropped before and after the encoder during training, in [0, 1).
        word_dropout: Fraction of the tokens whose whole embedding is dropped during training, in [0, 1).

    Returns:
        A model from int ids (B, T) to probabilities (B, K).

    Raises:
        ValueError: A size is not positive, a rate is not in [0, 1), or the name of an encoder or pooling is unknown.

    Example:
        >>> import numpy as np
        >>> model = build_text_classifier(100, 3, units=5, embedding_dim=4)
        >>> model.predict(np.array([[5, 6, 7, 0], [8, 0, 0, 0]]), verbose=0).shape
        (2, 3)

    References:
        Yang et al. 2016, Hierarchical Attention Networks; Jain and Wallace 2019, arXiv:1902.10186 (this model).
    """
    words, vector = _encode_texts(
        vocabulary_size, encoder, pooling, units, embedding_dim, embeddings, dropout, word_dropout
    )
    return keras.Model(words, _classify(vector, num_classes), name="text_classifier")


def build_text_regressor(
    vocabulary_size: int,
    num_outputs: int = 1,
    *,
    encoder: Any = "bilstm",
    pooling: Any = "attention",
    units: int = 64,
    embedding_dim: int = 64,
    embeddings: Any = None,
    dropout: float = 0.5,
    word_dropout: float = 0.0,
) -> keras.Model:
    r"""Build a model from texts to numbers: $y = W\,\mathrm{pool}(h) + b$, and otherwise that of `build_text_classifier`.

    Args:
        vocabulary_size: Number of token ids, including padding.
        num_outputs: Number of outputs K.
        encoder, pooling, units, embedding_dim, embeddings, dropout, word_dropout: As in `build_text_classifier`.

    Returns:
        A model from int ids (B, T) to numbers (B, K).

    Raises:
        ValueError: As in `build_text_classifier`.

    Example:
        >>> build_text_regressor(100, units=5).output_shape
        (None, 1)
    """
    words, vector = _encode_texts(
        vocabulary_size, encoder, pooling, units, embedding_dim, embeddings, dropout, word_dropout
    )
    return keras.Model(words, _regress(vector, num_outputs), name="text_regressor")


def build_series_classifier(
    num_channels: int,
    num_classes: int,
    *,
    encoder: Any = "bilstm",
    pooling: Any = "attention",
    units: int = 64,
    dropout: float = 0.5,
    mean: Any = None,
    variance: Any = None,
) -> keras.Model:
    r"""Build a classifier of time series, which may differ in length.

    $$h = \mathrm{encode}((x - \mu) / \sigma), \qquad p = \mathrm{softmax}(W\,\mathrm{pool}(h) + b)$$

    Any number can be a measured value, so the padding mask is a second input.

    Args:
        num_channels: Number of channels C.
        num_classes: Number of classes K.
        encoder, pooling, units: As in `build_text_classifier`.
        dropout: Fraction of the features that is dropped after the encoder during training, in [0, 1).
        mean: Means of the channels (C,) over the training set; 0 when not given.
        variance: Variances of the channels (C,); 1 when not given, and for a channel that does not vary.

    Returns:
        A model from a dict of `steps` (B, T, C) and `mask` (B, T), bool, True where a step is real, to probabilities (B, K).

    Raises:
        ValueError: A size is not positive, a rate is not in [0, 1), or the name of an encoder or pooling is unknown.

    Example:
        >>> import numpy as np
        >>> model = build_series_classifier(2, 3, units=5)
        >>> batch = {"steps": np.zeros((1, 4, 2), "float32"), "mask": np.array([[True, True, True, False]])}
        >>> model.predict(batch, verbose=0).shape
        (1, 3)

    References:
        Karim et al. 2017, arXiv:1709.05206 (LSTM with attention for series).
    """
    inputs, vector = _encode_series(num_channels, encoder, pooling, units, dropout, mean, variance)
    return keras.Model(inputs, _classify(vector, num_classes), name="series_classifier")


def build_series_regressor(
    num_channels: int,
    num_outputs: int = 1,
    *,
    encoder: Any = "bilstm",
    pooling: Any = "attention",
    units: int = 64,
    dropout: float = 0.5,
    mean: Any = None,
    variance: Any = None,
) -> keras.Model:
    r"""Build a model from time series to numbers: $y = W\,\mathrm{pool}(h) + b$, and otherwise that of `build_series_classifier`.

    Args:
        num_channels: Number of channels C.
        num_outputs: Number of outputs K.
        encoder, pooling, units, dropout, mean, variance: As in `build_series_classifier`.

    Returns:
        A model from a dict of `steps` (B, T, C) and `mask` (B, T) to numbers (B, K).

    Raises:
        ValueError: As in `build_series_classifier`.

    Example:
        >>> build_series_regressor(2, units=5).output_shape
        (None, 1)
    """
    inputs, vector = _encode_series(num_channels, encoder, pooling, units, dropout, mean, variance)
    return keras.Model(inputs, _regress(vector, num_outputs), name="series_regressor")


def build_document_classifier(
    vocabulary_size: int,
    num_classes: int,
    *,
    pooling: str = "attention",
    units: int = 50,
    embedding_dim: int = 64,
    embeddings: Any = None,
    dropout: float = 0.5,
    word_dropout: float = 0.0,
) -> keras.Model:
    r"""Build a hierarchical classifier of documents: words are read and pooled to sentences, sentences to the document.

    $$s_i = \mathrm{pool}(\mathrm{BiGRU}(E_{x_{i1}}, \dots)), \qquad d = \mathrm{pool}(\mathrm{BiGRU}(s_1, \dots)), \qquad
    p = \mathrm{softmax}(W d + b)$$

    Args:
        vocabulary_size: Number of token ids, including padding, which is 0.
        num_classes: Number of classes K.
        pooling: "attention", or "mean" for the same model with equal weights.
        units: Units of each GRU in each direction.
        embedding_dim: Width of the token embeddings.
        embeddings: Their initial values (vocabulary_size, D), such as pretrained word vectors; they replace `embedding_dim`.
        dropout: Fraction of the features that is dropped before the words are read and before the last layer, in [0, 1).
        word_dropout: Fraction of the words whose whole embedding is dropped during training, in [0, 1).

    Returns:
        A model from int ids (B, sentences, words) to probabilities (B, K).

    Raises:
        ValueError: A size is not positive, a rate is not in [0, 1), or `pooling` is unknown.

    Example:
        >>> import numpy as np
        >>> model = build_document_classifier(100, 3, units=5, embedding_dim=4)
        >>> model.predict(np.array([[[5, 6, 7], [8, 0, 0]]]), verbose=0).shape
        (1, 3)

    References:
        Yang et al. 2016, "Hierarchical Attention Networks for Document Classification", NAACL.
    """
    if pooling not in ("attention", "mean"):
        raise ValueError(f'`pooling` of documents must be "attention" or "mean". Received: pooling={pooling!r}.')
    words, vectors = _read_words(vocabulary_size, units, embedding_dim, embeddings, dropout, word_dropout, num_axes=2)
    encoders = {
        name: keras.layers.Bidirectional(keras.layers.GRU(units, return_sequences=True), name=name)
        for name in ("word_encoder", "sentence_encoder")
    }
    # Equal scores are equal weights: the model without attention has all other parts of the one with it.
    score = "additive" if pooling == "attention" else Dot(scale=0.0)
    pool = HierarchicalPooling(score=score, name=pooling, **encoders)
    vector = pool(vectors, mask=ops.not_equal(words, 0))
    vector = keras.layers.Dropout(dropout, name="vector_dropout")(vector)
    return keras.Model(words, _classify(vector, num_classes), name="document_classifier")


def _encode_texts(
    vocabulary_size: int,
    encoder: Any,
    pooling: Any,
    units: int,
    embedding_dim: int,
    embeddings: Any,
    dropout: float,
    word_dropout: float,
) -> tuple[Any, Any]:
    """Return the input of ids (B, T), and the vector (B, F) of a model of texts."""
    if isinstance(encoder, BertEncoder):
        words = keras.Input((None,), dtype="int32", name="words")
        mask = ops.not_equal(words, 0)
        return words, _encode(encoder(words, mask=mask), mask, None, pooling, units, dropout)
    words, vectors = _read_words(vocabulary_size, units, embedding_dim, embeddings, dropout, word_dropout)
    return words, _encode(vectors, ops.not_equal(words, 0), encoder, pooling, units, dropout)


def _read_words(
    vocabulary_size: int,
    units: int,
    embedding_dim: int,
    embeddings: Any,
    dropout: float,
    word_dropout: float,
    num_axes: int = 1,
) -> tuple[Any, Any]:
    """Return the input of ids (B, T), or (B, S, T) for two axes, and their embeddings with another axis."""
    _check_sizes(vocabulary_size=vocabulary_size, units=units, embedding_dim=embedding_dim)
    words = keras.Input((None,) * num_axes, dtype="int32", name="words")
    width = embedding_dim if embeddings is None else np.shape(embeddings)[-1]
    embedding = keras.layers.Embedding(vocabulary_size, width, mask_zero=True, name="embedding")
    vectors = embedding(words)
    if embeddings is not None:
        if np.shape(embeddings) != (vocabulary_size, width):
            raise ValueError(
                f"`embeddings` must have a row for each id: ({vocabulary_size}, D). Received: shape {np.shape(embeddings)}."
            )
        embedding.set_weights([np.asarray(embeddings)])
    # One random number for each token, shared by its features.
    noise_shape = (None,) * (num_axes + 1) + (1,)
    vectors = keras.layers.Dropout(word_dropout, noise_shape=noise_shape, name="word_dropout")(vectors)
    return words, keras.layers.Dropout(dropout, name="embedding_dropout")(vectors)


def _encode_series(
    num_channels: int, encoder: Any, pooling: Any, units: int, dropout: float, mean: Any, variance: Any
) -> tuple[dict[str, Any], Any]:
    """Return the inputs and the vector (B, F) of a model of series."""
    _check_sizes(num_channels=num_channels, units=units)
    steps = keras.Input((None, num_channels), name="steps")
    mask = keras.Input((None,), dtype="bool", name="mask")
    # Never trained. Keras's `Normalization` is for data pipelines, and imports TensorFlow on every backend. In bfloat16, 1001
    # and 1002 are one number; an epsilon would hide channels in small units.
    scaling = keras.layers.BatchNormalization(
        center=False, scale=False, epsilon=0.0, trainable=False, dtype="float32", name="scaling"
    )
    scaled = scaling(steps)
    means = np.zeros(num_channels) if mean is None else np.asarray(mean, np.float64)
    variances = np.ones(num_channels) if variance is None else np.asarray(variance, np.float64)
    limits = np.finfo(np.float32)
    varies = variances > np.maximum((limits.eps * means) ** 2, limits.tiny)
    scaling.set_weights([means, np.where(varies, variances, 1.0)])
    return {"steps": steps, "mask": mask}, _encode(scaled, mask, encoder, pooling, units, dropout)


def _encode(vectors: Any, mask: Any, encoder: Any, pooling: Any, units: int, dropout: float) -> keras.KerasTensor:
    """Encode the vectors (B, T, D), and pool the result to one vector (B, F)."""
    states = _apply_encoder(encoder, vectors, mask, units, dropout)
    states = keras.layers.Dropout(dropout, name="state_dropout")(states)
    vector = _pool(pooling, states, mask)
    return keras.layers.Dropout(dropout, name="vector_dropout")(vector)


def _apply_encoder(encoder: Any, vectors: Any, mask: Any, units: int, dropout: float) -> Any:
    """Return the states (B, T, E) of the vectors."""
    if encoder is None:
        return vectors
    if isinstance(encoder, keras.Layer):
        return _call_with_mask(encoder, _zero_padding(vectors, mask), mask)
    if encoder not in ENCODERS:
        names = ", ".join(f'"{name}"' for name in ENCODERS)
        raise ValueError(f"`encoder` must be {names}, None or a Keras layer. Received: encoder={encoder!r}.")
    if encoder == "conv":
        for number in (1, 2):
            convolution = keras.layers.Conv1D(2 * units, 5, padding="same", activation="relu", name=f"conv_{number}")
            vectors = convolution(_zero_padding(vectors, mask))
        return vectors
    if encoder == "fcn":
        return _apply_fcn(vectors, mask, units)
    if encoder == "transformer":
        return apply_transformer(vectors, mask, units, dropout)
    kind = keras.layers.LSTM if encoder.endswith("lstm") else keras.layers.GRU
    layer = kind(units, return_sequences=True, name=encoder.removeprefix("bi"))
    if encoder.startswith("bi"):
        layer = keras.layers.Bidirectional(layer, name=encoder.removeprefix("bi"))
    return layer(vectors, mask=mask)


def _apply_fcn(vectors: Any, mask: Any, units: int) -> Any:
    """Return the states (B, T, units) of the fully convolutional network of Wang et al. 2017, arXiv:1611.06455."""
    for number, (width, filters) in enumerate(((8, units), (5, 2 * units), (3, units)), start=1):
        convolution = keras.layers.Conv1D(filters, width, padding="same", use_bias=False, name=f"conv_{number}")
        # Few steps train a small set: the averages follow the last ten of them, not a hundred.
        normalization = keras.layers.BatchNormalization(momentum=0.9, name=f"norm_{number}")
        vectors = normalization(convolution(_zero_padding(vectors, mask)), mask=mask)
        vectors = keras.layers.ReLU(name=f"relu_{number}")(vectors)
    return vectors


def apply_transformer(
    vectors: Any,
    mask: Any,
    units: int,
    dropout: float,
    *,
    causal: bool = False,
    num_layers: int = 2,
    num_heads: int = 4,
) -> Any:
    """Return the states (B, T, units) of a Transformer with normalization before each block and rotary positions."""
    if units % (2 * num_heads):
        raise ValueError(f"`units` of a transformer must be a multiple of {2 * num_heads}. Received: units={units}.")
    states = keras.layers.Dense(units, name="transformer_input")(vectors)
    for number in range(1, num_layers + 1):
        normalized = keras.layers.LayerNormalization(name=f"attention_norm_{number}")(states)
        attention = roformer(
            num_heads, units // num_heads, causal=causal, dropout=dropout, name=f"self_attention_{number}"
        )
        attended = attention(normalized, normalized, query_mask=mask, value_mask=mask)
        states = keras.layers.Add(name=f"attended_{number}")([states, keras.layers.Dropout(dropout)(attended)])
        hidden = keras.layers.LayerNormalization(name=f"feedforward_norm_{number}")(states)
        hidden = keras.layers.Dense(4 * units, activation="gelu", name=f"feedforward_hidden_{number}")(hidden)
        hidden = keras.layers.Dense(units, name=f"feedforward_{number}")(hidden)
        states = keras.layers.Add(name=f"block_{number}")([states, keras.layers.Dropout(dropout)(hidden)])
    return keras.layers.LayerNormalization(name="transformer_norm")(states)


def _pool(pooling: Any, states: Any, mask: Any) -> Any:
    """Return one vector (B, F) of the states (B, T, E)."""
    if isinstance(pooling, keras.Layer):
        if not _takes_mask(pooling):
            raise ValueError(
                f"`pooling` must be a layer whose `call` takes `mask`, or padding is pooled. Received: {type(pooling).__name__}. "
                'Use pooling="max" or another name.'
            )
        return pooling(states, mask=mask)
    if pooling not in POOLINGS:
        names = ", ".join(f'"{name}"' for name in POOLINGS)
        raise ValueError(f"`pooling` must be {names} or a Keras layer. Received: pooling={pooling!r}.")
    if pooling == "attention":
        return AttentionPooling(name="attention")(states, mask=mask)
    if pooling == "mean":
        return keras.layers.GlobalAveragePooling1D(name="mean")(states, mask=mask)
    if pooling == "max":
        return ops.max(ops.where(ops.expand_dims(mask, -1), states, -1e30), axis=1)
    return take_last(states, mask)


def take_last(states: Any, mask: Any) -> Any:
    """Return the state (B, E) of the last real step; padding follows it."""
    last = ops.sum(ops.cast(mask, "int32"), axis=1) - 1
    return ops.squeeze(ops.take_along_axis(states, ops.reshape(last, (-1, 1, 1)), axis=1), 1)


def _zero_padding(vectors: Any, mask: Any) -> Any:
    """Return the vectors (B, T, D), 0 at padding: a convolution reads neighbours, and there is 0 beyond the ends too."""
    return ops.where(ops.expand_dims(mask, -1), vectors, 0.0)


def _takes_mask(layer: keras.Layer) -> bool:
    return "mask" in inspect.signature(layer.call).parameters


def _call_with_mask(layer: keras.Layer, inputs: Any, mask: Any) -> Any:
    return layer(inputs, mask=mask) if _takes_mask(layer) else layer(inputs)


def _classify(vector: Any, num_classes: int) -> Any:
    _check_sizes(num_classes=num_classes)
    return keras.layers.Dense(num_classes, "softmax", dtype="float32", name="classes")(vector)


def _regress(vector: Any, num_outputs: int) -> Any:
    _check_sizes(num_outputs=num_outputs)
    return keras.layers.Dense(num_outputs, dtype="float32", name="outputs")(vector)


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        check_positive_int(name, size)
