"""The cases that ONNX has for whoever implements its attention operators: inputs, attributes and what must come out."""

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

from compiling import at_once

MODULES = ("attention", "linear_attention")
# How far an output may lie from ONNX's, relatively and absolutely: ONNX's own bounds; in half precision, whose numbers ONNX's
# reference rounds after each step, two of its steps.
BOUNDS = {"float32": (1e-3, 1e-7), "float16": (2**-9, 2**-11), "bfloat16": (2**-6, 2**-8)}


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One call of an operator.

    Args:
        name: of the case, without its first word, "test".
        attributes: those that are set.
        inputs, outputs: arrays by the names that the operator's schema has for them; those left out are missing.
    """

    name: str
    attributes: dict[str, Any]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def nodes(operator: str) -> list[Node]:
    """The cases of an operator, without those that spell it out in other operators ("expanded").

    They are those of `onnx.backend.test.case.node.collect_testcases(operator)`. That computes the cases of every operator there
    is to find these few; here only the modules of attention are loaded.
    """
    with warnings.catch_warnings():
        # Some of the reference's numbers are infinite on purpose.
        warnings.simplefilter("ignore")
        for module in MODULES:
            importlib.import_module(f"{collection.__name__}.{module}")
    schema, found = onnx.defs.get_schema(operator), []
    for case in collection._NodeTestCases:
        node = case.model.graph.node[0]
        if node.op_type != operator or case.name.endswith("expanded"):
            continue
        ((inputs, outputs),) = case.data_sets
        found.append(
            Node(
                case.name.removeprefix("test_"),
                {given.name: onnx.helper.get_attribute_value(given) for given in node.attribute},
                named(schema.inputs, node.input, inputs),
                named(schema.outputs, node.output, outputs),
            )
        )
    return found


def named(schema: Any, given: Any, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays by the schema's names. A node lists its arguments in the schema's order, and "" for one that it leaves out."""
    names = [formal.name for formal, actual in zip(schema, given, strict=False) if actual]
    return dict(zip(names, arrays, strict=True))


class Answers:
    """What limelight makes of nodes, computed a few at a time, when the first of them is asked for.

    Args:
        nodes: all of them.
        answered: makes the outputs of a node, by their names.
    """

    def __init__(self, nodes: list[Node], answered: Callable[[Node], dict[str, Any]]) -> None:
        self.nodes, self.answered = nodes, answered
        self.known: dict[str, dict[str, Any]] = {}

    def check(self, node: Node, count: int = 12) -> None:
        """Raise where an output is not ONNX's."""
        if node.name not in self.known:
            first = self.nodes.index(node) // count * count
            few = self.nodes[first : first + count]
            found = at_once([functools.partial(self.answered, each) for each in few])
            self.known.update(zip((each.name for each in few), found, strict=True))
        for name, expected in node.outputs.items():
            close(self.known[node.name][name], expected, name)


def tensor(array: np.ndarray) -> Any:
    """A tensor of the array's dtype; torch and TensorFlow take no bfloat16 from numpy."""
    dtype = array.dtype.name
    return ops.cast(array.astype("float32"), dtype) if dtype == "bfloat16" else ops.convert_to_tensor(array)


def heads(array: np.ndarray, count: int | None) -> Any:
    """(B, T, N * H) as (B, N, T, H); what has an axis for its heads already stays as it is."""
    if array.ndim == 4:
        return tensor(array)
    batch, length, width = array.shape
    return tensor(array.reshape(batch, length, count, width // count).transpose(0, 2, 1, 3))


def joined(output: Any) -> Any:
    """(B, N, T, V) as (B, T, N * V)."""
    batch, count, length, size = output.shape
    return ops.reshape(ops.transpose(output, (0, 2, 1, 3)), (batch, length, count * size))


def close(found: Any, expected: np.ndarray, name: str) -> None:
    """Raise where an output is not ONNX's."""
    relative, absolute = BOUNDS[expected.dtype.name]
    found = np.asarray(ops.convert_to_numpy(ops.cast(found, "float32")))
    np.testing.assert_allclose(found, expected.astype("float32"), rtol=relative, atol=absolute, err_msg=name)
