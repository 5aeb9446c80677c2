import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from layers.formulas import softmax

B, T, S, H, V = 2, 3, 5, 7, 11
array = ops.convert_to_numpy


@pytest.fixture
def tensors(random):
    shapes = {"query": (B, T, H), "value": (B, S, V), "key": (B, S, H)}
    return {name: random.normal(size=shape).astype("float32") for name, shape in shapes.items()}


@pytest.mark.parametrize("use_scale", [True, False])
def test_equals_the_formula(tensors, use_scale):
    layer = ll.layers.AdditiveAttention(use_scale=use_scale)
    output, weights = layer(**tensors, use_causal_mask=True, return_attention_scores=True)
    vector = array(layer.scale) if use_scale else np.ones(H)
    for example, row in np.ndindex(B, T):
        query, key, value = (tensors[name][example] for name in ("query", "key", "value"))
        scores = [vector @ np.tanh(query[row] + key[column]) for column in range(row + S - T + 1)]
        expected = np.append(softmax(np.array(scores)), np.zeros(T - row - 1))
        np.testing.assert_allclose(array(weights)[example, row], expected, atol=1e-6)
        np.testing.assert_allclose(array(output)[example, row], expected @ value, atol=1e-5)


@pytest.mark.full
def test_can_be_saved_loaded_and_captured(tensors, tmp_path):
    inputs = [keras.Input(tensor.shape[1:]) for tensor in tensors.values()]
    model = keras.Model(inputs, ll.layers.AdditiveAttention(dropout=0.3, name="reader")(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    given = list(tensors.values())
    np.testing.assert_array_equal(array(loaded(given)), array(model(given)))
    seen = ll.capture(loaded, given)["reader"]
    assert type(seen.source).__name__ == "QKSource"
    np.testing.assert_allclose(seen.weights()[:, 0] @ tensors["value"], array(model(given)), atol=1e-5)


@pytest.mark.full
def test_a_learned_normalizer_is_built_with_the_layer(tensors, tmp_path):
    inputs = [keras.Input(tensor.shape[1:]) for tensor in tensors.values()]

    def make_model():
        return keras.Model(inputs, ll.layers.AdditiveAttention(normalizer=ll.normalizers.Sink(learned=True))(inputs))

    model, given = make_model(), list(tensors.values())
    model.weights[-1].assign([3.0])
    assert [tuple(weight.shape) for weight in model.weights] == [(H,), (1,)]
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = make_model()
    loaded.load_weights(tmp_path / "model.weights.h5")
    assert array(loaded.weights[-1]).tolist() == [3.0]
    np.testing.assert_array_equal(array(loaded(given)), array(model(given)))


@pytest.mark.full
def test_a_score_raises():
    with pytest.raises(ValueError, match=r"score=Dot.* Use limelight.layers.Attention\(score=...\)"):
        ll.layers.AdditiveAttention(use_scale=False, score=ll.scores.Dot())
