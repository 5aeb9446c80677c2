"""Compute dot-product attention in numpy and with `limelight.attend`: the same numbers.

python examples/01_numpy_and_attend.py
"""

import limelight as ll
import keras
import numpy as np
from matplotlib.figure import Figure
from pathlib import Path

QUERY = np.array([[1.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
KEY = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 2.0]])
VALUE = np.array([[1.0, 2.0], [3.0, 4.0]])


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return exponentials that sum to one along each row.

    Subtract the largest score of *each row* first. Subtracting the largest of the whole matrix looks the same, but the
    exponentials of a row that lies far below it are all zero, and 0 / 0 follows.
    """
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def attend_by_hand() -> tuple[np.ndarray, np.ndarray]:
    """Return output and weights, computed in numpy."""
    weights = softmax(QUERY @ KEY.T / np.sqrt(KEY.shape[-1]))
    return weights @ VALUE, weights


def attend_by_limelight() -> tuple[np.ndarray, np.ndarray]:
    """Return output and weights, computed on the backend that Keras uses."""
    to_numpy = keras.ops.convert_to_numpy
    return to_numpy(ll.attend(QUERY, KEY, VALUE)), to_numpy(ll.attention_weights(QUERY, KEY))


def main(picture: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Print both, and return their differences."""
    for name, (output, weights) in (("numpy", attend_by_hand()), ("limelight", attend_by_limelight())):
        print(f"{name}\n  weights {weights.round(4).tolist()}\n  output  {output.round(4).tolist()}")
    far_apart = np.array([[1000.0, 999.0], [0.0, 1.0]])
    wrong = np.exp(far_apart - far_apart.max())
    print(f"second of two rows 1,000 apart\n  minus the largest of the matrix: {wrong[1]}, which sums to 0")
    print(f"  minus the largest of its row:    {softmax(far_apart)[1].round(4)}")
    if picture is not None:
        figure = Figure(figsize=(6, 2.6), layout="constrained")
        weights = {"numpy": attend_by_hand()[1], "limelight": attend_by_limelight()[1]}
        for axes, (name, array) in zip(figure.subplots(1, 2), weights.items(), strict=True):
            ll.plot.heatmap(array, ["query 1", "query 2"], ["key 1", "key 2"], title=name, ax=axes)
        ll.plot.save(picture, figure)
    return tuple(ours - theirs for ours, theirs in zip(attend_by_limelight(), attend_by_hand(), strict=True))


if __name__ == "__main__":
    main()
