"""Keep the functions and classes of a model in its config, which has only their names."""

import inspect
import types
from typing import Any

import keras

# Keras's `Bidirectional` keeps its argument `layer` under another name.
_OTHER_NAMES = {"layer": "forward_layer"}
_OWN_PACKAGES = ("keras", "limelight", "builtins")


def refer_to(function: Any, custom_objects: dict[str, Any]) -> dict[str, Any]:
    """Return the serialized form of a function under a name that no other has, and add it to the custom objects."""
    key = f"{getattr(function, '__name__', 'function')}>{id(function)}"
    custom_objects[key] = function
    return {"module": "builtins", "class_name": "function", "config": key, "registered_name": key}


def keep_objects(entry: Any, value: Any, custom_objects: dict[str, Any]) -> None:
    """Let the serialized form of an object refer to the object's own class and functions.

    Keras stores names. Two classes or functions may have one name, and a function such as `keras.ops.gelu` has that of another,
    `keras.activations.gelu`.

    Args:
        entry: the serialized form, changed in place.
        value: the object, whose attributes have the names of its arguments.
        custom_objects: receives the classes and functions.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict):
        return
    value_class = type(value)
    if entry.get("class_name") != value_class.__name__:
        return
    if value_class.__module__.split(".")[0] not in _OWN_PACKAGES:
        key = f"{value_class.__name__}>{id(value_class)}"
        custom_objects[key] = value_class
        entry["registered_name"] = key
        _drop_unaccepted(entry["config"], value_class)
    config = entry["config"]
    for name, stored in config.items():
        attribute = _get_argument(value, name)
        if isinstance(stored, list) and isinstance(attribute, (list, tuple)) and len(stored) == len(attribute):
            for item, part in zip(stored, attribute, strict=True):
                keep_objects(item, part, custom_objects)
        elif _names_another(stored, attribute):
            config[name] = refer_to(attribute, custom_objects)
        else:
            keep_objects(stored, attribute, custom_objects)


def keep_functions(stored: Any, values: Any, custom_objects: dict[str, Any]) -> Any:
    """Return a serialized structure of objects, such as losses, in which functions and classes are those of the objects.

    Args:
        stored: the serialized structure.
        values: the structure.
        custom_objects: receives the classes and functions.
    """
    if isinstance(values, dict) and isinstance(stored, dict):
        return {name: keep_functions(part, values.get(name), custom_objects) for name, part in stored.items()}
    if isinstance(values, (list, tuple)) and isinstance(stored, (list, tuple)):
        return [keep_functions(part, value, custom_objects) for part, value in zip(stored, values, strict=True)]
    if _names_another(stored, values):
        return refer_to(values, custom_objects)
    keep_objects(stored, values, custom_objects)
    return stored


def _drop_unaccepted(config: dict[str, Any], layer_class: type) -> None:
    """Drop what Keras adds to the config of each layer and a class does not accept: it sets these itself."""
    parameters = inspect.signature(layer_class).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    for name in {"name", "trainable", "dtype"} - {parameter.name for parameter in parameters}:
        config.pop(name, None)


def _get_argument(value: Any, name: str) -> Any:
    """Return the attribute of an object that holds the argument with this name, or None."""
    for attribute in (name, f"_{name}", _OTHER_NAMES.get(name, name)):
        if hasattr(value, attribute):
            return getattr(value, attribute)
    return None


def _names_another(stored: Any, function: Any) -> bool:
    """Return True if a config stores a function by a name that another function may have."""
    is_function = callable(function) and not isinstance(function, (type, types.MethodType, keras.Operation))
    if not is_function or hasattr(function, "get_config"):
        return False
    if isinstance(stored, dict):
        return stored.get("class_name") == "function"
    builtin = getattr(keras.activations, stored, None) if isinstance(stored, str) else None
    return builtin is not None and builtin is not function
