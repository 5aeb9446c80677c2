"""Metrics against scikit-learn."""

import json

import numpy as np
import pytest
from sklearn import metrics as oracle

from limelight import evaluate

pytestmark = pytest.mark.backend_free


def simulated(random: np.random.Generator, n: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and probabilities that know something of it, with ties."""
    truth = random.integers(classes, size=n)
    logits = np.round(random.normal(size=(n, classes)), 1)
    logits[np.arange(n), truth] += 1.0
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return truth, probabilities


@pytest.mark.parametrize("classes", [2, 5])
def test_every_metric_is_that_of_scikit_learn(random, classes):
    truth, probabilities = simulated(random, 211, classes)
    names = [f"class {k}" for k in range(classes)]
    result = evaluate.classification(truth, probabilities, names, resamples=100)
    predicted = probabilities.argmax(1)
    expected = {
        "accuracy": oracle.accuracy_score(truth, predicted),
        "log_loss": oracle.log_loss(truth, probabilities),
        "brier": oracle.brier_score_loss(truth, probabilities if classes > 2 else probabilities[:, 1]),
    }
    for average in ("macro", "weighted"):
        scores = oracle.precision_recall_fscore_support(truth, predicted, average=average)
        expected |= {f"{k}_{average}": v for k, v in zip(("precision", "recall", "f1"), scores[:3], strict=True)}
    if classes == 2:
        expected["roc_auc"] = oracle.roc_auc_score(truth, probabilities[:, 1])
        expected["average_precision"] = oracle.average_precision_score(truth, probabilities[:, 1])
    else:
        one_hot = np.eye(classes)[truth]
        expected["roc_auc"] = oracle.roc_auc_score(truth, probabilities, multi_class="ovr")
        expected["average_precision"] = oracle.average_precision_score(one_hot, probabilities)
    found = {name: result[name].value for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)
    assert np.array_equal(result.confusion, oracle.confusion_matrix(truth, predicted))
    scores = oracle.precision_recall_fscore_support(truth, predicted)
    for row, name in enumerate(names):
        ours = [result.per_class[name][metric].value for metric in ("precision", "recall", "f1")]
        assert ours == pytest.approx([score[row] for score in scores[:3]])
        assert result.support[row] == scores[3][row]


def test_a_result_is_ready_for_json(random):
    truth, probabilities = simulated(random, 53, 3)
    result = evaluate.classification(truth, probabilities, ["a", "b", "c"], resamples=100)
    kept = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert kept["metrics"]["accuracy"]["value"] == result["accuracy"].value
    assert kept["confusion"] == result.confusion.tolist()
