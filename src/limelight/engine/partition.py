"""The parts of a call split into their tensors and the rest.

A backend differentiates, compiles and recomputes functions of tensors. A tensor that a part holds (a learned variable, a padding
mask, positions) must therefore be an argument of such a function: one that it closes over gets no gradient from a custom
derivative, and would be compiled in as a constant.
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


class IdentityKey:
    """A hashable stand-in for an object, equal only to a key of the same object. It does not keep the object alive."""

    def __init__(self, target: Any) -> None:
        try:
            self.reference = weakref.ref(target)
        except TypeError:
            self.reference = lambda: target
        self.number = id(target)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdentityKey) and self.reference() is other.reference() and self.reference() is not None


@dataclasses.dataclass(frozen=True)
class TensorLeaf:
    """The place of a tensor.

    Args:
        index: The tensor's index in the list of tensors.
    """

    index: int


@dataclasses.dataclass(frozen=True)
class ObjectNode:
    """An object whose attributes held tensors, or one that its attributes determine.

    Args:
        cls: The object's class.
        attributes: Names and static values of the attributes.
        identity: The object, if no other with equal attributes may stand in for it.
        template: The object to copy other attributes from, if any with equal attributes may stand in for it.
    """

    cls: type
    attributes: tuple[tuple[str, Any], ...]
    identity: IdentityKey | None = None
    template: IdentityKey | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class StaticParts:
    """The parts of a call without their tensors; hashable, and equal for parts that differ in tensors only.

    Args:
        parts: The score, the mask, the normalizer, and the positions of queries and keys.
        variables: For each tensor that is the value of a Keras variable, its index and the variable.
    """

    parts: tuple[Any, ...]
    variables: tuple[tuple[int, IdentityKey], ...]


def partition(call: AttentionCall) -> tuple[StaticParts, list[Any]]:
    """Split the parts of a call into what is static and a list of tensors. Queries and keys are left alone."""
    partitioner = _Partitioner()
    block = call.block
    parts = (call.score, call.mask, call.normalizer, block.given_query_positions, block.given_key_positions)
    static = tuple(partitioner.visit(part) for part in parts)
    return StaticParts(static, tuple(partitioner.variables.values())), partitioner.tensors


@contextlib.contextmanager
def combine(static: StaticParts, tensors: Any, call: AttentionCall) -> Iterator[AttentionCall]:
    """Yield the call with parts that hold these tensors; inside, variables have the values given in `tensors`."""
    score, mask, normalizer, query_positions, key_positions = (_rebuild(part, tensors) for part in static.parts)
    block = dataclasses.replace(
        call.block,
        given_query_positions=query_positions,
        given_key_positions=key_positions,
        kv_lengths=None if mask is None else mask.kv_lengths,
    )
    call = dataclasses.replace(call, score=score, mask=mask, normalizer=normalizer, block=block)
    if not static.variables:
        yield call
        return
    values = [(key.reference(), tensors[index]) for index, key in static.variables]
    with keras.StatelessScope(state_mapping=values, initialize_variables=False):
        yield call


class _Partitioner:
    """A traversal of parts that collects their tensors."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.variables: dict[int, tuple[int, IdentityKey]] = {}

    def add_tensor(self, tensor: Any) -> TensorLeaf:
        self.tensors.append(tensor)
        return TensorLeaf(len(self.tensors) - 1)

    def add_variable(self, variable: keras.Variable) -> None:
        if id(variable) not in self.variables:
            index = self.add_tensor(ops.convert_to_tensor(variable.value)).index
            self.variables[id(variable)] = (index, IdentityKey(variable))

    def visit(self, value: Any) -> Any:
        """Return the static form of a value: hashable, and equal for values that differ in tensors only."""
        if isinstance(value, keras.Variable):
            self.add_variable(value)
            return IdentityKey(value)
        if (
            isinstance(value, LearnedComponent)
            and not value.variables
            and all(hasattr(value, name) for name in value.parameter_names())
        ):
            # It may have been made for this call, as `Dot() + ALiBi()` is, and must not be compiled anew each time.
            attributes = tuple((name, self.visit(getattr(value, name))) for name in value.parameter_names())
            return ObjectNode(type(value), attributes, template=IdentityKey(value))
        if isinstance(value, keras.Layer):
            for variable in value.variables:
                self.add_variable(variable)
            # Components of a layer may hold tensors; on PyTorch, those that are layers are stored apart.
            attributes = {**vars(value), **vars(value).get("_modules", {})}
            components = {name: inner for name, inner in attributes.items() if isinstance(inner, Component)}
            return self.visit_object(value, components, IdentityKey(value))
        if is_tensor(value):
            return self.add_tensor(ops.convert_to_tensor(value))
        if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            return tuple(self.visit(item) for item in value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self.visit_object(
                value, {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            )
        try:
            hash(value)
        except TypeError:
            return IdentityKey(value)
        return value

    def visit_object(self, value: Any, attributes: dict[str, Any], identity: IdentityKey | None = None) -> Any:
        """Return the static form of an object; the object itself if its attributes hold no tensors."""
        before = (len(self.tensors), len(self.variables))
        static = tuple((name, self.visit(attribute)) for name, attribute in attributes.items())
        if (len(self.tensors), len(self.variables)) != before or any(_is_replaced(item) for _, item in static):
            return ObjectNode(type(value), static, identity)
        return value if identity is None else identity


def _is_replaced(static: Any) -> bool:
    """Return True if a static form has a stand-in for an object, which must not be kept alive."""
    if isinstance(static, tuple):
        return any(_is_replaced(item) for item in static)
    return isinstance(static, (IdentityKey, ObjectNode))


def _rebuild(static: Any, tensors: Any) -> Any:
    """Return the value of a static form, with these tensors in the places of its own."""
    if isinstance(static, TensorLeaf):
        return tensors[static.index]
    if isinstance(static, IdentityKey):
        return static.reference()
    if isinstance(static, tuple):
        return tuple(_rebuild(item, tensors) for item in static)
    if not isinstance(static, ObjectNode):
        return static
    # Not by the constructor: it checks values, and a traced tensor has none to check.
    value = object.__new__(static.cls)
    source = static.identity or static.template
    if source is not None:
        vars(value).update(vars(source.reference()))
    vars(value).update({name: _rebuild(attribute, tensors) for name, attribute in static.attributes})
    return value
