"""A study of pairs of texts to translate: its metrics against sacrebleu and jiwer, its files, its report, and its errors."""

import jiwer
import numpy as np
import pytest
import sacrebleu
from statsmodels.stats.proportion import proportion_confint

from limelight import models
from limelight.data import Pairs, load_pairs, split
from limelight.study import Settings, UsageError, job, run
from limelight.study.baselines import Dictionary
from limelight.study.job import build_experiment
from limelight.study.setup import Setup, prepare

pytestmark = pytest.mark.full

SMALL = {
    "epochs": 2,
    "epoch_steps": 1,
    "units": 4,
    "width": 3,
    "batch_size": 16,
    "learning_rate": 0.01,
    "seeds": 2,
    "length": 9,
    "beam": 2,
    "explain": 0,
}
VERBS = {"jump": "JUMP", "walk": "WALK", "look": "LOOK", "run": "RUN", "turn": "TURN"}
TIMES = {"": 1, " twice": 2, " thrice": 3}


def write_commands(path):
    """Write commands with their actions, one of them with two references."""
    commands = {f"{verb}{word}": " ".join([action] * n) for verb, action in VERBS.items() for word, n in TIMES.items()}
    rows = [
        f"{first} and {second}\t{commands[first]} {commands[second]}"
        for first in commands
        for second in commands
        if len((commands[first] + commands[second]).split()) < 5
    ]
    first = rows[0].split("\t")[0]
    path.write_text("command\tactions\n" + "\n".join([*rows, f"{first}\tOTHER"]) + "\n")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translation")
    path = write_commands(folder / "commands.tsv")
    settings = Settings(data=str(path), out=str(folder / "out"), examples=2, **{**SMALL, "explain": 3})
    results, report = run(settings)
    return settings, results, report.parent


def test_metrics_are_those_of_sacrebleu_and_jiwer(finished):
    settings, results, out = finished
    pairs = load_pairs(settings.data)
    test = split(pairs).test
    references = [pairs.targets[index] for index in test]
    streams = [[each[0] for each in references], [each[1] if len(each) > 1 else None for each in references]]
    streams = streams if any(streams[1]) else streams[:1]
    for model in results["models"]:
        for each in model["runs"]:
            if model["name"] == "copy":
                translations = [pairs.sources[index] for index in test]
            else:
                archive = np.load(out / "runs" / f"{model['name']}-seed{each['seed']}" / "predictions.npz")
                translations = archive["test"].tolist()
            metrics = each["metrics"]
            assert set(metrics) == {"exact_match", "error_rate", "bleu", "chrf"}
            right = [text in options for text, options in zip(translations, references, strict=True)]
            assert metrics["exact_match"] == pytest.approx(np.mean(right))
            assert metrics["bleu"] == pytest.approx(sacrebleu.corpus_bleu(translations, streams).score / 100)
            assert metrics["chrf"] == pytest.approx(sacrebleu.corpus_chrf(translations, streams).score / 100)
            if len(streams) == 1:
                assert metrics["error_rate"] == pytest.approx(jiwer.wer(streams[0], translations))
        for name, estimate in model["metrics"].items():
            assert estimate["value"] == pytest.approx(np.mean([each["metrics"][name] for each in model["runs"]]))
        if len(model["runs"]) == 1:
            exact = model["metrics"]["exact_match"]
            wilson = proportion_confint(exact["value"] * len(test), len(test), method="wilson")
            assert (exact["low"], exact["high"]) == pytest.approx(wilson, abs=1e-9)
    assert results["data"]["signatures"]["bleu"].startswith(f"nrefs:{'var' if len(streams) > 1 else 1}|")


