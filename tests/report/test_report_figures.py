"""Texts cut into tokens, shades, and axes and elements of figures."""

import re

import pytest

from limelight.report import examples, figures, quality
from limelight.report.examples import read_examples
from limelight.report.figures import MAX_COLUMNS, MAX_ROWS, heatmap, shade
from report.studies import make_results

pytestmark = pytest.mark.backend_free


def test_text_is_cut_at_the_offsets():
    text = "A  dull, dull film\nends."
    tokens = ["[CLS]", "a", "dull", ",", "dull", "film", "ends", "[SEP]"]
    offsets = [(0, 0), (0, 1), (3, 7), (7, 8), (9, 13), (14, 18), (19, 23), (0, 0)]
    pieces, gaps, ghosts = examples.cut_text(text, tokens, offsets)
    assert ghosts == [0, 7]
    assert [piece for index, piece in enumerate(pieces) if index not in ghosts] == [
        "A",
        "dull",
        ",",
        "dull",
        "film",
        "ends",
    ]
    restored = "".join(
        gap + (piece if index not in ghosts else "")
        for index, (gap, piece) in enumerate(zip(gaps, pieces, strict=False))
    )
    assert restored + gaps[-1] == text


def test_invalid_offsets_lose_no_text():
    pieces, gaps, ghosts = examples.cut_text("abcdef", ["ab", "bc", "ef", "x"], [(0, 2), (1, 3), (4, 9), (20, 21)])
    assert (pieces, gaps, ghosts) == (["ab", "bc", "ef", "x"], ["", "", "cd", "", ""], [1, 3])


def test_characters_beyond_the_basic_plane():
    (example,) = examples.read_examples(
        [
            {
                "text": "🎬 𝄞 film",
                "tokens": ["🎬", "𝄞", "film"],
                "offsets": [[0, 1], [2, 3], [4, 8]],
                "weights": [0.2, 0.3, 0.5],
            }
        ]
    )
    assert example["pieces"] == ["🎬", "𝄞", "film"]
    assert example["gaps"] == ["", " ", " ", ""]


def test_equal_weights_are_pale_at_any_length():
    assert {figures.shade(1 / count, count) for count in (3, 17, 401)} == {2}
    assert figures.shade(1.0, 1) == 2
    assert figures.shade(0.5, 100) == figures.MAX_SHADE


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (-0.029, 0.027, [-0.02, 0.0, 0.02]),
        (1, 7, [2.0, 4.0, 6.0]),
        (0.71, 0.8, [0.725, 0.75, 0.775, 0.8]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert figures.Axis(low, high, 0, 1).ticks() == pytest.approx(expected)


def test_names_in_a_forest_plot_are_cut():
    drawing = figures.forest(
        [figures.Interval("a very long name of a model " * 3, 0.5, None, None, 0)], "{:.1f}".format, label=""
    )
    assert ">a very long name of a model a very long …<" in drawing


def test_axis_of_equal_values():
    axis = figures.Axis.around([0.5, 0.5], 10, 110)
    assert axis(0.5) == 60
    assert figures.Axis.around([], 0, 1).ticks()


def test_coordinates_of_a_forest_plot():
    rows = [
        figures.Interval("a", 0.5, 0.4, 0.6, 0),
        figures.Interval("b", 0.7, None, None, 9, points=[0.65, 0.75], seeds=(0.6, 0.8)),
    ]
    drawing = figures.forest(rows, str, label="two")
    axis = figures.Axis.around([0.4, 0.8], 8, figures.WIDTH - 8)
    assert f'cx="{axis(0.5)}"' in drawing
    assert f'x1="{axis(0.4)}"' in drawing
    assert f'x2="{axis(0.8)}"' in drawing
    assert drawing.count('class="ring"') == 2
    assert 'class="kind-1"' in drawing


def test_only_seeds_that_differ_have_a_line():
    results = make_results()
    metric = results["comparisons"][0]["metric"]
    (figure, *_) = quality.build(results)["intervals"]
    assert 'class="seeds"' in figure.drawing
    assert figure.note.endswith("Rings: single seeds; thin line: the 95 % interval over seeds.")
    for model in results["models"]:
        if metric in model["seeds"]:
            model["seeds"][metric] |= {"low": None, "high": None}
    (figure, *_) = quality.build(results)["intervals"]
    assert 'class="seeds"' not in figure.drawing
    assert figure.note.endswith("Rings: single seeds.")


def test_elements_escape_everything():
    child = figures.element("i", "&")
    drawing = figures.element("a", "<b>", [1, child], title='"x"', class_=None, data_id=0)
    assert drawing == '<a title="&#34;x&#34;" data-id="0">&lt;b&gt;1<i>&amp;</i></a>'


def make_example(tokens, weights, **others):
    return {"tokens": tokens, "weights": weights, "kind": "most confident, right", **others}


def test_cells_have_the_shades_of_the_texts():
    weights = [[0.5, 0.125, 0.125, 0.25], [0.9, 0.1]]
    figure = heatmap(
        read_examples([make_example(["a", "b", "c", "d"], weights[0]), make_example(["e", "<f>"], weights[1])])
    )
    cells = re.findall(r'<rect class="weight-(\d)" x="(\d+)" y="(\d+)"', figure.drawing)
    assert [int(cell[0]) for cell in cells] == [shade(weight, len(row)) for row in weights for weight in row]
    assert [cell[1] for cell in cells[:2]] == [cells[4][1], cells[5][1]]  # the same position, the same column
    assert len({cell[2] for cell in cells}) == 2
    assert "<title>&lt;f&gt;: 10.0" in figure.drawing


def test_long_examples_are_cut():
    count = MAX_COLUMNS + 7
    figure = heatmap(
        read_examples([make_example([str(place) for place in range(count)], [1 / count] * count, text=None)])
    )
    assert figure.drawing.count("<rect") == MAX_COLUMNS
    assert f"Only the first {MAX_COLUMNS} of up to {count} tokens are drawn." in figure.note


def test_many_examples_are_cut():
    figure = heatmap(read_examples([make_example(["a"], [1.0])] * (MAX_ROWS + 3)))
    assert figure.drawing.count("<rect") == MAX_COLUMNS
    assert f"Only the first {MAX_ROWS} of {MAX_ROWS + 3} examples are drawn." in figure.note


def test_no_heatmap_without_weights():
    assert heatmap([]) is None
    assert heatmap(read_examples([{"tokens": ["a"], "text": "a"}])) is None
