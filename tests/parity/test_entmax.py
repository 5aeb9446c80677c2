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
Entmax = ll.normalizers.Entmax
NORMALIZERS = {
    "sparsemax": ll.normalizers.Sparsemax(),
    "entmax15": Entmax(1.5),
    **{f"entmax {alpha}": Entmax(alpha) for alpha in record_entmax.ALPHAS},
}


def attention_weights(scores, normalizer):
    """The weights of given scores, whose kinds stand where heads do."""
    kinds, rows, columns = scores.shape
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


@pytest.mark.parametrize("alpha", [1.7, 2.5, 3.0, 4.0])
def test_scores_at_the_threshold(alpha):
    # The second score is just above the lowest that has a weight; the third is below.
    above = 2.0 ** -np.arange(1, 25)
    scores = np.stack([0 * above, (above - 1) / (alpha - 1), 0 * above - 2 / (alpha - 1)], axis=-1).astype("float32")
    z, power = (alpha - 1) * scores.astype("float64"), 1 / (alpha - 1)
    low, high = np.full((len(z), 1), -1.0), np.zeros((len(z), 1))
    for _ in range(100):
        middle = (low + high) / 2
        is_low = (np.maximum(z - middle, 0) ** power).sum(axis=-1, keepdims=True) >= 1
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    weights = ops.convert_to_numpy(compiled(lambda scores: attention_weights(scores, Entmax(alpha)))(scores[None]))[0]
    # A threshold that is rounded by 6e-8 changes a weight by the root of it.
    np.testing.assert_allclose(weights, np.maximum(z - low, 0) ** power, atol=1e-7**power + 1e-6)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)

    def loss(scores):
        return ops.sum(attention_weights(scores, Entmax(alpha))[..., 0])

    (gradient,) = gradients(loss, [scores[None]])
    slopes = np.where(weights > 0, np.where(weights > 0, weights, 1) ** (2 - alpha), 0)
    share = slopes[:, 0] / slopes.sum(axis=-1)
    expected = np.stack([slopes[:, 0] * (1 - share), -slopes[:, 1] * share, 0 * share], axis=-1)
    np.testing.assert_allclose(gradient[0], expected, rtol=2e-2, atol=1e-5)


@pytest.mark.parametrize("alpha", [2.5, 3.0, 4.0])
def test_beyond_sparsemax_rows_sum_to_one(random, alpha):
    scores = 2 * random.normal(size=(1, 5000, 8)).astype("float32")
    weights = ops.convert_to_numpy(compiled(lambda scores: attention_weights(scores, Entmax(alpha)))(scores))
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    equal = ops.convert_to_numpy(attention_weights(0 * scores[:, :1].repeat(600, axis=-1), Entmax(alpha)))
    np.testing.assert_allclose(equal, 1 / equal.shape[-1], rtol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the entmax package is of torch")
def test_the_record_is_what_the_package_gives():
    pytest.importorskip("entmax", reason="needs entmax: pip install entmax")
    measured = record_entmax.measured()
    assert measured.keys() == RECORDED.keys()
    for name, recorded in RECORDED.items():
        np.testing.assert_allclose(measured[name], recorded, rtol=1e-7, atol=1e-9, err_msg=name)
