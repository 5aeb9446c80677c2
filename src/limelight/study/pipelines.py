"""Experiments on texts and series with one target each: classes, or numbers."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from limelight import models
from limelight.data import Dataset, Encoding, Repair, Split, Tokenizer
from limelight.exceptions import DataError
from limelight.explanation import Explanation, explain
from limelight.layers import AttentionPooling
from limelight.models._estimator import Estimator
from limelight.models.examples import Sequences
from limelight.models.inputs import SeriesInputs, TextInputs
from limelight.models.objectives import Objective
from limelight.models.training import Trainer
from limelight.study import baselines
from limelight.study.baselines import CHUNK
from limelight.study.evaluation import Evaluation, Outcome, Samples, capture_examples, note_groups
from limelight.study.folder import Run
from limelight.study.settings import Settings
from limelight.study.targets import ClassTargets, NumberTargets

PARTS = ("train", "validation", "test")
LINEAR = "linear"
# The pooling of the LSTM states, in which the two Keras models differ.
POOLINGS: dict[str, Callable[[], keras.Layer]] = {
    "attention": lambda: AttentionPooling(name="attention"),
    "mean": lambda: keras.layers.GlobalAveragePooling1D(name="mean"),
}


class _Inputs(Protocol):
    """Encoded inputs of one kind, and what fits the kind."""

    sequences: dict[str, list[np.ndarray]]
    repairs: list[Repair]
    baseline_title: str

    def build(self, pooling: keras.Layer, num_outputs: int, is_regression: bool) -> keras.Model:
        """Return a new network, not compiled."""
        ...

    def fit_baseline(self, subsets: Mapping[str, Sequences]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Fit the linear model; return its outputs on the validation and test parts, and a summary."""
        ...

    def describe(self, example: int) -> dict[str, Any]:
        """Return `text`, `tokens` and `offsets` of a test example, ready for JSON."""
        ...

    def make_estimator(
        self, target: Any, model: keras.Model, history: dict[str, Any], is_regression: bool
    ) -> Estimator:
        """Return an estimator that predicts with a trained model from raw inputs."""
        ...


