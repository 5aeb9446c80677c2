"""An attention layer that returns output and weights, and the weights drawn with tokens on both axes.

python examples/06_weights_drawn.py [weights.png]
"""

import limelight as ll
import keras
import numpy as np
import sys
from keras import layers
from matplotlib.figure import Figure
from pathlib import Path

SENTENCE = ["the", "animal", "did", "not", "cross", "the", "street", "because", "it", "was", "too", "tired"]


def weights_of_a_sentence() -> np.ndarray:
    """Weights (T, T) of a self-attention layer, here with random embeddings: equal words attend alike."""
    keras.utils.set_random_seed(2)
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(SENTENCE), start=1)}
    ids = np.array([[vocabulary[word] for word in SENTENCE]])
    words = layers.Embedding(len(vocabulary) + 1, 16, embeddings_initializer="random_normal")(ids) * 20.0
    output, weights = ll.layers.SelfAttention(16)(words, return_attention_scores=True)
    print(f"output {tuple(output.shape)}, weights {tuple(weights.shape)}")
    return keras.ops.convert_to_numpy(weights)[0]


def main(path: str = "weights.png") -> Path:
    """Draw by hand, as everybody does, and by limelight; write the second beside the first."""
    weights = weights_of_a_sentence()

    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    image = axes.matshow(weights, cmap="viridis")
    figure.colorbar(image, label="attention weight")
    axes.set_xticks(range(len(SENTENCE)), SENTENCE, rotation=90)
    axes.set_yticks(range(len(SENTENCE)), SENTENCE)
    axes.set(title="self-attention", xlabel="key", ylabel="query")
    ll.plot.save(figure, path)

    drawn = ll.plot.heatmap(weights, SENTENCE, title="self-attention")
    second = Path(path).with_suffix(".svg")
    ll.plot.save(drawn, second)
    print(f"drawn in {path} and {second}")
    return second


if __name__ == "__main__":
    main(*sys.argv[1:2])
