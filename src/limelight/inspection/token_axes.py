"""Find which axes of which maps the tokens of an input belong to."""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from limelight import _keras_private
from limelight.inspection.recorder import CaptureWarning
from limelight.maps import AttentionMaps
from limelight.maps.tokens import Tokens, are_nested, tokens_per_example

# An axis of a map: the key of the map, and "tokens" for its keys or "query_tokens" for its queries.
Axis = tuple[str, str]
_AXES = {"tokens": -1, "query_tokens": -2}
# Of more inputs of one length, not every combination is tried.
_MAX_INPUTS = 5


@dataclasses.dataclass(frozen=True)
class Input:
    """One array of a model's inputs.

    Args:
        names: what tokens may call it: its name, and its index in the order of `keras.tree.flatten`.
        shape: its shape.
        axis: the axis of its sequence: 2 of documents, whose sentences have tokens.
    """

    names: tuple[Any, ...]
    shape: tuple[int, ...]
    axis: int = 1

    @property
    def length(self) -> int | None:
        """The length of its sequence; None if it has one string or number for each example."""
        return self.shape[self.axis] if len(self.shape) > self.axis else None

    @property
    def num_sequences(self) -> int:
        """The number of examples, or of the sentences of all documents."""
        return math.prod(self.shape[: self.axis])

    def __str__(self) -> str:
        return repr(self.names[0])


def add_tokens(
    maps: AttentionMaps, tokens: Any, model: Any, inputs: tuple[Any, Mapping[str, Any]], run: Callable[[Any], Any]
) -> AttentionMaps:
    """Add tokens to the axes of the maps that belong to an input. A map of another batch is left as it is.

    An axis belongs to the input of its length. Where several inputs have this length, the model runs again on one example with
    one of them shortened: the axes that become shorter are those of this input.

    Args:
        maps: the maps.
        tokens: as in `limelight.capture`; None for none.
        model: the model.
        inputs: the first argument of its call, and further ones by name.
        run: returns maps of other inputs; see `inputs`.

    Raises:
        ValueError: the tokens do not fit the inputs, or there is no input of a name.
    """
    if tokens is None:
        return maps
    arrays = _mark_documents(list_inputs(model, *inputs), tokens)
    tokens = _pad_documents(tokens, arrays)
    by_input = _match_inputs(tokens, arrays)
    fields: dict[str, dict[str, Any]] = {}
    for index, examples in by_input.items():
        for key, name in _find_axes(maps, index, examples, arrays, inputs, run):
            if maps[key].takes_tokens(len(examples)):
                fields.setdefault(key, {})[name] = examples
    return AttentionMaps(dataclasses.replace(each, **fields.get(key, {})) for key, each in maps.items())


def list_inputs(model: Any, batch: Any, kwargs: Mapping[str, Any]) -> list[Input]:
    """List the arrays of a model's inputs with their names."""
    leaves = keras.tree.flatten(batch)
    if isinstance(batch, Mapping):
        names = ["/".join(map(str, path)) for path, _ in keras.tree.flatten_with_path(batch)]
    elif isinstance(model, _keras_private.Functional) and len(model.inputs) == len(leaves):
        names = [tensor.name for tensor in model.inputs]
    else:
        names = [f"{index}" for index in range(len(leaves))]
    pairs = list(zip(names, leaves, strict=True))
    for name, value in kwargs.items():
        pairs += [("/".join([name, *map(str, path)]), leaf) for path, leaf in keras.tree.flatten_with_path(value)]
    return [Input((name, index), tuple(getattr(leaf, "shape", ()))) for index, (name, leaf) in enumerate(pairs)]


def _mark_documents(inputs: list[Input], tokens: Any) -> list[Input]:
    """Mark the inputs whose tokens are nested: (B, sentences, words)."""

    def is_document(each: Input) -> bool:
        is_named = isinstance(tokens, Mapping) and not hasattr(tokens, "offsets")
        values = [tokens[name] for name in each.names if name in tokens] if is_named else [tokens]
        return len(each.shape) > 2 and any(are_nested(value) for value in values)

    return [dataclasses.replace(each, axis=2) if is_document(each) else each for each in inputs]


def _pad_documents(tokens: Any, inputs: list[Input]) -> Any:
    """Return tokens in which each document has as many sentences as its padded input, the last of them empty."""

    def pad(value: Any, count: int) -> Any:
        if not are_nested(value) or any(len(document) > count for document in value):
            return value
        return [[*document, *[[]] * (count - len(document))] for document in value]

    documents = {name: each.shape[1] for each in inputs if each.axis == 2 for name in each.names}
    if isinstance(tokens, Mapping) and not hasattr(tokens, "offsets"):
        return {name: pad(value, documents[name]) if name in documents else value for name, value in tokens.items()}
    return pad(tokens, next(iter(documents.values()))) if documents else tokens


