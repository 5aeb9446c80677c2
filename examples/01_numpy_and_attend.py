"""Dot-product attention in numpy, beside `limelight.attend`: the same numbers.

python examples/01_numpy_and_attend.py
"""

import limelight as ll
import keras
import numpy as np

QUERY = np.array([[1.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
KEY = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 2.0]])
VALUE = np.array([[1.0, 2.0], [3.0, 4.0]])


def softmax(scores: np.ndarray) -> np.ndarray:
    """Exponentials that sum to one along each row.

    The largest score of *each row* is subtracted first. Subtracting the largest of the whole matrix looks the same, but a
    row that lies far below it becomes all zeros, and 0 / 0 follows.
    """
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def by_hand() -> tuple[np.ndarray, np.ndarray]:
    """Output and weights, in numpy."""
    weights = softmax(QUERY @ KEY.T / np.sqrt(KEY.shape[-1]))
    return weights @ VALUE, weights


def by_limelight() -> tuple[np.ndarray, np.ndarray]:
    """Output and weights, on whichever backend Keras runs."""
    to_numpy = keras.ops.convert_to_numpy
    return to_numpy(ll.attend(QUERY, KEY, VALUE)), to_numpy(ll.attention_weights(QUERY, KEY))


def main() -> tuple[np.ndarray, np.ndarray]:
    """Print both, and return what they differ by."""
    for name, (output, weights) in (("numpy", by_hand()), ("limelight", by_limelight())):
        print(f"{name}\n  weights {weights.round(4).tolist()}\n  output  {output.round(4).tolist()}")
    far_apart = np.array([[1000.0, 999.0], [0.0, 1.0]])
    whole = np.exp(far_apart - far_apart.max())
    print(
        f"two rows 1,000 apart\n  largest of the whole matrix subtracted: {whole[1]} in the second row, which sums to 0"
    )
    print(f"  largest of each row subtracted:         {softmax(far_apart)[1].round(4)}")
    return tuple(ours - theirs for ours, theirs in zip(by_limelight(), by_hand(), strict=True))


if __name__ == "__main__":
    main()
