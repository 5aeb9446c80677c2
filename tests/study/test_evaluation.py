"""Means over seeds, intervals over examples, and comparisons, against plain loops and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from limelight.evaluate import holm, paired_over_seeds
from limelight.study import evaluation

pytestmark = pytest.mark.backend_free

CLASSES = ("bad", "good", "mixed")


def drawn(random, seeds, examples=61, sharpness=1.0):
    """Probabilities of a model that is right more often than not, one array for each seed."""
    truth = np.random.default_rng(0).integers(3, size=examples)
    scores = random.normal(size=(seeds, examples, 3)) + sharpness * np.eye(3)[truth]
    weights = np.exp(scores)
    return truth, list(weights / weights.sum(-1, keepdims=True))


def test_a_metric_is_its_mean_over_the_seeds(random):
    truth, predictions = drawn(random, 3)
    found = evaluation.assess(truth, predictions, CLASSES)
    oracles = {
        "accuracy": lambda p: metrics.accuracy_score(truth, p.argmax(1)),
        "f1_macro": lambda p: metrics.f1_score(truth, p.argmax(1), average="macro"),
        "roc_auc": lambda p: metrics.roc_auc_score(truth, p, multi_class="ovr", average="macro"),
        "log_loss": lambda p: metrics.log_loss(truth, p),
    }
    for name, oracle in oracles.items():
        each = [oracle(prediction) for prediction in predictions]
        assert [run[name] for run in found.runs] == pytest.approx(each)
        assert found.metrics[name].value == pytest.approx(np.mean(each))
        assert found.metrics[name].low < np.mean(each) < found.metrics[name].high
        assert found.metrics[name].n == 61
        assert found.seeds[name].value == pytest.approx(np.mean(each))
        assert found.seeds[name].n == 3


def test_counts_are_over_all_seeds(random):
    truth, predictions = drawn(random, 2)
    found = evaluation.assess(truth, predictions, CLASSES)
    expected = sum(metrics.confusion_matrix(truth, prediction.argmax(1)) for prediction in predictions)
    np.testing.assert_array_equal(found.confusion, expected)
    assert found.reliability.count.sum() == 2 * 61
    # So the share of the diagonal is the mean accuracy.
    assert np.trace(found.confusion) / found.confusion.sum() == pytest.approx(found.metrics["accuracy"].value)
    for place, row in enumerate(found.per_class):
        recalls = [metrics.recall_score(truth, p.argmax(1), average=None)[place] for p in predictions]
        assert row["class"] == CLASSES[place]
        assert row["recall"] == pytest.approx(np.mean(recalls))
        assert row["support"] == (truth == place).sum()


def test_one_seed_has_wilson_and_no_interval_over_seeds(random):
    truth, predictions = drawn(random, 1)
    found = evaluation.assess(truth, predictions, CLASSES)
    assert found.metrics["accuracy"].method == "Wilson"
    assert found.seeds == {}


def test_an_undefined_metric_stays_out_of_the_seeds(random):
    _, predictions = drawn(random, 2, examples=5)
    found = evaluation.assess(np.zeros(5, np.int64), predictions, CLASSES)
    assert np.isnan(found.metrics["roc_auc"].value)
    assert "roc_auc" not in found.seeds
    assert found.per_class[1]["recall"] is None


def test_comparisons_are_paired_and_corrected(random):
    truth, ours = drawn(random, 3, sharpness=3.0)
    _, mean = drawn(random, 3)
    _, linear = drawn(random, 1)
    titles = {"attention": "attention", "mean": "mean pooling", "linear": "the linear model"}
    found = evaluation.compare(truth, {"attention": ours, "mean": mean, "linear": linear}, titles, CLASSES)

    assert [(each.metric, each.names[1]) for each in found] == [
        ("accuracy", "mean pooling"),
        ("accuracy", "the linear model"),
        ("log_loss", "mean pooling"),
        ("log_loss", "the linear model"),
    ]
    raw = [
        paired_over_seeds(truth, ours, theirs, metric=metric, classes=CLASSES)
        for metric in ("accuracy", "log_loss")
        for theirs in (mean, linear * 3)
    ]
    assert [each.p_value for each in found] == pytest.approx(holm([each.p_value for each in raw]))
    assert [each.difference.value for each in found] == pytest.approx([each.difference.value for each in raw])

    entry = evaluation.in_words(found[0], {title: name for name, title in titles.items()})
    assert (entry["first"], entry["second"], entry["metric"]) == ("attention", "mean", "accuracy")
    assert entry["difference"] == pytest.approx(raw[0].difference.value)
    assert entry["low"] < entry["difference"] < entry["high"]
    assert entry["method"].endswith("Holm's correction for 4 tests")
    assert entry["sentence"].startswith("Attention raised accuracy from ")


@pytest.mark.parametrize("right", [True, False])
def test_many_seeds_that_are_all_right_are_no_surer_than_one(right):
    truth = np.array([0, 1] * 5)
    predicted = np.eye(2)[truth if right else 1 - truth]
    one, three = (evaluation.assess(truth, [predicted] * seeds, ("a", "b")).metrics["accuracy"] for seeds in (1, 3))
    assert (three.low, three.high) == (one.low, one.high)
    assert three.high - three.low > 0.2
