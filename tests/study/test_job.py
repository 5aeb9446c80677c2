"""The main job on small data, from a source to the files: on each backend."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import reviews
from limelight.data import Dataset, Tokenizer, pad, padded_length, split
from limelight.study import Progress, Settings, UsageError, job, study
from limelight.study.setup import Prepared, prepare


class Lines(Progress):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__(quiet=True)
        self.said = []

    def say(self, line):
        self.said.append(line)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    source = reviews.write(folder / "reviews.csv")
    return Settings(source=str(source), out=str(folder / "out"), seeds=2, **reviews.SMALL)


@pytest.fixture(scope="module")
def done(settings):
    """A finished study: its results, its folder and what it said."""
    progress = Lines()
    results, report = study(settings, progress=progress)
    return results, report.parent, progress.said


def test_the_folder_holds_what_is_promised(done):
    results, out, _ = done
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "figures", "model.keras", "report.html", "results.json", "runs", "study.json", "tokenizer.json",
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
    assert not list(out.rglob(".limelight-tmp-*"))


def test_the_results_say_what_was_done(done, settings):
    results, _, said = done
    assert results["schema_version"] == 1
    assert results["command"].startswith(f"KERAS_BACKEND={keras.backend.backend()} limelight study ")
    assert "--seeds 2" in results["command"]
    assert results["settings"]["learning_rate"] == 0.01
    assert results["environment"]["backend"] == keras.backend.backend()
    data = results["data"]
    assert data["classes"] == ["bad", "good"]
    assert sum(data["counts"].values()) == 60
    assert {name: sum(data["balance"][label][name] for label in data["classes"]) for name in data["counts"]} == data[
        "counts"
    ]
    assert data["fingerprint"] == prepare(settings).split.fingerprint
    assert [line.split(":")[0] for line in said] == [
        "reviews", "linear-seed1", "attention-seed1", "attention-seed2", "mean-seed1", "mean-seed2", "evaluating ...",
    ]  # fmt: skip


def test_the_models_differ_in_their_pooling_alone(done):
    results, _, _ = done
    models = {model["name"]: model for model in results["models"]}
    assert [(name, len(model["runs"])) for name, model in models.items()] == [
        ("attention", 2),
        ("mean", 2),
        ("linear", 1),
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


def test_the_comparison_is_with_and_without_attention(done):
    results, _, _ = done
    pairs = [(each["first"], each["second"], each["metric"]) for each in results["comparisons"]]
    assert pairs == [
        ("attention", other, metric) for metric in ("accuracy", "log_loss") for other in ("mean", "linear")
    ]
    assert results["verdict"] == [each["sentence"] for each in results["comparisons"][:2]]
    means = {model["name"]: model["metrics"]["accuracy"]["value"] for model in results["models"]}
    assert results["comparisons"][0]["difference"] == pytest.approx(means["attention"] - means["mean"])


def test_the_examples_show_where_the_saved_model_looks(done):
    results, out, _ = done
    model = keras.models.load_model(out / "model.keras")
    tokenizer = Tokenizer.load(out / "tokenizer.json")
    assert len(results["examples"]) > 2
    for example in results["examples"]:
        assert [example["text"][start:end] for start, end in example["offsets"]] == example["tokens"]
        assert len(example["weights"]) == len(example["tokens"])
        assert sum(example["weights"]) == pytest.approx(1, abs=1e-5)
        encoding = tokenizer.encode([example["text"]])[0]
        ids, _ = pad([encoding.ids], padded_length(len(encoding)))
        probabilities = keras.ops.convert_to_numpy(model(ids, training=False))[0]
        assert results["data"]["classes"][probabilities.argmax()] == example["prediction"]
        assert probabilities.max() == pytest.approx(example["probability"], rel=1e-4)
        right = example["truth"] == example["prediction"]
        assert example["kind"] in (
            {"confident and right", "uncertain"} if right else {"confident and wrong", "uncertain"}
        )


def test_the_saved_model_predicts_the_same_in_another_process(done):
    results, out, _ = done
    program = """
