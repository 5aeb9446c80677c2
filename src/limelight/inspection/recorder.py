"""The recorder: what was seen while a model ran, and where in the model."""

import collections
import contextlib
import contextvars
import dataclasses
import fnmatch
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from limelight import _keras_private
from limelight.engine import backend
from limelight.engine.call import AttentionCall
from limelight.inspection._observed_attention import ObservedAttention, compute_statistics
from limelight.inspection.layouts import FollowedTensor, Layout, WeightUse

# Layers that compute a softmax, and nothing else that attention consists of.
SOFTMAX_LAYERS = (keras.layers.Softmax, keras.layers.Activation)
_HIDDEN = "it runs inside a loop or transformation of the backend, which hides its tensors"
# Functions that compute a compiled function operation by operation: what repeats in them is no loop of the model's own Python.
_NOT_OF_THE_MODEL = ("_replay", "__torch_dispatch__")
_current: contextvars.ContextVar["Recorder | None"] = contextvars.ContextVar("recorder", default=None)


class CaptureWarning(UserWarning):
    """An attention layer ran, and its attention could not be captured."""


def check_model(model: Any) -> None:
    """Check that something is a model or layer of Keras.

    Raises:
        TypeError: it is neither.
    """
    if not isinstance(model, keras.Layer):
        raise TypeError(
            f"`model` must be a model or layer of Keras. Received: {model!r} of type {type(model).__name__}."
        )


def current_recorder() -> "Recorder | None":
    """Return the recorder of this thread or task, or None."""
    return _current.get()


@dataclasses.dataclass(frozen=True)
class StatisticsSpec:
    """The arguments of `limelight.attention_statistics`."""

    top_k: int
    num_blocks: int


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """The attention of one call of a layer.

    Args:
        path: the names of the layers that lead to the layer, joined by "/", without the model's own.
        layer: the class name of the layer.
        call: the call, or its statistics if the recorder keeps nothing else; None as long as it is pending.
        pending: a softmax that may still turn out to be a prediction, or None.
        number: how many records the run had made before, those in loops aside; -1 in a loop, whose steps differ from run to run.
        site: where in the model's code it was made; None if that does not tell a loop.
    """

    path: str
    layer: str
    call: Any
    pending: Any = None
    number: int = -1
    site: "CallSite | None" = None


@dataclasses.dataclass(frozen=True)
class CallSite:
    """A place in the code of a model. A loop in Python comes to it again and again.

    Args:
        calls: for each layer that is running, from the outermost, the number of its call, and True if a loop in its `call` is
            the model's own.
        positions: the place in each function that is running.
    """

    calls: tuple[tuple[int, bool], ...]
    positions: tuple[Any, ...]

    def find_loop(self, other: "CallSite") -> int | None:
        """Return the depth of the layer whose loop leads from this place to the same one again; None if there is no loop."""
        if len(self.calls) != len(other.calls) or self.positions != other.positions:
            return None
        pairs = zip(self.calls, other.calls, strict=True)
        depth = next((index for index, pair in enumerate(pairs) if pair[0] != pair[1]), len(self.calls)) - 1
        return depth if depth >= 0 and self.calls[depth][1] else None


# Receives a record, an output, a function that transposes tensors like it to (B, ..., N, T, V), and the values or None.
Intervention = Callable[[Record, Any, Callable[[Any], Any], Any], Any]


