"""Use attention in a Functional model, and see the contraction that everybody gets wrong once.

python examples/02_functional_model.py
"""

import limelight as ll
import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from pathlib import Path


def build() -> keras.Model:
    """Build a model from sequences of any length with 64 features to ten classes for each step."""
    steps = keras.Input((None, 64), name="steps")
    query = layers.Dense(32, activation="relu", name="query")(steps)
    key = layers.Dense(32, activation="relu", name="key")(steps)
    value = layers.Dense(32, activation="relu", name="value")(steps)
    context = ll.layers.Attention(score=ll.scores.Dot(), name="attention")(query, value, key)
    return keras.Model(steps, layers.Dense(10, activation="softmax", name="class")(context))


def attend_with_keras(query: np.ndarray, key: np.ndarray, value: np.ndarray, axes: int | tuple[int, int]) -> np.ndarray:
    """Compute the same with Keras's `Dot` layers.

    Weights (B, T, S) and values (B, S, V) are contracted over S: the last axis of the weights and the *middle* axis of the
    values, so `axes=(2, 1)`. `axes=-1` contracts the last axis of both, S with V: an error if they differ, and nonsense if
    they happen to be equal.
    """
    scores = layers.Dot(axes=-1)([query, key]) / np.sqrt(key.shape[-1])
    weights = layers.Softmax()(scores)
    return keras.ops.convert_to_numpy(layers.Dot(axes=axes)([weights, value]))


def main(picture: Path | None = None) -> dict[str, float | str]:
    """Print the model, compare the two, and return the difference, the error and the shape of the output."""
    model = build()
    model.summary()
    random = np.random.default_rng(0)
    steps = random.normal(size=(2, 7, 64)).astype("float32")
    projected = [model.get_layer(name)(steps) for name in ("query", "key", "value")]
    query, key, value = projected
    context = keras.ops.convert_to_numpy(model.get_layer("attention")(query, value, key))
    difference = float(np.abs(attend_with_keras(*projected, axes=(2, 1)) - context).max())
    print(f"Dot(axes=(2, 1)) and limelight differ by at most {difference:.1e}")
    try:
        attend_with_keras(*projected, axes=-1)
        error = "none"
    except Exception as exception:  # Each backend raises its own.
        error = str(exception).splitlines()[0]
    print(f"Dot(axes=-1), with length 7 and width 32: {error}")
    probabilities = model.predict(steps, verbose=0)
    print(f"probabilities of shape {probabilities.shape}, which sum to {probabilities.sum(-1).mean():.3f}")
    if picture is not None:
        _, weights = model.get_layer("attention")(query, value, key, return_attention_scores=True)
        weights = keras.ops.convert_to_numpy(weights)
        figure = Figure(figsize=(7, 3.2), layout="constrained")
        for number, axes in enumerate(figure.subplots(1, 2)):
            ll.plot.heatmap(weights[number], [str(step) for step in range(7)], title=f"sequence {number}", ax=axes)
        ll.plot.save(picture, figure)
    return {"difference": difference, "error": error, "shape": probabilities.shape}


if __name__ == "__main__":
    main()
