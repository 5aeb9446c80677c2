"""Evaluate a classifier (accuracy, precision, recall, F1) and a regressor (MSE, MAE), each metric with its interval.

Both models take the same real sequences: the classifier predicts the speaker, the regressor the first coefficient of the
next frame.

    python examples/07_evaluation.py
"""

import limelight as ll
import keras
import numpy as np
from keras import layers
from pathlib import Path


def build_classifier(classes: int) -> keras.Model:
    """Build a GRU with attention pooling, which predicts the speaker."""
    steps = keras.Input((None, 12))
    hidden = layers.GRU(64, return_sequences=True)(layers.Masking()(steps))
    return keras.Model(steps, layers.Dense(classes, activation="softmax")(ll.layers.AttentionPooling()(hidden)))


def build_regressor() -> keras.Model:
    """Build causal attention, which predicts the next frame's first coefficient from the frames so far."""
    steps = keras.Input((None, 12))
    hidden = layers.Dense(64, activation="relu")(layers.Masking()(steps))
    hidden = layers.Concatenate()([hidden, ll.layers.SelfAttention(64, mask="causal")(hidden)])
    return keras.Model(steps, layers.Dense(1)(layers.Dense(64, activation="relu")(hidden)))


def main(epochs: int = 25, picture: Path | None = None) -> dict:
    """Train both, then print each metric with its 95 % interval."""
    keras.utils.set_random_seed(0)
    dataset = ll.data.load("japanese-vowels")
    steps, is_real = ll.data.pad(dataset.inputs, max(len(sequence) for sequence in dataset.inputs))
    train, test = ~dataset.test, dataset.test

    model = build_classifier(len(dataset.classes))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(steps[train], dataset.labels[train], epochs=epochs, verbose=0)
    probabilities = model.predict(steps[test], verbose=0)
    quality = ll.evaluate.classification(dataset.labels[test], probabilities, dataset.classes)
    print(f"classifier, {test.sum()} sequences")
    for name in ("accuracy", "precision_macro", "recall_macro", "f1_macro"):
        print(f"  {name:15} {quality[name]}")

    model = build_regressor()
    model.compile("adam", "mse")
    next_frame, valid = steps[:, 1:, :1], is_real[:, 1:]
    model.fit(steps[train, :-1], next_frame[train], sample_weight=valid[train], epochs=epochs, verbose=0)
    predicted = model.predict(steps[test, :-1], verbose=0)
    frames, sequence = next_frame[test][valid[test]].ravel(), np.nonzero(valid[test])[0]
    # Frames of one sequence are not independent: the intervals are over sequences.
    error = ll.evaluate.regression(frames, predicted[valid[test]].ravel(), groups=sequence)
    # Compare with the simplest forecast: nothing changes.
    unchanged = ll.evaluate.regression(frames, steps[test, :-1, :1][valid[test]].ravel(), groups=sequence)
    print(f"regressor, {valid[test].sum()} frames")
    for name in ("mse", "mae"):
        print(f"  {name:15} {error.metrics[name]}   (the last frame again: {unchanged.metrics[name].value:.4f})")
    if picture is not None:
        ll.plot.save(picture, ll.plot.confusion(quality))
    return {"classifier": quality, "regressor": error, "unchanged": unchanged}


if __name__ == "__main__":
    main()