def test_models_comparisons_and_verdict(finished):
    _, results, _ = finished
    assert results["task"] == "translate"
    assert results["data"]["units"] == {"source": "word", "target": "word"}
    assert [(model["name"], len(model["runs"])) for model in results["models"]] == [
        ("attention", 2),
        ("none", 2),
        ("dictionary", 1),
        ("copy", 1),
    ]
    pairs = [(each["first"], each["second"], each["metric"]) for each in results["comparisons"]]
    metric = pairs[0][2]
    assert metric in ("bleu", "exact_match")
    assert pairs == [("attention", other, name) for name in (metric, "error_rate") for other in ("none", "dictionary")]
    assert any("of attention reached the limit of 2 epochs" in caveat for caveat in results["caveats"])
    if metric == "bleu":
        assert results["verdict"][0].endswith("so the models are compared by BLEU.")


def test_translations_in_the_report_are_those_of_the_saved_model(finished):
    _, results, out = finished
    estimator = models.load(out / "model.keras")
    assert type(estimator).__name__ == "Translator"
    entries = results["translations"]
    assert entries
    found = estimator.predict_n_best([entry["source"] for entry in entries])
    for entry, hypotheses in zip(entries, found, strict=True):
        assert [each["text"] for each in entry["hypotheses"]] == [each.text for each in hypotheses]
        best = entry["hypotheses"][0]
        assert best["probability"] == pytest.approx(np.exp(hypotheses[0].log_probability), rel=1e-3)
        assert entry["source_units"] == entry["source"].split()
        assert np.shape(best["weights"]) == (len(best["units"]), len(entry["source_units"]))
        assert entry["right"] == (best["text"] in entry["references"])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("Alignment of the translation with its source") == len(entries)
    assert "Dictionary (IBM 1)" in page
    figures = {path.name for path in (out / "figures").iterdir()}
    assert {"loss.svg", "accuracy.svg", "difference-error_rate.svg"} <= figures
    assert any(name.startswith("alignment-") for name in figures)


def test_the_attention_is_tested_on_steps_of_test_translations(finished):
    _, results, out = finished
    explanation = results["explanation"]
    # At most two steps of each translation, however long it is.
    assert explanation["n"] == 3
    assert 3 <= explanation["num_outputs"] <= 6
    assert explanation["layer"] == "decoder"
    assert explanation["verdict"][0].startswith("On 3 examples, fewer than 20, these tests cannot decide")
    assert [path.name for path in (out / "explanation").iterdir()] == ["explanation.json"]
    assert "Does the attention explain the predictions?" in (out / "report.html").read_text(encoding="utf-8")


def test_an_interrupted_study_gives_the_same_result(finished, tmp_path):
    settings, results, _ = finished
    other = Settings(**{**vars(settings), "out": str(tmp_path / "out"), "explain": 0})
    run(Settings(**{**vars(other), "seeds": 1, "examples": 0}))
    (tmp_path / "out" / "runs" / "none-seed1" / "run.json").unlink()
    again, _ = run(other)
    assert [model["metrics"] for model in again["models"]] == [model["metrics"] for model in results["models"]]


@pytest.mark.parametrize(
    ("given", "units"),
    [
        ({}, ("character", "word")),
        ({"unit": ("character",)}, ("character",) * 2),
        ({"unit": ("subword", "word")}, None),
    ],
)
def test_units_are_found_or_given(tmp_path, given, units):
    path = tmp_path / "words.tsv"
    path.write_text("word\tphones\n" + "\n".join(f"word{index}\tW ER D {index}" for index in range(60)) + "\n")
    prepared = prepare(Settings(data=str(path), out=str(tmp_path / "out"), **given))
    experiment = build_experiment(prepared)
    assert (experiment.source_unit, experiment.target_unit) == (units or ("subword", "word"))
    assert experiment.metric_unit == ("character" if experiment.target_unit == "character" else "word")
    # The loss of the frequencies of the units, END among them.
    if not given:
        train, validation = (experiment.texts[part][1] for part in ("train", "validation"))
        counts = dict.fromkeys([*experiment.target.pieces, "END"], 1)
        for text in train:
            for unit in [*text.split(), "END"]:
                counts[unit] += 1
        # Padding, the unknown unit and the start have one each too.
        total = sum(counts.values()) + 3
        losses = [-np.log(counts.get(unit, 1) / total) for text in validation for unit in [*text.split(), "END"]]
        assert experiment.fixed_runs()[0].summary["validation"]["loss"] == pytest.approx(np.mean(losses))


