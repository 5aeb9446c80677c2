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
        The backend's name, or None where none is installed (Keras is then not importable; `require` says so).
    """
    named = os.environ.get("KERAS_BACKEND")
    if named or "keras" in sys.modules:
        return named
    for name in PREFERENCE:
        if importlib.util.find_spec(name) is not None:
            os.environ["KERAS_BACKEND"] = name
            return name
    return None


def require() -> str:
    """Return the backend's name, or raise an error that names the install command.

    Raises:
        ImportError: no backend of Keras is installed.
    """
    name = choose()
    if name is None and "keras" not in sys.modules:
        raise ImportError(
            "limelight needs one of Keras's backends: jax, torch or tensorflow. None is installed. "
            "Run: pip install 'limelight[jax]'"
        )
    if name is None:
        import keras

        name = keras.backend.backend()
    return name
