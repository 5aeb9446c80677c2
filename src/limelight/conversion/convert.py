"""A model made anew from its config, with other layers and the same weights."""

import tempfile
import types
import warnings
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

# Not public, but what tells a model that Keras can rebuild from one whose `call` somebody wrote.
from keras.src.models.functional import Functional

from limelight.conversion.replacing import KINDS, KeepLayer, replaced

# What Keras stores in place of a lambda, and what a function is stored as.
_LAMBDA = "__lambda__"


class UpgradeWarning(UserWarning):
    """An attention layer that `upgrade` left as it is."""


def upgrade(model: Any) -> Any:
    r"""A copy of a model with limelight's attention in place of Keras's, and the same weights.

    `keras.layers.MultiHeadAttention`, `GroupQueryAttention`, `Attention` and `AdditiveAttention` are replaced, also in models
    within the model. The copy has weights of its own, under the same names and in the same order; the model stays as it is.

    The outputs are equal, but for what Keras's layers get wrong: a step with nothing to attend to, such as a padded query, reads
    zeros instead of an average of everything; padding stays masked in every layer that reads it; `Attention` obeys the mask of
    its key and not the value's alone; and float16 scores do not overflow. A causal mask or a window is aligned as Keras aligns
    it, the first query at the first key.

    A layer that cannot be replaced stays what it is, and a warning says why: a subclass, a layer inside somebody's own layer, a
    mask whose meaning is in doubt, LoRA and quantized weights.

    Args:
        model: a built Functional or Sequential model.

    Returns:
        A new model of the same name. If the model is compiled, so is the copy, with an optimizer that goes on from the same
        state (from none where a layer was shared between models). Seeds of dropout start anew.

    Raises:
        TypeError: not a Functional or Sequential model.
        ValueError: a model that is not built.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> steps = keras.Input((5, 8))
        >>> model = keras.Model(steps, keras.layers.MultiHeadAttention(2, 4, name="mixing")(steps, steps))
        >>> better = ll.upgrade(model)
        >>> type(better.get_layer("mixing")) is ll.layers.MultiHeadAttention
        True
        >>> x = np.ones((3, 5, 8), "float32")
        >>> bool(np.allclose(better(x), model(x), atol=1e-6))
        True
    """
    if not _rebuildable(model):
        raise TypeError(
            "`upgrade` rebuilds a Functional or Sequential model from its config. Received: "
            f"{model!r} of type {type(model).__name__}. In a model or layer with a `call` of its own, write "
            "limelight.layers.MultiHeadAttention in place of keras.layers.MultiHeadAttention; weights files fit."
        )
    if not model.built:
        raise ValueError(
            f"`upgrade` needs a model that is built. Received: {model.name!r}, which is not. Call it on a batch first."
        )
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    customs = _customs(model)
    for path, layer, reason in _swap(config, model, customs):
        warnings.warn(f"Not replaced: {path!r} ({type(layer).__name__}): {reason}.", UpgradeWarning, stacklevel=2)
    for layer in _shared(model):
        warnings.warn(
            f"Not shared any more: {layer.name!r} ({type(layer).__name__}): it belongs to two models, one within the other, "
            "which Keras cannot rebuild. In the copy each has its own, with the same weights.",
            UpgradeWarning,
            stacklevel=2,
        )
    # The config was made from a model in this process, so that there is nothing in it that was not trusted already.
    new = keras.saving.deserialize_keras_object(config, custom_objects=customs, safe_mode=False)
    _copy(model, new)
    _compile(model, new, customs)
    return new


def _rebuildable(layer: Any) -> bool:
    """Whether a layer is a model that Keras runs as its config says."""
    return isinstance(layer, (Functional, keras.Sequential)) and type(layer).call in (
        Functional.call,
        keras.Sequential.call,
    )


def _shared(model: Any) -> list[Any]:
    """Layers that more than one model holds, of a model and those within it."""
    models = {id(layer): layer for layer in model._flatten_layers() if _rebuildable(layer)}
    homes: dict[int, int] = {}
    held = [layer for one in models.values() for layer in one.layers]
    for layer in held:
        homes[id(layer)] = homes.get(id(layer), 0) + 1
    return list({id(layer): layer for layer in held if homes[id(layer)] > 1}.values())


