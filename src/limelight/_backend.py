"""The choice of Keras's backend, before Keras is imported."""

import importlib.util
import os
import sys

PREFERENCE = ("jax", "torch", "tensorflow")


def choose() -> str | None:
    """Set `KERAS_BACKEND` to the first installed backend of `PREFERENCE`, unless the user has chosen one.

    If the variable is set, or Keras is already imported, that is the user's choice. Keras's own fallback is TensorFlow, installed
    or not, and the `keras.json` that it writes at its first import does not tell what the user wants.

    Returns:
        The name of the backend, or None if the variable is not set and either Keras is already imported or no backend is
        installed (`require` tells which).
    """
    from_user = os.environ.get("KERAS_BACKEND")
    if from_user or "keras" in sys.modules:
        return from_user
    for name in PREFERENCE:
        if _installed(name):
            os.environ["KERAS_BACKEND"] = name
            return name
    return None


def require() -> str:
    """Return the name of the backend that Keras uses or will use.

    Raises:
        ImportError: No backend is installed, or not the one that `KERAS_BACKEND` names. The message has the command that installs
            one.
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
    # Any folder of that name on the path has a spec too, but no origin.
    return spec is not None and spec.origin is not None
