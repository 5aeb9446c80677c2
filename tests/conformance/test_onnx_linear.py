"""ONNX's cases for its operator `LinearAttention`, asked of `associate`."""

from typing import Any

import pytest

from conformance.onnx_nodes import Answers, Node, heads, joined, nodes, tensor
from limelight.layers.linear import associate

NODES = nodes("LinearAttention")


def answered(node: Node) -> dict[str, Any]:
    """The outputs of a node by their names."""
    attributes, given = node.attributes, node.inputs
    kept = attributes["kv_num_heads"]
    state = given.get("past_state")
    output, state = associate(
        heads(given["query"], attributes["q_num_heads"]),
        *(heads(given[name], kept) for name in ("key", "value")),
        # A decay for each number of a key or one for each head, a rate for each head or one for all.
        decay=heads(given["decay"], kept) if "decay" in given else None,
        rate=heads(given["beta"], given["beta"].shape[-1]) if "beta" in given else None,
        scale=attributes.get("scale"),
        state=None if state is None else tensor(state),
    )
    return {"output": joined(output), "present_state": state}


ANSWERS = Answers(NODES, answered)


def test_no_case_is_left_out() -> None:
    assert len(NODES) == 14


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_case(node: Node) -> None:
    ANSWERS.check(node)
