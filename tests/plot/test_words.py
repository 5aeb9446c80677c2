"""Highlighted words: their positions and the darkness of their backbackgrounds."""

import numpy as np
import pytest

from limelight import plot
from limelight.plot.words import background_colormap

pytestmark = pytest.mark.backend_free


def positions(ax) -> list[tuple[float, float]]:
    return [word.get_position() for word in ax.texts]


def test_backbackgrounds_show_the_weights():
    ax = plot.text(["a", "dull", "film"], [0.0, 0.8, 0.4], title="$review$")
    assert [word.get_text() for word in ax.texts] == ["a", "dull", "film"]
    backgrounds = [patch.get_facecolor() for patch in ax.patches]
    assert backgrounds == [tuple(background_colormap()(weight)) for weight in (0.0, 1.0, 0.5)]
    assert backgrounds[0][:3] == pytest.approx((1, 1, 1), abs=0.01)
    assert ax.texts[1].get_color() == "white"
    assert ax.texts[0].get_color() != "white"
    assert ax.get_title(loc="left") == "$review$"
    assert not any(word.get_parse_math() for word in ax.texts)


def test_darkness_grows_with_the_weight():
    brightness = background_colormap()(np.linspace(0, 1, 101))[:, :3] @ (0.2126, 0.7152, 0.0722)
    assert np.all(np.diff(brightness) < 0)


def test_words_wrap_within_the_axes_without_overlap():
    words = [f"word{place}" for place in range(97)]
    ax = plot.text(words, np.linspace(0, 1, 97))
    boxes = np.array([patch.get_bbox().extents for patch in ax.patches])
    width, height = ax.get_xlim()[1], ax.get_ylim()[0]
    assert boxes[:, 0].min() >= 0
    assert boxes[:, 2].max() <= width
    assert boxes[:, 3].max() <= height
    lines = sorted(set(boxes[:, 1]))
    assert 5 < len(lines) < 20
    for line in lines:
        row = boxes[boxes[:, 1] == line]
        assert np.all(np.diff(row[:, 0]) > 0)  # in reading order
        assert np.all(row[1:, 0] > row[:-1, 2])
    figure = ax.figure
    assert figure.get_size_inches()[1] > len(lines) * 21 / 72


def test_words_fit_their_backgrounds():
    ax = plot.text(["Wörterbuch", "$x^2$", "i"], [0.1, 0.5, 1.0])
    renderer = ax.figure.canvas.get_renderer()
    for word, patch in zip(ax.texts, ax.patches, strict=True):
        inner, outer = word.get_window_extent(renderer), patch.get_window_extent(renderer)
        assert outer.x0 <= inner.x0 < inner.x1 <= outer.x1


def test_right_to_left_text_starts_on_the_right():
    words = ["הסרט", "הזה", "IMDB", "Top", "נפלא", "250"]
    ax = plot.text(words, np.ones(6))
    left = {word: x for word, (x, _) in zip(words, positions(ax), strict=True)}
    assert sorted(left, key=left.__getitem__) == ["250", "נפלא", "IMDB", "Top", "הזה", "הסרט"]
    assert max(patch.get_bbox().x1 for patch in ax.patches) == pytest.approx(ax.get_xlim()[1], abs=2)


def test_right_to_left_run_within_left_to_right_text():
    words = ["the", "word", "שלום", "עולם", "means", "hello"]
    left = dict(zip(words, (x for x, _ in positions(plot.text(words, np.ones(6)))), strict=True))
    assert sorted(left, key=left.__getitem__) == ["the", "word", "עולם", "שלום", "means", "hello"]


def test_zero_weights_can_be_drawn():
    ax = plot.text(["a", "b"], [0.0, 0.0])
    assert [patch.get_facecolor() for patch in ax.patches] == [tuple(background_colormap()(0.0))] * 2


@pytest.mark.parametrize(
    ("tokens", "weights", "message"),
    [
        (["a", "b"], [0.1], r"one weight for each token.*Received: 2 tokens, weights of shape \(1,\)"),
        ([], [], "at least one. Received: 0 tokens"),
        (["a"], [[0.1]], r"weights of shape \(1, 1\)"),
        (["a"], [np.nan], "must be finite. Received: 1"),
    ],
)
def test_invalid_arguments_raise(tokens, weights, message):
    with pytest.raises(ValueError, match=message):
        plot.text(tokens, weights)
