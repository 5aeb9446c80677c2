"""CSV and TSV files, intact and broken."""

import contextlib
import csv
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limelight.data import DataError, load
from limelight.data.readers import read_examples

pytestmark = pytest.mark.backend_free


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write_file


def rows(path):
    raw, _ = read_examples(path, "text", "label")
    return list(zip(raw.texts, raw.labels, strict=True)), [str(repair) for repair in raw.repairs]


TWO_ROWS = [("a", "x"), ("b", "y")]


def test_decimal_commas_of_labels(write):
    content = "text;label\na;1,5\nb;-2\nc;NA\nd;,25\n"
    repaired = ["columns whose decimal commas became points: 1"]
    assert rows(write(content)) == ([("a", "1.5"), ("b", "-2"), ("c", "NA"), ("d", ".25")], repaired)
    dataset = load(write(content), task="regress")
    assert dataset.targets.tolist() == [1.5, -2, 0.25]
    # Between commas it is a thousand, and among names a part of one.
    for unchanged in (content.replace(";1,5", ',"1,5"').replace(";", ","), content.replace("-2", "x")):
        labels = [label for _, label in rows(write(unchanged.replace("d,,25\n", "").replace("d;,25\n", "")))[0]]
        assert labels[0] == "1,5"


@pytest.mark.parametrize(
    "content",
    [
        "text,label\na,x\nb,y\n",
        "text,label\na,x\nb,y",
        "text,label\r\na,x\r\nb,y\r\n",
        "text,label\ra,x\rb,y\r",
        "\ntext,label\n\na,x\n   \nb,y\n\n",
        "text;label\na;x\nb;y\n",
        "text\tlabel\na\tx\nb\ty\n",
        '"text","label"\n"a","x"\n"b","y"\n',
        "id,label,text\n1,x,a\n2, y ,b\n",
    ],
)
def test_common_csv_dialects(write, content):
    assert rows(write(content)) == (TWO_ROWS, [])


@pytest.mark.parametrize(
    "content",
    [
        "text|label\na|x\nb|y\n",
        "sep=;\ntext;label\na;x\nb;y\n",
        '"sep=|"\r\ntext|label\r\na|x\r\nb|y\r\n',
        "\ufeffSEP=,\n\ntext,label\na,x\nb,y\n",
        "id, old;text;label\n1, 2;a;x\n3;b;y\n",
        "id|text;label|n,o\n1|a;x|2\n1|b;y|3\n".replace(";", "|"),
        "sep=\t\ntext\tlabel\na\tx\nb\ty\n",
    ],
)
def test_other_separators(write, content):
    examples, repairs = rows(write(content))
    assert examples == TWO_ROWS
    assert [repair for repair in repairs if "byte order mark" not in repair] == []


def test_the_separator_that_the_rows_fit(write):
    content = "".join(f"{'xy'[number % 2]}|one, two; {number}\n" for number in range(9)) + "x|three\n"
    assert load(write(content)).inputs == (*(f"one, two; {number}" for number in range(9)), "three")


@pytest.mark.parametrize(("name", "separator"), [("t.csv", ","), ("t.tsv", "\t"), ("t.csv", ";")])
@pytest.mark.parametrize("label_first", [True, False])
def test_a_file_without_a_header_line(write, name, separator, label_first):
    pairs = [(f"text {number}", "xy"[number % 2]) for number in range(7)]
    lines = [separator.join(reversed(pair) if label_first else pair) for pair in pairs]
    dataset = load(write("\n".join(lines), name))
    assert dataset.inputs == tuple(text for text, _ in pairs)
    assert [dataset.classes[label] for label in dataset.labels] == [label for _, label in pairs]
    assert [str(repair) for repair in dataset.repairs] == ["first line read as data, since it is no header: 1"]


def test_columns_without_a_header_line_have_numbers(write):
    path = write("".join(f"{number},{'xy'[number % 2]},text {number},g{number // 2}\n" for number in range(8)))
    with pytest.raises(
        DataError,
        match=r"whose first line is no header \(its fields occur in later lines, so the columns are numbered\), must have "
        r"exactly one column.*It has the columns '1', '2', '3', '4'. Name it: text=",
    ):
        load(path)
    dataset = load(path, text="3", label="2", group="4")
    assert dataset.inputs == tuple(f"text {number}" for number in range(8))
    assert dataset.classes == ("x", "y")
    assert dataset.groups == tuple(f"g{number // 2}" for number in range(8))


