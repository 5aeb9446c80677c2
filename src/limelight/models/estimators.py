"""Estimators with scikit-learn's interface: raw texts, documents or series in, classes or numbers out."""

from typing import Any

import keras

from limelight.models import builders
from limelight.models._estimator import (
    Classifier,
    DocumentEstimator,
    Regressor,
    SeriesEstimator,
    TextEstimator,
)
from limelight.models.inputs import DocumentInputs, SeriesInputs, TextInputs
from limelight.models.targets import Classes, Numbers


class TextClassifier(Classifier, TextEstimator):
    """Classify texts: words are embedded, read by an encoder, pooled by attention, and classified.

    Args:
        encoder, pooling, units, embedding_dim, dropout, word_dropout: As in `build_text_classifier`; or `encoder` is the
            folder of a pretrained encoder (`load_encoder`), whose own tokenizer and embeddings replace the vocabulary.
        fine_tune: Whether to train a pretrained encoder further; a learning rate of 2e-5 to 5e-5 is usual.
        vocabulary: Largest number of words that are known; others are one unknown word.
        max_length: Number of words that are read of a text.
        vectors: A text file of pretrained word vectors (word2vec, GloVe, fastText), from which the embeddings start.
        class_weight: "balanced", or a dict from class to weight.
        validation: Share of the examples that is held out for early stopping, in [0, 1); 0 for none.
        epochs, batch_size, learning_rate: As in `TrainingConfig`.
        training: Further settings of `TrainingConfig` by name, such as {"schedule": "cosine"}.
        random_state: Seed; the same seed gives the same model.
        verbose: Show a progress bar on a terminal.

    Attributes:
        classes_: The class labels, sorted (K,).
        model_: The Keras model, from word ids to probabilities.
        history_: Summary of the training: epochs, the best epoch, seconds, and the losses.
        vectors_found_: Share of the vocabulary that `vectors` holds; None without.

    Example:
        >>> import limelight as ll
        >>> texts = ["a good film", "a bad film", "good", "bad"] * 5
        >>> model = ll.models.TextClassifier(encoder=None, epochs=1, training={"epoch_steps": 1}, verbose=False)
        >>> model.fit(texts, ["pos", "neg"] * 10).predict(["good good"]).shape
        (1,)

    References:
        Yang et al. 2016, Hierarchical Attention Networks; Jain and Wallace 2019, arXiv:1902.10186 (this model).
    """

    def __init__(
        self,
        *,
        encoder: Any = "bilstm",
        pooling: Any = "attention",
        units: int = 64,
        embedding_dim: int = 64,
        dropout: float = 0.5,
        word_dropout: float = 0.2,
        vocabulary: int = 10_000,
        max_length: int = 512,
        vectors: Any = None,
        fine_tune: bool = False,
        class_weight: Any = None,
        validation: float = 0.1,
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        training: dict[str, Any] | None = None,
        random_state: Any = None,
        verbose: bool = True,
    ) -> None:
        self.encoder, self.pooling, self.units, self.embedding_dim = encoder, pooling, units, embedding_dim
        self.dropout, self.word_dropout, self.vocabulary, self.max_length = (
            dropout,
            word_dropout,
            vocabulary,
            max_length,
        )
        self.class_weight, self.validation = class_weight, validation
        self.epochs, self.batch_size, self.learning_rate, self.training = epochs, batch_size, learning_rate, training
        self.vectors, self.fine_tune = vectors, fine_tune
        self.random_state, self.verbose = random_state, verbose

    def _build(self, inputs: TextInputs, target: Classes) -> keras.Model:
        return self._build_with(builders.build_text_classifier, inputs, len(target.values))


