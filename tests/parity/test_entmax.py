"""Sparse normalizers equal the entmax package, forward and gradient."""

import json

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from gradients import compiled, gradients
from parity import record_entmax

pytestmark = pytest.mark.full

RECORDED = json.loads(record_entmax.FILE.read_text())
SCORES, TARGET = (np.array(RECORDED[name], "float32") for name in ("scores", "target"))
NORMALIZERS = {
    "sparsemax": ll.normalizers.Sparsemax(),
    "entmax15": ll.normalizers.Entmax(1.5),
    **{f"entmax {alpha}": ll.normalizers.Entmax(alpha) for alpha in record_entmax.ALPHAS},
}


def attention_weights(scores, normalizer):
    """The weights of given scores, whose kinds stand where heads do."""
    kinds, rows, columns = SCORES.shape
    query, key = np.zeros((1, kinds, rows, 1), "float32"), np.zeros((1, kinds, columns, 1), "float32")
    return ll.attention_weights(query, key, score=ll.scores.Bias(scores), normalizer=normalizer)[0]


@pytest.mark.parametrize("name", NORMALIZERS)
def test_weights(name):
    weights = ops.convert_to_numpy(compiled(lambda scores: attention_weights(scores, NORMALIZERS[name]))(SCORES))
    np.testing.assert_allclose(weights, RECORDED[f"{name}: weights"], atol=2e-6)


@pytest.mark.parametrize("name", NORMALIZERS)
def test_gradient(name):
    def loss(scores):
        return ops.sum(attention_weights(scores, NORMALIZERS[name]) * ops.convert_to_tensor(TARGET))

    (found,) = gradients(loss, [SCORES])
    np.testing.assert_allclose(found, RECORDED[f"{name}: gradient"], atol=2e-5, rtol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the entmax package is of torch")
def test_the_record_is_what_the_package_gives():
    pytest.importorskip("entmax", reason="needs entmax: pip install entmax")
    measured = record_entmax.measured()
    assert measured.keys() == RECORDED.keys()
    for name, recorded in RECORDED.items():
        np.testing.assert_allclose(measured[name], recorded, rtol=1e-7, atol=1e-9, err_msg=name)
