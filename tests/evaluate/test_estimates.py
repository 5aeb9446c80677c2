"""The bootstrap compared with scipy, and the string and JSON forms of an estimate."""

import json
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from limelight.evaluate import Estimate
from limelight.evaluate.estimates import (
    average_groups,
    bca,
    bootstrap,
    bootstrap_means,
    jackknife_weights,
    resample_counts,
    widen_constant,
    wilson,
)

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize("statistic", [np.mean, np.std, stats.skew])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_bca_equals_scipy_on_the_same_resamples(random, statistic, confidence):
    sample = random.exponential(size=53)
    oracle = stats.bootstrap((sample,), statistic, n_resamples=999, confidence_level=confidence, random_state=3)
    jackknife = np.array([statistic(np.delete(sample, index)) for index in range(53)])
    low, high, method = bca(float(statistic(sample)), oracle.bootstrap_distribution, jackknife, confidence)
    assert (low, high) == pytest.approx(tuple(oracle.confidence_interval), rel=1e-12)
    assert method == "BCa bootstrap, 999 resamples"


def test_resample_counts_are_multinomial(random):
    counts = np.concatenate(list(resample_counts(7, 20_000, random)))
    assert counts.shape == (20_000, 7)
    assert np.all(counts.sum(1) == 7)
    assert counts.mean(0) == pytest.approx(np.ones(7), abs=0.03)
    assert counts.var(0) == pytest.approx(np.full(7, 6 / 7), abs=0.04)
    assert np.cov(counts, rowvar=False)[0, 1] == pytest.approx(-1 / 7, abs=0.03)


def test_resamples_do_not_depend_on_the_chunk_size(monkeypatch):
    expected = np.concatenate(list(resample_counts(11, 101, np.random.default_rng(5))))
    monkeypatch.setattr("limelight.evaluate.estimates._CHUNK", 50)
    chunks = list(resample_counts(11, 101, np.random.default_rng(5)))
    assert len(chunks) > 20
    assert np.array_equal(np.concatenate(chunks), expected)


def test_jackknife_leaves_out_each_example_once():
    assert np.array_equal(np.concatenate(list(jackknife_weights(5, 100))), 1 - np.eye(5))
    grouped = np.concatenate(list(jackknife_weights(7, 3)))
    assert np.array_equal((1 - grouped).sum(0), np.ones(7))
    assert (1 - grouped).sum(1).tolist() == [3, 2, 2]


def test_grouped_jackknife_gives_nearly_the_same_interval(random):
    sample = random.exponential(size=4999) ** 2
    resampled = random.choice(sample, size=(999, 4999)).mean(1)
    value = sample.mean()
    intervals = []
    for groups in (4999, 499):
        jackknife = np.concatenate([weights @ sample / weights.sum(1) for weights in jackknife_weights(4999, groups)])
        intervals.append(bca(value, resampled, jackknife)[:2])
    assert intervals[0] == pytest.approx(intervals[1], rel=2e-3)


def test_constant_statistic_has_percentile_interval():
    low, high, method = bca(1.0, np.ones(500), np.ones(20))
    assert (low, high) == (1.0, 1.0)
    assert method == "percentile bootstrap, 500 resamples"


def test_value_outside_its_resamples_has_percentile_interval():
    resampled = np.arange(100.0)
    low, high, method = bca(-1.0, resampled, np.arange(20.0), 0.9)
    # The 5 % and 95 % quantiles, and the value itself.
    assert (low, high) == pytest.approx((-1.0, 94.05))
    assert bca(120.0, resampled, np.arange(20.0), 0.9)[:2] == pytest.approx((4.95, 120.0))
    assert method.startswith("percentile")


def test_undefined_resamples_are_counted_and_too_many_give_no_interval():
    resampled = np.arange(100.0)
    resampled[:10] = np.nan
    assert bca(50.0, resampled, np.arange(20.0))[2] == "BCa bootstrap, 100 resamples of which 10 undefined"
    resampled[:51] = np.nan
    assert bca(50.0, resampled, np.arange(20.0)) == (None, None, "undefined in more than half of the resamples")


