"""Loading files, folders and named data sets."""

import gzip
import json
import os
import sys
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from limelight.data import NAMES, DataError, load, load_pairs, load_panel

pytestmark = pytest.mark.backend_free


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "films"
    for name, texts in {"neg": ["bad", "awful"], "pos": ["good", "great"]}.items():
        (root / name).mkdir(parents=True)
        for number, text in enumerate(texts):
            (root / name / f"{number}.txt").write_text(text, encoding="utf-8")
    return root


def test_a_folder_of_folders(folder):
    dataset = load(folder)
    assert dataset.inputs == ("bad", "awful", "good", "great")
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert (dataset.name, dataset.classes, dataset.repairs) == ("films", ("neg", "pos"), ())


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_column_of_groups(tmp_path, suffix):
    rows = [("a", "x", "7"), ("b", "y", ""), ("c", "x", "7"), ("A ", "x", "8"), ("d", "y", " p ")]
    path = tmp_path / f"t.{suffix}"
    records = [{"text": text, "label": label, "who": who or None} for text, label, who in rows]
    if suffix == "csv":
        path.write_text("\n".join(["text,label,who", *map(",".join, rows)]), encoding="utf-8")
    elif suffix == "jsonl":
        records[2]["who"] = 7
        path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    dataset = load(path, group="who")
    assert (dataset.inputs, dataset.groups) == (("a", "b", "c", "d"), ("7", None, "7", "p"))
    assert load(path).groups is None
    with pytest.raises(
        DataError, match=r"'group' must name a column of .* There is no column 'whom'. Did you mean 'who'"
    ):
        load(path, group="whom")
    with pytest.raises(DataError, match=r"The group must be a column of .* of its own. Received: 'label'"):
        load(path, group="label")


def test_other_files_in_a_folder_are_counted_or_ignored(folder):
    (folder / "pos" / ".hidden.txt").write_text("x")
    (folder / ".git").mkdir()
    (folder / ".git" / "a.txt").write_text("x")
    (folder / "README.txt").write_text("x")
    (folder / "pos" / "picture.png").write_bytes(b"\x89PNG")
    (folder / "pos" / "inner").mkdir()
    (folder / "pos" / "2.TXT").write_bytes(b"\xef\xbb\xbfgreat")
    (folder / "neg" / "2.txt").write_bytes(b"")
    (folder / "empty").mkdir()
    dataset = load(folder)
    assert dataset.inputs == ("bad", "awful", "good", "great")
    assert [str(repair) for repair in dataset.repairs] == [
        "files that are not .txt left out: 2",
        "byte order marks removed: 1",
        "empty texts dropped: 1",
        "duplicate texts dropped: 1",
    ]


def test_a_file_that_is_not_utf8_is_named(folder):
    (folder / "pos" / "5.txt").write_bytes(b"one\ncaf\xe9")
    with pytest.raises(DataError, match=r"5\.txt' must be UTF-8. The byte 0xe9 at byte offset 7 \(line 2\)"):
        load(folder)


def test_a_folder_without_classes(tmp_path):
    with pytest.raises(DataError, match=r"one folder for each class, with \.txt files directly inside. There are none"):
        load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission(folder):
    (folder / "pos" / "0.txt").chmod(0)
    with pytest.raises(DataError, match=r"Permission denied"):
        load(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "nowhere.csv",
            "must be a data set .movie-reviews, .* or the path .* There is no 'nowhere.csv'",
        ),
        ("movie-review", "There is no 'movie-review'. Did you mean 'movie-reviews'"),
        ("BBC-News", "Did you mean 'bbc-news'"),
        ("", "There is no ''"),
        ("a\0b", "There is no 'a.x00b'"),
        ("x" * 5000, "must be a path that can be read"),
    ],
)
def test_a_missing_source(source, message):
    with pytest.raises(DataError, match=message) as caught:
        load(source)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="file names there are Unicode")
