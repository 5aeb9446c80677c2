"""Means over seeds, intervals over examples, comparisons and the choice of examples, against loops and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics
from statsmodels.stats.proportion import proportion_confint

from limelight.evaluate import holm, paired_over_seeds
from limelight.study import evaluation

pytestmark = pytest.mark.backend_free

CLASSES = ("bad", "good", "mixed")


def draw_predictions(random, seeds, examples=61, sharpness=1.0):
    """Return the true classes, and the probabilities of a model that is right more often than not for each seed."""
    truth = np.random.default_rng(0).integers(3, size=examples)
    scores = random.normal(size=(seeds, examples, 3)) + sharpness * np.eye(3)[truth]
    weights = np.exp(scores)
    return truth, list(weights / weights.sum(-1, keepdims=True))


def test_a_metric_is_its_mean_over_the_seeds(random):
    truth, predictions = draw_predictions(random, 3)
    result = evaluation.evaluate_predictions(truth, predictions, CLASSES)
    oracles = {
        "accuracy": lambda p: metrics.accuracy_score(truth, p.argmax(1)),
        "f1_macro": lambda p: metrics.f1_score(truth, p.argmax(1), average="macro"),
        "roc_auc": lambda p: metrics.roc_auc_score(truth, p, multi_class="ovr", average="macro"),
        "log_loss": lambda p: metrics.log_loss(truth, p),
    }
    for name, oracle in oracles.items():
        each = [oracle(prediction) for prediction in predictions]
        assert [run[name] for run in result.runs] == pytest.approx(each)
        assert result.metrics[name].value == pytest.approx(np.mean(each))
        assert result.metrics[name].low < np.mean(each) < result.metrics[name].high
        assert result.metrics[name].n == 61
        assert result.seeds[name].value == pytest.approx(np.mean(each))
        assert result.seeds[name].n == 3


def test_counts_are_over_all_seeds(random):
    truth, predictions = draw_predictions(random, 2)
    result = evaluation.evaluate_predictions(truth, predictions, CLASSES)
    expected = sum(metrics.confusion_matrix(truth, prediction.argmax(1)) for prediction in predictions)
    np.testing.assert_array_equal(result.confusion, expected)
    assert result.reliability.count.sum() == 2 * 61
    # The share of the diagonal is the mean accuracy.
    assert np.trace(result.confusion) / result.confusion.sum() == pytest.approx(result.metrics["accuracy"].value)
    for index, row in enumerate(result.per_class):
        recalls = [metrics.recall_score(truth, p.argmax(1), average=None)[index] for p in predictions]
        assert row["class"] == CLASSES[index]
        assert row["recall"] == pytest.approx(np.mean(recalls))
        assert row["support"] == (truth == index).sum()


def test_one_seed_has_a_wilson_interval_and_none_over_seeds(random):
    truth, predictions = draw_predictions(random, 1)
    result = evaluation.evaluate_predictions(truth, predictions, CLASSES)
    assert result.metrics["accuracy"].method == "Wilson"
    assert result.seeds == {}


def test_seeds_that_are_right_on_the_same_examples_have_the_interval_of_one(random):
    truth, predictions = draw_predictions(random, 1)
    sharper = predictions[0] ** 2 / (predictions[0] ** 2).sum(-1, keepdims=True)
    one = evaluation.evaluate_predictions(truth, predictions, CLASSES).metrics["accuracy"]
    two = evaluation.evaluate_predictions(truth, [predictions[0], sharper], CLASSES)
    assert two.metrics["accuracy"] == one
    assert (two.seeds["accuracy"].low, two.seeds["accuracy"].method) == (None, "all 2 seeds have the same value")
    assert two.seeds["log_loss"].low < two.seeds["log_loss"].high


def test_seeds_that_differ_have_a_shorter_interval_than_a_proportion(random):
    truth, predictions = draw_predictions(random, 5)
    accuracy = evaluation.evaluate_predictions(truth, predictions, CLASSES).metrics["accuracy"]
    assert accuracy.method == "BCa bootstrap, 1000 resamples"
    shares = (np.stack(predictions).argmax(-1) == truth).mean(0)
    low, high = proportion_confint(shares.sum(), len(shares), method="wilson")
    assert low < accuracy.low < accuracy.value < accuracy.high < high
    # The standard error is that of the shares, so a normal interval is about as long.
    assert accuracy.high - accuracy.low == pytest.approx(3.92 * shares.std(ddof=1) / len(shares) ** 0.5, rel=0.1)


def test_an_undefined_metric_has_no_interval_over_seeds(random):
    _, predictions = draw_predictions(random, 2, examples=5)
    result = evaluation.evaluate_predictions(np.zeros(5, np.int64), predictions, CLASSES)
    assert np.isnan(result.metrics["roc_auc"].value)
    assert "roc_auc" not in result.seeds
    assert result.per_class[1]["recall"] is None


def test_comparisons_are_paired_and_corrected(random):
    truth, attention = draw_predictions(random, 3, sharpness=3.0)
    _, mean = draw_predictions(random, 3)
    _, linear = draw_predictions(random, 1)
    titles = {"attention": "attention", "mean": "mean pooling", "linear": "the linear model"}
    comparisons = evaluation.compare_models(
        truth, {"attention": attention, "mean": mean, "linear": linear}, titles, CLASSES
    )

    assert [(each.metric, each.names[1]) for each in comparisons] == [
        ("accuracy", "mean pooling"),
        ("accuracy", "the linear model"),
        ("log_loss", "mean pooling"),
        ("log_loss", "the linear model"),
    ]
    raw = [
        paired_over_seeds(truth, attention, other, metric=metric, classes=CLASSES)
        for metric in ("accuracy", "log_loss")
        for other in (mean, linear * 3)
    ]
    assert [each.p_value for each in comparisons] == pytest.approx(holm([each.p_value for each in raw]))
    assert [each.difference.value for each in comparisons] == pytest.approx([each.difference.value for each in raw])

    entry = evaluation.comparison_to_dict(comparisons[0], {title: name for name, title in titles.items()})
    assert (entry["first"], entry["second"], entry["metric"]) == ("attention", "mean", "accuracy")
    assert entry["difference"] == pytest.approx(raw[0].difference.value)
    assert entry["low"] < entry["difference"] < entry["high"]
    assert entry["method"].endswith("Holm's correction for 4 tests")
    assert entry["sentence"].startswith("Attention raised accuracy from ")


@pytest.mark.parametrize("right", [True, False])
def test_seeds_that_agree_perfectly_have_the_interval_of_one_seed(right):
    truth = np.array([0, 1] * 5)
    predicted = np.eye(2)[truth if right else 1 - truth]
    one, three = (
        evaluation.evaluate_predictions(truth, [predicted] * seeds, ("a", "b")).metrics["accuracy"] for seeds in (1, 3)
    )
    assert (three.low, three.high) == (one.low, one.high)
    assert three.high - three.low > 0.2


PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6], [0.05, 0.95], [0.35, 0.65], [0.52, 0.48]])
TRUTH = np.array([0, 0, 1, 1, 0, 1, 0])


def test_examples_of_each_kind():
    chosen = evaluation.choose_examples(PROBABILITIES, TRUTH, 2)
    # The correct ones alternate: the most confident of class 0, then that of class 1, before a more confident one of class 0.
    assert chosen == {evaluation.CORRECT: [0, 5], evaluation.WRONG: [4, 2], evaluation.UNCERTAIN: [6, 3]}


def test_no_example_is_shown_twice():
    chosen = evaluation.choose_examples(PROBABILITIES, TRUTH, 5)
    shown = [index for group in chosen.values() for index in group]
    assert sorted(shown) == list(range(7))
    assert chosen[evaluation.WRONG] == [4, 2]


def test_no_examples():
    assert evaluation.choose_examples(PROBABILITIES, TRUTH, 0) == {
        evaluation.CORRECT: [],
        evaluation.WRONG: [],
        evaluation.UNCERTAIN: [],
    }


def test_a_note_says_that_test_examples_of_a_group_are_not_independent():
    groups, test = ("a", "b", "a", None, "b", None, "c"), np.array([0, 2, 3, 5, 6])
    (note,) = evaluation.note_groups(groups, test)
    assert "the 5 test examples as independent, though they belong to 4 groups" in note
    assert evaluation.note_groups(groups, np.array([0, 1, 3, 5])) == []
    assert evaluation.note_groups(None, test) == []
