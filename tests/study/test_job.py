"""A whole study on small data, from the source to the files, on each backend."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import reviews
from limelight import models
from limelight.data import Dataset, pad, padded_length, split
from limelight.study import Progress, Settings, UsageError, job, run
from limelight.study.job import build_experiment
from limelight.study.setup import Setup, prepare

pytestmark = pytest.mark.full


class RecordedProgress(Progress):
    """Records the lines instead of printing them."""

    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def write(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    source = reviews.write(folder / "reviews.csv")
    return Settings(data=str(source), out=str(folder / "out"), seeds=2, **{**reviews.SMALL, "explain": 4})


@pytest.fixture(scope="module")
def finished(settings):
    """A finished study: its results, its folder and the lines of its progress."""
    progress = RecordedProgress()
    results, report = run(settings, progress=progress)
    return results, report.parent, progress.lines


def test_the_folder_holds_the_documented_files(finished):
    results, out, _ = finished
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "explanation", "figures", "model.keras", "report.html", "results.json", "runs", "study.json",
    ]  # fmt: skip
    runs = ["attention-seed1", "attention-seed2", "linear-seed1", "mean-seed1", "mean-seed2"]
    assert sorted(path.name for path in (out / "runs").iterdir()) == runs
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == json.loads(json.dumps(results))
    figures = {path.name for path in (out / "figures").iterdir()}
    assert {
        "loss.svg",
        "accuracy.svg",
        "difference-accuracy.svg",
        "reliability.svg",
        "confusion-attention.svg",
    } <= figures
    kinds = {example["kind"].replace(" ", "-") for example in results["examples"]}
    assert {name for name in figures if name.startswith("example-")} == {f"example-{kind}.svg" for kind in kinds}
    assert not list(out.rglob(".limelight-tmp-*"))


def test_the_results_describe_the_study(finished, settings):
    results, _, lines = finished
    assert results["schema_version"] == 1
    assert results["command"].startswith(f"KERAS_BACKEND={keras.backend.backend()} limelight study ")
    assert "--seeds 2" in results["command"]
    assert results["settings"]["learning_rate"] == 0.01
    assert results["environment"]["backend"] == keras.backend.backend()
    assert lines[0] == "task: classify, because the labels are classes (--task sets another)"
    data = results["data"]
    assert data["classes"] == ["bad", "good"]
    assert sum(data["counts"].values()) == 60
    assert {name: sum(data["balance"][label][name] for label in data["classes"]) for name in data["counts"]} == data[
        "counts"
    ]
    assert data["fingerprint"] == prepare(settings).split.fingerprint
    assert [line.split(":")[0] for line in lines[:-1]] == [
        "task", "reviews", "linear-seed1", "attention-seed1", "attention-seed2", "mean-seed1", "mean-seed2", "evaluating ...",
        "testing whether the attention explains the predictions ... (--explain 0 leaves it out)", "TextClassifier",
    ]  # fmt: skip
    assert " forward and " in lines[-2]
    assert lines[-1].startswith("explained in ")


def test_the_attention_is_tested_on_examples_of_the_test_part(finished):
    results, out, _ = finished
    explanation = results["explanation"]
    assert explanation["n"] == 4
    assert explanation["layer"] == "attention"
    assert explanation["uniform"]["metric"] == "accuracy"
    assert explanation["verdict"][0].startswith("On 4 examples, fewer than 20, these tests cannot decide")
    assert "Does the attention explain the predictions?" in (out / "report.html").read_text(encoding="utf-8")


def test_the_models_differ_only_in_their_pooling(finished):
    results, _, _ = finished
    models = {model["name"]: model for model in results["models"]}
    assert [(name, len(model["runs"])) for name, model in models.items()] == [
        ("attention", 2),
        ("mean", 2),
        ("linear", 1),
        ("majority", 1),
    ]
    # Additive pooling of states of size 4: a kernel, a bias and a query.
    assert models["attention"]["parameters"] - models["mean"]["parameters"] == 4 * 4 + 4 + 4
    assert [run["seed"] for run in models["mean"]["runs"]] == [1, 2]
    n = results["data"]["counts"]["test"]
    for model in models.values():
        assert model["metrics"]["accuracy"]["n"] == n
        assert model["metrics"]["accuracy"]["value"] == pytest.approx(
            np.mean([run["metrics"]["accuracy"] for run in model["runs"]])
        )
        assert np.sum(model["confusion"]) == n * len(model["runs"])
        assert sum(row["support"] for row in model["per_class"]) == n
        assert sum(row["count"] for row in model["reliability"]) == n * len(model["runs"])


def test_the_comparison_is_with_and_without_attention(finished):
    results, _, _ = finished
    pairs = [(each["first"], each["second"], each["metric"]) for each in results["comparisons"]]
    assert pairs == [
        ("attention", other, metric) for metric in ("accuracy", "log_loss") for other in ("mean", "linear")
    ]
    assert results["verdict"][0] == results["comparisons"][0]["sentence"] == results["comparisons"][1]["sentence"]
    # Two epochs are too few.
    assert any("of attention reached the limit of 2 epochs" in caveat for caveat in results["caveats"])
    assert not results["comparisons"][0]["claim"]
    assert results["verdict"][0].startswith("No claim about the accuracy of attention can be made: ")
    means = {model["name"]: model["metrics"]["accuracy"]["value"] for model in results["models"]}
    assert results["comparisons"][0]["difference"] == pytest.approx(means["attention"] - means["mean"])


def test_the_examples_match_the_saved_model(finished):
    results, out, _ = finished
    model = keras.models.load_model(out / "model.keras")
    estimator = models.load(out / "model.keras")
    assert (estimator.classes_.tolist(), estimator.max_length) == (["bad", "good"], 512)
    # A blank text can be predicted too.
    assert np.isfinite(estimator.predict_proba([" "])).all()
    assert len(results["examples"]) > 2
    for example in results["examples"]:
        assert [example["text"][start:end] for start, end in example["offsets"]] == example["tokens"]
        assert len(example["weights"]) == len(example["tokens"])
        assert sum(example["weights"]) == pytest.approx(1, abs=1e-5)
        encoding = estimator.inputs_.tokenizer.encode([example["text"]])[0]
        ids, _ = pad([encoding.ids], padded_length(len(encoding)))
        probabilities = keras.ops.convert_to_numpy(model(ids, training=False))[0]
        assert results["data"]["classes"][probabilities.argmax()] == example["prediction"]
        assert probabilities.max() == pytest.approx(example["probability"], rel=1e-4)
        correct = example["truth"] == example["prediction"]
        assert example["kind"] in (
            {"most confident, right", "least certain"} if correct else {"most confident, wrong", "least certain"}
        )


@pytest.mark.subprocess
def test_the_saved_model_predicts_the_same_in_another_process(finished):
    results, out, _ = finished
    program = """
