"""All of ONNX's cases for its operator `Attention`, computed by `attend`, `attention_weights` and `KVCache`."""

from typing import Any

import numpy as np
import pytest
from keras import ops

import limelight as ll
from conformance.onnx_nodes import Answers, Node, heads, joined, nodes, tensor
from limelight import masks
from limelight.engine.call import make_call
from limelight.layers import KVCache
from limelight.scores import Score

pytestmark = pytest.mark.full

NODES = nodes("Attention")


def answered(node: Node) -> dict[str, Any]:
    """The outputs of a node by their names."""
    attributes, given = node.attributes, node.inputs
    query = heads(given["Q"], attributes.get("q_num_heads"))
    key, value = (heads(given[name], attributes.get("kv_num_heads")) for name in ("K", "V"))
    cache = cached(node, key, value)
    if cache is not None:
        key, value = cache.key, cache.value
    asked = {"mask": mask(node, cache, key.shape[2]), **positions(node, cache, query.shape[2])}
    scores = stages(node, key.shape[2])
    output = ll.attend(query, key, value, score=scores[-1], **asked)
    found = {"Y": joined(output) if given["Q"].ndim == 3 else output, "present_key": key, "present_value": value}
    if "qk_matmul_output" in node.outputs:
        mode = attributes.get("qk_matmul_output_mode", 0)
        if mode == 3:
            found["qk_matmul_output"] = ll.attention_weights(query, key, score=scores[-1], **asked)
        else:
            call = make_call(query, key, score=scores[mode], **asked)
            found["qk_matmul_output"] = call.score(call.query, call.key, block=call.block)
            if mode == 2 and call.mask is not None:
                permitted = call.mask(call.block)
                found["qk_matmul_output"] = ops.where(permitted, found["qk_matmul_output"], float("-inf"))
    return {name: found[name] for name in node.outputs}


def cached(node: Node, key: Any, value: Any) -> KVCache | None:
    """Past keys and values with the new ones appended; or keys and values that hold a cache already, padded at its end."""
    if "past_key" in node.inputs:
        past = [tensor(node.inputs[name]) for name in ("past_key", "past_value")]
        batch, kept, length, size = past[0].shape
        empty = KVCache.empty(batch, kept, length + key.shape[2], size, value.shape[-1], past[0].dtype)
        return empty.append(*past).append(key, value)
    if "nonpad_kv_seqlen" in node.inputs:
        length, slots = node.inputs["nonpad_kv_seqlen"].astype("int32"), np.arange(key.shape[2], dtype="int32")
        filled = np.where(slots < length[:, None], slots, -1)
        return KVCache(key, value, ops.convert_to_tensor(filled), ops.convert_to_tensor(length))
    return None


def stages(node: Node, columns: int) -> list[Score]:
    """The scores as ONNX numbers them: the scaled product, that with a cap, that with the finite part of a float mask."""
    product = ll.scores.Dot(node.attributes.get("scale"))
    cap = node.attributes.get("softcap", 0.0)
    capped = ll.scores.SoftCap(product, cap) if cap else product
    array = node.inputs.get("attn_mask")
    if array is None or array.dtype == bool:
        return [product, capped, capped]
    array = array.astype("float32")
    return [product, capped, capped + ll.scores.Bias(full(np.where(np.isneginf(array), 0.0, array), columns))]


def mask(node: Node, cache: KVCache | None, columns: int) -> masks.Mask | None:
    """Causal and window, the filled slots of a cache, and what the mask array permits: not False and not minus infinity.

    Without a cache ONNX puts the first query at the first key.
    """
    found: masks.Mask | None = ll.masks.Causal("start") if node.attributes.get("is_causal") else None
    sides = [node.attributes.get(f"{side}_window_size", -1) for side in ("left", "right")]
    if max(sides) >= 0:
        found = masks.intersect(
            found, ll.masks.SlidingWindow(*(None if size < 0 else size for size in sides), align="start")
        )
    if cache is not None:
        found = masks.intersect(found, cache.mask())
    array = node.inputs.get("attn_mask")
    if array is None:
        return found
    permitted = array if array.dtype == bool else ~np.isneginf(array.astype("float32"))
    return masks.intersect(found, ll.masks.ArrayMask(full(permitted, columns)))


def full(array: np.ndarray, columns: int) -> np.ndarray:
    """An array of at least two axes whose last one has all columns: those that ONNX leaves out are forbidden."""
    array = np.atleast_2d(array)
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, columns - array.shape[-1])])


def positions(node: Node, cache: KVCache | None, rows: int) -> dict[str, Any]:
    """Return the positions of queries and keys if there is a cache: new queries follow the past, or end with the real keys."""
    if cache is None:
        return {}
    past = node.inputs.get("past_key")
    queries = cache.last_positions(rows) if past is None else past.shape[2] + np.arange(rows)
    return {"query_positions": queries, "key_positions": cache.positions}


ANSWERS = Answers(NODES, answered)


def test_no_case_is_left_out() -> None:
    assert len(NODES) == 93


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_case(node: Node) -> None:
    ANSWERS.check(node)
