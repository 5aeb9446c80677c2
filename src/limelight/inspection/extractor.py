"""A model around a model, which gives what the attention layers inside asked beside the outputs."""

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import keras

from limelight import functional
from limelight._attention_statistics import check
from limelight.inspection import batching, limelight_layers, statistics, tracing
from limelight.inspection.interception import intercepting
from limelight.inspection.observation import read
from limelight.inspection.recorder import CaptureWarning, Recorder
from limelight.maps import AttentionMap, AttentionMaps


class _Kept:
    """What a probe remembers: no part of the model, so that Keras does not track it."""

    def __init__(self) -> None:
        self.entries: list[list[tuple[str, str, int, dict[str, Any]]]] = []
        self.functions: dict[bool | None, Any] = {}

    def number(self, entries: list[tuple[str, str, int, dict[str, Any]]]) -> str:
        """The number under which a run's entries are kept; runs that are alike share one."""
        if entries not in self.entries:
            self.entries.append(entries)
        return f"{self.entries.index(entries)}"


class AttentionExtractor(keras.Model):
    """A model around a model. It gives the model's own outputs, and what each attention layer asked.

    The model stays as it is: the same object, the same weights, the same kernels. Which layers are seen: limelight's, Keras's
    `Attention`, `AdditiveAttention`, `MultiHeadAttention` and `GroupQueryAttention`, their subclasses, layers that call Keras's
    `dot_product_attention`, and those that `register_adapter` knows.

    Args:
        model: a built model.
        layers: patterns of the layers' paths, such as "decoder/*"; all where None.
        as_: "qk" keeps what was asked; "statistics" keeps statistics alone, which the model computes as it runs, and which
            grow with the length of its inputs as the inputs themselves do. Maps then have a `attention_statistics` and no weights.
        top_k, num_blocks: what a survey holds, as `limelight.attention_statistics` takes it.

    Call arguments:
        inputs: what the model takes. `probe(inputs)` returns the model's outputs, and tensors that `probe.read` makes into maps.

    Raises:
        TypeError: `model` is no model or layer of Keras.
        ValueError: an unknown form, or numbers below 1.

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
        if not isinstance(model, keras.Layer):
            raise TypeError(
                f"`model` must be a model or layer of Keras. Received: {model!r} of type {type(model).__name__}."
            )
        if store not in ("qk", "statistics"):
            raise ValueError(f'`store` must be "qk" or "statistics". Received: as_={store!r}.')
        check(top_k, num_blocks)
        super().__init__(autocast=False, **kwargs)
        self.model = model
        self.wanted = statistics.Wanted(top_k, num_blocks) if store == "statistics" else None
        self.patterns = (layers,) if isinstance(layers, str) else layers if layers is None else tuple(layers)
        self.supports_masking = True
        self.built = model.built
        self._kept = _Kept()

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        recorder = Recorder(self.model, self.patterns)
        outermost = recorder.records

        def hear(attention_call: Any) -> None:
            def observe() -> Any:
                # Inside a loop a step is one query: its weights are fewer numbers than its statistics.
                if self.wanted is not None and recorder.records is outermost:
                    return statistics.of_question(attention_call, self.wanted)
                return limelight_layers.observation(attention_call)

            recorder.record(attention_call.owner, observe)

        with intercepting(), recorder.recording(), functional.listening(hear):
            outputs = self.model(inputs, training=training)
        return outputs, self._filed(recorder)

    def _filed(self, recorder: Recorder) -> dict[str, Any]:
        """The recorded tensors under the number of this run; what is no tensor stays here under the same number.

        A compiled function runs this once for each shape, and its structure carries the number to each later call.
        """
        for note in recorder.notes:
            warnings.warn(f"Not captured: {note}.", CaptureWarning, stacklevel=2)
        calls: dict[str, int] = {}
        entries, tensors = [], {}
        for place, record in enumerate(recorder.records):
            call = calls[record.path] = calls.get(record.path, -1) + 1
            seen = record.seen if self.wanted is None else statistics.of_observation(record.seen, self.wanted)
            found, numbers = seen.split()
            entries.append((record.path, record.layer, call, numbers))
            tensors[f"{place}"] = found
        return {self._kept.number(entries): tensors}

    def read(self, seen: dict[str, Any]) -> AttentionMaps:
        """Maps from what `probe(inputs)` returned beside the outputs."""
        ((run, tensors),) = seen.items()
        return AttentionMaps(
            AttentionMap(path, read(tensors.get(f"{place}", {}), numbers), call, layer)
            for place, (path, layer, call, numbers) in enumerate(self._kept.entries[int(run)])
        )

    def predict_on_batch(self, x: Any) -> tuple[Any, AttentionMaps]:
        """The model's outputs for one batch, and its maps."""
        outputs, maps, _ = self._run(x, self._state())
        return outputs, maps

    def predict(
        self, x: Any, batch_size: int | None = None, verbose: Any = 0, steps: int | None = None
    ) -> tuple[Any, AttentionMaps]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The model's outputs for data, compiled and in batches, and the maps of all of it.

        Args:
            x: arrays, or a data set of any kind that `model.predict` takes.
            batch_size: examples in a batch where `x` is arrays; 32 where None.
            verbose: whether a progress bar is shown.
            steps: how many batches are taken of a data set; all where None.

        Returns:
            The outputs as numpy, as `model.predict` returns them, and `AttentionMaps`. Where batches have different lengths the
            maps are padded, and the padding is masked.
        """
        values, outputs, maps = self._state(), [], []
        batches = itertools.islice(batching.batches(x, batch_size or 32), steps)
        bar = keras.utils.Progbar(batching.count(x, batch_size or 32, steps)) if verbose and verbose != "auto" else None
        for number, batch in enumerate(batches, start=1):
            output, seen, values = self._run(batch, values)
            outputs.append(output)
            maps.append(seen)
            if bar is not None:
                bar.update(number)
        return batching.concatenated(outputs), AttentionMaps.joined(maps)

    def _state(self) -> list[Any]:
        return [variable.value for variable in self.model.non_trainable_variables]

    def _run(self, x: Any, values: list[Any]) -> tuple[Any, AttentionMaps, list[Any]]:
        if not self.model.built:
            self.model(x)
            self.built, values = True, self._state()
        jit = None if getattr(self.model, "run_eagerly", False) else bool(getattr(self.model, "jit_compile", True))
        if jit not in self._kept.functions:
            self._kept.functions[jit] = tracing.eager(self) if jit is None else tracing.compiled(self, jit=jit)
        (outputs, seen), values = self._kept.functions[jit](values, x)
        return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs), self.read(seen), values


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
    """The attention of every layer of a model on one batch.

    The model runs once, eagerly, as it is. It is the same object afterwards, with the same weights and states.

    Args:
        model: a built model.
        batch: what the model takes.
        tokens: a list of strings for each example of the batch (or for the only one), which may be shorter than the padded input;
            anything with `tokens` and `offsets`, as `tokenizers` gives, will do.
        layers: patterns of the layers' paths, such as "decoder/*"; all where None.
        training: whether the model runs as in training, with dropout. Weights are those before dropout.
        as_: "qk", or "statistics" for long inputs: statistics alone, computed inside the compiled model, which is compiled for
            it (or runs eagerly, where `training`).
        top_k, num_blocks: what a survey holds, as `limelight.attention_statistics` takes it.

    Returns:
        Maps by layer path. A layer that is called again has "#1" and so on behind its path.

    Raises:
        TypeError: `model` is no model or layer of Keras.
        ValueError: tokens that do not fit the batch, an unknown form, or numbers below 1.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> steps = keras.Input((None, 8))
        >>> model = keras.Model(steps, ll.layers.SelfAttention(4, name="reader")(steps))
        >>> maps = ll.capture(model, np.ones((1, 3, 8), "float32"), tokens=["a", "b", "c"])
        >>> maps["reader"].shape, list(maps["reader"].tokens[0])
        ((1, 1, 3, 3), ['a', 'b', 'c'])
    """
    probe = AttentionExtractor(model, layers, store, top_k, num_blocks)
    if not model.built:
        model(batch)
        probe.built = True
    values = [variable.value for variable in model.non_trainable_variables]
    if store == "statistics" and not training:
        _, maps = probe.predict_on_batch(batch)
    else:
        (_, seen), _ = tracing.eager(probe)(values, batch, training=training)
        maps = probe.read(seen)
    if tokens is None:
        return maps
    return maps.with_tokens(tokens, batching.padded_length(batch, tokens))
