"""Who keeps what is seen while a model runs, and knows where in the model it is."""

import contextlib
import contextvars
import dataclasses
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from limelight.inspection import tracing
from limelight.inspection.observation import Observation

_active: contextvars.ContextVar["Recorder | None"] = contextvars.ContextVar("recorder", default=None)


class CaptureWarning(UserWarning):
    """An attention that was seen to run, and could not be captured."""


def current() -> "Recorder | None":
    """The recorder of this thread or task, where there is one."""
    return _active.get()


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One observation, and the layer that it belongs to.

    Args:
        path: the names of the layers that lead to it, joined by "/", without the model's own.
        layer: the layer's class.
        seen: the observation.
        doubt: what there is to be known before it counts, of a softmax that may be a prediction.
        number: how many records the run had before.
    """

    path: str
    layer: str
    seen: Observation
    doubt: Any = None
    number: int = -1


class Recorder:
    """Keeps the observations of one run of a model.

    Args:
        root: the model; paths begin below it.
        layers: patterns of the paths that are wanted, such as "decoder/*"; all where None.
        touch: what a record's result is exchanged for before the model goes on with it; see `touched`.
    """

    def __init__(self, root: Any, layers: Sequence[str] | None = None, touch: Callable[..., Any] | None = None) -> None:
        self.root = root
        self.layers = layers
        self.touch = touch
        self.count = 0
        self.stack: list[Any] = []
        self.records: list[Record] = []
        self.notes: list[str] = []
        self.masks: dict[int, Any] = {}
        self.lengths: set[int | None] = set()
        self.loop: Any = None
        self._muted = 0
        self._trace = tracing.state()

    @contextlib.contextmanager
    def recording(self) -> Iterator["Recorder"]:
        """Record what runs inside, in this thread or task alone."""
        token = _active.set(self)
        try:
            yield self
        finally:
            _active.reset(token)

    @contextlib.contextmanager
    def muted(self) -> Iterator[None]:
        """Record nothing inside: it belongs to what is recorded as a whole."""
        self._muted += 1
        try:
            yield
        finally:
            self._muted -= 1

    @contextlib.contextmanager
    def inside(self, operation: Any) -> Iterator[None]:
        """Be inside a layer or operation of the model."""
        self.stack.append(operation)
        try:
            yield
        finally:
            self.stack.pop()

    @contextlib.contextmanager
    def collecting(self) -> Iterator[list[Record]]:
        """Keep what is recorded inside apart: the body of a loop, whose tensors mean nothing outside it."""
        outer, self.records = self.records, []
        trace, self._trace = self._trace, tracing.state()
        try:
            yield self.records
        finally:
            self.records, self._trace = outer, trace

    def entered(self, operation: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        """An operation of the model begins. For those who follow more than attention."""

    def left(self, operation: Any, args: tuple, kwargs: dict[str, Any], outputs: Any) -> None:
        """An operation of the model has ended."""

    @property
    def listening(self) -> bool:
        """Whether what is seen now would be kept."""
        return not self._muted

    def path(self, owner: Any = None) -> str:
        """The path of a layer that runs now, or of the innermost one."""
        names = [one for one in self.stack if one is not self.root]
        if owner is not None and owner in names:
            # A softmax that the owner had computed for it is no layer of its own.
            names = names[: names.index(owner) + 1]
        elif owner is not None and owner is not self.root:
            names.append(owner)
        return "/".join(one.name for one in names) or self.root.name

    def wants(self, path: str) -> bool:
        """Whether the user asked for a path."""
        return self.layers is None or any(fnmatch.fnmatchcase(path, pattern) for pattern in self.layers)

    def record(self, owner: Any, observe: Callable[[], Observation], doubt: Any = None) -> Record | None:
        """Keep an observation of a layer, if it is wanted, and return its record.

        Args:
            owner: the layer.
            observe: makes the observation; called only where it will be kept.
            doubt: what is not known of it yet.
        """
        path, layer = self.path(owner), type(owner).__name__
        if not self.listening or not self.wants(path):
            return None
        if tracing.state() != self._trace:
            self.note(path, layer, "it runs inside a loop or transformation of the backend that hides its tensors")
            return None
        with self.muted():
            seen = observe().laid_out()
        record = Record(path, layer, seen, doubt, self.count)
        self.count += 1
        self.add(record)
        return record

    def touched(
        self,
        record: Record | None,
        result: Any,
        laid_out: Callable[[Any], Any],
        value: Callable[[], Any] = lambda: None,
    ) -> Any:
        """What the model goes on with in place of a result: the result itself where nobody touches it.

        Args:
            record: the result's own.
            result: the heads' outputs, or the weights where only those are seen.
            laid_out: brings the result to (B, N, T, V), or (B, N, T, S).
            value: makes the values that the outputs are averages of, (B, K, S, V); None where the result is weights.
        """
        if self.touch is None or record is None or self.loop is not None:
            return result
        with self.muted():
            return self.touch(record, result, laid_out, value())

    def add(self, record: Record) -> None:
        """Keep a record."""
        self.records.append(record)

    def note(self, path: str, layer: str, reason: str) -> None:
        """Remember what could not be captured, and why."""
        note = f"{path!r} ({layer}): {reason}"
        if note not in self.notes:
            self.notes.append(note)
