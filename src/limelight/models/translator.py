"""The estimator of translations: texts in, texts out."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from limelight import inspection
from limelight._progress import Progress
from limelight.data import pad, padded_length
from limelight.data.batching import plan_batches
from limelight.evaluate.estimates import bootstrap, wilson
from limelight.maps import AttentionMaps
from limelight.models._estimator import Estimator
from limelight.models.inputs import as_texts
from limelight.models.objectives import Classification
from limelight.models.training import Trainer
from limelight.models.translation import END, START, BeamSearch, build_translator
from limelight.models.units import Units

_ROWS = 64
# Of log probabilities.
_POSSIBLE = -1e20


class TranslationPairs:
    """Pairs of a source and a target, as examples of a Keras model.

    Args:
        sources: Ids of the sources.
        targets: Ids of the targets, without start and end.
    """

    def __init__(self, sources: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> None:
        self.sources, self.targets = sources, targets
        # Both sides are padded to one length, so that few shapes are compiled.
        lengths = [max(len(source), len(target) + 1) for source, target in zip(sources, targets, strict=True)]
        self.lengths = np.array([padded_length(length) for length in lengths], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.sources)

    def batch(self, indices: np.ndarray, length: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Return the inputs of `build_translator`, the targets with their end (B, T), and weights, 0 at padding (B, T)."""
        source, _ = pad([self.sources[index] for index in indices], length)
        targets, mask = pad([np.append(self.targets[index], END) for index in indices], length)
        starts = np.full((len(indices), 1), START, np.int32)
        previous = np.where(mask, np.concatenate([starts, targets[:, :-1]], axis=1), 0)
        return {"source": source, "previous": previous}, targets, mask.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One translation.

    Args:
        text: The translation.
        score: Its rank among others of the same source: higher is better (see `BeamSearch`).
        log_probability: Logarithm of its probability.
        weights: Attention of each unit of the target, with the end, to each unit of the source (T, S); None without attention.
    """

    text: str
    score: float
    log_probability: float
    weights: np.ndarray | None


class Translator(Estimator):
    """Translate texts: from one language to another, from letters to phones, from commands to actions.

    Args:
        mechanism: The attention: "bahdanau", "luong", or None for the same model without, as in `build_translator`.
        units, embedding_dim, dropout: As in `build_translator`.
        source_unit, target_unit: "word" (separated by white space), "character", or "subword" (BPE).
        vocabulary: Largest number of units of each side.
        max_length: Number of units that are read of a source, and largest number that is written.
        beam: Number of beginnings that the search keeps.
        length_penalty, coverage_penalty: As in `BeamSearch`.
        validation, epochs, batch_size, learning_rate, training, random_state, verbose: As in `TextClassifier`.

    Attributes:
        model_: The Keras model, from the ids of source and previous units to probabilities.
        history_: Summary of the training; its accuracy is that of single units.

    Example:
        >>> import limelight as ll
        >>> model = ll.models.Translator(units=8, epochs=1, training={"epoch_steps": 1}, random_state=0, verbose=False)
        >>> pairs = {"jump": "JUMP", "jump twice": "JUMP JUMP"}
        >>> _ = model.fit(list(pairs), list(pairs.values()))
        >>> len(model.predict(["jump twice"]))
        1

    References:
        Bahdanau et al. 2015, arXiv:1409.0473; Luong et al. 2015, arXiv:1508.04025.
    """

    _inputs_class: Any = Units
    _target_class = Units
    inputs_: Units
    target_: Units

    def __init__(
        self,
        *,
        mechanism: str | None = "bahdanau",
        units: int = 128,
        embedding_dim: int = 64,
        dropout: float = 0.2,
        source_unit: str = "word",
        target_unit: str = "word",
        vocabulary: int = 10_000,
        max_length: int = 64,
        beam: int = 4,
        length_penalty: float = 0.6,
        coverage_penalty: float = 0.0,
        validation: float = 0.1,
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        training: dict[str, Any] | None = None,
        random_state: Any = None,
        verbose: bool = True,
    ) -> None:
        self.mechanism, self.units, self.embedding_dim, self.dropout = mechanism, units, embedding_dim, dropout
        self.source_unit, self.target_unit = source_unit, target_unit
        self.vocabulary, self.max_length = vocabulary, max_length
        self.beam, self.length_penalty, self.coverage_penalty = beam, length_penalty, coverage_penalty
        self.validation = validation
        self.epochs, self.batch_size, self.learning_rate, self.training = epochs, batch_size, learning_rate, training
        self.random_state, self.verbose = random_state, verbose

    def fit(self, X: Any, y: Any, *, validation_data: Any = None) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Train on texts and their translations.

        Args:
            X: Source texts, in any form that `TextClassifier` takes.
            y: For each source its translation, or a list of references, of which the first is trained on.
            validation_data: A pair of sources and translations for early stopping.

        Returns:
            The estimator.

        Raises:
            ValueError: The sources and translations differ in number.
            TrainingError: The loss is not finite.
        """
        sources, targets = as_texts(X), [references[0] for references in _as_references(y)]
        if len(sources) != len(targets):
            raise ValueError(
                f"`y` must hold one translation for each source. Received: {len(sources)} sources, {len(targets)} translations."
            )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        train, held_out = self._split(np.zeros(len(sources)), seed)
        if validation_data is not None:
            train, held_out = np.arange(len(sources)), None
        inputs = Units.fit(self.source_unit, [sources[index] for index in train], self.vocabulary)
        target = Units.fit(self.target_unit, [targets[index] for index in train], self.vocabulary)

        def encode(sources: Sequence[str], targets: Sequence[str]) -> TranslationPairs:
            return TranslationPairs(
                [inputs.encode(text)[: self.max_length] for text in sources],
                [_encode_target(target, text, self.max_length) for text in targets],
            )

        training = encode([sources[index] for index in train], [targets[index] for index in train])
        if validation_data is not None:
            given = [references[0] for references in _as_references(validation_data[1])]
            validation = encode(as_texts(validation_data[0]), given)
        elif held_out is None:
            validation = training
        else:
            validation = encode([sources[index] for index in held_out], [targets[index] for index in held_out])
        with Progress(quiet=not self.verbose) as bar:
            build = functools.partial(self._build, inputs, target)
            trainer = Trainer(build, training, validation, Classification(), self._training_config(), bar.step)
            bar.set_total(trainer.max_steps)
            bar.start_run(type(self).__name__, trainer.max_steps)
            history = trainer.fit(seed)
        return self.restore(inputs, target, trainer.export(), history)

    def restore(self, inputs: Any, target: Any, model: keras.Model, history: dict[str, Any]) -> Self:
        """Make this estimator a fitted one, from the parts of one."""
        self._searches: dict[Any, BeamSearch] = {}
        return super().restore(inputs, target, model, history)

    def __getstate__(self) -> dict[str, Any]:
        # Compiled programs cannot be pickled; they are made anew.
        return {**super().__getstate__(), "_searches": {}}

    def predict(self, X: Any) -> list[str]:
        """Return the best translation of each text."""
        return [hypotheses[0].text for hypotheses in self.predict_n_best(X, n=1)]

    def predict_n_best(self, X: Any, n: int | None = None) -> list[list[Hypothesis]]:
        """Return the `n` best translations of each text that the search found, best first; as many as `beam` when not given.

        Raises:
            ValueError: `n` is larger than `beam`.
        """
        check_is_fitted(self)
        n = self.beam if n is None else n
        if not 1 <= n <= self.beam:
            raise ValueError(f"`n` must be from 1 to `beam`. Received: n={n}, beam={self.beam}.")
        sources = [self.inputs_.encode(text)[: self.max_length] for text in as_texts(X)]
        lengths = np.array([padded_length(len(source)) for source in sources])
        rows = 1 << max(min(_ROWS, len(sources)) - 1, 0).bit_length()
        results: list[list[Hypothesis]] = [[] for _ in sources]
        for planned in plan_batches(lengths, rows):
            batch, _ = pad([sources[index] for index in planned.indices], planned.padded_length)
            # Each number of rows is compiled separately.
            batch = np.concatenate([batch, np.repeat(batch[:1], rows - len(batch), axis=0)])
            found = self._search().predict_on_batch(batch)
            for row, index in enumerate(planned.indices):
                each = {name: np.asarray(values)[row] for name, values in found.items()}
                # Fewer targets may exist than the beam is wide.
                ranks = [rank for rank in range(n) if rank == 0 or each["log_probabilities"][rank] > _POSSIBLE]
                results[index] = [self._to_hypothesis(each, rank, len(sources[index])) for rank in ranks]
        return results

    def attention(self, X: Any, y: Any = None) -> AttentionMaps:
        """Return the attention of each unit of a translation to the units of its source.

        Args:
            X: Source texts; they are one batch.
            y: Their translations; the best ones that the search finds when not given.

        Raises:
            ValueError: The model has no attention.
        """
        check_is_fitted(self)
        if self.mechanism is None:
            raise ValueError(
                "The model must have attention. Received: mechanism=None. Set mechanism='bahdanau' and fit again."
            )
        sources = as_texts(X)
        targets = self.predict(sources) if y is None else [references[0] for references in _as_references(y)]
        pairs = TranslationPairs(
            [self.inputs_.encode(text)[: self.max_length] for text in sources],
            [_encode_target(self.target_, text, self.max_length) for text in targets],
        )
        batch, _, _ = pairs.batch(np.arange(len(pairs)), int(pairs.lengths.max()))
        (attention_map,) = inspection.capture(self.model_, batch).values()
        keys = tuple(self.inputs_.split(text)[: self.max_length] or [""] for text in sources)
        queries = tuple([*self.target_.split(text)[: self.max_length - 1], "</s>"] for text in targets)
        return AttentionMaps([dataclasses.replace(attention_map, tokens=keys, query_tokens=queries)])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of translations that equal a reference."""
        return float(np.average(self._compare(X, y)[0], weights=sample_weight))

    def evaluate(self, X: Any, y: Any) -> dict[str, Any]:
        """Return `exact_match`, the share of translations that equal a reference, and `error_rate`, with 95 % intervals.

        The error rate is the number of units that must be inserted, deleted or replaced, over the number of units of the
        reference; with several references, the one with the lowest rate counts.
        """
        matches, errors, lengths = self._compare(X, y)
        rate = bootstrap(lambda weights: {"error_rate": weights @ errors / (weights @ lengths)}, len(errors))
        return {"exact_match": wilson(int(matches.sum()), len(matches)), **rate}

    def _compare(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return for each source whether its translation is right, its errors, and the length of the nearest reference."""
        matches, errors, lengths = [], [], []
        for text, references in zip(self.predict(X), _as_references(y), strict=True):
            units = self.target_.split(text)
            options = []
            for reference in references:
                expected = self.target_.split(reference)
                options.append((edit_distance(units, expected) / max(len(expected), 1), expected))
            _, nearest = min(options, key=lambda option: option[0])
            matches.append(any(units == self.target_.split(reference) for reference in references))
            errors.append(edit_distance(units, nearest))
            lengths.append(max(len(nearest), 1))
        return np.array(matches), np.array(errors, float), np.array(lengths, float)

    def _build(self, inputs: Units, target: Units) -> keras.Model:
        return build_translator(
            inputs.size,
            target.size,
            attention=self.mechanism,
            units=self.units,
            embedding_dim=self.embedding_dim,
            dropout=self.dropout,
        )

    def _search(self) -> BeamSearch:
        """Return the search with the current parameters; it is compiled once."""
        params: dict[str, Any] = {
            "beam": self.beam,
            "max_length": self.max_length,
            "length_penalty": self.length_penalty,
            "coverage_penalty": self.coverage_penalty,
        }
        key = tuple(params.values())
        if key not in self._searches:
            self._searches = {key: BeamSearch(self.model_, **params)}
        return self._searches[key]

    def _to_hypothesis(self, found: dict[str, np.ndarray], rank: int, source_length: int) -> Hypothesis:
        ids = found["ids"][rank]
        count = int((ids != 0).sum())
        weights = found["weights"][rank, :count, :source_length] if self.mechanism is not None else None
        score, log_probability = float(found["scores"][rank]), float(found["log_probabilities"][rank])
        return Hypothesis(self.target_.decode(ids), score, log_probability, weights)


