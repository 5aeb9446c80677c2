"""The task is found from the data, and a setting of another task is refused."""

import numpy as np
import pytest

from limelight.exceptions import DataError
from limelight.study import Settings, UsageError, setup, tasks

pytestmark = pytest.mark.backend_free

MONTHS = [f"{1990 + index // 12}-{index % 12 + 1:02d}" for index in range(60)]
TABLES = {
    "classes": ("text,label\n", [f"film {index},{'good' if index % 2 else 'bad'}" for index in range(60)]),
    "measured": ("text,label\n", [f"film {index},{index / 7}" for index in range(60)]),
    "rated": ("review,rating\n", [f"film {index},{index % 5}" for index in range(60)]),
    "series": ("month,sst\n", [f"{month},{index % 12}" for index, month in enumerate(MONTHS)]),
    "long": ("id,month,sales\n", [f"{name},{month},{index}" for name in "ab" for index, month in enumerate(MONTHS)]),
    "pairs": ("word,phones\n", [f"word{index},W {index}" for index in range(60)]),
    "languages": ("en,fr\n", [f"word{index},mot {index}" for index in range(60)]),
    "odd": ("sentence_a,kind\n", [f"film {index},{'ab'[index % 2]}" for index in range(60)]),
}


def write(folder, name):
    header, rows = TABLES[name]
    path = folder / f"{name}.csv"
    path.write_text(header + "\n".join(rows) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("name", "given", "task", "reason"),
    [
        ("classes", {}, "classify", "the labels are classes"),
        ("measured", {}, "regress", "the labels are measurements"),
        ("rated", {}, "regress", "there are a text and a number"),
        ("rated", {"label": "rating"}, "classify", "the labels are classes"),
        ("rated", {"task": "regress"}, "regress", None),
        ("series", {}, "forecast", "there are times and numbers"),
        ("long", {}, "forecast", "there are times and numbers"),
        ("series", {"horizon": 6}, "forecast", "--horizon is given"),
        ("pairs", {}, "translate", "there are two columns of texts"),
        ("languages", {}, "translate", "there are two columns of texts"),
        ("pairs", {"target": "phones", "source": "word"}, "translate", "--source is given"),
    ],
)
def test_the_task_is_found(tmp_path, name, given, task, reason):
    found = tasks.read(Settings(data=write(tmp_path, name), **given))
    assert (found.name, found.reason) == (task, reason)


@pytest.fixture
def lines(tmp_path):
    for name, word in (("train.en", "word"), ("train.el", "λέξη")):
        (tmp_path / name).write_text("".join(f"{word} {index}\n" for index in range(60)), encoding="utf-8")
    return {"data": str(tmp_path / "train.en"), "translations": str(tmp_path / "train.el")}


def test_two_files_of_lines_are_translations(lines, tmp_path):
    found = tasks.read(Settings(**lines))
    assert (found.name, found.reason, found.dataset.name) == ("translate", "there are two files of lines", "train")
    assert found.dataset.take([7]) == (["word 7"], ["λέξη 7"])
    prepared = setup.prepare(Settings(**lines, out=str(tmp_path / "out")))
    assert prepared.settings.translations == lines["translations"]
    with pytest.raises(UsageError, match=r"--translations is a setting of --task translate\. The task is classify"):
        tasks.read(Settings(**lines, task="classify"))
    with pytest.raises(
        DataError, match=r"or two files of lines\. Received: '.*train.en'\. Give the file of the targets too"
    ):
        tasks.read(Settings(data=lines["data"], task="translate"))
    with pytest.raises(DataError, match=r"Received: '.*train.en'\. .*lines and their translations are two files"):
        tasks.read(Settings(data=lines["data"]))


