"""Comparisons against scipy and statsmodels, and intervals against simulations."""

import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as oracle
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from limelight import evaluate

pytestmark = pytest.mark.backend_free


def noisy(random: np.random.Generator, truth: np.ndarray, right: float) -> np.ndarray:
    """Return labels that are right so often."""
    return np.where(random.uniform(size=truth.shape) < right, truth, 1 - truth)


def probabilities(random: np.random.Generator, truth: np.ndarray, signal: float) -> np.ndarray:
    logits = np.round(random.normal(size=len(truth)) + signal * (2 * truth - 1), 1)
    return 1 / (1 + np.exp(-logits))


def test_accuracy_is_tested_by_mcnemar(random):
    truth = random.integers(2, size=307)
    first, second = noisy(random, truth, 0.8), noisy(random, truth, 0.7)
    found = evaluate.paired(truth, first, second)
    table = np.zeros((2, 2))
    np.add.at(table, ((first == truth).astype(int), (second == truth).astype(int)), 1)
    assert found.p_value == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert found.test == "exact McNemar"
    assert found.difference.value == pytest.approx((first == truth).mean() - (second == truth).mean())
    expected = stats.bootstrap(
        ((first == truth) * 1.0 - (second == truth),), np.mean, n_resamples=4999, random_state=1
    ).confidence_interval
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(expected), abs=0.01)
    assert found.first.method == found.second.method == "Wilson"
    assert found.n == 307


def f1_macro(truth: np.ndarray, chances: np.ndarray) -> float:
    predicted = chances > 0.5
    scores = [
        2 * np.sum((truth == k) & (predicted == k)) / (np.sum(truth == k) + np.sum(predicted == k)) for k in (0, 1)
    ]
    return float(np.mean(scores))


def area(truth: np.ndarray, scores: np.ndarray) -> float:
    apart = scores[truth == 1][:, None] - scores[truth == 0]
    return float(((apart > 0) + (apart == 0) / 2).mean())


def log_loss(truth: np.ndarray, chances: np.ndarray) -> float:
    return float(-np.log(np.where(truth == 1, chances, 1 - chances)).mean())


@pytest.mark.parametrize(("metric", "score"), [("roc_auc", area), ("log_loss", log_loss), ("f1_macro", f1_macro)])
def test_other_metrics_are_tested_by_permutation(random, metric, score):
    truth = random.integers(2, size=61)
    first, second = probabilities(random, truth, 0.8), probabilities(random, truth, 0.4)
    found = evaluate.paired(truth, first, second, metric=metric)
    assert found.difference.value == pytest.approx(score(truth, first) - score(truth, second))
    expected = stats.permutation_test(
        (first, second),
        lambda a, b: score(truth, a) - score(truth, b),
        permutation_type="samples",
        n_resamples=999,
        random_state=1,
    )
    assert 0.001 < expected.pvalue < 0.9
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.05)
    assert "paired permutation" in found.test


def test_few_examples_have_the_p_value_of_all_their_permutations():
    """Of the 2^5 swaps of five differences of one sign, two are as extreme."""
    found = evaluate.paired(np.zeros(5), np.arange(1.0, 6), np.zeros(5), metric="mae", permutations=19_999)
    assert found.p_value == pytest.approx(2 / 32, abs=0.006)
    assert found.difference.value == 3.0


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc", "mse"])
def test_a_model_does_not_differ_from_itself(random, metric):
    truth = random.integers(2, size=41)
    same = probabilities(random, truth, 0.5)
    found = evaluate.paired(truth, same, same, metric=metric)
    assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)
    assert found.p_value == 1.0
    assert not found.shown
    assert "No difference" in evaluate.sentence(found)


def test_swapping_the_models_turns_the_difference_round(random):
    truth = random.integers(2, size=151)
    first, second = noisy(random, truth, 0.9), noisy(random, truth, 0.7)
    one, other = evaluate.paired(truth, first, second), evaluate.paired(truth, second, first)
    assert one.difference.value == -other.difference.value
    assert one.p_value == other.p_value
    assert one.difference.low == pytest.approx(-other.difference.high)


def test_the_p_value_is_uniform_where_there_is_no_difference():
    random = np.random.default_rng(2)
    truth = np.zeros(41)
    found = [
        evaluate.paired(
            truth, random.normal(size=41), random.normal(size=41), metric="mse", permutations=199, resamples=100
        ).p_value
        for _ in range(200)
    ]
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.05) < 0.1


