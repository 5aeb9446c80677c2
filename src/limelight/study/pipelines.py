"""Data as the models of a study take it: texts as words, series as steps."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from limelight.data import DataError, Dataset, Repair, Split, Tokenizer
from limelight.models import series_classifier, text_classifier
from limelight.study import baseline
from limelight.study.settings import Settings
from limelight.study.training import Part

PARTS = ("train", "validation", "test")


class Material(Protocol):
    """What a study needs to know of its data, whatever their kind."""

    parts: dict[str, Part]
    repairs: list[Repair]
    baseline_title: str

    def build(self, pooling: Callable[[], keras.Layer]) -> keras.Model:
        """Return a new classifier, not compiled."""
        ...

    def fit_baseline(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Fit the linear model; return its probabilities of each part but the train part, and what the run tells."""
        ...

    def describe(self, example: int) -> dict[str, Any]:
        """Return `text`, `tokens` and `offsets` of a test example, ready for JSON."""
        ...

    def save(self, folder: Path) -> None:
        """Write what is needed beside the model to use it."""
        ...


def of(dataset: Dataset, split: Split, settings: Settings) -> Material:
    """Return the material of a data set, its vocabulary or scale taken from the train part alone."""
    return (_Texts if dataset.kind == "text" else _Series)(dataset, split, settings)


class _Texts:
    baseline_title = "TF-IDF + linear"

    def __init__(self, dataset: Dataset, split: Split, settings: Settings) -> None:
        self.settings = settings
        self.classes = len(dataset.classes)
        texts, labels = {}, {}
        for name in PARTS:
            texts[name], labels[name] = dataset.take(getattr(split, name))
        self.tokenizer = Tokenizer.train(texts["train"], size=max(3, settings.vocabulary))
        encodings = {name: self.tokenizer.encode(texts[name], settings.length) for name in PARTS}
        self.parts = {name: Part([encoding.ids for encoding in encodings[name]], labels[name]) for name in PARTS}
        for part in self.parts.values():
            _check_ids(part.sequences, self.tokenizer.size)
        self.tokens = {name: [encoding.tokens for encoding in encodings[name]] for name in PARTS}
        self.texts, self.encodings = texts["test"], encodings["test"]
        cut = sum(encoding.truncated > 0 for part in encodings.values() for encoding in part)
        self.repairs = [Repair(f"texts cut after {settings.length} words", cut)] if cut else []

    def build(self, pooling: Callable[[], keras.Layer]) -> keras.Model:
        settings = self.settings
        return text_classifier(
            self.tokenizer.size,
            self.classes,
            pooling=pooling(),
            units=settings.units,
            width=settings.width,
            dropout=settings.dropout,
            word_dropout=settings.word_dropout,
        )

    def fit_baseline(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return _fit(baseline.fit_texts, self.tokens, self.parts)

    def describe(self, example: int) -> dict[str, Any]:
        encoding = self.encodings[example]
        text = self.texts[example]
        if encoding.truncated:
            # A report of books would hold the books: what the model did not read is left out.
            text = f"{text[: encoding.spans[-1, 1]]} …"
        return {
            "text": text,
            "tokens": list(encoding.tokens),
            "offsets": [list(offset) for offset in encoding.offsets],
        }

    def save(self, folder: Path) -> None:
        self.tokenizer.save(folder / "tokenizer.json")


class _Series:
    baseline_title = "Channel summaries + linear"

    def __init__(self, dataset: Dataset, split: Split, settings: Settings) -> None:
        self.settings = settings
        self.classes = len(dataset.classes)
        self.parts = {}
        cut = 0
        for name in PARTS:
            series, labels = dataset.take(getattr(split, name))
            cut += sum(len(steps) > settings.length for steps in series)
            self.parts[name] = Part([steps[: settings.length] for steps in series], labels)
        steps = np.concatenate(self.parts["train"].sequences).astype(np.float64)
        self.mean, self.variance = steps.mean(0), steps.var(0)
        self.repairs = [Repair(f"series cut after {settings.length} steps", cut)] if cut else []

    def build(self, pooling: Callable[[], keras.Layer]) -> keras.Model:
        return series_classifier(
            len(self.mean),
            self.classes,
            pooling=pooling(),
            mean=self.mean,
            variance=self.variance,
            units=self.settings.units,
            dropout=self.settings.dropout,
        )

    def fit_baseline(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return _fit(baseline.fit_series, {name: part.sequences for name, part in self.parts.items()}, self.parts)

    def describe(self, example: int) -> dict[str, Any]:
        count = len(self.parts["test"].sequences[example])
        return {"text": None, "tokens": [str(step) for step in range(1, count + 1)], "offsets": []}

    def save(self, folder: Path) -> None:
        """The model holds all that it needs."""


def _fit(
    fit: Callable[..., tuple[baseline.Predict, dict[str, Any]]],
    inputs: Mapping[str, Sequence[Any]],
    parts: Mapping[str, Part],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    predict, summary = fit(inputs["train"], parts["train"].labels, inputs["validation"], parts["validation"].labels)
    return {name: predict(inputs[name]) for name in ("validation", "test")}, summary


def _check_ids(sequences: Sequence[np.ndarray], size: int) -> None:
    """Raise where an id lies outside the embedding: JAX would make it NaN without a word."""
    ids, shortest = np.concatenate(sequences), min(len(sequence) for sequence in sequences)
    if shortest == 0 or ids.min() < 1 or ids.max() >= size:
        raise DataError(
            f"Every text must have words, with ids from 1 to {size - 1}. Received: ids from {ids.min(initial=size)} to "
            f"{ids.max(initial=0)}, and {shortest} words in the shortest text."
        )
