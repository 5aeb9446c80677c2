"""`capture(tokens=)`: each axis of each map gets the tokens of its own input."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import limelight as ll

pytestmark = pytest.mark.full

SOURCE, TARGET = ["a", "b", "c", "d"], ["K", "L", "M", "N"]


def build_translator(length=None, **names):
    source = keras.Input((length,), dtype="int32", name=names.get("source"))
    target = keras.Input((length,), dtype="int32", name=names.get("target"))
    embed = layers.Embedding(9, 8)
    memory = ll.layers.SelfAttention(8, name="encoder")(embed(source))
    steps = layers.MultiHeadAttention(2, 4, name="decoder")(embed(target), embed(target))
    steps = ll.layers.MultiHeadAttention(2, 4, name="cross")(steps, memory)
    steps = layers.MultiHeadAttention(2, 4, name="deeper")(steps, steps)
    return keras.Model([source, target], steps)


def read(maps):
    return {
        key: tuple(None if tokens is None else "".join(tokens[0]) for tokens in (each.query_tokens, each.tokens))
        for key, each in maps.items()
    }


@pytest.mark.parametrize("length", [4, 3])
def test_inputs_of_one_length_keep_their_own_tokens(length):
    model = build_translator(source="source", target="target")
    batch = [np.ones((1, 4), "int32"), np.ones((1, length), "int32")]
    target = TARGET[:length]
    right = "".join(target)
    expected = {
        "encoder": ("abcd", "abcd"),
        "decoder": (right, right),
        "cross": (right, "abcd"),
        "deeper": (right, right),
    }
    assert read(ll.capture(model, batch, tokens={"source": SOURCE, "target": target})) == expected
    assert read(ll.capture(model, batch, tokens={0: SOURCE, 1: target})) == expected
    only = read(ll.capture(model, batch, tokens={"target": target}))
    assert only == {key: tuple(x if x == right else None for x in pair) for key, pair in expected.items()}
    if length == 4:
        assert read(ll.capture(model, batch, tokens=SOURCE))["cross"] == (None, "abcd")
    with pytest.raises(
        ValueError, match=r"name or index of an input\. Received: 'memory'\. There are: 'source', 'target'"
    ):
        ll.capture(model, batch, tokens={"memory": SOURCE})
    with pytest.raises(ValueError, match=r"Received: 1 lists, the longest of 5, for input 'source' of shape \(1, 4\)"):
        ll.capture(model, batch, tokens={"source": ["a"] * 5})


# `pytest.warns` raises this warning of torch again, past the filter for it.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_a_model_that_takes_one_length_only_leaves_tokens_off():
    model = build_translator(4, source="source", target="target")
    with pytest.warns(
        ll.inspection.CaptureWarning, match=r"tokens of input 'source' were left off: 'target' has the same"
    ):
        maps = ll.capture(model, [np.ones((1, 4), "int32")] * 2, tokens={"source": SOURCE})
    assert set(read(maps).values()) == {(None, None)}


def test_a_mask_is_no_sequence_of_its_own():
    ids, mask = keras.Input((4,), dtype="int32", name="ids"), keras.Input((4,), dtype="bool", name="padding_mask")
    steps = layers.Embedding(9, 8)(ids)
    model = keras.Model({"ids": ids, "padding_mask": mask}, ll.layers.SelfAttention(8, name="reader")(steps, mask=mask))
    batch = {"ids": np.ones((1, 4), "int32"), "padding_mask": np.ones((1, 4), bool)}
    for tokens in (SOURCE, {"ids": SOURCE}):
        assert read(ll.capture(model, batch, tokens=tokens)) == {"reader": ("abcd", "abcd")}


class Folded(keras.Layer):
    """Two heads that are part of the batch."""

    def call(self, x):
        heads = ops.reshape(ops.transpose(ops.reshape(x, (-1, 4, 2, 4)), (0, 2, 1, 3)), (-1, 4, 4))
        weights = ops.softmax(ops.matmul(heads, ops.swapaxes(heads, 1, 2)))
        heads = ops.reshape(ops.matmul(weights, heads), (-1, 2, 4, 4))
        return ops.reshape(ops.transpose(heads, (0, 2, 1, 3)), (-1, 4, 8))


def test_maps_of_another_batch_are_left_without(random):
    x = keras.Input((4, 8))
    model = keras.Model(x, layers.MultiHeadAttention(2, 4, name="mixing")(Folded(name="folded")(x), x))
    batch, tokens = random.normal(size=(3, 4, 8)).astype("float32"), [SOURCE] * 3
    maps = ll.capture(model, batch, tokens=tokens)
    assert [list(each) for each in maps["mixing"].tokens] == tokens
    if maps["folded"].shape[0] != len(batch):
        assert maps["folded"].tokens is None
    assert [list(each) for each in ll.capture(model, batch).with_tokens(tokens)["mixing"].tokens] == tokens
    with pytest.raises(ValueError, match="one list of tokens for each example, which fits the input"):
        ll.capture(model, batch, tokens=[SOURCE] * 2)
    with pytest.raises(ValueError, match=r"one list of tokens for each example\. Received: 2 lists"):
        ll.capture(model, batch).with_tokens([SOURCE] * 2)


def test_arguments_of_a_call_are_inputs():
    class Decoder(keras.Model):
        def __init__(self):
            super().__init__()
            self.cross = layers.MultiHeadAttention(2, 4, name="cross")

        def call(self, x, memory):
            return self.cross(x, memory)

    x = np.ones((1, 4, 8), "float32")
    maps = ll.capture(Decoder(), x, tokens={0: TARGET, "memory": SOURCE}, kwargs={"memory": x})
    assert read(maps) == {"cross": ("KLMN", "abcd")}


def test_a_model_that_takes_strings():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("models take strings on TensorFlow only")
    vectorize = layers.TextVectorization(output_sequence_length=5)
    vectorize.adapt(["a dull film", "a great film"])
    text = keras.Input((), dtype="string")
    steps = layers.Embedding(20, 8, mask_zero=True)(vectorize(text))
    model = keras.Model(text, ll.layers.AttentionPooling(name="pool")(steps))
    tokens = [["a", "dull", "film"], ["great"]]
    batch = ops.convert_to_tensor(["a dull film", "great"])
    maps = ll.capture(model, batch)
    for labelled in (ll.capture(model, batch, tokens=tokens), maps.with_tokens(tokens)):
        assert [list(each) for each in labelled["pool"].tokens] == tokens


def test_the_words_of_documents_keep_their_documents():
    words = keras.Input((3, 5), dtype="int32")
    model = keras.Model(words, ll.recipes.han(2)(layers.Embedding(9, 4, mask_zero=True)(words)))
    batch = np.array([[[1, 2, 0, 0, 0], [3, 4, 5, 0, 0], [0] * 5], [[6, 0, 0, 0, 0], [7, 8, 1, 2, 3], [4, 0, 0, 0, 0]]])
    maps = ll.capture(model, batch)
    word_map, sentence_map = maps.values()
    assert word_map.shape == (2, 3, 1, 1, 5)
    assert sentence_map.shape == (2, 1, 1, 3)
    np.testing.assert_allclose(word_map.weights().sum(-1)[..., 0, 0], (batch > 0).any(-1), atol=1e-6)
    assert (word_map.weights()[:, :, 0, 0][batch == 0] == 0).all()
    alone = ll.capture(model, batch[1:])
    np.testing.assert_allclose(word_map.weights(examples=[1]), next(iter(alone.values())).weights(), atol=1e-6)


def test_tokens_of_documents():
    """(B, sentences, words): a list of sentences for each document."""
    documents = keras.Input((2, 3), dtype="int32")
    model = keras.Model(documents, ll.recipes.han(4)(layers.Embedding(9, 8, mask_zero=True)(documents)))
    batch = np.array([[[1, 2, 3], [4, 5, 0]], [[6, 7, 8], [1, 0, 0]]])
    nested = [[["a", "b", "c"], ["d", "e"]], [["f", "g", "h"], ["i"]]]
    maps = ll.capture(model, batch, tokens=nested)
    words, sentences = maps.values()
    assert words.shape == (2, 2, 1, 1, 3)
    assert [list(each) for each in words.tokens] == [["a", "b", "c"], ["d", "e"], ["f", "g", "h"], ["i"]]
    assert sentences.tokens is None
    table = words.to_pandas()
    rows = table[(table["example"] == 1) & (table["step"] == 0)]
    assert rows["key_token"].tolist() == ["f", "g", "h"]
    with pytest.raises(ValueError, match=r"The tokens of documents, .* are nested"):
        ll.capture(model, batch, tokens=[["a", "b", "c"]] * 2)
