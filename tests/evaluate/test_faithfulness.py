"""Taking tokens away, computed by hand for a model whose prediction is a sum."""

import json
import math

import numpy as np
import pytest

from limelight import evaluate
from limelight.evaluate import Delete, Replace

pytestmark = pytest.mark.backend_free

# What each token adds to the probability of class 1, on top of 0.1.
WORTH = {0: 0.0, 1: 0.4, 2: 0.3, 3: 0.1, 4: 0.0}


def predict(batch: list[np.ndarray]) -> np.ndarray:
    share = np.array([0.1 + sum(WORTH[int(token)] for token in example) for example in batch])
    return np.stack([1 - share, share], axis=1)


EXAMPLE = np.array([3, 1, 4, 2])
BEST = np.array([0.1, 0.4, 0.0, 0.3])
SETTINGS = {"shares": (0.25, 0.5), "steps": 4, "resamples": 100}


def values(found, ranking: str) -> dict[str, float]:
    return {name: estimate.value for name, estimate in found.measures[ranking].items()}


@pytest.mark.parametrize("removal", [Delete(), Replace(0, "replaced by padding")])
def test_every_measure_by_hand(removal):
    found = evaluate.faithfulness(
        predict, [EXAMPLE] * 2, {"best": [BEST] * 2, "worst": [-BEST] * 2}, removal=removal, **SETTINGS
    )
    assert values(found, "best") == pytest.approx({
        "comprehensiveness": ((0.9 - 0.5) + (0.9 - 0.2)) / 2,
        "sufficiency": ((0.9 - 0.5) + (0.9 - 0.8)) / 2,
        "log_odds": (math.log(0.5 / 0.9) + math.log(0.2 / 0.9)) / 2,
        "deletion_auc": (0.9 / 2 + 0.5 + 0.2 + 0.1 + 0.1 / 2) / 4,
        "insertion_auc": (0.1 / 2 + 0.5 + 0.8 + 0.9 + 0.9 / 2) / 4,
    })  # fmt: skip
    assert values(found, "worst") == pytest.approx({
        "comprehensiveness": (0.0 + 0.1) / 2,
        "sufficiency": (0.8 + 0.7) / 2,
        "log_odds": (0.0 + math.log(0.8 / 0.9)) / 2,
        "deletion_auc": (0.9 / 2 + 0.9 + 0.8 + 0.5 + 0.1 / 2) / 4,
        "insertion_auc": (0.1 / 2 + 0.1 + 0.2 + 0.5 + 0.9 / 2) / 4,
    })  # fmt: skip
    assert found.deletion["best"].mean == pytest.approx([0.9, 0.5, 0.2, 0.1, 0.1])
    assert found.insertion["worst"].mean == pytest.approx([0.1, 0.1, 0.2, 0.5, 0.9])
    assert found.deletion["best"].shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.removal == removal.name


def test_the_predicted_class_is_followed_whichever_it_is():
    """With little worth the model says class 0, and taking worth away makes it surer."""
    example = np.array([3, 4, 4])
    found = evaluate.faithfulness(
        predict, [example], {"best": [[1.0, 0.0, 0.0]]}, shares=(0.3,), steps=2, resamples=100
    )
    assert found.measures["best"]["comprehensiveness"].value == pytest.approx(0.8 - 0.9)
    assert found.measures["best"]["comprehensiveness"].low is None  # one example


def test_random_rankings_are_the_mean_of_all_orders():
    found = evaluate.faithfulness(predict, [EXAMPLE] * 50, {"best": [BEST] * 50}, draws=20, **SETTINGS)
    random = values(found, "random")
    assert random["comprehensiveness"] == pytest.approx(0.8 * (0.25 + 0.5) / 2, abs=0.02)
    assert random["sufficiency"] == pytest.approx(0.8 * (0.75 + 0.5) / 2, abs=0.02)
    assert random["deletion_auc"] == pytest.approx(0.5, abs=0.02)


def test_shares_are_rounded_up_to_whole_tokens_and_at_least_one():
    lengths = []

    def counting(batch):
        lengths.extend(len(example) for example in batch)
        return np.tile([0.25, 0.75], (len(batch), 1))

    example = np.arange(1, 11)
    evaluate.faithfulness(
        counting,
        [example],
        {"a": [np.arange(10.0)]},
        shares=(0.01, 0.1, 0.11, 0.3),
        steps=1,
        draws=1,
        resamples=100,
    )
    # All; without 1, 2 and 3; 1, 2 and 3 alone, for the ranking and the random one; and nothing, which is one blank.
    assert sorted(set(lengths)) == [1, 2, 3, 7, 8, 9, 10]


def test_equal_scores_are_ordered_at_random():
    example = np.array([1, 4, 4, 4])
    found = evaluate.faithfulness(
        predict, [example] * 400, {"flat": [np.zeros(4)] * 400}, shares=(0.25,), steps=1, resamples=100, seed=3
    )
    # Token 1 stands first and is worth 0.4: taken first by place it would lower p each time, at random one time in four.
    base = np.array([0.5, 0.5])
    assert predict([example])[0] == pytest.approx(base)
    assert abs(found.measures["flat"]["comprehensiveness"].value) == pytest.approx(0.1, abs=0.03)


