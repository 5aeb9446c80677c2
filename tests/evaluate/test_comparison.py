"""Comparisons checked against scipy and statsmodels, and intervals against simulations."""

import json
import math

import numpy as np
import pytest
from scipy import integrate, stats
from sklearn import metrics as sklearn_metrics
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from limelight import evaluate
from limelight.evaluate._crossed import Components, behrens_fisher_p_value, variance_components

pytestmark = pytest.mark.backend_free


def noisy_labels(random: np.random.Generator, y_true: np.ndarray, accuracy: float) -> np.ndarray:
    """Return labels that are right with this probability."""
    return np.where(random.uniform(size=y_true.shape) < accuracy, y_true, 1 - y_true)


def probabilities(random: np.random.Generator, y_true: np.ndarray, signal: float) -> np.ndarray:
    logits = np.round(random.normal(size=len(y_true)) + signal * (2 * y_true - 1), 1)
    return 1 / (1 + np.exp(-logits))


def test_accuracy_uses_mcnemar(random):
    y_true = random.integers(2, size=307)
    first, second = noisy_labels(random, y_true, 0.8), noisy_labels(random, y_true, 0.7)
    comparison = evaluate.paired(y_true, first, second)
    table = np.zeros((2, 2))
    np.add.at(table, ((first == y_true).astype(int), (second == y_true).astype(int)), 1)
    assert comparison.p_value == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert comparison.test == "exact McNemar"
    assert comparison.difference.value == pytest.approx((first == y_true).mean() - (second == y_true).mean())
    expected = stats.bootstrap(
        ((first == y_true) * 1.0 - (second == y_true),), np.mean, n_resamples=4999, random_state=1
    ).confidence_interval
    assert (comparison.difference.low, comparison.difference.high) == pytest.approx(tuple(expected), abs=0.01)
    assert comparison.first.method == comparison.second.method == "Wilson"
    assert comparison.n == 307


def f1_macro(y_true: np.ndarray, y_proba: np.ndarray) -> float:
    predicted = y_proba > 0.5
    scores = [
        2 * np.sum((y_true == k) & (predicted == k)) / (np.sum(y_true == k) + np.sum(predicted == k)) for k in (0, 1)
    ]
    return float(np.mean(scores))


def pairwise_auc(y_true: np.ndarray, scores: np.ndarray) -> float:
    differences = scores[y_true == 1][:, None] - scores[y_true == 0]
    return float(((differences > 0) + (differences == 0) / 2).mean())


def log_loss(y_true: np.ndarray, y_proba: np.ndarray) -> float:
    return float(-np.log(np.where(y_true == 1, y_proba, 1 - y_proba)).mean())


@pytest.mark.parametrize(
    ("metric", "score"), [("roc_auc", pairwise_auc), ("log_loss", log_loss), ("f1_macro", f1_macro)]
)
def test_other_metrics_use_a_permutation_test(random, metric, score):
    y_true = random.integers(2, size=61)
    first, second = probabilities(random, y_true, 0.8), probabilities(random, y_true, 0.4)
    comparison = evaluate.paired(y_true, first, second, metric=metric)
    assert comparison.difference.value == pytest.approx(score(y_true, first) - score(y_true, second))
    expected = stats.permutation_test(
        (first, second),
        lambda a, b: score(y_true, a) - score(y_true, b),
        permutation_type="samples",
        n_resamples=999,
        random_state=1,
    )
    assert 0.001 < expected.pvalue < 0.9
    assert comparison.p_value == pytest.approx(expected.pvalue, abs=0.05)
    assert "paired permutation" in comparison.test


def test_p_value_of_few_examples_is_that_of_all_permutations():
    """Of the 2^5 swaps of five differences of one sign, two are as extreme as the observed comparison."""
    comparison = evaluate.paired(np.zeros(5), np.arange(1.0, 6), np.zeros(5), metric="mae", permutations=19_999)
    assert comparison.p_value == pytest.approx(2 / 32, abs=0.006)
    assert comparison.difference.value == 3.0


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc", "mse"])
def test_model_does_not_differ_from_itself(random, metric):
    z95 = stats.norm.ppf(0.975)
    y_true = random.integers(2, size=41)
    predictions = probabilities(random, y_true, 0.5)
    comparison = evaluate.paired(y_true, predictions, predictions, metric=metric)
    half = None if metric == "mse" else z95**2 / (41 + z95**2)  # Wilson's of no error among 41 examples
    assert comparison.difference.value == 0
    if half is None:
        assert (comparison.difference.low, comparison.difference.high) == (None, None)
    else:
        assert (comparison.difference.low, comparison.difference.high) == pytest.approx((-half, half))
    assert comparison.p_value == 1.0
    assert not comparison.shown
    assert "No difference" in evaluate.sentence(comparison)


