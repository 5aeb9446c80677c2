"""Keras's own test files, with other classes in place of those that they test."""

import importlib.util
import types
from collections.abc import Mapping
from typing import Any

from keras.src import layers


class Replaced(types.ModuleType):
    """A module but for some of its names."""

    def __init__(self, module: types.ModuleType, names: Mapping[str, Any]) -> None:
        super().__init__(module.__name__)
        self._module = module
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def load(module: str, **classes: Any) -> types.ModuleType:
    """One of Keras's test files, whose `layers.Name` is the class given as `Name`.

    The file is run anew, as a module that nobody else has: what is replaced in it, and what is marked, stays in it.

    Args:
        module: the file as a module, such as `keras.src.layers.attention.attention_test`.
        classes: what stands in for the layers of these names.

    Raises:
        AttributeError: Keras has no layer of such a name.
    """
    for name in classes:
        getattr(layers, name)
    spec = importlib.util.find_spec(module)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"The installed Keras must carry its test files. Received: no {module}.")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    loaded.layers = Replaced(layers, classes)  # type: ignore[attr-defined]
    return loaded
