"""A study of numbers to predict from texts or series, against numpy and scikit-learn."""

import json

import numpy as np
import pytest
from sklearn import metrics
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge

import reviews
from limelight import models
from limelight.data import Dataset, load, split
from limelight.study import Progress, Settings, baselines, job, run
from limelight.study.setup import Setup

pytestmark = pytest.mark.full

SMALL = {**reviews.SMALL, "seeds": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regression")
    random = np.random.default_rng(7)
    rows = []
    for text, label in reviews.rows(80):
        rows.append(f"{text},{3 * (label == 'good') + random.normal():.3f}")
    path = folder / "rated.csv"
    path.write_text("text,score\n" + "\n".join(rows) + "\n")
    settings = Settings(data=str(path), out=str(folder / "out"), **SMALL)
    results, report = run(settings)
    return settings, results, report.parent


def test_metrics_are_those_of_scikit_learn(finished):
    settings, results, out = finished
    assert results["task"] == "regress"
    dataset = load(settings.data, task="regress")
    truth = dataset.targets[split(dataset).test]
    for model in results["models"]:
        if model["name"] == "constant":
            predictions = [np.full(len(truth), dataset.targets[split(dataset).train].mean())]
        else:
            folders = [out / "runs" / f"{model['name']}-seed{run['seed']}" for run in model["runs"]]
            predictions = [np.load(folder / "predictions.npz")["test"] for folder in folders]
        oracles = {
            "mse": metrics.mean_squared_error,
            "rmse": metrics.root_mean_squared_error,
            "mae": metrics.mean_absolute_error,
            "r2": metrics.r2_score,
        }
        assert set(model["metrics"]) == set(oracles)
        for name, oracle in oracles.items():
            each = [oracle(truth, prediction) for prediction in predictions]
            assert [run["metrics"][name] for run in model["runs"]] == pytest.approx(each, rel=1e-6)
            assert model["metrics"][name]["value"] == pytest.approx(np.mean(each), rel=1e-6)
            assert model["metrics"][name]["low"] <= np.mean(each) <= model["metrics"][name]["high"]


def test_models_and_comparisons(finished):
    _, results, _ = finished
    assert [(model["name"], len(model["runs"])) for model in results["models"]] == [
        ("attention", 2),
        ("mean", 2),
        ("linear", 1),
        ("constant", 1),
    ]
    assert [model["title"] for model in results["models"]][2:] == ["TF-IDF + ridge", "Mean of the targets"]
    pairs = [(each["first"], each["second"], each["metric"]) for each in results["comparisons"]]
    assert pairs == [("attention", other, metric) for metric in ("rmse", "mae") for other in ("mean", "linear")]
    assert any("reached the limit of 2 epochs" in caveat for caveat in results["caveats"])
    assert results["verdict"][0].startswith("No claim about the root mean squared error of attention can be made: ")
    assert results["data"]["targets"]["train"]["minimum"] < 0
    assert "balance" not in results["data"]


def test_the_saved_model_predicts_the_examples(finished):
    _, results, out = finished
    estimator = models.load(out / "model.keras")
    assert type(estimator).__name__ == "TextRegressor"
    kinds = {example["kind"] for example in results["examples"]}
    assert kinds == {"smallest error", "median error", "largest error"}
    predictions = estimator.predict([example["text"] for example in results["examples"]])
    assert [example["prediction"] for example in results["examples"]] == pytest.approx(predictions, rel=1e-3, abs=1e-4)
    errors = {
        kind: np.mean([abs(each["truth"] - each["prediction"]) for each in results["examples"] if each["kind"] == kind])
        for kind in kinds
    }
    assert errors["smallest error"] < errors["median error"] < errors["largest error"]
    for example in results["examples"]:
        assert len(example["weights"]) == len(example["tokens"])


def test_the_report_shows_the_numbers(finished):
    _, results, out = finished
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Root mean squared error" in page
    assert "TF-IDF + ridge" in page
    assert "Confusion" not in page
    count = results["data"]["counts"]["test"]
    assert page.count('class="dot" fill-opacity') == 4 * count
    for model in results["models"]:
        assert np.mean([(truth - prediction) ** 2 for truth, prediction in model["predictions"]]) <= (
            model["metrics"]["mse"]["value"] * (1 + 1e-9)
        )
    figures = {path.name for path in (out / "figures").iterdir()}
    assert {"loss.svg", "mae.svg", "difference-rmse.svg", "difference-mae.svg", "example-largest-error.svg"} <= figures


def test_an_interrupted_study_gives_the_same_result(finished, tmp_path):
    settings, results, _ = finished
    other = Settings(**{**vars(settings), "out": str(tmp_path / "out")})
    calls = []

    class Stopped(Exception):
        pass

    class Stopping(Progress):
        def step(self, steps=1):
            calls.append(steps)
            if len(calls) == 10:
                raise Stopped

    with pytest.raises(Stopped):
        run(other, progress=Stopping(quiet=True))
    stored = sorted(path.name for path in (tmp_path / "out" / "runs").iterdir() if (path / "run.json").exists())
    assert stored == ["attention-seed1", "linear-seed1"]
    again, _ = run(other)
    assert [model["metrics"] for model in again["models"]] == [model["metrics"] for model in results["models"]]


def test_the_ridge_is_that_of_scikit_learn(random):
    texts = [tuple(random.choice(list("abcdefgh"), size=random.integers(2, 9))) for _ in range(60)]
    targets = random.normal(size=(60, 1))
    predict, summary = baselines.fit_text_baseline(texts[:40], targets[:40], texts[40:], targets[40:])
    analyzer = baselines._words_and_pairs
    reference = TfidfVectorizer(analyzer=analyzer, sublinear_tf=True).fit(texts[:40])
    losses = {}
    for inverse in baselines.INVERSE_PENALTIES:
        model = Ridge(alpha=1 / inverse).fit(reference.transform(texts[:40]), targets[:40, 0])
        losses[inverse] = np.mean((model.predict(reference.transform(texts[40:])) - targets[40:, 0]) ** 2)
    best = min(losses, key=losses.get)
    assert summary["inverse_penalty"] == best
    assert summary["validation"]["loss"] == pytest.approx(losses[best])
    assert predict(texts[40:]).shape == (20, 1)


def test_series(tmp_path, random):
    numbers = random.normal(size=60)
    series = [
        (number + random.normal(size=(random.integers(3, 9), 2), scale=0.1)).astype("float32") for number in numbers
    ]
    dataset = Dataset("waves", "series", tuple(series), targets=numbers, source="drawn")
    out = tmp_path / "out"
    settings = Settings(out=str(out), **SMALL).for_task("regress")
    results, _ = job.run(Setup(settings, dataset, split(dataset), out))
    linear = results["models"][2]
    assert linear["title"] == "Channel summaries + ridge"
    assert linear["metrics"]["r2"]["value"] > 0.9
    assert models.load(out / "model.keras").n_channels_in_ == 2
    assert json.loads((out / "results.json").read_text())["models"][3]["metrics"]["r2"]["value"] < 0.1