def test_a_text_with_a_few_different_other_texts_is_no_translation(tmp_path):
    message = (
        r"usual name for the text.*'sentence_a', 'kind'.*Other tasks need two columns of texts \(--source, --target\)"
    )
    with pytest.raises(DataError, match=message):
        tasks.read(Settings(data=write(tmp_path, "odd")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "id,date,sold\n" + "".join(f"{name},2025-01-{day:02},{day}\n" for name in "ab" for day in (1, 2, 3, 3)),
            r"In row 4 of .*, the time '2025-01-03' of series 'a' occurs again",
        ),
        (
            "id,date,sold\n" + "".join(f"{name},2025-02-{day},{day}\n" for name in "ab" for day in range(10, 31)),
            r"Column 'date' of .* must hold times of one form.* Row 20 holds '2025-02-29'",
        ),
        ("review,rating\n" + "".join(f"film {row},{row}\n" for row in range(9)) + "film,inf\n", "'rating' holds 'inf'"),
        ("notes,points\n" + "".join(f"film {row},{row}\n" for row in range(9)) + "film,-\n", "usual name for the text"),
    ],
)
def test_an_error_in_the_rows_of_a_fitting_table_is_told(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        tasks.read(Settings(data=str(path)))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("classes", {"text": "txt"}, r"'text' must name a column of .*There is no column 'txt'"),
        ("classes", {"task": "forecast"}, r"exactly one column with a usual name for the time"),
        ("series", {"task": "translate"}, r"exactly one column with a usual name for the source"),
        ("pairs", {"task": "regress"}, r"exactly one column with a usual name for the text"),
    ],
)
def test_data_of_another_task_are_refused_in_one_line(tmp_path, name, given, message):
    with pytest.raises(DataError, match=message) as caught:
        tasks.read(Settings(data=write(tmp_path, name), **given))
    assert "\n" not in str(caught.value)


def test_a_named_data_set_of_another_task_is_refused():
    message = r"The data of --task classify must be texts or series with classes\. 'scan-simple' is Pairs\("
    with pytest.raises(DataError, match=message):
        tasks.read(Settings(data="scan-simple", task="classify"))
    found = tasks.read(Settings(data="scan-simple"))
    assert (found.name, found.reason) == ("translate", "scan-simple holds pairs of texts")


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        (
            "classes",
            {"task": "classify", "past": 48},
            r"--past is a setting of --task forecast\. The task is classify \(as was given\)\. Leave it out",
        ),
        (
            "series",
            {"folds": 1, "width": 8},
            r"--width is a setting of --task classify or regress or translate\..*--folds is",
        ),
        (
            "classes",
            {"horizon": 3, "text": "review"},
            r"--text is a setting of --task classify or regress\. The task is forecast \(--horizon is given\)\. Leave it out",
        ),
        ("rated", {"task": "regress", "require_accuracy": 0.5}, r"--require-accuracy is a setting of --task classify"),
    ],
)
def test_a_setting_of_another_task_is_refused_with_the_reason(tmp_path, name, given, message):
    with pytest.raises(UsageError, match=message):
        setup.prepare(Settings(data=write(tmp_path, name), out=str(tmp_path / "out"), **given))
    assert not (tmp_path / "out").exists()


def test_defaults_depend_on_the_task(tmp_path):
    prepared = setup.prepare(Settings(data=write(tmp_path, "series"), out=str(tmp_path / "out")))
    assert (prepared.settings.task, prepared.settings.units, prepared.settings.width) == ("forecast", 32, None)
    assert [prepared.given.for_task(task).epochs for task in ("forecast", "classify")] == [20, 20]
    assert Settings().for_task("translate").epochs == 60
    assert prepared.configuration()["fingerprint"] == prepared.dataset.fingerprint
    assert "width" not in prepared.configuration()


def test_a_fingerprint_changes_with_the_values(tmp_path):
    panel = tasks.read(Settings(data=write(tmp_path, "long"))).dataset
    again = tasks.read(Settings(data=write(tmp_path, "long"))).dataset
    assert panel.fingerprint == again.fingerprint
    again.values[1][3] += np.float32(1)
    assert panel.fingerprint != again.fingerprint
