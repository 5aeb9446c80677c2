"""The verdict claims nothing from models that did not finish or learned nothing, and names the majority of rare classes."""

import numpy as np
import pytest

from limelight import data
from limelight.study import Settings, setup, verdict
from limelight.study.folder import Run

pytestmark = pytest.mark.backend_free

TITLES = {"attention": "attention", "mean": "mean pooling", "linear": "the linear model"}
LABELS = {"train": np.array([0, 0, 0, 1]), "validation": np.array([0, 1]), "test": np.array([0, 0, 1])}
# The log loss of the shares 3/4 and 1/4 on one example of each class.
SHARES_LOSS = -(np.log(0.75) + np.log(0.25)) / 2


def keras_run(name, *losses, epochs=9):
    summary = {"epochs": len(losses), "stopped_by_limit": len(losses) == epochs, "history": {"val_loss": list(losses)}}
    return Run(name, 1, summary, {})


def runs(attention, mean, linear_loss=0.3):
    linear = Run("linear", 1, {"epochs": None, "history": {}, "validation": {"loss": linear_loss}}, {})
    majority = verdict.majority_run(LABELS, 2)
    return {"attention": attention, "mean": mean, "linear": [linear], verdict.MAJORITY: [majority]}


FINISHED = [keras_run("mean", 0.6, 0.4, 0.5)] * 2


def test_the_class_shares_are_a_model():
    run = verdict.majority_run(LABELS, 2)
    assert {name: each.tolist() for name, each in run.predictions.items()} == {
        "validation": [[0.75, 0.25]] * 2,
        "test": [[0.75, 0.25]] * 3,
    }
    assert run.summary["validation"] == {"loss": pytest.approx(SHARES_LOSS), "accuracy": 0.5}
    assert (run.summary["epochs"], run.summary["history"], run.summary["parameters"]) == (None, {}, 1)


def test_finished_models_have_no_caveat():
    assert verdict.find_caveats(runs(FINISHED, FINISHED), TITLES) == {}


def test_a_training_stopped_by_the_limit_is_named():
    attention = [*FINISHED, keras_run("attention", 0.6, 0.5, 0.4, 0.3, 0.4, epochs=5)]
    assert verdict.find_caveats(runs(attention, FINISHED), TITLES) == {
        "attention": "1 of 3 trainings of attention reached the limit of 5 epochs before --patience ended it, so that more "
        "training might help; raise --epochs."
    }


def test_a_training_that_is_no_better_than_the_class_shares_is_named():
    mean = [keras_run("mean", 0.9, SHARES_LOSS + 1e-6, 1.1)]
    caveats = verdict.find_caveats(runs(FINISHED, mean, linear_loss=2.0), TITLES)
    assert set(caveats) == {"mean", "linear"}
    assert caveats["mean"] == (
        "The training of mean pooling predicted no better than the class shares (validation loss 0.837, class shares 0.837)."
    )
    # The losses are those of the trainings that are counted.
    some = [*FINISHED, keras_run("attention", 1.2, 1.1, 1.3), keras_run("attention", 0.9, 1.0, 1.3)]
    assert verdict.find_caveats(runs(some, FINISHED), TITLES) == {
        "attention": "2 of 4 trainings of attention predicted no better than the class shares (validation loss 0.900 or more, "
        "class shares 0.837)."
    }


def test_no_claim_is_made_from_a_model_with_a_caveat():
    entry = {"first": "attention", "second": "mean", "metric": "accuracy", "sentence": "Attention lowered accuracy."}
    assert verdict.withdraw_claim(entry, {"linear": "Unused."}, TITLES) == {**entry, "claim": True}
    withdrawn = verdict.withdraw_claim(entry, {"mean": "2 of 2 did."}, TITLES)
    assert withdrawn["claim"] is False
    assert withdrawn["sentence"] == "No claim about the accuracy of attention and mean pooling can be made: 2 of 2 did."
    one = verdict.withdraw_claim(entry, {"attention": "The training of attention ended."}, TITLES)
    assert one["sentence"] == "No claim about the accuracy of attention can be made: the training of attention ended."
    # A reason that holds for all comparisons is given once.
    others = [entry, {**entry, "second": "linear"}]
    both = [verdict.withdraw_claim(each, {"attention": "Why.", "mean": "Other."}, TITLES) for each in others]
    sentences = verdict.write(both, [True, True], "accuracy")
    assert sentences == ["No claim about the accuracy of attention can be made: why."]


