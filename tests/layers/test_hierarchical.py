"""Hierarchical pooling of words and sentences, against loops in numpy."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from compiling import predict
from limelight.layers import HierarchicalPooling

B, S, W, D = 2, 3, 5, 7
WORDS = np.array([[3, 1, 0], [5, 2, 4]])  # how many words each sentence has


def numpy(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def mask() -> np.ndarray:
    return np.arange(W) < WORDS[..., None]


def pool(pooling: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The vector and weights of one sequence (T, D), by loops."""
    kernel, bias, context = numpy(pooling.hidden.kernel), numpy(pooling.hidden.bias), numpy(pooling.query)[0]
    scores = np.array([np.tanh(row @ kernel + bias) @ context for row in rows])
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    return sum(weight * row for weight, row in zip(weights, rows, strict=True)), weights


def test_each_level_is_pooled_by_attention(random: np.random.Generator) -> None:
    x = random.normal(size=(B, S, W, D)).astype("float32")
    layer = HierarchicalPooling(4)
    vector, words, sentences = layer(x, mask=mask(), return_attention_scores=True)
    assert (tuple(words.shape), tuple(sentences.shape)) == ((B, S, W), (B, S))
    for b in range(B):
        vectors = []
        for s in range(S):
            count = WORDS[b, s]
            assert not numpy(words)[b, s, count:].any()
            if count:
                found, weights = pool(layer.word_pooling, x[b, s, :count])
                np.testing.assert_allclose(numpy(words)[b, s, :count], weights, atol=1e-5)
                vectors.append(found)
        expected, weights = pool(layer.sentence_pooling, np.array(vectors))
        np.testing.assert_allclose(numpy(sentences)[b, : len(vectors)], weights, atol=1e-5)
        assert not numpy(sentences)[b, len(vectors) :].any()
        np.testing.assert_allclose(numpy(vector)[b], expected, atol=1e-5)


@pytest.mark.full
def test_empty_document_gives_zeros(random: np.random.Generator) -> None:
    x = random.normal(size=(B, S, W, D)).astype("float32")
    empty = mask()
    empty[0] = False
    vector, words, sentences = HierarchicalPooling(4)(x, mask=empty, return_attention_scores=True)
    assert not any(numpy(tensor)[0].any() for tensor in (vector, words, sentences))
    assert numpy(vector)[1].any()


@pytest.mark.full
def test_encoders_train_save_and_load(random: np.random.Generator, tmp_path: Path) -> None:
    ids = keras.Input((None, None), dtype="int32")
    words = keras.layers.Embedding(11, D, mask_zero=True)(ids)
    pooling = HierarchicalPooling(
        word_encoder=keras.layers.Bidirectional(keras.layers.GRU(3, return_sequences=True)),
        sentence_encoder=keras.layers.GRU(4, return_sequences=True),
        normalizer="sparsemax",
        score="additive",
    )
    vector, word_weights, sentence_weights = pooling(words, return_attention_scores=True)
    assert (vector.shape, word_weights.shape, sentence_weights.shape) == ((None, 4), (None, None, None), (None, None))
    model = keras.Model(ids, [keras.layers.Dense(2)(vector), word_weights, sentence_weights])
    tokens = np.where(mask(), random.integers(1, 11, size=(B, S, W)), 0)
    model.compile("adam", ["mse", None, None], jit_compile=keras.backend.backend() == "jax")
    model.fit(tokens, random.normal(size=(B, 2)), verbose=0)
    expected = predict(model, tokens)
    assert not expected[1][~mask()].any()
    assert not expected[2][0, 2]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for after, before in zip(predict(loaded, tokens), expected, strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)
    # More words and sentences of padding change nothing.
    padded = np.zeros((B, S + 1, W + 2), "int32")
    padded[:, :S, :W] = tokens
    np.testing.assert_allclose(predict(model, padded)[0], expected[0], atol=1e-5)


@pytest.mark.full
def test_learned_score_is_not_shared_between_levels() -> None:
    layer = HierarchicalPooling(score=ll.scores.Bilinear())
    layer(np.ones((B, S, W, D), "float32"))
    assert layer.word_pooling.core.score is not layer.sentence_pooling.core.score
    assert sum(variable.name == "kernel" for variable in layer.trainable_variables) == 2


@pytest.mark.full
def test_learned_normalizer_inside_another_is_not_shared_between_levels() -> None:
    layer = HierarchicalPooling(normalizer=ll.normalizers.TopK(2, ll.normalizers.Sink(0.5, learned=True)))
    layer(np.ones((B, S, W, D), "float32"))
    words, sentences = (level.core.normalizer for level in (layer.word_pooling, layer.sentence_pooling))
    assert words.normalizer is not sentences.normalizer
    assert [words.k, sentences.k] == [2, 2]
    assert [words.normalizer.logit, sentences.normalizer.logit] == [0.5, 0.5]
    assert sum("sink" in variable.path for variable in layer.trainable_variables) == 2


@pytest.mark.full
def test_input_of_wrong_rank_raises() -> None:
    with pytest.raises(ValueError, match=r"(?s)\(B, sentences, words, D\).*\(2, 3, 4\).*AttentionPooling"):
        HierarchicalPooling()(np.ones((2, 3, 4)))


@pytest.mark.full
def test_encoder_that_takes_no_mask(random: np.random.Generator) -> None:
    x = random.normal(size=(B, S, W, D)).astype("float32")
    layer = HierarchicalPooling(4, word_encoder=keras.layers.Dense(6), sentence_encoder=keras.layers.Dense(5))
    assert tuple(layer(x).shape) == (B, 5)
    other = np.where(mask()[..., None], x, 9.0)
    np.testing.assert_allclose(numpy(layer(x, mask=mask())), numpy(layer(other, mask=mask())), atol=1e-6)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")
def test_int8_model_can_be_saved_and_loaded(random: np.random.Generator, tmp_path: Path) -> None:
    x = random.normal(size=(B, S, W, D)).astype("float32")
    document = keras.Input((S, W, D))
    model = keras.Model(document, HierarchicalPooling(4, word_encoder=keras.layers.Dense(6))(document))
    model.quantize("int8")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numpy(loaded(x)), numpy(model(x)), atol=1e-6)