def test_swapping_the_models_negates_the_difference(random):
    y_true = random.integers(2, size=151)
    first, second = noisy_labels(random, y_true, 0.9), noisy_labels(random, y_true, 0.7)
    comparison, swapped = evaluate.paired(y_true, first, second), evaluate.paired(y_true, second, first)
    assert comparison.difference.value == -swapped.difference.value
    assert comparison.p_value == swapped.p_value
    assert comparison.difference.low == pytest.approx(-swapped.difference.high)


def test_p_value_is_uniform_without_a_difference():
    random = np.random.default_rng(2)
    y_true = np.zeros(41)
    p_values = [
        evaluate.paired(
            y_true, random.normal(size=41), random.normal(size=41), metric="mse", permutations=199, resamples=100
        ).p_value
        for _ in range(200)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values) <= 0.05) < 0.1


def test_accepted_forms_of_predictions(random):
    y_true = random.integers(3, size=53)
    y_proba = random.dirichlet(np.ones(3), size=(2, 53))
    names = np.array(["a", "b", "c"])
    forms = [
        (y_true, y_proba[0], y_proba[1], None),
        (y_true, y_proba[0].argmax(1), y_proba[1].argmax(1), None),
        (names[y_true], names[y_proba[0].argmax(1)], names[y_proba[1].argmax(1)], None),
        (names[y_true], y_proba[0], y_proba[1], names),
    ]
    comparisons = [evaluate.paired(*form[:3], classes=form[3]) for form in forms]
    assert len({(each.difference.value, each.p_value) for each in comparisons}) == 1


def test_undefined_metric_has_no_difference(random):
    comparison = evaluate.paired(np.ones(7, int), random.uniform(size=7), random.uniform(size=7), metric="roc_auc")
    assert math.isnan(comparison.difference.value)
    assert math.isnan(comparison.p_value)
    assert not comparison.shown
    assert (
        evaluate.sentence(comparison)
        == "ROC AUC of first and second could not be compared: it is undefined on these examples."
    )
    json.dumps(comparison.to_dict(), allow_nan=False)


@pytest.mark.parametrize(("first", "metric", "message"), [
    ([0, 1, 1], "speed", "`metric` must be one of accuracy.*Received: 'speed'"),
    ([0, 1, 1], "roc_auc", "ROC AUC needs probabilities.*Received: dtype int64. Pass what the model predicts before argmax"),
    ([0, 1], "accuracy", "one prediction for each of 3 examples. Received: 2"),
    ([0.5, np.nan, 0.5], "accuracy", "1 of 3 rows with NaN"),
    ([0.5, 0.5], "mse", r"Received: \(3,\) and \(2,\)"),
])  # fmt: skip
def test_invalid_predictions_raise(first, metric, message):
    with pytest.raises(ValueError, match=message):
        evaluate.paired([0, 1, 1], first, [0, 1, 1], metric=metric)


def test_over_seeds_has_a_t_interval(random):
    values = random.normal(size=7)
    comparison = evaluate.over_seeds(values, confidence=0.9)
    expected = stats.t.interval(0.9, 6, loc=values.mean(), scale=stats.sem(values))
    assert (comparison.low, comparison.high) == pytest.approx(expected)
    assert (comparison.n, comparison.method) == (7, "t over 7 seeds")


@pytest.mark.parametrize("values", [[0.7, 0.7, 0.7], [0.0, 0.0], [1 / 3, 1 - 2 / 3]])
def test_seeds_that_agree_have_no_interval(values):
    estimate = evaluate.over_seeds(values, metric="accuracy")
    assert (estimate.low, estimate.high) == (None, None)
    assert estimate.value == pytest.approx(values[0])
    assert estimate.method == f"all {len(values)} seeds have the same value"


def test_one_seed_has_no_interval_and_a_failed_seed_no_mean():
    comparison = evaluate.over_seeds([0.75])
    assert (comparison.value, comparison.low, comparison.high, comparison.n) == (0.75, None, None, 1)
    assert "1 seed" in comparison.method
    failed = evaluate.over_seeds([0.75, math.nan, 0.8])
    assert math.isnan(failed.value)
    assert failed.method == "undefined for 1 of 3 seeds"
    with pytest.raises(ValueError, match="one number for each seed"):
        evaluate.over_seeds([])