def _match_inputs(tokens: Any, inputs: list[Input]) -> dict[int, tuple[Tokens, ...]]:
    """Return the tokens of each input by its index. Those without a name belong to the first of the shortest that hold them."""
    if isinstance(tokens, Mapping) and not hasattr(tokens, "offsets"):
        indices = {name: index for index, each in enumerate(inputs) for name in each.names}
        for name in tokens:
            if name not in indices:
                raise ValueError(
                    f"Tokens must be given by the name or index of an input. Received: {name!r}. "
                    f"There are: {', '.join(map(str, inputs))}."
                )
        by_input = {indices[name]: tokens_per_example(value) or () for name, value in tokens.items()}
    else:
        examples = tokens_per_example(tokens) or ()
        longest = _longest(examples)
        lengths = {index: each.length for index, each in enumerate(inputs) if each.length is not None}
        fitting = {index: length for index, length in lengths.items() if length >= longest}
        if lengths and not fitting:
            raise ValueError(
                "Each list of tokens must fit an input of the batch. "
                f"Received: {longest} tokens, inputs of length {sorted(set(lengths.values()))}. The tokens of documents, "
                "(B, sentences, words), are nested: a list of sentences for each."
            )
        by_input = {min(fitting, key=lambda index: fitting[index]) if fitting else 0: examples}
    for index, examples in by_input.items():
        each = inputs[index]
        if each.num_sequences != len(examples) or (each.length is not None and _longest(examples) > each.length):
            raise ValueError(
                f"There must be one list of tokens for each example, which fits the input. Received: {len(examples)} lists, the "
                f"longest of {_longest(examples)}, for input {each} of shape {each.shape}."
            )
    return by_input


def _find_axes(
    maps: AttentionMaps, index: int, examples: tuple[Tokens, ...], inputs: list[Input], values: Any, run: Any
) -> list[Axis]:
    """Return the axes of an input."""
    length = inputs[index].length
    if length is None:
        # Strings, say: the model makes the sequence of them.
        shapes = [shape for shape in _shapes(maps).values() if shape[0] == len(examples)]
        lengths = {shape[-1] for shape in shapes if shape[-1] >= _longest(examples)}
        return _axes_of_length(maps, min(lengths)) if lengths else []
    axes = _axes_of_length(maps, length)
    rivals = [number for number, each in enumerate(inputs) if each.length == length and number != index]
    if not axes or not rivals:
        return axes
    before = _run_shortened(run, values, inputs, ())
    for shortened in _subsets(index, rivals):
        after = _run_shortened(run, values, inputs, shortened)
        if before and list(after) == list(before):
            changed = [(key, name) for key, name in axes if after[key][_AXES[name]] != before[key][_AXES[name]]]
            return [axis for axis in axes if axis in changed]
    if all(_is_mask(inputs[number]) for number in rivals):
        return axes
    warnings.warn(
        f"The tokens of input {inputs[index]} were left off: {' and '.join(map(str, (inputs[i] for i in rivals)))} "
        "has the same length, and the model takes no other. Add them by AttentionMap.with_tokens.",
        CaptureWarning,
        stacklevel=2,
    )
    return []


def _subsets(index: int, rivals: list[int]) -> Iterator[tuple[int, ...]]:
    """Yield the sets of inputs that may be one sequence with an input, the smallest first: its ids and its mask, say."""
    for size in range(min(len(rivals), _MAX_INPUTS) + 1):
        for others in itertools.combinations(rivals, size):
            yield (index, *others)


def _run_shortened(run: Any, values: Any, inputs: list[Input], indices: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the maps of the first example, some inputs of which lack their last position; none if this fails."""
    leaves = [leaf[:1] if getattr(leaf, "shape", ()) else leaf for leaf in keras.tree.flatten(values)]
    for index in indices:
        leaves[index] = leaves[index][(*(slice(None),) * inputs[index].axis, slice(-1))]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _shapes(run(keras.tree.pack_sequence_as(values, leaves)))
    except Exception:  # The model may raise anything if its inputs do not fit each other.
        return {}


def _shapes(maps: AttentionMaps) -> dict[str, tuple[int, ...]]:
    return {key: each.shape for key, each in maps.items()}


def _axes_of_length(maps: AttentionMaps, length: int) -> list[Axis]:
    return [(key, name) for key, each in maps.items() for name, axis in _AXES.items() if each.shape[axis] == length]


def _longest(examples: tuple[Tokens, ...]) -> int:
    return max(map(len, examples), default=0)


def _is_mask(each: Input) -> bool:
    """Return True if the name of an input says that it describes another one: "padding_mask", "segment_ids"."""
    name = str(each.names[0]).lower()
    return any(word in name for word in ("mask", "segment", "position", "type"))
