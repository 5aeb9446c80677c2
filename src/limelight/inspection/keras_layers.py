"""Keras's own attention layers, and its function `dot_product_attention`."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from limelight import _keras_private
from limelight.inspection._observed_attention import ObservedAttention
from limelight.inspection.recorder import Record, Recorder


def inherits(layer: Any, layer_class: type, *methods: str) -> bool:
    """Return True if a layer has these methods from a class of Keras; a subclass that overrides one may compute anything."""
    return all(getattr(type(layer), name) is getattr(layer_class, name) for name in methods)


def computes_attention(layer: Any) -> bool:
    """Return True if a layer computes what `Attention` or `AdditiveAttention` does, whatever a subclass adds around it."""
    classes = (keras.layers.Attention, keras.layers.AdditiveAttention)
    return any(inherits(layer, layer_class, *_keras_private.ATTENTION_METHODS) for layer_class in classes)


def observe_attention(layer: Any, arguments: dict[str, Any], outputs: Any) -> ObservedAttention:
    """Observe `Attention` or `AdditiveAttention`; an adapter."""
    query, value, *rest = arguments["inputs"]
    key = rest[0] if rest else value
    mask = arguments.get("mask")
    query_mask, value_mask = (mask[0], mask[1]) if mask else (None, None)
    score: dict[str, Any] = {"scale": 1.0 if layer.scale is None else layer.scale}
    size = query.shape[-1]
    if isinstance(layer, keras.layers.AdditiveAttention):
        score = {"scale": 1.0, "vector": ops.ones((size,)) if layer.scale is None else layer.scale}
    elif layer.score_mode == "concat":
        query, key = query * ops.cast(score["scale"], query.dtype), key * ops.cast(score["scale"], key.dtype)
        score = {"scale": layer.concat_score_weight, "vector": ops.ones((size,))}
    padding: dict[str, Any] = {"queries": query_mask}
    if value_mask is not None:
        padding["keys" if len(value_mask.shape) == 2 else "array"] = value_mask
    right = 0 if arguments.get("use_causal_mask") else None
    return ObservedAttention(query=query, key=key, right=right, **score, **padding)


def intervene_on_attention(recorder: Recorder, record: Record | None, arguments: dict[str, Any], outputs: Any) -> Any:
    """Return the outputs of `Attention` or `AdditiveAttention`, as the recorder's intervention changes them."""
    output, *weights = outputs if isinstance(outputs, (tuple, list)) else (outputs,)

    def to_heads(tensor: Any) -> Any:
        return ops.expand_dims(tensor, -3)

    output = recorder.intervene(record, output, to_heads, lambda: to_heads(arguments["inputs"][1]))
    return (output, *weights) if weights else output


def compute_attention_mask(
    recorder: Recorder, original: Callable[..., Any], layer: Any, *args: Any, **kwargs: Any
) -> Any:
    """Stand in for the method of that name: remember the parts of a dense mask, which take T + S numbers, not T x S."""
    mask = original(layer, *args, **kwargs)
    if mask is not None:
        parts = inspect.signature(original).bind(layer, *args, **kwargs).arguments
        recorder.dense_masks[id(mask)] = (mask, parts)
    return mask


def compute_attention(recorder: Recorder, original: Callable[..., Any], layer: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand in for the method of that name of `MultiHeadAttention` and `GroupQueryAttention`, whichever kernel it uses."""
    layer_class = keras.layers.MultiHeadAttention
    layer_class = layer_class if isinstance(layer, layer_class) else keras.layers.GroupQueryAttention
    arguments = inspect.signature(original).bind(layer, *args, **kwargs).arguments
    if not inherits(layer, layer_class, _keras_private.MASKED_SOFTMAX) or len(arguments["query"].shape) != 4:
        return original(layer, *args, **kwargs)
    with recorder.muted():
        output, weights = original(layer, *args, **kwargs)
    record = recorder.record(layer, lambda: _observe_multi_head(recorder, layer, arguments))
    return recorder.intervene(record, output, _heads_first, lambda: _heads_first(arguments["value"])), weights


def _observe_multi_head(recorder: Recorder, layer: Any, arguments: dict[str, Any]) -> ObservedAttention:
    # GroupQueryAttention has repeated each key head for the query heads that it serves.
    key = arguments["key"][:, :, :: getattr(layer, "num_repeats", 1)]
    mask = arguments.get("attention_mask")
    fields: dict[str, Any] = {"array": mask}
    if id(mask) in recorder.dense_masks:
        _, parts = recorder.dense_masks[id(mask)]
        fields = _mask_fields(layer, parts)
    if arguments.get("use_causal_mask"):
        fields["right"] = 0
    scale = _keras_private.get_attention_scale(layer)
    return ObservedAttention(query=_heads_first(arguments["query"]), key=_heads_first(key), scale=scale, **fields)


def _mask_fields(layer: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a dense mask as fields of `ObservedAttention`."""
    keys = parts.get("value_mask")
    if parts.get("key_mask") is not None:
        keys = parts["key_mask"] if keys is None else ops.logical_and(keys, parts["key_mask"])
    window = _keras_private.get_sliding_window(layer)
    distance = None if window is None else window - 1
    return {
        "keys": keys,
        "queries": parts.get("query_mask"),
        "array": parts.get("attention_mask"),
        "left": distance,
        "right": 0 if parts.get("use_causal_mask") else distance,
    }


def dot_product_attention(recorder: Recorder, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Stand in for the backend's fused kernel, which any layer may call."""
    with recorder.muted():
        output = original(*args, **kwargs)
    if not recorder.stack:
        return output
    arguments = inspect.signature(original).bind(*args, **kwargs).arguments
    record = recorder.record(recorder.stack[-1], lambda: _observe_fused(arguments))
    return recorder.intervene(record, output, _heads_first, lambda: _heads_first(arguments["value"]))


def _observe_fused(arguments: dict[str, Any]) -> ObservedAttention:
    return ObservedAttention(
        query=_heads_first(arguments["query"]),
        key=_heads_first(arguments["key"]),
        scale=arguments.get("scale"),
        bias=arguments.get("bias"),
        array=arguments.get("mask"),
        right=0 if arguments.get("is_causal") else None,
    )


def _heads_first(tensor: Any) -> Any:
    """Transpose (B, T, N, H) to (B, N, T, H)."""
    return ops.transpose(tensor, (0, 2, 1, 3))
