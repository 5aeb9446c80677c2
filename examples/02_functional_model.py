"""Attention in a Functional model, and the contraction that everybody gets wrong once.

python examples/02_functional_model.py
"""

import limelight as ll
import keras
import numpy as np
from keras import layers


def build() -> keras.Model:
    """Sequences of any length, 64 features wide, to ten classes for each step."""
    steps = keras.Input((None, 64), name="steps")
    query = layers.Dense(32, activation="relu", name="query")(steps)
    key = layers.Dense(32, activation="relu", name="key")(steps)
    value = layers.Dense(32, activation="relu", name="value")(steps)
    read = ll.layers.Attention(score=ll.scores.Dot(), name="attention")(query, value, key)
    return keras.Model(steps, layers.Dense(10, activation="softmax", name="class")(read))


def naive(query: np.ndarray, key: np.ndarray, value: np.ndarray, axes: int | tuple[int, int]) -> np.ndarray:
    """The same from Keras's `Dot` layers.

    Weights (B, T, S) and values (B, S, V) meet in S: the last axis of the weights and the *middle* one of the values, so
    `axes=(2, 1)`. `axes=-1` contracts the last axis of both, S with V: an error where they differ, and nonsense where
    they happen to be equal.
    """
    scores = layers.Dot(axes=-1)([query, key]) / np.sqrt(key.shape[-1])
    weights = layers.Softmax()(scores)
    return keras.ops.convert_to_numpy(layers.Dot(axes=axes)([weights, value]))


def main() -> dict[str, float | str]:
    """Print the model and compare; return what was found."""
    model = build()
    model.summary()
    random = np.random.default_rng(0)
    steps = random.normal(size=(2, 7, 64)).astype("float32")
    projected = [model.get_layer(name)(steps) for name in ("query", "key", "value")]
    read = keras.ops.convert_to_numpy(model.get_layer("attention")(projected[0], projected[2], projected[1]))
    difference = float(np.abs(naive(*projected, axes=(2, 1)) - read).max())
    print(f"Dot(axes=(2, 1)) and limelight differ by at most {difference:.1e}")
    try:
        naive(*projected, axes=-1)
        error = "none"
    except Exception as raised:  # each backend raises its own
        error = str(raised).splitlines()[0]
    print(f"Dot(axes=-1), with length 7 and width 32: {error}")
    probabilities = model.predict(steps, verbose=0)
    print(f"probabilities of shape {probabilities.shape}, which sum to {probabilities.sum(-1).mean():.3f}")
    return {"difference": difference, "error": error, "shape": probabilities.shape}


if __name__ == "__main__":
    main()
