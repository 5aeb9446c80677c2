"""`limelight predict`: rows of a table with new columns, one text, standard input, JSON with attention, and wrong usage."""

import csv
import io
import json

import numpy as np
import pytest

from limelight import data, models
from limelight.cli import main

# Predictions are those of the estimator, whatever the backend.
pytestmark = pytest.mark.full

FAST = {"epochs": 2, "batch_size": 8, "random_state": 1, "verbose": False, "training": {"epoch_steps": 1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    texts = ["a good film", "a bad film", "good", "bad"] * 6
    models.TextClassifier(encoder=None, **FAST).fit(texts, ["pos", "neg"] * 12).save(folder / "text.keras")
    models.TextRegressor(encoder=None, **FAST).fit(texts, [5.0, 1.0] * 12).save(folder / "stars.keras")
    series = np.arange(48.0).reshape(24, 2) % 5
    models.SeriesClassifier(encoder="conv", units=3, **FAST).fit(series, [0, 1] * 12).save(folder / "series.keras")
    np.save(folder / "series.npy", series[:3])
    (folder / "reviews.csv").write_text('id;review\n7;"a good; film"\n9;bad\n7;bad\n11;\n', encoding="utf-8")
    (folder / "lines.txt").write_text("a good film\nbad\n", encoding="utf-8")
    (folder / "rows.jsonl").write_text('{"id": 1, "body": "good"}\n{"id": 2, "body": null}\n', encoding="utf-8")
    return folder


@pytest.fixture
def predict(folder, monkeypatch, capsys):
    """Run the command in the folder; return its exit code, stdout and stderr."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        code = main(["predict", *arguments])
        return code, *capsys.readouterr()

    return run


def test_a_table_keeps_its_rows_and_gains_columns(predict, folder):
    code, out, err = predict("text.keras", "reviews.csv")
    rows = list(csv.reader(io.StringIO(out)))
    assert (code, err) == (0, "limelight: 1 of 4 texts is empty: its prediction says nothing.\n")
    assert rows[0] == ["id", "review", "prediction", "probability"]
    assert [row[:2] for row in rows[1:]] == [["7", "a good; film"], ["9", "bad"], ["7", "bad"], ["11", ""]]
    probabilities = models.load(folder / "text.keras").predict_proba(["a good; film", "bad", "bad", ""])
    assert [float(row[3]) for row in rows[1:]] == pytest.approx(probabilities.max(1), abs=5e-5)
    assert [row[2] for row in rows[1:]] == [["neg", "pos"][index] for index in probabilities.argmax(1)]


@pytest.mark.parametrize(
    ("source", "texts"),
    [("lines.txt", ["a good film", "bad"]), ("rows.jsonl", ["good", ""]), ("a good film", ["a good film"])],
)
def test_other_inputs(predict, folder, source, texts):
    code, out, _ = predict("stars.keras", source)
    rows = list(csv.reader(io.StringIO(out)))[1:]
    assert code == 0
    expected = models.load(folder / "stars.keras").predict(texts)
    assert [float(row[-1]) for row in rows] == pytest.approx(expected, rel=1e-6)


def test_standard_input(predict, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a good film\nbad\n"))
    code, out, _ = predict("text.keras", "-")
    assert code == 0
    assert [row[0] for row in csv.reader(io.StringIO(out))] == ["text", "a good film", "bad"]


def test_standard_input_is_utf_8(predict, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\ufeffein güter\r\nfilm\n".encode()), "ascii"))
    code, out, _ = predict("text.keras", "-")
    assert (code, [row[0] for row in csv.reader(io.StringIO(out))]) == (0, ["text", "ein güter", "film"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"good\ngreat \xff film\n"), "ascii"))
    code, out, err = predict("text.keras", "-")
    assert code == 3
    assert err == (
        "limelight: Standard input must be UTF-8. Line 2 has the byte 0xff, which is not. Convert it first, for example with "
        "iconv.\n"
    )


def test_json_has_probabilities_tokens_and_weights(predict, folder):
    code, out, _ = predict("text.keras", "A good film", "--json", "--attention")
    document = json.loads(out)
    assert (code, document["schema_version"], document["estimator"]) == (0, 1, "TextClassifier")
    (entry,) = document["predictions"]
    estimator = models.load(folder / "text.keras")
    assert list(entry["probabilities"].values()) == pytest.approx(estimator.predict_proba(["A good film"])[0])
    assert entry["text"] == "A good film"
    (layer,) = entry["attention"].values()
    assert layer["tokens"] == [["A", "good", "film"]]
    weights = np.array(layer["weights"])
    assert weights[..., :3].sum() == pytest.approx(1, rel=1e-5)


def test_texts_without_a_header_and_no_texts(predict, folder):
    (folder / "bare.csv").write_text("a good film,pos\nbad,neg\ngood,pos\nfilm,pos\n", encoding="utf-8")
    _, out, _ = predict("text.keras", "bare.csv")
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["1", "2", "prediction", "probability"]
    assert [row[0] for row in rows[1:]] == ["a good film", "bad", "good", "film"]
    (folder / "header.csv").write_text("id,review\n", encoding="utf-8")
    assert predict("text.keras", "header.csv") == (0, "id,review,prediction,probability\n", "")


def test_inputs_that_are_not_read_whole_are_counted(predict, folder):
    (folder / "long.txt").write_text("\n".join(["good " * 600, "bad " * 513, "bad " * 512, "", " "]), encoding="utf-8")
    code, out, err = predict("text.keras", "long.txt")
    assert (code, len(out.splitlines())) == (0, 6)
    assert err == (
        "limelight: 2 of 5 texts are empty: their predictions say nothing.\n"
        "limelight: 2 of 5 texts are longer than the model reads: their ends are left out.\n"
    )
    texts = ["It rains. " * 3, "It rains. " * 2, "one two three four five"]
    small = {"units": 3, "embedding_dim": 3, "max_sentences": 2, "max_words": 3, **FAST}
    models.DocumentClassifier(**small).fit(texts * 4, [0, 1, 0] * 4).save(folder / "document.keras")
    (folder / "documents.txt").write_text("\n".join(texts), encoding="utf-8")
    _, _, err = predict("document.keras", "documents.txt")
    assert err == "limelight: 1 of 3 texts is longer than the model reads: its end is left out.\n"
    series = models.SeriesClassifier(encoder="conv", units=3, max_length=4, **FAST)
    series.fit(np.arange(48.0).reshape(12, 4), [0, 1] * 6).save(folder / "short.keras")
    np.save(folder / "longer.npy", np.ones((2, 5)))
    _, _, err = predict("short.keras", "longer.npy")
    assert err == "limelight: 2 of 2 series are longer than the model reads: their ends are left out.\n"


def test_series(predict):
    code, out, _ = predict("series.keras", "series.npy")
    assert code == 0
    assert [row.split(",")[0] for row in out.splitlines()] == ["series", "0", "1", "2"]


def test_translations(predict, folder):
    small = {"units": 4, "embedding_dim": 3, "max_length": 5}
    model = models.Translator(**FAST, **small).fit(["walk", "run twice"] * 10, ["WALK", "RUN RUN"] * 10)
    model.save(folder / "translator.keras")
    code, out, _ = predict("translator.keras", "run twice", "--beam", "2", "--json")
    assert code == 0
    assert json.loads(out)["predictions"] == [
        {"text": "run twice", "prediction": model.set_params(beam=2).predict(["run twice"])[0]}
    ]
    code, out, _ = predict("translator.keras", "walk", "--n-best", "2", "--json")
    (entry,) = json.loads(out)["predictions"]
    expected = models.load(folder / "translator.keras").predict_n_best(["walk"], 2)[0]
    assert [each["text"] for each in entry["translations"]] == [each.text for each in expected]
    assert [each["log_probability"] for each in entry["translations"]] == pytest.approx(
        [each.log_probability for each in expected]
    )
    drawn = [[each.text for each in row] for row in model.sample(["walk", "run twice"], 3, temperature=1.5, seed=4)]
    (folder / "sources.txt").write_text("walk\nrun twice\n")
    options = ("--sample", "--temperature", "1.5", "--seed", "4")
    _, out, _ = predict("translator.keras", "sources.txt", *options, "--n-best", "3", "--json")
    predictions = json.loads(out)["predictions"]
    assert [[each["text"] for each in entry["translations"]] for entry in predictions] == drawn
    code, _, err = predict("translator.keras", "run twice run twice run twice")
    assert (code, err) == (0, "limelight: 1 of 1 texts is longer than the model reads: its end is left out.\n")


def test_pairs_to_translate(predict, folder):
    (folder / "test.en").write_bytes(b"\xef\xbb\xbfwalk\n\nrun twice\n")
    (folder / "test.fr").write_text("marche\n\ncours deux fois\n")
    expected = models.load(folder / "translator.keras").predict(["walk", "", "run twice"])
    code, out, err = predict("translator.keras", "test.en", "test.fr")
    rows = list(csv.reader(io.StringIO(out)))
    empty = "limelight: 1 of 3 texts is empty: its prediction says nothing.\n"
    assert (code, err, rows[0]) == (0, empty, ["source", "target", "prediction"])
    assert [row[:2] for row in rows[1:]] == [["walk", "marche"], ["", ""], ["run twice", "cours deux fois"]]
    assert [row[2] for row in rows[1:]] == expected
    assert predict("translator.keras", "test.en")[1].splitlines()[0] == "text,prediction"
    (folder / "short.fr").write_text("marche\n")
    code, out, err = predict("translator.keras", "test.en", "short.fr")
    assert (code, out) == (3, "")
    assert "'test.en' has 3 lines, 'short.fr' 1." in err
    code, out, err = predict("text.keras", "test.en", "test.fr")
    assert (code, out) == (2, "")
    assert "needs a translator. Received: 'test.fr' for a TextClassifier" in err
    code, out, err = predict("translator.keras", "test.en", "test.fr", "--text", "en")
    assert (code, out) == (2, "")
    assert "Two files of lines have no columns. Received: --text en" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beam", "2"], "--beam needs a translator. Received: TextClassifier. Leave it out."),
        (["--sample"], "--sample needs a translator. Received: TextClassifier. Leave it out."),
        (["--n-best", "2"], "--n-best needs --json, because a row of a table has one translation. Add --json."),
        (["--seed", "2"], "--seed is of translations drawn at random. Add --sample."),
    ],
)
def test_options_of_translators(predict, options, message):
    code, _, err = predict("text.keras", "run", *options)
    assert (code, err) == (2, f"limelight: {message}\n")


def test_forecasts(predict, folder):
    rows = "".join(
        f"{name},2024-{month:02},{level + month}\n" for name, level in (("a", 1), ("b", 50)) for month in range(1, 13)
    )
    (folder / "sales.csv").write_text("series,month,value\n" + rows, encoding="utf-8")
    panel = data.load_panel(folder / "sales.csv")
    model = models.Forecaster(horizon=2, past=4, season=1, units=4, quantiles=[0.1, 0.5], **FAST).fit(panel)
    model.save(folder / "forecaster.keras")
    code, out, err = predict("forecaster.keras", "sales.csv")
    table = list(csv.reader(io.StringIO(out)))
    assert (code, err) == (0, "")
    assert table[0] == ["series", "time", "forecast_0.1", "forecast_0.5"]
    assert [row[:2] for row in table[1:]] == [["a", "2025-01"], ["a", "2025-02"], ["b", "2025-01"], ["b", "2025-02"]]
    received = np.array([row[2:] for row in table[1:]], float).reshape(2, 2, 2)
    np.testing.assert_allclose(received, model.predict(panel), rtol=1e-6)
    (folder / "gap.csv").write_text("series,month,value\n" + rows.replace("a,2024-06,7\n", ""), encoding="utf-8")
    assert predict("forecaster.keras", "gap.csv") == (0, out, "limelight: missing steps filled by interpolation: 1\n")


def test_a_few_business_days_are_followed_by_business_days(predict, folder):
    days = np.busday_offset("2025-01-06", np.arange(30)).astype(str)
    for name, count in (("long", 30), ("short", 9)):
        rows = [f"{day},{number % 4}" for number, day in enumerate(days[:count])]
        (folder / f"{name}.csv").write_text("\n".join(["day,value", *rows]), encoding="utf-8")
    model = models.Forecaster(horizon=3, past=5, season=1, units=4, **FAST).fit(data.load_panel(folder / "long.csv"))
    model.save(folder / "forecaster.keras")
    code, out, err = predict("forecaster.keras", "short.csv")
    assert (code, err) == (0, "")
    assert [row.split(",")[1] for row in out.splitlines()[1:]] == days[9:12].tolist()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("none.keras", "text"),
            3,
            "'none.keras' must be a .keras file that an estimator of limelight wrote. No such file",
        ),
        (("lines.txt", "text"), 3, "It is damaged"),
        (("text.keras", "none.csv"), 3, "'none.csv' must be a file. There is none."),
        (("text.keras", "none.npy"), 3, "'none.npy' must be a file. There is none."),
        (("text.keras", "."), 3, "'.' must be a file. It is a folder."),
        (("text.keras", " "), 2, "INPUT must be a file, a text or -. Received: ' ', which has no words."),
        (("text.keras", "reviews.csv", "--text", "id_"), 3, "There is no column 'id_'. Did you mean 'id'?"),
        (("text.keras", "text", "--attention"), 2, "--attention needs --json"),
        (("series.keras", "reviews.csv"), 3, "must be a .npy or .ts file"),
        (("text.keras",), 2, "the following arguments are required: INPUT"),
    ],
)
def test_wrong_usage_is_one_line(predict, arguments, code, message):
    received, out, err = predict(*arguments)
    assert received == code
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