def test_a_file_name_that_is_not_unicode(tmp_path):
    with pytest.raises(DataError, match=r"There is no"):
        load(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv"))


def test_a_file_with_another_suffix(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(
        DataError,
        match=r"must be a \.csv, \.tsv, \.jsonl, \.parquet or \.ts file, or a folder. Received: .*a\.xlsx'. Convert it",
    ):
        load(tmp_path / "a.xlsx")


def test_folders_and_named_data_sets_take_no_columns(folder):
    with pytest.raises(DataError, match=r"texts are its files, .*Received: text='review'"):
        load(folder, text="review")
    with pytest.raises(DataError, match=r"'bbc-news' has its own columns. Received: text=None, label='topic'"):
        load("bbc-news", label="topic")


def test_the_home_folder_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert len(load("~/films")) == 4


def test_the_names_of_the_data_sets():
    texts = ("movie-reviews", "bbc-news", "reuters-r8", "reuters-r52", "20newsgroups", "news-sports")
    series = ("japanese-vowels", "gun-point", "italy-power-demand", "arrow-head")
    pairs = ("pronunciations", "scan-simple", "scan-length", "scan-jump", "greek-english")
    tourism = ("tourism-monthly", "tourism-quarterly", "tourism-yearly")
    assert (*texts, *series, *pairs, *tourism, "m3-monthly", "m3-quarterly", "m3-yearly", "m3-other") == NAMES


def test_a_name_of_another_kind_of_data_is_refused():
    with pytest.raises(DataError, match=r"must be a table of series. 'scan-jump' is Pairs\(.*\). Read it with `load`"):
        load_panel("scan-jump")
    with pytest.raises(DataError, match=r"'scan-jump' has its own columns. Received: source='a'. Leave them out"):
        load_pairs("scan-jump", source="a")
    with pytest.raises(DataError, match=r"'m3-other' has its own columns. Received: time='a', known=\('b',\). Leave"):
        load_panel("m3-other", time="a", known=["b"])


@pytest.mark.parametrize("name", ["~$reviews.csv", "~backup.csv", "~nobody-of-that-name/x.csv"])
def test_a_name_that_begins_with_a_tilde_and_is_not_a_users(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="There is no '~"):
        load(name)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("text,label\n" + "".join(f"film {number},{number % 2}\n" for number in range(6)), encoding="utf-8")
    assert len(load(name)) == 6


@pytest.mark.parametrize("name", ["t.csv.gz", "t.jsonl.gz", "t.parquet.gz"])
def test_compressed_files(tmp_path, name):
    records = [{"text": f"film {number}", "label": "xy"[number % 2]} for number in range(6)]
    content = b"text,label\n" + b"".join(f"{row['text']},{row['label']}\n".encode() for row in records)
    if "jsonl" in name:
        content = "\n".join(map(json.dumps, records)).encode()
    elif "parquet" in name:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "plain")
        content = (tmp_path / "plain").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content))
    dataset = load(tmp_path / name)
    assert (dataset.name, len(dataset), dataset.classes, dataset.inputs[5]) == ("t", 6, ("x", "y"), "film 5")


def zip_of(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_zip_of_one_file(tmp_path):
    content = "text,label\n" + "".join(f"film {number},{'xy'[number % 2]}\n" for number in range(6))
    members = {"folder/": "", "folder/Other.CSV": content, "__MACOSX/folder/._Other.CSV": "x", "folder/.DS_Store": "x"}
    path = zip_of(tmp_path / "films.csv.zip", **members)
    dataset = load(path)
    assert (dataset.name, dataset.inputs[5]) == ("films", "film 5")
    pairs = load_pairs(zip_of(tmp_path / "p.zip", **{"p.tsv": "source\ttarget\na\tb\n"}))
    assert (pairs.name, pairs.sources) == ("p", ("a",))
    assert load_panel(zip_of(tmp_path / "s.zip", **{"s.jsonl": '{"time": 1, "value": 2}'})).values[0].tolist() == [2]
    with pytest.raises(DataError, match=r"must be UTF-8. The byte 0xe9 at byte offset 3 \(line 1\)"):
        load(zip_of(tmp_path / "t.zip", **{"t.csv": b"caf\xe9"}))


@pytest.mark.parametrize("read", [load, load_pairs, load_panel])
def test_unusable_zips(tmp_path, read):
    with pytest.raises(DataError, match=r"A .zip must hold one file. '.*two.zip' holds 2. Unpack it"):
        read(zip_of(tmp_path / "two.zip", **{"a.csv": "", "b.csv": ""}))
    (tmp_path / "bad.zip").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"bad.zip' must be a file that can be read. File is not a zip file"):
        read(tmp_path / "bad.zip")
    path = zip_of(tmp_path / "t.zip", **{"t.csv": "text,label\n" * 500})
    content = bytearray(path.read_bytes())
    content[60] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t.zip' must be a file that can be read"):
        read(path)
    # The flag of a password, in the file's header and in the directory.
    content = bytearray(zip_of(tmp_path / "t.zip", **{"t.csv": "text,label\n"}).read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"must be a file that can be read. .*password"):
        read(path)


@pytest.mark.parametrize("read", [load, load_pairs, load_panel])
def test_a_truncated_compressed_parquet_file(tmp_path, read, random):
    values = pyarrow.array(random.random(5000))
    pyarrow.parquet.write_table(pyarrow.table({"time": values, "value": values}), tmp_path / "plain")
    path = tmp_path / "t.parquet.gz"
    path.write_bytes(gzip.compress((tmp_path / "plain").read_bytes())[:-2000])
    with pytest.raises(DataError, match=r"must be an intact Parquet file. .*Compressed file ended"):
        read(path)


@pytest.mark.parametrize("column", ["label", "score", "Rating"])
def test_numeric_targets(tmp_path, column):
    path = tmp_path / "t.csv"
    path.write_text(f"text,{column}\n" + "".join(f"film {number},{number / 7}\n" for number in range(30)))
    dataset = load(path, task="regress")
    assert dataset.targets.tolist() == [number / 7 for number in range(30)]
    with pytest.raises(DataError):
        load(path)


def test_tasks_that_do_not_fit(folder, tmp_path):
    with pytest.raises(ValueError, match=r"`task` must be 'classify', 'regress' or None. Received: 'forecast'"):
        load(folder, task="forecast")
    with pytest.raises(DataError, match=r"folder's labels are classes. Received: task='regress'"):
        load(folder, task="regress")
    with pytest.raises(DataError, match=r"'bbc-news' has no numeric targets. Received: task='regress'"):
        load("bbc-news", task="regress")
    (tmp_path / "a.tmx").write_text("<tmx/>")
    with pytest.raises(DataError, match="Read it with `load_pairs`"):
        load(tmp_path / "a.tmx")
