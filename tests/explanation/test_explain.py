"""Whether attention explains predictions, where the answer is known."""

import dataclasses
import functools
import json

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

import limelight as ll
from contracts.representative import full
from explanation import planted
from limelight import evaluate
from limelight.evaluate import Estimate
from limelight.explanation import verdict

MODELS = {"planted": planted.planted_model, "pair": planted.pair_model, "decoy": planted.decoy_model}
UNKNOWN = evaluate.Replace(1, "replaced by the unknown token")


@functools.cache
def explain(kind, count=40):
    texts, labels, marks = planted.make_pairs(count) if kind == "pair" else planted.make_texts(count)
    if kind == "pair":
        # Both words matter where there are both.
        texts, labels, marks = texts[1::2], labels[1::2], marks[1::2]
    tokens = [[f"w{index}" for index in ids] for ids in texts]
    return ll.explanation.explain(
        MODELS[kind](), texts, labels, marks=marks, tokens=tokens, perturbation=UNKNOWN, permutations=20, iterations=40,
        resamples=200, verbose=False,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["planted", full("pair")])
def test_attention_and_gradients_find_the_words_that_decide(kind):
    result = explain(kind)
    auprc = {name: measures["auprc"].value for name, measures in result.plausibility.items()}
    for name in ("attention", "gradient_times_input", "integrated_gradients", "norm_weighted", "value_zeroing"):
        assert auprc[name] > 0.95, (name, auprc)
    random = np.random.default_rng(3)
    shuffled = [random.permutation(scores) for scores in result.rankings["attention"]]
    marks = planted.make_texts(40)[2] if kind == "planted" else planted.make_pairs(40)[2][1::2]
    assert evaluate.plausibility({"random": shuffled}, marks)["random"]["auprc"].value < 0.7
    against = result.faithfulness.against_random
    assert against["attention"]["comprehensiveness"].better
    assert verdict.judge_removal(result) == "beats"
    assert verdict.judge_dependence(result) is True


def test_the_verdict_supports_attention_that_is_read():
    result = explain("planted")
    assert result.verdict[0] == (
        "On 40 examples these tests support that the attention shows which tokens the predictions depend on."
    )
    assert result.verdict[1].startswith("The attention beats random rankings in comprehensiveness (difference +0.")
    # No class changes, but 40 examples permit errors of more than a point.
    assert result.verdict[-1].startswith("It cannot be told whether the weights can be replaced by equal ones")


def test_the_verdict_finds_out_a_decoy():
    result = explain("decoy")
    assert verdict.judge_removal(result) == "does not"
    assert verdict.judge_dependence(result) is False
    assert "contradict" in result.verdict[0]
    assert result.verdict[1].startswith("The attention does not beat random rankings")
    assert result.uniform["changed"].value == 0
    assert result.permutation.value < 0.01
    # Nearly any attention gives the same prediction.
    assert result.adversarial is not None
    assert result.adversarial["share"].value == 1
    assert result.adversarial["divergence"].value > 0.5
    for name in ("gradient_times_input", "integrated_gradients", "leave_one_out"):
        assert result.plausibility[name]["auprc"].value > 0.95
    assert result.plausibility["attention"]["auprc"].value < 0.5


def test_rankings_of_removal_agree_with_the_model():
    result = explain("planted")
    model, (texts, _, _) = planted.planted_model(), planted.make_texts(40)
    ids = texts[3]
    rows = np.stack([ids, *[np.where(np.arange(len(ids)) == place, 1, ids) for place in range(len(ids))]])
    outputs = ops.convert_to_numpy(model(rows)).astype(float)
    label = outputs[0].argmax()
    np.testing.assert_allclose(result.rankings["leave_one_out"][3], outputs[0, label] - outputs[1:, label], atol=1e-5)
    weights = ll.capture(model, ids[None])["pool"].weights()[0, 0, 0]
    np.testing.assert_allclose(result.rankings["attention"][3], weights, atol=1e-6)


def test_agreement_with_leave_one_out_has_no_sign():
    result = explain("planted")
    model, (texts, _, _) = planted.planted_model(), planted.make_texts(40)
    taus = {"distance": [], "signed": []}
    for ids, attention, signed in zip(
        texts, result.rankings["attention"], result.rankings["leave_one_out"], strict=True
    ):
        rows = np.stack([ids, *[np.where(np.arange(len(ids)) == place, 1, ids) for place in range(len(ids))]])
        outputs = ops.convert_to_numpy(model(rows)).astype(float)
        distance = np.abs(outputs[1:] - outputs[0]).sum(1) / 2
        taus["distance"].append(stats.kendalltau(attention, distance).statistic)
        taus["signed"].append(stats.kendalltau(attention, signed).statistic)
    value = result.agreement["leave_one_out"].value
    assert value == pytest.approx(np.mean(taus["distance"]), abs=0.01)
    assert abs(value - np.mean(taus["signed"])) > 0.05