def test_a_header_without_usual_names_is_still_a_header(write):
    with pytest.raises(DataError, match=r"It has the columns 'words', 'stars'"):
        load(write("words,stars\na,1\nb,2\nc,1\nd,2\n"))


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gbk", "这部电影非常好看，我很喜欢"),
        ("big5", "這部電影非常好看，我很喜歡"),
        ("shift_jis", "この映画はとても面白かった"),
        ("euc_kr", "이 영화는 정말 재미있었다"),
        ("windows-1251", "Этот фильм очень хороший"),
    ],
)
def test_the_advice_on_another_encoding_shows_the_text(write, encoding, text):
    path = write(b"text,label\n" + f"{text},x\n{text} 2,y\n".encode(encoding) * 5)
    with pytest.raises(
        DataError, match=r"must be UTF-8. The byte 0x\w\w at byte offset 1\d \(line 2\) is not"
    ) as caught:
        load(path)
    advised = re.findall(r"iconv -f (\S+)|also fit (.*?): take", str(caught.value))
    names = [name for pair in advised for name in ", ".join(filter(None, pair)).split(", ")]
    assert "WINDOWS-1252" not in names
    assert text in [path.read_bytes().decode(name, "replace").split("\n")[1][:-2] for name in names]


@pytest.mark.parametrize("text", ["café", "déjà vu à l'école, où ça va", "Größe über alles", "“quoted” – naïve"])
def test_the_advice_on_western_text_is_windows_1252(write, text):
    with pytest.raises(DataError, match=r"iconv -f WINDOWS-1252 -t UTF-8 \S+ > utf8-t.csv$"):
        load(write(f"text|label\n{text}|x\n".encode("windows-1252") * 3))


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 2**21 + 5])
def test_an_error_beyond_the_first_piece_of_a_large_file_names_its_position(write, size):
    head = b"text,label\n" + "é\n".encode() * 9
    content = head + b"a" * (size - len(head)) + b"\xff,x\n"
    with pytest.raises(DataError, match=rf"byte 0xff at byte offset {size:,} \(line 11\)"):
        load(write(content))
    with pytest.raises(DataError, match=rf"NUL byte at byte offset {size:,} \(line 11\)"):
        load(write(content.replace(b"\xff", b"\0")))


@pytest.mark.parametrize("shift", range(4))
def test_characters_that_two_pieces_share_are_read(write, shift):
    text = "a" * shift + "𝒳" * 400_000
    assert load(write(f"text,label\n{text},x\nb,y\nc,x\nd,y\n")).inputs[0] == text
    with pytest.raises(DataError, match=r"The byte 0xf0 at byte offset 1,600,0\d\d \(line 2\)"):
        load(write(f"text,label\n{text}".encode()[:-1]))


def test_quotes_separators_and_newlines_inside_quotes(write):
    content = 'text,label\n"He said ""no"", twice\r\nand left",x\n"",y\n'
    assert rows(write(content)) == ([('He said "no", twice\r\nand left', "x"), ("", "y")], [])


def test_a_byte_order_mark_is_removed_and_counted(write):
    assert rows(write("\ufefftext,label\na,x\nb,y\n")) == (TWO_ROWS, ["byte order mark removed: 1"])


def test_a_row_of_empty_fields_is_a_row_without_a_label(write):
    dataset = load(write("text,label\na,x\nb,y\n,\nc,x\nd,y\n"))
    assert [str(repair) for repair in dataset.repairs] == ["rows without a label dropped: 1"]


def test_a_few_malformed_rows_are_dropped_and_counted(write):
    lines = [f"row {i},{'xy'[i % 2]}" for i in range(40)]
    lines[11] = "only one field"
    lines[23] = "one,field,too many"
    examples, repairs = rows(write("text,label\n" + "\n".join(lines)))
    assert len(examples) == 38
    assert repairs == ["rows with too few or too many fields dropped (the first at line 13): 2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\na,x\nb\nc,y\n", "must have the 2 fields of its header. Line 3 has 1; 1 of 3 rows do not fit"),
        ("text,label\na, b,x\nb,y\n", "Line 2 has 3; 1 of 2 rows do not fit. Put quotes around"),
        ('text,label\n"a\nb",x\nc\n', "Line 4 has 1"),
        ('text,label\na,x\n"b,y\n', "row that begins at line 3 opens a quote that is never closed"),
        ('text,label\n"a" b,x\n', "row that begins at line 2 cannot be parsed"),
        ("", "The file is empty"),
        (" \n\n", "The file is empty"),
        ("\ufeff", "The file is empty"),
        ("text,label\n", "None is left of 0 rows"),
        ("text,label\na,x\nb\0,y\n", r"It has a NUL byte at byte offset 16 \(line 3\)"),
        (
            b"text,label\na,x\ncaf\xe9,y\n",
            r"byte 0xe9 at byte offset 18 \(line 3\) is not. Save it as UTF-8, for example: iconv",
        ),
        (b"\xef\xbb\xbftext,label\ncaf\xe9,y\n", r"byte 0xe9 at byte offset 17 \(line 2\)"),
        ("text,label\na,x\n".encode("utf-16"), "It begins with the mark of UTF-16"),
        ("text,label\na,x\n".encode("utf-16-le"), r"It has a NUL byte at byte offset 1 \(line 1\)"),
        (b"text,label\n\xed\xa0\x80,x\n", "byte 0xed at byte offset 11"),
    ],
)
def test_an_error_is_one_line_that_names_the_position(write, content, message):
    with pytest.raises(DataError, match=message) as caught:
        load(write(content))
    assert "\n" not in str(caught.value)


