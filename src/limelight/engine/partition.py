"""Parts apart from the tensors that they hold.

A backend differentiates, compiles and recomputes functions of tensors. What a part holds (learned variables, a padding mask,
given positions) must therefore be an argument of such a function: what it merely closes over has no gradient under a custom
one, and would be compiled in as a constant.
"""

import contextlib
import dataclasses
import weakref
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from limelight.core.component import Component, LearnedComponent, is_tensor
from limelight.engine.call import AttentionCall


@dataclasses.dataclass(frozen=True)
class Leaf:
    """MaskFunction a tensor was."""

    index: int


class Same:
    """An object that stands for itself alone: equal only to itself, and not kept alive by what remembers it."""

    def __init__(self, thing: Any) -> None:
        try:
            self.reference = weakref.ref(thing)
        except TypeError:
            self.reference = lambda: thing
        self.number = id(thing)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.reference() is other.reference() and self.reference() is not None


@dataclasses.dataclass(frozen=True)
class Node:
    """An object whose attributes held tensors, or which is no more than its attributes."""

    kind: type
    attributes: tuple[tuple[str, Any], ...]
    like: Same | None = None
    # What it was, where another of the same attributes is as good.
    source: Same | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """The parts of a question with their tensors taken out; equal for parts that differ only in those.

    Args:
        places: the score, the mask, the normalizer, and the positions that were given for queries and keys.
        variables: for each tensor that is the value of a Keras variable, its index and the variable.
    """

    places: tuple[Any, ...]
    variables: tuple[tuple[int, Same], ...]

    @contextlib.contextmanager
    def filled(self, call: AttentionCall, tensors: Any) -> Iterator[AttentionCall]:
        """The question with its parts holding these tensors, and variables having these values, while inside."""
        mapping = [(same.reference(), tensors[index]) for index, same in self.variables]
        score, mask, normalizer, queries, keys = (restore(place, tensors) for place in self.places)
        kv_lengths = None if mask is None else mask.kv_lengths
        block = dataclasses.replace(
            call.block, given_query_positions=queries, given_key_positions=keys, kv_lengths=kv_lengths
        )
        call = dataclasses.replace(call, score=score, mask=mask, normalizer=normalizer, block=block)
        if not mapping:
            yield call
            return
        with keras.StatelessScope(state_mapping=mapping, initialize_variables=False):
            yield call


class Taking:
    """The state of one walk through parts: the tensors found so far."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.variables: dict[int, tuple[int, Same]] = {}

    def leaf(self, tensor: Any) -> Leaf:
        """Remember a tensor."""
        self.tensors.append(tensor)
        return Leaf(len(self.tensors) - 1)

    def learn(self, variable: keras.Variable) -> None:
        """Remember the value of a variable, once."""
        if id(variable) not in self.variables:
            self.variables[id(variable)] = (self.leaf(ops.convert_to_tensor(variable.value)).index, Same(variable))

    def walk(self, thing: Any) -> Any:
        """What is left of a thing when its tensors are taken: hashable, and equal where nothing else differs."""
        if isinstance(thing, keras.Variable):
            self.learn(thing)
            return Same(thing)
        if (
            isinstance(thing, LearnedComponent)
            and not thing.variables
            and all(hasattr(thing, name) for name in thing.named())
        ):
            # It may have been made for this call alone, as `Dot() + ALiBi()` is, which must not be compiled anew each time.
            given = tuple((name, self.walk(getattr(thing, name))) for name in thing.named())
            return Node(type(thing), given, source=Same(thing))
        if isinstance(thing, keras.Layer):
            for variable in thing.variables:
                self.learn(variable)
            # Parts in it, which may hold tensors in turn; PyTorch keeps those that are layers apart.
            held = {**vars(thing), **vars(thing).get("_modules", {})}
            inner = {name: value for name, value in held.items() if isinstance(value, Component)}
            return self.node(thing, inner, Same(thing))
        if is_tensor(thing):
            return self.leaf(ops.convert_to_tensor(thing))
        if isinstance(thing, (list, tuple)) and not hasattr(thing, "_fields"):
            return tuple(self.walk(item) for item in thing)
        if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
            return self.node(thing, {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)})
        try:
            hash(thing)
        except TypeError:
            return Same(thing)
        return thing

    def node(self, thing: Any, attributes: dict[str, Any], like: Same | None = None) -> Any:
        """An object without the tensors of its attributes; the object itself where it has none."""
        before = (len(self.tensors), len(self.variables))
        left = tuple((name, self.walk(value)) for name, value in attributes.items())
        if (len(self.tensors), len(self.variables)) != before or any(owned(item) for _, item in left):
            return Node(type(thing), left, like)
        return thing if like is None else like


def owned(left: Any) -> bool:
    """Whether what is left refers to something that must not be kept alive."""
    return isinstance(left, (Same, Node)) or (isinstance(left, tuple) and any(owned(item) for item in left))


def take(call: AttentionCall) -> tuple[Skeleton, list[Any]]:
    """The parts of a question without their tensors, and the tensors."""
    taking = Taking()
    block = call.block
    things = (
        call.score,
        call.mask,
        call.normalizer,
        block.given_query_positions,
        block.given_key_positions,
    )
    places = tuple(taking.walk(thing) for thing in things)
    return Skeleton(places, tuple(taking.variables.values())), taking.tensors


def restore(left: Any, tensors: Any) -> Any:
    """A thing with tensors where leaves were left."""
    if isinstance(left, Leaf):
        return tensors[left.index]
    if isinstance(left, Same):
        return left.reference()
    if isinstance(left, tuple):
        return tuple(restore(item, tensors) for item in left)
    if not isinstance(left, Node):
        return left
    # Around the constructor: it checks values, and those of a tensor that is only traced cannot be looked at.
    thing = object.__new__(left.kind)
    whole = left.source if left.like is None else left.like
    if whole is not None:
        vars(thing).update(vars(whole.reference()))
    vars(thing).update({name: restore(value, tensors) for name, value in left.attributes})
    return thing