class TextRegressor(Regressor, TextEstimator):
    """Predict numbers from texts.

    Args:
        encoder, pooling, units, embedding_dim, dropout, word_dropout, fine_tune: As in `TextClassifier`.
        vocabulary, max_length, vectors: As in `TextClassifier`.
        validation, epochs, batch_size, learning_rate, training, random_state, verbose: As in `TextClassifier`.

    Attributes:
        model_: The Keras model, from word ids to standardized targets.
        history_: Summary of the training.

    Example:
        >>> import limelight as ll
        >>> texts = ["a good film", "a bad film", "good", "bad"] * 5
        >>> model = ll.models.TextRegressor(encoder=None, epochs=1, training={"epoch_steps": 1}, verbose=False)
        >>> model.fit(texts, [4.5, 1.0, 5.0, 0.5] * 5).predict(["good good"]).shape
        (1,)
    """

    def __init__(
        self,
        *,
        encoder: Any = "bilstm",
        pooling: Any = "attention",
        units: int = 64,
        embedding_dim: int = 64,
        dropout: float = 0.5,
        word_dropout: float = 0.2,
        vocabulary: int = 10_000,
        max_length: int = 512,
        vectors: Any = None,
        fine_tune: bool = False,
        validation: float = 0.1,
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        training: dict[str, Any] | None = None,
        random_state: Any = None,
        verbose: bool = True,
    ) -> None:
        self.encoder, self.pooling, self.units, self.embedding_dim = encoder, pooling, units, embedding_dim
        self.dropout, self.word_dropout, self.vocabulary, self.max_length = (
            dropout,
            word_dropout,
            vocabulary,
            max_length,
        )
        self.validation = validation
        self.epochs, self.batch_size, self.learning_rate, self.training = epochs, batch_size, learning_rate, training
        self.vectors, self.fine_tune = vectors, fine_tune
        self.random_state, self.verbose = random_state, verbose

    def _build(self, inputs: TextInputs, target: Numbers) -> keras.Model:
        return self._build_with(builders.build_text_regressor, inputs, len(target.mean))


class SeriesClassifier(Classifier, SeriesEstimator):
    """Classify time series, which may differ in length: arrays (n, T) or (n, T, C), data frames, or lists of arrays.

    Args:
        encoder, pooling, units, dropout: As in `build_series_classifier`.
        max_length: Number of steps that are read of a series.
        class_weight, validation, epochs, batch_size, learning_rate, training, random_state, verbose: As in `TextClassifier`.

    Attributes:
        classes_: The class labels, sorted (K,).
        model_: The Keras model, from steps and their mask to probabilities.
        history_: Summary of the training.
        n_channels_in_: Number of channels C.

    Example:
        >>> import limelight as ll, numpy as np
        >>> series = [np.full((length, 2), label) for length, label in [(5, 0.0), (7, 1.0)] * 10]
        >>> model = ll.models.SeriesClassifier(encoder="conv", epochs=1, training={"epoch_steps": 1}, verbose=False)
        >>> model.fit(series, [0, 1] * 10).predict_proba(series[:3]).shape
        (3, 2)
    """

    def __init__(
        self,
        *,
        encoder: Any = "bilstm",
        pooling: Any = "attention",
        units: int = 64,
        dropout: float = 0.5,
        max_length: int = 4096,
        class_weight: Any = None,
        validation: float = 0.1,
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        training: dict[str, Any] | None = None,
        random_state: Any = None,
        verbose: bool = True,
    ) -> None:
        self.encoder, self.pooling, self.units, self.dropout = encoder, pooling, units, dropout
        self.max_length, self.class_weight, self.validation = max_length, class_weight, validation
        self.epochs, self.batch_size, self.learning_rate, self.training = epochs, batch_size, learning_rate, training
        self.random_state, self.verbose = random_state, verbose

    def _build(self, inputs: SeriesInputs, target: Classes) -> keras.Model:
        return self._build_with(builders.build_series_classifier, inputs, len(target.values))


