"""`limelight explain`: a table with a verdict, JSON, labels, and wrong usage."""

import json

import numpy as np
import pytest

from limelight import models
from limelight.cli import main
from limelight.data import load_panel

# What is computed is tested elsewhere, on every backend.
pytestmark = pytest.mark.full

FAST = {"epochs": 2, "batch_size": 8, "random_state": 1, "verbose": False, "training": {"epoch_steps": 1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    texts = ["a good film", "a bad film", "so good", "so bad"] * 6
    models.TextClassifier(encoder=None, **FAST).fit(texts, [1, 0] * 12).save(folder / "text.keras")
    models.TextClassifier(encoder=None, pooling="mean", **FAST).fit(texts, [1, 0] * 12).save(folder / "mean.keras")
    series = np.arange(48.0).reshape(24, 2) % 5
    models.SeriesRegressor(encoder="conv", units=3, **FAST).fit(series, series.sum(1)).save(folder / "series.keras")
    np.save(folder / "series.npy", series[:5])
    actions = [text.upper() for text in texts]
    small = {"units": 4, "embedding_dim": 3, "max_length": 4}
    models.Translator(**small, **FAST).fit(texts, actions).save(folder / "actions.keras")
    rows = [f"{2000 + step // 4}Q{step % 4 + 1},{step % 4 + step / 10}" for step in range(40)]
    (folder / "sales.csv").write_text("quarter,sales\n" + "\n".join(rows) + "\n", encoding="utf-8")
    forecaster = models.Forecaster(horizon=2, past=8, units=4, time="quarter", value="sales", **FAST)
    forecaster.fit(load_panel(folder / "sales.csv", time="quarter", value="sales")).save(folder / "sales.keras")
    rows = "".join(f"{text},{label}\n" for text, label in zip(texts[:4], "1010", strict=True))
    (folder / "reviews.csv").write_text("review,stars\n" + rows, encoding="utf-8")
    (folder / "others.csv").write_text(
        "review,stars\na good film,5\na bad film,1\nso good,5\nso bad,1\n", encoding="utf-8"
    )
    return folder


@pytest.fixture
def explain(folder, monkeypatch, capsys, tmp_path):
    """Run the command in the folder; return its exit code, stdout and stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LIMELIGHT_CACHE", str(tmp_path))

    def run(*arguments):
        code = main(["explain", *arguments])
        return code, *capsys.readouterr()

    return run


def test_a_table_and_a_verdict(explain):
    code, out, err = explain("text.keras", "reviews.csv")
    assert code == 0
    assert err.startswith("TextClassifier: 4 examples of 2 tokens on average, at most ")
    assert "\nattention " in out
    assert "\nintegrated gradients " in out
    assert "On 4 examples, fewer than 20, these tests cannot decide" in out
    assert out.rstrip().endswith("the cost needs the true classes.")


def test_json_with_labels(explain):
    code, out, err = explain(
        "text.keras", "reviews.csv", "--label", "stars", "--json", "--quiet", "--perturbation", "delete"
    )
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["n"] == 4
    assert document["perturbation"] == "deleted"
    assert document["uniform"]["metric"] == "accuracy"
    assert document["model"] == "TextClassifier"


def test_series_of_a_regressor(explain):
    code, out, _ = explain("series.keras", "series.npy", "--sample", "3", "--json", "--quiet")
    document = json.loads(out)
    assert code == 0
    assert (document["n"], document["output"]) == (3, "values")
    assert document["perturbation"] == "replaced by the training mean"


def test_steps_of_translations(explain):
    code, out, _ = explain("actions.keras", "reviews.csv", "--steps", "2", "--json", "--quiet")
    document = json.loads(out)
    assert code == 0
    assert (document["n"], document["layer"], document["model"]) == (4, "decoder", "Translator")
    assert 4 <= document["num_outputs"] <= 8
    assert document["explained"] == "the unit that the model wrote, after those before it"


def test_two_files_of_lines(explain, folder):
    (folder / "texts.en").write_text("a good film\nbad\n\nbad\n")
    (folder / "texts.fr").write_text("un bon film\nmauvais\n\nmauvais\n")
    code, out, err = explain("actions.keras", "texts.en", "texts.fr", "--steps", "1", "--json")
    assert (code, json.loads(out)["n"]) == (0, 2)
    assert "2 empty or repeated texts left out" in err
    code, _, err = explain("text.keras", "texts.en", "texts.fr")
    assert code == 2
    assert "needs a translator. Received: 'texts.fr' for a TextClassifier" in err


def test_a_step_of_forecasts(explain):
    code, out, _ = explain("sales.keras", "sales.csv", "--horizon-step", "2", "--folds", "3", "--json", "--quiet")
    document = json.loads(out)
    assert code == 0
    assert (document["n"], document["output"], document["explained"]) == (3, "values", "step 2 of the forecast")
    assert document["uniform"]["metric"] == "mae"


def test_a_stopped_command_goes_on(explain, monkeypatch, tmp_path):
    from limelight.explanation import checkpoint, rankings

    monkeypatch.setattr(checkpoint, "_INTERVAL", 0.0)
    real = rankings.evaluate.leave_one_out

    def stop(*arguments, **settings):
        real(*arguments, **settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(rankings.evaluate, "leave_one_out", stop)
    code, _, err = explain("text.keras", "reviews.csv")
    assert code == 130
    assert err.endswith("Run the same command to continue.\n")
    assert list(tmp_path.glob("explanations/*/part-*.npz"))
    monkeypatch.setattr(rankings.evaluate, "leave_one_out", real)
    code, _, err = explain("text.keras", "reviews.csv")
    assert code == 0
    assert "going on from the parts that were stored earlier" in err
    assert not list((tmp_path / "explanations").iterdir())


def test_examples_of_one_class_and_longer_than_the_model_reads(explain, folder):
    rows = ["good film " * 300 + ",1", "a good film,1", "so good,1"]
    (folder / "good.csv").write_text("review,stars\n" + "\n".join(rows), encoding="utf-8")
    code, out, err = explain("text.keras", "good.csv", "--label", "stars", "--json", "--quiet")
    assert (code, err) == (0, "limelight: 1 of 3 texts is longer than the model reads: its end is left out.\n")
    assert json.loads(out)["n"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("text.keras", "reviews.csv", "--sample", "1"), 2, "--sample must be at least 2. Received: 1."),
        (
            ("text.keras", "others.csv", "--label", "stars"),
            3,
            "must be those of the model: 0, 1. Column 'stars' holds '5'",
        ),
        (("mean.keras", "reviews.csv"), 3, "must have attention whose weights can be changed"),
        (("text.keras", "reviews.csv", "--layer", "x"), 3, "`layer` must be an attention that reads the tokens"),
        (("text.keras", "reviews.csv", "--steps", "2"), 2, "--steps needs a translator. Received: TextClassifier."),
        (
            ("sales.keras", "sales.csv", "--label", "x"),
            2,
            "--label needs a classifier or regressor. Received: Forecaster",
        ),
        (("sales.keras", "sales.csv", "--folds", "0"), 2, "--folds must be at least 1. Received: 0."),
        (("sales.keras", "sales.csv", "--horizon-step", "3"), 3, "`horizon_step` must be from 1 to 2"),
        (("none.keras", "reviews.csv"), 3, "'none.keras' must be a .keras file"),
        (("text.keras", "none.csv"), 3, "'none.csv' must be a file. There is none."),
    ],
)
def test_mistakes_are_one_line(explain, arguments, code, message):
    received, _, err = explain(*arguments, "--quiet")
    assert received == code
    assert message in err
    assert err.count("\n") == 1