def behrens_fisher(size, between, freedom, shared, n):
    """Return P(|sqrt(between) T + sqrt(shared) T'| >= size), integrated over T."""

    def integrand(t):
        ends = (size - math.sqrt(between) * t) / math.sqrt(shared), (size + math.sqrt(between) * t) / math.sqrt(shared)
        return stats.t.pdf(t, freedom) * sum(stats.t.sf(end, n - 1) for end in ends)

    return integrate.quad(integrand, -np.inf, np.inf, epsabs=1e-10)[0]


def test_paired_over_seeds_equals_crossed_anova(random):
    """For a mean the covariance over examples equals that of a crossed random-effects analysis of variance."""
    seeds, n = 5, 211
    y_true = random.integers(2, size=n)
    hard = random.uniform(size=n) < 0.3
    first = [noisy_labels(random, y_true, np.where(hard, 0.6, 0.95)) for _ in range(seeds)]
    second = [noisy_labels(random, y_true, np.where(hard, 0.3, 0.95)) for _ in range(seeds)]
    comparison = evaluate.paired_over_seeds(y_true, first, second)

    right = [(np.array(model) == y_true) * 1.0 for model in (first, second)]
    values = right[0] - right[1]  # (seeds, n)
    mean = values.mean()
    of_examples = seeds * ((values.mean(0) - mean) ** 2).sum() / (n - 1)
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + mean
    error = (rest**2).sum() / ((seeds - 1) * (n - 1))
    covariance = max(of_examples - error, 0) / seeds
    deviations = values - values.mean(1, keepdims=True)
    floor = ((deviations**2).sum() + 2) / (n * seeds + 2) - covariance
    variances = [model.mean(1).var(ddof=1) for model in right]
    between = max(sum(variances), floor / n) / seeds
    welch = sum(variances) ** 2 / sum(np.square(variances))
    freedom = (seeds - 1) * (1 + (welch - 1) ** 4 / 2)
    settings = between, freedom, covariance / n, n
    assert comparison.difference.value == pytest.approx(mean)
    assert comparison.p_value == pytest.approx(behrens_fisher(mean, *settings), rel=1e-4)
    assert mean - comparison.difference.low == pytest.approx(comparison.difference.high - mean)
    half = comparison.difference.high - mean
    assert behrens_fisher(half, *settings) == pytest.approx(0.05, rel=1e-4)
    assert comparison.first_values == pytest.approx((np.array(first) == y_true).mean(1))
    assert comparison.second == evaluate.over_seeds(comparison.second_values)
    assert comparison.seeds == 5


@pytest.mark.parametrize(("between", "shared"), [(0.04, 0.01), (0.01, 0.04), (0.04, 1e-12), (1e-12, 0.04)])
def test_behrens_fisher_p_value_equals_a_simulation(random, between, shared):
    draws = math.sqrt(between) * random.standard_t(4, 400_000) + math.sqrt(shared) * random.standard_t(34, 400_000)
    for size in (0.1, 0.5, 1.0):
        expected = (np.abs(draws) >= size).mean()
        p_value = behrens_fisher_p_value(Components(size, between, shared, 4.0, 34))
        assert p_value == pytest.approx(expected, abs=5 * math.sqrt(expected / 400_000) + 1e-5)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("ratio", [10, 1000])
def test_level_is_held_if_one_model_varies_more(seeds, ratio):
    """Trainings alone differ, by amounts whose variances have this ratio; Welch's test rejects up to 3 times too often."""
    random = np.random.default_rng(11)
    p_values = []
    for _ in range(20):
        skills = random.normal(size=(2, 10_000, seeds, 1)) * np.sqrt([1, 1 / ratio])[:, None, None, None]
        first, second = np.repeat(skills, 30, axis=-1)  # examples that do not differ
        components = variance_components(first, second)
        t = components.difference / np.sqrt(components.between)
        p_values.append(2 * stats.t.sf(np.abs(t), components.seed_freedom))
    for level in (0.05, 0.01, 0.001):
        rejected = (np.concatenate(p_values) < level).sum()
        assert rejected <= stats.binom.ppf(0.999, 200_000, 1.1 * level)


