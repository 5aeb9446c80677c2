"""A model around a model, which returns the attention of the layers inside besides the outputs."""

import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from limelight._attention_statistics import AttentionStatistics, check_statistics_arguments
from limelight.engine import backend
from limelight.inspection._observed_attention import compute_statistics, export_call, to_source
from limelight.inspection.interception import recording
from limelight.inspection.recorder import CaptureWarning, Recorder, StatisticsSpec, check_model
from limelight.maps import AttentionMap, AttentionMaps
from limelight.maps.tokens import tokens_per_example

# What identifies one map of a run, besides its tensors: path, class of the layer, number of the call, settings.
_Entry = tuple[str, str, int, dict[str, Any]]


class _Cache:
    """The runs that an extractor has seen, and its compiled functions. A plain object, which Keras does not track."""

    def __init__(self) -> None:
        self.runs: list[list[_Entry]] = []
        self.functions: dict[bool | None, Any] = {}

    def get_run_id(self, entries: list[_Entry]) -> str:
        """Return the id of a run with these entries; equal runs share one."""
        if entries not in self.runs:
            self.runs.append(entries)
        return f"{self.runs.index(entries)}"


class AttentionExtractor(keras.Model):
    """A model around a model. It returns the model's own outputs, and the attention of the layers inside.

    The model stays as it is: the same object, the same weights, the same kernels. These layers are seen: limelight's, Keras's
    `Attention`, `AdditiveAttention`, `MultiHeadAttention` and `GroupQueryAttention`, their subclasses, layers that call Keras's
    `dot_product_attention` or a softmax, and those with an adapter (`register_adapter`).

    Args:
        model: a built model.
        layers: patterns of the layers' paths, such as "decoder/*"; all by default.
        store: "qk" keeps queries and keys, from which maps compute weights; "statistics" keeps statistics only, which are
            computed inside the model, and grow with the length of its inputs as the inputs themselves do. Such maps have
            `statistics` but no `weights`.
        top_k, num_blocks: the size of the statistics, as in `limelight.attention_statistics`.

    Call arguments:
        inputs: the inputs of the model. `extractor(inputs)` returns the model's outputs, and tensors that `extractor.to_maps`
            makes into maps.

    Raises:
        TypeError: `model` is no model or layer of Keras.
        ValueError: `store` is unknown, or a number is below 1.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> steps = keras.Input((5, 8))
        >>> model = keras.Model(steps, keras.layers.MultiHeadAttention(2, 4, name="mixing")(steps, steps))
        >>> outputs, maps = ll.AttentionExtractor(model).predict(np.ones((3, 5, 8), "float32"))
        >>> outputs.shape, maps["mixing"].shape
        ((3, 5, 8), (3, 2, 5, 5))
    """

    def __init__(
        self,
        model: Any,
        layers: str | Sequence[str] | None = None,
        store: str = "qk",
        top_k: int = 16,
        num_blocks: int = 64,
        **kwargs: Any,
    ) -> None:
        check_model(model)
        if store not in ("qk", "statistics"):
            raise ValueError(f'`store` must be "qk" or "statistics". Received: store={store!r}.')
        check_statistics_arguments(top_k, num_blocks)
        super().__init__(autocast=False, **kwargs)
        self.model = model
        self.statistics = StatisticsSpec(top_k, num_blocks) if store == "statistics" else None
        self.patterns = layers if layers is None or isinstance(layers, str) else tuple(layers)
        self.supports_masking = True
        self.built = model.built
        self._cache = _Cache()

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        recorder = Recorder(self.model, self.patterns, self.statistics)
        with recording(recorder):
            outputs = self.model(inputs, training=training)
        return outputs, self._export(recorder)

    def _export(self, recorder: Recorder) -> dict[str, Any]:
        """Return the recorded tensors by the id of this run; what is no tensor stays here, under the same id.

        A compiled function runs this once for each shape, and the structure of its outputs carries the id to each later call.
        """
        for message in recorder.skipped:
            warnings.warn(f"No attention was captured of {message}.", CaptureWarning, stacklevel=2)
        calls: dict[str, int] = {}
        entries: list[_Entry] = []
        exported = {}
        for index, record in enumerate(recorder.records):
            call_index = calls[record.path] = calls.get(record.path, -1) + 1
            call = record.call
            if self.statistics is not None and not isinstance(call, AttentionStatistics):
                call = compute_statistics(call, self.statistics.top_k, self.statistics.num_blocks)
            exported[f"{index}"], settings = export_call(call)
            entries.append((record.path, record.layer, call_index, settings))
        return {self._cache.get_run_id(entries): exported}

    def to_maps(self, exported: dict[str, Any]) -> AttentionMaps:
        """Make maps from the tensors that `extractor(inputs)` returned besides the outputs."""
        ((run_id, tensors),) = exported.items()
        return AttentionMaps(
            AttentionMap(path, to_source(tensors.get(f"{index}", {}), settings), call_index, layer)
            for index, (path, layer, call_index, settings) in enumerate(self._cache.runs[int(run_id)])
        )

    def predict_on_batch(self, x: Any) -> tuple[Any, AttentionMaps]:
        """Return the model's outputs for one batch, and its maps."""
        outputs, maps, _ = self._run(x, self._get_state())
        return outputs, maps

    def predict(
        self, x: Any, batch_size: int | None = None, verbose: Any = 0, steps: int | None = None
    ) -> tuple[Any, AttentionMaps]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the model's outputs for data, compiled and in batches, and the maps of all of it.

        Args:
            x: arrays, or a data set of any kind that `model.predict` takes.
            batch_size: the number of examples in a batch if `x` is arrays; 32 by default.
            verbose: show a progress bar.
            steps: the number of batches to take of a data set; all by default.

        Returns:
            The outputs as numpy, as `model.predict` returns them, and `AttentionMaps`. If batches have different lengths the maps
            are padded, and the padding is masked.
        """
        state, outputs, maps = self._get_state(), [], []
        batches = itertools.islice(_iter_batches(x, batch_size or 32), steps)
        total = _count_batches(x, batch_size or 32, steps)
        progress = keras.utils.Progbar(total) if verbose and verbose != "auto" else None
        for number, batch in enumerate(batches, start=1):
            batch_outputs, batch_maps, state = self._run(batch, state)
            outputs.append(batch_outputs)
            maps.append(batch_maps)
            if progress is not None:
                progress.update(number)
        return _concatenate(outputs), AttentionMaps.concat(maps)

    def _get_state(self) -> list[Any]:
        return [variable.value for variable in self.model.non_trainable_variables]

    def _run(self, x: Any, state: list[Any]) -> tuple[Any, AttentionMaps, list[Any]]:
        if not self.model.built:
            self.model(x)
            self.built, state = True, self._get_state()
        jit = None if getattr(self.model, "run_eagerly", False) else bool(getattr(self.model, "jit_compile", True))
        if jit not in self._cache.functions:
            active = backend.active()
            function = active.run_stateless(self) if jit is None else active.compile_stateless(self, jit=jit)
            self._cache.functions[jit] = function
        (outputs, exported), state = self._cache.functions[jit](state, x)
        return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs), self.to_maps(exported), state


def capture(
    model: Any,
    batch: Any,
    tokens: Any = None,
    layers: str | Sequence[str] | None = None,
    *,
    training: bool = False,
    store: str = "qk",
    top_k: int = 16,
    num_blocks: int = 64,
) -> AttentionMaps:
    """Capture the attention of every layer of a model on one batch.

    The model runs once, eagerly, as it is. It is the same object afterwards, with the same weights and state.

    Args:
        model: a built model.
        batch: the inputs of the model.
        tokens: a list of strings for each example of the batch (or for the only one), which may be shorter than the padded input.
            Anything with `tokens` and `offsets`, such as an encoding from `tokenizers`, can take the place of a list.
        layers: patterns of the layers' paths, such as "decoder/*"; all by default.
        training: run the model as in training, with dropout. Weights are those before dropout.
        store: "qk"; or "statistics" for long inputs: statistics only, computed inside the compiled model (with `training`, the
            model runs eagerly).
        top_k, num_blocks: the size of the statistics, as in `limelight.attention_statistics`.

    Returns:
        Maps by layer path. The second call of a layer has "#1" behind its path, and so on.

    Raises:
        TypeError: `model` is no model or layer of Keras.
        ValueError: the tokens do not fit the batch, `store` is unknown, or a number is below 1.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> steps = keras.Input((None, 8))
        >>> model = keras.Model(steps, ll.layers.SelfAttention(4, name="reader")(steps))
        >>> maps = ll.capture(model, np.ones((1, 3, 8), "float32"), tokens=["a", "b", "c"])
        >>> maps["reader"].shape, list(maps["reader"].tokens[0])
        ((1, 1, 3, 3), ['a', 'b', 'c'])
    """
    extractor = AttentionExtractor(model, layers, store, top_k, num_blocks)
    if not model.built:
        model(batch)
        extractor.built = True
    if store == "statistics" and not training:
        _, maps = extractor.predict_on_batch(batch)
    else:
        state = [variable.value for variable in model.non_trainable_variables]
        (_, exported), _ = backend.active().run_stateless(extractor)(state, batch, training=training)
        maps = extractor.to_maps(exported)
    return add_tokens(maps, tokens, batch)


def add_tokens(maps: AttentionMaps, tokens: Any, batch: Any) -> AttentionMaps:
    """Add tokens to the axes of the maps that belong to an input: the shortest one that holds the longest list of tokens.

    Args:
        maps: the maps.
        tokens: as in `capture`; None for none.
        batch: the inputs of the model.

    Raises:
        ValueError: no input is long enough.
    """
    if tokens is None:
        return maps
    longest = max((len(example) for example in tokens_per_example(tokens) or ()), default=0)
    lengths = sorted({leaf.shape[1] for leaf in keras.tree.flatten(batch) if len(leaf.shape) > 1})
    length = next((length for length in lengths if length >= longest), None)
    if length is None:
        raise ValueError(
            f"Each list of tokens must fit an input of the batch. Received: {longest} tokens, inputs of length {lengths}."
        )
    return maps.with_tokens(tokens, length)


def _iter_batches(data: Any, batch_size: int) -> Iterator[Any]:
    """Iterate over the inputs of each batch of arrays, or of a data set that yields batches."""
    if _is_arrays(data):
        for start in range(0, _count_examples(data), batch_size):
            yield keras.tree.map_structure(lambda leaf: leaf[start : start + batch_size], data)  # noqa: B023
        return
    is_indexed = isinstance(data, keras.utils.PyDataset)
    for batch in (data[index] for index in range(len(data))) if is_indexed else data:
        yield keras.utils.unpack_x_y_sample_weight(batch)[0]


def _is_arrays(data: Any) -> bool:
    """Return True if data is an array, or a list or dict of arrays, and no data set."""
    if isinstance(data, (list, tuple, dict)):
        return all(_is_arrays(leaf) for leaf in keras.tree.flatten(data))
    return hasattr(data, "shape") and hasattr(data, "__getitem__")


def _count_examples(data: Any) -> int:
    lengths = {leaf.shape[0] for leaf in keras.tree.flatten(data)}
    if len(lengths) != 1:
        raise ValueError(f"All inputs must have the same number of examples. Received: {sorted(lengths)}.")
    return lengths.pop()


def _count_batches(data: Any, batch_size: int, steps: int | None) -> int | None:
    """Return the number of batches, or None if it is unknown."""
    if _is_arrays(data):
        return -(-_count_examples(data) // batch_size)
    if steps is not None:
        return steps
    return len(data) if hasattr(data, "__len__") else None


def _concatenate(outputs: list[Any]) -> Any:
    """Concatenate the outputs of all batches."""
    if not outputs:
        raise ValueError("There must be at least one batch. Received: data without any.")
    shapes = {tuple(leaf.shape[1:] for leaf in keras.tree.flatten(batch)) for batch in outputs}
    if len(shapes) > 1:
        raise ValueError(
            "The outputs of all batches must have the same shape to be concatenated. Received: "
            f"{sorted(shapes)[:4]}. Call predict_on_batch on each batch, or pad all to one length."
        )
    return keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *outputs)
