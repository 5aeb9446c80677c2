"""ONNX's cases of its operator `Attention`, computed by `attend`, `attention_weights` and `KVCache`."""

from typing import Any

import numpy as np
import pytest
from keras import ops

import limelight as ll
from conformance.onnx_nodes import Node, NodeChecker, load_nodes, merge_heads, split_heads, tensor
from limelight import masks
from limelight.engine.call import make_call
from limelight.layers import KVCache
from limelight.scores import Score

pytestmark = pytest.mark.full

NODES = load_nodes("Attention")


def compute(node: Node) -> dict[str, Any]:
    """Return the outputs of a node by their names."""
    attributes, inputs = node.attributes, node.inputs
    query = split_heads(inputs["Q"], attributes.get("q_num_heads"))
    key, value = (split_heads(inputs[name], attributes.get("kv_num_heads")) for name in ("K", "V"))
    cache = make_cache(node, key, value)
    if cache is not None:
        key, value = cache.key, cache.value
    arguments = {"mask": make_mask(node, cache, key.shape[2]), **get_positions(node, cache, query.shape[2])}
    scores = make_scores(node, key.shape[2])
    output = ll.attend(query, key, value, score=scores[-1], **arguments)
    outputs = {
        "Y": merge_heads(output) if inputs["Q"].ndim == 3 else output,
        "present_key": key,
        "present_value": value,
    }
    if "qk_matmul_output" in node.outputs:
        mode = attributes.get("qk_matmul_output_mode", 0)
        if mode == 3:
            outputs["qk_matmul_output"] = ll.attention_weights(query, key, score=scores[-1], **arguments)
        else:
            call = make_call(query, key, score=scores[mode], **arguments)
            outputs["qk_matmul_output"] = call.score(call.query, call.key, block=call.block)
            if mode == 2 and call.mask is not None:
                permitted = call.mask(call.block)
                outputs["qk_matmul_output"] = ops.where(permitted, outputs["qk_matmul_output"], float("-inf"))
    return {name: outputs[name] for name in node.outputs}


def make_cache(node: Node, key: Any, value: Any) -> KVCache | None:
    """Append new keys and values to past ones, or take keys and values that are a cache already, padded at its end."""
    if "past_key" in node.inputs:
        past = [tensor(node.inputs[name]) for name in ("past_key", "past_value")]
        batch, num_kv_heads, length, size = past[0].shape
        empty = KVCache.empty(batch, num_kv_heads, length + key.shape[2], size, value.shape[-1], past[0].dtype)
        return empty.append(*past).append(key, value)
    if "nonpad_kv_seqlen" in node.inputs:
        length, slots = node.inputs["nonpad_kv_seqlen"].astype("int32"), np.arange(key.shape[2], dtype="int32")
        key_positions = np.where(slots < length[:, None], slots, -1)
        return KVCache(key, value, ops.convert_to_tensor(key_positions), ops.convert_to_tensor(length))
    return None


def make_scores(node: Node, columns: int) -> list[Score]:
    """Return the scores in ONNX's order: the scaled product, with the cap, and with the finite part of a float mask."""
    product = ll.scores.Dot(node.attributes.get("scale"))
    cap = node.attributes.get("softcap", 0.0)
    capped = ll.scores.SoftCap(product, cap) if cap else product
    array = node.inputs.get("attn_mask")
    if array is None or array.dtype == bool:
        return [product, capped, capped]
    array = array.astype("float32")
    return [product, capped, capped + ll.scores.Bias(pad_columns(np.where(np.isneginf(array), 0.0, array), columns))]


def make_mask(node: Node, cache: KVCache | None, columns: int) -> masks.Mask | None:
    """Combine causal, window, cache and array masks. The array permits what is neither False nor minus infinity.

    Without a cache, ONNX aligns the first query with the first key.
    """
    mask: masks.Mask | None = ll.masks.Causal("start") if node.attributes.get("is_causal") else None
    sides = [node.attributes.get(f"{side}_window_size", -1) for side in ("left", "right")]
    if max(sides) >= 0:
        mask = masks.intersect(
            mask, ll.masks.SlidingWindow(*(None if size < 0 else size for size in sides), align="start")
        )
    if cache is not None:
        mask = masks.intersect(mask, cache.mask())
    array = node.inputs.get("attn_mask")
    if array is None:
        return mask
    permitted = array if array.dtype == bool else ~np.isneginf(array.astype("float32"))
    return masks.intersect(mask, ll.masks.ArrayMask(pad_columns(permitted, columns)))


def pad_columns(array: np.ndarray, columns: int) -> np.ndarray:
    """Return an array (..., T, S) with all columns: those that ONNX leaves out are forbidden."""
    array = np.atleast_2d(array)
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, columns - array.shape[-1])])


def get_positions(node: Node, cache: KVCache | None, rows: int) -> dict[str, Any]:
    """Return the positions of queries and keys if there is a cache: new queries follow the past, or end with the real keys."""
    if cache is None:
        return {}
    past = node.inputs.get("past_key")
    queries = cache.last_positions(rows) if past is None else past.shape[2] + np.arange(rows)
    return {"query_positions": queries, "key_positions": cache.positions}


CHECKER = NodeChecker(NODES, compute)


def test_no_case_is_left_out() -> None:
    assert len(NODES) == 93


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_case(node: Node) -> None:
    CHECKER.check(node)
