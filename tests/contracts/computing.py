"""What the tests of the components compute: on the same inputs, and once for all tests that look at it."""

import functools
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

import limelight as ll
from compiling import fast_compilation
from contracts.cases import B, Case, N, S, T, V
from gradients import gradients
from limelight.engine.call import make_call

# What the gradients are those of: the sum of the output times this.
TARGET = np.random.default_rng(31).normal(size=(B, N, T, V)).astype("float32")


@functools.cache
def inputs(size: int, num_kv_heads: int = N) -> tuple[np.ndarray, ...]:
    """Return queries, keys and values, the same for all tests."""
    random = np.random.default_rng(23)
    shapes = ((B, N, T, size), (B, num_kv_heads, S, size), (B, num_kv_heads, S, V))
    return tuple(random.normal(size=shape).astype("float32") for shape in shapes)


def randomize(parts: dict[str, Any], query: Any, key: Any) -> tuple[list[keras.Variable], dict[str, np.ndarray]]:
    """Build components for queries and keys, set their variables to random values, and return variables and values by name."""
    layers = [part for part in parts.values() if isinstance(part, keras.Layer)]
    if layers:
        make_call(query, key, **parts)
    random = np.random.default_rng(29)
    variables = [variable for layer in layers for variable in layer.trainable_variables]
    for variable in variables:
        variable.assign((0.5 * random.normal(size=variable.shape)).astype("float32"))
    return variables, {variable.name: ops.convert_to_numpy(variable) for variable in variables}


def numpy(tensor: Any) -> np.ndarray:
    """Convert a tensor to numpy, in float32."""
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))


class Results(NamedTuple):
    """The weights (B, N, T, S) and output (B, N, T, V) of a case, and the gradients by its inputs and variables."""

    weights: Any
    output: Any
    gradients: list[np.ndarray]
    parameters: dict[str, np.ndarray]


@functools.cache
def compute(case: Case, num_kv_heads: int = N) -> Results:
    """Compute all of a case with the optimizations that users have; JAX compiles it as one program."""
    arrays, parts = inputs(case.size, num_kv_heads), case.parts()
    variables, parameters = randomize(parts, *arrays[:2])

    def loss(query: Any, key: Any, value: Any) -> Any:
        output = ll.attend(query, key, value, **parts)
        return ops.sum(output * ops.convert_to_tensor(TARGET)), (ll.attention_weights(query, key, **parts), output)

    with fast_compilation(False):
        computed, (weights, output) = gradients(loss, arrays, variables, has_aux=True)
    return Results(weights, output, computed, parameters)