def test_predictions_can_be_labels_names_or_probabilities(random):
    truth = random.integers(3, size=53)
    chances = random.dirichlet(np.ones(3), size=(2, 53))
    names = np.array(["a", "b", "c"])
    forms = [
        (truth, chances[0], chances[1], None),
        (truth, chances[0].argmax(1), chances[1].argmax(1), None),
        (names[truth], names[chances[0].argmax(1)], names[chances[1].argmax(1)], None),
        (names[truth], chances[0], chances[1], names),
    ]
    found = [evaluate.paired(*form[:3], classes=form[3]) for form in forms]
    assert len({(each.difference.value, each.p_value) for each in found}) == 1


def test_an_undefined_metric_has_no_difference(random):
    found = evaluate.paired(np.ones(7, int), random.uniform(size=7), random.uniform(size=7), metric="roc_auc")
    assert math.isnan(found.difference.value)
    assert math.isnan(found.p_value)
    assert not found.shown
    assert (
        evaluate.sentence(found)
        == "ROC AUC of first and second could not be compared: it is undefined on these examples."
    )
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(("first", "metric", "message"), [
    ([0, 1, 1], "speed", "`metric` must be one of accuracy.*Received: 'speed'"),
    ([0, 1, 1], "roc_auc", "ROC AUC needs probabilities.*Received: dtype int64. Pass what the model predicts before argmax"),
    ([0, 1], "accuracy", "one prediction for each of 3 examples. Received: 2"),
    ([0.5, np.nan, 0.5], "accuracy", "1 of 3 rows with NaN"),
    ([0.5, 0.5], "mse", r"Received: \(3,\) and \(2,\)"),
])  # fmt: skip
def test_what_cannot_be_compared_is_an_error(first, metric, message):
    with pytest.raises(ValueError, match=message):
        evaluate.paired([0, 1, 1], first, [0, 1, 1], metric=metric)


