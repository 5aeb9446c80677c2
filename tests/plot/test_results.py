"""Learning curves and differences."""

import numpy as np
import pytest

from limelight import evaluate, plot

pytestmark = pytest.mark.backend_free


def test_learning_curves_have_a_line_for_each_seed_and_their_mean():
    ax = plot.curves({"attention": [[4.0, 2.0, 1.0], [2.0, 1.0]], "_pooling": [[3.0, 3.0]]}, metric="$loss$")
    one, two, mean, single = ax.lines
    assert list(one.get_ydata()) == [4.0, 2.0, 1.0]
    assert list(two.get_xdata()) == [1, 2]
    assert list(mean.get_ydata()) == [3.0, 1.5, 1.0]
    assert list(single.get_ydata()) == [3.0, 3.0]
    assert mean.get_linewidth() > one.get_linewidth()
    assert mean.get_color() == one.get_color() != single.get_color()
    assert [name.get_text() for name in ax.get_legend().get_texts()] == ["attention", "_pooling"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "$loss$")


def test_one_epoch_can_be_seen():
    assert plot.curves({"a": [[1.0]]}).lines[0].get_marker() == "o"


@pytest.mark.parametrize("runs", [{}, {"a": []}, {"a": [[]]}])
def test_nothing_to_draw_is_an_error(runs):
    with pytest.raises(ValueError, match="at least one run of at least one epoch"):
        plot.curves(runs)


def test_differences_stand_beside_a_line_at_none(random):
    truth = random.integers(2, size=307)
    good = np.where(random.uniform(size=307) < 0.9, truth, 1 - truth)
    bad = np.where(random.uniform(size=307) < 0.6, truth, 1 - truth)
    found = [
        evaluate.paired(truth, good, bad, names=("attention", "$linear$")),
        evaluate.paired(truth, good, good, names=("attention", "itself")),
    ]
    ax = plot.difference(found)
    zero, bar, dot, same_bar, same_dot = ax.lines
    assert list(zero.get_xdata()) == [0, 0]
    assert list(bar.get_xdata()) == [100 * found[0].difference.low, 100 * found[0].difference.high]
    assert list(dot.get_xdata()) == [100 * found[0].difference.value]
    assert list(same_bar.get_ydata()) == [1, 1]
    assert dot.get_markerfacecolor() == dot.get_color()
    assert same_dot.get_markerfacecolor() == "white"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["attention − $linear$", "attention − itself"]
    assert "p < .001" in ax.texts[0].get_text()
    assert ax.texts[1].get_text() == "+0.0 (+0.0 to +0.0), p = 1"
    assert ax.get_xlabel() == "difference in accuracy in points, 95 % interval"


def test_differences_of_two_metrics_do_not_share_an_axis(random):
    truth = random.integers(2, size=31)
    found = [evaluate.paired(truth, truth, 1 - truth, metric=metric) for metric in ("accuracy", "f1_macro")]
    with pytest.raises(ValueError, match=r"of one metric. Received: \['accuracy', 'f1_macro'\]"):
        plot.difference(found)
    with pytest.raises(ValueError, match=r"Received: \[\]"):
        plot.difference([])
