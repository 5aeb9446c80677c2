"""What Keras's own attention layers ask."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from limelight.inspection.observation import Observation
from limelight.inspection.recorder import Record, Recorder


def plain(layer: Any, kind: type, *methods: str) -> bool:
    """Whether a layer does in some methods what its class of Keras does, and not what a subclass made of them."""
    return all(getattr(type(layer), name) is getattr(kind, name) for name in methods)


def attention(layer: Any, arguments: dict[str, Any], outputs: Any) -> Observation:
    """What `Attention` and `AdditiveAttention` ask."""
    query, value, *rest = arguments["inputs"]
    key = rest[0] if rest else value
    mask = arguments.get("mask")
    query_mask, value_mask = (mask[0], mask[1]) if mask else (None, None)
    scoring: dict[str, Any] = {"scale": 1.0 if layer.scale is None else layer.scale}
    size = query.shape[-1]
    if isinstance(layer, keras.layers.AdditiveAttention):
        scoring = {"scale": 1.0, "vector": ops.ones((size,)) if layer.scale is None else layer.scale}
    elif layer.score_mode == "concat":
        query, key = query * ops.cast(scoring["scale"], query.dtype), key * ops.cast(scoring["scale"], key.dtype)
        scoring = {"scale": layer.concat_score_weight, "vector": ops.ones((size,))}
    padding: dict[str, Any] = {"queries": query_mask}
    if value_mask is not None:
        padding["keys" if len(value_mask.shape) == 2 else "array"] = value_mask
    right = 0 if arguments.get("use_causal_mask") else None
    return Observation(query=query, key=key, right=right, **scoring, **padding)


def touched_attention(recorder: Recorder, record: Record | None, arguments: dict[str, Any], outputs: Any) -> Any:
    """The outputs of `Attention` or `AdditiveAttention` with what stands in place of the attention's own."""
    result, *weights = outputs if isinstance(outputs, (tuple, list)) else (outputs,)

    def laid_out(tensor: Any) -> Any:
        return ops.expand_dims(tensor, -3)

    result = recorder.touched(record, result, laid_out, lambda: laid_out(arguments["inputs"][1]))
    return (result, *weights) if weights else result


def claims_attention(layer: Any) -> bool:
    """Whether a layer computes as `Attention` or `AdditiveAttention` do, whatever its subclass adds around it."""
    methods = ("call", "_calculate_scores", "_apply_scores", "_calculate_score_mask")
    return any(plain(layer, kind, *methods) for kind in (keras.layers.Attention, keras.layers.AdditiveAttention))


def compute_mask(recorder: Recorder, original: Callable[..., Any], layer: Any, *args: Any, **kwargs: Any) -> Any:
    """Remember what a dense mask was made of: its parts take T + S numbers, not T x S."""
    mask = original(layer, *args, **kwargs)
    if mask is not None:
        given = inspect.signature(original).bind(layer, *args, **kwargs).arguments
        recorder.masks[id(mask)] = (mask, given)
    return mask


def compute_attention(recorder: Recorder, original: Callable[..., Any], layer: Any, *args: Any, **kwargs: Any) -> Any:
    """What `MultiHeadAttention` and `GroupQueryAttention` ask, whichever kernel answers."""
    kind = keras.layers.MultiHeadAttention
    kind = kind if isinstance(layer, kind) else keras.layers.GroupQueryAttention
    given = inspect.signature(original).bind(layer, *args, **kwargs).arguments
    if not plain(layer, kind, "_masked_softmax") or len(given["query"].shape) != 4:
        return original(layer, *args, **kwargs)
    with recorder.muted():
        result, scores = original(layer, *args, **kwargs)
    record = recorder.record(layer, lambda: _asked(recorder, layer, given))
    return recorder.touched(record, result, heads_first, lambda: heads_first(given["value"])), scores


def _asked(recorder: Recorder, layer: Any, given: dict[str, Any]) -> Observation:
    key = given["key"]
    repeats = getattr(layer, "num_repeats", 1)
    if repeats > 1:
        # Keras repeats each key head for the query heads that it serves; once is enough.
        key = key[:, :, ::repeats]
    scale = layer._inverse_sqrt_key_dim if hasattr(layer, "_inverse_sqrt_key_dim") else layer._inverse_sqrt_head_dim
    mask = given.get("attention_mask")
    parts: dict[str, Any] = {"array": mask}
    if id(mask) in recorder.masks:
        parts = _parts(layer, *recorder.masks[id(mask)])
    if given.get("use_causal_mask"):
        parts["right"] = 0
    return Observation(query=heads_first(given["query"]), key=heads_first(key), scale=scale, **parts)


def _parts(layer: Any, mask: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The parts that a dense mask was made of."""
    keys = given.get("value_mask")
    if given.get("key_mask") is not None:
        keys = given["key_mask"] if keys is None else ops.logical_and(keys, given["key_mask"])
    window = getattr(layer, "_sliding_window", None) or getattr(layer, "sliding_window", None)
    reach = None if window is None else window - 1
    return {
        "keys": keys,
        "queries": given.get("query_mask"),
        "array": given.get("attention_mask"),
        "left": reach,
        "right": 0 if given.get("use_causal_mask") else reach,
    }


def dot_product_attention(recorder: Recorder, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What any layer asks of the backend's fused kernel."""
    with recorder.muted():
        outputs = original(*args, **kwargs)
    if not recorder.stack:
        return outputs
    given = inspect.signature(original).bind(*args, **kwargs).arguments
    record = recorder.record(recorder.stack[-1], lambda: _fused(given))
    return recorder.touched(record, outputs, heads_first, lambda: heads_first(given["value"]))


def _fused(given: dict[str, Any]) -> Observation:
    return Observation(
        query=heads_first(given["query"]),
        key=heads_first(given["key"]),
        scale=given.get("scale"),
        bias=given.get("bias"),
        array=given.get("mask"),
        right=0 if given.get("is_causal") else None,
    )


def heads_first(tensor: Any) -> Any:
    """(B, T, N, H) as (B, N, T, H)."""
    return ops.transpose(tensor, (0, 2, 1, 3))