class Recorder:
    """Records the attention of one run of a model.

    Args:
        model: the model; paths begin below it.
        layers: patterns of the paths to record, such as "decoder/*"; None for all.
        statistics: record statistics with these arguments in place of calls.
        intervention: replaces the outputs of attention before the model uses them; see `intervene`.
        layout, heads_in_batch: the axes of weights of which only a softmax is seen; see `Layout`.
        embed: receives the ids and the output of each `keras.layers.Embedding`, and returns what the model is to use instead.
    """

    def __init__(
        self,
        model: Any,
        layers: str | Sequence[str] | None = None,
        statistics: StatisticsSpec | None = None,
        intervention: Intervention | None = None,
        layout: str | None = None,
        heads_in_batch: int = 1,
        embed: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self.model = model
        self.layers = (layers,) if isinstance(layers, str) else layers
        self.layout = None if layout is None else Layout.parse(layout, heads_in_batch)
        self.heads_in_batch = heads_in_batch
        self.statistics = statistics
        self.intervention = intervention
        self.embed = embed
        # False if nothing is to be found that only the observer of operations sees.
        self.observes_operations = True
        self.stack: list[Any] = []
        self._call_numbers: list[int] = []
        self._batch_sizes: list[int | None] = []
        self._num_calls = 0
        self.records: list[Record] = []
        # The path of each record that has a number; and True if the observer has made one of them.
        self.numbered: list[str] = []
        self.is_observed = False
        self.skipped: list[str] = []
        # The number of attentions seen at each path, and of softmaxes there that are predictions.
        self.paths: collections.Counter[str] = collections.Counter()
        self.predictions: collections.Counter[str] = collections.Counter()
        # The softmaxes that no pattern matches, and that may be predictions: their paths are no suggestions then.
        self.unmatched: list[Record] = []
        self.unclear: list[str] = []
        self.followed: dict[int, FollowedTensor] = {}
        self.observer: Any = None
        self.dense_masks: dict[int, Any] = {}
        self.sequence_lengths: set[int | None] = set()
        self.rnn_loop: Any = None
        # True while a loop runs whose records are collected.
        self.is_in_loop = False
        self._num_muted = 0
        self._loop_depth = 0
        self._trace_state = backend.active().trace_state()

    @contextlib.contextmanager
    def activate(self) -> Iterator[None]:
        """Make this the current recorder inside, in this thread or task only."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    @contextlib.contextmanager
    def muted(self) -> Iterator[None]:
        """Record nothing inside: it is part of something that is recorded as a whole."""
        self._num_muted += 1
        try:
            yield
        finally:
            self._num_muted -= 1

    @contextlib.contextmanager
    def unmuted(self) -> Iterator[None]:
        """Record inside, for a loop whose body is called by something that is muted."""
        num_muted, self._num_muted = self._num_muted, 0
        try:
            yield
        finally:
            self._num_muted = num_muted

    @property
    def is_muted(self) -> bool:
        """True if nothing is recorded now."""
        return self._num_muted > 0

    @contextlib.contextmanager
    def inside(self, operation: Any) -> Iterator[None]:
        """Enter a layer or operation of the model."""
        self.stack.append(operation)
        self._call_numbers.append(self._num_calls)
        self._batch_sizes.append(self.batch_size)
        self._num_calls += 1
        try:
            yield
        finally:
            self.stack.pop()
            self._call_numbers.pop()
            self._batch_sizes.pop()

    @contextlib.contextmanager
    def loop_body(self) -> Iterator[list[Record]]:
        """Collect the records inside separately: those of the body of a loop, whose tensors have no meaning outside it."""
        records, self.records = self.records, []
        followed, self.followed = self.followed, {}
        trace_state, self._trace_state = self._trace_state, backend.active().trace_state()
        self._loop_depth += 1
        try:
            yield self.records
        finally:
            self.records, self.followed, self._trace_state = records, followed, trace_state
            self._loop_depth -= 1

    @property
    def batch_size(self) -> int | None:
        """The number of examples that the innermost layer received; None if it is unknown or differs from call to call."""
        return self._batch_sizes[-1] if self._batch_sizes else None

    def on_enter(self, operation: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        """Called before each operation of the model; subclasses that follow more than attention extend it."""
        # What scores have in front of them is not known of an operation or a softmax.
        if isinstance(operation, keras.Layer) and not isinstance(operation, SOFTMAX_LAYERS):
            leaves = keras.tree.flatten((args, kwargs))
            shapes = [leaf.shape for leaf in leaves if ops.is_tensor(leaf) and len(leaf.shape) > 1]
            if shapes:
                self._batch_sizes[-1] = shapes[0][0]

    def on_exit(self, operation: Any, args: tuple, kwargs: dict[str, Any], outputs: Any) -> None:
        """Called after each operation of the model."""

    def path(self, layer: Any = None) -> str:
        """Return the path of a layer that is running, by default of the innermost one."""
        layers = [operation for operation in self.stack if operation is not self.model]
        if layer is not None and layer in layers:
            # The operations inside, such as a softmax, are no layers of their own.
            layers = layers[: layers.index(layer) + 1]
        elif layer is not None and layer is not self.model:
            layers.append(layer)
        return "/".join(operation.name for operation in layers) or self.model.name

    def matches(self, path: str) -> bool:
        """Return True if one of the user's patterns matches the path of an attention; remember the path."""
        self.paths[path] += 1
        return self.layers is None or any(fnmatch.fnmatchcase(path, pattern) for pattern in self.layers)

    def check_patterns(self) -> None:
        """Check that each of the user's patterns matched an attention, once the model has run.

        Raises:
            ValueError: a pattern matched none.
        """
        seen = list(self.paths - self.predictions)
        unmatched = [pattern for pattern in self.layers or () if not fnmatch.filter(seen, pattern)]
        if unmatched:
            raise ValueError(
                f"`layers` must match the paths of attention layers. Received: {unmatched}, which match none of the "
                f"layers in which attention was seen: {seen}."
            )

    def warnings(self) -> list[str]:
        """Return what could not be captured, a sentence each, once the model has run."""
        messages = [f"No attention was captured of {message}." for message in self.skipped]
        messages += self.unclear
        if not self.records and not messages:
            messages.append(
                f"No attention was seen in {self.model.name!r} ({type(self.model).__name__}): no layer of it is known to "
                "attend, calls a fused attention, or uses the result of a softmax. Describe layers that attend in another "
                "way with limelight.inspection.register_adapter."
            )
        return messages

    def record(
        self, layer: Any, observe: Callable[[], ObservedAttention | AttentionCall] | None, pending: Any = None
    ) -> Record | None:
        """Record the attention of a layer, unless muted or not wanted, and return the record.

        Args:
            layer: the layer.
            observe: returns the attention; called only if it will be recorded. None if `pending` will tell it.
            pending: as in `Record`.
        """
        path, class_name = self.path(layer), type(layer).__name__
        if self.is_muted:
            return None
        if not self.matches(path):
            if pending is not None and not pending.is_custom and not self._loop_depth:
                self.unmatched.append(Record(path, class_name, None, pending))
            return None
        if self.is_hidden():
            self.skip_hidden(path, class_name)
            return None
        call: Any = None
        with self.muted():
            if observe is not None:
                call = observe()
            call = call.to_call(layer) if isinstance(call, ObservedAttention) else call
            # At once, so that queries and keys can be freed; in a loop, where its steps are put together, at the end.
            is_step = self._loop_depth > 0 or call is None or call.query.shape[2] == 1
            if self.statistics is not None and call is not None and not is_step:
                call = compute_statistics(call, self.statistics.top_k, self.statistics.num_blocks)
        number = -1 if self._loop_depth else len(self.numbered)
        record = Record(path, class_name, call, pending, number, self._find_site())
        if not self._loop_depth:
            self.numbered.append(path)
        self.records.append(record)
        return record

    def _find_site(self) -> CallSite | None:
        """Return the place in the model's code that is running."""
        containers = (_keras_private.Functional, keras.Sequential, *_keras_private.WRAPPERS)
        may_loop = [not isinstance(operation, containers) for operation in self.stack]
        positions, frame = [], sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_name in _NOT_OF_THE_MODEL:
                return None
            positions.append((frame.f_code, frame.f_lasti))
            frame = frame.f_back
        return CallSite(tuple(zip(self._call_numbers, may_loop, strict=True)), tuple(positions))

    def follow(self, pending: Any, tensor: Any) -> None:
        """Follow a tensor of weights until a product uses it."""
        axes = tuple((axis,) for axis in range(len(tensor.shape)))
        self.followed[id(tensor)] = FollowedTensor(tensor, pending, axes)

    def innermost_layer(self) -> Any:
        """Return the innermost layer that is running, or None."""
        return next((operation for operation in reversed(self.stack) if isinstance(operation, keras.Layer)), None)

    def forget_exponentials(self, layer: Any) -> None:
        """Follow exponentials no longer that a layer computed, and that did not become a softmax in it."""
        for number in [
            number for number, each in self.followed.items() if each.form != "weights" and each.pending.layer is layer
        ]:
            del self.followed[number]

    def use(self, pending: Any, use: WeightUse) -> None:
        """Remember how weights are used; a product that sums their keys says more than another."""
        sums_keys = bool(use.contracted & set(pending.keys))
        if pending.use is None or sums_keys:
            pending.use = use
        if sums_keys:
            pending.is_followed = False
            for number in [number for number, each in self.followed.items() if each.pending is pending]:
                del self.followed[number]

    def note_layout(self, record: Record, layout: Layout) -> None:
        """Remember that the axes of weights could not be told, and how they were taken."""
        sizes = tuple(record.pending.result.shape)
        message = (
            f"The axes of the weights of {record.path!r} ({record.layer}), of shape {sizes}, could not be told from how they are "
            f"used: they were taken as {', '.join(layout.names)}. If they are others, capture them with `layout`, such as "
            'layout="btns"; weights of such axes cannot be changed.'
        )
        if message not in self.unclear:
            self.unclear.append(message)

    def intervene(
        self,
        record: Record | None,
        output: Any,
        to_heads: Callable[[Any], Any],
        get_value: Callable[[], Any] = lambda: None,
    ) -> Any:
        """Return what the model is to use in place of the output of an attention: the output, if there is no intervention.

        Args:
            record: the record of the attention. Without one, and in a loop, nothing is changed.
            output: the outputs of the heads, or their weights if nothing else was seen.
            to_heads: transposes a tensor of that shape to (B, ..., N, T, V), or (B, ..., N, T, S).
            get_value: returns the values (B, ..., K, S, V), or None if `output` is the weights.
        """
        if self.intervention is None or record is None or self._loop_depth:
            return output
        with self.muted():
            return self.intervention(record, output, to_heads, get_value())

    def forget_hidden(self, record: Record) -> None:
        """Forget that the attention of a record's layer was hidden: it has been recorded after all."""
        hidden = f"{record.path!r} ({record.layer}): {_HIDDEN}"
        self.skipped = [message for message in self.skipped if message != hidden]

    def is_hidden(self) -> bool:
        """Return True if tensors have no meaning outside of what runs now: a loop or transformation of the backend."""
        return backend.active().trace_state() != self._trace_state

    def skip_hidden(self, path: str, layer: str) -> None:
        """Remember that something of the backend hides the attention of a layer."""
        self.skip(path, layer, _HIDDEN)

    def skip(self, path: str, layer: str, reason: str) -> None:
        """Remember that the attention of a layer could not be recorded, and why."""
        message = f"{path!r} ({layer}): {reason}"
        if message not in self.skipped:
            self.skipped.append(message)
