"""The subject of an explanation: a model, its examples as arrays of tokens, and a function that predicts them."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from limelight import evaluate
from limelight.data import pad, padded_length
from limelight.models.examples import Documents, Sequences
from limelight.models.inputs import DocumentInputs, SeriesInputs, TextInputs
from limelight.models.pretrained import PretrainedTokenizer
from limelight.models.training import predict

# Perturbed inputs in one run of a model. Each number of rows is compiled separately.
PREDICTED_ROWS = 128
UNKNOWN = 1  # the id of a word outside the vocabulary of an estimator


class Role(NamedTuple):
    """The role of an attention of a model.

    Args:
        name: its name in results.
        is_self_attention: True if the tokens are its queries too.
    """

    name: str
    is_self_attention: bool = False


@dataclasses.dataclass(eq=False)
class Subject:
    """A model and its examples.

    An example may be one output of several, such as a unit of a translation: then `groups` tells which belong together.

    Args:
        model: the Keras model.
        sequences: the examples without padding: ids (T,), steps (T, C), or for documents ids and the number of their sentence
            (T, 2). With `context` their last column is the number of the example (`number_rows`).
        perturbation: how tokens are removed.
        tokens: the words of each example; None for series.
        baseline: what integrated gradients start from, for steps (C,), or (n, 1, C) of each example; embeddings start from zero.
        output: "probabilities", or "values" for a regressor.
        classes: the names of the classes.
        decode: makes predictions in the unit of the targets of the model's outputs.
        encode: makes class indices or values of targets.
        name: what it is called in the result.
        max_words: the length of a sentence of documents; None for other examples.
        length: the length of all inputs, if the model takes no other.
        pads: False if padding would change the outputs, so that only examples of equal length share a batch.
        labels: the class of each example whose probability is explained (n,); the predicted one by default.
        groups: the group of each example (n,); intervals are over groups. None if each is its own.
        origins: the number of each example in the data of the user, if it is not its place.
        outputs: the name of the explained output of each example.
        steps: the number of the explained output of each example.
        input_name: with `context`, the input of the model that the sequences are.
        context: the other inputs of the model, a row for each example.
        find_role: returns the role of an attention by its key, None for one that cannot be explained; by shapes by default.
        layers: patterns of the paths of the attention to look for; all by default.
        query: the query on which the explained output depends; all by default. Self-attention has others.
        variables: for examples of several variables the input and the column of each, by its name.
        targets: true values of the outputs (n, D), if the data hold them.
        explained: the output whose probability or value is explained, in words.
        left_out: tests that do not apply, with the reason.
        special_ids: the ids of tokens that are no part of an example, such as [CLS]: they have no score and are never removed.
        on_predict: called with the number of inputs that were predicted.
    """

    model: keras.Model
    sequences: list[np.ndarray]
    perturbation: Any
    tokens: list[list[str]] | None = None
    baseline: np.ndarray | None = None
    output: str = "probabilities"
    classes: list[str] | None = None
    decode: Callable[[np.ndarray], np.ndarray] = lambda outputs: outputs
    encode: Callable[[Any], np.ndarray] = np.asarray
    name: str = "model"
    max_words: int | None = None
    length: int | None = None
    pads: bool = True
    labels: np.ndarray | None = None
    groups: np.ndarray | None = None
    origins: list[int] | None = None
    outputs: list[str] | None = None
    steps: np.ndarray | None = None
    input_name: str = ""
    context: Mapping[str, np.ndarray] | None = None
    find_role: Callable[[str], Role | None] | None = None
    layers: str | None = None
    query: int | None = None
    variables: Mapping[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
    targets: np.ndarray | None = None
    explained: str = "the predicted class"
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    special_ids: Sequence[int] = ()
    on_predict: Callable[[int], None] = lambda count: None

    def __post_init__(self) -> None:
        # By the digest of an input, of which there are many.
        self.memory: dict[bytes, np.ndarray] = {}

    def find_special(self, sequence: np.ndarray) -> np.ndarray:
        """Return bool (T,), True at tokens that are no part of an example; of an empty one all are."""
        if not self.special_ids:
            return np.zeros(len(sequence), bool)
        special = np.isin(sequence, self.special_ids)
        return special & ~special.all()

    def hide_special(self, scores: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return scores (T,) of each example that are NaN at tokens that are no part of it."""
        if not self.special_ids:
            return list(scores)
        pairs = zip(scores, self.sequences, strict=True)
        return [np.where(self.find_special(sequence), np.nan, each) for each, sequence in pairs]

    @property
    def has_ids(self) -> bool:
        """True if the examples are ids of tokens, which the model embeds."""
        return self.sequences[0].dtype.kind in "iu"

    @property
    def is_document(self) -> bool:
        """True if the examples are documents of sentences of words."""
        return self.max_words is not None

    def padded_length(self, sequence: np.ndarray) -> int:
        """Return the length that an example is padded to; of documents the number of sentences."""
        if self.is_document:
            return int(Documents([[0] * len(np.unique(sequence[:, 1]))]).lengths[0])
        if self.length is not None:
            return self.length
        return padded_length(len(sequence)) if self.pads else len(sequence)

    def group(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return groups of examples, by index, that can be padded to one length: one group, or one for each length."""
        lengths = np.array([len(sequence) if not self.pads else 0 for sequence in sequences], int)
        return [np.flatnonzero(lengths == length) for length in np.unique(lengths)]

    def batch(self, sequences: Sequence[np.ndarray], length: int) -> Any:
        """Return the inputs of the model for examples."""
        if self.max_words is not None:
            documents = [
                [sequence[sequence[:, 1] == number, 0] for number in np.unique(sequence[:, 1])]
                for sequence in sequences
            ]
            return Documents(documents, max_words=self.max_words).batch(np.arange(len(documents)), length)[0]
        if self.context is not None:
            numbers = np.array([sequence[0, -1] for sequence in sequences], int)
            values, mask = pad([sequence[:, 0] if self.has_ids else sequence[:, :-1] for sequence in sequences], length)
            others = {name: rows[numbers] for name, rows in self.context.items()}
            return {self.input_name: values, **({} if self.has_ids else {"mask": mask}), **others}
        values, mask = pad(sequences, length)
        return {"steps": values, "mask": mask} if isinstance(self.model.input, dict) else values

    def mask(self, sequences: Sequence[np.ndarray], length: int) -> np.ndarray:
        """Return bool (B, T), or (B, sentences, words), True at the tokens of examples, in their order."""
        if self.is_document:
            return self.batch(sequences, length) > 0
        return np.arange(length) < np.array([len(sequence) for sequence in sequences])[:, None]

    def predict(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Return probabilities (m, K) or values (m, D). What was predicted before is remembered."""
        keys = [hashlib.blake2b(sequence.tobytes(), digest_size=16).digest() for sequence in sequences]
        new = {key: sequence for key, sequence in zip(keys, sequences, strict=True) if key not in self.memory}
        names, values = list(new), list(new.values())
        for indices in self.group(values):
            rows = min(PREDICTED_ROWS, 1 << (len(indices) - 1).bit_length())
            outputs = predict(self.model, _Inputs(self, [values[index] for index in indices]), rows)
            outputs = self.to_output(outputs.reshape(len(outputs), -1))
            self.memory.update((names[index], output) for index, output in zip(indices, outputs, strict=True))
        self.on_predict(len(sequences))
        return np.stack([self.memory[key] for key in keys])

    def predict_changed(self, change: Callable[[Any, np.ndarray], Any]) -> np.ndarray:
        """Return the outputs for the examples with changed inputs (n, D). Examples must be padded alike.

        Args:
            change: receives the inputs of a batch and their mask, and returns the inputs to use.
        """
        rows = min(PREDICTED_ROWS, 1 << (len(self.sequences) - 1).bit_length())
        outputs = predict(self.model, _Inputs(self, self.sequences, change), rows)
        return self.to_output(outputs.reshape(len(outputs), -1))

    def measure_seconds(self) -> float:
        """Return the time that the prediction of one example takes, after a first one that compiles."""
        sequences = self.sequences[:PREDICTED_ROWS]
        self.predict(sequences)
        indices = self.group(sequences)[0]
        rows = min(PREDICTED_ROWS, 1 << (len(indices) - 1).bit_length())
        started = time.perf_counter()
        predict(self.model, _Inputs(self, [sequences[index] for index in indices]), rows)
        return (time.perf_counter() - started) / rows

    @property
    def num_predicted(self) -> int:
        """The number of different inputs that were predicted."""
        return len(self.memory)

    def to_output(self, outputs: np.ndarray) -> np.ndarray:
        """Return the outputs of the model as probabilities (m, K): one sigmoid becomes two classes."""
        outputs = np.asarray(outputs, np.float64)
        if self.output == "probabilities" and outputs.shape[-1] == 1:
            return np.concatenate([1 - outputs, outputs], axis=-1)
        return outputs


@dataclasses.dataclass(frozen=True)
class ReplaceWord:
    """Replace words of a document (T, 2) by the unknown word; their sentences stay."""

    name: str = "replaced by the unknown token"

    def __call__(self, example: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Return the document with the unknown word at every place where `keep` (T,) is False."""
        perturbed = np.array(example)
        perturbed[~keep, 0] = UNKNOWN
        return perturbed


@dataclasses.dataclass(frozen=True)
class KeepSpecial:
    """Remove tokens of an example (T,) as another perturbation does, but for some ids, unless it has no others."""

    perturbation: Any
    special_ids: Sequence[int]

    @property
    def name(self) -> str:
        """The name of the perturbation."""
        return self.perturbation.name

    def __call__(self, example: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Return what is left of the example where `keep` (T,) is False at tokens with other ids."""
        special = np.isin(example, self.special_ids)
        return self.perturbation(example, keep | (special & ~special.all()))


@dataclasses.dataclass(frozen=True)
class DeleteRows:
    """Delete tokens of an example (T, C) whose last column is its number; if none is left, one is blank.

    Args:
        blank: what the first columns of the one that is left are; the mean of the example when not given.
    """

    blank: Any = None
    name: str = "deleted"

    def __call__(self, example: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Return the rows at which `keep` (T,) is True."""
        if keep.any():
            return example[keep]
        perturbed = np.array(example[:1])
        perturbed[0, :-1] = example[:, :-1].mean(0) if self.blank is None else self.blank
        return perturbed


def number_rows(sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return ids (T,) or steps (T, C) with the number of the example as their last column."""
    numbered = []
    for number, sequence in enumerate(sequences):
        columns = sequence.reshape(len(sequence), -1)
        numbered.append(np.concatenate([columns, np.full((len(columns), 1), number, columns.dtype)], axis=1))
    return numbered


class _Inputs(Sequences):
    """Sequences that are batched as a subject batches them; `change` may change the inputs of a batch, given its mask."""

    def __init__(
        self, subject: Subject, sequences: Sequence[Any], change: Callable[[Any, np.ndarray], Any] | None = None
    ) -> None:
        super().__init__(sequences)
        self.subject, self.change = subject, change
        self.lengths = np.array([subject.padded_length(sequence) for sequence in sequences], dtype=np.int64)

    def batch(self, indices: np.ndarray, length: int) -> tuple[Any, np.ndarray, np.ndarray]:
        sequences = [self.sequences[index] for index in indices]
        inputs = self.subject.batch(sequences, length)
        if self.change is not None:
            inputs = self.change(inputs, self.subject.mask(sequences, length))
        return inputs, self.targets[indices], self.weights[indices]


def make_subject(
    model: Any, X: Any, *, tokens: Any, perturbation: Any, output: str | None, indices: np.ndarray | None
) -> Subject:
    """Return the subject of an estimator of `limelight.models`, or of a Keras model.

    Args:
        model: a fitted estimator, or a built Keras model of one input.
        X: what the estimator takes; for a Keras model ids (B, T) padded by 0, steps (B, T, C), or a list of arrays (T, ...).
        tokens: for a Keras model, the words of each example.
        perturbation: "replace", "delete", an object as of `limelight.evaluate`, or None for the default.
        output: as in `explain`.
        indices: the examples to take; all by default.

    Raises:
        TypeError: the model is none of these.
        ValueError: the inputs do not fit it.
    """
    if isinstance(model, keras.Model):
        return _subject_of_model(model, X, tokens, perturbation, output, indices)
    check_fitted(model)
    inputs = getattr(model, "inputs_", None)
    if not isinstance(inputs, TextInputs | SeriesInputs | DocumentInputs):
        raise TypeError(
            "`model` must be a Keras model, or a text, series or document classifier or regressor, a Translator or a Forecaster "
            "of `limelight.models`. "
            f"Received: {type(model).__name__}."
        )
    if tokens is not None:
        raise ValueError("`tokens` are for a Keras model: an estimator has its own. Leave them out.")
    X = model._check_inputs(X)
    X = X if indices is None else [X[index] for index in indices]
    is_classifier = hasattr(model, "classes_")
    is_text, max_words = not isinstance(inputs, SeriesInputs), None
    words: Any = inputs.tokens(X)
    if isinstance(inputs, DocumentInputs):
        sequences = [_number_sentences(document) for document in inputs.encode(X).documents]
        words = [[word for sentence in document for word in sentence] for document in inputs.tokens(X)]
        max_words = inputs.max_words
    else:
        sequences = [np.asarray(sequence) for sequence in inputs.encode(X).sequences]
    baseline = None if is_text else _training_mean(model.model_, sequences)
    unknown, special_ids = UNKNOWN, ()
    if isinstance(inputs, TextInputs) and isinstance(inputs.tokenizer, PretrainedTokenizer):
        unknown, special_ids = inputs.tokenizer.unknown or UNKNOWN, tuple(inputs.tokenizer.special_ids)
    if max_words is not None:
        replacement: Any = ReplaceWord()
        deletion = evaluate.Delete(np.array([UNKNOWN, 0]))
    elif is_text:
        replacement = evaluate.Replace(unknown, "replaced by the unknown token")
        deletion = evaluate.Delete(unknown)
    else:
        replacement = evaluate.Replace(baseline, "replaced by the training mean")
        deletion = evaluate.Delete(baseline)
    chosen = choose_perturbation(perturbation, replacement, deletion)
    return Subject(
        model.model_,
        sequences,
        KeepSpecial(chosen, special_ids) if special_ids else chosen,
        special_ids=special_ids,
        tokens=words,
        max_words=max_words,
        baseline=baseline,
        output="probabilities" if is_classifier else "values",
        explained="the predicted class" if is_classifier else "the predicted value",
        classes=[str(value) for value in model.classes_] if is_classifier else None,
        decode=(lambda outputs: outputs) if is_classifier else model.target_.decode,
        encode=model.target_.encode if is_classifier else lambda y: np.asarray(y, float),
        name=type(model).__name__,
    )


def check_fitted(model: Any) -> None:
    """Raise ValueError for an estimator that is not fitted."""
    if hasattr(model, "fit") and not hasattr(model, "inputs_"):
        raise ValueError(
            f"The estimator must be fitted. Received: {type(model).__name__}, which is not. Call `fit` first."
        )


def _subject_of_model(
    model: Any, X: Any, tokens: Any, perturbation: Any, output: str | None, indices: np.ndarray | None
) -> Subject:
    if len(getattr(model, "inputs", None) or [None]) != 1:
        raise ValueError(
            f"A Keras model must have one input, of ids or of steps. Received: {len(model.inputs)} inputs. Wrap it in a "
            "keras.Model of one input that makes the others."
        )
    sequences = [np.asarray(each) for each in X]
    sequences = sequences if indices is None else [sequences[index] for index in indices]
    shapes = {sequence.shape[1:] for sequence in sequences}
    if len(shapes) != 1 or (sequences[0].ndim == 1) != (sequences[0].dtype.kind in "iu") or sequences[0].ndim > 2:
        raise ValueError(
            "The examples of a Keras model must be integer ids (T,) or steps (T, C). "
            f"Received: shapes {sorted(sequence.shape for sequence in sequences)[:3]} of {sequences[0].dtype}."
        )
    shape = model.input_shape
    length = shape[1] if isinstance(shape, tuple) and len(shape) > 1 else None
    if sequences[0].ndim == 1:
        sequences = [_strip_padding(sequence) for sequence in sequences]
        baseline, replacement = None, None
    else:
        sequences = [sequence.astype(np.float32) for sequence in sequences]
        baseline = np.mean([sequence.mean(0) for sequence in sequences], axis=0).astype(np.float32)
        replacement = evaluate.Replace(baseline, "replaced by the mean of the examples")
    if tokens is not None:
        tokens = [list(each) for each in tokens]
        tokens = tokens if indices is None else [tokens[index] for index in indices]
        if [len(each) for each in tokens] != [len(sequence) for sequence in sequences]:
            raise ValueError("`tokens` must have one word for each id of each example, without padding.")
    deletion = evaluate.Delete(0 if baseline is None else baseline)
    if perturbation == "replace" and replacement is None:
        raise ValueError(
            'A Keras model of ids needs the id that takes the place of a removed token. Received: perturbation="replace". Pass '
            'limelight.evaluate.Replace(id, "replaced by the unknown token").'
        )
    chosen = choose_perturbation(perturbation, replacement or deletion, deletion)
    subject = Subject(model, sequences, chosen, tokens, baseline, length=length, name=model.name)
    subject.pads = length is not None or _ignores_padding(subject)
    # The kind of output is told from the outputs of the examples.
    subject.output = "values" if output is None else output
    subject.explained = "the output"
    outputs = subject.predict(sequences)
    if output is None and _are_probabilities(model, outputs):
        subject.output = "probabilities"
    if subject.output == "probabilities":
        subject.explained = "the predicted class"
        subject.memory.clear()
    _check_empty_input(subject)
    return subject


def _check_empty_input(subject: Subject) -> None:
    """Raise ValueError if the model has no finite output where no token is left, as a mean over no position has none."""
    sequence = subject.sequences[0]
    empty = subject.perturbation(sequence, np.zeros(len(sequence), bool))
    outputs = np.asarray(subject.predict([empty]), float)
    if not np.isfinite(outputs).all() and np.isfinite(subject.predict([sequence])).all():
        raise ValueError(
            "The model must have a finite output where all tokens are removed, as the tests do at their end. Received: "
            f"{outputs.ravel()[0]} for an input of {empty.ravel()[:3].tolist()}, which is probably a mean over no position. Pass "
            'perturbation=limelight.evaluate.Replace(id, "replaced by the unknown token"), or limelight.evaluate.Delete(id), '
            "with the id that remains where no other is left."
        )


def _ignores_padding(subject: Subject) -> bool:
    """Return True if zeros behind an example do not change the outputs of a model."""
    sequence = subject.sequences[0]
    outputs = [
        np.asarray(subject.model.predict_on_batch(subject.batch([sequence], length)))
        for length in (len(sequence), len(sequence) + 5)
    ]
    return outputs[0].shape == outputs[1].shape and bool(np.allclose(*outputs, rtol=1e-3, atol=1e-5))


def _are_probabilities(model: Any, outputs: np.ndarray) -> bool:
    """Return True if outputs are those of a softmax, or of a single sigmoid."""
    if outputs.min() < 0 or outputs.max() > 1:
        return False
    if outputs.shape[1] == 1:
        last = model.layers[-1]
        return getattr(last, "activation", None) is keras.activations.sigmoid
    return bool(np.abs(outputs.sum(1) - 1).max() < 1e-3)


def choose_perturbation(perturbation: Any, replacement: Any, deletion: Any, *, only_names: bool = False) -> Any:
    """Return the perturbation of an argument: "replace", which None means, "delete", or unless `only_names` the object itself."""
    if perturbation is None or perturbation == "replace":
        return replacement
    if perturbation == "delete":
        return deletion
    if only_names or not callable(perturbation) or not hasattr(perturbation, "name"):
        others = "" if only_names else ", or one of `limelight.evaluate`"
        raise ValueError(
            f'`perturbation` must be "replace" or "delete"{others}. Received: perturbation={perturbation!r}.'
        )
    return perturbation


def _number_sentences(document: Sequence[np.ndarray]) -> np.ndarray:
    """Return the ids of a document, each with the number of its sentence (T, 2)."""
    numbers = np.repeat(np.arange(len(document)), [len(sentence) for sentence in document])
    return np.stack([np.concatenate(document), numbers], axis=1).astype(np.int32)


def _strip_padding(ids: np.ndarray) -> np.ndarray:
    """Return ids without the zeros at their end; the first one stays."""
    real = np.flatnonzero(ids)
    return ids[: real[-1] + 1 if len(real) else 1].astype(np.int32)


def _training_mean(model: Any, sequences: list[np.ndarray]) -> np.ndarray:
    """Return the mean of the training, which the first layer of a model of series holds."""
    for layer in model.layers:
        if layer.name == "scaling":
            return np.asarray(keras.ops.convert_to_numpy(layer.moving_mean), np.float32)
    return np.mean([sequence.mean(0) for sequence in sequences], axis=0).astype(np.float32)
