"""Confusion matrices and reliability curves."""

import numpy as np
import pytest

from limelight import evaluate, plot

pytestmark = pytest.mark.backend_free


@pytest.fixture
def result(random):
    truth = random.integers(2, size=211)
    return evaluate.classification(
        truth, np.clip(truth * 0.4 + random.uniform(0, 0.6, 211), 0, 1), ["no", "$yes$"], resamples=100
    )


def test_a_confusion_matrix_shows_counts_over_shares(result):
    ax = plot.confusion(result, title="test part")
    assert [cell.get_text() for cell in ax.texts] == [str(count) for count in result.confusion.ravel()]
    shares = result.confusion / result.confusion.sum(1, keepdims=True)
    assert np.array_equal(ax.images[0].get_array(), shares)
    assert ax.images[0].get_clim() == (0, 1)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["no", "$yes$"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")


def test_a_class_that_does_not_occur_is_an_empty_row():
    ax = plot.confusion([[3, 1], [0, 0]])
    assert ax.images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 0.0]]


def test_numbers_are_left_out_where_they_could_not_be_read():
    assert not plot.confusion(np.eye(29)).texts


@pytest.mark.parametrize(("matrix", "classes", "message"), [
    (np.ones((2, 3)), None, r"must be square.*shape \(2, 3\)"),
    (np.eye(2), ["a"], "each of 2 classes. Received: 1 names"),
])  # fmt: skip
def test_a_matrix_that_is_none_is_an_error(matrix, classes, message):
    with pytest.raises(ValueError, match=message):
        plot.confusion(matrix, classes)


def test_a_reliability_curve_has_the_points_of_the_result(result):
    ax = plot.reliability({"attention": result, "$pooling$": result.reliability})
    diagonal, first, second = ax.lines
    assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    for line in (first, second):
        assert np.array_equal(line.get_xdata(), result.reliability.confidence)
        assert np.array_equal(line.get_ydata(), result.reliability.accuracy)
    names = ax.get_legend().get_texts()
    assert [name.get_text() for name in names] == ["attention", "$pooling$"]
    assert not any(name.get_parse_math() for name in names)
    assert first.get_color() != second.get_color()
    assert plot.reliability(result).get_legend() is None
