"""Faithfulness, computed by hand for a model whose prediction is a sum over tokens."""

import json
import math
import re

import numpy as np
import pytest
from scipy import stats

from limelight import evaluate
from limelight.evaluate import Delete, Replace

pytestmark = pytest.mark.backend_free

# The amount that each token adds to the probability of class 1, which is 0.1 without tokens.
CONTRIBUTION = {0: 0.0, 1: 0.4, 2: 0.3, 3: 0.1, 4: 0.0}


def predict(batch: list[np.ndarray]) -> np.ndarray:
    positive = np.array([0.1 + sum(CONTRIBUTION[int(token)] for token in example) for example in batch])
    return np.stack([1 - positive, positive], axis=1)


EXAMPLE = np.array([3, 1, 4, 2])
BEST = np.array([0.1, 0.4, 0.0, 0.3])
SETTINGS = {"shares": (0.25, 0.5), "steps": 4, "resamples": 100}


def values(result, ranking: str) -> dict[str, float]:
    return {name: estimate.value for name, estimate in result.measures[ranking].items()}


@pytest.mark.parametrize("perturbation", [Delete(), Replace(0, "replaced by padding")])
def test_measures_by_hand(perturbation):
    result = evaluate.faithfulness(
        predict, [EXAMPLE] * 2, {"best": [BEST] * 2, "worst": [-BEST] * 2}, perturbation=perturbation, **SETTINGS
    )
    assert values(result, "best") == pytest.approx({
        "comprehensiveness": ((0.9 - 0.5) + (0.9 - 0.2)) / 2,
        "sufficiency": ((0.9 - 0.5) + (0.9 - 0.8)) / 2,
        "log_odds": (math.log(0.5 / 0.9) + math.log(0.2 / 0.9)) / 2,
        "deletion_auc": (0.9 / 2 + 0.5 + 0.2 + 0.1 + 0.1 / 2) / 4,
        "insertion_auc": (0.1 / 2 + 0.5 + 0.8 + 0.9 + 0.9 / 2) / 4,
    })  # fmt: skip
    assert values(result, "worst") == pytest.approx({
        "comprehensiveness": (0.0 + 0.1) / 2,
        "sufficiency": (0.8 + 0.7) / 2,
        "log_odds": (0.0 + math.log(0.8 / 0.9)) / 2,
        "deletion_auc": (0.9 / 2 + 0.9 + 0.8 + 0.5 + 0.1 / 2) / 4,
        "insertion_auc": (0.1 / 2 + 0.1 + 0.2 + 0.5 + 0.9 / 2) / 4,
    })  # fmt: skip
    assert result.deletion["best"].mean == pytest.approx([0.9, 0.5, 0.2, 0.1, 0.1])
    assert result.insertion["worst"].mean == pytest.approx([0.1, 0.1, 0.2, 0.5, 0.9])
    assert result.deletion["best"].shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert result.perturbation == perturbation.name


def test_measures_follow_the_predicted_class():
    """With a small sum the model predicts class 0, and removing tokens makes it more certain."""
    example = np.array([3, 4, 4])
    result = evaluate.faithfulness(
        predict, [example], {"best": [[1.0, 0.0, 0.0]]}, shares=(0.3,), steps=2, resamples=100
    )
    assert result.measures["best"]["comprehensiveness"].value == pytest.approx(0.8 - 0.9)
    assert result.measures["best"]["comprehensiveness"].low is None  # one example


def test_random_rankings_average_over_orders():
    result = evaluate.faithfulness(predict, [EXAMPLE] * 50, {"best": [BEST] * 50}, draws=20, **SETTINGS)
    random = values(result, "random")
    assert random["comprehensiveness"] == pytest.approx(0.8 * (0.25 + 0.5) / 2, abs=0.02)
    assert random["sufficiency"] == pytest.approx(0.8 * (0.75 + 0.5) / 2, abs=0.02)
    assert random["deletion_auc"] == pytest.approx(0.5, abs=0.02)


def test_shares_are_rounded_up_to_whole_tokens():
    lengths = []

    def recording_predict(batch):
        lengths.extend(len(example) for example in batch)
        return np.tile([0.25, 0.75], (len(batch), 1))

    example = np.arange(1, 11)
    evaluate.faithfulness(
        recording_predict,
        [example],
        {"a": [np.arange(10.0)]},
        shares=(0.01, 0.1, 0.11, 0.3),
        steps=1,
        draws=1,
        resamples=100,
    )
    # All tokens; without 1, 2 or 3; only 1, 2 or 3, for the ranking and the random one; and none, which is one blank.
    assert sorted(set(lengths)) == [1, 2, 3, 7, 8, 9, 10]


