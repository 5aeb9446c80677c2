"""A model that uses Keras's attention: what is wrong with it, and the same model without the fault.

python examples/08_keras_model.py
"""

import limelight as ll
import keras
import numpy as np
from keras import layers
from typing import Any


def decoder() -> keras.Model:
    """Two layers that read one padded source, as every decoder has them."""
    source, target = keras.Input((None,), dtype="int32"), keras.Input((None, 16))
    memory = layers.Embedding(100, 16, mask_zero=True)(source)
    hidden = layers.MultiHeadAttention(2, 8, name="first")(target, memory)
    hidden = layers.MultiHeadAttention(2, 8, name="second")(layers.Add()([target, hidden]), memory)
    return keras.Model([source, target], hidden)


def main() -> dict[str, Any]:
    """Find the fault, and mend it."""
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(3)
    source = random.integers(1, 100, (3, 9))
    source[1, 6:] = source[2, 4:] = 0
    batch = [source, random.normal(size=(3, 5, 16)).astype("float32")]

    model = decoder()
    findings = ll.lint(model, batch)
    print(findings, end="\n\n")

    better = ll.upgrade(model)
    print(f"upgraded: {ll.lint(better, batch)}")

    # The words behind the padding of the third example change the old model's output, and not the new one's.
    shorter = [source[2:, :4], batch[1][2:]]
    moved = {}
    for name, one in (("old", model), ("new", better)):
        padded, alone = (keras.ops.convert_to_numpy(one(given)) for given in (batch, shorter))
        moved[name] = float(np.abs(padded[2] - alone[0]).max())
        print(f"{name}: padding moves the output by {moved[name]:.1e}")
    return {"kinds": [finding.kind for finding in findings], **moved}


if __name__ == "__main__":
    main()