def test_gradient_times_input_is_the_slope_of_a_gate():
    model, (texts, _, _) = planted.planted_model(), planted.make_texts(40)
    ids = texts[3]
    embedding = model.get_layer("embedding")
    table = ops.convert_to_numpy(embedding.embeddings)
    label = ops.convert_to_numpy(model(ids[None]))[0].argmax()

    def predict(place, gate):
        # The token gets an id of its own, whose embedding is scaled.
        changed = table.copy()
        changed[1] = gate * table[ids[place]]
        embedding.set_weights([changed])
        output = ops.convert_to_numpy(model(np.where(np.arange(len(ids)) == place, 1, ids)[None]))[0, label]
        embedding.set_weights([table])
        return float(output)

    slopes = [(predict(place, 1.02) - predict(place, 0.98)) / 0.04 for place in range(len(ids))]
    np.testing.assert_allclose(explain("planted").rankings["gradient_times_input"][3], slopes, rtol=0.02, atol=1e-4)


def test_gradient_times_attention_is_that_of_inspection():
    model, (texts, _, _) = planted.planted_model(), planted.make_texts(40)
    expected = ll.inspection.gradient_times_attention(model, texts[5][None])["pool"].weights()[0, 0, 0]
    np.testing.assert_allclose(explain("planted").rankings["gradient_times_attention"][5], expected, atol=1e-5)


def test_integrated_gradients_sum_to_the_change_of_the_prediction():
    model, (texts, _, _) = planted.planted_model(), planted.make_texts(40)
    embedding = model.get_layer("embedding")
    table = ops.convert_to_numpy(embedding.embeddings)
    before = ops.convert_to_numpy(model(texts[5][None]))[0]
    embedding.set_weights([np.zeros_like(table)])
    after = ops.convert_to_numpy(model(texts[5][None]))[0]
    embedding.set_weights([table])
    total = explain("planted").rankings["integrated_gradients"][5].sum()
    np.testing.assert_allclose(total, before.max() - after[before.argmax()], atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="captum is of PyTorch")
def test_integrated_gradients_are_those_of_captum(random):
    captum = pytest.importorskip("captum.attr")
    steps = keras.Input((7, 3))
    hidden = keras.layers.Dense(6, "tanh")(steps)
    pooled = ll.layers.AttentionPooling(name="pool")(hidden)
    model = keras.Model(steps, keras.layers.Dense(3, "softmax")(pooled))
    x = random.normal(size=(5, 7, 3)).astype("float32")
    result = ll.explanation.explain(model, x, restarts=0, permutations=2, resamples=100, ig_steps=20, verbose=False)
    import torch

    baseline = torch.tensor(np.broadcast_to(x.mean((0, 1)), x.shape).copy())
    labels = torch.tensor(ops.convert_to_numpy(model(x)).argmax(1))
    attributions = captum.IntegratedGradients(lambda inputs: model(inputs)).attribute(
        torch.tensor(x), baseline, target=labels, n_steps=20, method="gausslegendre"
    )
    expected = attributions.detach().numpy().sum(-1)
    np.testing.assert_allclose(np.stack(result.rankings["integrated_gradients"]), expected, atol=1e-4)


def test_other_attention_gives_the_same_prediction(random):
    from limelight.explanation.alternatives import TOLERANCE, find_adversarial
    from limelight.explanation.instrumented import InstrumentedModel
    from limelight.explanation.rankings import compute_attributions
    from limelight.explanation.subjects import make_subject

    model, (texts, _, _) = planted.planted_model(), planted.make_texts(6)
    subject = make_subject(model, texts, tokens=None, perturbation=UNKNOWN, output=None, indices=None)
    instrumented = InstrumentedModel(subject)
    attributions = compute_attributions(instrumented, ["attention"], 4)
    found = find_adversarial(instrumented, attributions, restarts=2, iterations=40, scale=1.0, seed=0)
    for index, (ids, weights) in enumerate(zip(texts, found.weights, strict=True)):
        own = attributions.weights[index]
        outputs = ops.convert_to_numpy(ll.inspection.override_attention(model, ids[None], {"pool": weights[None]}))[0]
        moved = evaluate.total_variation(outputs, ops.convert_to_numpy(model(ids[None]))[0])
        np.testing.assert_allclose(moved, found.moved[index], atol=1e-4)
        assert moved <= TOLERANCE + 1e-4
        np.testing.assert_allclose(evaluate.jensen_shannon(own, weights).mean(), found.divergence[index], atol=1e-5)
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