def test_equal_scores_are_ordered_at_random():
    example = np.array([1, 4, 4, 4])
    result = evaluate.faithfulness(
        predict, [example] * 400, {"flat": [np.zeros(4)] * 400}, shares=(0.25,), steps=1, resamples=100, seed=3
    )
    # Token 1 is first and adds 0.4: ordered by position it would always be removed first, at random one time in four.
    assert predict([example])[0] == pytest.approx([0.5, 0.5])
    assert abs(result.measures["flat"]["comprehensiveness"].value) == pytest.approx(0.1, abs=0.03)


def test_tokens_with_nan_scores_are_never_removed():
    seen = []

    def recording_predict(batch):
        seen.extend(example.tolist() for example in batch)
        return predict(batch)

    scores = np.array([np.nan, 0.4, 0.0, 0.3])
    result = evaluate.faithfulness(
        recording_predict, [EXAMPLE], {"a": [scores], "b": [BEST]}, shares=(0.5,), steps=3, resamples=100
    )
    assert all(tokens[0] == 3 for tokens in seen)
    assert result.deletion["a"].mean == pytest.approx([0.9, 0.5, 0.2, 0.2])  # three tokens can be deleted
    assert result.measures["a"]["comprehensiveness"].value == pytest.approx(0.7)  # half of three, rounded up


def test_only_informative_rankings_beat_random(random):
    examples = [random.permutation(EXAMPLE) for _ in range(40)]
    best = [np.array([CONTRIBUTION[int(token)] for token in example]) for example in examples]
    uninformative = [random.uniform(size=4) for _ in examples]
    result = evaluate.faithfulness(
        predict, examples, {"best": best, "uninformative": uninformative, "worst": [-b for b in best]}, **SETTINGS
    )
    assert all(each.better for each in result.against_random["best"].values())
    assert not any(each.better for each in result.against_random["uninformative"].values())
    assert not any(each.better for each in result.against_random["worst"].values())
    assert result.against_random["best"]["sufficiency"].difference.high < 0
    assert result.against_random["worst"]["sufficiency"].difference.low > 0
    against = result.against_random["best"]["comprehensiveness"]
    difference = values(result, "best")["comprehensiveness"] - values(result, "random")["comprehensiveness"]
    assert against.difference.value == pytest.approx(difference)
    assert against.p_value == pytest.approx(
        15 / 5000, abs=1e-3
    )  # the smallest p value of 4,999 permutations, times 15 tests
    sentence = result.sentence("best", 0.2)
    assert sentence.startswith(
        "Removing the top 25 % of tokens by best changes the predicted probability by −0.40, random"
    )
    assert f"beats that of random rankings (difference +{difference:.2f}, 95 % CI +0." in sentence
    assert sentence.endswith("p = .003, 40 examples, tokens deleted).")
    assert "could not be shown to beat" in result.sentence("uninformative")
    assert "could not be shown to beat" in result.sentence("worst")


def test_result_is_reproducible_and_json_serializable():
    first, second = (
        evaluate.faithfulness(predict, [EXAMPLE] * 3, {"best": [BEST] * 3}, **SETTINGS).to_dict() for _ in range(2)
    )
    assert first == second
    stored = json.loads(json.dumps(first, allow_nan=False))
    assert stored["measures"]["best"]["comprehensiveness"]["value"] == pytest.approx(0.55)
    assert stored["deletion"]["best"]["mean"][0] == pytest.approx(0.9)


def test_no_perturbed_example_is_predicted_twice():
    seen = []

    def recording_predict(batch):
        seen.extend(tuple(example.tolist()) for example in batch)
        return predict(batch)

    evaluate.faithfulness(recording_predict, [EXAMPLE], {"a": [BEST], "b": [BEST]}, perturbation=Replace(0), **SETTINGS)
    perturbed = seen[1:]
    assert len(perturbed) == len(set(perturbed)) <= 16


def test_series_are_perturbed_by_frame(random):
    series = random.normal(size=(7, 3))

    def predict_series(batch):
        positive = np.array([1 / (1 + np.exp(-example.sum())) for example in batch])
        return np.stack([1 - positive, positive], axis=1)

    mean = series.mean(0)
    perturbed = Replace(mean)(series, np.arange(7) != 2)
    assert np.array_equal(perturbed[2], mean)
    assert np.array_equal(perturbed[3:], series[3:])
    assert Delete()(series, np.zeros(7, bool)).tolist() == [[0, 0, 0]]
    result = evaluate.faithfulness(
        predict_series, [series], {"a": [np.arange(7.0)]}, perturbation=Replace(mean), resamples=100
    )
    assert np.isfinite(result.measures["a"]["comprehensiveness"].value)


