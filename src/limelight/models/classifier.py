"""A sequence to a class: words or measured steps, a bidirectional LSTM, one vector, a softmax."""

from typing import Any

import keras
import numpy as np

from limelight.layers import AttentionPooling


def text_classifier(
    vocabulary: int,
    classes: int,
    *,
    pooling: keras.Layer | None = None,
    units: int = 64,
    width: int = 64,
    dropout: float = 0.5,
    word_dropout: float = 0.0,
) -> keras.Model:
    r"""Build a classifier of texts that are given as word ids.

    $$h = \mathrm{BiLSTM}(E_{x}), \qquad p = \mathrm{softmax}(W\,\mathrm{pool}(h) + b)$$

    Id 0 is padding: it is masked, and changes nothing.

    Args:
        vocabulary: Number of ids, padding among them. Ids lie in [0, vocabulary).
        classes: Number of classes K.
        pooling: The layer that turns the steps (B, T, 2 * units) into one vector (B, 2 * units); additive
            `AttentionPooling` when not given, `keras.layers.GlobalAveragePooling1D()` for a model without attention.
        units: Units of the LSTM in each direction.
        width: Size of a word's vector.
        dropout: Share of the features that is dropped before and after the LSTM, in training.
        word_dropout: Share of the words whose whole vector is dropped, in training.

    Returns:
        A Functional model, not compiled: int ids (B, T) to probabilities (B, K).

    Raises:
        ValueError: A size is not positive, or a share is not in [0, 1).

    Example:
        >>> import numpy as np
        >>> model = text_classifier(100, 3, units=5, width=4)
        >>> model.predict(np.array([[5, 6, 7, 0], [8, 0, 0, 0]]), verbose=0).shape
        (2, 3)

    References:
        Yang et al. 2016, Hierarchical Attention Networks; Jain and Wallace 2019, arXiv:1902.10186 (this model).
    """
    _check(classes=classes, units=units, width=width, vocabulary=vocabulary)
    words = keras.Input((None,), dtype="int32", name="words")
    vectors = keras.layers.Embedding(vocabulary, width, mask_zero=True, name="embedding")(words)
    # One draw for each word, shared by its features.
    vectors = keras.layers.Dropout(word_dropout, noise_shape=(None, None, 1), name="word_dropout")(vectors)
    vectors = keras.layers.Dropout(dropout, name="embedding_dropout")(vectors)
    return keras.Model(words, _classify(vectors, None, classes, pooling, units, dropout), name="text_classifier")


def series_classifier(
    channels: int,
    classes: int,
    *,
    pooling: keras.Layer | None = None,
    mean: Any = None,
    variance: Any = None,
    units: int = 64,
    dropout: float = 0.5,
) -> keras.Model:
    r"""Build a classifier of series of measured steps, of any lengths.

    $$h = \mathrm{BiLSTM}((x - \mu) / \sigma), \qquad p = \mathrm{softmax}(W\,\mathrm{pool}(h) + b)$$

    Any number can be a measured value, so padding is told by a mask, given beside the series.

    Args:
        channels: Number of values C in a step.
        classes: Number of classes K.
        pooling: As in `text_classifier`.
        mean: The channels' means (C,) over the steps of the train part; 0 when not given.
        variance: Their variances (C,); 1 when not given.
        units: Units of the LSTM in each direction.
        dropout: Share of the features that is dropped after the LSTM, in training.

    Returns:
        A Functional model, not compiled, from a dict of `steps` (B, T, C) and `mask` (B, T), bool, True where a step is
        real, to probabilities (B, K).

    Raises:
        ValueError: A size is not positive, or a share is not in [0, 1).

    Example:
        >>> import numpy as np
        >>> model = series_classifier(2, 3, units=5)
        >>> batch = {"steps": np.zeros((1, 4, 2), "float32"), "mask": np.array([[True, True, True, False]])}
        >>> model.predict(batch, verbose=0).shape
        (1, 3)

    References:
        Karim et al. 2017, arXiv:1709.05206 (LSTM with attention for series).
    """
    _check(classes=classes, units=units, channels=channels)
    steps = keras.Input((None, channels), name="steps")
    mask = keras.Input((None,), dtype="bool", name="mask")
    # Never trained. Keras's own `Normalization` is a layer for data pipelines, and reaches for TensorFlow on any backend.
    scaling = keras.layers.BatchNormalization(center=False, scale=False, epsilon=1e-7, trainable=False, name="scaling")
    scaled = scaling(steps)
    zeros, ones = [0.0] * channels, [1.0] * channels
    scaling.set_weights(
        [np.asarray(zeros if mean is None else mean), np.asarray(ones if variance is None else variance)]
    )
    probabilities = _classify(scaled, mask, classes, pooling, units, dropout)
    return keras.Model({"steps": steps, "mask": mask}, probabilities, name="series_classifier")


def _classify(
    vectors: Any, mask: Any, classes: int, pooling: keras.Layer | None, units: int, dropout: float
) -> keras.KerasTensor:
    """Read the vectors (B, T, H) with an LSTM, pool its states and classify the result."""
    given = {} if mask is None else {"mask": mask}  # Keras's implicit mask goes its own way
    states = keras.layers.Bidirectional(keras.layers.LSTM(units, return_sequences=True), name="lstm")(vectors, **given)
    states = keras.layers.Dropout(dropout, name="state_dropout")(states)
    vector = (AttentionPooling(name="attention") if pooling is None else pooling)(states, **given)
    vector = keras.layers.Dropout(dropout, name="vector_dropout")(vector)
    return keras.layers.Dense(classes, "softmax", name="classes")(vector)


def _check(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {size}.")