class SeriesRegressor(Regressor, SeriesEstimator):
    """Predict numbers from time series, which may differ in length.

    Args:
        encoder, pooling, units, dropout, max_length: As in `SeriesClassifier`.
        validation, epochs, batch_size, learning_rate, training, random_state, verbose: As in `TextClassifier`.

    Attributes:
        model_: The Keras model, from steps and their mask to standardized targets.
        history_: Summary of the training.
        n_channels_in_: Number of channels C.

    Example:
        >>> import limelight as ll, numpy as np
        >>> series = np.random.default_rng(0).normal(size=(20, 9))
        >>> model = ll.models.SeriesRegressor(encoder="conv", epochs=1, training={"epoch_steps": 1}, verbose=False)
        >>> model.fit(series, series.mean(1)).predict(series[:3]).shape
        (3,)
    """

    def __init__(
        self,
        *,
        encoder: Any = "bilstm",
        pooling: Any = "attention",
        units: int = 64,
        dropout: float = 0.5,
        max_length: int = 4096,
        validation: float = 0.1,
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        training: dict[str, Any] | None = None,
        random_state: Any = None,
        verbose: bool = True,
    ) -> None:
        self.encoder, self.pooling, self.units, self.dropout = encoder, pooling, units, dropout
        self.max_length, self.validation = max_length, validation
        self.epochs, self.batch_size, self.learning_rate, self.training = epochs, batch_size, learning_rate, training
        self.random_state, self.verbose = random_state, verbose

    def _build(self, inputs: SeriesInputs, target: Numbers) -> keras.Model:
        return self._build_with(builders.build_series_regressor, inputs, len(target.mean))


class DocumentClassifier(Classifier, DocumentEstimator):
    """Classify documents by two levels of attention: over the words of each sentence, and over the sentences.

    Args:
        pooling, units, embedding_dim, dropout, word_dropout: As in `build_document_classifier`.
        vocabulary: Largest number of words that are known.
        max_sentences: Number of sentences that are read of a document.
        max_words: Number of words of a sentence; a longer one is divided.
        vectors: As in `TextClassifier`.
        class_weight, validation, epochs, batch_size, learning_rate, training, random_state, verbose: As in `TextClassifier`.

    Attributes:
        classes_: The class labels, sorted (K,).
        model_: The Keras model, from word ids (B, sentences, words) to probabilities.
        history_: Summary of the training.

    Example:
        >>> import limelight as ll
        >>> texts = ["It rains. A bad day!", "The sun shines. Good."] * 10
        >>> model = ll.models.DocumentClassifier(units=4, epochs=1, training={"epoch_steps": 1}, verbose=False)
        >>> model.fit(texts, ["bad", "good"] * 10).predict(["A day. It shines."]).shape
        (1,)

    References:
        Yang et al. 2016, "Hierarchical Attention Networks for Document Classification", NAACL.
    """

    def __init__(
        self,
        *,
        pooling: str = "attention",
        units: int = 50,
        embedding_dim: int = 64,
        dropout: float = 0.5,
        word_dropout: float = 0.2,
        vocabulary: int = 20_000,
        max_sentences: int = 64,
        max_words: int = 32,
        vectors: Any = None,
        class_weight: Any = None,
        validation: float = 0.1,
        epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        training: dict[str, Any] | None = None,
        random_state: Any = None,
        verbose: bool = True,
    ) -> None:
        self.pooling, self.units, self.embedding_dim = pooling, units, embedding_dim
        self.dropout, self.word_dropout = dropout, word_dropout
        self.vocabulary, self.max_sentences, self.max_words = vocabulary, max_sentences, max_words
        self.vectors = vectors
        self.class_weight, self.validation = class_weight, validation
        self.epochs, self.batch_size, self.learning_rate, self.training = epochs, batch_size, learning_rate, training
        self.random_state, self.verbose = random_state, verbose

    def _build(self, inputs: DocumentInputs, target: Classes) -> keras.Model:
        return builders.build_document_classifier(
            inputs.tokenizer.size,
            len(target.values),
            pooling=self.pooling,
            units=self.units,
            embedding_dim=self.embedding_dim,
            embeddings=self._embeddings,
            dropout=self.dropout,
            word_dropout=self.word_dropout,
        )
