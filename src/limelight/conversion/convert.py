"""Rebuild a model from its config, with limelight's attention layers and the same weights."""

import tempfile
import types
import warnings
from typing import Any

import keras
from keras import ops

from limelight._keras_private import Functional, get_compile_arguments, get_lambda_output_shape, iterate_layers
from limelight.conversion.comparison import compare_outputs, summarize_error
from limelight.conversion.identity import keep_functions, keep_objects, refer_to
from limelight.conversion.replacement import CONVERTIBLE, KeepLayer, replace_entry

# The class name under which Keras serializes a lambda function.
_LAMBDA = "__lambda__"


class UpgradeWarning(UserWarning):
    """An attention layer that `upgrade` did not replace, or a part of the copy that differs from the model."""


def upgrade(model: Any) -> Any:
    r"""Return a copy of a model with limelight's attention in place of Keras's, and the same weights.

    `keras.layers.MultiHeadAttention`, `GroupQueryAttention`, `Attention` and `AdditiveAttention` are replaced, also in nested
    models. The copy has weights of its own, with the same names in the same order, and what is frozen stays frozen; the model
    does not change. (Keras names a layer anew if its config holds no name.)

    The outputs are equal, except where Keras's layers are wrong: the output of a step with nothing to attend to, such as a padded
    query, is zero instead of an average of everything; padding stays masked in every layer that receives it; `Attention` applies
    the mask of its key, not only the value's; and float16 scores do not overflow. A causal mask or a window is aligned as in
    Keras, the first query with the first key. Functions and classes of your own are used as they are, not looked up by name. The
    outputs of both are compared on a random batch without padding; where they cannot be, a warning says so.

    A layer that cannot be replaced is kept, with a warning that names the reason: it is a subclass, it belongs to a custom layer,
    the meaning of a mask is ambiguous, or its weights are quantized or have LoRA. A model whose class has a `get_config` of its
    own keeps its class unless attention in it is replaced; then the copy is a plain `keras.Model`, and a warning says so.

    Args:
        model: A built Functional or Sequential model.

    Returns:
        A new model of the same name. If the model is compiled, so is the copy, with the same optimizer state (a new one if a
        layer was shared between models). Seeds of dropout start anew.

    Raises:
        TypeError: The model is not Functional or Sequential, or a layer of it cannot be rebuilt from its config.
        ValueError: The model is not built, or its copy has other outputs.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> steps = keras.Input((5, 8))
        >>> model = keras.Model(steps, keras.layers.MultiHeadAttention(2, 4, name="mixing")(steps, steps))
        >>> upgraded = ll.upgrade(model)
        >>> type(upgraded.get_layer("mixing")) is ll.layers.MultiHeadAttention
        True
        >>> x = np.ones((3, 5, 8), "float32")
        >>> bool(keras.ops.all(keras.ops.isclose(upgraded(x), model(x), atol=1e-6)))
        True
    """
    if not _is_graph(model):
        raise TypeError(
            "`upgrade` rebuilds a Functional or Sequential model from its config. Received: "
            f"{model!r} of type {type(model).__name__}. In a model or layer with a `call` of its own, write "
            "limelight.layers.MultiHeadAttention in place of keras.layers.MultiHeadAttention; weights files are compatible."
        )
    if not model.built:
        raise ValueError(
            f"`upgrade` needs a model that is built. Received: {model.name!r}, which is not. Call it on a batch first."
        )
    converter = _Converter(_collect_custom_objects(model))
    try:
        config = converter.convert_model(_serialize(model), model)
        # The config comes from a model in this process: it holds no code that has not run already.
        new = _deserialize(config, converter.custom_objects)
    except Exception as error:
        raise TypeError(_explain_failure(model, converter.custom_objects, error)) from error
    shared = _find_shared_layers(model)
    # A model that is made from a config of its own shares its layers again.
    for layer in shared if len(_find_shared_layers(new)) < len(shared) else ():
        converter.messages.append(
            f"Not shared any more: {layer.name!r} ({type(layer).__name__}): it belongs to a model and to one nested in it, "
            "which Keras cannot rebuild. In the copy each has its own, with the same weights."
        )
    _copy_weights(model, new)
    converter.messages += compare_outputs(model, new)
    _compile_like(model, new, converter.custom_objects)
    for message in converter.messages:
        warnings.warn(message, UpgradeWarning, stacklevel=2)
    return new