def test_the_alignment_error_rate(tmp_path):
    commands = [f"{verb}{word}" for verb in VERBS for word in TIMES]
    pairs = Pairs(
        "aligned",
        tuple(commands),
        tuple((command.upper(),) for command in commands),
        alignments=tuple(np.array([[0, 0]]) for _ in commands),
        source="drawn",
    )
    settings = Settings(out=str(tmp_path / "out"), examples=1, **{**SMALL, "seeds": 1, "epochs": 1}).for_task(
        "translate"
    )
    parts = split(pairs)
    results, _ = job.run(Setup(settings, pairs, parts, tmp_path / "out"))
    test = [pairs.sources[index] for index in parts.test]
    estimator = models.load(tmp_path / "out" / "model.keras")
    hits = total = 0
    for source in test:
        weights = next(iter(estimator.attention([source], [source.upper()]).values())).weights()[0, 0]
        count = len(source.split())
        hits += weights[0, :count].argmax() == 0
        total += count + 1
    rates = results["alignment_error_rate"]
    assert rates["attention"] == pytest.approx(1 - 2 * hits / total)
    # The diagonal links the first word, and others too.
    assert rates["diagonal"] == pytest.approx(1 - 2 * len(test) / total)
    assert rates["pairs"] == len(test)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"the diagonal one of {rates['diagonal']:.2f}." in page


@pytest.mark.backend_free
def test_the_dictionary_is_ibm_model_1(random):
    sources = ["a b", "b c", "a c", "c"] * 3
    targets = ["X Y", "Y Z", "X Z", "Z"] * 3
    dictionary = Dictionary().fit(sources, targets)
    assert dictionary.best == {"a": "X", "b": "Y", "c": "Z"}
    assert dictionary.translate("c b unknown") == "Z Y unknown"
    # A loop in Python gives the same probabilities.
    table = {}
    pairs = [(s.split(), t.split()) for s, t in zip(sources, targets, strict=True)]
    table = {(s, t): 1.0 for first, second in pairs for s in first for t in second}
    for _ in range(5):
        expected = dict.fromkeys(table, 0.0)
        for first, second in pairs:
            for t in second:
                total = sum(table[s, t] for s in first)
                for s in first:
                    expected[s, t] += table[s, t] / total
        sums = {}
        for (s, _), value in expected.items():
            sums[s] = sums.get(s, 0.0) + value
        table = {(s, t): value / sums[s] for (s, t), value in expected.items()}
    best = {s: max((value, t) for (first, t), value in table.items() if first == s)[1] for s in "abc"}
    assert best == dictionary.best
    assert dictionary.size == len(table)


@pytest.mark.backend_free
def test_a_dictionary_leaves_out_pairs_of_books():
    book = "red " * 3000
    assert Dictionary().fit([book, "red"], [book, "rouge"]).translate("red sea") == "rouge sea"
    assert Dictionary().fit([book], [book]).translate("red sea") == "red sea"


@pytest.mark.backend_free
def test_a_silent_unit_is_left_out():
    dictionary = Dictionary("character", "word").fit(
        ["a", "b", "ab", "ahb", "ah", "hb"] * 4, ["A", "B", "A B", "A B", "A", "B"] * 4
    )
    assert dictionary.translate("ahb") == "A B"


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("unit", "message"),
    [
        (("words",), r"unit must be word, character or subword\. Received: 'words'"),
        (("word", "word", "word"), r"unit must be at most 2 values"),
    ],
)
def test_wrong_units(unit, message):
    with pytest.raises(UsageError, match=message):
        Settings(unit=unit)
