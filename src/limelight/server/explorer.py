"""Run a model on an input that someone types, and keep the attention of the last runs."""

import collections
import dataclasses
import functools
import math
import secrets
import threading
from collections.abc import Mapping
from glob import escape as glob_escape
from typing import Any, NamedTuple, cast

import keras
import numpy as np

from limelight.engine import backend
from limelight.exceptions import AttentionError, DataError
from limelight.inspection import AttentionExtractor
from limelight.inspection._observed_attention import to_numpy
from limelight.inspection.overrides import OverriddenModel
from limelight.maps import AttentionMap, AttentionMaps
from limelight.maps.sources import StatisticsSource, WeightSource
from limelight.models import Translator
from limelight.models.examples import Sequences
from limelight.server.errors import InputError, quote, to_line
from limelight.server.tiles import TILE_SIZE, TileCache

# Weights that are shown with each run, without asking for tiles.
_MAX_SHOWN_WEIGHTS = 1 << 16
# Weights of all attention that are held while some is changed: 512 MiB.
_MAX_CHANGED_WEIGHTS = 1 << 27


@dataclasses.dataclass(frozen=True)
class Changes:
    """Changes to the attention of a model.

    Args:
        silenced: Pairs of the key of a map and the number of a head, whose output becomes zero.
        forbidden: Positions of tokens that nothing may attend to; the other weights are divided by their sum.
    """

    silenced: tuple[tuple[str, int], ...] = ()
    forbidden: tuple[int, ...] = ()

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Changes":
        """Read the changes of a request.

        Raises:
            InputError: They are not lists of what they must be.
        """
        silenced, forbidden = document.get("silenced", []), document.get("forbidden", [])
        if not isinstance(silenced, list) or not all(map(_is_head, silenced)):
            raise InputError(
                "`silenced` must be a list of pairs of the key of a map and the number of a head, such as "
                f'[["attention", 0]]. Received: {quote(silenced)}.'
            )
        if not isinstance(forbidden, list) or not all(map(_is_index, forbidden)):
            raise InputError(
                f"`forbidden` must be a list of positions of words, counted from 0, such as [2]. Received: {quote(forbidden)}."
            )
        return cls(tuple((key, head) for key, head in silenced), tuple(forbidden))

    def __bool__(self) -> bool:
        return bool(self.silenced or self.forbidden)


class Run(NamedTuple):
    """One run of the model.

    Attributes:
        number: An unguessable name, for later requests of tiles.
        prediction: The prediction, ready for JSON.
        maps: The attention.
        is_cut: True if the text is longer than the model reads.
    """

    number: str
    prediction: dict[str, Any]
    maps: AttentionMaps
    is_cut: bool = False

    def describe(self) -> dict[str, Any]:
        """Return the run ready for JSON: the prediction, the tokens, and the weights of maps that are small."""
        maps = [_describe_map(each) for each in self.maps.values()]
        return {"run": self.number, **self.prediction, "cut": self.is_cut, "maps": maps}


