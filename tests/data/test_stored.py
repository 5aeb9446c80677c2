"""Lists in a temporary file, and labelled texts that are read row by row."""

import gzip

import numpy as np
import pytest

from limelight.data import DataError, TextStream
from limelight.data.stored import store_ids, store_texts

pytestmark = pytest.mark.backend_free


def test_texts_come_back_in_any_order(random):
    texts = [
        "",
        "a film",
        "Grüße \U0001f600",
        "\ud800 lone",
        *("x" * int(size) for size in random.integers(0, 9000, 900)),
    ]
    stored = store_texts()
    stored.extend(texts[:3])
    assert stored[1] == "a film"  # read before the rest is written
    stored.extend(texts[3:])
    assert list(stored) == texts
    assert stored[-1] == texts[-1]
    assert stored.sizes.tolist() == [len(text.encode("utf-8", "surrogatepass")) for text in texts]
    order = random.permutation(len(texts))
    part = stored.take(order)
    assert [part[index] for index in range(len(part))] == [texts[index] for index in order]
    assert list(part.take([3, 1])) == [texts[order[3]], texts[order[1]]]
    assert list(part[2:5]) == [texts[index] for index in order[2:5]]
    assert list(stored[5:8]) == texts[5:8]
    with pytest.raises(IndexError, match=r"904 elements\. Received: index 904"):
        stored[904]


def test_ids(random):
    arrays = [random.integers(0, 9, size) for size in (3, 0, 5)]
    stored = store_ids()
    stored.extend(arrays)
    for array, back in zip(arrays, stored, strict=True):
        assert back.dtype == np.int32
        np.testing.assert_array_equal(back, array)


def test_a_stream_reads_its_file_at_each_pass(tmp_path):
    path = tmp_path / "reviews.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.write('review,id,stars\n"Dull, long.",1,bad\n,2,bad\nFine.,3,\nGood.,4,good\n')
    texts = TextStream(path, label="stars")
    for _ in range(2):
        assert list(texts) == [("Dull, long.", "bad"), ("Good.", "good")]


def test_a_stream_without_a_header(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text("bad,Dull.\ngood,Fine.\nbad, \nbad,Long.\n", encoding="utf-8")
    assert list(TextStream(path)) == [("Dull.", "bad"), ("Fine.", "good"), ("Long.", "bad")]


def test_a_stream_of_json_lines(tmp_path):
    path = tmp_path / "reviews.jsonl"
    path.write_text('{"text": "Dull.", "label": 1}\n{"text": 3, "label": 0}\n', encoding="utf-8")
    stream = iter(TextStream(path))
    assert next(stream) == ("Dull.", 1)
    with pytest.raises(DataError, match=r"must be strings\. Received: int in row 2"):
        next(stream)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": "words"}, "no column 'words'"),
        ({"label": "text"}, "another column than the text. Received: 'text'"),
        ({"label": None}, "usual name for the label"),
    ],
)
def test_wrong_columns(tmp_path, columns, message):
    path = tmp_path / "reviews.csv"
    path.write_text("text,stars\nDull.,1\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        TextStream(path, **{"label": "stars", **columns})
