"""ONNX's test cases of its attention operators: inputs, attributes and expected outputs."""

import dataclasses
import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from keras import ops
from onnx.backend.test.case import node as collection

from compiling import run_together

MODULES = ("attention", "linear_attention")
# Relative and absolute tolerances: ONNX's own; in half precision, in which ONNX's reference rounds after each step, the
# rounding of two steps.
TOLERANCES = {"float32": (1e-3, 1e-7), "float16": (2**-9, 2**-11), "bfloat16": (2**-6, 2**-8)}


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One call of an operator.

    Args:
        name: The name of the case without "test_".
        attributes: The attributes that are set.
        inputs, outputs: Arrays by their names in the operator's schema, without those that the node leaves out.
    """

    name: str
    attributes: dict[str, Any]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def load_nodes(operator: str) -> list[Node]:
    """Return the cases of an operator, without those that expand it to other operators.

    They are those of `onnx.backend.test.case.node.collect_testcases(operator)`, which would compute the cases of every operator.
    """
    with warnings.catch_warnings():
        # Some numbers of the reference are infinite on purpose.
        warnings.simplefilter("ignore")
        for module in MODULES:
            importlib.import_module(f"{collection.__name__}.{module}")
    schema, nodes = onnx.defs.get_schema(operator), []
    for case in collection._NodeTestCases:
        node = case.model.graph.node[0]
        if node.op_type != operator or case.name.endswith("expanded"):
            continue
        ((inputs, outputs),) = case.data_sets
        nodes.append(
            Node(
                case.name.removeprefix("test_"),
                {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute},
                name_arrays(schema.inputs, node.input, inputs),
                name_arrays(schema.outputs, node.output, outputs),
            )
        )
    return nodes


def name_arrays(schema: Any, arguments: Any, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays by the schema's names. A node lists its arguments in that order, and "" for one that it leaves out."""
    names = [formal.name for formal, actual in zip(schema, arguments, strict=False) if actual]
    return dict(zip(names, arrays, strict=True))


class NodeChecker:
    """Compares the outputs of nodes with ONNX's. Several nodes are compiled together, when the first of them is checked.

    Args:
        nodes: All nodes.
        compute: Computes the outputs of a node, by their names.
    """

    def __init__(self, nodes: list[Node], compute: Callable[[Node], dict[str, Any]]) -> None:
        self.nodes, self.compute = nodes, compute
        self.outputs: dict[str, dict[str, Any]] = {}

    def check(self, node: Node, count: int = 12) -> None:
        """Raise AssertionError if an output differs from ONNX's."""
        if node.name not in self.outputs:
            first = self.nodes.index(node) // count * count
            group = self.nodes[first : first + count]
            outputs = run_together([functools.partial(self.compute, member) for member in group])
            self.outputs.update(zip((member.name for member in group), outputs, strict=True))
        for name, expected in node.outputs.items():
            assert_close(self.outputs[node.name][name], expected, name)


def tensor(array: np.ndarray) -> Any:
    """Return a tensor of the array's dtype. PyTorch and TensorFlow take no bfloat16 from numpy."""
    dtype = array.dtype.name
    return ops.cast(array.astype("float32"), dtype) if dtype == "bfloat16" else ops.convert_to_tensor(array)


def split_heads(array: np.ndarray, num_heads: int | None) -> Any:
    """Reshape (B, T, N * H) to (B, N, T, H). An array that has an axis of heads is returned as it is."""
    if array.ndim == 4:
        return tensor(array)
    batch, length, width = array.shape
    return tensor(array.reshape(batch, length, num_heads, width // num_heads).transpose(0, 2, 1, 3))


def merge_heads(output: Any) -> Any:
    """Reshape (B, N, T, V) to (B, T, N * V)."""
    batch, num_heads, length, size = output.shape
    return ops.reshape(ops.transpose(output, (0, 2, 1, 3)), (batch, length, num_heads * size))


def assert_close(output: Any, expected: np.ndarray, name: str) -> None:
    """Raise AssertionError if an output differs from ONNX's."""
    relative, absolute = TOLERANCES[expected.dtype.name]
    output = np.asarray(ops.convert_to_numpy(ops.cast(output, "float32")))
    np.testing.assert_allclose(output, expected.astype("float32"), rtol=relative, atol=absolute, err_msg=name)
