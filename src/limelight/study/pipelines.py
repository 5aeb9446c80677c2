"""Prepare data for the models of a study, and build the models: one pipeline for texts, one for series."""

import hashlib
import itertools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from limelight.data import Dataset, Encoding, Repair, Split, Tokenizer
from limelight.exceptions import DataError
from limelight.models import SeriesClassifier, TextClassifier, build_series_classifier, build_text_classifier
from limelight.models._estimator import Estimator
from limelight.models.examples import Sequences
from limelight.models.inputs import SeriesInputs, TextInputs
from limelight.models.targets import Classes
from limelight.study.settings import Settings

PARTS = ("train", "validation", "test")
# The values of scikit-learn's `C` that the linear model is fitted with; the validation part chooses one.
INVERSE_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

_CHUNK = 1000
_NUM_HASHES = 2**22
# Of the linear model: its optimizer keeps about 25 numbers for each coefficient.
_MAX_FEATURES, _MAX_COEFFICIENTS = 2**18, 1_000_000

PredictFunction = Callable[[Any], np.ndarray]


class Pipeline(Protocol):
    """The encoded data of a study, and the models that fit their kind."""

    subsets: dict[str, Sequences]
    repairs: list[Repair]
    notes: list[str]
    baseline_title: str

    def build(self, pooling: Callable[[], keras.Layer]) -> keras.Model:
        """Return a new classifier, not compiled."""
        ...

    def fit_baseline(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Fit the linear model; return its class probabilities on the validation and test parts, and a summary."""
        ...

    def describe(self, example: int) -> dict[str, Any]:
        """Return `text`, `tokens` and `offsets` of a test example, ready for JSON."""
        ...

    def make_estimator(self, model: keras.Model, history: dict[str, Any]) -> Estimator:
        """Return an estimator that predicts with a trained model from raw inputs."""
        ...


def build_pipeline(dataset: Dataset, split: Split, settings: Settings) -> Pipeline:
    """Return the pipeline of a data set. Its vocabulary or scale comes from the train part alone."""
    return (_TextPipeline if dataset.kind == "text" else _SeriesPipeline)(dataset, split, settings)


class _TextPipeline:
    baseline_title = "TF-IDF + linear"

    def __init__(self, dataset: Dataset, split: Split, settings: Settings) -> None:
        self.settings = settings
        self.num_classes, self.classes = len(dataset.classes), Classes(dataset.classes)
        texts, labels = {}, {}
        for name in PARTS:
            texts[name], labels[name] = dataset.take(getattr(split, name))
        self.tokenizer = Tokenizer.train(texts["train"], size=max(3, settings.vocabulary))
        self.texts = {name: _EncodedTexts(self.tokenizer, texts[name], settings.length) for name in PARTS}
        self.subsets, truncated = {}, 0
        for name in PARTS:
            # Only the ids are kept: offsets and tokens take many times their memory.
            sequences = []
            for encoding in self.texts[name].encode():
                sequences.append(encoding.ids)
                truncated += encoding.truncated > 0
            _check_ids(sequences, self.tokenizer.size)
            self.subsets[name] = Sequences(sequences, labels[name])
        self.repairs = [Repair(f"texts cut after {settings.length} words", truncated)] if truncated else []
        self.notes = _note_equal_inputs(self.subsets, settings.length)

    def build(self, pooling: Callable[[], keras.Layer]) -> keras.Model:
        settings = self.settings
        return build_text_classifier(
            self.tokenizer.size,
            self.num_classes,
            pooling=pooling(),
            units=settings.units,
            embedding_dim=settings.width,
            dropout=settings.dropout,
            word_dropout=settings.word_dropout,
        )

    def fit_baseline(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return _fit_and_predict(fit_text_baseline, self.texts, self.subsets)

    def describe(self, example: int) -> dict[str, Any]:
        text = self.texts["test"].texts[example]
        encoding = self.tokenizer.encode([text], self.settings.length)[0]
        if encoding.truncated:
            # The report leaves out what the model did not read, which may be the rest of a book.
            text = f"{text[: encoding.spans[-1, 1]]} …"
        return {
            "text": text,
            "tokens": list(encoding.tokens),
            "offsets": [list(offset) for offset in encoding.offsets],
        }

    def make_estimator(self, model: keras.Model, history: dict[str, Any]) -> Estimator:
        settings = self.settings
        estimator = TextClassifier(
            **_common_params(settings),
            embedding_dim=settings.width,
            word_dropout=settings.word_dropout,
            vocabulary=settings.vocabulary,
        )
        return estimator.restore(TextInputs(self.tokenizer, settings.length), self.classes, model, history)


class _EncodedTexts:
    """The tokens of each text, encoded anew in each iteration."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str], length: int) -> None:
        self.tokenizer, self.texts, self.length = tokenizer, texts, length

    def __iter__(self) -> Iterator[Sequence[str]]:
        return (encoding.tokens for encoding in self.encode())

    def encode(self) -> Iterator[Encoding]:
        """Yield the encoding of each text."""
        for start in range(0, len(self.texts), _CHUNK):
            yield from self.tokenizer.encode(self.texts[start : start + _CHUNK], self.length)


class _SeriesPipeline:
    baseline_title = "Channel summaries + linear"

    def __init__(self, dataset: Dataset, split: Split, settings: Settings) -> None:
        self.settings = settings
        self.num_classes, self.classes = len(dataset.classes), Classes(dataset.classes)
        self.subsets = {}
        truncated = 0
        for name in PARTS:
            series, labels = dataset.take(getattr(split, name))
            truncated += sum(len(steps) > settings.length for steps in series)
            self.subsets[name] = Sequences([steps[: settings.length] for steps in series], labels)
        steps = np.concatenate(self.subsets["train"].sequences).astype(np.float64)
        self.mean, self.variance = steps.mean(0), steps.var(0)
        self.repairs = [Repair(f"series cut after {settings.length} steps", truncated)] if truncated else []
        self.notes = _note_equal_inputs(self.subsets, settings.length)

    def build(self, pooling: Callable[[], keras.Layer]) -> keras.Model:
        return build_series_classifier(
            len(self.mean),
            self.num_classes,
            pooling=pooling(),
            mean=self.mean,
            variance=self.variance,
            units=self.settings.units,
            dropout=self.settings.dropout,
        )

    def fit_baseline(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        sequences = {name: subset.sequences for name, subset in self.subsets.items()}
        return _fit_and_predict(fit_series_baseline, sequences, self.subsets)

    def describe(self, example: int) -> dict[str, Any]:
        length = len(self.subsets["test"].sequences[example])
        return {"text": None, "tokens": [str(step) for step in range(1, length + 1)], "offsets": []}

    def make_estimator(self, model: keras.Model, history: dict[str, Any]) -> Estimator:
        inputs = SeriesInputs(len(self.mean), self.settings.length)
        return SeriesClassifier(**_common_params(self.settings)).restore(inputs, self.classes, model, history)


def _common_params(settings: Settings) -> dict[str, Any]:
    """Return the parameters of an estimator of texts or series that are settings of the study."""
    return {
        "units": settings.units,
        "dropout": settings.dropout,
        "max_length": settings.length,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "training": {
            "epoch_steps": settings.epoch_steps,
            "patience": settings.patience,
            "averaging": settings.averaging,
        },
    }


def fit_text_baseline(
    train: Iterable[Sequence[str]],
    labels: np.ndarray,
    validation: Iterable[Sequence[str]],
    validation_labels: np.ndarray,
) -> tuple[PredictFunction, dict[str, Any]]:
    """Fit a logistic regression on the TF-IDF of words and pairs of words.

    Args:
        train: The tokens of each text; iterated twice, so that no list of all tokens is needed.
        labels: The classes of the texts; every class must occur.
        validation: The tokens of each text of the validation part, which chooses the penalty.
        validation_labels: Their classes.

    Returns:
        A function from tokens of texts to probabilities (texts, classes), and a summary of the run.
    """
    num_classes = int(labels.max()) + 1
    features = HashedTfidf(min(_MAX_FEATURES, _MAX_COEFFICIENTS // num_classes))
    return _fit_linear(features, train, labels, validation, validation_labels)


def fit_series_baseline(
    train: Sequence[np.ndarray],
    labels: np.ndarray,
    validation: Sequence[np.ndarray],
    validation_labels: np.ndarray,
) -> tuple[PredictFunction, dict[str, Any]]:
    """Fit a logistic regression on the summary of each channel; arguments and result as in `fit_text_baseline`.

    A summary is the mean, the standard deviation, the minimum, the maximum, and the means of the first, middle and last
    third.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    features = make_pipeline(FunctionTransformer(_summarize_series), StandardScaler())
    return _fit_linear(features, train, labels, validation, validation_labels)


class HashedTfidf:
    """TF-IDF of words and pairs of words, with hashes in place of a vocabulary, whose memory grows with the texts.

    Args:
        max_features: The number of words and pairs that are used: those in the largest number of texts.
    """

    def __init__(self, max_features: int) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self.max_features = max_features
        self._vectorizer = HashingVectorizer(
            analyzer=_words_and_pairs, n_features=_NUM_HASHES, alternate_sign=False, norm=None
        )
        self._columns = np.zeros(0, np.int64)
        self._idf = np.zeros(0)

    def fit_transform(self, texts: Iterable[Sequence[str]]) -> Any:
        """Choose the words and pairs, and return the features of the texts (texts, features), sparse."""
        num_texts, total = np.zeros(_NUM_HASHES, np.int64), 0
        for counts in self._count(texts):
            num_texts += np.bincount(counts.indices, minlength=_NUM_HASHES)
            total += counts.shape[0]
        columns = np.flatnonzero(num_texts)
        by_frequency = np.argsort(-num_texts[columns], kind="stable")
        self._columns = np.sort(columns[by_frequency[: self.max_features]])
        self._idf = np.log((1 + total) / (1 + num_texts[self._columns])) + 1
        # The size is known, so that no second copy of the features is in memory.
        return self._collect(texts, int(num_texts[self._columns].sum()))

    def transform(self, texts: Iterable[Sequence[str]]) -> Any:
        """Return the features of other texts."""
        from scipy.sparse import vstack

        return vstack(list(self._weigh(texts)), format="csr")

    def _count(self, texts: Iterable[Sequence[str]]) -> Iterator[Any]:
        """Yield the counts of all hashes in some of the texts at a time."""
        remaining = iter(texts)
        while chunk := list(itertools.islice(remaining, _CHUNK)):
            yield self._vectorizer.transform(chunk)

    def _weigh(self, texts: Iterable[Sequence[str]]) -> Iterator[Any]:
        """Yield the features of some of the texts at a time: (1 + log count) idf, in rows of norm 1."""
        from sklearn.preprocessing import normalize

        for counts in self._count(texts):
            rows = counts[:, self._columns]
            rows.data = (1 + np.log(rows.data)) * self._idf[rows.indices]
            yield normalize(rows, copy=False)

    def _collect(self, texts: Iterable[Sequence[str]], size: int) -> Any:
        """Return the features of all texts, which have `size` values."""
        from scipy.sparse import csr_matrix

        indices, values, lengths, start = np.empty(size, np.int32), np.empty(size), [np.zeros(1, np.int64)], 0
        for rows in self._weigh(texts):
            stop = start + rows.nnz
            indices[start:stop], values[start:stop] = rows.indices, rows.data
            lengths.append(np.diff(rows.indptr))
            start = stop
        starts = np.cumsum(np.concatenate(lengths))
        return csr_matrix((values, indices, starts), shape=(len(starts) - 1, len(self._columns)))


def _fit_linear(
    features: Any, train: Iterable[Any], labels: np.ndarray, validation: Iterable[Any], validation_labels: np.ndarray
) -> tuple[PredictFunction, dict[str, Any]]:
    """Fit the features and a logistic regression for each penalty; keep the one with the lowest validation loss."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    start = time.perf_counter()
    train_features, validation_features = features.fit_transform(train), features.transform(validation)
    rows = np.arange(len(validation_labels))
    candidates = []
    with warnings.catch_warnings():
        # A model that has not quite converged is evaluated on the validation part like any other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for inverse_penalty in INVERSE_PENALTIES:
            model = LogisticRegression(C=inverse_penalty, max_iter=500).fit(train_features, labels)
            probabilities = model.predict_proba(validation_features)[rows, validation_labels]
            loss = float(-np.log(np.maximum(probabilities, 1e-7)).mean())
            candidates.append((loss, inverse_penalty, model))
    loss, inverse_penalty, model = min(candidates, key=lambda candidate: candidate[0])
    summary = {
        "seconds": time.perf_counter() - start,
        "epochs": None,
        "parameters": int(model.coef_.size + model.intercept_.size),
        "history": {},
        "inverse_penalty": inverse_penalty,
        "validation": {"loss": loss, "accuracy": float(model.score(validation_features, validation_labels))},
    }
    return lambda inputs: model.predict_proba(features.transform(inputs)).astype(np.float64), summary


def _fit_and_predict(
    fit: Callable[..., tuple[PredictFunction, dict[str, Any]]],
    inputs: Mapping[str, Any],
    subsets: Mapping[str, Sequences],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    predict, summary = fit(
        inputs["train"], subsets["train"].targets, inputs["validation"], subsets["validation"].targets
    )
    return {name: predict(inputs[name]) for name in ("validation", "test")}, summary


def _words_and_pairs(tokens: Sequence[str]) -> list[str]:
    words = [token.lower() for token in tokens]
    return words + [f"{first} {second}" for first, second in itertools.pairwise(words)]


def _summarize_series(series: Sequence[np.ndarray]) -> np.ndarray:
    """Return a row (7 * channels,) for each series (length, channels)."""
    rows = []
    for steps in series:
        thirds = [part.mean(0) if len(part) else steps.mean(0) for part in np.array_split(steps, 3)]
        rows.append(np.concatenate([steps.mean(0), steps.std(0), steps.min(0), steps.max(0), *thirds]))
    return np.stack(rows)


def _note_equal_inputs(subsets: Mapping[str, Sequences], length: int) -> list[str]:
    """Return a sentence if the model cannot tell test examples from training examples, whose labels it has learned."""
    trained = {_hash_sequence(sequence) for sequence in subsets["train"].sequences}
    equal = sum(_hash_sequence(sequence) in trained for sequence in subsets["test"].sequences)
    if not equal:
        return []
    return [
        f"{equal:,} of {len(subsets['test'].sequences):,} test examples are to the models the same as a training example: they "
        f"differ only in words outside the vocabulary, or after the length of {length:,}."
    ]


def _hash_sequence(sequence: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(sequence).tobytes(), digest_size=16).digest()


def _check_ids(sequences: Sequence[np.ndarray], size: int) -> None:
    """Raise for an id outside the embedding, which JAX would silently turn into NaN."""
    shortest = min(len(sequence) for sequence in sequences)
    smallest = min(int(sequence.min(initial=size)) for sequence in sequences)
    largest = max(int(sequence.max(initial=0)) for sequence in sequences)
    if shortest == 0 or smallest < 1 or largest >= size:
        raise DataError(
            f"Every text must have words, with ids from 1 to {size - 1}. Received: ids from {smallest} to "
            f"{largest}, and {shortest} words in the shortest text."
        )
