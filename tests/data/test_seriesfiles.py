"""Labelled series in .ts files, intact and broken."""

import gzip

import numpy as np
import pytest

from limelight import data
from limelight.data import DataError, load

pytestmark = pytest.mark.backend_free

HEAD = "# a comment\n@problemName Tiny\n@timeStamps false\n@classLabel true 10 9\n@data\n"


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="t.ts"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
        return path

    return write_file


@pytest.mark.parametrize("name", ["t.ts", "t.TS.gz"])
def test_series_of_several_channels_and_lengths(write, name):
    path = write(HEAD + "1,2,3:4,5,6.5:10\n\n7,8:9,1e1:9\n0,0:0,0:10\n1,1:1,1:9\n", name)
    dataset = load(path)
    assert (dataset.name, dataset.kind, dataset.classes, dataset.test) == ("t", "series", ("9", "10"), None)
    assert dataset.labels.tolist() == [1, 0, 1, 0]
    assert dataset.inputs[0].tolist() == [[1, 4], [2, 5], [3, 6.5]]
    assert dataset.inputs[1].tolist() == [[7, 9], [8, 10]]
    assert dataset.inputs[0].dtype == np.float32
    assert dataset.source == f"the file {str(path)!r}"


def test_a_train_and_a_test_file(write):
    train = write(HEAD + "1,2:9\n3,4:10\n5,6:9\n", "Tiny_TRAIN.ts")
    assert load(write(HEAD + "1,2:9\n3,4:10\n5,6:9\n7,8:10\n", "Alone_TRAIN.ts")).test is None
    test = write(HEAD + "7,8:10\n", "Tiny_TEST.ts")
    dataset = load(train)
    assert (dataset.name, dataset.test.tolist()) == ("Tiny", [False, False, False, True])
    assert dataset.source == f"the files {str(train)!r} and {str(test)!r}"
    assert data.split(dataset, validation=0).test.tolist() == [3]


def test_missing_values_are_interpolated(write):
    dataset = load(write(HEAD + "?,2,?,8:1,NaN,,4:9\n1,2:3,4:10\n1,2:3,5:10\n1,2:3,7:9\n"))
    assert dataset.inputs[0].tolist() == [[2, 1], [2, 2], [5, 3], [8, 4]]
    assert [str(repair) for repair in dataset.repairs] == ["missing values filled by interpolation: 4"]


def test_numeric_targets(write):
    path = write("@targetLabel true\n@data\n1,2:0.5\n3,4:-7\n")
    dataset = load(path)
    assert (dataset.targets.tolist(), dataset.classes) == ([0.5, -7], ())
    assert load(path, task="regress").targets.tolist() == [0.5, -7]
    with pytest.raises(DataError, match=r"are numeric targets. Received: another task. Pass task='regress'"):
        load(path, task="classify")
    with pytest.raises(DataError, match=r"are classes. Received: another task. Pass task='classify'"):
        load(write(HEAD + "1:9\n2:9\n3:10\n4:10\n"), task="regress")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("@timeStamps true\n@data\n(0,1):a\n", "must have equal steps. .* holds time stamps"),
        ("@classLabel false\n@data\n1,2\n", r"has no class \(@classLabel false\)"),
        ("@data\n", "must hold series after a line @data. It has none"),
        ("1,2:a\n", "must be a .ts file. Line 1 precedes the line @data"),
        ("@data\n1,x:a\n", "Line 2 of .* must hold numbers between commas. It does not: could not convert string"),
        ("@data\n1,2:1:a\n", r"Line 2 of .* channels of one length .* lengths \[1, 2\] and the label 'a'"),
        ("@data\n1,2:\n", "and the label ''"),
        ("@data\n1,2\n", r"lengths \[\]"),
        ("@data\n?,?:a\n", "with finite values"),
        ("@data\n1,inf:a\n", "with finite values"),
        ("@data\n1,2:a\n1,2:1,2:a\n", r"must have equal channels. Received: \[1, 2\]"),
        ("@data\n1,2:a\n3,4:a\n", "at least two classes"),
        ("@targetLabel true\n@data\n1,2:a\n", "targets of .* must be finite numbers. Received: 'a'"),
    ],
)
def test_unusable_files(write, content, message):
    with pytest.raises(DataError, match=message) as caught:
        load(write(content))
    assert "\n" not in str(caught.value)


def test_a_file_of_series_has_no_columns(write):
    with pytest.raises(DataError, match=r"A .ts file has no columns. Received: text=None, label='a'"):
        load(write(HEAD), label="a")