class _Converter:
    """The conversion of one model's config.

    Args:
        custom_objects: the custom classes and functions of the model, by the names that the config has for them.
    """

    def __init__(self, custom_objects: dict[str, Any]) -> None:
        self.custom_objects = custom_objects
        self.messages: list[str] = []
        self._num_replaced = 0

    def convert_model(self, entry: dict[str, Any], model: Any, prefix: str = "") -> dict[str, Any]:
        """Return the config of a model with its attention layers replaced, and note those that are kept."""
        if not _lists_layers(entry):
            return self._convert_own_config(entry, model, prefix)
        entries = entry["config"]["layers"]
        layers = model.operations if isinstance(model, Functional) else model.layers
        # The config of a Sequential model begins with an InputLayer that its `layers` leave out.
        for index, layer in enumerate(layers, len(entries) - len(layers)):
            entries[index] = self._convert_layer(entries[index], layer, prefix)
        keep_objects(entry, model, self.custom_objects)
        return entry

    def _convert_own_config(self, entry: dict[str, Any], model: Any, prefix: str) -> dict[str, Any]:
        """Convert a model whose class has a config of its own, which does not list the layers."""
        class_name = type(model).__name__
        if not isinstance(model, Functional):
            self._note_inner_layers(model, prefix, f"the config of {class_name} does not list it")
        elif not _has_convertible_layer(model):
            self._note_layers_in_code(model, prefix)
        else:
            plain = keras.Model(model.input, model.output, name=model.name)
            num_replaced = self._num_replaced
            converted = self.convert_model({**entry, **_serialize(plain)}, plain, prefix)
            if self._num_replaced > num_replaced:
                converted["config"]["trainable"] = model.trainable
                path = prefix.removesuffix("/") or model.name
                self.messages.append(
                    f"Not of class {class_name} any more: {path!r}: its config does not list the layers. In the copy it is "
                    "a plain keras.Model with the same layers, without the methods of the class."
                )
                return converted
        keep_objects(entry, model, self.custom_objects)
        return entry

    def _convert_layer(self, entry: dict[str, Any], layer: Any, prefix: str) -> dict[str, Any]:
        path = f"{prefix}{layer.name}"
        if isinstance(layer, CONVERTIBLE):
            try:
                entry = replace_entry(entry, layer)
                self._num_replaced += 1
            except KeepLayer as reason:
                self._note(path, layer, str(reason))
        elif isinstance(layer, keras.layers.Lambda):
            _keep_lambda(entry["config"], layer, self.custom_objects)
        elif _is_graph(layer):
            return self.convert_model(entry, layer, f"{path}/")
        elif isinstance(layer, keras.layers.TimeDistributed) and _is_graph(layer.layer):
            nested = entry["config"]["layer"]
            entry["config"]["layer"] = self.convert_model(nested, layer.layer, f"{path}/{layer.layer.name}/")
        elif isinstance(layer, keras.Layer):
            self._note_layers_in_code(layer, f"{path}/")
        keep_objects(entry, layer, self.custom_objects)
        return entry

    def _note_layers_in_code(self, layer: Any, prefix: str) -> None:
        if not _is_graph(layer):
            self._note_inner_layers(layer, prefix, f"the code of {type(layer).__name__} calls it")
            return
        for inner in layer.layers:
            self._note_layers_in_code(inner, f"{prefix}{inner.name}/")

    def _note_inner_layers(self, layer: Any, prefix: str, reason: str) -> None:
        for inner in iterate_layers(layer, include_self=False):
            if isinstance(inner, CONVERTIBLE):
                self._note(f"{prefix}{inner.name}", inner, reason)

    def _note(self, path: str, layer: Any, reason: str) -> None:
        self.messages.append(f"Not replaced: {path!r} ({type(layer).__name__}): {reason}.")


def _serialize(model: Any) -> dict[str, Any]:
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    return config


def _deserialize(config: dict[str, Any], custom_objects: dict[str, Any]) -> Any:
    return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects, safe_mode=False)


def _is_graph(layer: Any) -> bool:
    """Return True if a layer is a model that computes what its graph of layers says."""
    is_model = isinstance(layer, (Functional, keras.Sequential))
    return is_model and type(layer).call in (Functional.call, keras.Sequential.call)


