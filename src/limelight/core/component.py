"""What every part of an attention has in common: a config that travels with a saved model."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Self, TypeVar

import keras
from keras import ops

PACKAGE = "limelight"
Class = TypeVar("Class", bound=type)
Function = TypeVar("Function", bound=Callable)


def register(cls: Class) -> Class:
    """Make a part or layer known to Keras's loader as `limelight>Name`."""
    return keras.saving.register_keras_serializable(package=PACKAGE)(cls)


class Component:
    """A score, mask or normalizer: a frozen dataclass, or a `keras.Layer` where it learns.

    A part that is a dataclass gets its config from its fields. Fields that are parts themselves are serialised in turn. A
    part that holds a tensor of one call (a padding mask, say) belongs to a call and never to a layer: it has no config.
    """

    def get_config(self) -> dict[str, Any]:
        config = {}
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            if is_tensor(value):
                raise ValueError(
                    f"A part of a layer must not hold a tensor. Received: {type(self).__name__} with a tensor in "
                    f"`{field.name}`. Give it at call time instead: layer(..., attention_mask=...)."
                )
            config[field.name] = keras.saving.serialize_keras_object(value)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{name: deserialize(value) for name, value in config.items()})


def no_autograph(function: Function) -> Function:
    """Keep TensorFlow's AutoGraph from rewriting a function and all that it calls, in which it would find nothing to do."""
    function.autograph_info__ = {}  # pyright: ignore[reportFunctionMemberAccess]
    return function


class LearnedComponent(keras.Layer):
    """A part that learns, or that holds one that does: a layer, so that its weights are found, trained and saved.

    It is called many times over, on blocks. So the call goes straight to `call`: Keras's own would convert, cast and look for
    masks each time. Its weights keep their dtype under mixed precision (`autocast=False`), since scores are float32 or wider.
    Its config holds what its constructor takes, each kept under the same name.
    """

    @no_autograph
    def __call__(self, *tensors: Any, **given: Any) -> Any:
        if not self.built:
            self.build(*(tuple(tensor.shape) for tensor in tensors if tensor is not None))
        return self.call(*tensors, **given)

    def get_config(self) -> dict[str, Any]:
        own = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in self.named()}
        return {**keras.Layer.get_config(self), **own}

    @classmethod
    def named(cls) -> tuple[str, ...]:
        """The names of what the constructor takes."""
        return named(cls)  # pyright: ignore[reportArgumentType]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{name: deserialize(value) for name, value in config.items()})


@functools.cache
def named(kind: type) -> tuple[str, ...]:
    """The names of the parameters of a constructor; one that takes any, as that of `keras.Layer` does, names none."""
    collected = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(kind).parameters
    return tuple(name for name, parameter in parameters.items() if parameter.kind not in collected)


def deserialize(value: Any) -> Any:
    """A part back from its config; anything else, and anything already restored, as it is."""
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value)
    if isinstance(value, list):
        return tuple(deserialize(item) for item in value)
    return value


def is_tensor(value: Any) -> bool:
    """Whether a value is an array or tensor of any kind."""
    return ops.is_tensor(value) or isinstance(value, keras.KerasTensor) or hasattr(value, "__array__")


def shape_of(tensor: Any) -> tuple:
    """The lengths of a tensor's axes: ints, or scalar tensors where they are not known beforehand."""
    shape = tuple(tensor.shape)
    # Keras's function first looks through what it is given for symbolic tensors, which takes longer than a small attention.
    return tuple(ops.shape(tensor)) if None in shape else shape


def resolve(value: Any, known: dict[str, type], kind: type, what: str) -> Any:
    """A part from a part, or from its name.

    Raises:
        ValueError: the name is not known.
        TypeError: the value is neither a part of that kind nor a name.
    """
    if isinstance(value, str):
        if value not in known:
            raise ValueError(
                f"`{what}` must be one of {sorted(known)} or a {kind.__name__}. Received: {value!r}. "
                f"Anything else is built as an object, for example limelight.{what}s.{next(iter(known.values())).__name__}()."
            )
        return known[value]()
    if not isinstance(value, kind):
        raise TypeError(
            f"`{what}` must be a {kind.__name__} or one of the names {sorted(known)}. "
            f"Received: {value!r} of type {type(value).__name__}."
        )
    return value
