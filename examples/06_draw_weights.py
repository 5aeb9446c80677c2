"""Get output and weights from an attention layer, and draw the weights with tokens on both axes.

python examples/06_draw_weights.py [weights.png]
"""

import limelight as ll
import keras
import numpy as np
import sys
from keras import layers
from matplotlib.figure import Figure
from pathlib import Path

SENTENCE = ["the", "animal", "did", "not", "cross", "the", "street", "because", "it", "was", "too", "tired"]


def compute_weights() -> np.ndarray:
    """Return the weights (T, T) of a self-attention layer. Embeddings are random here: equal words attend alike."""
    keras.utils.set_random_seed(2)
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(SENTENCE), start=1)}
    ids = np.array([[vocabulary[word] for word in SENTENCE]])
    words = layers.Embedding(len(vocabulary) + 1, 16, embeddings_initializer="random_normal")(ids) * 20.0
    output, weights = ll.layers.SelfAttention(16)(words, return_attention_scores=True)
    print(f"output {tuple(output.shape)}, weights {tuple(weights.shape)}")
    return keras.ops.convert_to_numpy(weights)[0]


def main(picture: str | Path = "weights.png") -> Path:
    """Draw with matplotlib into a PNG and with limelight into an SVG beside it; return the path of the second."""
    weights = compute_weights()

    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    image = axes.matshow(weights, cmap="viridis")
    figure.colorbar(image, label="attention weight")
    axes.set_xticks(range(len(SENTENCE)), SENTENCE, rotation=90)
    axes.set_yticks(range(len(SENTENCE)), SENTENCE)
    axes.set(title="self-attention", xlabel="key", ylabel="query")
    ll.plot.save(picture, figure)

    heatmap = ll.plot.heatmap(weights, SENTENCE, title="self-attention")
    vector = Path(picture).with_suffix(".svg")
    ll.plot.save(vector, heatmap)
    print(f"saved {picture} and {vector}")
    return vector


if __name__ == "__main__":
    main(*sys.argv[1:2])