def test_interval_has_nominal_coverage():
    """About 95 % of 300 intervals contain the true mean, by a binomial test at level 0.001."""
    random, hits = np.random.default_rng(11), 0
    for trial in range(300):
        sample = random.gamma(2.0, size=53)

        def mean(weights, sample=sample):
            return {"mean": weights @ sample / weights.sum(1)}

        estimate = bootstrap(mean, 53, resamples=300, seed=trial)["mean"]
        hits += estimate.low <= 2.0 <= estimate.high
    assert stats.binomtest(hits, 300, 0.95).pvalue > 1e-3
    assert hits > 0.9 * 300


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 11), (1061, 1061), (821, 1061), (2.75, 3), (0.1, 5)])
def test_wilson_equals_statsmodels(hits, n):
    estimate = wilson(hits, n, 0.9)
    assert (estimate.low, estimate.high) == pytest.approx(proportion_confint(hits, n, alpha=0.1, method="wilson"))


def test_interval_depends_only_on_the_seed(random):
    sample = random.normal(size=31)

    def mean(weights):
        return {"mean": weights @ sample / weights.sum(1)}

    first, again, other = (bootstrap(mean, 31, seed=seed)["mean"] for seed in (3, 3, 4))
    assert first == again != other


def test_estimate_as_string_and_json():
    assert str(Estimate(0.5, 0.25, 0.75, "Wilson", 9, 0.9)) == "0.500 (90 % CI 0.250 to 0.750)"
    assert str(Estimate(-0.5, -0.75, -0.0001, "t", 9)) == "−0.500 (95 % CI −0.750 to 0.000)"
    assert str(Estimate(0.5, None, None, "1 seed", 1)) == "0.500 (no interval: 1 seed)"
    assert str(Estimate(math.nan, None, None, "one class", 1)) == "undefined (one class)"
    stored = json.loads(json.dumps(Estimate(math.nan, None, math.inf, "none", 3).to_dict(), allow_nan=False))
    assert stored == {"value": None, "low": None, "high": None, "confidence": 0.95, "method": "none", "n": 3}


def test_invalid_confidence_and_resamples_raise():
    with pytest.raises(ValueError, match=r"`confidence` must lie between 0 and 1. Received: 95"):
        bootstrap(lambda weights: {}, 5, confidence=95)
    with pytest.raises(ValueError, match=r"`resamples` must be at least 100. Received: 10"):
        bootstrap(lambda weights: {}, 5, resamples=10)


def test_the_interval_of_a_mean_is_that_of_loops(random):
    values, others = random.exponential(size=23), random.normal(size=(23, 2))
    counts = np.concatenate(list(resample_counts(23, 300, np.random.default_rng(4))))
    estimates = bootstrap_means({"mean": values, "two": others}, confidence=0.9, resamples=300, seed=4)
    for column, estimate in ((values, estimates["mean"]), (others[:, 1], estimates["two"][1])):
        ratios = []
        for row in counts.astype(int):
            resample = np.repeat(column, row)
            ratios.append((resample.mean() - column.mean()) / stats.sem(resample))
        high, low = np.quantile(ratios, [0.05, 0.95])
        ends = column.mean() - low * stats.sem(column), column.mean() - high * stats.sem(column)
        assert (estimate.low, estimate.high) == pytest.approx(ends, rel=1e-9)
        assert estimate.value == pytest.approx(column.mean())
        assert estimate.method == "studentized bootstrap, 300 resamples"