def test_seeds_that_agree_by_chance_show_nothing():
    """Three trainings, each wrong on another example, against three that are right: their accuracies are equal."""
    n = 350
    first = np.ones((3, n), int)
    second = first.copy()
    second[np.arange(3), [3, 5, 7]] = 0
    comparison = evaluate.paired_over_seeds(np.ones(n, int), list(first), list(second))
    assert len(set(comparison.second_values)) == 1
    assert comparison.p_value > 0.05
    assert not comparison.shown
    assert comparison.difference.low < 0 < comparison.difference.high


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("n", [35, 200])
def test_level_is_held_for_accuracy(seeds, n):
    """Two equally good models, whose trainings and examples differ as in benchmarks/levels.py."""
    random = np.random.default_rng(7)
    shape = (300, seeds, n)
    example, interaction = random.normal(0, 2, (300, 1, n)), random.normal(0, 1, (2, 300, 1, n))
    training = random.normal(0, 0.3, (2, 300, seeds, 1))
    chances = 1 / (1 + np.exp(-(1.5 + example + interaction + training)))
    right = (random.uniform(size=(2, *shape)) < chances) * 1.0
    p_values = behrens_fisher_p_value(variance_components(right[0], right[1]))
    assert (p_values < 0.05).sum() <= stats.binom.ppf(0.995, 300, 0.05)
    assert (p_values < 0.001).sum() <= 3


@pytest.mark.parametrize("metric", ["log_loss", "brier", "accuracy", "roc_auc", "f1_macro"])
def test_p_value_over_seeds_does_not_depend_on_resampling(random, metric):
    y_true = random.integers(2, size=97)
    first, second = ([probabilities(random, y_true, signal) for _ in range(3)] for signal in (1.0, 0.7))
    results = [
        evaluate.paired_over_seeds(y_true, first, second, metric=metric, seed=seed, resamples=100 + 900 * seed)
        for seed in (0, 1)
    ]
    assert results[0] == results[1]


def test_jackknife_of_a_mean_is_exact(random):
    """Each example's weighted recall is its accuracy, which has exact variances; recall goes through the jackknife."""
    y_true = random.integers(2, size=97)
    first, second = ([noisy_labels(random, y_true, a) for _ in range(3)] for a in (0.9, 0.8))
    exact, jackknife = (
        evaluate.paired_over_seeds(y_true, first, second, metric=metric) for metric in ("accuracy", "recall_weighted")
    )
    assert jackknife.p_value == pytest.approx(exact.p_value, rel=1e-6)
    assert jackknife.difference.low == pytest.approx(exact.difference.low, abs=1e-6)


def test_no_interval_leaves_the_range_of_the_metric():
    y_true = np.array([0, 1] * 10)
    right, wrong = y_true.copy(), 1 - y_true
    comparison = evaluate.paired_over_seeds(y_true, [right, wrong], [wrong, right])
    assert (comparison.difference.low, comparison.difference.high) == (-1, 1)
    assert (comparison.first.low, comparison.first.high) == (0, 1)
    assert evaluate.over_seeds([0.9, 0.99], metric="accuracy").high == 1
    assert evaluate.over_seeds([0.9, 0.99], metric="log_loss").high > 1


@pytest.mark.parametrize(("between_seeds", "min_coverage"), [(0.0, 0.95), (0.05, 0.95)])
def test_interval_over_three_seeds_has_at_least_nominal_coverage(between_seeds, min_coverage):
    """Also with a large variance between seeds, where a bootstrap over three seeds would cover three of four.

    With three seeds the interval is conservative, but not without end: t of two degrees of freedom is 4.3.
    """
    random, hits, trials, widths = np.random.default_rng(5), 0, 300, []
    for trial in range(trials):
        examples = random.normal(0, 0.2, size=(1, 101))
        first = examples + random.normal(0, between_seeds, size=(3, 1)) + random.normal(0, 0.3, size=(3, 101))
        second = np.full((3, 101), 5.0)
        # The mean absolute error of 5 + d against 0 is 5 + d: a metric whose true difference is 0.
        comparison = evaluate.paired_over_seeds(
            np.zeros(101), 5 + first, second, metric="mae", resamples=100, seed=trial
        )
        hits += comparison.difference.low <= 0 <= comparison.difference.high
        widths.append(comparison.difference.high - comparison.difference.low)
    assert hits / trials >= min_coverage
    deviation = math.sqrt(between_seeds**2 / 3 + 0.3**2 / (3 * 101) + 0.2**2 / 101)
    assert np.mean(widths) / (2 * deviation) < 4.4


