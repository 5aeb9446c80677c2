"""BERT in numpy, written on its own: what pretrained encoders must equal."""

import json
import struct

import numpy as np

from inspection.capturing import softmax


def read_safetensors(path):
    """The arrays of a file: a length, a JSON header with offsets, and the numbers."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(content[8 + length :][slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
        for name, entry in header.items()
        if entry["dtype"] == "F32"
    }


class NumpyBert:
    """BERT in float64, from the names and shapes of the weights file."""

    def __init__(self, tensors, heads):
        self.tensors, self.heads = {name: value.astype(float) for name, value in tensors.items()}, heads

    def dense(self, name, x):
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def norm(self, name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def split_heads(self, x):
        return x.reshape(len(x), self.heads, -1).transpose(1, 0, 2)

    def run(self, ids, layers):
        from scipy.special import erf

        words, positions, segments = (
            self.tensors[f"embeddings.{part}_embeddings.weight"] for part in ("word", "position", "token_type")
        )
        x = self.norm("embeddings.LayerNorm", words[ids] + positions[: len(ids)] + segments[0])
        all_weights = []
        for number in range(layers):
            layer = f"encoder.layer.{number}"
            query, key, value = (
                self.split_heads(self.dense(f"{layer}.attention.self.{part}", x)) for part in ("query", "key", "value")
            )
            weights = softmax(query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1]))
            all_weights.append(weights)
            context = (weights @ value).transpose(1, 0, 2).reshape(len(x), -1)
            x = self.norm(
                f"{layer}.attention.output.LayerNorm", x + self.dense(f"{layer}.attention.output.dense", context)
            )
            hidden = self.dense(f"{layer}.intermediate.dense", x)
            hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
            x = self.norm(f"{layer}.output.LayerNorm", x + self.dense(f"{layer}.output.dense", hidden))
        return x, all_weights