def test_the_interval_of_a_mean_of_few_or_nearly_constant_values(random):
    values = random.normal(size=6)
    estimate = bootstrap_means({"mean": values})["mean"]
    expected = stats.t.interval(0.95, 5, loc=values.mean(), scale=stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx(expected)
    assert estimate.method == "t"
    rare = np.zeros(40)
    rare[7] = 1
    assert bootstrap_means({"mean": rare})["mean"].method == "BCa bootstrap, 1000 resamples"
    constant = bootstrap_means({"mean": np.full(40, 0.3)})["mean"]
    assert (constant.low, constant.high, constant.method) == (None, None, "all resamples have the same value")
    assert bootstrap_means({"mean": np.ones(1)})["mean"].method == "one example"
    assert bootstrap_means({"mean": np.array([1.0, math.nan] * 10)})["mean"].low is None


def test_the_interval_of_a_skewed_mean_covers_it(random):
    # 1,000 studies of 40 values: the standard error of the rate is 0.7 %.
    covered = {"studentized": 0, "bca": 0}
    for study in range(1000):
        values = random.exponential(size=40)
        for name, estimate in (
            ("studentized", bootstrap_means({"mean": values}, resamples=400, seed=study)["mean"]),
            ("bca", bootstrap(lambda weights, values=values: {"mean": weights @ values / weights.sum(1)}, 40, resamples=400,
                              seed=study)["mean"]),
        ):  # fmt: skip
            covered[name] += estimate.low <= 1 <= estimate.high
    assert covered["studentized"] > 930, covered
    assert covered["studentized"] > covered["bca"]


def test_the_interval_of_a_mean_stays_within_its_bounds():
    values = np.array([1.0, 1.0, 0.9, 0.2])
    low = values.mean() - stats.t.ppf(0.975, 3) * stats.sem(values)
    columns = {"unbounded": values, "bounded": values, "two": np.stack([values, -values], axis=1)}
    estimates = bootstrap_means(columns, bounds={"bounded": (0.0, 1.0), "two": (-1.0, 1.0)})
    assert estimates["unbounded"].high == pytest.approx(2 * values.mean() - low)
    assert estimates["unbounded"].high > 1
    assert (estimates["bounded"].low, estimates["bounded"].high) == (pytest.approx(low), 1)
    assert [(estimate.low, estimate.high) for estimate in estimates["two"]] == [
        (pytest.approx(low), 1),
        (-1, pytest.approx(-low)),
    ]


@pytest.mark.parametrize("value", [1.0, -1.0, 0.0, 0.25])
@pytest.mark.parametrize("n", [2, 23])
def test_equal_values_permit_as_many_others_as_wilson(value, n):
    """The mean is furthest away if the examples that none of n shows are all at one of the bounds."""
    others = proportion_confint(0, n, method="wilson")[1]
    estimate = bootstrap_means({"mean": np.full(n, value)}, bounds={"mean": (-1.0, 1.0)})["mean"]
    expected = [(1 - others) * value + others * end for end in (-1, 1)]
    assert (estimate.low, estimate.high) == pytest.approx(expected)
    assert estimate.method == "Wilson, as all resamples have the same value"
    assert widen_constant(Estimate(value, value, value, "", n), (-1.0, math.inf), n).low is None


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_wilson_of_shares_of_groups_covers_their_mean(spread):
    """2,000 studies of 12 groups of 4: from independent members to groups whose members are all alike."""
    random, rate, hits = np.random.default_rng(5), 0.7, 0
    for _ in range(2000):
        group = random.uniform(size=(12, 1)) < rate
        own = random.uniform(size=(12, 4)) < rate
        members = np.where(random.uniform(size=(12, 4)) < spread, group, own)
        estimate = wilson(float(members.mean(1).sum()), 12)
        hits += estimate.low <= rate <= estimate.high
    assert hits > 0.94 * 2000


def test_groups_are_averaged(random):
    values = random.normal(size=(7, 2))
    values[3, 0] = math.nan
    groups = ["b", "a", "b", "a", "c", "b", "c"]
    expected = [[np.nanmean(values[[g == name for g in groups], k]) for k in range(2)] for name in "abc"]
    np.testing.assert_allclose(average_groups(values, groups), expected)
    assert average_groups(values, None) is values