import os, sys
if os.environ["KERAS_BACKEND"] != "tensorflow":
    sys.modules["tensorflow"] = None  # Keras would import it for nothing, which takes seconds
import limelight as ll
print(ll.models.load(f"{sys.argv[1]}/model.keras").predict_proba([sys.argv[2]]).max())
"""
    example = results["examples"][0]
    process = subprocess.run(
        [sys.executable, "-c", program, str(out), example["text"]],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )
    assert float(process.stdout.split()[-1]) == pytest.approx(example["probability"], rel=1e-4)


def test_the_report_shows_a_hostile_review_as_text(finished):
    _, out, _ = finished
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Does attention help on reviews?" in page
    assert "<img src=x" not in page


def test_finished_runs_are_not_trained_again(finished, settings):
    results, out, _ = finished
    (out / "report.html").unlink()
    (out / "runs" / "mean-seed2" / "model.keras").write_bytes(b"damaged")
    progress = RecordedProgress()
    again, report = run(settings, progress=progress)
    assert report.is_file()
    trained = [line.split(":")[0] for line in progress.lines if "-seed" in line and "stored earlier" not in line]
    assert trained == ["mean-seed2"]
    assert without_times(again) == without_times(results)


def test_seeds_and_examples_may_change_and_other_settings_may_not(finished, settings):
    _, out, _ = finished
    changed = Settings(**{**vars(settings), "units": 3})
    with pytest.raises(UsageError, match=rf"{out} holds a study with units 2, not 3\. Use --fresh to replace it"):
        run(changed)
    results, _ = run(Settings(**{**vars(settings), "seeds": 1, "examples": 0, "explain": 0}))
    assert [len(model["runs"]) for model in results["models"]] == [1, 1, 1, 1]
    assert results["examples"] == []
    assert not list((out / "figures").glob("example-*.svg"))
    # One seed has no variation between seeds.
    assert results["models"][0]["seeds"] == {}


def test_rows_in_another_order_are_another_study(finished, settings, tmp_path):
    header, *rows = Path(settings.data).read_text(encoding="utf-8").splitlines()
    shuffled = tmp_path / Path(settings.data).name
    shuffled.write_text("\n".join([header, *rows[::-1]]) + "\n", encoding="utf-8")
    # The stored predictions follow the order of the rows.
    with pytest.raises(UsageError, match=r"holds a study with order of rows [0-9a-f]+, not [0-9a-f]+\. Use --fresh"):
        run(Settings(**{**vars(settings), "data": str(shuffled)}))


def test_truncated_texts_end_where_the_model_stopped_reading(settings):
    settings = Settings(**{**vars(settings), "length": 4})
    setup = prepare(settings, fresh=True)
    inputs = build_experiment(setup).inputs
    assert [repair.what for repair in inputs.repairs] == ["texts cut after 4 words"]
    for index in range(len(setup.split.test)):
        example = inputs.describe(index)
        assert example["text"].endswith(" …")
        assert example["text"][: example["offsets"][-1][1]] + " …" == example["text"]
        assert len(example["tokens"]) == 4


def test_series_of_any_lengths(tmp_path, random):
    labels = np.arange(48) % 3
    series = [
        (random.normal(size=(random.integers(2, 9), 2), scale=0.2) + np.eye(3, 2)[label]).astype("float32")
        for label in labels
    ]
    dataset = Dataset("waves", "series", tuple(series), labels, ("0", "1", "2"), source="drawn")
    out = Path(tmp_path, "out")
    settings = Settings(out=str(out), seeds=1, length=7, **reviews.SMALL).for_task("classify")
    results, _ = job.run(Setup(settings, dataset, split(dataset), out))
    cut = sum(len(steps) > 7 for steps in series)
    assert results["data"]["repairs"] == [{"what": "series cut after 7 steps", "count": cut}]
    assert results["models"][2]["title"] == "Channel summaries + linear"
    assert results["models"][2]["metrics"]["accuracy"]["value"] > 0.9
    for example in results["examples"]:
        assert example["text"] is None
        assert example["tokens"] == [str(step) for step in range(1, len(example["weights"]) + 1)]
    assert models.load(out / "model.keras").n_channels_in_ == 2
    model = keras.models.load_model(out / "model.keras")
    example = results["examples"][0]
    steps = series[int(example["id"])][None, :7]
    probabilities = keras.ops.convert_to_numpy(model({"steps": steps, "mask": np.ones(steps.shape[:2], bool)}))
    assert probabilities.max() == pytest.approx(example["probability"], rel=1e-4)


def without_times(results):
    """Return the results without the durations of the trainings and of the explanation."""
    models = [
        {**model, "runs": [{key: value for key, value in run.items() if key != "seconds"} for run in model["runs"]]}
        for model in results["models"]
    ]
    explanation = {key: value for key, value in results["explanation"].items() if key != "cost"}
    return json.loads(json.dumps({**results, "models": models, "explanation": explanation}))
