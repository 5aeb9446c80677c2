"""Adapters: how a kind of layer that somebody else wrote attends."""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from limelight.inspection import keras_layers
from limelight.inspection._observed_attention import ObservedAttention

Adapter = Callable[[Any, dict[str, Any], Any], ObservedAttention]

_adapters: dict[type, Adapter] = {}


def register_adapter(layer_class: type) -> Callable[[Adapter], Adapter]:
    """Register how a class of layers attends, for `capture` and all that builds on it.

    The adapter receives the layer, the arguments of its `call` by name (defaults included) and its outputs, and returns an
    `ObservedAttention`. It runs after the layer, so that it cannot change what the model computes. Of several classes of a layer
    with an adapter, the most derived one counts.

    Args:
        layer_class: the class; its subclasses use the same adapter.

    Raises:
        TypeError: `layer_class` is not a class.

    Example:
        >>> import keras, limelight as ll
        >>> class SigmoidAttention(keras.Layer):
        ...     def weights(self, x):
        ...         return keras.ops.sigmoid(keras.ops.matmul(x, keras.ops.swapaxes(x, 1, 2)))
        ...     def call(self, x):
        ...         return keras.ops.matmul(self.weights(x), x)
        >>> @ll.inspection.register_adapter(SigmoidAttention)
        ... def observe(layer, arguments, outputs):
        ...     return ll.inspection.ObservedAttention(weights=layer.weights(arguments["x"]))
    """
    if not isinstance(layer_class, type):
        raise TypeError(f"An adapter must be registered for a class of layers. Received: {layer_class!r}.")

    def register(adapter: Adapter) -> Adapter:
        _adapters[layer_class] = adapter
        return adapter

    return register


def get_adapter(operation: Any) -> Adapter | None:
    """Return the adapter of a layer, or None."""
    for layer_class in type(operation).__mro__:
        if layer_class in _adapters:
            return _adapters[layer_class]
    if isinstance(operation, keras.layers.Attention) and keras_layers.computes_attention(operation):
        return keras_layers.observe_attention
    return None


def bind_arguments(operation: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a layer's call by name, defaults included."""
    bound = inspect.signature(operation.call).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)