def test_a_text_of_a_million_characters(write):
    long = "word " * 200_000
    examples, _ = rows(write(f'text,label\n"{long}",x\n{long},y\n'))
    assert examples == [(long, "x"), (long, "y")]


def test_a_field_that_is_too_large_is_refused_and_the_csv_limit_restored(write):
    before = csv.field_size_limit()
    with pytest.raises(
        DataError, match=r"at most 16 MiB. The row that begins at line 3 has a larger one. Is a closing quote"
    ):
        load(write("text,label\na,x\n" + "b" * (16 * 2**20 + 1) + ",y\n"))
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('text\tlabel\n"Wow" he said\tx\nsaid "no\ty\n', [('"Wow" he said', "x"), ('said "no', "y")]),
        ('text\tlabel\n"Wow\tx\nand"\ty\n', [('"Wow', "x"), ('and"', "y")]),
        ('text\tlabel\n"He said ""no"""\tx\nb\ty\n', [('He said "no"', "x"), ("b", "y")]),
        ('text\tlabel\n"two\nlines"\tx\n"a\ttab"\ty\n', [("two\nlines", "x"), ("a\ttab", "y")]),
        ("text\tlabel\r\na, b\tx\r\n \tc\r\n", [("a, b", "x"), (" ", "c")]),
    ],
)
def test_a_tsv_with_and_without_quotes(write, content, expected):
    assert rows(write(content, "t.TSV")) == (expected, [])


fields = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.tuples(fields, fields), min_size=1, max_size=8))
def test_round_trip_through_the_csv_writer_of_python(write, tmp_path, examples):
    path = tmp_path / "t.csv"
    with open(path, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *examples])
    raw, _ = read_examples(path, "text", "label")
    assert list(zip(raw.texts, raw.labels, strict=True)) == [(text, label.strip()) for text, label in examples]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.parquet"]))
def test_any_bytes_are_data_or_a_data_error(write, content, name):
    path = write(b"text,label\n" + content if name.endswith("v") else content, name)
    with contextlib.suppress(DataError):
        assert len(load(path)) > 0


@pytest.mark.parametrize("content", ['""\n', '""\n" "\n'])
def test_a_file_of_quoted_blanks_holds_no_data(write, content):
    with pytest.raises(DataError, match=r"must hold data\. Every row is blank"):
        load(write(content))


@pytest.mark.parametrize(
    "content",
    [
        "time,celsius,bar,state\n" + "".join(f"2026-01-01 {hour}:00,{hour / 7},{hour},on\n" for hour in range(9)),
        "label,t0,t1,t2\n" + "".join(f"{row % 2},{row / 3},{row / 7},\n" for row in range(9)),
        "text,label\n" + "".join(f"{row / 7},{row % 2}\n" for row in range(9)),
        "0.1,0.2,a\n0.1,0.5,b\n0.1,0.7,a\n",
    ],
)
def test_a_table_of_measurements_is_no_text(write, content):
    path = write(content)
    with pytest.raises(DataError, match=r"numbers.*Tables of series are read by `limelight.data.load_panel`"):
        load(path)


def test_a_file_of_arrays_is_no_text(write):
    with pytest.raises(DataError, match=r"'.*t\.npz'\. Tables of series are read by"):
        load(write("", "t.npz"))


def test_texts_beside_numbers_are_texts(write):
    rows = "".join(f"a story of {row} parts,{row},{row / 3}\n" for row in range(9))
    with pytest.raises(DataError, match=r"Name it: text=... \(--text on the command line\).$"):
        load(write("story,parts,price\n" + rows))
    # Short texts, of which one is a number.
    assert len(load(write("text,label\n7,a\nfine,a\nbad,b\nok,b\n"))) == 4
