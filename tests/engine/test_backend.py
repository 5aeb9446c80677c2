"""The interface between the engine and the backend, and the hook of `functional`."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from limelight import functional
from limelight.engine import backend

ACTIVE = backend.active()


def test_arrays_become_tensors_of_the_backend() -> None:
    array = np.arange(6, dtype="float32").reshape(2, 3)
    tensor, nothing, converted, variable, symbolic = ACTIVE.as_tensors(
        ops.convert_to_tensor(array), None, array.tolist(), keras.Variable(array), keras.KerasTensor((2, 3))
    )
    assert nothing is None
    assert isinstance(symbolic, keras.KerasTensor)
    for result in (tensor, converted, variable):
        assert ops.is_tensor(result)
        np.testing.assert_array_equal(ops.convert_to_numpy(result), array)


def test_tensors_are_not_copied() -> None:
    tensors = [ops.zeros((2, 3)), None, ops.ones((4, 3))]
    assert all(x is y for x, y in zip(ACTIVE.as_tensors(*tensors), tensors, strict=True))


def test_gradients_are_zero_where_there_is_no_dependence() -> None:
    used, unused = ops.convert_to_tensor([2.0, 3.0]), ops.ones((5,))
    gradients = ACTIVE.gradients(lambda tensors: ops.sum(tensors[0] ** 2), [used, unused])
    np.testing.assert_allclose(ops.convert_to_numpy(gradients[0]), [4.0, 6.0])
    np.testing.assert_array_equal(ops.convert_to_numpy(gradients[1]), np.zeros(5))


@pytest.mark.parametrize("jit", [None, False, True])
def test_stateless_models_return_new_values_and_keep_their_own(jit: bool | None) -> None:
    counter = keras.Sequential([keras.Input((3,)), Counter()])

    def run(values: list[Any], inputs: Any) -> Any:
        return backend.run_stateless(counter, ACTIVE.state_variables(counter), values, inputs)

    compiled = run if jit is None else ACTIVE.compile(run, jit=jit)
    values = [ops.convert_to_tensor(5.0)]
    outputs, (count,) = compiled(values, ops.ones((2, 3)))
    np.testing.assert_array_equal(ops.convert_to_numpy(outputs), np.full((2, 3), 6.0))
    assert float(ops.convert_to_numpy(count)) == 6
    assert float(ops.convert_to_numpy(counter.non_trainable_variables[0])) == 0


class Counter(keras.Layer):
    """A layer that multiplies by the number of its calls."""

    def build(self, shape: tuple) -> None:
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs: Any) -> Any:
        self.count.assign(self.count + 1)
        return inputs * self.count


def test_softmax_calls_one_function_that_tells_its_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    axes, functions = [], ACTIVE.softmax_functions()

    def spy(function: Any, get_axis: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            axes.append(get_axis(*args, **kwargs))
            return function(*args, **kwargs)

        return call

    for owner, name, get_axis in functions:
        monkeypatch.setattr(owner, name, spy(getattr(owner, name), get_axis))
    np.testing.assert_allclose(
        ops.convert_to_numpy(ops.softmax(ops.zeros((2, 3, 4)), axis=-1)), np.full((2, 3, 4), 0.25)
    )
    # PyTorch's operations are all observed, so that it has no such function.
    assert [axis % 3 for axis in axes] == ([2] if functions else [])


def test_a_transform_replaces_the_output_of_layers() -> None:
    steps = np.random.default_rng(7).normal(size=(2, 5, 3)).astype("float32")
    layer = ll.layers.Attention(score=ll.scores.Dot())
    original = ops.convert_to_numpy(layer(steps, steps))
    calls = []

    def double(call: Any, output: Any, value: Any) -> Any:
        calls.append((call, value))
        return 2 * output

    with functional.on_call(lambda call: calls.append(call), double):
        doubled = layer(steps, steps)
        # Without a layer there is nothing to replace.
        np.testing.assert_allclose(ops.convert_to_numpy(ll.attend(steps, steps, steps)), original, atol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(doubled), 2 * original, atol=1e-6)
    announced, (transformed, value) = calls
    assert announced is transformed
    assert announced.layer is layer
    assert tuple(value.shape) == (2, 1, 5, 3)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(steps, steps)), original)
