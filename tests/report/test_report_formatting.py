"""Numbers as a reader wants them, texts cut into tokens, and axes with round ticks."""

import math

import pytest

from limelight.report import figures, formatting, markup, texts

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize(
    ("value", "metric", "expected"),
    [
        (0.7691, "accuracy", "76.9\u202f%"),
        (0.7691, "macro_f1", "76.9\u202f%"),
        (1, "recall", "100.0\u202f%"),
        (0.8424, "roc_auc", "0.842"),
        (12345.6, "mse", "1.235e+04"),
        (-0.25, "r2", "−0.250"),
        (None, "accuracy", "–"),
        (math.nan, "log_loss", "–"),
        ("high", "accuracy", "–"),
    ],
)
def test_amounts(value, metric, expected):
    assert formatting.amount(value, metric) == expected


@pytest.mark.parametrize(
    ("value", "metric", "expected"),
    [
        (0.0151, "accuracy", "+1.5"),
        (-0.007, "f1", "−0.7"),
        (-0.0001, "accuracy", "0.0"),
        (0.02, "log_loss", "+0.020"),
        (None, "f1", "–"),
    ],
)
def test_changes(value, metric, expected):
    assert formatting.change(value, metric) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0004, "p < .001"), (0.004, "p = .004"), (0.0096, "p = .01"), (0.5, "p = .50"), (1.0, "p = 1"), (math.nan, "–")],
)
def test_p_values(value, expected):
    assert formatting.p_value(value) == expected


def test_counts_and_durations():
    assert formatting.count(1366273) == "1\u202f366\u202f273"
    assert [formatting.duration(seconds) for seconds in (4.23, 41.4, 200, None)] == [
        "4.2\u202fs",
        "41\u202fs",
        "3\u202fmin 20\u202fs",
        "–",
    ]


def test_which_way_is_better():
    assert [
        metric
        for metric in ("accuracy", "log_loss", "brier_score", "roc_auc", "rmse")
        if formatting.lower_is_better(metric)
    ] == [
        "log_loss",
        "brier_score",
        "rmse",
    ]
    titles = [formatting.title_of(name) for name in ("roc_auc", "f1", "log_loss", "f1_macro")]
    assert titles == ["ROC AUC", "F1", "Log loss", "Macro F1"]
    assert [formatting.within(title) for title in titles] == ["ROC AUC", "F1", "log loss", "macro F1"]


def test_text_is_cut_at_the_offsets():
    text = "A  dull, dull film\nends."
    tokens = ["[CLS]", "a", "dull", ",", "dull", "film", "ends", "[SEP]"]
    offsets = [(0, 0), (0, 1), (3, 7), (7, 8), (9, 13), (14, 18), (19, 23), (0, 0)]
    pieces, gaps, ghosts = texts.cut(text, tokens, offsets)
    assert ghosts == [0, 7]
    assert [piece for index, piece in enumerate(pieces) if index not in ghosts] == [
        "A",
        "dull",
        ",",
        "dull",
        "film",
        "ends",
    ]
    whole = "".join(
        gap + (piece if index not in ghosts else "")
        for index, (gap, piece) in enumerate(zip(gaps, pieces, strict=False))
    )
    assert whole + gaps[-1] == text


def test_offsets_that_overlap_or_lie_outside_lose_no_text():
    pieces, gaps, ghosts = texts.cut("abcdef", ["ab", "bc", "ef", "x"], [(0, 2), (1, 3), (4, 9), (20, 21)])
    assert (pieces, gaps, ghosts) == (["ab", "bc", "ef", "x"], ["", "", "cd", "", ""], [1, 3])


def test_letters_beyond_the_basic_plane_count_as_one():
    (example,) = texts.read(
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
    assert {texts.shade(1 / count, count) for count in (3, 17, 401)} == {2}
    assert texts.shade(1.0, 1) == 2
    assert texts.shade(0.5, 100) == texts.SHADES


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


def test_names_in_a_forest_leave_room_for_the_values():
    drawn = figures.forest(
        [figures.Interval("a very long name of a model " * 3, 0.5, None, None, 0)], "{:.1f}".format, label=""
    )
    assert ">a very long name of a model a very long …<" in drawn


def test_an_axis_of_equal_values_has_a_length():
    axis = figures.Axis.around([0.5, 0.5], 10, 110)
    assert axis(0.5) == 60
    assert figures.Axis.around([], 0, 1).ticks()


def test_a_forest_lies_where_its_values_are():
    rows = [
        figures.Interval("a", 0.5, 0.4, 0.6, 0),
        figures.Interval("b", 0.7, None, None, 9, points=[0.65, 0.75], seeds=(0.6, 0.8)),
    ]
    drawn = figures.forest(rows, str, label="two")
    axis = figures.Axis.around([0.4, 0.8], 8, figures.WIDTH - 8)
    assert f'cx="{axis(0.5)}"' in drawn
    assert f'x1="{axis(0.4)}"' in drawn
    assert f'x2="{axis(0.8)}"' in drawn
    assert drawn.count('class="ring"') == 2
    assert 'class="kind-1"' in drawn


def test_elements_escape_everything():
    drawn = markup.element(
        "a", "<b>", None, [1, markup.element("i", "&")], title='"x"', hidden=True, class_=None, data_id=0
    )
    assert drawn == '<a title="&quot;x&quot;" hidden data-id="0">&lt;b&gt;1<i>&amp;</i></a>'
