"""The choice of the text and the label column."""

import pytest

from limelight.data import DataError
from limelight.data.readers import LABEL_COLUMNS, TEXT_COLUMNS
from limelight.data.tables import Role, choose_columns

pytestmark = pytest.mark.backend_free


def choose(columns, text, label):
    roles = (Role("text", text, TEXT_COLUMNS), Role("label", label, LABEL_COLUMNS), Role("group"))
    return choose_columns(columns, roles, "'f.csv'")[:2]


@pytest.mark.parametrize(
    ("columns", "given", "expected"),
    [
        (["text", "label"], (None, None), ("text", "label")),
        (["id", "Review", "Sentiment"], (None, None), ("Review", "Sentiment")),
        (["id", " sentence ", "class"], (None, None), (" sentence ", "class")),
        (["id", "a", "b"], ("b", "a"), ("b", "a")),
        (["what", "label"], (None, "label"), ("what", "label")),
        (["text", "stars"], ("text", None), ("text", "stars")),
        (["one", "two"], ("two", None), ("two", "one")),
        (["text", "body", "label"], ("body", None), ("body", "label")),
    ],
)
def test_given_or_usual_columns_are_chosen(columns, given, expected):
    assert choose(columns, *given) == expected


@pytest.mark.parametrize(
    ("columns", "given", "message"),
    [
        (
            ["a", "b", "c"],
            (None, None),
            "one column with a usual name for the text.*No column is. It has the columns 'a', 'b', 'c'. Name it: text=",
        ),
        (["text", "review", "label"], (None, None), r"2 columns could be it \('text', 'review'\)"),
        (
            ["text", "class", "label"],
            (None, None),
            r"usual name for the label.*2 columns could be it \('class', 'label'\).*label=",
        ),
        (["text", "label"], ("txt", None), "There is no column 'txt'. Did you mean 'text'.*'text', 'label'"),
        (["text", "Stars"], (None, "stars"), "There is no column 'stars'. Did you mean 'Stars'"),
        (["text", "text", "label"], ("text", None), "There are 2 columns 'text'"),
        (["text", "label"], ("text", "text"), "must be two columns of 'f.csv'. Received: 'text' for both"),
        (["x" * 99, "y", "z"], (None, None), f"'{'x' * 39}…', 'y', 'z'"),
        ([f"c{i}" for i in range(60)], (None, None), "'c49' and 10 more"),
        ([], (None, None), "No column is"),
        (["a\nb", "\x1b[31m", "c"], (None, None), r"'a\\nb', '\\x1b\[31m'"),
    ],
)
def test_an_error_lists_the_columns(columns, given, message):
    with pytest.raises(DataError, match=message) as caught:
        choose(columns, *given)
    assert "\n" not in str(caught.value)
