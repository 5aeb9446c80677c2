"""Who keeps what is seen while a model runs, and knows where in the model it is."""

import contextlib
import contextvars
import dataclasses
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from limelight.observe import tracing
from limelight.observe.observation import Observation

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
    """

    path: str
    layer: str
    seen: Observation
    doubt: Any = None


class Recorder:
    """Keeps the observations of one run of a model.

    Args:
        root: the model; paths begin below it.
        layers: patterns of the paths that are wanted, such as "decoder/*"; all where None.
    """

    def __init__(self, root: Any, layers: Sequence[str] | None = None) -> None:
        self.root = root
        self.layers = layers
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

    def record(self, owner: Any, observe: Callable[[], Observation], doubt: Any = None) -> None:
        """Keep an observation of a layer, if it is wanted.

        Args:
            owner: the layer.
            observe: makes the observation; called only where it will be kept.
            doubt: what is not known of it yet.
        """
        path, layer = self.path(owner), type(owner).__name__
        if not self.listening or not self.wants(path):
            return
        if tracing.state() != self._trace:
            self.note(path, layer, "it runs inside a loop or transformation of the backend that hides its tensors")
            return
        with self.muted():
            seen = observe().laid_out()
        self.add(Record(path, layer, seen, doubt))

    def add(self, record: Record) -> None:
        """Keep a record."""
        self.records.append(record)

    def note(self, path: str, layer: str, reason: str) -> None:
        """Remember what could not be captured, and why."""
        note = f"{path!r} ({layer}): {reason}"
        if note not in self.notes:
            self.notes.append(note)
