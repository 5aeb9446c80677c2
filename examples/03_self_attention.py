"""Train self-attention with learned W_q, W_k and W_v on a task that needs attention.

Each sequence holds five marked steps among many others. The target at every step is the mean of the marked values.

    python examples/03_self_attention.py
"""

import limelight as ll
import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from pathlib import Path


def make_sequences(count: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return values with a mark (count, length, 2), and for every step the mean of the marked values."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(count, length))
    marks = np.argsort(random.random((count, length)), axis=1) < 5
    target = (values * marks).sum(1, keepdims=True) / 5
    return np.stack([values, marks], -1).astype("float32"), np.repeat(target, length, 1)[..., None].astype("float32")


def build(units: int = 16) -> keras.Model:
    """Build one self-attention layer between two dense ones; the weights are an output too."""
    steps = keras.Input((None, 2))
    hidden = layers.Dense(units, activation="relu")(steps)
    context, weights = ll.layers.SelfAttention(units)(hidden, return_attention_scores=True)
    return keras.Model(steps, {"mean": layers.Dense(1)(context), "weights": weights})


def main(epochs: int = 20, count: int = 2000, picture: Path | None = None) -> dict[str, float]:
    """Train, then print the error and how much of the attention falls on the marked steps."""
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(keras.optimizers.Adam(3e-3), {"mean": "mse", "weights": None})
    steps, target = make_sequences(count, 20, seed=1)
    model.fit(steps, {"mean": target}, epochs=epochs, verbose=0)
    # Test on twice the length of the training sequences: attention works at any length.
    steps, target = make_sequences(200, 40, seed=2)
    predicted = model.predict(steps, verbose=0)
    error = float(np.square(predicted["mean"] - target).mean())
    marked = float((predicted["weights"] * steps[:, None, :, 1]).sum(-1).mean())
    print(f"mean squared error {error:.4f}; the variance to explain is {target.var():.4f}")
    print(f"weight on the 5 marked steps of 40: {marked:.2f}; by chance it would be {5 / 40:.2f}")
    if picture is not None:
        marks = ["marked" if mark else "" for mark in steps[0, :, 1]]
        figure = Figure(figsize=(6, 5), layout="constrained")
        title = "weights of one sequence of 40 steps"
        ll.plot.heatmap(predicted["weights"][0], marks, title=title, ax=figure.subplots())
        ll.plot.save(picture, figure)
    return {"error": error, "variance": float(target.var()), "marked": marked}


if __name__ == "__main__":
    main()
