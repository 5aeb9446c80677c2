"""Put attention after an LSTM, on real sequences of different lengths: nine speakers say two Japanese vowels.

Try GRU too, and predict one class for each step or, with `AttentionPooling`, one for each sequence.

    python examples/04_lstm_attention.py
"""

import limelight as ll
import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from pathlib import Path


def load_speakers() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Return zero-padded training and test sequences (n, 29, 12), their labels, and the number of classes."""
    dataset = ll.data.load("japanese-vowels")
    steps, _ = ll.data.pad(dataset.inputs, max(len(sequence) for sequence in dataset.inputs))
    # Shuffle: the file is sorted by speaker, and `validation_split` takes its end.
    order = np.random.default_rng(0).permutation(np.flatnonzero(~dataset.test))
    return steps[order], dataset.labels[order], steps[dataset.test], dataset.labels[dataset.test], len(dataset.classes)


def build(kind: str, recurrent: type, classes: int, length: int | None = None) -> keras.Model:
    """Build recurrence, attention, and a softmax for each step or for each sequence."""
    steps = keras.Input((length, 12))
    hidden = layers.Masking()(steps)  # Steps of zeros are padding. Every layer below obeys the mask and passes it on.
    hidden = recurrent(128, return_sequences=True)(hidden)
    hidden = ll.layers.SelfAttention(128)(hidden)
    if kind == "sequence":
        hidden = ll.layers.AttentionPooling(name="pooling")(hidden)
    return keras.Model(steps, layers.Dense(classes, activation="softmax")(hidden))


def main(
    epochs: int = 25,
    kinds: tuple[str, ...] = ("step", "sequence"),
    recurrents: tuple[str, ...] = ("LSTM", "GRU"),
    picture: Path | None = None,
) -> dict:
    """Train each model as in any Keras tutorial and print its test accuracy."""
    train, labels, test, test_labels, classes = load_speakers()
    accuracy = {}
    for kind in kinds:
        for name in recurrents:
            keras.utils.set_random_seed(0)
            model = build(kind, getattr(layers, name), classes, train.shape[1])
            model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
            # With one label for each step, the mask excludes the padded steps from the loss and the accuracy.
            target, expected = labels, test_labels
            if kind == "step":
                target, expected = (np.repeat(part[:, None], train.shape[1], 1) for part in (labels, test_labels))
            model.fit(train, target, validation_split=0.2, epochs=epochs, verbose=0)
            loss, accuracy[kind, name] = model.evaluate(test, expected, verbose=0)
            print(f"{name:4} one output per {kind:8} test loss {loss:.3f}, accuracy {accuracy[kind, name]:.3f}")
    if picture is not None:
        weights = ll.capture(model, test[:6])["pooling"].weights()[:, 0, 0]
        figure = Figure(figsize=(7, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot(weights.T, marker=".")
        axes.set(title="pooling weights of six sequences", xlabel="step", ylabel="weight")
        ll.plot.save(picture, figure)
    return accuracy


if __name__ == "__main__":
    main()