def test_the_verdict_speaks_of_accuracy_and_of_a_log_loss_that_differs():
    entries = [
        {"metric": metric, "claim": claim, "sentence": f"{metric} {claim}"}
        for metric in ("accuracy", "log_loss")
        for claim in (True, False)
    ]
    assert verdict.describe_imbalance("accuracy", ("a", "b"), np.array([5, 4]), np.array([0, 1])) == []
    assert verdict.write(entries, [False] * 4, "accuracy") == [
        "accuracy True",
        "accuracy False",
    ]
    assert verdict.write(entries, [True] * 4, "accuracy") == [
        "accuracy True",
        "accuracy False",
        "log_loss True",
    ]


def test_the_verdict_on_rare_positives_names_the_majority():
    entry = {"metric": "average_precision", "claim": True, "sentence": "So."}
    truth = np.array([0] * 49 + [1])
    preface = verdict.describe_imbalance("average_precision", ("ham", "spam"), np.array([980, 20]), truth)
    assert verdict.write([entry], [False], "average_precision", preface) == [
        "The classes are imbalanced (20 to 980 training examples), so the models are compared by average precision of 'spam'; "
        "always predicting 'ham' has an accuracy of 98.0 %.",
        "So.",
    ]


@pytest.mark.parametrize(
    ("rare", "frequent", "classes"), [("fraud", "ok", ("ok", "fraud")), ("spam", "ham", ("ham", "spam"))]
)
def test_the_average_precision_is_that_of_the_rare_class(tmp_path, rare, frequent, classes):
    rows = [(f"a text with the number {index}", rare if index % 20 == 0 else frequent) for index in range(200)]
    (tmp_path / "rare.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    prepared = setup.prepare(Settings(data=str(tmp_path / "rare.csv"), out=str(tmp_path / "out")))
    dataset = prepared.dataset
    assert dataset.classes == classes
    assert [(text, dataset.classes[label]) for text, label in zip(dataset.inputs, dataset.labels, strict=True)] == rows
    plain = data.load(tmp_path / "rare.csv")
    assert data.split(plain).fingerprint == prepared.split.fingerprint


def test_balanced_classes_stay_sorted(tmp_path):
    rows = "".join(f"a text with the number {index},{'b' if index % 3 else 'a'}\n" for index in range(60))
    (tmp_path / "two.csv").write_text("text,label\n" + rows)
    assert setup.prepare(Settings(data=str(tmp_path / "two.csv"), out=str(tmp_path / "out"))).dataset.classes == (
        "a",
        "b",
    )


@pytest.mark.parametrize(
    ("metric", "difference", "shown", "claim", "word"),
    [
        ("accuracy", 0.1, True, True, "Yes:"),
        ("accuracy", -0.1, True, True, "No:"),
        ("rmse", -0.1, True, True, "Yes:"),
        ("mase", 0.1, True, True, "No:"),
        ("accuracy", 0.1, False, True, "Cannot tell."),
        ("accuracy", 0.1, True, False, "Cannot tell."),
    ],
)
def test_the_answer_is_that_of_the_comparison_without_attention(metric, difference, shown, claim, word):
    entry = {"metric": metric, "difference": difference, "claim": claim}
    others = [{**entry, "metric": "other"}, entry, {**entry, "difference": -difference}]
    assert verdict.answer(others, [True, shown, True], metric) == word
