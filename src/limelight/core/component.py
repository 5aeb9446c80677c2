"""The base of scores, masks and normalizers: configurable, and saved with the model that holds them."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Self, TypeVar

import keras
import numpy as np
from keras import ops

from limelight.core.shapes import static_shape

PACKAGE = "limelight"
Class = TypeVar("Class", bound=type)
Function = TypeVar("Function", bound=Callable)


def register(cls: Class) -> Class:
    """Register a component or layer with Keras, so that models that hold it can be loaded, as `limelight>Name`."""
    return keras.saving.register_keras_serializable(package=PACKAGE)(cls)


class Component:
    """A score, mask or normalizer: a frozen dataclass, or a `keras.Layer` if it has weights.

    A dataclass gets its config from its fields. One that holds a tensor (a padding mask, for example) belongs to a call, not to a
    layer, and has no config.
    """

    def get_config(self) -> dict[str, Any]:
        config = {}
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            # A number of numpy's, such as 1 / np.sqrt(64), has the methods of an array.
            value = value.item() if isinstance(value, np.generic) else value
            if is_tensor(value):
                raise ValueError(
                    f"A component of a layer must not hold a tensor. Received: {type(self).__name__} with a tensor in "
                    f"`{field.name}`. Pass it at call time instead: layer(..., attention_mask=...)."
                )
            config[field.name] = keras.saving.serialize_keras_object(value)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{name: deserialize(value) for name, value in config.items()})


def no_autograph(function: Function) -> Function:
    """Keep TensorFlow's AutoGraph from rewriting a function and all that it calls: no control flow there depends on tensors."""
    function.autograph_info__ = {}  # pyright: ignore[reportFunctionMemberAccess]
    return function


class LearnedComponent(keras.Layer):
    """A component that has weights, or that holds one that has: a layer, so that Keras tracks, trains and saves them.

    Calling it runs `call` directly. It is called once for each block, and Keras's `__call__` would convert, cast and look for
    masks each time. Its weights keep their dtype under mixed precision (`autocast=False`), because scores are float32 or wider.
    Its config holds the constructor's arguments, each stored as an attribute of the same name.
    """

    @no_autograph
    def __call__(self, *tensors: Any, **kwargs: Any) -> Any:
        if not self.built:
            self.build(*(static_shape(tensor.shape) for tensor in tensors if tensor is not None))
        return self.call(*tensors, **kwargs)

    def get_config(self) -> dict[str, Any]:
        arguments = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in self.parameter_names()}
        return {**keras.Layer.get_config(self), **arguments}

    @classmethod
    def parameter_names(cls) -> tuple[str, ...]:
        """Return the names of the constructor's parameters, `*args` and `**kwargs` left out."""
        return _parameter_names(cls)  # pyright: ignore[reportArgumentType]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{name: deserialize(value) for name, value in config.items()})


@functools.cache
def _parameter_names(cls: type) -> tuple[str, ...]:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(cls).parameters
    return tuple(name for name, parameter in parameters.items() if parameter.kind not in variadic)


def deserialize(value: Any) -> Any:
    """Return the component of a config. A list becomes a tuple; any other value is returned unchanged."""
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value)
    if isinstance(value, list):
        return tuple(deserialize(item) for item in value)
    return value


def is_tensor(value: Any) -> bool:
    """Return True for arrays and tensors of any library, and for Keras's symbolic tensors."""
    return ops.is_tensor(value) or isinstance(value, keras.KerasTensor) or hasattr(value, "__array__")


def resolve(value: Any, classes: dict[str, type], base: type, what: str) -> Any:
    """Return a component, given as such or by its name.

    Args:
        value: The component, or its name.
        classes: The class that each name stands for.
        base: The class of all components of this kind.
        what: The name of the argument, for the error: "score", "mask" or "normalizer".

    Raises:
        ValueError: The name is unknown.
        TypeError: The value is neither a component of this kind nor a name.
    """
    if isinstance(value, str):
        if value not in classes:
            raise ValueError(
                f"`{what}` must be one of {sorted(classes)} or a {base.__name__}. Received: {value!r}. "
                f"Anything else is built as an object, for example limelight.{what}s.{next(iter(classes.values())).__name__}()."
            )
        return classes[value]()
    if not isinstance(value, base):
        raise TypeError(
            f"`{what}` must be a {base.__name__} or one of the names {sorted(classes)}. "
            f"Received: {value!r} of type {type(value).__name__}."
        )
    return value
