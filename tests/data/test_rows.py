"""Rows of tables as they are, from each kind of file, and files that cannot be read."""

import gzip

import pyarrow
import pyarrow.parquet
import pytest

from limelight.data.rows import read_pair_rows, read_rows
from limelight.data.tables import Role
from limelight.exceptions import DataError

pytestmark = pytest.mark.backend_free

ROLE = Role("text", None, frozenset({"review"}), strings_only=True)
ROWS = [["7", "a good; film"], ["9", ""], ["7", "a good; film"]]


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.tsv", "rows.jsonl", "rows.parquet"])
def test_rows_are_neither_cleaned_nor_dropped(name, tmp_path):
    path = tmp_path / name
    tables = {
        "rows.csv": 'id,review\n7,"a good; film"\n9,\n7,a good; film\n',
        "rows.tsv": "id\treview\n7\ta good; film\n9\t\n7\ta good; film\n",
        "rows.jsonl": "".join(f'{{"id": "{number}", "review": "{text}"}}\n' for number, text in ROWS),
    }
    if name.endswith(".parquet"):
        columns = dict(zip(("id", "review"), zip(*ROWS, strict=True), strict=True))
        pyarrow.parquet.write_table(pyarrow.table({key: list(values) for key, values in columns.items()}), path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(tables["rows.csv"].encode()))
    else:
        path.write_text(tables[name], encoding="utf-8")
    columns, column, rows = read_rows(path, ROLE)
    assert (columns, column) == (["id", "review"], "review")
    assert [list(row) for row in rows] == ROWS


def test_the_only_column_needs_no_usual_name(tmp_path):
    (tmp_path / "one.csv").write_text("words\na\nb\n", encoding="utf-8")
    columns, column, rows = read_rows(tmp_path / "one.csv", ROLE)
    assert (columns, column, list(rows)) == (["words"], "words", [["a"], ["b"]])


@pytest.mark.parametrize(
    ("name", "content", "columns", "column"),
    [
        ("pairs.tsv", "el\ten\nένα\tone\n", ["el", "en"], "el"),
        ("pairs.tsv", "ένα\tone\n", ["1", "2"], "1"),  # no header: nothing is lost
        ("pairs.csv", "id,target,source\n7,one,ένα\n", ["id", "target", "source"], "source"),
        ("pairs.jsonl", '{"el": "ένα", "en": "one"}\n', ["el", "en"], "el"),
        ("pairs.el", "ένα\n", ["text"], "text"),
        ("pairs.csv", "phrases\nένα\n", ["phrases"], "phrases"),
        (
            "pairs.tmx",
            "<tmx><body><tu><tuv xml:lang='el'><seg>ένα</seg></tuv><tuv xml:lang='en'><seg>one</seg></tuv></tu></body></tmx>",
            ["source", "target"],
            "source",
        ),
    ],
)
def test_texts_to_translate(name, content, columns, column, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    found, chosen, rows = read_pair_rows(tmp_path / name, None)
    (row,) = rows
    assert (found, chosen, row[found.index(chosen)], len(row)) == (columns, column, "ένα", len(columns))


def test_the_column_to_translate_can_be_named(tmp_path):
    (tmp_path / "pairs.tsv").write_text("el\ten\nένα\tone\n", encoding="utf-8")
    assert read_pair_rows(tmp_path / "pairs.tsv", "en")[1] == "en"
    with pytest.raises(DataError, match=r"There is no column 'fr'.*'el', 'en'"):
        read_pair_rows(tmp_path / "pairs.tsv", "fr")
    (tmp_path / "pairs.jsonl").write_text('{"a": "x", "b": "y", "c": "z"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"usual name for the text.*Name it: text="):
        read_pair_rows(tmp_path / "pairs.jsonl", None)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "ragged.csv").write_text("id,review\n1,a\n2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"the 2 fields of the header\. Received: 1 fields in line 3"):
        list(read_rows(tmp_path / "ragged.csv", ROLE)[2])
    (tmp_path / "table.xls").write_text("x")
    with pytest.raises(DataError, match=r"must be a \.csv, \.tsv, \.jsonl, \.parquet or \.txt file"):
        read_rows(tmp_path / "table.xls", ROLE)
    (tmp_path / "false.parquet").write_text("x")
    with pytest.raises(DataError, match=r"must be a Parquet file"):
        read_rows(tmp_path / "false.parquet", ROLE)
    with pytest.raises(DataError, match=r"There is none\. Check the path"):
        read_rows(tmp_path / "none.csv", ROLE)
