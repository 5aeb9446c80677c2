"""From a layer that somebody else wrote to what it asks: one adapter for each kind of layer."""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from limelight.inspection import keras_layers
from limelight.inspection.observation import Observation

Adapter = Callable[[Any, dict[str, Any], Any], Observation]

_adapters: dict[type, Adapter] = {}


def register_adapter(kind: type) -> Callable[[Adapter], Adapter]:
    """Tell `capture` how a kind of layer attends. The nearest class of a layer that has an adapter counts.

    The adapter gets the layer, the arguments of its `call` by name (defaults included) and its outputs, and returns an
    `Observation`. It runs after the layer, so that it cannot change what the model does.

    Args:
        kind: a class of layers.

    Example:
        >>> import keras, limelight as ll
        >>> class Mixing(keras.Layer):
        ...     def call(self, x):
        ...         return keras.ops.matmul(keras.ops.sigmoid(keras.ops.matmul(x, keras.ops.swapaxes(x, 1, 2))), x)
        >>> @ll.inspection.register_adapter(Mixing)
        ... def mixing(layer, arguments, outputs):
        ...     x = arguments["x"]
        ...     return ll.inspection.Observation(weights=keras.ops.sigmoid(keras.ops.matmul(x, keras.ops.swapaxes(x, 1, 2))))
    """
    if not isinstance(kind, type):
        raise TypeError(f"An adapter is registered for a class of layers. Received: {kind!r}.")

    def register(adapter: Adapter) -> Adapter:
        _adapters[kind] = adapter
        return adapter

    return register


def of(operation: Any) -> Adapter | None:
    """The adapter for a layer; None where it needs none, or nobody has written one."""
    for kind in type(operation).__mro__:
        if kind in _adapters:
            return _adapters[kind]
    if isinstance(operation, keras.layers.Attention) and keras_layers.claims_attention(operation):
        return keras_layers.attention
    return None


def arguments(operation: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a layer's call by name, defaults included."""
    bound = inspect.signature(operation.call).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)
