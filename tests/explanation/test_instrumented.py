"""What stays as it is while a model is explained: padding, other queries, tokens around a text."""

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from limelight import evaluate
from limelight.explanation.alternatives import find_adversarial, permute_attention
from limelight.explanation.instrumented import InstrumentedModel
from limelight.explanation.rankings import compute_attributions
from limelight.explanation.subjects import make_subject
from limelight.models.forecaster import list_origins
from models import test_pretrained as pretrained

UNKNOWN = evaluate.Replace(1, "replaced by the unknown token")
FEW = {"permutations": 4, "restarts": 0, "resamples": 100, "verbose": False}


def instrument(model, X):
    subject = make_subject(model, X, tokens=None, perturbation=UNKNOWN, output="probabilities", indices=None)
    instrumented = InstrumentedModel(subject)
    return instrumented, compute_attributions(instrumented, ["attention", "gradient_times_input"], 4)


@pytest.mark.full
def test_integrated_gradients_leave_padding_that_a_model_tells_by_its_values(random):
    keras.utils.set_random_seed(0)
    steps = keras.Input((None, 3))
    states = keras.layers.LSTM(5, return_sequences=True)(keras.layers.Masking()(steps))
    model = keras.Model(steps, keras.layers.Dense(2, "softmax")(ll.layers.AttentionPooling(name="pool")(states)))
    x = [(random.normal(size=(length, 3)) + 1).astype("float32") for length in (7, 5, 9)]
    result = ll.explanation.explain(model, x, rankings=["integrated_gradients"], **FEW)
    mean = np.mean([each.mean(0) for each in x], axis=0)
    for each, scores in zip(x, result.rankings["integrated_gradients"], strict=True):
        before, after = ops.convert_to_numpy(model(np.stack([each, np.broadcast_to(mean, each.shape)])))
        np.testing.assert_allclose(scores.sum(), before.max() - after[before.argmax()], atol=1e-5)


def test_a_sigmoid_without_an_axis_has_two_classes(random):
    words = keras.Input((None,), dtype="int32")
    pooled = ll.layers.AttentionPooling(name="pool")(keras.layers.Embedding(20, 4)(words), mask=ops.not_equal(words, 0))
    outputs = keras.layers.Dense(1, "sigmoid")(pooled)
    texts = [random.integers(2, 20, length).astype("int32") for length in (7, 5, 9, 6, 8, 4)]
    expected, squeezed = (
        instrument(keras.Model(words, each), texts)[1] for each in (outputs, ops.squeeze(outputs, axis=-1))
    )
    assert set(expected.outputs.argmax(1)) == {0, 1}
    for name in expected.rankings:
        for first, second in zip(expected.rankings[name], squeezed.rankings[name], strict=True):
            np.testing.assert_allclose(second, first, atol=1e-6)


@pytest.mark.full
def test_other_weights_leave_what_is_behind_an_example(random):
    """A model of one length without a mask attends to the zeros behind a text, and from them."""
    keras.utils.set_random_seed(0)
    words = keras.Input((12,), dtype="int32")
    vectors = keras.layers.Embedding(20, 8, embeddings_initializer=keras.initializers.RandomNormal(stddev=1))(words)
    vectors += keras.layers.MultiHeadAttention(2, 4, name="mixing")(vectors, vectors)
    model = keras.Model(words, keras.layers.Dense(2, "softmax")(keras.layers.GlobalAveragePooling1D()(vectors)))
    x = np.zeros((3, 12), "int32")
    for row, length in zip(x, (7, 5, 9), strict=True):
        row[:length] = random.integers(2, 20, length)
    instrumented, attributions = instrument(model, x)
    own = ll.capture(model, x)["mixing"].weights()
    np.testing.assert_allclose(attributions.rankings["attention"][1], own[1, :, :5, :5].mean((0, 1)), atol=1e-6)
    for index, length in enumerate((7, 5, 9)):
        batch = instrumented.make_batch(np.array([index]), 12, rows=1)
        same = instrumented.predict(batch, attributions.weights[index][None])
        np.testing.assert_allclose(same[0], attributions.outputs[index], atol=1e-5)
        inside = np.zeros((12, 12), bool)
        inside[:length, :length] = True
        np.testing.assert_array_equal(attributions.permitted[index], np.broadcast_to(inside, (2, 12, 12)))
    found = find_adversarial(instrumented, attributions, restarts=1, iterations=10, scale=1.0, seed=0)
    assert (found.divergence > 0).all()
    for index, (length, weights) in enumerate(zip((7, 5, 9), found.weights, strict=True)):
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
        np.testing.assert_allclose(weights[:, length:], own[index][:, length:], atol=1e-6)
        np.testing.assert_allclose(weights[..., length:], own[index][..., length:], atol=1e-6)
        outputs = ll.inspection.override_attention(model, x[index : index + 1], {"mixing": weights[None]})
        moved = evaluate.total_variation(ops.convert_to_numpy(outputs)[0], attributions.outputs[index])
        np.testing.assert_allclose(moved, found.moved[index], atol=1e-5)
    assert permute_attention(instrumented, attributions, 5, 1.0, 0).shape == (3,)


