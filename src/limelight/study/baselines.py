"""Simple models that a study compares with: linear models of words and of summaries of series, and a dictionary."""

import itertools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from limelight.models.examples import Sequences

# The values of scikit-learn's `C` that a linear model is fitted with (1 / `alpha` of a ridge regression); the validation part
# chooses one.
INVERSE_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

CHUNK = 1000
_NUM_HASHES = 2**22
# Of the linear model: its optimizer keeps about 25 numbers for each coefficient.
_MAX_FEATURES, _MAX_COEFFICIENTS = 2**18, 1_000_000
# Of the dictionary: more pairs of units than these are not looked at.
_MAX_LINKS = 5_000_000

PredictFunction = Callable[[Any], np.ndarray]


def fit_text_baseline(
    train: Iterable[Sequence[str]],
    labels: np.ndarray,
    validation: Iterable[Sequence[str]],
    validation_labels: np.ndarray,
) -> tuple[PredictFunction, dict[str, Any]]:
    """Fit a linear model on the TF-IDF of words and pairs of words: a logistic regression, or a ridge regression.

    Args:
        train: The tokens of each text; iterated twice, so that no list of all tokens is needed.
        labels: The classes of the texts (n,), all of which must occur; or standardized numbers (n, 1).
        validation: The tokens of each text of the validation part, which chooses the penalty.
        validation_labels: Their classes or numbers.

    Returns:
        A function from tokens of texts to probabilities (texts, classes) or numbers (texts, 1), and a summary of the run.
    """
    num_classes = 1 if labels.dtype.kind == "f" else int(labels.max()) + 1
    features = HashedTfidf(min(_MAX_FEATURES, _MAX_COEFFICIENTS // num_classes))
    return _fit_linear(features, train, labels, validation, validation_labels)


def fit_series_baseline(
    train: Sequence[np.ndarray],
    labels: np.ndarray,
    validation: Sequence[np.ndarray],
    validation_labels: np.ndarray,
) -> tuple[PredictFunction, dict[str, Any]]:
    """Fit a linear model on the summary of each channel; arguments and result as in `fit_text_baseline`.

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
        while chunk := list(itertools.islice(remaining, CHUNK)):
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
    features: Any, train: Iterable[Any], targets: np.ndarray, validation: Iterable[Any], validation_targets: np.ndarray
) -> tuple[PredictFunction, dict[str, Any]]:
    """Fit the features and a linear model for each penalty; keep the one with the lowest validation loss.

    It is a logistic regression for classes (n,), and a ridge regression for standardized numbers (n, 1).
    """
    from sklearn.exceptions import ConvergenceWarning

    start = time.perf_counter()
    train_features, validation_features = features.fit_transform(train), features.transform(validation)
    fit = _fit_ridge if targets.dtype.kind == "f" else _fit_logistic
    candidates = []
    with warnings.catch_warnings():
        # A model that has not quite converged is evaluated on the validation part like any other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for inverse_penalty in INVERSE_PENALTIES:
            model, predict = fit(train_features, targets, inverse_penalty)
            metrics = _validate(predict(validation_features), validation_targets)
            candidates.append((metrics["loss"], inverse_penalty, model, predict, metrics))
    _, inverse_penalty, model, predict, metrics = min(candidates, key=lambda candidate: candidate[0])
    summary = {
        "seconds": time.perf_counter() - start,
        "epochs": None,
        "parameters": int(np.size(model.coef_) + np.size(model.intercept_)),
        "history": {},
        "inverse_penalty": inverse_penalty,
        "validation": metrics,
    }
    return lambda inputs: predict(features.transform(inputs)).astype(np.float64), summary


def _fit_logistic(features: Any, labels: np.ndarray, inverse_penalty: float) -> tuple[Any, PredictFunction]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=inverse_penalty, max_iter=500).fit(features, labels)
    return model, model.predict_proba


def _fit_ridge(features: Any, targets: np.ndarray, inverse_penalty: float) -> tuple[Any, PredictFunction]:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=1 / inverse_penalty).fit(features, targets[:, 0])
    return model, lambda inputs: model.predict(inputs)[:, None]


def _validate(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return the loss of the training of a Keras model, and the metric beside it."""
    if targets.dtype.kind == "f":
        errors = outputs - targets
        return {"loss": float((errors**2).mean()), "mae": float(np.abs(errors).mean())}
    chosen = outputs[np.arange(len(targets)), targets]
    accuracy = float((outputs.argmax(1) == targets).mean())
    return {"loss": float(-np.log(np.maximum(chosen, 1e-7)).mean()), "accuracy": accuracy}


def fit_and_predict(
    fit: Callable[..., tuple[PredictFunction, dict[str, Any]]],
    inputs: Mapping[str, Any],
    subsets: Mapping[str, Sequences],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Fit a baseline on the train part; return its outputs on the validation and test parts, and the summary of the run."""
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


class Dictionary:
    """Translate unit by unit: each source unit becomes its most probable translation, in the order of the source.

    The probabilities t(target | source) are those of IBM model 1. A unit that yields less than half a target unit on average is
    left out, and an unknown one is copied.

    Args:
        source_unit, target_unit: "word" or "character".

    Example:
        >>> pairs = {"red house": "maison rouge", "red car": "voiture rouge", "car": "voiture"}
        >>> Dictionary().fit(list(pairs), list(pairs.values())).translate("red car")
        'rouge voiture'

    References:
        Brown et al. 1993, "The Mathematics of Statistical Machine Translation", Computational Linguistics 19, 263-311.
    """

    def __init__(self, source_unit: str = "word", target_unit: str = "word") -> None:
        self.source_unit, self.target_unit = source_unit, target_unit
        self.best: dict[str, str] = {}
        self.size = 0

    def fit(self, sources: Sequence[str], targets: Sequence[str], iterations: int = 5) -> "Dictionary":
        """Learn the dictionary by expectation maximization.

        Args:
            sources, targets: The texts.
            iterations: Number of iterations.
        """
        source_ids, target_ids = {}, {}
        rows, columns, tokens, num_tokens, num_links = [], [], [], 0, 0
        occurrences: dict[int, int] = {}
        for source, target in zip(sources, targets, strict=True):
            first = [source_ids.setdefault(unit, len(source_ids)) for unit in _split(source, self.source_unit)]
            second = [target_ids.setdefault(unit, len(target_ids)) for unit in _split(target, self.target_unit)]
            if len(first) * len(second) > _MAX_LINKS:
                continue
            num_links += len(first) * len(second)
            if num_links > _MAX_LINKS:
                break
            for unit in first:
                occurrences[unit] = occurrences.get(unit, 0) + 1
            # Every source unit may have produced every target unit.
            rows.append(np.tile(first, len(second)))
            columns.append(np.repeat(second, len(first)))
            tokens.append(np.repeat(np.arange(num_tokens, num_tokens + len(second)), len(first)))
            num_tokens += len(second)
        if not rows:
            return self
        source_of, target_of, token = (np.concatenate(each).astype(np.int64) for each in (rows, columns, tokens))
        keys, link = np.unique(source_of * len(target_ids) + target_of, return_inverse=True)
        key_source, key_target = np.divmod(keys, len(target_ids))
        probabilities = np.ones(len(keys))
        expected = probabilities
        for _ in range(iterations):
            each = probabilities[link]
            shares = each / np.bincount(token, each)[token]
            expected = np.bincount(link, shares)
            probabilities = expected / np.bincount(key_source, expected)[key_source]
        fertility = np.bincount(key_source, expected, minlength=len(source_ids))
        order = np.lexsort((key_target, -probabilities, key_source))
        units, names = list(source_ids), list(target_ids)
        _, starts = np.unique(key_source[order], return_index=True)
        for key in order[starts]:
            unit = int(key_source[key])
            is_silent = fertility[unit] < 0.5 * occurrences[unit]
            self.best[units[unit]] = "" if is_silent else names[key_target[key]]
        self.size = len(keys)
        return self

    def translate(self, source: str) -> str:
        """Return the translation of a text."""
        pieces = [self.best.get(unit, unit) for unit in _split(source, self.source_unit)]
        return (" " if self.target_unit == "word" else "").join(piece for piece in pieces if piece)


def _split(text: str, unit: str) -> list[str]:
    return text.split() if unit == "word" else list(text)
