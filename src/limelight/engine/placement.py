"""What a backend computes on: the processor, or an accelerator beside it, to which few large operations suit best."""

from typing import Any

import keras
from keras import ops

# Whether PyTorch has one; None until that was asked.
_accelerator: bool | None = None


def placed(*given: Any) -> tuple:
    """What was given as the backend's tensors, where Keras has its own; None stays None."""
    if keras.backend.backend() == "torch" and _settled(given):
        return given
    return tuple(None if one is None else ops.convert_to_tensor(one) for one in given)


def _settled(given: tuple) -> bool:
    """Whether all are PyTorch's tensors in the only place there is.

    For a small attention it counts: Keras's function, which looks for symbolic tensors and for its device, takes a third of the
    time that passes before the kernel runs.
    """
    global _accelerator
    import torch

    if not all(one is None or (isinstance(one, torch.Tensor) and one.is_cpu) for one in given):
        return False
    if _accelerator is None:
        _accelerator = torch.accelerator.is_available()
    return not _accelerator


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