def test_paired_over_seeds_accepts_any_metric(random):
    y_true = random.integers(2, size=83)
    first = [probabilities(random, y_true, 1.0) for _ in range(3)]
    second = [probabilities(random, y_true, 0.2) for _ in range(3)]
    comparison = evaluate.paired_over_seeds(y_true, first, second, metric="roc_auc", names=("attention", "pooling"))
    areas = [[sklearn_metrics.roc_auc_score(y_true, each) for each in model] for model in (first, second)]
    assert comparison.first_values == pytest.approx(areas[0])
    assert comparison.difference.value == pytest.approx(np.mean(areas[0]) - np.mean(areas[1]))
    assert comparison.shown
    stored = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert stored["seeds"] == 3
    assert stored["first_values"] == list(comparison.first_values)


def test_one_seed_equals_paired(random):
    y_true = random.integers(2, size=53)
    first, second = noisy_labels(random, y_true, 0.9), noisy_labels(random, y_true, 0.6)
    assert evaluate.paired_over_seeds(y_true, [first], [second]) == evaluate.paired(y_true, first, second)
    assert "1 seed, so without the variation between seeds" in evaluate.sentence(evaluate.paired(y_true, first, second))


def test_identical_seeds(random):
    y_true = random.integers(2, size=53)
    labels = noisy_labels(random, y_true, 0.9)
    comparison = evaluate.paired_over_seeds(y_true, [labels] * 3, [labels] * 3)
    half = stats.norm.ppf(0.975) ** 2 / (53 + stats.norm.ppf(0.975) ** 2)
    assert (comparison.difference.low, comparison.difference.high) == pytest.approx((-half, half))
    assert (comparison.difference.value, comparison.p_value) == (0, 1)
    other = noisy_labels(random, y_true, 0.6)
    constant = evaluate.paired_over_seeds(y_true, [labels] * 3, [other] * 3)
    assert constant.difference.low < constant.difference.value < constant.difference.high


def test_different_numbers_of_seeds_raise():
    with pytest.raises(ValueError, match=r"same number of seeds, at least 1. Received: 2 and 1"):
        evaluate.paired_over_seeds([0, 1], [[0, 1], [0, 1]], [[0, 1]])


def test_holm_equals_statsmodels(random):
    p_values = np.append(random.uniform(size=9) ** 3, [0.01, 0.01])
    assert evaluate.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    with_nan = evaluate.holm([0.02, math.nan, 0.01])
    assert with_nan[::2] == pytest.approx([0.02, 0.02])
    assert math.isnan(with_nan[1])
    assert evaluate.holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        evaluate.holm([0.5, 1.5])


def test_agreeing_seeds_do_not_replace_examples():
    """Three seeds that agree are still a sample of few examples: the p value is that of a sign test."""
    identical = evaluate.paired_over_seeds([0, 1], [[0, 1]] * 3, [[1, 0]] * 3)
    assert identical.p_value == 2 / 2**2 == evaluate.paired([0, 1], [0, 1], [1, 0]).p_value
    assert not identical.shown
    few = evaluate.paired_over_seeds([0] * 5, [[0] * 5] * 3, [[1, 1, 1, 0, 0]] * 3)
    assert few.p_value > 0.05
    assert not few.shown
    many = evaluate.paired_over_seeds([0] * 9, [[0] * 9] * 3, [[1] * 9] * 3)
    assert many.p_value == 2 / 2**9
    assert many.shown


@pytest.mark.parametrize(("n", "seeds"), [(12, 3), (12, 8)])
def test_level_is_nominal_with_few_examples(n, seeds):
    random = np.random.default_rng(5)
    y_true, rejections = np.zeros(n), 0
    for _ in range(300):
        # The models are equally good, and differ on the same examples at every seed.
        shared = random.normal(size=n)
        first = shared + 0.3 * random.normal(size=(seeds, n))
        second = -shared + 0.3 * random.normal(size=(seeds, n))
        comparison = evaluate.paired_over_seeds(y_true, list(first), list(second), metric="mse", resamples=100)
        rejections += comparison.p_value < 0.05
    assert rejections / 300 < 0.085


def test_one_example_has_no_interval(recwarn):
    comparison = evaluate.paired([1], [1], [0])
    assert (comparison.difference.low, comparison.difference.high, comparison.p_value) == (None, None, 1.0)
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]
