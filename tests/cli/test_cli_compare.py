"""`limelight compare`: metrics, a paired difference and the distance of the attention of two models."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, mean_absolute_error
from statsmodels.stats.contingency_tables import mcnemar

from limelight import models
from limelight.cli import main
from limelight.models.targets import Classes

# What is computed is tested elsewhere, on every backend.
pytestmark = pytest.mark.full

FAST = {"epochs": 2, "batch_size": 8, "verbose": False, "training": {"epoch_steps": 4}}
TEXTS = ["a good film", "a bad film", "so good", "so bad", "good plot", "bad plot", "the film", "a plot"]
STARS = [5, 1, 5, 1, 5, 1, 5, 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    texts, labels = TEXTS * 4, STARS * 4
    models.TextClassifier(encoder=None, random_state=1, **FAST).fit(texts, labels).save(folder / "first.keras")
    (folder / "study").mkdir()
    models.TextClassifier(encoder="conv", random_state=2, **FAST).fit(texts, labels).save(folder / "study/model.keras")
    models.TextClassifier(encoder=None, pooling="mean", random_state=1, **FAST).fit(texts, labels).save(
        folder / "mean.keras"
    )
    models.TextClassifier(encoder=None, random_state=1, **FAST).fit(texts, ["a", "b"] * 16).save(folder / "other.keras")
    models.TextRegressor(encoder=None, random_state=1, **FAST).fit(texts, labels).save(folder / "numbers.keras")
    models.TextRegressor(encoder="conv", random_state=1, **FAST).fit(texts, labels).save(folder / "more.keras")
    series = np.arange(48.0).reshape(24, 2) % 5
    models.SeriesRegressor(encoder="conv", units=3, **FAST).fit(series, series.sum(1)).save(folder / "series.keras")
    rows = "".join(f"{text},{stars}\n" for text, stars in zip(TEXTS, STARS, strict=True))
    (folder / "reviews.csv").write_text("review,stars\n" + rows, encoding="utf-8")
    return folder


@pytest.fixture
def compare(folder, monkeypatch, capsys):
    """Run the command in the folder; return its exit code, stdout and stderr."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        code = main(["compare", *arguments])
        return code, *capsys.readouterr()

    return run


def test_classifiers_against_scikit_learn_and_statsmodels(compare, folder):
    code, out, err = compare("first.keras", "study", "reviews.csv", "--label", "stars", "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    loaded = [models.load(folder / path) for path in ("first.keras", "study/model.keras")]
    right = [model.predict(TEXTS) == STARS for model in loaded]
    for entry, name, model in zip(document["models"], ("first", "study"), loaded, strict=True):
        assert entry["name"] == name
        assert entry["metrics"]["accuracy"]["value"] == pytest.approx(accuracy_score(STARS, model.predict(TEXTS)))
    table = [[np.sum(right[0] & right[1]), np.sum(right[0] & ~right[1])], [np.sum(~right[0] & right[1]), 0]]
    assert document["difference"]["value"] == pytest.approx(right[0].mean() - right[1].mean())
    assert document["p_value"] == pytest.approx(mcnemar(table, exact=True).pvalue)
    # The divergence of the two poolings, in a loop.
    first, second = (model.attention(TEXTS)["attention"].weights()[:, 0, 0].astype("float64") for model in loaded)
    values = []
    for p, q in zip(first, second, strict=True):
        middle = (p + q) / 2
        divergence = lambda a, m: sum(x * np.log(x / y) for x, y in zip(a, m, strict=True) if x > 0)  # noqa: E731
        values.append((divergence(p, middle) + divergence(q, middle)) / 2)
    assert document["attention"]["layers"]["attention"]["divergence"] == pytest.approx(np.mean(values), rel=1e-3)


def test_models_whose_classes_stand_in_another_order(folder, tmp_path, capsys):
    model = models.load(folder / "first.keras")
    model.model_.layers[-1].set_weights([weight[..., ::-1] for weight in model.model_.layers[-1].get_weights()])
    model.target_ = Classes(model.classes_[::-1])
    model.save(tmp_path / "reversed.keras")
    files = [str(folder / "first.keras"), str(tmp_path / "reversed.keras")]
    assert main(["compare", *files, str(folder / "reviews.csv"), "--label", "stars", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    metrics = [entry["metrics"] for entry in document["models"]]
    assert metrics[0]["accuracy"] == metrics[1]["accuracy"]
    assert metrics[0]["log_loss"]["value"] == pytest.approx(metrics[1]["log_loss"]["value"], rel=1e-6)
    assert (document["difference"]["value"], document["p_value"]) == (0, 1)


def test_regressors_in_words(compare, folder):
    code, out, _ = compare("numbers.keras", "more.keras", "reviews.csv")
    assert code == 0
    predictions = models.load(folder / "numbers.keras").predict(TEXTS)
    assert out.startswith(f"numbers   mean absolute error {mean_absolute_error(STARS, predictions):.3f} (")
    assert "Attention of attention: Jensen-Shannon divergence" in out


def test_a_model_without_attention_is_said(compare):
    code, out, _ = compare("first.keras", "mean.keras", "reviews.csv", "--label", "stars")
    assert code == 0
    assert "Not compared: The model must have attention" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["first.keras", "numbers.keras", "reviews.csv"], 2, "the same classes. Received: 1, 5 and numbers"),
        (["first.keras", "other.keras", "reviews.csv"], 2, "the same classes. Received: 1, 5 and a, b"),
        (
            ["numbers.keras", "series.keras", "reviews.csv"],
            2,
            "of texts or of series. Received: TextRegressor and SeriesReg",
        ),
        (["first.keras", "nothing.keras", "reviews.csv"], 3, "nothing.keras"),
        (["first.keras", "mean.keras", "nothing.csv"], 3, "nothing.csv"),
        (["first.keras", "mean.keras", "reviews.csv", "--sample", "0"], 2, "--sample must be at least 1"),
    ],
)
def test_wrong_usage_is_one_line(compare, arguments, code, message):
    received, out, err = compare(*arguments)
    assert (received, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) == 1
