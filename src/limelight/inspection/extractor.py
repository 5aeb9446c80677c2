"""A model around a model, which returns the attention of the layers inside besides the outputs."""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from limelight import _keras_private
from limelight._attention_statistics import AttentionStatistics, check_statistics_arguments
from limelight.engine import backend
from limelight.inspection import loops, softmaxes
from limelight.inspection._observed_attention import compute_statistics, export_call, to_source
from limelight.inspection.interception import recording
from limelight.inspection.layouts import check_layout
from limelight.inspection.recorder import CaptureWarning, Recorder, StatisticsSpec, check_model
from limelight.inspection.token_axes import add_tokens
from limelight.maps import AttentionMap, AttentionMaps
from limelight.maps.statistics import find_finite_examples

# What identifies one map of a run, besides its tensors: path, class of the layer, number of the call, settings.
_Entry = tuple[str, str, int, dict[str, Any]]


class _Cache:
    """The runs that an extractor has seen, and its compiled functions. A plain object, which Keras does not track."""

    def __init__(self) -> None:
        self.runs: list[list[_Entry]] = []
        self.functions: dict[tuple[str, bool | None], Any] = {}
        self.warned: set[str] = set()

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
        layout: the axes of weights of layers that show only a softmax, if these cannot be told from how the weights are used: a
            letter for each axis, b batch, n heads, t queries, s keys, as in "btns"; any other letter is a further batch axis. It
            holds for weights of as many axes; choose `layers` if there are others.
        heads_in_batch: the number of heads of such layers if these vary fastest along the batch axis, (B * N, T, S).

    Call arguments:
        inputs: those of the model, further ones included. `extractor(inputs)` returns the model's outputs, and tensors that
            `extractor.to_maps` makes into maps.

    Raises:
        TypeError: `model` is no model or layer of Keras.
        ValueError: `store` or `layout` is unknown, or a number is below 1.

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
        layout: str | None = None,
        heads_in_batch: int = 1,
        **kwargs: Any,
    ) -> None:
        check_model(model)
        if store not in ("qk", "statistics"):
            raise ValueError(f'`store` must be "qk" or "statistics". Received: store={store!r}.')
        check_statistics_arguments(top_k, num_blocks)
        check_layout(layout, heads_in_batch)
        super().__init__(autocast=False, **kwargs)
        self.model = model
        self.statistics = StatisticsSpec(top_k, num_blocks) if store == "statistics" else None
        self.patterns = layers if layers is None or isinstance(layers, str) else tuple(layers)
        self.layout, self.heads_in_batch = layout, heads_in_batch
        self.supports_masking = True
        self.built = model.built
        self._cache = _Cache()

    def call(self, inputs: Any, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        return self._record(lambda _: self.model(inputs, *args, training=training, **kwargs))

    def _record(self, run: Callable[[Recorder], Any]) -> tuple[Any, dict[str, Any]]:
        """Run the model by a function of the recorder, and return its outputs and the exported tensors."""
        recorder = Recorder(
            self.model, self.patterns, self.statistics, layout=self.layout, heads_in_batch=self.heads_in_batch
        )
        with recording(recorder):
            outputs = run(recorder)
        return outputs, self._export(recorder)

    def _export(self, recorder: Recorder) -> dict[str, Any]:
        """Return the recorded tensors by the id of this run; what is no tensor stays here, under the same id.

        A compiled function runs this once for each shape, and the structure of its outputs carries the id to each later call.
        """
        for message in recorder.warnings():
            if message not in self._cache.warned:
                self._cache.warned.add(message)
                warnings.warn(message, CaptureWarning, stacklevel=2)
        with recorder.muted(), recorder.activate():
            records = loops.join_steps(recorder.records)
        calls: dict[str, int] = {}
        entries: list[_Entry] = []
        exported = {}
        for index, record in enumerate(records):
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
        """Return what `model.predict_on_batch` returns for one batch, and the maps of it."""
        return self._predict("predict_on_batch", x, {})

    def predict(
        self, x: Any, batch_size: int | None = None, verbose: Any = 0, steps: int | None = None, **kwargs: Any
    ) -> tuple[Any, AttentionMaps]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return what `model.predict` returns for data, and the maps of all of it.

        The model's own `predict`, `predict_step`, `run_eagerly` and `jit_compile` are respected.

        Args:
            x: whatever `model.predict` takes.
            batch_size, verbose, steps: as in `model.predict`; nothing is shown by default.
            **kwargs: further arguments of `model.predict`.

        Returns:
            The outputs, and `AttentionMaps`. If batches have different lengths the maps are padded, and the padding is masked.

        Raises:
            ValueError: the model has a `predict` of its own, which runs it in another way than that of `keras.Model`.
        """
        arguments = {"batch_size": batch_size, "verbose": verbose, "steps": steps}
        return self._predict("predict", x, {**_drop_defaults(self.model, arguments), **kwargs})

    def _predict(self, method: str, x: Any, arguments: dict[str, Any]) -> tuple[Any, AttentionMaps]:
        """Run a method of the model that predicts, and collect the maps of each batch."""
        maps: list[AttentionMaps] = []
        values: list[Any] | None = None

        def predict_batch(data: Any) -> Any:
            nonlocal values
            if not self.model.built:
                self.model(keras.utils.unpack_x_y_sample_weight(data)[0])
            self.built = True
            outputs, batch_maps, values = self._run(self._predict_step, data, values)
            maps.append(batch_maps)
            return outputs

        outputs = getattr(_keras_private.make_predictor(self.model, predict_batch), method)(x, **arguments)
        if not maps:
            raise ValueError(
                f"`{method}` must run the model by `keras.Model.{method}`, so that its attention can be captured. Received: "
                f"{type(self.model).__name__}.{method}, which does not. Use `limelight.capture` on the model's inputs."
            )
        return outputs, AttentionMaps.concat(maps)

    def _predict_step(self, data: Any) -> Any:
        def run(recorder: Recorder) -> Any:
            # On JAX, Keras runs the model's `call` here, which does not pass through `Operation.__call__`.
            with recorder.inside(self.model):
                outputs = _keras_private.run_predict_step(self.model, data)
            softmaxes.drop_predictions(recorder, outputs)
            return outputs

        return self._record(run)

    def _run(self, step: Any, data: Any, values: list[Any] | None = None) -> tuple[Any, AttentionMaps, list[Any]]:
        """Run a step as the model would: compiled, unless it is to run eagerly.

        Args:
            step: a function that returns outputs and exported tensors; two with one name are taken for the same.
            data: the argument of the step.
            values: those of the model's state variables after the last batch; by default what they are now.

        Returns:
            The outputs, the maps and new values of the state variables. The variables are not changed.
        """
        model, active = self.model, backend.active()
        jit = None if getattr(model, "run_eagerly", False) else bool(getattr(model, "jit_compile", True))

        def run(values: list[Any], data: Any) -> Any:
            return backend.run_stateless(step, active.state_variables(model), values, data)

        function = self._cache.functions.get((step.__name__, jit))
        if function is None:
            function = run if jit is None else active.compile(run, jit=jit)
            self._cache.functions[step.__name__, jit] = function
        if values is None:
            values = [variable.value for variable in active.state_variables(model)]
        with active.no_gradient():
            (outputs, exported), new_values = function(values, data)
        return outputs, self.to_maps(exported), new_values


def capture(
    model: Any,
    batch: Any,
    tokens: Any = None,
    layers: str | Sequence[str] | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    training: bool = False,
    store: str = "qk",
    top_k: int = 16,
    num_blocks: int = 64,
    layout: str | None = None,
    heads_in_batch: int = 1,
) -> AttentionMaps:
    """Capture the attention of every layer of a model on one batch.

    The model runs once, eagerly, as it is. It is the same object afterwards, with the same weights and state.

    Args:
        model: a built model.
        batch: the inputs of the model: the first argument of its call.
        tokens: a list of strings for each example of the batch (or for the only one), which may be shorter than the padded input.
            Anything with `tokens` and `offsets`, such as an encoding from `tokenizers`, can take the place of a list. For several
            inputs, a dict of their tokens by name or index, such as {"source": ..., "target": ...}; tokens without a name are
            those of the first of the shortest inputs that hold them.
        layers: patterns of the layers' paths, such as "decoder/*"; all by default.
        kwargs: further arguments of the model's call by name, such as {"memory": memory} of a decoder.
        training: run the model as in training, with dropout. Weights are those before dropout.
        store: "qk"; or "statistics" for long inputs: statistics only, computed inside the compiled model (with `training`, the
            model runs eagerly).
        top_k, num_blocks: the size of the statistics, as in `limelight.attention_statistics`.
        layout, heads_in_batch: the axes of weights of layers that show only a softmax, as in `AttentionExtractor`.

    Returns:
        Maps by layer path. The second call of a layer has "#1" behind its path, and so on. A `CaptureWarning` names the layers
        that were not captured, and those whose weights hold NaN or infinity.

    Raises:
        TypeError: `model` is no model or layer of Keras.
        ValueError: the tokens do not fit the batch, `store` or `layout` is unknown, or a number is below 1.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> steps = keras.Input((None, 8))
        >>> model = keras.Model(steps, ll.layers.SelfAttention(4, name="reader")(steps))
        >>> maps = ll.capture(model, np.ones((1, 3, 8), "float32"), tokens=["a", "b", "c"])
        >>> maps["reader"].shape, list(maps["reader"].tokens[0])
        ((1, 1, 3, 3), ['a', 'b', 'c'])
    """
    extractor = AttentionExtractor(model, layers, store, top_k, num_blocks, layout, heads_in_batch)
    inputs = (batch, dict(kwargs or {}))
    maps = _capture(extractor, inputs, training)
    _warn_of_missing(maps)

    def run(inputs: Any) -> AttentionMaps:
        return _capture(AttentionExtractor(model, layers, layout=layout, heads_in_batch=heads_in_batch), inputs, False)

    return add_tokens(maps, tokens, model, inputs, run)


def _warn_of_missing(maps: AttentionMaps) -> None:
    """Warn of maps with weights that are not finite."""
    names = []
    for key, attention in maps.items():
        is_finite = find_finite_examples(attention.source)
        if not is_finite.all():
            names.append(f"{key!r} in {(~is_finite).sum()} of {len(is_finite)} examples")
    if names:
        warnings.warn(
            f"No finite attention was captured of {', '.join(names)}: weights there are NaN or infinity. Check that the inputs "
            "and the variables of the model are finite.",
            CaptureWarning,
            stacklevel=3,
        )


def _capture(extractor: AttentionExtractor, inputs: tuple[Any, dict[str, Any]], training: bool) -> AttentionMaps:
    """Capture the attention of a model on its inputs: the first argument of its call, and further ones by name."""
    model, (batch, kwargs) = extractor.model, inputs
    if not model.built:
        model(batch, **kwargs)
        extractor.built = True
    if extractor.statistics is not None and not training:
        tensors = {name: _to_arrays(value) for name, value in kwargs.items() if _has_arrays(value)}

        def call_step(data: Any) -> Any:
            batch, tensors = data
            return extractor._record(lambda _: model(batch, training=False, **{**kwargs, **tensors}))

        _, maps, _ = extractor._run(call_step, (_to_arrays(batch), tensors))
        return maps
    variables = model.non_trainable_variables
    values = [variable.value for variable in variables]
    with backend.active().no_gradient():
        (_, exported), _ = backend.run_stateless(
            extractor._record, variables, values, lambda _: model(batch, training=training, **kwargs)
        )
    return extractor.to_maps(exported)


def _drop_defaults(model: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Drop the arguments that are None, and those that a model's own `predict` does not take."""
    parameters = inspect.signature(getattr(model, "predict", keras.Model.predict)).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: value for name, value in arguments.items() if value is not None and (takes_any or name in parameters)}


def _has_arrays(value: Any) -> bool:
    return any(hasattr(leaf, "shape") for leaf in keras.tree.flatten(value))


def _to_arrays(structure: Any) -> Any:
    """Convert the tensors of another backend to numpy: a compiled function does not take them."""
    return keras.tree.map_structure(
        lambda leaf: np.asarray(leaf) if hasattr(leaf, "__array__") and not keras.ops.is_tensor(leaf) else leaf,
        structure,
    )