@pytest.mark.parametrize(
    ("examples", "rankings", "message"),
    [
        ([], {"a": []}, "at least one example and one ranking.*Received: 0 examples"),
        ([EXAMPLE], {}, r"Received: 1 examples, rankings \[\]"),
        ([EXAMPLE], {"random": [BEST]}, 'none named "random"'),
        ([EXAMPLE], {"a": [BEST, BEST]}, "Ranking 'a' must rank each of 1 examples. Received: 2"),
        (
            [EXAMPLE],
            {"a": [BEST[:3]]},
            r"one score for each token.*Received: \(3,\) scores for \(4,\) tokens in example 0",
        ),
        ([EXAMPLE], {"a": [BEST * np.nan]}, "a token that may be removed. Received: none in example 0"),
        ([EXAMPLE[:0]], {"a": [BEST[:0]]}, "and at least one"),
    ],
)
def test_invalid_rankings_raise(examples, rankings, message):
    with pytest.raises(ValueError, match=message):
        evaluate.faithfulness(predict, examples, rankings)


@pytest.mark.parametrize(("answer", "message"), [
    (np.ones(1), r"one row for each of m = 1 examples, K > 1. Received: shape \(1,\). For one sigmoid"),
    (np.ones((1, 1)), r"Received: shape \(1, 1\)"),
    (np.array([[2.0, -1.0]]), "rows summing to 1. Received: values from -1 to 2"),
    (np.array([[np.nan, 1.0]]), "rows summing to 1"),
])  # fmt: skip
def test_invalid_predictions_raise(answer, message):
    with pytest.raises(ValueError, match=message):
        evaluate.faithfulness(lambda batch: answer, [EXAMPLE], {"a": [BEST]})


def test_measures_of_a_regressor():
    """The prediction is the sum: the token 5 alone moves it by 5, the other three by 1 each."""

    def predict(batch):
        return np.array([[example.sum()] for example in batch], dtype=float)

    examples = [np.array([5.0, 1, 1, 1])] * 3
    result = evaluate.faithfulness(
        predict,
        examples,
        {"size": examples},
        perturbation=evaluate.Replace(0.0),
        output="values",
        shares=(0.25,),
        steps=4,
    )
    measures = result.measures["size"]
    assert measures["comprehensiveness"].value == pytest.approx(5)
    assert measures["sufficiency"].value == pytest.approx(3)
    assert result.deletion["size"].mean == pytest.approx([0, -5, -6, -7, -8])
    assert result.insertion["size"].mean == pytest.approx([-8, -3, -2, -1, 0])
    assert "log_odds" not in measures
    assert result.sentence("size", share=0.25).startswith(
        "Removing the top 25 % of tokens by size changes the prediction by 5.000, random tokens by "
    )
    assert result.to_dict()["output"] == "values"
    moved = evaluate.leave_one_out(predict, examples[:1], perturbation=evaluate.Replace(0.0), output="values")
    assert moved[0] == pytest.approx([5, 1, 1, 1])
    with pytest.raises(ValueError, match=r"for a regressor, pass output=\"values\""):
        evaluate.leave_one_out(predict, examples)
    with pytest.raises(ValueError, match="`output` must be"):
        evaluate.leave_one_out(predict, examples, output="logits")


def test_small_changes_of_values_have_the_same_decimals():
    examples = [np.array([4.0 + index % 2, -1, 1, 0]) for index in range(20)]
    result = evaluate.faithfulness(
        lambda batch: np.array([example.sum() * 1e-5 for example in batch]), examples, {"last": [[0, 1, 2, 3]] * 20},
        perturbation=evaluate.Replace(0.0), output="values", shares=(0.25,), steps=4,
    )  # fmt: skip
    sentence = result.sentence("last", share=0.25)
    numbers = re.findall(r"[−-]?\d*\.\d+(?:e.\d+)?", sentence.split(", p ")[0])
    expected = [0.0, -result.deletion["random"].mean[1]]
    difference = result.against_random["last"]["comprehensiveness"].difference
    expected += [difference.value, difference.low, difference.high]
    # The largest has three digits, all others as many decimals; the minus is a real one.
    decimals = 2 - int(np.floor(np.log10(np.abs(expected).max())))
    assert numbers == [f"{each:.{decimals}f}".replace("-", "−") for each in expected]
    assert difference.value < 0


def test_rankings_are_compared_pair_by_pair():
    def predict(batch):
        positive = np.array([0.1 + 0.8 * np.any(example == 7) for example in batch])
        return np.stack([1 - positive, positive], axis=1)

    examples = [np.array([7, 1, 2, 3])] * 20
    rankings = {"good": [[3, 2, 1, 0]] * 20, "bad": [[0, 1, 2, 3]] * 20}
    result = evaluate.faithfulness(predict, examples, rankings, resamples=100)
    compared = result.compare("good", ["bad"], resamples=100)["bad"]
    values = result.per_example
    expected = (values["good"]["comprehensiveness"] - values["bad"]["comprehensiveness"]).mean()
    assert compared.difference.value == pytest.approx(expected)
    assert compared.difference.value == pytest.approx(0.8)
    assert compared.better
    assert compared.p_value < 0.001


