"""JSON lines and Parquet files, intact and broken."""

import contextlib
import json

import pyarrow
import pyarrow.parquet
import pytest

from limelight.data import DataError, load

pytestmark = pytest.mark.backend_free

GOOD = [
    {"text": "a", "label": "x"},
    {"text": "b", "label": "y"},
    {"text": "c", "label": "x"},
    {"text": "d", "label": "y"},
]


@pytest.fixture
def lines(tmp_path):
    def write(*lines):
        path = tmp_path / "t.jsonl"
        path.write_bytes("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines).encode())
        return path

    return write


@pytest.fixture
def table(tmp_path):
    def write(**columns):
        path = tmp_path / "t.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return path

    return write


def pairs(dataset):
    return [(text, dataset.classes[label]) for text, label in zip(dataset.inputs, dataset.labels, strict=True)]


def test_lines_of_objects(lines):
    dataset = load(lines(*GOOD))
    assert pairs(dataset) == [("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")]
    assert (dataset.name, dataset.repairs) == ("t", ())


def test_blank_lines_windows_line_ends_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n".join(json.dumps(each).encode() for each in GOOD))
    dataset = load(path)
    assert dataset.inputs == ("a", "b", "c", "d")
    assert [str(repair) for repair in dataset.repairs] == ["byte order mark removed: 1"]


def test_a_line_separator_inside_a_string_does_not_end_the_line(lines):
    rows = [{"text": "a\u2028b", "label": 1}, *({"text": t, "label": n} for t, n in zip("cde", (1, 0, 0), strict=True))]
    dataset = load(lines(*(json.dumps(row, ensure_ascii=False) for row in rows)))
    assert dataset.inputs[0] == "a\u2028b"


def test_missing_keys_nulls_and_nan_are_dropped_and_counted(lines):
    dataset = load(
        lines(*GOOD, {"label": "x"}, {"text": None, "label": "x"}, {"text": "e"}, '{"text": "f", "label": NaN}', "{}")
    )
    assert dataset.inputs == ("a", "b", "c", "d")
    assert [str(repair) for repair in dataset.repairs] == ["rows without a label dropped: 3", "empty texts dropped: 2"]


def test_escaped_lone_surrogates_and_nul_are_repaired(lines):
    dataset = load(lines('{"text": "a \\ud83d b", "label": "x"}', '{"text": "c\\u0000", "label": "x"}', *GOOD[1::2]))
    assert dataset.inputs[:2] == ("a \ufffd b", "c")


def test_numbers_and_booleans_are_labels(lines):
    texts = "abcd"
    assert load(lines(*({"text": t, "label": i % 2} for i, t in enumerate(texts)))).classes == ("0", "1")
    assert load(lines(*({"text": t, "label": i % 2 == 0} for i, t in enumerate(texts)))).classes == ("false", "true")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"text": "a"', "Line 5 is not JSON"),
        ("text", "Line 5 is not JSON"),
        ("[" * 100_000, "Line 5 is not JSON"),
        ("9" * 5000, "Line 5 is not JSON"),
        ("[1, 2]", "must be a JSON object. Line 5 is an array"),
        ('"a"', "Line 5 is a string"),
        ("null", "Line 5 is null"),
        (
            {"text": {"title": "a"}, "label": "x"},
            "'text' must be a string on every line of .* On line 5 it is an object",
        ),
        ({"text": ["a"], "label": "x"}, "On line 5 it is an array"),
        ({"text": 5, "label": "x"}, "On line 5 it is a number"),
        ({"text": True, "label": "x"}, "On line 5 it is a boolean"),
        ({"text": "a", "label": ["x"]}, "'label' must be a string or a number .* On line 5 it is an array"),
    ],
)
def test_an_error_names_the_line(lines, bad, message):
    with pytest.raises(DataError, match=message) as caught:
        load(lines(*GOOD, bad))
    assert "\n" not in str(caught.value)


def test_the_keys_of_all_lines_are_listed(lines):
    with pytest.raises(DataError, match=r"no column 'words'.* 'text', 'label', 'extra'"):
        load(lines(*GOOD, {"extra": 1}), text="words")


def test_a_parquet_file_with_null_rows(table):
    dataset = load(
        table(id=[1, 2, 3, 4, 5, 6], review=["a", None, "b", "c", "d", "e"], sentiment=[1, 1, 0, 0, None, 1])
    )
    assert pairs(dataset) == [("a", "1"), ("b", "0"), ("c", "0"), ("e", "1")]
    assert [str(repair) for repair in dataset.repairs] == ["rows without a label dropped: 1", "empty texts dropped: 1"]


@pytest.mark.parametrize(
    "labels",
    [
        pyarrow.array(["x", "y", "x", "y"]).dictionary_encode(),
        pyarrow.array(["x", "y", "x", "y"], pyarrow.large_string()),
        pyarrow.array([1.0, 2.0, 1.0, 2.0], pyarrow.float32()),
        pyarrow.array([True, False, True, False]),
        pyarrow.array([1, 2, 1, 2], pyarrow.uint8()),
    ],
)
def test_labels_of_any_scalar_type(table, labels):
    dataset = load(table(text=pyarrow.array(list("abcd")).dictionary_encode(), label=labels))
    assert len(dataset.classes) == 2
    assert dataset.labels[0] != dataset.labels[1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"text": [1, 2], "label": ["x", "y"]},
            "Column 'text' of .* must hold strings. It holds int64. Name another column",
        ),
        ({"text": [b"a", b"b"], "label": ["x", "y"]}, "It holds binary"),
        (
            {"text": ["a", "b"], "label": [["x"], ["y"]]},
            "Column 'label' of .* must hold strings, numbers or booleans. It holds list",
        ),
        ({"text": ["a", "b"], "stars": [{"x": 1}, {"x": 2}]}, "no column 'label'.*'text', 'stars'"),
        ({"text": pyarrow.array([None, None]), "label": ["x", "y"]}, "None is left of 2 rows; empty texts dropped: 2"),
    ],
)
def test_columns_of_other_types_are_refused(table, columns, message):
    with pytest.raises(DataError, match=message):
        load(table(**columns), text="text", label="label")


def test_a_column_name_with_a_dot(table):
    dataset = load(table(**{"a.text": list("abcd"), "a": list("efgh"), "label": [0, 1, 0, 1]}), text="a.text")
    assert dataset.inputs == ("a", "b", "c", "d")


def test_two_columns_of_one_name(tmp_path):
    path = tmp_path / "t.parquet"
    both = pyarrow.Table.from_arrays(
        [pyarrow.array(["a"]), pyarrow.array(["b"]), pyarrow.array([1])], ["text", "text", "label"]
    )
    pyarrow.parquet.write_table(both, path)
    with pytest.raises(DataError, match=r"There are 2 columns 'text'|2 columns could be it"):
        load(path)


@pytest.mark.parametrize("keep", [0, 4, 100])
def test_a_truncated_parquet_file(table, keep):
    path = table(text=list("abcd") * 50, label=[0, 1, 0, 1] * 50)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        DataError, match=r"must be an intact Parquet file. It cannot be read" if keep else "The file is empty"
    ) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_parquet_file_with_any_byte_flipped(table, random):
    path = table(text=[f"text {i}" for i in range(200)], label=[0, 1, 0, 1] * 50)
    intact = path.read_bytes()
    for position in random.integers(0, len(intact), 200):
        broken = bytearray(intact)
        broken[position] ^= 1 << int(random.integers(8))
        path.write_bytes(broken)
        with contextlib.suppress(DataError):
            assert len(load(path)) > 0
