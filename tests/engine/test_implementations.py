"""Every implementation has the outputs and gradients of the dense formula and of the oracle, for all parts and sizes."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
import oracles
from contracts.cases import CASES, Case, N
from contracts.computing import TARGET, compute, inputs, numpy, randomize
from contracts.representative import REPRESENTATIVE, parametrize
from gradients import gradients
from limelight.engine import backend, implementations, thresholds
from limelight.engine.call import make_call

BACKEND = keras.backend.backend()
IMPLEMENTATIONS = {
    "jax": ("online_softmax", "blockwise"),
    "tensorflow": ("blockwise",),
    "torch": ("fused", "blockwise", "dense"),
}[BACKEND]

# The representative cases, and those whose masks and normalizers the implementations treat in ways of their own.
TREATED = REPRESENTATIVE | {"normed rotary plus alibi", "padding of both", "prefix", "segments", "sparsemax", "window"}
each_case = parametrize(CASES, TREATED)


@pytest.fixture(autouse=True)
def _small_blocks() -> Iterator[None]:
    """Blocks of about two rows, the last of which is not full."""
    with thresholds.using(rows=2, columns=3, scores_per_block=17):
        yield


def supported(arrays: Any, parts: dict[str, Any]) -> list[str]:
    """Return the implementations, other than the one chosen for small sizes, that can compute a call."""
    names = []
    for name in IMPLEMENTATIONS:
        with thresholds.using(implementation=name):
            call = backend.active().prepare(make_call(*arrays[:2], **parts))
            names += [name] if implementations.choose(call).name == name else []
    return names


@each_case
def test_gradients_equal_those_without_blocks(case: Case) -> None:
    arrays = inputs(case.size)
    parts = case.parts()
    variables, _ = randomize(parts, *arrays[:2])

    def loss(*arrays: Any) -> Any:
        return ops.sum(ll.attend(*arrays, **parts) * ops.convert_to_tensor(TARGET))

    # Those of the implementation that is chosen for small sizes, which the contract compares with the oracle.
    expected = compute(case).gradients
    for implementation in supported(arrays, parts):
        with thresholds.using(implementation=implementation):
            actual = gradients(loss, arrays, variables)
        for index, (x, y) in enumerate(zip(actual, expected, strict=True)):
            atol = 3e-5 * max(1.0, np.abs(y).max())
            np.testing.assert_allclose(x, y, rtol=3e-4, atol=atol, err_msg=f"{implementation}, {index}")


@pytest.mark.parametrize("kv_heads", [N, 1])
@pytest.mark.parametrize(
    "name", ["defaults", "normed rotary plus alibi", "padding of both", "learned sink", "sparsemax"]
)
def test_output_equals_the_oracle(name: str, kv_heads: int) -> None:
    case = next(case for case in CASES if case.name == name)
    arrays = inputs(case.size, kv_heads)
    parts = case.parts()
    _, parameters = randomize(parts, *arrays[:2])
    expected = oracles.attend(*arrays, **case.oracle, parameters=parameters)
    for implementation in supported(arrays, parts):
        with thresholds.using(implementation=implementation):
            np.testing.assert_allclose(numpy(ll.attend(*arrays, **parts)), expected, atol=3e-5, err_msg=implementation)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow runs one graph on several lengths")
@pytest.mark.parametrize("jit", [False, True])
def test_a_mask_of_unknown_length_is_applied_at_run_time(jit: bool) -> None:
    import tensorflow as tf

    parts: dict[str, Any] = {"mask": ll.masks.Causal() & ll.masks.SlidingWindow(4)}
    signature = [tf.TensorSpec((None, N, None, 4))] * 2

    def output_and_gradient(query: Any, key: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(key)
            output = ll.attend(query, key, key, **parts)
        return output, tape.gradient(output, key)

    with thresholds.using(max_dense_scores=4 * N * 6 * 6):
        run = tf.function(output_and_gradient, input_signature=signature, jit_compile=jit)
        random = np.random.default_rng(43)
        for rows, columns in ((3, 5), (7, 11)):
            query, key = (random.normal(size=(4, N, length, 4)).astype("float32") for length in (rows, columns))
            actual = run(query, key)
            with thresholds.using(implementation="dense"):
                expected = output_and_gradient(*map(tf.constant, (query, key)))
            for x, y in zip(actual, expected, strict=True):
                np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the other backends compile in the tests above or never")
@pytest.mark.parametrize("name", ["defaults", "window", "additive", "sparsemax"])
def test_blocks_under_xla(name: str) -> None:
    import tensorflow as tf

    case = next(case for case in CASES if case.name == name)
    arrays = inputs(case.size)
    parts = case.parts()
    randomize(parts, *arrays[:2])

    def output_and_gradients(query: Any, key: Any, value: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch((query, key, value))
            output = ll.attend(query, key, value, **parts)
        return output, *tape.gradient(output, (query, key, value))

    tensors = [tf.constant(array) for array in arrays]
    with thresholds.using(implementation="dense"):
        expected = output_and_gradients(*tensors)
    with thresholds.using(implementation="blockwise"):
        actual = tf.function(output_and_gradients, jit_compile=True)(*tensors)
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


class Holder(keras.Layer):
    """A layer whose output shape Keras infers by tracing."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = ll.layers.SelfAttention(4, name="inner")

    def build(self, shape: tuple) -> None:
        self.inner.build(shape)

    def call(self, steps: Any) -> Any:
        return self.inner(steps)


@pytest.mark.parametrize("length", [None, 300])
def test_shapes_that_keras_infers(length: int | None) -> None:
    assert Holder()(keras.Input((length, 3))).shape == (None, length, 4)