@pytest.mark.full
def test_self_attention_of_several_heads(random):
    """Weights with many queries cannot share a run with what is added to them; rollout ends at the pooling."""
    words = keras.Input((None,), dtype="int32")
    vectors = keras.layers.Embedding(20, 8)(words)
    mask = ops.not_equal(words, 0)
    for number in (1, 2):
        attended = keras.layers.MultiHeadAttention(2, 4, name=f"mixing_{number}")(
            vectors, vectors, query_mask=mask, value_mask=mask
        )
        vectors = vectors + attended
    pooled = ll.layers.AttentionPooling(name="pool")(vectors, mask=mask)
    model = keras.Model(words, keras.layers.Dense(1, "sigmoid")(pooled))
    texts, labels, _ = planted.make_texts(8)
    settings = {"permutations": 5, "restarts": 1, "iterations": 4, "resamples": 100, "ig_steps": 4, "verbose": False}
    result = ll.explanation.explain(model, texts, labels, **settings)
    assert result.layer == "pool"
    assert result.output == "probabilities"
    assert "rollout" in result.rankings
    maps = ll.capture(model, texts[2][None])
    rollout = ll.analysis.rollout([maps["mixing_1"], maps["mixing_2"]])[-1, 0]
    np.testing.assert_allclose(result.rankings["rollout"][2], maps["pool"].weights()[0, 0, 0] @ rollout, atol=1e-5)
    inner = ll.explanation.explain(model, texts, layer="mixing_2", **settings)
    np.testing.assert_allclose(inner.rankings["attention"][2], maps["mixing_2"].weights()[0].mean((0, 1)), atol=1e-5)
    assert inner.perturbation == "deleted"


@pytest.mark.full
def test_regression(random):
    steps = keras.Input((None, 2))
    pooled = ll.layers.AttentionPooling(name="pool")(steps)
    model = keras.Model(steps, keras.layers.Dense(1)(pooled))
    x = [random.normal(size=(length, 2)).astype("float32") for length in (5, 9, 7, 6)]
    y = np.array([0.0, 1.0, 0.5, 0.2])
    result = ll.explanation.explain(model, x, y, permutations=5, iterations=4, resamples=100, ig_steps=4, verbose=False)
    assert result.output == "values"
    assert "log_odds" not in result.faithfulness.measures["attention"]
    assert result.uniform["metric"] == "mae"
    outputs = np.array([ops.convert_to_numpy(model(each[None]))[0, 0] for each in x])
    means = np.array([each.mean(0) for each in x])
    equal = ops.convert_to_numpy(model.layers[-1](means))[:, 0]
    expected = np.abs(equal - y).mean() - np.abs(outputs - y).mean()
    np.testing.assert_allclose(result.uniform["cost"].value, expected, atol=1e-5)
    np.testing.assert_allclose(result.scale, outputs.std(), rtol=1e-4)


def test_results_become_json_and_text(tmp_path):
    result = explain("planted")
    document = json.loads(result.to_json(tmp_path / "explanation.json"))
    assert document == json.loads((tmp_path / "explanation.json").read_text())
    assert document["verdict"] == list(result.verdict)
    assert [row["ranking"] for row in document["table"]][-1] == "random"
    text = str(result)
    assert "norm-weighted attention" in text
    assert text.endswith(result.verdict[-1])
    assert result.words is not None
    assert result.words[0][0].startswith("w")


def test_mistakes_are_explained():
    model, (texts, labels, _) = planted.planted_model(), planted.make_texts(6)
    with pytest.raises(
        ValueError, match=r"`layer` must be an attention that reads the tokens: \['pool'\]\. Received: layer='no'"
    ):
        ll.explanation.explain(model, texts, layer="no", verbose=False)
    with pytest.raises(
        ValueError, match=r'needs the id that takes the place of a removed token.*perturbation="replace"'
    ):
        ll.explanation.explain(model, texts, perturbation="replace", verbose=False)
    with pytest.raises(
        ValueError, match=r"`rankings` must be of attention, gradient_times_attention.*Received: 'shap'"
    ):
        ll.explanation.explain(model, texts, rankings=["shap"], verbose=False)
    with pytest.raises(ValueError, match=r"`y` must have a value for each of 6 examples\. Received: 5"):
        ll.explanation.explain(model, texts, labels[:5], verbose=False)
    with pytest.raises(TypeError, match="must be a Keras model, or a text, series or document classifier or regressor"):
        ll.explanation.explain(object(), texts, verbose=False)
    with pytest.raises(ValueError, match=r"There must be an example to explain\. Received: 0 examples"):
        ll.explanation.explain(model, [], verbose=False)
    with pytest.raises(ValueError, match="must be fitted"):
        ll.explanation.explain(ll.models.TextClassifier(), ["a"], verbose=False)


def _with(result, **changes):
    return dataclasses.replace(result, **changes)


