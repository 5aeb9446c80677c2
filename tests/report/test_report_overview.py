"""The heatmap of all examples."""

import re

import pytest

from limelight.report.overview import MOST, heatmap
from limelight.report.texts import read, shade

pytestmark = pytest.mark.backend_free


def example(tokens, weights, **others):
    return {"tokens": tokens, "weights": weights, "kind": "confident and right", **others}


def test_each_weight_is_a_cell_in_the_shade_of_the_texts():
    weights = [[0.5, 0.125, 0.125, 0.25], [0.9, 0.1]]
    drawn = heatmap(read([example(["a", "b", "c", "d"], weights[0]), example(["e", "<f>"], weights[1])]))
    cells = re.findall(r'<rect class="weight-(\d)" x="(\d+)" y="(\d+)"', str(drawn))
    assert [int(cell[0]) for cell in cells] == [shade(weight, len(row)) for row in weights for weight in row]
    assert [cell[1] for cell in cells[:2]] == [cells[4][1], cells[5][1]]  # the same place, the same column
    assert len({cell[2] for cell in cells}) == 2
    assert "<title>&lt;f&gt;: 10.0" in str(drawn)


def test_what_is_too_long_is_cut_and_said():
    count = MOST + 7
    drawn = str(heatmap(read([example([str(place) for place in range(count)], [1 / count] * count, text=None)])))
    assert drawn.count("<rect") == MOST
    assert f"Only the first {MOST} of up to {count} tokens are drawn." in drawn


def test_what_is_too_many_is_cut_and_said():
    drawn = str(heatmap(read([example(["a"], [1.0])] * (MOST + 3))))
    assert drawn.count("<rect") == MOST
    assert f"Only the first {MOST} of {MOST + 3} examples are drawn." in drawn


def test_without_weights_there_is_nothing_to_draw():
    assert heatmap([]) is None
    assert heatmap(read([{"tokens": ["a"], "text": "a"}])) is None