def test_intervals_stay_within_the_range_of_each_measure():
    def predict_parity(batch):  # certain, and nearly always class 1
        positive = np.array([float(np.any(example == 7)) for example in batch])
        return np.stack([1 - positive, positive], axis=1)

    examples = [np.array([7, 1, 2]), np.array([7, 1, 2]), np.array([7, 7, 2]), np.array([7, 7, 7])]
    ranking = {"first": [[3.0, 2.0, 1.0]] * 4, "last": [[1.0, 2.0, 3.0]] * 4}
    result = evaluate.faithfulness(predict_parity, examples, ranking, shares=(0.3,), steps=3, resamples=100)
    comprehensiveness = result.measures["first"]["comprehensiveness"]
    half = stats.t.ppf(0.975, 3) * stats.sem([1, 1, 0, 0])
    assert (comprehensiveness.value, comprehensiveness.high) == (0.5, 1)
    assert comprehensiveness.low == pytest.approx(0.5 - half)
    z2 = stats.norm.ppf(0.975) ** 2
    kept = result.measures["first"]["sufficiency"]  # the first token alone gives the prediction, of each example
    assert (kept.low, kept.value, kept.high) == pytest.approx((-z2 / (4 + z2), 0, z2 / (4 + z2)))
    for curves in (result.deletion, result.insertion):
        for curve in curves.values():
            assert curve.low.min() >= 0
            assert curve.high.max() <= 1
    assert result.deletion["first"].low[0] == pytest.approx(4 / (4 + z2))
    for name, measures in result.measures.items():
        for measure in ("deletion_auc", "insertion_auc"):
            assert 0 <= measures[measure].low <= measures[measure].high <= 1, (name, measure)
    for against in result.against_random.values():
        for measure in ("comprehensiveness", "sufficiency", "deletion_auc", "insertion_auc"):
            assert -1 <= against[measure].difference.low <= against[measure].difference.high <= 1, measure
    moved = evaluate.faithfulness(
        lambda batch: predict_parity(batch)[:, 1], examples, ranking, shares=(0.3,), steps=3, resamples=100,
        output="values",
    )  # fmt: skip
    comprehensiveness = moved.measures["first"]["comprehensiveness"]
    assert (comprehensiveness.low, comprehensiveness.high) == (0, pytest.approx(0.5 + half))
    # No bound says how far other predictions may move.
    assert moved.measures["first"]["sufficiency"].method == "all resamples have the same value"
    assert moved.deletion["first"].high.max() <= 0


def test_labels_and_groups():
    def predict(batch):
        positive = np.array([0.1 + 0.2 * np.isin(example, (7, 8)).sum() for example in batch])
        return np.stack([1 - positive, positive], axis=1)

    random = np.random.default_rng(2)
    examples = [random.permutation([7, 8, *random.integers(4, size=4)]) for _ in range(18)]
    scores = [np.isin(example, (7, 8)) + random.uniform(size=6) for example in examples]
    rankings, groups = {"attention": scores}, np.repeat(np.arange(6), 3)
    # Class 0 is predicted, class 1 is meant.
    single = evaluate.faithfulness(predict, examples, rankings, labels=[1] * 18, resamples=100)
    result = evaluate.faithfulness(predict, examples, rankings, labels=[1] * 18, groups=groups, resamples=100)
    assert (single.n, result.n) == (18, 6)
    assert single.measures["attention"]["comprehensiveness"].value > 0.2
    values = single.per_example["attention"]["sufficiency"]
    np.testing.assert_allclose(result.per_example["attention"]["sufficiency"], values.reshape(6, 3).mean(1))
    assert result.deletion["attention"].mean == pytest.approx(single.deletion["attention"].mean)
    falls = evaluate.leave_one_out(predict, examples[:1], labels=[1], signed=True)[0]
    np.testing.assert_allclose(falls, 0.2 * np.isin(examples[0], (7, 8)), atol=1e-12)
    taus = [evaluate.agreement([first], [second]).value for first, second in zip(scores, examples, strict=True)]
    grouped = evaluate.agreement(scores, examples, groups=groups, resamples=100)
    assert grouped.n == 6
    assert grouped.value == pytest.approx(np.mean(taus))
    marks = [np.isin(example, (7, 8)) for example in examples]
    plausible = evaluate.plausibility(rankings, marks, groups=groups, resamples=100)["attention"]["auprc"]
    assert (plausible.value, plausible.n) == (1, 6)
