"""What the tests of captured attention share."""

import keras
import numpy as np

import limelight as ll


def softmax(scores, mask=True, axis=-1):
    """Softmax in float64; rows that permit nothing are 0."""
    mask = np.broadcast_to(mask, scores.shape)
    exponentials = np.where(mask, np.exp(scores - scores.max(axis=axis, keepdims=True)), 0.0)
    total = exponentials.sum(axis=axis, keepdims=True)
    return np.where(total > 0, exponentials / np.where(total > 0, total, 1), 0.0)


def project(layer, name, x):
    """A projection of a layer into heads in float64: (B, T, D) to (B, N, T, H)."""
    variables = {"/".join(variable.path.split("/")[-2:]): variable for variable in layer.weights}
    kernel, bias = (
        keras.ops.convert_to_numpy(variables[f"{name}/{part}"]).astype(float) for part in ("kernel", "bias")
    )
    return np.einsum("btd,dnh->bnth", x.astype(float), kernel) + bias[None, :, None]


def multi_head_weights(layer, x):
    """The weights of a `MultiHeadAttention` on itself in float64."""
    query, key = project(layer, "query", x), project(layer, "key", x)
    return softmax(np.einsum("bnth,bnsh->bnts", query, key) / np.sqrt(query.shape[-1]))


def capture_both_ways(model, data):
    """Maps from `capture`, after checking that a compiled `predict` gives the same, with the model's own outputs."""
    maps = ll.capture(model, data)
    outputs, predicted = ll.AttentionExtractor(model).predict(data)
    alone = keras.tree.map_structure(keras.ops.convert_to_numpy, model(data))
    keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), outputs, alone)
    assert list(maps) == list(predicted)
    for key in maps:
        np.testing.assert_allclose(maps[key].weights(), predicted[key].weights(), atol=1e-6)
    return maps


class StepByStep(keras.Layer):
    """Attention in a loop of Python: of one step of the inputs after the other."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = ll.layers.Attention(name="attention")

    def call(self, x):
        return keras.ops.concatenate([self.attention(x[:, t : t + 1], x) for t in range(x.shape[1])], axis=1)