def _has_convertible_layer(model: Any) -> bool:
    """Return True if an attention layer of Keras's is in the graph of a model or of one nested in it."""
    return any(
        isinstance(layer, CONVERTIBLE) or (_is_graph(layer) and _has_convertible_layer(layer)) for layer in model.layers
    )


def _lists_layers(entry: dict[str, Any]) -> bool:
    """Return True if the config of a model lists its layers, as that of a Functional or Sequential model does."""
    config = entry["config"]
    layers = config.get("layers")
    return isinstance(layers, list) and all(isinstance(layer, dict) and "class_name" in layer for layer in layers)


def _explain_failure(model: Any, custom_objects: dict[str, Any], error: Exception, prefix: str = "") -> str:
    """Return a message that names the layer which cannot be rebuilt from its config."""
    for layer in model.operations if isinstance(model, Functional) else model.layers:
        path = f"{prefix}{layer.name}"
        try:
            entry = keras.saving.serialize_keras_object(layer)
            if isinstance(layer, keras.layers.Lambda):
                _keep_lambda(entry["config"], layer, custom_objects)
            keep_objects(entry, layer, custom_objects)
            _deserialize(entry, custom_objects)
        except Exception as cause:
            if _is_graph(layer):
                return _explain_failure(layer, custom_objects, cause, f"{path}/")
            return (
                f"`upgrade` rebuilds each layer from its config. Received: {path!r} ({type(layer).__name__}), which cannot be: "
                f"{summarize_error(cause)}. Give the class a `get_config` with all arguments of its `__init__`."
            )
    return (
        f"`upgrade` rebuilds a model from its config. Received: {prefix or model.name!r} ({type(model).__name__}), which cannot "
        f"be: {summarize_error(error)}."
    )


def _find_shared_layers(model: Any) -> list[Any]:
    """Return the layers that belong to more than one model, among a model and those nested in it."""
    models = {id(layer): layer for layer in iterate_layers(model) if _is_graph(layer)}
    layers = [layer for nested in models.values() for layer in nested.layers]
    counts: dict[int, int] = {}
    for layer in layers:
        counts[id(layer)] = counts.get(id(layer), 0) + 1
    return list({id(layer): layer for layer in layers if counts[id(layer)] > 1}.values())


def _keep_lambda(config: dict[str, Any], layer: Any, custom_objects: dict[str, Any]) -> None:
    """Pass a Lambda's functions as custom objects: Keras serializes their code, but not the names that it uses."""
    for name, function in (("function", layer.function), ("output_shape", get_lambda_output_shape(layer))):
        if isinstance(config.get(name), dict) and config[name].get("class_name") in (_LAMBDA, "function"):
            config[name] = refer_to(function, custom_objects)


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
    """Copy the weights of a layer, whatever else it stores, and what of it is frozen into the layer that replaces it."""
    # Of all layers inside too, which get their own setting after it.
    new.trainable = old.trainable
    if _is_graph(old) and _is_graph(new):
        for layer, copy in zip(old.layers, new.layers, strict=True):
            _copy_weights(layer, copy)
        return
    if isinstance(old, keras.layers.TimeDistributed):
        _copy_weights(old.layer, new.layer)
        return
    if type(old) is not type(new):
        new.set_weights(old.get_weights())
        projections = {layer.name: layer for layer in iterate_layers(old, include_self=False)}
        for copy in iterate_layers(new, include_self=False):
            copy.trainable = projections.get(copy.name, old).trainable
    else:
        for layer, copy in zip(iterate_layers(old), iterate_layers(new), strict=True):
            _copy_own_variables(layer, copy)
            copy.trainable = layer.trainable
    # A single weight may be frozen too. Keras merges the weights of LoRA, which freezes the kernel, into those of a copy.
    if len(old.weights) == len(new.weights):
        for weight, copy in zip(old.weights, new.weights, strict=True):
            copy.trainable = weight.trainable


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
    config = old.get_compile_config()
    if isinstance(config, dict):
        config = keep_functions(config, get_compile_arguments(old), custom_objects)
    with keras.saving.custom_object_scope(custom_objects):
        new.compile_from_config(config)
    if old.optimizer is None or not old.optimizer.built:
        return
    new.optimizer.build(new.trainable_variables)
    if len(new.optimizer.variables) == len(old.optimizer.variables):
        for variable, copy in zip(old.optimizer.variables, new.optimizer.variables, strict=True):
            # Through numpy: JAX donates the buffers of variables during training.
            copy.assign(ops.convert_to_numpy(variable))
