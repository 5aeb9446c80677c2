"""Confusion matrices, reliability curves, learning curves and differences."""

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


def test_confusion_matrix_shows_counts_and_fractions(result):
    ax = plot.confusion(result, title="test part")
    assert [cell.get_text() for cell in ax.texts] == [str(count) for count in result.confusion.ravel()]
    fractions = result.confusion / result.confusion.sum(1, keepdims=True)
    assert np.array_equal(ax.images[0].get_array(), fractions)
    assert ax.images[0].get_clim() == (0, 1)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["no", "$yes$"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")


def test_absent_class_is_an_empty_row():
    ax = plot.confusion([[3, 1], [0, 0]])
    assert ax.images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 0.0]]


def test_large_confusion_matrix_has_no_counts():
    assert not plot.confusion(np.eye(29)).texts


@pytest.mark.parametrize(("matrix", "classes", "message"), [
    (np.ones((2, 3)), None, r"must be square.*shape \(2, 3\)"),
    (np.eye(2), ["a"], "each of 2 classes. Received: 1 names"),
])  # fmt: skip
def test_invalid_confusion_matrix_raises(matrix, classes, message):
    with pytest.raises(ValueError, match=message):
        plot.confusion(matrix, classes)


def test_reliability_curve_has_the_points_of_the_result(result):
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


def test_learning_curves_have_a_line_for_each_seed_and_their_mean():
    ax = plot.curves({"attention": [[4.0, 2.0, 1.0], [2.0, 1.0]], "_pooling": [[3.0, 3.0]]}, metric="$loss$")
    first_seed, second_seed, mean, single = ax.lines
    assert list(first_seed.get_ydata()) == [4.0, 2.0, 1.0]
    assert list(second_seed.get_xdata()) == [1, 2]
    assert list(mean.get_ydata()) == [3.0, 1.5, 1.0]
    assert list(single.get_ydata()) == [3.0, 3.0]
    assert mean.get_linewidth() > first_seed.get_linewidth()
    assert mean.get_color() == first_seed.get_color() != single.get_color()
    assert [name.get_text() for name in ax.get_legend().get_texts()] == ["attention", "_pooling"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "$loss$")


def test_single_epoch_has_a_marker():
    assert plot.curves({"a": [[1.0]]}).lines[0].get_marker() == "o"


@pytest.mark.parametrize("runs", [{}, {"a": []}, {"a": [[]]}])
def test_missing_runs_raise(runs):
    with pytest.raises(ValueError, match="at least one run of at least one epoch"):
        plot.curves(runs)


def test_differences_and_line_at_zero(random):
    truth = random.integers(2, size=307)
    good = np.where(random.uniform(size=307) < 0.9, truth, 1 - truth)
    bad = np.where(random.uniform(size=307) < 0.6, truth, 1 - truth)
    comparisons = [
        evaluate.paired(truth, good, bad, names=("attention", "$linear$")),
        evaluate.paired(truth, good, good, names=("attention", "itself")),
    ]
    ax = plot.difference(comparisons)
    zero, bar, dot, other_bar, other_dot = ax.lines
    assert list(zero.get_xdata()) == [0, 0]
    assert list(bar.get_xdata()) == [100 * comparisons[0].difference.low, 100 * comparisons[0].difference.high]
    assert list(dot.get_xdata()) == [100 * comparisons[0].difference.value]
    assert list(other_bar.get_ydata()) == [1, 1]
    assert dot.get_markerfacecolor() == dot.get_color()
    assert other_dot.get_markerfacecolor() == "white"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["attention − $linear$", "attention − itself"]
    assert "p < .001" in ax.texts[0].get_text()
    # No example of 307 differs: Wilson's interval of 0 ends at z^2 / (307 + z^2).
    assert ax.texts[1].get_text() == "0.0 (−1.2 to +1.2), p = 1"
    assert ax.get_xlabel() == "difference in accuracy in points, 95 % interval"


def test_differences_of_two_metrics_raise(random):
    truth = random.integers(2, size=31)
    comparisons = [evaluate.paired(truth, truth, 1 - truth, metric=metric) for metric in ("accuracy", "f1_macro")]
    with pytest.raises(ValueError, match=r"must have one metric. Received: \['accuracy', 'f1_macro'\]"):
        plot.difference(comparisons)
    with pytest.raises(ValueError, match=r"Received: \[\]"):
        plot.difference([])
