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
    ("content", "column", "expected"),
    [
        ("a good film,x\nfilm,y\nno,x\nyes,x\n", None, "1"),
        ("x,a good film\ny,film\nx,no\nx,yes\n", None, "2"),
        ("x,a good film\ny,film\nx,no\nx,yes\n", "1", "1"),
        ("7,a good film\n8,film\n", "2", "2"),
    ],
)
def test_columns_without_a_header_are_numbered(content, column, expected, tmp_path):
    (tmp_path / "bare.csv").write_text(content, encoding="utf-8")
    role = Role("text", column, frozenset({"review"}), strings_only=True)
    columns, chosen, rows = read_rows(tmp_path / "bare.csv", role)
    assert (columns, chosen) == (["1", "2"], expected)
    assert [",".join(row) for row in rows] == content.splitlines()


def test_a_first_line_that_is_not_repeated_is_a_header(tmp_path):
    (tmp_path / "bare.csv").write_text("7,a good film\n8,film\n", encoding="utf-8")
    with pytest.raises(DataError, match="has the columns '7', 'a good film'"):
        read_rows(tmp_path / "bare.csv", ROLE)


def test_keys_of_later_lines_and_compressed_parquet(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"review": "a"}\n{"id": 3, "review": "b"}\n', encoding="utf-8")
    columns, _, rows = read_rows(tmp_path / "rows.jsonl", ROLE)
    assert (columns, list(rows)) == (["review", "id"], [["a", None], ["b", 3]])
    stream = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"review": ["a", "b"]}), stream)
    (tmp_path / "rows.parquet.gz").write_bytes(gzip.compress(stream.getvalue().to_pybytes()))
    assert list(read_rows(tmp_path / "rows.parquet.gz", ROLE)[2]) == [["a"], ["b"]]
    (tmp_path / "cut.parquet.gz").write_bytes((tmp_path / "rows.parquet.gz").read_bytes()[:50])
    with pytest.raises(DataError, match="must be a Parquet file"):
        read_rows(tmp_path / "cut.parquet.gz", ROLE)


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
    (tmp_path / "bare.tsv").write_text("ένα\tone\tCC-BY\nδύο\ttwo\tCC-BY\n", encoding="utf-8")
    columns, chosen, rows = read_pair_rows(tmp_path / "bare.tsv", "2")
    assert (columns, chosen, [row[1] for row in rows]) == (["1", "2", "3"], "2", ["one", "two"])
    with pytest.raises(DataError, match=r"There is no column 'fr'.*'el', 'en'"):
        read_pair_rows(tmp_path / "pairs.tsv", "fr")
    (tmp_path / "pairs.jsonl").write_text('{"a": "x", "b": "y", "c": "z"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"usual name for the text.*Name it: text="):
        read_pair_rows(tmp_path / "pairs.jsonl", None)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "ragged.csv").write_text("id,review\n1,a\n2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"as many fields as the first, 2\. Line 3 has 1"):
        list(read_rows(tmp_path / "ragged.csv", ROLE)[2])
    (tmp_path / "table.xls").write_text("x")
    with pytest.raises(DataError, match=r"must be a \.csv, \.tsv, \.jsonl, \.parquet or \.txt file"):
        read_rows(tmp_path / "table.xls", ROLE)
    (tmp_path / "false.parquet").write_text("x")
    with pytest.raises(DataError, match=r"must be a Parquet file"):
        read_rows(tmp_path / "false.parquet", ROLE)
    with pytest.raises(DataError, match=r"There is none\. Check the path"):
        read_rows(tmp_path / "none.csv", ROLE)
