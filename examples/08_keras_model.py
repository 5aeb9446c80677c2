"""Find what is wrong with the attention of a Keras model, and replace it.

python examples/08_keras_model.py
"""

import limelight as ll
import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from pathlib import Path
from typing import Any


def build_decoder() -> keras.Model:
    """Build two attention layers that read one padded source, as in any decoder."""
    source, target = keras.Input((None,), dtype="int32"), keras.Input((None, 16))
    memory = layers.Embedding(100, 16, mask_zero=True)(source)
    hidden = layers.MultiHeadAttention(2, 8, name="first")(target, memory)
    hidden = layers.MultiHeadAttention(2, 8, name="second")(layers.Add()([target, hidden]), memory)
    return keras.Model([source, target], hidden)


def main(picture: Path | None = None) -> dict[str, Any]:
    """Find the fault, and fix it."""
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(3)
    source = random.integers(1, 100, (3, 9))
    source[1, 6:] = source[2, 4:] = 0
    batch = [source, random.normal(size=(3, 5, 16)).astype("float32")]

    model = build_decoder()
    findings = ll.lint(model, batch)
    print(findings, end="\n\n")

    better = ll.upgrade(model)
    print(f"upgraded: {ll.lint(better, batch)}")

    # Compare the third example with the same example without padding.
    unpadded = [source[2:, :4], batch[1][2:]]
    changes = {}
    for name, variant in (("old", model), ("new", better)):
        with_padding, without = (keras.ops.convert_to_numpy(variant(inputs)) for inputs in (batch, unpadded))
        changes[name] = float(np.abs(with_padding[2] - without[0]).max())
        print(f"{name}: padding changes the output by {changes[name]:.1e}")
    if picture is not None:
        figure = Figure(figsize=(8, 3), layout="constrained")
        tokens = ["padding" if word == 0 else f"word {place}" for place, word in enumerate(source[2])]
        for axes, (name, variant) in zip(figure.subplots(1, 2), {"old": model, "new": better}.items(), strict=True):
            weights = ll.capture(variant, batch)["second"].weights()[2, 0]
            queries = [str(step) for step in range(5)]
            ll.plot.heatmap(weights, queries, tokens, title=f"{name}: second layer", ax=axes)
        ll.plot.save(picture, figure)
    return {"kinds": [finding.kind for finding in findings], **changes}


if __name__ == "__main__":
    main()
