"""`limelight explain`: a table with a verdict, JSON, labels, and wrong usage."""

import json

import numpy as np
import pytest

from limelight import models
from limelight.cli import main

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
    rows = "".join(f"{text},{label}\n" for text, label in zip(texts[:4], "1010", strict=True))
    (folder / "reviews.csv").write_text("review,stars\n" + rows, encoding="utf-8")
    (folder / "others.csv").write_text(
        "review,stars\na good film,5\na bad film,1\nso good,5\nso bad,1\n", encoding="utf-8"
    )
    return folder


@pytest.fixture
def explain(folder, monkeypatch, capsys):
    """Run the command in the folder; return its exit code, stdout and stderr."""
    monkeypatch.chdir(folder)

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


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("text.keras", "reviews.csv", "--sample", "1"), 2, "--sample must be at least 2. Received: 1."),
        (("text.keras", "others.csv", "--label", "stars"), 3, "must be those of the model: 0, 1. Received: '5'"),
        (("mean.keras", "reviews.csv"), 3, "must have attention whose weights can be changed"),
        (("text.keras", "reviews.csv", "--layer", "x"), 3, "`layer` must be an attention that reads the tokens"),
        (("none.keras", "reviews.csv"), 3, "'none.keras' must be a .keras file"),
        (("text.keras", "none.csv"), 3, "'none.csv' must be a file. There is none."),
    ],
)
def test_mistakes_are_one_line(explain, arguments, code, message):
    received, _, err = explain(*arguments, "--quiet")
    assert received == code
    assert message in err
    assert err.count("\n") == 1