def test_seeds_have_the_interval_of_student(random):
    values = random.normal(size=7)
    found = evaluate.over_seeds(values, confidence=0.9)
    expected = stats.t.interval(0.9, 6, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    assert (found.n, found.method) == (7, "t over 7 seeds")


def test_one_seed_has_no_interval_and_a_failed_one_no_mean():
    found = evaluate.over_seeds([0.75])
    assert (found.value, found.low, found.high, found.n) == (0.75, None, None, 1)
    assert "1 seed" in found.method
    failed = evaluate.over_seeds([0.75, math.nan, 0.8])
    assert math.isnan(failed.value)
    assert failed.method == "undefined for 1 of 3 seeds"
    with pytest.raises(ValueError, match="one number for each seed"):
        evaluate.over_seeds([])


def test_the_variance_over_seeds_and_examples_is_that_of_a_two_way_analysis(random):
    """For a mean the estimator equals that of a crossed random-effects analysis of variance, written out here."""
    seeds, n = 5, 211
    truth = random.integers(2, size=n)
    hard = random.uniform(size=n) < 0.3
    first = [noisy(random, truth, np.where(hard, 0.6, 0.95)) for _ in range(seeds)]
    second = [noisy(random, truth, np.where(hard, 0.3, 0.95)) for _ in range(seeds)]
    found = evaluate.paired_over_seeds(truth, first, second, resamples=5000)

    values = (np.array(first) == truth) * 1.0 - (np.array(second) == truth)  # (seeds, n)
    mean = values.mean()
    of_seeds = n * ((values.mean(1) - mean) ** 2).sum() / (seeds - 1)
    of_examples = seeds * ((values.mean(0) - mean) ** 2).sum() / (n - 1)
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + mean
    error = (rest**2).sum() / ((seeds - 1) * (n - 1))
    shared = max(of_examples - error, 0)
    deviation = np.sqrt((of_seeds + shared) / (seeds * n))
    freedom = (seeds - 1) * ((of_seeds + shared) / of_seeds) ** 2
    expected = stats.t.interval(0.95, freedom, loc=mean, scale=deviation)
    assert found.difference.value == pytest.approx(mean)
    assert (found.difference.low, found.difference.high) == pytest.approx(expected, abs=0.002)
    assert found.p_value == pytest.approx(2 * stats.t.sf(mean / deviation, freedom), rel=0.2)
    assert found.first_values == pytest.approx((np.array(first) == truth).mean(1))
    assert found.second == evaluate.over_seeds(found.second_values)
    assert found.seeds == 5


@pytest.mark.parametrize(("between_seeds", "least"), [(0.0, 0.92), (0.05, 0.89)])
def test_the_interval_over_three_seeds_covers_what_it_should(between_seeds, least):
    """Also where trainings vary much, and a bootstrap over three seeds would cover three of four."""
    random, hits, trials = np.random.default_rng(5), 0, 300
    for trial in range(trials):
        examples = random.normal(0, 0.2, size=(1, 101))
        first = examples + random.normal(0, between_seeds, size=(3, 1)) + random.normal(0, 0.3, size=(3, 101))
        second = np.full((3, 101), 5.0)
        # The mean absolute error of 5 + d against 0 is 5 + d: a metric whose true difference is 0.
        found = evaluate.paired_over_seeds(np.zeros(101), 5 + first, second, metric="mae", resamples=100, seed=trial)
        hits += found.difference.low <= 0 <= found.difference.high
    assert least < hits / trials < 0.99


def test_seeds_work_with_any_metric(random):
    truth = random.integers(2, size=83)
    first = [probabilities(random, truth, 1.0) for _ in range(3)]
    second = [probabilities(random, truth, 0.2) for _ in range(3)]
    found = evaluate.paired_over_seeds(truth, first, second, metric="roc_auc", names=("attention", "pooling"))
    areas = [[oracle.roc_auc_score(truth, each) for each in model] for model in (first, second)]
    assert found.first_values == pytest.approx(areas[0])
    assert found.difference.value == pytest.approx(np.mean(areas[0]) - np.mean(areas[1]))
    assert found.shown
    kept = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert kept["seeds"] == 3
    assert kept["first_values"] == list(found.first_values)


def test_one_seed_falls_back_on_examples_and_says_so(random):
    truth = random.integers(2, size=53)
    first, second = noisy(random, truth, 0.9), noisy(random, truth, 0.6)
    assert evaluate.paired_over_seeds(truth, [first], [second]) == evaluate.paired(truth, first, second)
    assert "1 seed, so without the variation between seeds" in evaluate.sentence(evaluate.paired(truth, first, second))


def test_seeds_without_any_difference_between_them(random):
    truth = random.integers(2, size=53)
    labels = noisy(random, truth, 0.9)
    found = evaluate.paired_over_seeds(truth, [labels] * 3, [labels] * 3)
    assert (found.difference.value, found.difference.low, found.difference.high, found.p_value) == (0, 0, 0, 1)
    other = noisy(random, truth, 0.6)
    constant = evaluate.paired_over_seeds(truth, [labels] * 3, [other] * 3)
    assert constant.difference.low < constant.difference.value < constant.difference.high


def test_another_number_of_seeds_is_an_error():
    with pytest.raises(ValueError, match=r"same number of seeds, at least 1. Received: 2 and 1"):
        evaluate.paired_over_seeds([0, 1], [[0, 1], [0, 1]], [[0, 1]])


def test_holm_is_that_of_statsmodels(random):
    p_values = np.append(random.uniform(size=9) ** 3, [0.01, 0.01])
    assert evaluate.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    with_gap = evaluate.holm([0.02, math.nan, 0.01])
    assert with_gap[::2] == pytest.approx([0.02, 0.02])
    assert math.isnan(with_gap[1])
    assert evaluate.holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        evaluate.holm([0.5, 1.5])


def test_few_examples_show_little_however_many_seeds_agree():
    """Three trainings that agree are still a sample of few examples, and McNemar's test has no more to go by."""
    alike = evaluate.paired_over_seeds([0, 1], [[0, 1]] * 3, [[1, 0]] * 3)
    assert alike.p_value == 2 / 2**2 == evaluate.paired([0, 1], [0, 1], [1, 0]).p_value
    assert not alike.shown
    few = evaluate.paired_over_seeds([0] * 5, [[0] * 5] * 3, [[1, 1, 1, 0, 0]] * 3)
    assert few.p_value > 0.05
    assert not few.shown
    many = evaluate.paired_over_seeds([0] * 9, [[0] * 9] * 3, [[1] * 9] * 3)
    assert many.p_value == 2 / 2**9
    assert many.shown


@pytest.mark.parametrize(("n", "seeds"), [(12, 3), (12, 8)])
def test_the_level_is_held_where_examples_are_few(n, seeds):
    random = np.random.default_rng(5)
    truth, missed = np.zeros(n), 0
    for _ in range(300):
        # Models as good as one another that differ on some examples at every seed.
        lean = random.normal(size=n)
        first = lean + 0.3 * random.normal(size=(seeds, n))
        second = -lean + 0.3 * random.normal(size=(seeds, n))
        found = evaluate.paired_over_seeds(truth, list(first), list(second), metric="mse", resamples=200)
        missed += found.p_value < 0.05
    assert missed / 300 < 0.085


def test_one_example_gives_no_interval(recwarn):
    found = evaluate.paired([1], [1], [0])
    assert (found.difference.low, found.difference.high, found.p_value) == (None, None, 1.0)
    assert not [one for one in recwarn if issubclass(one.category, RuntimeWarning)]
