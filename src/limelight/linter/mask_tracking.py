"""Following padding through a model: where it is, which tensors say so, and which layer made them forget it."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight import masks
from limelight.inspection.observation import Observation
from limelight.inspection.recorder import Recorder
from limelight.layers.attending import Attending

ATTENTION = (
    Attending,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """What is known of the steps of a tensor.

    Args:
        real: bool (B, T) as numpy, True where a step is real.
        declared: whether a mask said so; else it only looks so.
        lost: the path and class of what dropped the mask, where something did.
    """

    real: np.ndarray
    declared: bool
    lost: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """One tensor that an attention layer was given: the name of the argument, what is known of its steps, and whether it carried
    a mask or came with one."""

    name: str
    steps: Steps
    masked: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer that attends.

    Args:
        owner: the layer.
        given: the tensors whose steps are known.
        floats: masks that are not bool: the argument's name and its values.
    """

    owner: Any
    given: tuple[Given, ...] = ()
    floats: tuple[tuple[str, np.ndarray], ...] = ()


class Watcher(Recorder):
    """A recorder that also follows padding through the model.

    Args:
        root: the model.
        batch: what it is called on, as tensors.
    """

    def __init__(self, root: Any, batch: Any) -> None:
        super().__init__(root)
        self.calls: dict[str, list[Call]] = {}
        self._held: dict[int, Any] = {}  # so that an id stays that of its tensor
        self._steps: dict[int, Steps] = {}
        self._entered: list[tuple[Any, dict[int, Any]]] = []
        self._current: dict[int, Call] = {}
        for tensor in keras.tree.flatten(batch):
            real = looks_padded(tensor)
            if real is not None:
                self._know(tensor, Steps(real, declared=False))

    def record(self, owner: Any, observe: Callable[[], Observation], doubt: Any = None) -> Any:
        """Keep an observation, and the call that it was made in."""
        if self.listening:
            self.calls.setdefault(self.path(owner), []).append(self._current.get(id(owner), Call(owner)))
        return super().record(owner, observe, doubt)

    def entered(self, operation: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        """Take note of the masks that an operation's tensors carry, before it may remove them."""
        carried = {}
        for tensor in tensors(args, kwargs):
            mask = getattr(tensor, "_keras_mask", None)
            if mask is not None:
                carried[id(tensor)] = mask
                self._declare(tensor, mask)
        self._entered.append((operation, carried))
        if isinstance(operation, keras.Layer):
            self._current[id(operation)] = self._call(operation, args, kwargs, carried)

    def left(self, operation: Any, args: tuple, kwargs: dict[str, Any], outputs: Any) -> None:
        """Take note of the masks that the tensors of an operation have lost, and of what its outputs are made from."""
        _, carried = self._entered.pop()
        if any(isinstance(outer, ATTENTION) for outer, _ in self._entered):
            return  # what projections do to masks is the matter of the layer around them
        place = (self.path(), type(operation).__name__)
        known = [(tensor, self._steps[id(tensor)]) for tensor in tensors(args, kwargs) if id(tensor) in self._steps]
        known.sort(key=lambda one: not one[1].declared)
        for tensor, steps in known:
            if id(tensor) in carried and getattr(tensor, "_keras_mask", None) is None:
                self._know(tensor, dataclasses.replace(steps, lost=place))
        for output in tensors((outputs,), {}):
            mask = getattr(output, "_keras_mask", None)
            if mask is not None:
                self._declare(output, mask)
            elif id(output) not in self._steps:
                self._inherit(output, known, carried, place)

    def steps(self, call: Call, length: int, names: tuple[str, ...]) -> Given | None:
        """What is known of the queries or keys of a call, by the names that the argument may have.

        A layer that attends inside somebody's own code gets tensors that nobody saw being made. There, what is known of any other
        tensor of that length is taken, if it is the same of all.
        """
        fitting = [one for one in call.given if one.steps.real.shape[1:] == (length,)]
        named = [one for name in names for one in fitting if one.name == name]
        if named or fitting:
            return (named or fitting)[0]
        others = [one for one in self._steps.values() if one.real.shape[1:] == (length,)]
        others.sort(key=lambda one: not one.declared)
        if call.given or not others or any((one.real != others[0].real).any() for one in others):
            return None
        return Given("", others[0], masked=False)

    def _call(self, layer: Any, args: tuple, kwargs: dict[str, Any], carried: dict[int, Any]) -> Call:
        """What a layer is given, by the names of its arguments."""
        try:
            named = dict(inspect.signature(layer.call).bind(*args, **kwargs).arguments)
        except TypeError:
            return Call(layer)
        given, floats = [], []
        for name, value in named.items():
            for place, tensor in enumerate(tensors((value,), {})):
                if "mask" in name:
                    self._steps.pop(id(tensor), None)  # its zeros are no padding
                    values = masks.concrete(tensor) if "float" in str(tensor.dtype) else None
                    floats += [] if values is None else [(name, values)]
                own = ("query", "value", "key")[place] if isinstance(value, list) and place < 3 else name
                if "mask" not in name and id(tensor) in self._steps:
                    given.append(Given(own, self._steps[id(tensor)], id(tensor) in carried or explicit(named, own)))
        return Call(layer, tuple(given), tuple(floats))

    def _inherit(self, output: Any, known: list[tuple[Any, Steps]], carried: dict[int, Any], place: tuple) -> None:
        """Know of an output without a mask what is known of the tensors that it was made from."""
        for tensor, steps in known:
            if len(output.shape) > 1 and tuple(output.shape[:2]) == steps.real.shape:
                lost = place if id(tensor) in carried else steps.lost
                self._know(output, dataclasses.replace(steps, lost=lost))
                return

    def _declare(self, tensor: Any, mask: Any) -> None:
        values = masks.concrete(mask)
        if values is not None and values.ndim == 2:
            self._know(tensor, Steps(values.astype(bool), declared=True))

    def _know(self, tensor: Any, steps: Steps) -> None:
        self._held[id(tensor)] = tensor
        self._steps[id(tensor)] = steps


def explicit(named: dict[str, Any], own: str) -> bool:
    """Whether a call's arguments have a mask for one of them."""
    names = {"query": ["query_mask"]}.get(own, ["value_mask", "key_mask"])
    masks_given = [named.get(name) for name in (*names, "attention_mask")]
    whole = named.get("mask")
    masks_given += (whole[:1] if own == "query" else whole[1:]) if isinstance(whole, list) else [whole]
    return any(mask is not None for mask in masks_given)


def tensors(args: tuple, kwargs: dict[str, Any]) -> list[Any]:
    """All tensors among the arguments of a call."""
    return [leaf for leaf in keras.tree.flatten((args, kwargs)) if ops.is_tensor(leaf)]


def looks_padded(tensor: Any) -> np.ndarray | None:
    """Which steps (B, T) of an input are real, where it looks padded: zeros at the end of some examples, and nowhere else."""
    values = masks.concrete(tensor)
    if values is None or values.ndim not in (2, 3) or values.dtype.kind not in "iuf":
        return None
    if (values.ndim == 2) == (values.dtype.kind == "f"):
        return None  # (B, T) of ids or (B, T, D) of features; anything else has no steps
    zero = values == 0 if values.ndim == 2 else (values == 0).all(axis=-1)
    ending = np.flip(np.logical_and.accumulate(np.flip(zero, 1), axis=1), 1)
    return ~ending if ending.any() and not ending.all() and (zero == ending).all() else None