import sys
import limelight.layers
import keras, numpy as np
from limelight.data import Tokenizer
model = keras.models.load_model(f"{sys.argv[1]}/model.keras")
encoding = Tokenizer.load(f"{sys.argv[1]}/tokenizer.json").encode([sys.argv[2]])[0]
print(model.predict(encoding.ids[None], verbose=0).max())
"""
    example = results["examples"][0]
    finished = subprocess.run(
        [sys.executable, "-c", program, str(out), example["text"]],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )
    assert float(finished.stdout.split()[-1]) == pytest.approx(example["probability"], rel=1e-4)


def test_the_report_shows_a_hostile_review_as_text(done, settings, tmp_path):
    _, out, _ = done
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Does attention help on reviews?" in page
    assert "<img src=x" not in page


def test_finished_runs_are_not_trained_again(done, settings):
    results, out, _ = done
    (out / "report.html").unlink()
    (out / "runs" / "mean-seed2" / "model.keras").write_bytes(b"damaged")
    progress = Lines()
    again, report = study(settings, progress=progress)
    assert report.is_file()
    assert [line for line in progress.said if "kept from before" not in line and "-seed" in line] == [
        line for line in progress.said if line.startswith("mean-seed2")
    ]
    assert timeless(again) == timeless(results)


def test_more_seeds_go_on_and_another_setting_does_not(done, settings):
    _, out, _ = done
    changed = Settings(**{**vars(settings), "units": 3})
    with pytest.raises(UsageError, match=rf"{out} holds a study with units 2, not 3\. Use --fresh to replace it"):
        study(changed)
    more = Settings(**{**vars(settings), "seeds": 1})
    results, _ = study(more)
    assert [len(model["runs"]) for model in results["models"]] == [1, 1, 1]
    # One seed says nothing about the variation between seeds.
    assert results["models"][0]["seeds"] == {}


def test_rows_in_another_order_are_another_study(done, settings, tmp_path):
    header, *rows = Path(settings.source).read_text(encoding="utf-8").splitlines()
    shuffled = tmp_path / Path(settings.source).name
    shuffled.write_text("\n".join([header, *rows[::-1]]) + "\n", encoding="utf-8")
    # Its predictions lie in the order of the rows: beside other labels they would say nothing.
    with pytest.raises(UsageError, match=r"holds a study with order of rows [0-9a-f]+, not [0-9a-f]+\. Use --fresh"):
        study(Settings(**{**vars(settings), "source": str(shuffled)}))


def test_what_a_model_did_not_read_is_not_shown(settings, tmp_path):
    out = tmp_path / "out"
    results, _ = study(Settings(**{**vars(settings), "out": str(out), "length": 4, "seeds": 1}))
    assert results["data"]["repairs"][-1]["what"] == "texts cut after 4 words"
    for example in results["examples"]:
        assert example["text"].endswith(" …")
        assert example["text"][: example["offsets"][-1][1]] + " …" == example["text"]
        assert len(example["tokens"]) == 4
    drawn = {path.name for path in (out / "figures").glob("example-*.svg")}
    assert len(drawn) == len({example["kind"] for example in results["examples"]})
    study(Settings(**{**vars(settings), "out": str(out), "length": 4, "seeds": 1, "examples": 0}))
    assert not list((out / "figures").glob("example-*.svg"))


def test_series_of_any_lengths(tmp_path, random):
    labels = np.arange(48) % 3
    series = [
        (random.normal(size=(random.integers(2, 9), 2), scale=0.2) + np.eye(3, 2)[kind]).astype("float32")
        for kind in labels
    ]
    dataset = Dataset("waves", "series", tuple(series), labels, ("0", "1", "2"), source="drawn")
    out = Path(tmp_path, "out")
    settings = Settings(out=str(out), seeds=1, length=7, **reviews.SMALL)
    results, _ = job.run(settings, Prepared(dataset, split(dataset), out))
    cut = sum(len(steps) > 7 for steps in series)
    assert results["data"]["repairs"] == [{"what": "series cut after 7 steps", "count": cut}]
    assert results["models"][2]["title"] == "Channel summaries + linear"
    assert results["models"][2]["metrics"]["accuracy"]["value"] > 0.9
    for example in results["examples"]:
        assert example["text"] is None
        assert example["tokens"] == [str(step) for step in range(1, len(example["weights"]) + 1)]
    assert not (out / "tokenizer.json").exists()
    model = keras.models.load_model(out / "model.keras")
    example = results["examples"][0]
    steps = series[int(example["id"])][None, :7]
    probabilities = keras.ops.convert_to_numpy(model({"steps": steps, "mask": np.ones(steps.shape[:2], bool)}))
    assert probabilities.max() == pytest.approx(example["probability"], rel=1e-4)


def timeless(results):
    """The results without how long a training took."""
    models = [
        {**model, "runs": [{key: value for key, value in run.items() if key != "seconds"} for run in model["runs"]]}
        for model in results["models"]
    ]
    return json.loads(json.dumps({**results, "models": models}))