@pytest.fixture(scope="module")
def forecasts():
    """A Transformer with a query for each step of the forecast, its series, and its attention on their last windows."""
    random = np.random.default_rng(5)
    series = tuple(random.normal(size=(6, 30)).cumsum(1) + 20)
    panel = ll.data.Panel(
        "sales", tuple("abcdef"), (np.arange(30),) * 6, series, known=tuple(random.normal(size=(6, 33, 1))),
        known_names=("promotion",), season=1,
    )  # fmt: skip
    model = ll.models.Forecaster(
        horizon=3, past=12, units=8, architecture="transformer", epochs=1, batch_size=8, training={"epoch_steps": 1},
        random_state=0, verbose=False,
    )  # fmt: skip
    model.fit(panel)
    windows = model._make_windows(panel, *list_origins(panel, 3, 1))
    return model, panel, ll.capture(model.model_, windows.batch(np.arange(6), 12)[0])


@pytest.mark.full
def test_one_step_of_a_forecast_is_that_of_its_query(forecasts):
    model, panel, maps = forecasts
    settings = {"folds": 1, "horizon_step": 2, **FEW}
    result = ll.explanation.explain(model, panel, rankings=["rollout"], **settings)
    rollout = ll.analysis.rollout([maps["self_attention_1"], maps["self_attention_2"]])[-1]
    weights = maps["attention"].weights()[:, :, 1].mean(1)
    np.testing.assert_allclose(np.stack(result.rankings["attention"]), weights, atol=1e-5)
    expected = np.einsum("bt,bts->bs", weights, rollout)
    np.testing.assert_allclose(np.stack(result.rankings["rollout"]), expected, atol=1e-5)
    # Queries of self-attention are past steps: the forecast depends on all of them.
    inner = ll.explanation.explain(model, panel, layer="self_attention_2", rankings=["attention"], **settings)
    expected = maps["self_attention_2"].weights().mean((1, 2))
    np.testing.assert_allclose(np.stack(inner.rankings["attention"]), expected, atol=1e-5)


@pytest.mark.full
def test_other_weights_of_one_step_of_a_forecast_are_those_of_its_query(forecasts):
    from limelight.explanation import forecasts as subjects

    model, panel, _ = forecasts
    subject = subjects.make_subject(model, panel, perturbation=None, sample=None, folds=1, horizon_step=2, seed=0)
    instrumented = InstrumentedModel(subject)
    attributions = compute_attributions(instrumented, ["attention"], 4)
    assert [each.any(-1)[0].tolist() for each in attributions.permitted] == [[False, True, False]] * 6
    found = find_adversarial(instrumented, attributions, restarts=1, iterations=5, scale=1.0, seed=0)
    for own, weights, divergence in zip(attributions.weights, found.weights, found.divergence, strict=True):
        np.testing.assert_array_equal(weights[0, [0, 2]], own[0, [0, 2]].astype("float32"))
        np.testing.assert_allclose(divergence, evaluate.jensen_shannon(own[0, 1], weights[0, 1]), atol=1e-5)


