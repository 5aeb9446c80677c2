"""One layer of Keras's and its calls, in the form in which Keras stores them, made into one of limelight's."""

import inspect
from typing import Any

import keras
import numpy as np

from limelight import layers
from limelight.masks import Causal, Mask, SlidingWindow, both

KINDS = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)
_MASKS = ("query_mask", "value_mask", "key_mask", "attention_mask", "mask")


class KeepLayer(Exception):
    """Why a layer stays as it is."""


def replaced(entry: dict[str, Any], layer: Any) -> dict[str, Any]:
    """The stored form of the layer that takes a layer's place, with its calls.

    Args:
        entry: how Keras stores the layer.
        layer: the layer.

    Raises:
        Kept: with the reason why it cannot be replaced.
    """
    if type(layer) not in KINDS:
        raise KeepLayer(f"its class {type(layer).__name__} is a subclass, which may compute something else")
    densities = [inner for inner in layer._flatten_layers(include_self=False) if hasattr(inner, "kernel")]
    if any(getattr(dense, "lora_enabled", False) or getattr(dense, "quantization_mode", None) for dense in densities):
        raise KeepLayer("its projections have LoRA or quantized weights; merge them or load the plain ones first")
    calls = [_call(node, layer) for node in entry.get("inbound_nodes", [])]
    causal, stays = _causal(calls)
    try:
        ours = _layer(layer, causal)
    except (TypeError, ValueError) as error:
        raise KeepLayer(str(error)) from error
    stored = {**entry, **keras.saving.serialize_keras_object(ours), "name": entry["config"]["name"]}
    if "build_config" in entry:
        stored["build_config"] = entry["build_config"]
    if "inbound_nodes" in entry:
        stored["inbound_nodes"] = [_node(call, stays) for call in calls]
    return stored


def _layer(layer: Any, causal: bool) -> keras.Layer:
    """A layer of ours with the settings of one of Keras's, not built."""
    config = layer.get_config()
    mask: Mask | None = Causal("start") if causal else None
    kind: Any = {keras.layers.Attention: layers.Attention, keras.layers.AdditiveAttention: layers.AdditiveAttention}
    kind = kind.get(type(layer), layers.MultiHeadAttention)
    if kind is layers.MultiHeadAttention:
        reach = config.pop("sliding_window")
        if reach is not None:
            mask = both(mask, SlidingWindow(reach - 1, reach - 1, align="start"))
        config["flash_attention"] = layer._flash_attention or None
    if isinstance(layer, keras.layers.GroupQueryAttention):
        names = {"num_heads": "num_query_heads", "key_dim": "head_dim", "num_kv_heads": "num_key_value_heads"}
        config |= {ours: config.pop(theirs) for ours, theirs in names.items()}
    axes = config.get("attention_axes")
    if mask is not None and axes is not None and tuple(axes) != (1,):
        raise ValueError(
            "it is causal or has a window, and attends over other axes than the first, where Keras's mask counts the first"
        )
    return kind.from_config({**config, "mask": mask})


def _call(node: dict[str, Any], layer: Any) -> dict[str, Any]:
    """The arguments of one call by name."""
    names = list(inspect.signature(type(layer).call).parameters)[1:]
    return {**dict(zip(names, node["args"], strict=False)), **node["kwargs"]}


def _node(call: dict[str, Any], stays: bool) -> dict[str, Any]:
    """One call as our layer takes it."""
    kwargs = {name: _mask(name, value) if name in _MASKS else value for name, value in call.items()}
    if not stays:
        kwargs.pop("use_causal_mask", None)
    args = [kwargs.pop(name) for name in ("inputs", "query", "value") if name in kwargs]
    return {"args": args, "kwargs": kwargs}


def _causal(calls: list[dict[str, Any]]) -> tuple[bool, bool]:
    """Whether the layer itself is causal from now on, and whether calls go on saying whether they are.

    Keras puts the first query at the first key, our `use_causal_mask` the last at the last. A layer with a mask of its own has
    what Keras has; where only some calls are causal that will not do, and both must come to the same.
    """
    causal = [bool(call.get("use_causal_mask")) for call in calls]
    if all(causal) or not any(causal):
        return bool(calls) and all(causal), False
    if all(_same_length(call) for call, is_causal in zip(calls, causal, strict=True) if is_causal):
        return False, True
    raise KeepLayer(
        "only some of its calls are causal, on queries and values whose lengths may differ, where Keras counts from the start "
        "and limelight from the end"
    )


def _same_length(call: dict[str, Any]) -> bool:
    """Whether a call's query is as long as its value, so that it does not matter at which end they are aligned."""
    query, value = (call["inputs"][:2]) if "inputs" in call else (call["query"], call["value"])
    if query == value:
        return True
    # A constant is stored without its shape.
    lengths = {given["config"].get("shape", (None, None))[1] for given in (query, value)}
    return len(lengths) == 1 and None not in lengths


def _mask(name: str, value: Any) -> Any:
    """A stored mask with no doubt about its meaning."""
    if isinstance(value, (list, tuple)) and name == "mask":
        return [_mask("a mask", one) for one in value]
    if not isinstance(value, dict):
        return value
    kind, config = value["class_name"], value["config"]
    if kind == "__keras_tensor__":
        if "float" in config["dtype"]:
            raise KeepLayer(
                f"`{name}` is of dtype {config['dtype']}, of which Keras takes all but 0 for True; make it bool first"
            )
        if name == "attention_mask" and len(config["shape"]) == 2:
            raise KeepLayer(
                f"`{name}` has two axes, {tuple(config['shape'])}, which Keras takes for (T, S) even if it is a padding mask "
                "(B, S); give it as value_mask, or with three axes"
            )
        return value
    array = np.array(config["value"])
    if not ((array == 0) | (array == 1)).all():
        raise KeepLayer(
            f"`{name}` holds numbers from {array.min()} to {array.max()}, of which Keras takes all but 0 for True; make it bool"
        )
    array = array.astype(bool)
    # Keras takes two axes for (T, S), also where they could be (B, S).
    array = array[None] if name == "attention_mask" and array.ndim == 2 else array
    return {"class_name": "__numpy__", "config": {"value": array.tolist(), "dtype": "bool"}}
