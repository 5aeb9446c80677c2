"""Rebuild a model from its config, with limelight's attention layers and the same weights."""

import tempfile
import types
import warnings
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from limelight._keras_private import Functional, get_compile_arguments, get_lambda_output_shape, iterate_layers
from limelight.conversion.replacement import CONVERTIBLE, KeepLayer, replace_entry

# The class name under which Keras serializes a lambda function.
_LAMBDA = "__lambda__"


class UpgradeWarning(UserWarning):
    """An attention layer that `upgrade` did not replace."""


def upgrade(model: Any) -> Any:
    r"""Return a copy of a model with limelight's attention in place of Keras's, and the same weights.

    `keras.layers.MultiHeadAttention`, `GroupQueryAttention`, `Attention` and `AdditiveAttention` are replaced, also in nested
    models. The copy has weights of its own, with the same names in the same order; the model does not change.

    The outputs are equal, except where Keras's layers are wrong: the output of a step with nothing to attend to, such as a padded
    query, is zero instead of an average of everything; padding stays masked in every layer that receives it; `Attention` applies
    the mask of its key, not only the value's; and float16 scores do not overflow. A causal mask or a window is aligned as in
    Keras, the first query with the first key.

    A layer that cannot be replaced is kept, with a warning that names the reason: it is a subclass, it belongs to a custom layer,
    the meaning of a mask is ambiguous, or its weights are quantized or have LoRA.

    Args:
        model: A built Functional or Sequential model.

    Returns:
        A new model of the same name. If the model is compiled, so is the copy, with the same optimizer state (a new one if a
        layer was shared between models). Seeds of dropout start anew.

    Raises:
        TypeError: The model is not Functional or Sequential.
        ValueError: The model is not built.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> steps = keras.Input((5, 8))
        >>> model = keras.Model(steps, keras.layers.MultiHeadAttention(2, 4, name="mixing")(steps, steps))
        >>> upgraded = ll.upgrade(model)
        >>> type(upgraded.get_layer("mixing")) is ll.layers.MultiHeadAttention
        True
        >>> x = np.ones((3, 5, 8), "float32")
        >>> bool(np.allclose(upgraded(x), model(x), atol=1e-6))
        True
    """
    if not _has_config(model):
        raise TypeError(
            "`upgrade` rebuilds a Functional or Sequential model from its config. Received: "
            f"{model!r} of type {type(model).__name__}. In a model or layer with a `call` of its own, write "
            "limelight.layers.MultiHeadAttention in place of keras.layers.MultiHeadAttention; weights files are compatible."
        )
    if not model.built:
        raise ValueError(
            f"`upgrade` needs a model that is built. Received: {model.name!r}, which is not. Call it on a batch first."
        )
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    custom_objects = _collect_custom_objects(model)
    for path, layer, reason in _replace_layers(config, model, custom_objects):
        warnings.warn(f"Not replaced: {path!r} ({type(layer).__name__}): {reason}.", UpgradeWarning, stacklevel=2)
    for layer in _find_shared_layers(model):
        warnings.warn(
            f"Not shared any more: {layer.name!r} ({type(layer).__name__}): it belongs to a model and to one nested in it, "
            "which Keras cannot rebuild. In the copy each has its own, with the same weights.",
            UpgradeWarning,
            stacklevel=2,
        )
    # The config comes from a model in this process: it holds no code that has not run already.
    new = keras.saving.deserialize_keras_object(config, custom_objects=custom_objects, safe_mode=False)
    _copy_weights(model, new)
    _compile_like(model, new, custom_objects)
    return new


def _has_config(layer: Any) -> bool:
    """Return True if a layer is a model whose config describes what it computes."""
    is_model = isinstance(layer, (Functional, keras.Sequential))
    return is_model and type(layer).call in (Functional.call, keras.Sequential.call)


def _find_shared_layers(model: Any) -> list[Any]:
    """Return the layers that belong to more than one model, among a model and those nested in it."""
    models = {id(layer): layer for layer in iterate_layers(model) if _has_config(layer)}
    layers = [layer for nested in models.values() for layer in nested.layers]
    counts: dict[int, int] = {}
    for layer in layers:
        counts[id(layer)] = counts.get(id(layer), 0) + 1
    return list({id(layer): layer for layer in layers if counts[id(layer)] > 1}.values())