@pytest.mark.full
def test_tokens_around_a_text_have_no_score_and_stay(tmp_path):
    words = ["[PAD]", "[unused0]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "##s", ".", "[UNK]"]
    folder = pretrained.write_folder(tmp_path / "encoder")
    (folder / "vocab.txt").write_text("\n".join(words))
    model = ll.models.TextClassifier(encoder=folder, **pretrained.FAST).fit(pretrained.TEXTS, pretrained.LABELS)
    texts, rankings = ["a good film", "bad films.", ""], ["occlusion", "leave_one_out"]
    marks = [[False, False, True, False, False], [False, True, False, False, False, False], [False] * 2]
    result = ll.explanation.explain(model, texts, marks=marks, rankings=rankings, **FEW)
    assert result.words[0] == ["[CLS]", "a", "good", "film", "[SEP]"]
    assert result.tokens == pytest.approx((3 + 4 + 2) / 3)
    for name, ranking in result.rankings.items():
        expected = [[True, *[False] * count, True] for count in (3, 4)] + [[False, False]]
        assert [np.isnan(scores).tolist() for scores in ranking] == expected, name
    # The id of the unknown token is that of the tokenizer.
    before, after = (
        ops.convert_to_numpy(model.model_(np.array([[2, second, 6, 8, 3]])))[0].astype(float) for second in (5, 11)
    )
    label = before.argmax()
    np.testing.assert_allclose(result.rankings["leave_one_out"][0][1], before[label] - after[label], atol=1e-5)
    # Without all of its words a text is what is around it.
    deleted = make_subject(model, texts, tokens=None, perturbation="delete", output=None, indices=None)
    assert deleted.perturbation(deleted.sequences[0], np.zeros(5, bool)).tolist() == [2, 3]
    assert deleted.perturbation(deleted.sequences[2], np.zeros(2, bool)).tolist() == [11]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a fused attention of PyTorch")
def test_a_fused_attention_of_torch_is_explained(random):
    import torch

    class Fused(keras.Layer):
        def call(self, x):
            mixed = torch.nn.functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])
            return mixed[:, 0]

    words = keras.Input((None,), dtype="int32")
    embedding, answer = keras.layers.Embedding(20, 4), keras.layers.Dense(2, "softmax")
    outputs = answer(ops.mean(Fused(name="mixing")(embedding(words)), axis=1))
    texts = random.integers(2, 20, (3, 7)).astype("int32")
    instrumented, attributions = instrument(keras.Model(words, outputs), list(texts))
    (batch,) = instrumented.batches()
    assert (instrumented.key, batch.indices.tolist()) == ("mixing", [0, 1, 2])
    expected = ops.convert_to_numpy(answer(ops.mean(embedding(texts), axis=1)))
    np.testing.assert_allclose(instrumented.predict_uniform(batch)[:3], expected, atol=1e-6)
    vectors = ops.convert_to_numpy(embedding(texts))
    weights = np.exp(vectors @ vectors.swapaxes(1, 2) / 2)
    weights /= weights.sum(-1, keepdims=True)
    for scores, each in zip(attributions.rankings["attention"], weights, strict=True):
        np.testing.assert_allclose(scores, each.mean(0), atol=1e-6)


@pytest.mark.full
def test_a_model_without_an_output_for_an_empty_text_is_rejected_with_a_way_out(random):
    """The mean over the positions that Keras's mask permits is 0 / 0 where it permits none."""
    keras.utils.set_random_seed(0)
    words = keras.Input((12,), dtype="int32")
    vectors = keras.layers.Embedding(20, 8, mask_zero=True)(words)
    vectors = keras.layers.MultiHeadAttention(2, 4)(vectors, vectors)
    model = keras.Model(words, keras.layers.Dense(2, "softmax")(keras.layers.GlobalAveragePooling1D()(vectors)))
    ids = random.integers(2, 20, (6, 12))
    ids[:, 9:] = 0
    assert np.isnan(model.predict(np.zeros((1, 12)), verbose=0)).all()
    settings = {"restarts": 0, "permutations": 3, "verbose": False}
    with pytest.raises(ValueError, match=r"finite output where all tokens are removed.*nan for an input of \[0\]"):
        ll.explanation.explain(model, ids, **settings)
    assert ll.explanation.explain(model, ids, perturbation=evaluate.Delete(1), **settings).n == 6
