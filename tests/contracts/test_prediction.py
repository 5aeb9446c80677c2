"""The contract of `AttentionExtractor`: it takes what `model.predict` takes, and returns the same outputs, for every layer.

The kinds of data are tested in `tests/inspection/test_prediction.py`.
"""

import keras
import numpy as np
import pytest

import limelight as ll
from contracts.representative import full

B, T, D = 5, 7, 6
LAYERS = {
    "SelfAttention": lambda: ll.layers.SelfAttention(4),
    "MultiHeadAttention": lambda: ll.layers.MultiHeadAttention(2, 3, dropout=0.5),
    "AttentionPooling": lambda: ll.layers.AttentionPooling(),
    "LinearAttention": lambda: ll.layers.LinearAttention(2, 3),
    "keras.MultiHeadAttention": lambda: keras.layers.MultiHeadAttention(2, 3, dropout=0.5),
    "keras.GroupQueryAttention": lambda: keras.layers.GroupQueryAttention(3, 2, 1, dropout=0.5),
}


@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize(
    "name", [name if name in ("SelfAttention", "keras.MultiHeadAttention") else full(name) for name in LAYERS]
)
def test_the_extractor_predicts_as_the_model_does(name: str, eagerly: bool, random: np.random.Generator) -> None:
    steps = keras.Input((None, D))
    layer = LAYERS[name]()
    arguments = (steps, steps) if "Multi" in name or "Group" in name or "Linear" in name else (steps,)
    model = keras.Model(steps, layer(*arguments))
    model.compile(run_eagerly=eagerly)
    x = random.normal(size=(B, T, D)).astype("float32")
    outputs, maps = ll.AttentionExtractor(model).predict(x, batch_size=2)
    np.testing.assert_allclose(outputs, model.predict(x, batch_size=2, verbose=0), atol=1e-6)
    (attention_map,) = maps.values()
    np.testing.assert_allclose(attention_map.weights(), next(iter(ll.capture(model, x).values())).weights(), atol=1e-6)