def _replace_layers(
    config: dict[str, Any], model: Any, custom_objects: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, str]]:
    """Replace attention layers in the config of a model, and yield those that are kept: path, layer, reason."""
    layers: dict[str, Any] = {layer.name: layer for layer in (*getattr(model, "operations", ()), *model.layers)}
    entries = config["config"]["layers"]
    for index, entry in enumerate(entries):
        layer: Any = layers.get(entry["config"]["name"])
        if not isinstance(layer, keras.Layer):
            continue
        path = f"{prefix}{layer.name}"
        if isinstance(layer, CONVERTIBLE):
            try:
                entries[index] = replace_entry(entry, layer)
            except KeepLayer as reason:
                yield path, layer, str(reason)
        elif isinstance(layer, keras.layers.Lambda):
            _keep_functions(entry["config"], layer, custom_objects)
        elif _has_config(layer):
            yield from _replace_layers(entry, layer, custom_objects, f"{path}/")
        elif isinstance(layer, keras.layers.TimeDistributed) and _has_config(layer.layer):
            nested = entry["config"]["layer"]
            yield from _replace_layers(nested, layer.layer, custom_objects, f"{path}/{layer.layer.name}/")
        else:
            for inner in iterate_layers(layer, include_self=False):
                if isinstance(inner, CONVERTIBLE):
                    yield f"{path}/{inner.name}", inner, f"the code of {type(layer).__name__} calls it"


def _keep_functions(config: dict[str, Any], layer: Any, custom_objects: dict[str, Any]) -> None:
    """Pass a Lambda's functions as custom objects: Keras serializes their code, but not the names that it uses."""
    for name, function in (("function", layer.function), ("output_shape", get_lambda_output_shape(layer))):
        if isinstance(config.get(name), dict) and config[name].get("class_name") == _LAMBDA:
            key = f"{layer.name}>{name}>{id(function)}"
            custom_objects[key] = function
            config[name] = {"module": "builtins", "class_name": "function", "config": key, "registered_name": key}


def _collect_custom_objects(model: Any) -> dict[str, Any]:
    """Return the custom classes and functions of a model, by the names that Keras stores."""
    objects: dict[str, Any] = {}
    compiled = keras.tree.flatten(get_compile_arguments(model)) if model.compiled else []
    layers = list(iterate_layers(model))
    operations = [operation for layer in layers for operation in getattr(layer, "operations", ())]
    attributes = [value for layer in layers for value in vars(layer).values()]
    for value in (*compiled, *operations, *layers, *attributes):
        definition = value if isinstance(value, (types.FunctionType, type)) else type(value)
        if definition.__module__.split(".")[0] not in ("keras", "builtins"):
            objects[definition.__name__] = objects[keras.saving.get_registered_name(definition)] = definition
    return objects


def _copy_weights(old: Any, new: Any) -> None:
    """Copy the weights of a layer, and whatever else it stores, into the layer that replaces it."""
    if _has_config(old) and type(old) is type(new):
        for layer, copy in zip(old.layers, new.layers, strict=True):
            _copy_weights(layer, copy)
    elif type(old) is not type(new):
        new.set_weights(old.get_weights())
    elif isinstance(old, keras.layers.TimeDistributed):
        _copy_weights(old.layer, new.layer)
    else:
        for layer, copy in zip(iterate_layers(old), iterate_layers(new), strict=True):
            _copy_own_variables(layer, copy)


def _copy_own_variables(old: Any, new: Any) -> None:
    """Copy what one layer stores itself, as saving and loading would."""
    store: dict[str, Any] = {}
    old.save_own_variables(store)
    if store:
        new.load_own_variables({name: ops.convert_to_numpy(value) for name, value in store.items()})
    if hasattr(old, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def _compile_like(old: Any, new: Any, custom_objects: dict[str, Any]) -> None:
    """Compile a model as another one is, with the same optimizer state."""
    if not old.compiled:
        return
    with keras.saving.custom_object_scope(custom_objects):
        new.compile_from_config(old.get_compile_config())
    if old.optimizer is None or not old.optimizer.built:
        return
    new.optimizer.build(new.trainable_variables)
    if len(new.optimizer.variables) == len(old.optimizer.variables):
        for variable, copy in zip(old.optimizer.variables, new.optimizer.variables, strict=True):
            # Through numpy: JAX donates the buffers of variables during training.
            copy.assign(ops.convert_to_numpy(variable))
