"""LSTM, then attention, on real sequences of different lengths: nine speakers saying two Japanese vowels.

The same with GRU; one prediction for each step and, through `AttentionPooling`, one for each sequence.

    python examples/04_lstm_attention.py
"""

import limelight as ll
import keras
import numpy as np
from keras import layers


def speakers() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Training and test sequences (n, 29, 12) with zeros behind their ends, their labels, and the number of classes."""
    dataset = ll.data.load("japanese-vowels")
    steps, _ = ll.data.pad(dataset.inputs, max(len(sequence) for sequence in dataset.inputs))
    # The file is sorted by speaker, and `validation_split` takes the end of it: shuffle first.
    order = np.random.default_rng(0).permutation(np.flatnonzero(~dataset.test))
    return steps[order], dataset.labels[order], steps[dataset.test], dataset.labels[dataset.test], len(dataset.classes)


def build(kind: str, recurrent: type, classes: int, length: int | None = None) -> keras.Model:
    """Recurrence, attention, and a softmax for each step or for each sequence."""
    steps = keras.Input((length, 12))
    hidden = layers.Masking()(steps)  # steps of zeros are padding; every layer below obeys and passes on the mask
    hidden = recurrent(128, return_sequences=True)(hidden)
    hidden = ll.layers.SelfAttention(128)(hidden)
    if kind == "sequence":
        hidden = ll.layers.AttentionPooling()(hidden)
    return keras.Model(steps, layers.Dense(classes, activation="softmax")(hidden))


def main(
    epochs: int = 25, kinds: tuple[str, ...] = ("step", "sequence"), recurrents: tuple[str, ...] = ("LSTM", "GRU")
) -> dict:
    """Train each model as in any Keras tutorial and print its test accuracy."""
    train, labels, test, truth, classes = speakers()
    accuracy = {}
    for kind in kinds:
        for name in recurrents:
            keras.utils.set_random_seed(0)
            model = build(kind, getattr(layers, name), classes, train.shape[1])
            model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
            # One label for each step: the loss and the accuracy leave the padded steps out by the mask.
            target, expected = labels, truth
            if kind == "step":
                target, expected = (np.repeat(part[:, None], train.shape[1], 1) for part in (labels, truth))
            model.fit(train, target, validation_split=0.2, epochs=epochs, verbose=0)
            loss, accuracy[kind, name] = model.evaluate(test, expected, verbose=0)
            print(f"{name:4} one output per {kind:8} test loss {loss:.3f}, accuracy {accuracy[kind, name]:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