def test_protected_tokens_never_leave():
    seen = []

    def watching(batch):
        seen.extend(example.tolist() for example in batch)
        return predict(batch)

    scores = np.array([np.nan, 0.4, 0.0, 0.3])
    found = evaluate.faithfulness(
        watching, [EXAMPLE], {"a": [scores], "b": [BEST]}, shares=(0.5,), steps=3, resamples=100
    )
    assert all(tokens[0] == 3 for tokens in seen)
    assert found.deletion["a"].mean == pytest.approx([0.9, 0.5, 0.2, 0.2])  # three tokens may leave
    assert found.measures["a"]["comprehensiveness"].value == pytest.approx(0.7)  # half of three, rounded up


def test_better_than_random_must_be_earned(random):
    examples = [random.permutation(EXAMPLE) for _ in range(40)]
    best = [np.array([WORTH[int(token)] for token in example]) for example in examples]
    chance = [random.uniform(size=4) for _ in examples]
    found = evaluate.faithfulness(
        predict, examples, {"best": best, "chance": chance, "worst": [-b for b in best]}, **SETTINGS
    )
    assert all(each.better for each in found.against_random["best"].values())
    assert not any(each.better for each in found.against_random["chance"].values())
    assert not any(each.better for each in found.against_random["worst"].values())
    assert found.against_random["best"]["sufficiency"].difference.high < 0
    assert found.against_random["worst"]["sufficiency"].difference.low > 0
    first = found.against_random["best"]["comprehensiveness"]
    apart = values(found, "best")["comprehensiveness"] - values(found, "random")["comprehensiveness"]
    assert first.difference.value == pytest.approx(apart)
    assert first.p_value == pytest.approx(15 / 5000, abs=1e-3)  # the least that 4,999 permutations give, times 15 tests
    said = found.sentence("best", 0.2)
    assert said.startswith("Removing the top 25 % of tokens by best changes the predicted probability by −0.40, random")
    assert f"beats that of random rankings (difference +{apart:.2f}, 95 % CI +0." in said
    assert said.endswith("p = .003, 40 examples, tokens deleted).")
    assert "could not be shown to beat" in found.sentence("chance")
    assert "could not be shown to beat" in found.sentence("worst")


def test_a_result_is_the_same_each_time_and_ready_for_json():
    one, two = (
        evaluate.faithfulness(predict, [EXAMPLE] * 3, {"best": [BEST] * 3}, **SETTINGS).to_dict() for _ in range(2)
    )
    assert one == two
    kept = json.loads(json.dumps(one, allow_nan=False))
    assert kept["measures"]["best"]["comprehensiveness"]["value"] == pytest.approx(0.55)
    assert kept["deletion"]["best"]["mean"][0] == pytest.approx(0.9)


def test_nothing_is_predicted_twice():
    seen = []

    def watching(batch):
        seen.extend(tuple(example.tolist()) for example in batch)
        return predict(batch)

    evaluate.faithfulness(watching, [EXAMPLE], {"a": [BEST], "b": [BEST]}, removal=Replace(0), **SETTINGS)
    changed = seen[1:]
    assert len(changed) == len(set(changed)) <= 16


def test_series_are_erased_by_frame(random):
    series = random.normal(size=(7, 3))

    def last(batch):
        share = np.array([1 / (1 + np.exp(-example.sum())) for example in batch])
        return np.stack([1 - share, share], axis=1)

    mean = series.mean(0)
    changed = Replace(mean)(series, np.arange(7) != 2)
    assert np.array_equal(changed[2], mean)
    assert np.array_equal(changed[3:], series[3:])
    assert Delete()(series, np.zeros(7, bool)).tolist() == [[0, 0, 0]]
    found = evaluate.faithfulness(last, [series], {"a": [np.arange(7.0)]}, removal=Replace(mean), resamples=100)
    assert np.isfinite(found.measures["a"]["comprehensiveness"].value)


@pytest.mark.parametrize(
    ("examples", "rankings", "message"),
    [
        ([], {"a": []}, "at least one example and one ranking.*Received: 0 examples"),
        ([EXAMPLE], {}, r"Received: 1 examples, rankings \[\]"),
        ([EXAMPLE], {"random": [BEST]}, 'none named "random"'),
        ([EXAMPLE], {"a": [BEST, BEST]}, "Ranking 'a' must be of each of 1 examples. Received: of 2"),
        (
            [EXAMPLE],
            {"a": [BEST[:3]]},
            r"one score for each token.*Received: \(3,\) scores for \(4,\) tokens in example 0",
        ),
        ([EXAMPLE], {"a": [BEST * np.nan]}, "a token that may be taken away. Received none in example 0"),
        ([EXAMPLE[:0]], {"a": [BEST[:0]]}, "and at least one"),
    ],
)
def test_rankings_that_do_not_fit_are_errors(examples, rankings, message):
    with pytest.raises(ValueError, match=message):
        evaluate.faithfulness(predict, examples, rankings)


@pytest.mark.parametrize(("answer", "message"), [
    (np.ones(1), r"one row for each of m = 1 examples, K > 1. Received: shape \(1,\). For one sigmoid"),
    (np.ones((1, 1)), r"Received: shape \(1, 1\)"),
    (np.array([[2.0, -1.0]]), "rows summing to 1. Received: values from -1 to 2"),
    (np.array([[np.nan, 1.0]]), "rows summing to 1"),
])  # fmt: skip
def test_predictions_that_are_none_are_errors(answer, message):
    with pytest.raises(ValueError, match=message):
        evaluate.faithfulness(lambda batch: answer, [EXAMPLE], {"a": [BEST]})
