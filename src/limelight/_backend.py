"""Which of Keras's backends is used, settled before Keras is imported."""

import importlib.util
import os
import sys

PREFERENCE = ("jax", "torch", "tensorflow")


def choose() -> str | None:
    """Name a backend in `KERAS_BACKEND` where the user has not, and return it.

    A variable that is set, or a Keras that is already imported, is the user's choice and stays as it is. Otherwise the
    first installed of `PREFERENCE` is taken. Keras's own fallback is TensorFlow, installed or not, and the
    `keras.json` that it writes at its first import says nothing about what the user wants.

    Returns:
        The backend's name, or None where the variable says nothing and Keras is already imported or no backend is
        installed (`require` tells which).
    """
    named = os.environ.get("KERAS_BACKEND")
    if named or "keras" in sys.modules:
        return named
    for name in PREFERENCE:
        if _installed(name):
            os.environ["KERAS_BACKEND"] = name
            return name
    return None


def require() -> str:
    """Return the name of the backend that Keras has or will have.

    Raises:
        ImportError: no backend is installed, or not the one that `KERAS_BACKEND` names. The message has the command
            that installs one.
    """
    if "keras" in sys.modules:
        import keras

        return keras.backend.backend()
    name = choose()
    if name is None:
        raise ImportError(
            "limelight needs one of Keras's backends: jax, torch or tensorflow. None is installed. "
            "Run: pip install 'limelight[jax]'"
        )
    if name in PREFERENCE and not _installed(name):
        raise ImportError(
            f"KERAS_BACKEND must name a backend that is installed. Received: {name}. "
            f"Run: pip install 'limelight[{name}]', or unset the variable."
        )
    return name


def _installed(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    # Any folder of that name on the path is a spec too, but one without an origin.
    return spec is not None and spec.origin is not None