class Supervised:
    """An experiment on texts or series whose targets are classes or numbers.

    The vocabulary or the scale is that of the train part alone.
    """

    architectures: tuple[str, ...] = tuple(POOLINGS)
    baseline: str | None = LINEAR

    def __init__(self, dataset: Dataset, split: Split, settings: Settings) -> None:
        self.dataset, self.split, self.settings = dataset, split, settings
        self.is_regression = dataset.targets is not None
        values = dataset.labels if dataset.targets is None else dataset.targets
        parts = {name: values[getattr(split, name)] for name in PARTS}
        self.targets: ClassTargets | NumberTargets = (
            NumberTargets(parts) if self.is_regression else ClassTargets(parts, dataset.classes)
        )
        self.objective: Objective = self.targets.objective
        self.inputs: _Inputs = (_Texts if dataset.kind == "text" else _Series)(dataset, split, settings)
        self.subsets = {
            name: Sequences(self.inputs.sequences[name], self.targets.encode(each)) for name, each in parts.items()
        }
        self.repairs = [*dataset.repairs, *self.inputs.repairs]
        self.notes = [
            *_note_equal_inputs(self.subsets, settings.length),
            *note_groups(dataset.groups, split.test),
        ]
        self.trivial, self.trivial_title = self.targets.trivial, self.targets.trivial_title.lower()
        self.titles = {
            "attention": "LSTM + attention",
            "mean": "LSTM + mean pooling",
            LINEAR: f"{self.inputs.baseline_title} + {self.targets.linear_title}",
            self.trivial: self.targets.trivial_title,
        }
        self.names = {
            "attention": "attention",
            "mean": "mean pooling",
            LINEAR: f"the {self.targets.linear_title} model",
        }

    @property
    def summary(self) -> str:
        """The sizes of the parts and the targets in words."""
        train, validation, test = (f"{len(subset):,}" for subset in self.subsets.values())
        return f"{train} training, {validation} validation and {test} test examples {self.targets.summary}"

    def build(self, architecture: str) -> keras.Model:
        """Return a new network, not compiled."""
        return self.inputs.build(POOLINGS[architecture](), self.targets.num_outputs, self.is_regression)

    def predict(self, architecture: str, trainer: Trainer, history: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return the predictions of a trained model on the validation and test parts."""
        outputs = {part: trainer.predict(self.subsets[part]) for part in ("validation", "test")}
        return {part: self.targets.decode(each) for part, each in outputs.items()}

    def fit_baseline(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Fit the linear model; return its predictions on the validation and test parts, and a summary."""
        outputs, summary = self.inputs.fit_baseline(self.subsets)
        return {part: self.targets.decode(each) for part, each in outputs.items()}, summary

    def fixed_runs(self) -> list[Run]:
        """Return the run of the model that knows the targets of the train part alone."""
        return [self.targets.trivial_run()]

    def make_estimator(self, architecture: str, model: keras.Model, history: dict[str, Any]) -> Estimator:
        """Return an estimator that predicts with a trained model from raw inputs."""
        return self.inputs.make_estimator(self.targets.target, model, history, self.is_regression)

    def describe_run(self, run: Run) -> str:
        """Return the quality of a run on the validation part in words."""
        return self.targets.describe_run(run)

    def evaluate(self, runs: Mapping[str, Sequence[Run]]) -> Outcome:
        """Evaluate and compare all models on the test part."""
        predictions = {name: [run.predictions["test"] for run in each] for name, each in runs.items()}
        return self.targets.evaluate(predictions, self.names)

    def capture(self, estimator: Estimator, run: Run) -> Samples:
        """Choose test examples, and capture the attention of a model on them."""
        chosen = self.targets.choose(run.predictions["test"], self.settings.examples)
        indices = [index for group in chosen.values() for index in group]
        described = [
            {
                "id": str(int(self.split.test[index])),
                **self.inputs.describe(index),
                **self.targets.describe(index, run.predictions["test"]),
            }
            for index in indices
        ]
        return capture_examples(estimator.model_, self.subsets["test"], chosen, described)

    def explain(self, estimator: Any, sample: int, **settings: Any) -> Explanation:
        """Test on examples of the test part whether the attention explains the predictions."""
        inputs, targets = self.dataset.take(self.split.test)
        targets = targets if self.is_regression else [self.dataset.classes[label] for label in targets]
        return explain(estimator, inputs, targets, sample=sample, **settings)

    def describe_data(self) -> dict[str, Any]:
        """Return the kind of the data and their targets, ready for JSON."""
        counts = {name: len(subset) for name, subset in self.subsets.items()}
        return {"kind": self.dataset.kind, "counts": counts, **self.targets.describe_data()}

    def draw(self, folder: Path, evaluations: Mapping[str, Evaluation], samples: Samples) -> None:
        """Draw what fits the targets into a folder."""
        self.targets.draw(folder, evaluations, self.titles)


class _Texts:
    baseline_title = "TF-IDF"

    def __init__(self, dataset: Dataset, split: Split, settings: Settings) -> None:
        self.settings = settings
        texts = {name: dataset.take(getattr(split, name))[0] for name in PARTS}
        self.tokenizer = Tokenizer.train(texts["train"], size=max(3, settings.vocabulary))
        self.texts = {name: _EncodedTexts(self.tokenizer, texts[name], settings.length) for name in PARTS}
        self.sequences, truncated = {}, 0
        for name in PARTS:
            # Only the ids are kept: offsets and tokens take many times their memory.
            sequences = []
            for encoding in self.texts[name].encode():
                sequences.append(encoding.ids)
                truncated += encoding.truncated > 0
            _check_ids(sequences, self.tokenizer.size)
            self.sequences[name] = sequences
        self.repairs = [Repair(f"texts cut after {settings.length} words", truncated)] if truncated else []

    def build(self, pooling: keras.Layer, num_outputs: int, is_regression: bool) -> keras.Model:
        settings = self.settings
        build = models.build_text_regressor if is_regression else models.build_text_classifier
        return build(
            self.tokenizer.size,
            num_outputs,
            pooling=pooling,
            units=settings.units,
            embedding_dim=settings.width,
            dropout=settings.dropout,
            word_dropout=settings.word_dropout,
        )

    def fit_baseline(self, subsets: Mapping[str, Sequences]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return baselines.fit_and_predict(baselines.fit_text_baseline, self.texts, subsets)

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

    def make_estimator(
        self, target: Any, model: keras.Model, history: dict[str, Any], is_regression: bool
    ) -> Estimator:
        settings = self.settings
        estimator = (models.TextRegressor if is_regression else models.TextClassifier)(
            **_common_params(settings),
            embedding_dim=settings.width,
            word_dropout=settings.word_dropout,
            vocabulary=settings.vocabulary,
        )
        return estimator.restore(TextInputs(self.tokenizer, settings.length), target, model, history)


class _EncodedTexts:
    """The tokens of each text, encoded anew in each iteration."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str], length: int) -> None:
        self.tokenizer, self.texts, self.length = tokenizer, texts, length

    def __iter__(self) -> Iterator[Sequence[str]]:
        return (encoding.tokens for encoding in self.encode())

    def encode(self) -> Iterator[Encoding]:
        """Yield the encoding of each text."""
        for start in range(0, len(self.texts), CHUNK):
            yield from self.tokenizer.encode(self.texts[start : start + CHUNK], self.length)


class _Series:
    baseline_title = "Channel summaries"

    def __init__(self, dataset: Dataset, split: Split, settings: Settings) -> None:
        self.settings = settings
        self.sequences = {}
        truncated = 0
        for name in PARTS:
            series, _ = dataset.take(getattr(split, name))
            truncated += sum(len(steps) > settings.length for steps in series)
            self.sequences[name] = [steps[: settings.length] for steps in series]
        steps = np.concatenate(self.sequences["train"]).astype(np.float64)
        self.mean, self.variance = steps.mean(0), steps.var(0)
        self.repairs = [Repair(f"series cut after {settings.length} steps", truncated)] if truncated else []

    def build(self, pooling: keras.Layer, num_outputs: int, is_regression: bool) -> keras.Model:
        build = models.build_series_regressor if is_regression else models.build_series_classifier
        return build(
            len(self.mean),
            num_outputs,
            pooling=pooling,
            mean=self.mean,
            variance=self.variance,
            units=self.settings.units,
            dropout=self.settings.dropout,
        )

    def fit_baseline(self, subsets: Mapping[str, Sequences]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return baselines.fit_and_predict(baselines.fit_series_baseline, self.sequences, subsets)

    def describe(self, example: int) -> dict[str, Any]:
        length = len(self.sequences["test"][example])
        return {"text": None, "tokens": [str(step) for step in range(1, length + 1)], "offsets": []}

    def make_estimator(
        self, target: Any, model: keras.Model, history: dict[str, Any], is_regression: bool
    ) -> Estimator:
        estimator = models.SeriesRegressor if is_regression else models.SeriesClassifier
        inputs = SeriesInputs(len(self.mean), self.settings.length)
        return estimator(**_common_params(self.settings)).restore(inputs, target, model, history)


def _common_params(settings: Settings) -> dict[str, Any]:
    """Return the parameters of an estimator of texts or series that are settings of the study."""
    return {
        "units": settings.units,
        "dropout": settings.dropout,
        "max_length": settings.length,
        **training_params(settings),
    }


def training_params(settings: Settings) -> dict[str, Any]:
    """Return the parameters of any estimator that are settings of the study."""
    return {
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "training": {
            "epoch_steps": settings.epoch_steps,
            "patience": settings.patience,
            "averaging": settings.averaging,
        },
    }


def _note_equal_inputs(subsets: Mapping[str, Sequences], length: int) -> list[str]:
    """Return a sentence if the model cannot tell test examples from training examples, whose labels it has learned."""
    trained = {_hash_sequence(sequence) for sequence in subsets["train"].sequences}
    equal = sum(_hash_sequence(sequence) in trained for sequence in subsets["test"].sequences)
    if not equal:
        return []
    are, they = ("is", "it differs") if equal == 1 else ("are", "they differ")
    return [
        f"{equal:,} of {len(subsets['test'].sequences):,} test examples {are} to the models the same as a training example: "
        f"{they} only in words outside the vocabulary, or after the length of {length:,}."
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
