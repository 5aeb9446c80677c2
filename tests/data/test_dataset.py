"""The Dataset class: its checks, selection and summary."""

import subprocess
import sys

import numpy as np
import pytest

from limelight import data

pytestmark = pytest.mark.backend_free


def series(lengths, channels=3):
    return tuple(np.ones((length, channels), np.float32) for length in lengths)


@pytest.mark.subprocess
def test_importing_the_package_loads_neither_numpy_nor_keras():
    heavy = ("numpy", "keras", "pyarrow", "tokenizers", "matplotlib", "pandas", "sklearn", "scipy")
    code = f"import sys, limelight.data; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.subprocess
def test_loading_a_file_loads_no_keras_and_no_optional_package(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,0\nb,1\nc,0\nd,1\n")
    heavy = ("keras", "pyarrow", "tokenizers", "matplotlib", "pandas", "sklearn", "scipy")
    code = f"""
import sys
from limelight import data
dataset = data.load({str(path)!r})
data.split(dataset, validation=0, test=0)
data.LengthBatches([[2]], batch_size=1)
print([name for name in {heavy!r} if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_public_name_exists_and_an_error_lists_them():
    for name in data.__all__:
        assert getattr(data, name) is not None
    assert set(data.__all__) <= set(dir(data))
    with pytest.raises(AttributeError, match=r"no attribute 'laod'. It has: .*LengthBatches.*load"):
        _ = data.laod


def test_take_keeps_the_order_of_the_indices():
    dataset = data.Dataset("d", "text", ("a", "b", "c"), np.array([0, 1, 1]), ("x", "y"))
    inputs, labels = dataset.take([2, 0])
    assert inputs == ["c", "a"]
    assert labels.tolist() == [1, 0]
    assert labels.dtype == np.int64


def test_the_representation_does_not_print_the_data():
    dataset = data.Dataset("d", "text", ("secret " * 1000,), np.array([0]), ("x",))
    assert repr(dataset) == "Dataset('d', text, 1 examples in 1 classes)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "image"}, "`kind` must be 'text' or 'series'. Received: 'image'"),
        ({"labels": np.array([0])}, r"one class index for each input. Received: 2 inputs and labels of shape \(1,\)"),
        ({"labels": np.array([0, 2])}, "indices into the 2 classes. Received: values from 0 to 2"),
        ({"labels": np.array([-1, 0])}, "indices into the 2 classes. Received: values from -1 to 0"),
        ({"test": np.array([True])}, r"one bool for each of the 2 inputs. Received: shape \(1,\)"),
    ],
)
def test_inconsistent_arguments_are_refused(arguments, message):
    valid = {"name": "d", "kind": "text", "inputs": ("a", "b"), "labels": np.array([0, 1]), "classes": ("x", "y")}
    with pytest.raises(ValueError, match=message):
        data.Dataset(**{**valid, **arguments})


def test_describe_counts_classes_lengths_and_repairs():
    texts = ("one", "one two", "one two three", "one two three four", "1 2 3 4 5 6 7 8 9 10 11")
    repairs = (data.Repair("empty texts dropped", 1234),)
    dataset = data.Dataset("d", "text", texts, np.array([1, 1, 1, 0, 1]), ("x", "y"), repairs, "here")
    assert data.describe(dataset) == {
        "name": "d",
        "kind": "text",
        "source": "here",
        "examples": 5,
        "classes": {"x": 1, "y": 4},
        "majority": 0.8,
        "targets": None,
        "lengths": {
            "unit": "words",
            "minimum": 1.0,
            "quartile_1": 2.0,
            "median": 3.0,
            "quartile_3": 4.0,
            "percentile_95": pytest.approx(4 + 0.8 * 7),
            "maximum": 11.0,
        },
        "channels": None,
        "published_test": None,
        "repairs": [{"what": "empty texts dropped", "count": 1234}],
    }
    assert str(repairs[0]) == "empty texts dropped: 1,234"


def test_describe_series_counts_steps_and_channels():
    test = np.array([False, True, True])
    dataset = data.Dataset("d", "series", series((5, 7, 11)), np.array([0, 1, 0]), ("x", "y"), test=test)
    summary = data.describe(dataset)
    assert summary["lengths"]["unit"] == "steps"
    assert (summary["lengths"]["minimum"], summary["lengths"]["median"], summary["lengths"]["maximum"]) == (5, 7, 11)
    assert (summary["channels"], summary["published_test"]) == (3, 2)


def test_an_error_is_one_line_that_can_be_printed():
    message = str(data.DataError("first\nsecond\r\n third \ud800 end"))
    assert message == "first second third ? end"
    assert issubclass(data.DataError, ValueError)


def test_numeric_targets():
    dataset = data.Dataset("d", "text", ("a", "b", "c"), targets=np.array([1, 0, 4], np.float32))
    assert dataset.targets.dtype == np.float64
    inputs, targets = dataset.take([2, 0])
    assert (inputs, targets.tolist()) == (["c", "a"], [4.0, 1.0])
    assert repr(dataset) == "Dataset('d', text, 3 examples with targets from 0 to 4)"
    summary = data.describe(dataset)
    assert (summary["classes"], summary["majority"]) == ({}, 0)
    deviation = pytest.approx(np.sqrt(26 / 9))
    assert summary["targets"] == {
        "minimum": 0,
        "mean": pytest.approx(5 / 3),
        "maximum": 4,
        "standard_deviation": deviation,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": [1.0]}, r"one finite number for each input. Received: 2 inputs and targets of shape \(1,\)"),
        ({"targets": [1.0, np.nan]}, "one finite number for each input"),
        ({"targets": [1.0, 2.0], "labels": np.array([0, 0])}, "or `targets`. Received: both, 2 labels and 2 targets"),
        ({"targets": [1.0, 2.0], "classes": ("x",)}, "or `targets`. Received: both"),
        ({}, r"one class index for each input. Received: 2 inputs and labels of shape \(0,\)"),
    ],
)
def test_inconsistent_targets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.Dataset("d", "text", ("a", "b"), **arguments)
