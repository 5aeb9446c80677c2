"""Classifiers of texts and series: a bidirectional LSTM, pooled to one vector, and a softmax."""

from typing import Any

import keras
import numpy as np

from limelight.core.validation import check_positive_int
from limelight.layers import AttentionPooling


def text_classifier(
    vocabulary_size: int,
    num_classes: int,
    *,
    pooling: keras.Layer | None = None,
    units: int = 64,
    embedding_dim: int = 64,
    dropout: float = 0.5,
    word_dropout: float = 0.0,
) -> keras.Model:
    r"""Build a classifier of texts, which are sequences of token ids.

    $$h = \mathrm{BiLSTM}(E_{x}), \qquad p = \mathrm{softmax}(W\,\mathrm{pool}(h) + b)$$

    Id 0 is padding, which is masked.

    Args:
        vocabulary_size: Number of token ids, including padding. Ids are in [0, vocabulary).
        num_classes: Number of classes K.
        pooling: Layer from the states (B, T, 2 * units) to one vector (B, 2 * units); an additive `AttentionPooling` when not
            given, `keras.layers.GlobalAveragePooling1D()` for a model without attention.
        units: Units of the LSTM in each direction.
        embedding_dim: Width of the token embeddings.
        dropout: Fraction of the features that is dropped before and after the LSTM during training, in [0, 1).
        word_dropout: Fraction of the tokens whose whole embedding is dropped during training, in [0, 1).

    Returns:
        A Functional model, not compiled, from int ids (B, T) to probabilities (B, K).

    Raises:
        ValueError: A size is not positive, or a rate is not in [0, 1).

    Example:
        >>> import numpy as np
        >>> model = text_classifier(100, 3, units=5, embedding_dim=4)
        >>> model.predict(np.array([[5, 6, 7, 0], [8, 0, 0, 0]]), verbose=0).shape
        (2, 3)

    References:
        Yang et al. 2016, Hierarchical Attention Networks; Jain and Wallace 2019, arXiv:1902.10186 (this model).
    """
    _check_sizes(vocabulary_size=vocabulary_size, num_classes=num_classes, units=units, embedding_dim=embedding_dim)
    words = keras.Input((None,), dtype="int32", name="words")
    vectors = keras.layers.Embedding(vocabulary_size, embedding_dim, mask_zero=True, name="embedding")(words)
    # One random number for each token, shared by its features.
    vectors = keras.layers.Dropout(word_dropout, noise_shape=(None, None, 1), name="word_dropout")(vectors)
    vectors = keras.layers.Dropout(dropout, name="embedding_dropout")(vectors)
    return keras.Model(words, _classify(vectors, None, num_classes, pooling, units, dropout), name="text_classifier")


def series_classifier(
    num_channels: int,
    num_classes: int,
    *,
    pooling: keras.Layer | None = None,
    mean: Any = None,
    variance: Any = None,
    units: int = 64,
    dropout: float = 0.5,
) -> keras.Model:
    r"""Build a classifier of time series, which may differ in length.

    $$h = \mathrm{BiLSTM}((x - \mu) / \sigma), \qquad p = \mathrm{softmax}(W\,\mathrm{pool}(h) + b)$$

    Any number can be a measured value, so the padding mask is a second input.

    Args:
        num_channels: Number of channels C.
        num_classes: Number of classes K.
        pooling: As in `text_classifier`.
        mean: Means of the channels (C,) over the training set; 0 when not given.
        variance: Variances of the channels (C,); 1 when not given.
        units: Units of the LSTM in each direction.
        dropout: Fraction of the features that is dropped after the LSTM during training, in [0, 1).

    Returns:
        A Functional model, not compiled, from a dict of `steps` (B, T, C) and `mask` (B, T), bool, True where a step is
        real, to probabilities (B, K).

    Raises:
        ValueError: A size is not positive, or a rate is not in [0, 1).

    Example:
        >>> import numpy as np
        >>> model = series_classifier(2, 3, units=5)
        >>> batch = {"steps": np.zeros((1, 4, 2), "float32"), "mask": np.array([[True, True, True, False]])}
        >>> model.predict(batch, verbose=0).shape
        (1, 3)

    References:
        Karim et al. 2017, arXiv:1709.05206 (LSTM with attention for series).
    """
    _check_sizes(num_channels=num_channels, num_classes=num_classes, units=units)
    steps = keras.Input((None, num_channels), name="steps")
    mask = keras.Input((None,), dtype="bool", name="mask")
    # Never trained. Keras's `Normalization` is for data pipelines, and imports TensorFlow on every backend.
    scaling = keras.layers.BatchNormalization(center=False, scale=False, epsilon=1e-7, trainable=False, name="scaling")
    scaled = scaling(steps)
    scaling.set_weights(
        [
            np.zeros(num_channels) if mean is None else np.asarray(mean),
            np.ones(num_channels) if variance is None else np.asarray(variance),
        ]
    )
    probabilities = _classify(scaled, mask, num_classes, pooling, units, dropout)
    return keras.Model({"steps": steps, "mask": mask}, probabilities, name="series_classifier")


def _classify(
    vectors: Any, mask: Any, num_classes: int, pooling: keras.Layer | None, units: int, dropout: float
) -> keras.KerasTensor:
    """Encode the vectors (B, T, H) with an LSTM, pool its states and classify the result."""
    kwargs = {} if mask is None else {"mask": mask}  # without it, Keras passes on the implicit mask
    states = keras.layers.Bidirectional(keras.layers.LSTM(units, return_sequences=True), name="lstm")(vectors, **kwargs)
    states = keras.layers.Dropout(dropout, name="state_dropout")(states)
    vector = (AttentionPooling(name="attention") if pooling is None else pooling)(states, **kwargs)
    vector = keras.layers.Dropout(dropout, name="vector_dropout")(vector)
    return keras.layers.Dense(num_classes, "softmax", name="classes")(vector)


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        check_positive_int(name, size)
