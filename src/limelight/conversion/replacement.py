"""Turn the serialized form of one of Keras's attention layers and its calls into that of limelight's layer."""

import inspect
from typing import Any

import keras
import numpy as np

from limelight import layers
from limelight._keras_private import get_flash_attention, iterate_layers
from limelight.masks import Causal, Mask, SlidingWindow, intersect

CONVERTIBLE = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)
_MASK_ARGUMENTS = ("query_mask", "value_mask", "key_mask", "attention_mask", "mask")


class KeepLayer(Exception):
    """A layer cannot be replaced, with the reason."""


def replace_entry(entry: dict[str, Any], layer: Any) -> dict[str, Any]:
    """Return the serialized form of the layer that replaces one of Keras's, with its calls.

    Args:
        entry: The layer's entry in the config of a model.
        layer: The layer.

    Raises:
        KeepLayer: The layer cannot be replaced.
    """
    if type(layer) not in CONVERTIBLE:
        raise KeepLayer(f"its class {type(layer).__name__} is a subclass, which may compute something else")
    projections = [inner for inner in iterate_layers(layer, include_self=False) if hasattr(inner, "kernel")]
    if any(getattr(dense, "lora_enabled", False) or getattr(dense, "quantization_mode", None) for dense in projections):
        raise KeepLayer("its projections have LoRA or quantized weights; merge them or load the original weights first")
    calls = [_bind_arguments(node, layer) for node in entry.get("inbound_nodes", [])]
    causal, keep_argument = _resolve_causal(calls)
    try:
        replacement = _make_replacement(layer, causal)
    except (TypeError, ValueError) as error:
        raise KeepLayer(str(error)) from error
    new = {**entry, **keras.saving.serialize_keras_object(replacement), "name": entry["config"]["name"]}
    if "build_config" in entry:
        new["build_config"] = entry["build_config"]
    if "inbound_nodes" in entry:
        new["inbound_nodes"] = [_make_node(call, keep_argument) for call in calls]
    return new


def _make_replacement(layer: Any, causal: bool) -> keras.Layer:
    """Return an unbuilt layer of limelight's with the settings of one of Keras's."""
    config = layer.get_config()
    mask: Mask | None = Causal("start") if causal else None
    unprojected: Any = {
        keras.layers.Attention: layers.Attention,
        keras.layers.AdditiveAttention: layers.AdditiveAttention,
    }
    cls = unprojected.get(type(layer), layers.MultiHeadAttention)
    if cls is layers.MultiHeadAttention:
        window = config.pop("sliding_window")
        if window is not None:
            mask = intersect(mask, SlidingWindow(window - 1, window - 1, align="start"))
        config["flash_attention"] = get_flash_attention(layer)
        if layer.activity_regularizer is not None:
            raise ValueError("its activity regularizer takes its output too, limelight's only that of its projections")
    if isinstance(layer, keras.layers.GroupQueryAttention):
        names = {"num_heads": "num_query_heads", "key_dim": "head_dim", "num_kv_heads": "num_key_value_heads"}
        config |= {name: config.pop(keras_name) for name, keras_name in names.items()}
    axes = config.get("attention_axes")
    if mask is not None and axes is not None and tuple(axes) != (1,):
        raise ValueError(
            "it is causal or has a window, and attends over other axes than the first, while Keras's mask counts the first"
        )
    return cls.from_config({**config, "mask": mask})


def _bind_arguments(node: dict[str, Any], layer: Any) -> dict[str, Any]:
    """Return the arguments of one call by name."""
    names = list(inspect.signature(type(layer).call).parameters)[1:]
    return {**dict(zip(names, node["args"], strict=False)), **node["kwargs"]}


def _make_node(call: dict[str, Any], keep_causal: bool) -> dict[str, Any]:
    """Return one call in the form that limelight's layer takes."""
    kwargs = {name: _convert_mask(name, value) if name in _MASK_ARGUMENTS else value for name, value in call.items()}
    if not keep_causal:
        kwargs.pop("use_causal_mask", None)
    _move_mask_of_pairs(kwargs)
    args = [kwargs.pop(name) for name in ("inputs", "query", "value") if name in kwargs]
    return {"args": args, "kwargs": kwargs}


def _move_mask_of_pairs(kwargs: dict[str, Any]) -> None:
    """Pass a mask (B, T, S), which Keras takes in place of the value's (B, S), as `attention_mask`."""
    mask = kwargs.get("mask")
    if not isinstance(mask, (list, tuple)) or not isinstance(mask[1], dict):
        return
    config = mask[1]["config"]
    if len(config["shape"] if "shape" in config else np.shape(config["value"])) == 3:
        kwargs |= {"mask": [mask[0], None], "attention_mask": mask[1]}


def _resolve_causal(calls: list[dict[str, Any]]) -> tuple[bool, bool]:
    """Decide whether the new layer is causal, and whether its calls keep the argument `use_causal_mask`.

    Keras aligns the first query with the first key, limelight's `use_causal_mask` the last with the last. A causal mask of the
    layer can be aligned as in Keras; if only some calls are causal, the argument is kept, which needs equal lengths.
    """
    causal = [bool(call.get("use_causal_mask")) for call in calls]
    if all(causal) or not any(causal):
        return bool(calls) and all(causal), False
    if all(_have_equal_lengths(call) for call, is_causal in zip(calls, causal, strict=True) if is_causal):
        return False, True
    raise KeepLayer(
        "only some of its calls are causal, on queries and values whose lengths may differ, and Keras aligns these at the start, "
        "limelight at the end"
    )


def _have_equal_lengths(call: dict[str, Any]) -> bool:
    """Return True if query and value certainly have equal lengths, so that both alignments agree."""
    query, value = (call["inputs"][:2]) if "inputs" in call else (call["query"], call["value"])
    if query == value:
        return True
    # A constant is serialized without its shape.
    lengths = {tensor["config"].get("shape", (None, None))[1] for tensor in (query, value)}
    return len(lengths) == 1 and None not in lengths


def _convert_mask(name: str, value: Any) -> Any:
    """Return a serialized mask that limelight reads as Keras does; raise `KeepLayer` if its meaning is ambiguous."""
    if isinstance(value, (list, tuple)) and name == "mask":
        return [_convert_mask("a mask", item) for item in value]
    if not isinstance(value, dict):
        return value
    config = value["config"]
    if value["class_name"] == "__keras_tensor__":
        if "float" in config["dtype"]:
            raise KeepLayer(
                f"`{name}` has dtype {config['dtype']}, and Keras takes every number except 0 for True; make it bool first"
            )
        if name == "attention_mask" and len(config["shape"]) == 2:
            raise KeepLayer(
                f"`{name}` has two axes, {tuple(config['shape'])}, which Keras takes for (T, S) even if it is a padding mask "
                "(B, S); pass it as value_mask, or with three axes"
            )
        return value
    array = np.array(config["value"])
    if not ((array == 0) | (array == 1)).all():
        raise KeepLayer(
            f"`{name}` holds numbers from {array.min()} to {array.max()}, and Keras takes every number except 0 for True; "
            "make it bool"
        )
    array = array.astype(bool)
    # Keras takes two axes for (T, S) even if they could be (B, S).
    array = array[None] if name == "attention_mask" and array.ndim == 2 else array
    return {"class_name": "__numpy__", "config": {"value": array.tolist(), "dtype": "bool"}}