def test_the_verdict_follows_its_rules():
    result = explain("planted")

    def estimate(value, low, high):
        return Estimate(value, low, high, "", 40)

    for low, high, expected in ((0.06, 0.1, True), (0.01, 0.04, False), (0.04, 0.06, None)):
        changed = _with(result, permutation=estimate(0.05, low, high))
        assert verdict.judge_dependence(changed) is expected
        word = {True: "support", False: "cannot decide", None: "cannot decide"}[expected]
        assert word in verdict.write(changed)[0]
    for value, low, high, place in (
        (0.1, 0.0, 0.2, "(95 % CI .00 to .20), within the range"),
        (0.6, 0.5, 0.7, "(95 % CI .50 to .70), above the range"),
        (-0.1, -0.2, 0.0, "(95 % CI −.20 to .00), below the range"),
        (0.05, 0.0, 0.1, "(95 % CI .00 to .10), below, though not clearly, the range"),
    ):
        changed = _with(result, agreement={**result.agreement, "gradients": estimate(value, low, high)})
        sentence = next(
            each for each in verdict.write(changed) if each.startswith("The attention agrees with gradients")
        )
        assert place in sentence
    for low, high, claim in (
        (-0.01, 0.005, "The weights can be replaced by equal ones, without training again, at a cost of +0.2 points"),
        (0.02, 0.05, "The weights cannot be replaced by equal ones"),
        (0.0, 0.05, "It cannot be told whether the weights can be replaced"),
    ):
        changed = _with(result, uniform={**result.uniform, "cost": estimate(0.002, low, high)})
        assert any(each.startswith(claim) for each in verdict.write(changed))
    few = verdict.write(_with(result, n=19))
    assert few[0].startswith("On 19 examples, fewer than 20, these tests cannot decide whether the attention shows")
    assert few[1].startswith("It cannot be told whether the attention beats random rankings")
    weak = {"ranking": "integrated_gradients", "value": -0.2, "low": -0.3, "high": -0.1, "p_value": 0.001}
    changed = _with(result, rival=weak, permutation=estimate(0.01, 0.0, 0.02))
    assert "contradict" in verdict.write(changed)[0]
    assert any("finds less than integrated gradients" in each for each in verdict.write(changed))


@pytest.mark.full
def test_documents_have_two_levels_of_attention(random):
    words = ["good", "bad", *"abcdefgh"]
    texts = []
    for index in range(40):
        sentences = [" ".join(random.choice(words[2:], random.integers(2, 5))) for _ in range(random.integers(1, 4))]
        sentences[random.integers(len(sentences))] += f" {words[index % 2]}"
        texts.append(". ".join(sentences) + ".")
    settings = {"epochs": 1, "training": {"epoch_steps": 1}, "verbose": False, "random_state": 0}
    model = ll.models.DocumentClassifier(max_sentences=4, max_words=6, units=3, embedding_dim=4, **settings)
    model.fit(texts, [index % 2 for index in range(40)])
    result = ll.explanation.explain(
        model,
        texts[:5],
        [0, 1, 0, 1, 0],
        permutations=5,
        restarts=1,
        iterations=3,
        resamples=100,
        ig_steps=3,
        verbose=False,
    )
    assert result.layer == "attention/sentence_pooling and attention/word_pooling"
    assert result.words is not None
    maps = model.attention(texts[:5])
    sentences = maps["attention/sentence_pooling"].weights()[2, 0, 0]
    inner = maps["attention/word_pooling"].weights()[2, :, 0, 0]
    products = (inner * sentences[:, None]).ravel()
    scores = result.rankings["attention"][2]
    assert len(scores) == len(result.words[2])
    np.testing.assert_allclose(scores, products[products > 0], atol=1e-6)
    np.testing.assert_allclose(scores.sum(), 1, atol=1e-5)
    # Leave-one-out writes the unknown word in the place of the first one, which no other text has.
    before = model.predict_proba([texts[2]])[0]
    after = model.predict_proba([texts[2].replace(result.words[2][0], "zzz", 1)])[0]
    label = before.argmax()
    np.testing.assert_allclose(result.rankings["leave_one_out"][2][0], before[label] - after[label], atol=1e-5)
    keys = dict.fromkeys(maps, ll.inspection.uniform_weights)
    batch, _, _ = model.inputs_.encode(texts[:5]).batch(np.arange(5), 4)
    outputs = ops.convert_to_numpy(ll.inspection.override_attention(model.model_, batch, keys))
    moved = evaluate.total_variation(outputs, model.predict_proba(texts[:5])).mean()
    np.testing.assert_allclose(result.uniform["moved"].value, moved, atol=1e-5)
    deleted = ll.explanation.explain(
        model, texts[:3], perturbation="delete", permutations=2, restarts=0, resamples=100, ig_steps=2, verbose=False
    )
    assert deleted.perturbation == "deleted"
