"""MaskFunction tensors are, and what becomes of those that are given."""

import keras
import numpy as np
from keras import ops

from limelight.engine import backend


def test_what_is_given_becomes_the_backends_tensors() -> None:
    array = np.arange(6, dtype="float32").reshape(2, 3)
    tensor, nothing, converted, variable, symbol = backend.active().as_tensors(
        ops.convert_to_tensor(array), None, array.tolist(), keras.Variable(array), keras.KerasTensor((2, 3))
    )
    assert nothing is None
    assert isinstance(symbol, keras.KerasTensor)
    for one in (tensor, converted, variable):
        assert ops.is_tensor(one)
        np.testing.assert_array_equal(ops.convert_to_numpy(one), array)


def test_tensors_stay_as_they_are() -> None:
    given = [ops.zeros((2, 3)), None, ops.ones((4, 3))]
    assert all(one is other for one, other in zip(backend.active().as_tensors(*given), given, strict=True))
