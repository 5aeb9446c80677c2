"""Prepare data for the models of a study, and build the models: one pipeline for texts, one for series."""

import itertools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from limelight.data import Dataset, Repair, Split, Tokenizer
from limelight.exceptions import DataError
from limelight.models import series_classifier, text_classifier
from limelight.study.settings import Settings
from limelight.study.training import Subset

PARTS = ("train", "validation", "test")
# The values of scikit-learn's `C` that the linear model is fitted with; the validation part chooses one.
INVERSE_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

PredictFunction = Callable[[Sequence[Any]], np.ndarray]


class Pipeline(Protocol):
    """The encoded data of a study, and the models that fit their kind."""

    subsets: dict[str, Subset]
    repairs: list[Repair]
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

    def save(self, folder: Path) -> None:
        """Write what the saved model needs to process new inputs."""
        ...


def build_pipeline(dataset: Dataset, split: Split, settings: Settings) -> Pipeline:
    """Return the pipeline of a data set. Its vocabulary or scale comes from the train part alone."""
    return (_TextPipeline if dataset.kind == "text" else _SeriesPipeline)(dataset, split, settings)


class _TextPipeline:
    baseline_title = "TF-IDF + linear"

    def __init__(self, dataset: Dataset, split: Split, settings: Settings) -> None:
        self.settings = settings
        self.num_classes = len(dataset.classes)
        texts, labels = {}, {}
        for name in PARTS:
            texts[name], labels[name] = dataset.take(getattr(split, name))
        self.tokenizer = Tokenizer.train(texts["train"], size=max(3, settings.vocabulary))
        encodings = {name: self.tokenizer.encode(texts[name], settings.length) for name in PARTS}
        self.subsets = {name: Subset([encoding.ids for encoding in encodings[name]], labels[name]) for name in PARTS}
        for subset in self.subsets.values():
            _check_ids(subset.sequences, self.tokenizer.size)
        self.tokens = {name: [encoding.tokens for encoding in encodings[name]] for name in PARTS}
        self.test_texts, self.test_encodings = texts["test"], encodings["test"]
        truncated = sum(encoding.truncated > 0 for part in encodings.values() for encoding in part)
        self.repairs = [Repair(f"texts cut after {settings.length} words", truncated)] if truncated else []

    def build(self, pooling: Callable[[], keras.Layer]) -> keras.Model:
        settings = self.settings
        return text_classifier(
            self.tokenizer.size,
            self.num_classes,
            pooling=pooling(),
            units=settings.units,
            embedding_dim=settings.width,
            dropout=settings.dropout,
            word_dropout=settings.word_dropout,
        )

    def fit_baseline(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return _fit_and_predict(fit_text_baseline, self.tokens, self.subsets)

    def describe(self, example: int) -> dict[str, Any]:
        encoding = self.test_encodings[example]
        text = self.test_texts[example]
        if encoding.truncated:
            # The report leaves out what the model did not read, which may be the rest of a book.
            text = f"{text[: encoding.spans[-1, 1]]} …"
        return {
            "text": text,
            "tokens": list(encoding.tokens),
            "offsets": [list(offset) for offset in encoding.offsets],
        }

    def save(self, folder: Path) -> None:
        self.tokenizer.save(folder / "tokenizer.json")


class _SeriesPipeline:
    baseline_title = "Channel summaries + linear"

    def __init__(self, dataset: Dataset, split: Split, settings: Settings) -> None:
        self.settings = settings
        self.num_classes = len(dataset.classes)
        self.subsets = {}
        truncated = 0
        for name in PARTS:
            series, labels = dataset.take(getattr(split, name))
            truncated += sum(len(steps) > settings.length for steps in series)
            self.subsets[name] = Subset([steps[: settings.length] for steps in series], labels)
        steps = np.concatenate(self.subsets["train"].sequences).astype(np.float64)
        self.mean, self.variance = steps.mean(0), steps.var(0)
        self.repairs = [Repair(f"series cut after {settings.length} steps", truncated)] if truncated else []

    def build(self, pooling: Callable[[], keras.Layer]) -> keras.Model:
        return series_classifier(
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

    def save(self, folder: Path) -> None:
        """Write nothing: the model normalizes its inputs itself."""


def fit_text_baseline(
    train: Sequence[Sequence[str]],
    labels: np.ndarray,
    validation: Sequence[Sequence[str]],
    validation_labels: np.ndarray,
) -> tuple[PredictFunction, dict[str, Any]]:
    """Fit a logistic regression on the TF-IDF of words and pairs of words.

    Args:
        train: The tokens of each text.
        labels: The classes of the texts; every class must occur.
        validation: The tokens of each text of the validation part, which chooses the penalty.
        validation_labels: Their classes.

    Returns:
        A function from tokens of texts to probabilities (texts, classes), and a summary of the run.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    features = TfidfVectorizer(analyzer=_words_and_pairs, sublinear_tf=True)
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


def _fit_linear(
    features: Any, train: Sequence[Any], labels: np.ndarray, validation: Sequence[Any], validation_labels: np.ndarray
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
    inputs: Mapping[str, Sequence[Any]],
    subsets: Mapping[str, Subset],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    predict, summary = fit(inputs["train"], subsets["train"].labels, inputs["validation"], subsets["validation"].labels)
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


def _check_ids(sequences: Sequence[np.ndarray], size: int) -> None:
    """Raise for an id outside the embedding, which JAX would silently turn into NaN."""
    ids, shortest = np.concatenate(sequences), min(len(sequence) for sequence in sequences)
    if shortest == 0 or ids.min() < 1 or ids.max() >= size:
        raise DataError(
            f"Every text must have words, with ids from 1 to {size - 1}. Received: ids from {ids.min(initial=size)} to "
            f"{ids.max(initial=0)}, and {shortest} words in the shortest text."
        )