def _encode_target(units: Units, text: str, max_length: int) -> np.ndarray:
    """Return the ids of a target, which may be empty, without its end."""
    ids = units.encode(text) if units.split(text) else np.zeros(0, np.int32)
    return ids[: max_length - 1]


def edit_distance(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return the least number of insertions, deletions and replacements that turn one sequence into the other.

    Example:
        >>> edit_distance("kitten", "sitting")
        3
    """
    row = list(range(len(second) + 1))
    for index, element in enumerate(first, start=1):
        diagonal, row[0] = row[0], index
        for column, other in enumerate(second, start=1):
            diagonal, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, diagonal + (element != other)),
            )
    return row[-1]


def _as_references(y: Any) -> list[list[str]]:
    """Return a list of references for each target, which is a string or a list of strings."""
    if y is None or isinstance(y, str):
        raise TypeError("`y` must hold a translation for each source. Received: one string or None. Put it in a list.")
    values = y.tolist() if hasattr(y, "tolist") else list(y)
    references = [list(value) if isinstance(value, list | tuple) else [value] for value in values]
    for row, each in enumerate(references):
        if not each or not all(isinstance(text, str) for text in each):
            raise TypeError(
                f"Every translation must be a string, or a list of strings. Received: {values[row]!r} at position {row}."
            )
    return references
