"""Arrays as permissions: what they may hold, and whether it can be seen yet."""

from typing import Any

from keras import ops

from limelight.core.component import is_tensor


def boolean(array: Any, what: str) -> Any:
    """An array of permissions as bool.

    Raises:
        TypeError: not an array.
        ValueError: values other than 0 and 1: an additive mask, or probabilities.
    """
    if not is_tensor(array) and not isinstance(array, (list, tuple)):
        raise TypeError(f"{what} must be a boolean array, True where attending is allowed. Received: {array!r}.")
    tensor = ops.convert_to_tensor(array)
    dtype = str(tensor.dtype).rpartition(".")[2]
    if dtype == "bool":
        return tensor
    values = concrete(tensor)
    if values is None and "float" in dtype:
        raise ValueError(
            f"{what} must be boolean: a mask of dtype {dtype} cannot be told from an additive one while a model is "
            "compiled. Pass `mask > 0.5` (or `mask == 0` for an additive mask)."
        )
    if values is not None and not ((values == 0) | (values == 1)).all():
        raise ValueError(
            f"{what} must hold only True and False, or 1 and 0; True means *may attend*. Received: dtype {dtype} with values "
            f"from {values.min()} to {values.max()}. For an additive mask of large negative numbers pass `mask == 0`."
        )
    return ops.cast(tensor, "bool")


def concrete(tensor: Any) -> Any:
    """A tensor's values as numpy, or None where they do not exist yet because a model is being compiled."""
    try:
        return ops.convert_to_numpy(tensor)
    except Exception:
        # Each backend raises its own error for a tensor that is only traced.
        return None
