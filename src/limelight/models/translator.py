"""The estimator of translations: texts in, texts out."""

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from limelight import evaluate, inspection
from limelight._progress import Progress
from limelight.data import pad, padded_length
from limelight.data.batching import plan_batches
from limelight.evaluate.translations import sentence_statistics
from limelight.exceptions import AttentionError
from limelight.maps import AttentionMaps
from limelight.models._estimator import Estimator
from limelight.models.decoding import BeamSearch, Sampling
from limelight.models.inputs import as_texts, warn_of_cut
from limelight.models.objectives import Classification
from limelight.models.translation import ATTENTIONS, END, START, build_transformer_translator, build_translator
from limelight.models.units import Units, compose

_ROWS = 64
_MAX_WEIGHTS = 2**24
# Of log probabilities.
_POSSIBLE = -1e20


class TranslationPairs:
    """Pairs of a source and a target, as examples of a Keras model.

    Args:
        sources: Ids of the sources.
        targets: Ids of the targets, without start and end.
        ended: For each target False if it was cut, so that its end is unknown; all have an end when not given.
    """

    def __init__(
        self, sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], ended: Sequence[bool] | None = None
    ) -> None:
        ends = [np.full(int(is_ended), END, np.int32) for is_ended in ended or [True] * len(targets)]
        self.sources = sources
        self.targets = [np.concatenate([target, end]) for target, end in zip(targets, ends, strict=True)]
        # Both sides are padded to one length, so that few shapes are compiled.
        lengths = [max(len(source), len(target)) for source, target in zip(sources, self.targets, strict=True)]
        self.lengths = np.array([padded_length(length) for length in lengths], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.sources)

    def batch(self, indices: np.ndarray, length: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Return the inputs of `build_translator`, the targets with their end (B, T), and weights, 0 at padding (B, T)."""
        source, _ = pad([self.sources[index] for index in indices], length)
        targets, mask = pad([self.targets[index] for index in indices], length)
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
        is_complete: False if `max_length` was reached before an end.
    """

    text: str
    score: float
    log_probability: float
    weights: np.ndarray | None
    is_complete: bool = True


class Translator(Estimator):
    """Translate texts: from one language to another, from letters to phones, from commands to actions.

    Args:
        mechanism: "bahdanau", "luong" or "coverage" for a recurrent model with this attention, None for the same model without,
            as in `build_translator`; or "transformer" for the model of `build_transformer_translator`.
        units, embedding_dim, dropout, coverage_loss: As in `build_translator`.
        num_layers, num_heads: Of the Transformer, as in `build_transformer_translator`.
        source_unit, target_unit: "word" (separated by white space), "character", or "subword" (BPE).
        vocabulary: Largest number of units of each side.
        max_length: Number of units that are read of a source, and largest number that is written.
        beam: Number of beginnings that the search keeps.
        length_penalty, coverage_penalty: As in `BeamSearch`.
        scheduled_sampling: Share of the previous units that are the model's own predictions at the end of the training, in
            [0, 1]; it rises from 0. The predictions of all steps are made at once, from the true previous units.
        validation, epochs, batch_size, learning_rate, training, random_state: As in `TextClassifier`.
        verbose: Show a progress bar on a terminal, of the training and of decoding.

    Attributes:
        model_: The Keras model, from the ids of source and previous units to probabilities.
        history_: Summary of the training; its accuracy is that of single units. `cut_sources` and `cut_targets` count the texts
            longer than `max_length`. Of a target that is cut, no end is trained.

    Example:
        >>> import limelight as ll
        >>> model = ll.models.Translator(units=8, epochs=1, training={"epoch_steps": 1}, random_state=0, verbose=False)
        >>> pairs = {"jump": "JUMP", "jump twice": "JUMP JUMP"}
        >>> _ = model.fit(list(pairs), list(pairs.values()))
        >>> len(model.predict(["jump twice"]))
        1

    References:
        Bahdanau et al. 2015, arXiv:1409.0473; Luong et al. 2015, arXiv:1508.04025; Vaswani et al. 2017, arXiv:1706.03762; Bengio
        et al. 2015, arXiv:1506.03099 (scheduled sampling); Duckworth et al. 2019, arXiv:1906.04331 (of all steps at once).
    """

    _inputs_class: Any = Units
    _target_class = Units
    _objective = Classification()
    inputs_: Units
    target_: Units

    def __init__(
        self,
        *,
        mechanism: str | None = "bahdanau",
        units: int = 128,
        embedding_dim: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.2,
        source_unit: str = "word",
        target_unit: str = "word",
        vocabulary: int = 10_000,
        max_length: int = 64,
        beam: int = 4,
        length_penalty: float = 0.6,
        coverage_penalty: float = 0.0,
        coverage_loss: float = 0.0,
        scheduled_sampling: float = 0.0,
        validation: float = 0.1,
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        training: dict[str, Any] | None = None,
        random_state: Any = None,
        verbose: bool = True,
    ) -> None:
        self.mechanism, self.units, self.embedding_dim, self.dropout = mechanism, units, embedding_dim, dropout
        self.num_layers, self.num_heads = num_layers, num_heads
        self.source_unit, self.target_unit = source_unit, target_unit
        self.vocabulary, self.max_length = vocabulary, max_length
        self.beam, self.length_penalty, self.coverage_penalty = beam, length_penalty, coverage_penalty
        self.coverage_loss, self.scheduled_sampling = coverage_loss, scheduled_sampling
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
        if not 0 <= self.scheduled_sampling <= 1:
            raise ValueError(
                f"`scheduled_sampling` must be in [0, 1]. Received: scheduled_sampling={self.scheduled_sampling!r}."
            )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        train, held_out = self._split(np.zeros(len(sources)), seed)
        if validation_data is not None:
            train, held_out = np.arange(len(sources)), None
        inputs = Units.fit(self.source_unit, [sources[index] for index in train], self.vocabulary)
        target = Units.fit(self.target_unit, [targets[index] for index in train], self.vocabulary)
        encoded = self._encode(inputs, target, sources, targets)
        training = _take(encoded, train)
        if validation_data is not None:
            first = [references[0] for references in _as_references(validation_data[1])]
            validation = TranslationPairs(*self._encode(inputs, target, as_texts(validation_data[0]), first))
        else:
            validation = training if held_out is None else _take(encoded, held_out)
        cut = self._count_cut(inputs, target, sources, targets)
        change_inputs = (
            functools.partial(_feed_predictions, self.scheduled_sampling) if self.scheduled_sampling else None
        )
        build = functools.partial(self._build, inputs, target)
        model, history = self._train(build, training, validation, seed, change_inputs)
        return self.restore(inputs, target, model, {**history, **cut})

    def restore(self, inputs: Any, target: Any, model: keras.Model, history: dict[str, Any]) -> Self:
        """Make this estimator a fitted one, from the parts of one."""
        self._decodings: dict[type, tuple[dict[str, Any], Any]] = {}
        return super().restore(inputs, target, model, history)

    def __getstate__(self) -> dict[str, Any]:
        # Compiled programs cannot be pickled; they are made anew.
        return {**super().__getstate__(), "_decodings": {}}

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
        sources = self._encode_sources(as_texts(X), warn=True)
        results = []
        for source, decoded in zip(sources, self._search(sources), strict=True):
            # Fewer targets may exist than the beam is wide.
            ranks = [rank for rank in range(n) if rank == 0 or decoded["log_probabilities"][rank] > _POSSIBLE]
            results.append([self._to_hypothesis(decoded, rank, len(source)) for rank in ranks])
        return results

    def sample(
        self,
        X: Any,
        n: int = 1,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> list[list[Hypothesis]]:
        """Draw `n` translations of each text at random, in the order of drawing.

        Args:
            X: Source texts.
            n: Number of translations of each.
            temperature, top_k, top_p: As in `Sampling`.
            seed: The same seed draws the same translations; others each time when not given.

        Raises:
            ValueError: An argument is outside its range.
        """
        check_is_fitted(self)
        sources = self._encode_sources(as_texts(X), warn=True)
        seeds = np.random.default_rng(seed).integers(-(2**31), 2**31, size=len(sources), dtype=np.int32)
        settings = {"samples": n, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        decoding = self._get_decoding(Sampling, {**settings, "max_length": self.max_length})
        samples = self._decode(decoding, sources, seeds)
        return [
            [self._to_hypothesis(decoded, number, len(source)) for number in range(n)]
            for source, decoded in zip(sources, samples, strict=True)
        ]

    def attention(self, X: Any, y: Any = None) -> AttentionMaps:
        """Return the attention of each unit of a translation to the units of its source, of a Transformer in each layer and head.

        Args:
            X: Source texts; they are one batch.
            y: Their translations; the best ones that the search finds when not given.

        Raises:
            AttentionError: The model has no attention.
        """
        check_is_fitted(self)
        if self.mechanism is None:
            raise AttentionError(
                "The model must have attention. Received: mechanism=None. Set mechanism='bahdanau' and fit again."
            )
        texts = as_texts(X)
        sources = self._encode_sources(texts, warn=True)
        if y is None:
            best = [decoded["ids"][0] for decoded in self._search(sources)]
            targets, ended = [ids[ids > END] for ids in best], [bool((ids == END).any()) for ids in best]
            pieces = [self.target_.pieces_of(ids) for ids in targets]
        else:
            translations = [references[0] for references in _as_references(y)]
            if len(translations) != len(texts):
                raise ValueError(
                    f"`y` must hold one translation for each source. Received: {len(texts)} sources, {len(translations)} "
                    "translations."
                )
            _, targets, ended = self._encode(self.inputs_, self.target_, texts, translations)
            pieces = [self.target_.split(text)[: self.max_length] for text in translations]
        pairs = TranslationPairs(sources, targets, ended)
        batch, _, _ = pairs.batch(np.arange(len(pairs)), int(pairs.lengths.max()))
        keys = tuple(self.inputs_.split(text)[: self.max_length] or [""] for text in texts)
        queries = tuple([*row, "</s>"] if is_ended else row for row, is_ended in zip(pieces, ended, strict=True))
        return AttentionMaps(
            [
                dataclasses.replace(attention_map, tokens=keys, query_tokens=queries)
                for attention_map in inspection.capture(self.model_, batch).values()
                if self.mechanism != "transformer" or attention_map.path.startswith("cross_attention")
            ]
        )

    def count_cut(self, X: Any) -> int:
        """Count the texts of which the model does not read the end, because they have more than `max_length` units."""
        check_is_fitted(self)
        return sum(len(self.inputs_.split(text)) > self.max_length for text in as_texts(X))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of translations that equal a reference, but for white space."""
        matches = sentence_statistics("exact_match", _as_references(y), self.predict(X))
        return float(np.average(matches[:, 0], weights=sample_weight))

    def evaluate(self, X: Any, y: Any) -> evaluate.TranslationResult:
        """Return exact match, error rate, BLEU and chrF, each with its interval (`limelight.evaluate.translation`).

        Args:
            X: Source texts.
            y: For each its translation, or a list of references.
        """
        unit = "character" if self.target_unit == "character" else "word"
        return evaluate.translation(_as_references(y), self.predict(X), unit=unit)

    def _build(self, inputs: Units, target: Units) -> keras.Model:
        common: dict[str, Any] = {
            "units": self.units,
            "embedding_dim": self.embedding_dim,
            "dropout": self.dropout,
            "coverage_loss": self.coverage_loss,
        }
        if self.mechanism == "transformer":
            heads = {"num_layers": self.num_layers, "num_heads": self.num_heads}
            return build_transformer_translator(inputs.size, target.size, **heads, **common)
        if self.mechanism not in ATTENTIONS:
            raise ValueError(
                '`mechanism` must be "bahdanau", "luong", "coverage", "transformer" or None. Received: '
                f"mechanism={self.mechanism!r}."
            )
        return build_translator(inputs.size, target.size, attention=self.mechanism, **common)

    @property
    def _input_limit(self) -> str:
        """Return how much is read of a text, such as "512 units"."""
        return f"{self.max_length} units"

    def _encode_sources(self, texts: Sequence[str], warn: bool = False) -> list[np.ndarray]:
        """Return the ids of sources, cut to `max_length`; warn of those that are longer on request."""
        encoded = [self.inputs_.encode(text) for text in texts]
        if warn:
            cut = sum(len(ids) > self.max_length for ids in encoded)
            warn_of_cut(self._input_limit, cut, len(texts), stacklevel=3)
        return [ids[: self.max_length] for ids in encoded]

    def _encode(
        self, inputs: Units, target: Units, sources: Sequence[str], targets: Sequence[str]
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[bool]]:
        """Return the ids of sources and targets, cut to `max_length`, and for each target whether its end is left."""
        ids = [_encode_target(target, text) for text in targets]
        return (
            [inputs.encode(text)[: self.max_length] for text in sources],
            [each[: self.max_length] for each in ids],
            # The end is one of the `max_length` units that a search writes.
            [len(each) < self.max_length for each in ids],
        )

    def _count_cut(
        self, inputs: Units, target: Units, sources: Sequence[str], targets: Sequence[str]
    ) -> dict[str, int]:
        """Count the texts that are too long, and warn of them."""
        counts = {
            "cut_sources": sum(len(inputs.split(text)) > self.max_length for text in sources),
            "cut_targets": sum(len(target.split(text)) >= self.max_length for text in targets),
        }
        if any(counts.values()):
            warnings.warn(
                f"Texts must have at most {self.max_length} units, a target with its end, to be read whole. Received: "
                f"{counts['cut_sources']:,} longer sources and {counts['cut_targets']:,} longer targets of {len(sources):,}. "
                "They are cut, and the end of a cut target is not trained. Set max_length higher.",
                stacklevel=3,
            )
        return counts

    def _get_decoding(self, kind: type, settings: dict[str, Any]) -> Any:
        """Return a decoding with these settings; it is compiled once."""
        stored = self._decodings.get(kind)
        if stored is None or stored[0] != settings:
            stored = self._decodings[kind] = (settings, kind(self.model_, **settings))
        return stored[1]

    def _search(self, sources: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Return what the search with the current parameters finds for each source."""
        names = ("beam", "max_length", "length_penalty", "coverage_penalty")
        search = self._get_decoding(BeamSearch, {name: getattr(self, name) for name in names})
        return self._decode(search, sources)

    def _decode(
        self, decoding: Any, sources: Sequence[np.ndarray], seeds: np.ndarray | None = None
    ) -> list[dict[str, np.ndarray]]:
        """Return what a decoding returns for each source."""
        lengths = np.array([padded_length(len(source)) for source in sources])
        # The weights of all steps are stored until the end.
        largest = max(_MAX_WEIGHTS // (decoding.count * self.max_length * int(lengths.max())), 1)
        rows = min(1 << max(min(_ROWS, len(sources)) - 1, 0).bit_length(), 1 << (largest.bit_length() - 1))
        results: list[Any] = [None] * len(sources)
        batches = plan_batches(lengths, rows)
        with Progress(quiet=not self.verbose) as bar:
            bar.set_total(len(batches))
            bar.start_run("decoding", len(batches))
            for planned in batches:
                # Each number of rows is compiled separately.
                indices = np.resize(planned.indices, rows)
                batch, _ = pad([sources[index] for index in indices], planned.padded_length)
                decoded = decoding.predict_on_batch(
                    batch if seeds is None else {"source": batch, "seeds": seeds[indices]}
                )
                for row, index in enumerate(planned.indices):
                    results[index] = {name: np.asarray(values)[row] for name, values in decoded.items()}
                bar.step()
        return results

    def _to_hypothesis(self, decoded: dict[str, np.ndarray], rank: int, source_length: int) -> Hypothesis:
        ids = decoded["ids"][rank]
        count = int((ids != 0).sum())
        weights = decoded["weights"][rank, :count, :source_length] if self.mechanism is not None else None
        score, log_probability = float(decoded["scores"][rank]), float(decoded["log_probabilities"][rank])
        return Hypothesis(self.target_.decode(ids), score, log_probability, weights, bool((ids == END).any()))


def _take(encoded: tuple[list[np.ndarray], list[np.ndarray], list[bool]], indices: np.ndarray) -> TranslationPairs:
    return TranslationPairs(*([part[index] for index in indices] for part in encoded))


def _feed_predictions(
    rate: float, model: keras.Model, inputs: dict[str, np.ndarray], random: np.random.Generator, share: float
) -> dict[str, np.ndarray]:
    """Return the inputs with a share of `rate * share` of the previous units replaced by the model's predictions of them."""
    previous = inputs["previous"]
    is_replaced = (random.random(previous.shape) < rate * share) & (previous != 0)
    is_replaced[:, 0] = False  # the start
    if not is_replaced.any():
        return inputs
    # As in a search, the end or a unit is predicted: padding would be masked.
    predicted = (np.asarray(model.predict_on_batch(inputs))[..., END:].argmax(-1) + END).astype(previous.dtype)
    shifted = np.concatenate([previous[:, :1], predicted[:, :-1]], axis=1)
    return {**inputs, "previous": np.where(is_replaced, shifted, previous)}


def _encode_target(units: Units, text: str) -> np.ndarray:
    """Return the ids of a target, which may be empty, without its end."""
    return units.encode(text) if units.split(text) else np.zeros(0, np.int32)


def _as_references(y: Any) -> list[list[str]]:
    """Return a list of references in Unicode NFC for each target, which is a string or a list of strings."""
    if y is None or isinstance(y, str):
        raise TypeError("`y` must hold a translation for each source. Received: one string or None. Put it in a list.")
    if hasattr(y, "columns"):
        if len(y.columns) != 1:
            raise ValueError(
                f"`y` must be one column of translations. Received: a data frame of {len(y.columns)} columns. Choose one."
            )
        y = y[y.columns[0]]
    values = y.to_list() if hasattr(y, "to_list") else y.tolist() if hasattr(y, "tolist") else list(y)
    values = [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
    references = [list(value) if isinstance(value, list | tuple) else [value] for value in values]
    for row, each in enumerate(references):
        if not each or not all(isinstance(text, str) for text in each):
            raise TypeError(
                f"Every translation must be a string, or a list of strings. Received: {values[row]!r} at position {row}."
            )
    return [[compose(text) for text in each] for each in references]