class Explorer:
    """A fitted estimator of texts, and the attention of its last runs.

    Args:
        estimator: An estimator of `limelight.models` that reads texts.
        max_characters: The longest text.
        max_bytes: Memory of the runs that are kept; the oldest go first, the last one always stays. The tiles may take half as
            much besides.

    Raises:
        ValueError: The estimator reads no texts.
    """

    def __init__(self, estimator: Any, *, max_characters: int = 1_000_000, max_bytes: int = 1 << 29) -> None:
        if hasattr(estimator, "n_channels_in_") or hasattr(estimator, "horizon"):
            raise ValueError(
                f"The model must read texts. Received: {type(estimator).__name__}. `limelight show` draws series and arrays."
            )
        self.estimator = estimator
        self.max_characters, self.max_bytes = max_characters, max_bytes
        self._runs: collections.OrderedDict[str, Run] = collections.OrderedDict()
        self._lock = threading.Lock()
        self.tiles = TileCache(max_bytes // 2)
        self._extractor, self._changed_model = AttentionExtractor(estimator.model_), ChangedModel(estimator.model_)

    def describe(self) -> dict[str, Any]:
        """Return the kind of the model, its classes and the largest input."""
        classes = getattr(self.estimator, "classes_", None)
        return {
            "estimator": type(self.estimator).__name__,
            "classes": None if classes is None else [str(name) for name in classes],
            "max_characters": self.max_characters,
            "tile_size": TILE_SIZE,
        }

    def run(self, text: str, changes: Changes | None = None) -> Run:
        """Predict for one text, and keep its attention.

        Raises:
            InputError: The text is empty, too long, or has a changed head or token that does not exist; or the model has no
                attention.
        """
        if not text.strip():
            raise InputError("The text must not be empty. Type some words.")
        if len(text) > self.max_characters:
            raise InputError(f"The text must have at most {self.max_characters:,} characters. Received: {len(text):,}.")
        # Lone surrogates cannot be encoded by tokenizers.
        text = text.encode("utf-8", "replace").decode("utf-8")
        try:
            prediction, maps, batch = self._predict(text)
        except (DataError, AttentionError) as error:
            raise InputError(to_line(error)) from error
        if not maps:
            name = type(self.estimator).__name__
            raise InputError(
                f"The model must have attention. Received: a {name} in which none was seen. Serve another model."
            )
        if changes:
            prediction, maps = run_with_changes(self.estimator, self._changed_model, batch, maps, changes)
        run = Run(secrets.token_urlsafe(9), prediction, maps, bool(self.estimator.count_cut([text])))
        with self._lock:
            self._runs[run.number] = run
            sizes = {number: sum(each.nbytes for each in kept.maps.values()) for number, kept in self._runs.items()}
            while sum(sizes.values()) > self.max_bytes and len(sizes) > 1:
                oldest, _ = self._runs.popitem(last=False)
                del sizes[oldest]
                self.tiles.discard(oldest)
        return run

    def _predict(self, text: str) -> tuple[dict[str, Any], AttentionMaps, Any]:
        """Return the prediction and the attention for one text, and the batch of the model; None if there is no single one."""
        estimator = self.estimator
        if isinstance(estimator, Translator):
            return predict(estimator, text), estimator.attention([text]), None
        examples = estimator.inputs_.encode([text])
        length = int(examples.lengths.max())
        batch, _, _ = examples.batch(np.arange(1), length)
        if not isinstance(examples, Sequences):
            return predict(estimator, text), estimator.attention([text]), batch
        # One compiled run of one row gives both.
        outputs, maps = self._extractor.predict_on_batch(batch)
        maps = maps.with_tokens(estimator.inputs_.tokens([text]), length)
        return _describe_outputs(estimator, np.asarray(outputs)), maps, batch

    def get(self, number: str) -> Run:
        """Return a run that is still kept.

        Raises:
            KeyError: It is not.
        """
        with self._lock:
            return self._runs[number]


def predict(estimator: Any, text: str) -> dict[str, Any]:
    """Return the prediction for one text, ready for JSON: probabilities by class, or a number or text."""
    if hasattr(estimator, "predict_proba"):
        return _describe_probabilities(estimator, estimator.predict_proba([text]))
    value = estimator.predict([text])[0]
    return {"prediction": value if isinstance(value, str) else np.asarray(value).tolist()}


def run_with_changes(
    estimator: Any, model: "ChangedModel", batch: Any, maps: AttentionMaps, changes: Changes
) -> tuple[dict[str, Any], AttentionMaps]:
    """Return the prediction and the attention of an estimator whose attention is changed.

    Raises:
        InputError: A head or token does not exist, the text is too long, or the estimator decodes step by step.
    """
    if batch is None:
        raise InputError(
            f"Attention to be changed must run once for a text. Received: a {type(estimator).__name__}, whose attention runs "
            "once for each word that it writes. Leave `silenced` and `forbidden` out."
        )
    if sum(math.prod(each.shape) for each in maps.values()) > _MAX_CHANGED_WEIGHTS:
        raise InputError(
            f"A text whose attention is changed must have at most {_MAX_CHANGED_WEIGHTS:,} weights, which are held at once. "
            f"Received: {sum(math.prod(each.shape) for each in maps.values()):,}. Send a shorter text."
        )
    _check_changes(changes, maps)
    try:
        outputs, used = model.run(batch, {key: _make_factors(each, changes) for key, each in maps.items()})
    except AttentionError as error:
        # Attention in a loop, or a softmax whose product with the values was not seen.
        raise InputError(
            f"The attention of this {type(estimator).__name__} cannot be changed: {to_line(error)}"
        ) from error
    prediction = _describe_outputs(estimator, keras.ops.convert_to_numpy(outputs))
    changed = AttentionMaps(
        dataclasses.replace(each, source=WeightSource(used[key].astype(np.float32).reshape(each.shape)))
        if key in used
        else each
        for key, each in maps.items()
    )
    return prediction, changed


def _check_changes(changes: Changes, maps: AttentionMaps) -> None:
    """Raise InputError for a head or a token that does not exist."""
    num_tokens = max((sum(map(len, each.tokens)) for each in maps.values() if each.tokens), default=0)
    beyond = [position for position in changes.forbidden if position >= num_tokens]
    if beyond and not num_tokens:
        raise InputError(
            f"The attention of this model has no words to forbid. Received: {beyond[0]}. Leave `forbidden` out."
        )
    if beyond:
        raise InputError(
            f"`forbidden` must hold positions below {num_tokens}, the number of words. Received: {quote(beyond[0])}. Count "
            "from 0."
        )
    for key, head in changes.silenced:
        if key not in maps:
            raise InputError(
                f"`silenced` must name a map of {', '.join(maps)}. Received: {quote(key)}. Choose one of these."
            )
        if head >= maps[key].num_heads:
            raise InputError(
                f"`silenced` must name heads below {maps[key].num_heads}, the number of heads of {key!r}. Received: "
                f"{quote(head)}. Count from 0."
            )


class ChangedModel:
    """A model whose attention weights are multiplied by factors. It is compiled once for each length, not for each change.

    All attention has factors, which are 1 where nothing changes: which layers are changed would be part of what is compiled.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._overridden: OverriddenModel | None = None
        self._compiled = backend.active().compile(self._run_stateless, jit=bool(getattr(model, "jit_compile", True)))

    def run(self, batch: Any, factors: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[Any, dict[str, np.ndarray]]:
        """Return the outputs for a batch, and the weights (B, N, T, S) that they come from by key.

        Args:
            batch: The inputs.
            factors: By key, those of the keys (B, 1, 1, S), after which each row has the sum that it had, and those of the heads
                (N, 1, 1).

        Raises:
            AttentionError: Attention whose weights are to be changed cannot be.
        """
        if self._overridden is None:
            # The attention is found once; a shorter or longer text has the same.
            self._overridden = OverriddenModel(self.model, batch)
        missing = [key for key, each in factors.items() if key not in self._overridden.keys and not _are_ones(each)]
        if missing:
            raise AttentionError(
                f"it must be of {', '.join(self._overridden.keys)}. Received: {missing[0]}. Change the others alone."
            )
        factors = {key: each for key, each in factors.items() if key in self._overridden.keys}
        active = backend.active()
        values = [variable.value for variable in active.state_variables(self.model)]
        with active.no_gradient():
            (outputs, used), _ = self._compiled(values, (batch, factors))
        return outputs, {key: to_numpy(weights) for key, weights in used.items()}

    def _run_stateless(self, values: Any, data: Any) -> Any:
        variables = backend.active().state_variables(self.model)
        return backend.run_stateless(self._run, variables, values, *data)

    def _run(self, batch: Any, factors: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        overridden = cast("OverriddenModel", self._overridden)
        functions = {glob_escape(key): functools.partial(_multiply, *each) for key, each in factors.items()}
        outputs, used = overridden.run(batch, overridden.match(functions))
        return outputs, {key: attention.weights for key, attention in used.items()}


def _multiply(keys: Any, heads: Any, weights: Any, permitted: Any) -> Any:
    keys, heads = keras.ops.cast(keys, weights.dtype), keras.ops.cast(heads, weights.dtype)
    # A layer may have the sentences of a document in its batch.
    keys = keras.ops.reshape(keys, (*tuple(keras.ops.shape(weights))[:-3], *tuple(keras.ops.shape(keys))[1:]))
    kept = weights * keys
    total, rest = (keras.ops.sum(each, axis=-1, keepdims=True) for each in (weights, kept))
    return kept * (total / keras.ops.where(rest > 0, rest, keras.ops.ones_like(rest))) * heads


def _are_ones(factors: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(bool((each == 1).all()) for each in factors)


def _make_factors(attention_map: AttentionMap, changes: Changes) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors of the keys and heads of one attention."""
    *lead, heads, _, columns = attention_map.shape
    tokens = attention_map.tokens
    of_keys = np.ones((math.prod(lead), 1, 1, columns), np.float32)
    of_heads = np.ones((heads, 1, 1), np.float32)
    if tokens is not None:
        # The positions count the words of a document through all of its sentences.
        places = [(index, position) for index, part in enumerate(tokens) for position in range(len(part))]
        for index, position in (places[each] for each in changes.forbidden if each < len(places)):
            of_keys[index, ..., position] = 0
    of_heads[[head for key, head in changes.silenced if key == attention_map.key]] = 0
    return of_keys, of_heads


def _describe_outputs(estimator: Any, outputs: np.ndarray) -> dict[str, Any]:
    """Return the prediction for one text from the outputs of the model."""
    if hasattr(estimator, "predict_proba"):
        return _describe_probabilities(estimator, outputs)
    return {"prediction": np.asarray(estimator.target_.decode(outputs)[0]).tolist()}


def _describe_probabilities(estimator: Any, probabilities: np.ndarray) -> dict[str, Any]:
    classes, row = [str(name) for name in estimator.classes_], probabilities[0].tolist()
    return {"prediction": classes[int(np.argmax(row))], "probabilities": dict(zip(classes, row, strict=True))}


def _describe_map(attention_map: AttentionMap) -> dict[str, Any]:
    tokens, query_tokens = attention_map.tokens, attention_map.query_tokens
    document: dict[str, Any] = {
        "key": attention_map.key,
        "layer": attention_map.layer,
        "shape": list(attention_map.shape),
        "tokens": None if tokens is None else [list(part) for part in tokens],
        "query_tokens": None if query_tokens is None else [list(part) for part in query_tokens],
    }
    has_weights = not isinstance(attention_map.source, StatisticsSource)
    if has_weights and int(np.prod(attention_map.shape)) <= _MAX_SHOWN_WEIGHTS:
        weights = attention_map.weights()[0]
        document["weights"] = np.round(weights.astype(float), 6).tolist()
    return document


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_head(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and _is_index(value[1])
