"""Libraries that few functions need and that are imported where they are used."""

import importlib
from typing import Any


def import_optional(name: str) -> Any:
    """Import a library.

    Raises:
        ImportError: it is not installed; the error says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"This needs {name}, which is not installed. Run: pip install {name}") from error
