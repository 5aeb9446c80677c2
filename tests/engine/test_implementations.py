"""Every path gives what the plain formula and the loops give, output and gradient, whatever the parts and the sizes."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
import oracles
from contracts.cases import CASES, B, Case, N, T, V
from contracts.test_contract import inputs, learned, numpy
from gradients import gradients
from limelight.engine import implementations, thresholds
from limelight.engine.call import make_call

BACKEND = keras.backend.backend()
BLOCKS = {"jax": ("online_softmax", "blockwise"), "tensorflow": ("blockwise",), "torch": ("fused", "blockwise")}[
    BACKEND
]

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    """BigBird of two or so rows, and a last one that is not full."""
    with thresholds.using(rows=2, columns=3, scores_per_block=17):
        yield


def possible(arrays: Any, parts: dict[str, Any]) -> list[str]:
    """The paths by blocks that can do what is asked."""
    call = make_call(*arrays[:2], **parts)
    call = call.prepare() if BACKEND == "torch" else call
    found = []
    for implementation in BLOCKS:
        with thresholds.using(implementation=implementation):
            found += [implementation] if implementations.choose(call).name == implementation else []
    return found


@each_case
def test_gradients_equal_those_of_the_formula(case: Case) -> None:
    arrays = inputs(case.size)
    parts = case.parts()
    variables, _ = learned(parts, *arrays[:2])
    target = np.random.default_rng(41).normal(size=(B, N, T, V)).astype("float32")

    def loss(*arrays: Any) -> Any:
        return ops.sum(ll.attend(*arrays, **parts) * ops.convert_to_tensor(target))

    with thresholds.using(implementation="dense"):
        expected = gradients(loss, arrays, variables)
    for implementation in possible(arrays, parts):
        with thresholds.using(implementation=implementation):
            found = gradients(loss, arrays, variables)
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            bound = 3e-5 * max(1.0, np.abs(other).max())
            np.testing.assert_allclose(one, other, rtol=3e-4, atol=bound, err_msg=f"{implementation}, {index}")


@pytest.mark.parametrize("kept", [N, 1])
@pytest.mark.parametrize(
    "name", ["defaults", "normed rotary plus alibi", "padding of both", "learned sink", "sparsemax"]
)
def test_output_equals_the_loops(name: str, kept: int) -> None:
    case = next(case for case in CASES if case.name == name)
    arrays = inputs(case.size, kept)
    parts = case.parts()
    _, parameters = learned(parts, *arrays[:2])
    expected = oracles.attend(*arrays, **case.oracle, parameters=parameters)
    for implementation in possible(arrays, parts):
        with thresholds.using(implementation=implementation):
            np.testing.assert_allclose(numpy(ll.attend(*arrays, **parts)), expected, atol=3e-5, err_msg=implementation)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow runs one graph on several lengths")
@pytest.mark.parametrize("jit", [False, True])
def test_a_length_that_is_not_known_before_is_looked_at_when_it_is(jit: bool) -> None:
    import tensorflow as tf

    parts = {"mask": ll.masks.Causal() & ll.masks.SlidingWindow(4)}
    signature = [tf.TensorSpec((None, N, None, 4))] * 2

    def both(query: Any, key: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(key)
            output = ll.attend(query, key, key, **parts)
        return output, tape.gradient(output, key)

    with thresholds.using(max_dense_scores=4 * N * 6 * 6):
        run = tf.function(both, input_signature=signature, jit_compile=jit)
        random = np.random.default_rng(43)
        for rows, columns in ((3, 5), (7, 11)):
            query, key = (random.normal(size=(4, N, length, 4)).astype("float32") for length in (rows, columns))
            found = run(query, key)
            with thresholds.using(implementation="dense"):
                expected = both(*map(tf.constant, (query, key)))
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the other backends compile in the tests above or never")
@pytest.mark.parametrize("name", ["defaults", "window", "additive", "sparsemax"])
def test_blocks_under_xla(name: str) -> None:
    import tensorflow as tf

    case = next(case for case in CASES if case.name == name)
    arrays = inputs(case.size)
    parts = case.parts()
    learned(parts, *arrays[:2])

    def both(query: Any, key: Any, value: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch((query, key, value))
            output = ll.attend(query, key, value, **parts)
        return output, *tape.gradient(output, (query, key, value))

    tensors = [tf.constant(array) for array in arrays]
    with thresholds.using(implementation="dense"):
        expected = both(*tensors)
    with thresholds.using(implementation="blockwise"):
        found = tf.function(both, jit_compile=True)(*tensors)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


class Holder(keras.Layer):
    """A layer that attends and leaves it to Keras to find out what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = ll.layers.SelfAttention(4, name="inner")

    def build(self, shape: tuple) -> None:
        self.inner.build(shape)

    def call(self, steps: Any) -> Any:
        return self.inner(steps)


@pytest.mark.parametrize("length", [None, 300])
def test_shapes_that_keras_finds_out_itself(length: int | None) -> None:
    assert Holder()(keras.Input((length, 3))).shape == (None, length, 4)
