"""What a backend computes on: the processor, or an accelerator beside it, to which few large operations suit best."""

from typing import Any

import keras


def accelerated(tensor: Any) -> bool:
    """Whether a tensor is on an accelerator, or will be, as far as that is known while a function of it is traced."""
    return BACKENDS[keras.backend.backend()](tensor)


def _jax(tensor: Any) -> bool:
    import jax
    from jax.core import Tracer

    if isinstance(tensor, jax.Array) and not isinstance(tensor, Tracer):
        return next(iter(tensor.devices())).platform != "cpu"
    settings: Any = jax.config
    chosen = settings.jax_default_device
    if chosen is None:
        return jax.default_backend() != "cpu"
    return getattr(chosen, "platform", chosen) != "cpu"


def _torch(tensor: Any) -> bool:
    device = getattr(tensor, "device", None)
    if device is None:  # one of Keras's symbols
        device = keras.ops.convert_to_tensor(0.0).device
    return device.type != "cpu"


def _tensorflow(tensor: Any) -> bool:
    import tensorflow as tf

    # A tensor of a graph that is being traced says nothing of where it will be.
    name = getattr(tensor, "device", None) or ""
    return "CPU" not in name and bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))


BACKENDS = {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}
