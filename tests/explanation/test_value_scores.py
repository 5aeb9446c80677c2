"""Norm-weighted attention and value zeroing, against loops."""

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from limelight.explanation.rankings import compute_value_scores

N, T, S, V, E = 2, 3, 5, 4, 7


def _loop(weights, values, kernel, bias):
    norms, distances = np.zeros(S), np.zeros(S)
    for i in range(weights.shape[1]):
        output = bias.copy()
        for n in range(N):
            for j in range(S):
                output += weights[n, i, j] * values[n, j] @ kernel[n]
        for j in range(S):
            part = sum(weights[n, i, j] * values[n, j] @ kernel[n] for n in range(N))
            norms[j] += np.linalg.norm(part)
            without = output - part
            distances[j] += 1 - output @ without / np.linalg.norm(output) / np.linalg.norm(without)
    return norms / weights.shape[1], distances / weights.shape[1]


@pytest.mark.backend_free
def test_value_scores_by_loops(random):
    weights = random.dirichlet(np.ones(S), (N, T))
    values, kernel, bias = random.normal(size=(N, S, V)), random.normal(size=(N, V, E)), random.normal(size=E)
    expected = _loop(weights, values, kernel, bias)
    np.testing.assert_allclose(compute_value_scores(weights, values, (kernel, bias)), expected, rtol=1e-10)
    # Without a projection the heads stand side by side.
    identity = np.stack([np.eye(V, N * V, n * V) for n in range(N)])
    expected = _loop(weights, values, identity, np.zeros(N * V))
    np.testing.assert_allclose(compute_value_scores(weights, values), expected, rtol=1e-10)


@pytest.mark.parametrize("layer", [ll.layers.MultiHeadAttention, keras.layers.MultiHeadAttention])
def test_value_scores_of_a_layer(layer, random):
    steps = keras.Input((S, E))
    mixed = layer(N, V, name="mixing")(steps, steps)
    model = keras.Model(steps, keras.layers.Dense(2, "softmax")(ops.mean(mixed, axis=1)))
    x = random.normal(size=(3, S, E)).astype("float32")
    result = ll.explanation.explain(
        model, x, restarts=0, permutations=2, resamples=100, ig_steps=2, verbose=False,
        rankings=["norm_weighted", "value_zeroing"],
    )  # fmt: skip
    by_name = {
        weight.path.split("mixing/")[1]: ops.convert_to_numpy(weight.value) for weight in model.layers[1].weights
    }
    name = "output" if "output/kernel" in by_name else "attention_output"
    weights = ll.capture(model, x)["mixing"].weights()[1]
    values = np.einsum("sd,dnv->nsv", x[1], by_name["value/kernel"]) + by_name["value/bias"][:, None]
    norms, distances = _loop(
        weights.astype(float), values.astype(float), by_name[f"{name}/kernel"], by_name[f"{name}/bias"].astype(float)
    )
    np.testing.assert_allclose(result.rankings["norm_weighted"][1], norms, rtol=1e-4)
    np.testing.assert_allclose(result.rankings["value_zeroing"][1], distances, rtol=1e-3, atol=1e-6)