def _swap(
    config: dict[str, Any], model: Any, customs: dict[str, Any], path: str = ""
) -> Iterator[tuple[str, Any, str]]:
    """Replace what can be in the config of a model, and say which layers stay as they are: path, layer, reason."""
    members: dict[str, Any] = {one.name: one for one in (*getattr(model, "operations", ()), *model.layers)}
    entries = config["config"]["layers"]
    for place, entry in enumerate(entries):
        layer: Any = members.get(entry["config"]["name"])
        if not isinstance(layer, keras.Layer):
            continue
        here = f"{path}{layer.name}"
        if isinstance(layer, KINDS):
            try:
                entries[place] = replaced(entry, layer)
            except KeepLayer as reason:
                yield here, layer, str(reason)
        elif isinstance(layer, keras.layers.Lambda):
            _keep_functions(entry["config"], layer, customs)
        elif _rebuildable(layer):
            yield from _swap(entry, layer, customs, f"{here}/")
        elif isinstance(layer, keras.layers.TimeDistributed) and _rebuildable(layer.layer):
            yield from _swap(entry["config"]["layer"], layer.layer, customs, f"{here}/{layer.layer.name}/")
        else:
            for inner in layer._flatten_layers(include_self=False):
                if isinstance(inner, KINDS):
                    yield f"{here}/{inner.name}", inner, f"it is called by {type(layer).__name__}, in code of its own"


def _keep_functions(config: dict[str, Any], layer: Any, customs: dict[str, Any]) -> None:
    """Have a Lambda keep its functions themselves: Keras stores their code, without the names that it uses."""
    for name, value in (("function", layer.function), ("output_shape", layer._output_shape)):
        if isinstance(config.get(name), dict) and config[name].get("class_name") == _LAMBDA:
            key = f"{layer.name}>{name}>{id(value)}"
            customs[key] = value
            config[name] = {"module": "builtins", "class_name": "function", "config": key, "registered_name": key}


def _customs(model: Any) -> dict[str, Any]:
    """The classes and functions of a model that somebody wrote, by the names that Keras stores."""
    found: dict[str, Any] = {}
    compiled = keras.tree.flatten(dict(model._compile_config.config)) if model.compiled else []
    layers = list(model._flatten_layers())
    operations = [one for layer in layers for one in getattr(layer, "operations", ())]
    for value in (*compiled, *operations, *layers, *(value for layer in layers for value in vars(layer).values())):
        thing = value if isinstance(value, (types.FunctionType, type)) else type(value)
        if thing.__module__.split(".")[0] not in ("keras", "builtins"):
            found[thing.__name__] = found[keras.saving.get_registered_name(thing)] = thing
    return found


def _copy(old: Any, new: Any) -> None:
    """Give a layer the weights, and whatever else it stores, of the one that it was made from."""
    if _rebuildable(old) and type(old) is type(new):
        for layer, copy in zip(old.layers, new.layers, strict=True):
            _copy(layer, copy)
    elif type(old) is not type(new):
        new.set_weights(old.get_weights())
    elif isinstance(old, keras.layers.TimeDistributed):
        _copy(old.layer, new.layer)
    else:
        for layer, copy in zip(old._flatten_layers(), new._flatten_layers(), strict=True):
            _copy_own(layer, copy)


def _copy_own(old: Any, new: Any) -> None:
    """Copy what one layer stores itself, as it would be saved and loaded."""
    stored: dict[str, Any] = {}
    old.save_own_variables(stored)
    if stored:
        new.load_own_variables({name: ops.convert_to_numpy(value) for name, value in stored.items()})
    if hasattr(old, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def _compile(old: Any, new: Any, customs: dict[str, Any]) -> None:
    """Compile a model as another is, with an optimizer in the same state."""
    if not old.compiled:
        return
    with keras.saving.custom_object_scope(customs):
        new.compile_from_config(old.get_compile_config())
    if old.optimizer is None or not old.optimizer.built:
        return
    new.optimizer.build(new.trainable_variables)
    if len(new.optimizer.variables) == len(old.optimizer.variables):
        for variable, copy in zip(old.optimizer.variables, new.optimizer.variables, strict=True):
            # By way of numpy: JAX gives the memory of a variable away when it trains.
            copy.assign(ops.convert_to_numpy(variable))
