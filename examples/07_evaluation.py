"""Evaluation: accuracy, precision, recall and F1 of a classifier, MSE and MAE of a regressor, each with its interval.

Both models read the same real sequences: the classifier says who speaks, the regressor what the next frame's first
coefficient will be.

    python examples/07_evaluation.py
"""

import limelight as ll
import keras
from keras import layers


def classifier(classes: int) -> keras.Model:
    """Who speaks: GRU, then pooling by attention."""
    steps = keras.Input((None, 12))
    hidden = layers.GRU(64, return_sequences=True)(layers.Masking()(steps))
    return keras.Model(steps, layers.Dense(classes, activation="softmax")(ll.layers.AttentionPooling()(hidden)))


def regressor() -> keras.Model:
    """The next frame's first coefficient, from the frames so far alone: the attention is causal."""
    steps = keras.Input((None, 12))
    hidden = layers.Dense(64, activation="relu")(layers.Masking()(steps))
    hidden = layers.Concatenate()([hidden, ll.layers.SelfAttention(64, mask="causal")(hidden)])
    return keras.Model(steps, layers.Dense(1)(layers.Dense(64, activation="relu")(hidden)))


def main(epochs: int = 25) -> dict:
    """Train both, and print each metric with its 95 % interval."""
    keras.utils.set_random_seed(0)
    dataset = ll.data.load("japanese-vowels")
    steps, real = ll.data.pad(dataset.inputs, max(len(sequence) for sequence in dataset.inputs))
    train, test = ~dataset.test, dataset.test

    model = classifier(len(dataset.classes))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(steps[train], dataset.labels[train], epochs=epochs, verbose=0)
    probabilities = model.predict(steps[test], verbose=0)
    quality = ll.evaluate.classification(dataset.labels[test], probabilities, dataset.classes)
    print(f"classifier, {test.sum()} sequences")
    for name in ("accuracy", "precision_macro", "recall_macro", "f1_macro"):
        print(f"  {name:15} {quality[name]}")

    model = regressor()
    model.compile("adam", "mse")
    following, both = steps[:, 1:, :1], real[:, 1:]
    model.fit(steps[train, :-1], following[train], sample_weight=both[train], epochs=epochs, verbose=0)
    predicted = model.predict(steps[test, :-1], verbose=0)
    error = ll.evaluate.regression(following[test][both[test]].ravel(), predicted[both[test]].ravel())
    # A model must beat the simplest forecast there is: that nothing changes.
    unchanged = ll.evaluate.regression(following[test][both[test]].ravel(), steps[test, :-1, :1][both[test]].ravel())
    print(f"regressor, {both[test].sum()} frames")
    for name in ("mse", "mae"):
        print(f"  {name:15} {error.metrics[name]}   (the last frame again: {unchanged.metrics[name].value:.4f})")
    return {"classifier": quality, "regressor": error, "unchanged": unchanged}


if __name__ == "__main__":
    main()
