"""The linear model that every sequence model has to be compared with."""

import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# Inverse strengths of the penalty that are tried; the validation part chooses.
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

Predict = Callable[[Sequence[Any]], np.ndarray]


def fit_texts(
    train: Sequence[Sequence[str]],
    labels: np.ndarray,
    validation: Sequence[Sequence[str]],
    validation_labels: np.ndarray,
) -> tuple[Predict, dict[str, Any]]:
    """Fit a logistic regression on the TF-IDF of words and pairs of words.

    Args:
        train: The tokens of each text.
        labels: Their classes, every class among them.
        validation: The tokens of each text that chooses the strength of the penalty.
        validation_labels: Their classes.

    Returns:
        A function from tokens of texts to probabilities (texts, classes), and what the run tells.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    features = TfidfVectorizer(analyzer=_words_and_pairs, sublinear_tf=True)
    return _fit(features, train, labels, validation, validation_labels)


def fit_series(
    train: Sequence[np.ndarray],
    labels: np.ndarray,
    validation: Sequence[np.ndarray],
    validation_labels: np.ndarray,
) -> tuple[Predict, dict[str, Any]]:
    """Fit a logistic regression on the summary of each channel; arguments and result as in `fit_texts`.

    A summary is the mean, deviation, least and largest value, and the means of the first, middle and last third.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    features = make_pipeline(FunctionTransformer(_summaries), StandardScaler())
    return _fit(features, train, labels, validation, validation_labels)


def _fit(
    features: Any, train: Sequence[Any], labels: np.ndarray, validation: Sequence[Any], validation_labels: np.ndarray
) -> tuple[Predict, dict[str, Any]]:
    """Fit the features and, for each strength, a logistic regression on them; keep the best on the validation part."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    start = time.perf_counter()
    seen, unseen = features.fit_transform(train), features.transform(validation)
    fitted = []
    with warnings.catch_warnings():
        # A model that has not quite converged is measured on the validation part like any other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=500).fit(seen, labels)
            fitted.append((_loss(model.predict_proba(unseen), validation_labels), strength, model))
    loss, strength, model = min(fitted, key=lambda one: one[0])
    summary = {
        "seconds": time.perf_counter() - start,
        "epochs": None,
        "parameters": int(model.coef_.size + model.intercept_.size),
        "history": {},
        "penalty": strength,
        "validation": {"loss": loss, "accuracy": float(model.score(unseen, validation_labels))},
    }
    return lambda inputs: model.predict_proba(features.transform(inputs)).astype(np.float64), summary


def _words_and_pairs(tokens: Sequence[str]) -> list[str]:
    words = [token.lower() for token in tokens]
    return words + [f"{first} {second}" for first, second in itertools.pairwise(words)]


def _summaries(series: Sequence[np.ndarray]) -> np.ndarray:
    """Return a row (7 * channels,) for each series (length, channels)."""
    rows = []
    for steps in series:
        thirds = [part.mean(0) if len(part) else steps.mean(0) for part in np.array_split(steps, 3)]
        rows.append(np.concatenate([steps.mean(0), steps.std(0), steps.min(0), steps.max(0), *thirds]))
    return np.stack(rows)


def _loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-7)).mean())
