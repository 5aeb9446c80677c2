"""Texts are normalized, duplicates dropped, labels become classes, and each change is counted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limelight.data import DataError, Tokenizer
from limelight.data.cleaning import RawExamples, build_dataset
from limelight.data.unicode import fold

pytestmark = pytest.mark.backend_free


def clean(texts, labels):
    return build_dataset("d", RawExamples(list(texts), list(labels)), "the file 'd'", "column 'label'")


def pairs(dataset):
    return [(text, dataset.classes[label]) for text, label in zip(dataset.inputs, dataset.labels, strict=True)]


def test_classes_of_a_model_may_be_rare_or_missing():
    raw = RawExamples(["good film", "fine plot"], ["b", "b"])
    dataset = build_dataset("d", raw, "the file 'd'", "column 'label'", classes=("c", "b", "a"))
    assert (dataset.classes, dataset.labels.tolist()) == (("c", "b", "a"), [1, 1])
    with pytest.raises(
        DataError, match=r"must be those of the model: c, a\. Column 'label' holds 'b'\. Name another column"
    ):
        build_dataset("d", raw, "the file 'd'", "column 'label'", classes=("c", "a"))


def test_clean_rows_are_unchanged():
    dataset = clean(["good", "bad", "great", "awful"], ["p", "n", "p", "n"])
    assert pairs(dataset) == [("good", "p"), ("bad", "n"), ("great", "p"), ("awful", "n")]
    assert dataset.classes == ("n", "p")
    assert dataset.repairs == ()


def test_the_first_of_equal_texts_stays_and_contradictions_are_dropped():
    texts = ["a", "b", "a", "c", "d", "a", "c", "e", "f"]
    labels = ["x", "y", "x", "x", "y", "x", "y", "x", "y"]
    dataset = clean(texts, labels)
    assert pairs(dataset) == [("a", "x"), ("b", "y"), ("d", "y"), ("e", "x"), ("f", "y")]
    assert [str(repair) for repair in dataset.repairs] == [
        "duplicate texts dropped: 2",
        "texts dropped that occur with different labels: 2",
    ]


def test_texts_equal_after_normalization_are_duplicates():
    dataset = clean(["caf\u00e9\n1", "cafe\u0301\r\n1 ", "b", "c", "d"], ["x", "x", "y", "y", "x"])
    assert dataset.inputs == ("caf\u00e9\n1", "b", "c", "d")
    assert [str(repair) for repair in dataset.repairs] == [
        "texts whose line ends became \\n: 1",
        "texts converted to Unicode form NFC: 1",
        "duplicate texts dropped: 1",
    ]


def test_texts_with_equal_tokens_are_duplicates():
    texts = [
        "Don’t stop, 東京!",
        "don't  STOP ,東 京 !",
        "DON'T STOP,\n東京!",
        "Don’t stop, 東京!",
        "b",
        "B ",
        "c",
        "d",
        "e",
    ]
    dataset = clean(texts, ["x", "x", "x", "x", "x", "y", "y", "y", "x"])
    assert pairs(dataset) == [("Don’t stop, 東京!", "x"), ("c", "y"), ("d", "y"), ("e", "x")]
    assert [str(repair) for repair in dataset.repairs] == [
        "duplicate texts dropped: 1",
        "texts dropped that differ from another only in case or white space: 2",
        "texts dropped that occur with different labels: 2",
    ]


def test_texts_that_differ_in_punctuation_stay_and_are_counted():
    texts = ["good film", "Good film!", "good - film", "goodfilm", "bad", "bad?", ":-)", ":-("]
    dataset = clean(texts, ["x", "x", "y", "y", "x", "y", "x", "y"])
    assert list(dataset.inputs) == texts
    assert [str(repair) for repair in dataset.repairs] == [
        "texts that differ from an earlier one only in punctuation, kept in one part with it (the first: 'Good film!'): 3"
    ]


def test_texts_of_different_groups_may_be_in_different_parts():
    texts = ["good film", "Good film!", "good - film", "bad", "bad?", "so so", "so, so"]
    raw = RawExamples(list(texts), ["x", "y", "x", "x", "y", "x", "y"], groups=["a", "b", "a", "a", None, None, None])
    dataset = build_dataset("d", raw, "the file 'd'", "column 'stars'")
    assert [str(repair) for repair in dataset.repairs] == [
        "texts that differ only in punctuation from one of another group, which may be in another part: 2",
        "texts that differ from an earlier one only in punctuation, kept in one part with it (the first: 'good - film'): 2",
    ]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters() | st.sampled_from("aA'’ 7東ก\u0301-"), max_size=12), st.data())
def test_texts_with_the_same_token_ids_have_the_same_fold(text, data):
    tokenizer = Tokenizer([])
    tokens = tokenizer.encode([text])[0].tokens
    spaced = "".join(token + data.draw(st.sampled_from([" ", "\n\t"])) for token in tokens)
    other = data.draw(st.sampled_from([spaced, spaced.lower(), f" {text}\n"]))

    def model_input(each):
        return [token.lower().replace("’", "'") for token in Tokenizer([]).encode([each])[0].tokens]

    if model_input(other) == model_input(text):
        assert fold(other) == fold(text)


@pytest.mark.parametrize(
    ("text", "expected", "repair"),
    [
        ("a\r\nb\rc\nd", "a\nb\nc\nd", "texts whose line ends became \\n: 1"),
        ("a\ud83db", "a\ufffdb", "texts in which lone surrogates became U+FFFD: 1"),
        ("a\0b\0", "ab", "texts from which NUL characters were removed: 1"),
        ("A\u030a", "\u00c5", "texts converted to Unicode form NFC: 1"),
    ],
)
def test_each_kind_of_repair(text, expected, repair):
    dataset = clean([text, "p", "q", "r"], ["x", "y", "x", "y"])
    assert dataset.inputs[0] == expected
    assert [str(each) for each in dataset.repairs] == [repair]


@pytest.mark.parametrize("blank", ["", "  ", "\n\t", "\u3000\u00a0", "\0", None])
def test_blank_texts_are_dropped(blank):
    dataset = clean(["a", blank, "b", "c", "d"], ["x", "x", "y", "x", "y"])
    assert dataset.inputs == ("a", "b", "c", "d")
    assert "empty texts dropped: 1" in [str(repair) for repair in dataset.repairs]


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_rows_without_a_label_are_dropped(missing):
    dataset = clean(["a", "b", "c", "d", "e"], ["x", "y", missing, "x", "y"])
    assert dataset.inputs == ("a", "b", "d", "e")
    assert [str(repair) for repair in dataset.repairs] == ["rows without a label dropped: 1"]


@pytest.mark.parametrize("sign", ["NA", " n/a", "NaN", "null", "."])
def test_a_sign_of_a_missing_number_is_no_class_among_numbers(sign):
    texts = ["a", "b", "c", "d", "e"]
    dataset = clean(texts, ["0", "1", sign, "0.0", 1])
    assert (dataset.inputs, dataset.classes) == (("a", "b", "d", "e"), ("0", "1"))
    assert [str(repair) for repair in dataset.repairs] == ["rows without a label dropped: 1"]
    # Among names it may be one: the code of Namibia.
    assert clean([*texts, "f"], ["DE", "FR", sign, "DE", "FR", sign]).classes == tuple(
        sorted(["DE", "FR", sign.strip()])
    )


def test_none_may_be_a_class_among_numbers():
    assert clean(["a", "b", "c", "d"], ["1", "none", "1", "none"]).classes == ("1", "none")


@pytest.mark.parametrize(
    "text", ["👩‍👩‍👧‍👦 👍🏽", "مرحبا", "東京", "हिन्दी", "</script><img src=x onerror=alert(1)>", "\u202eabc"]
)
def test_other_scripts_and_markup_are_unchanged(text):
    dataset = clean([text, "a", "b", "c"], ["x", "y", "x", "y"])
    assert dataset.inputs[0] == text
    assert dataset.repairs == ()


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0, 1, 0, 1], ("0", "1")),
        ([0.0, 1.0, 0.0, 1.0], ("0", "1")),
        (["10", "9", "10", "9"], ("9", "10")),
        (["-1", "1", "-1", "1"], ("-1", "1")),
        ([0.5, 1.5, 0.5, 1.5], ("0.5", "1.5")),
        ([True, False, True, False], ("false", "true")),
        ([" b ", "a", "b", "a"], ("a", "b")),
        (["01", "1", "01", "1"], ("01", "1")),
        (["10", "9", "x", "x", "10", "9"], ("10", "9", "x")),
        ([1, "1", 2, "2"], ("1", "2")),
        (["caf\u00e9", "cafe\u0301", "a", "a"], ("a", "caf\u00e9")),
    ],
)
def test_labels_become_sorted_names(labels, classes):
    assert clean([f"text {i}" for i in range(len(labels))], labels).classes == classes


def test_many_fractions_are_not_classes():
    labels = [value / 8 for value in range(21)] * 2
    with pytest.raises(
        DataError,
        match=r"holds 21 different numbers, from 0 to 2.5. Predict the numbers themselves .task='regress'., group",
    ) as caught:
        clean([f"text {i}" for i in range(42)], labels)
    assert "\n" not in str(caught.value)


def test_few_fractions_are_classes():
    labels = [value / 2 for value in range(20)] * 2
    assert len(clean([f"text {i}" for i in range(40)], labels).classes) == 20


def test_many_whole_numbers_are_not_classes():
    labels = [str(value) for value in range(101)] * 2
    with pytest.raises(DataError, match=r"holds 101 different numbers, from 0 to 100"):
        clean([f"text {i}" for i in range(202)], labels)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["a", "b"], ["x", "x"], "at least two classes. Column 'label' holds only the class 'x'. Add examples"),
        (
            ["a", "b", "c"],
            ["x", "y", "y"],
            "at least two different examples. In column 'label', class 'x' has one. Add",
        ),
        (["a", "b"], ["x", "y"], r"class 'x' has one, and so has 'y'. Add"),
        (["a", "a", "b", "c"], ["x", "x", "y", "y"], "class 'x' has one"),
        (["a", "a"], ["x", "y"], "Column 'label' holds no class"),
        ([f"t{i}" for i in range(4)], ["w", "x", "y", "y"], "class 'w' has one, and so has 'x'. Add"),
        ([f"t{i}" for i in range(5)], ["v", "w", "x", "y", "y"], "class 'v' has one, and so have 2 other classes. Add"),
        (
            ["", " "],
            ["x", "y"],
            "The file 'd' must hold at least one labelled text. None is left of 2 rows; empty texts dropped: 2",
        ),
        ([], [], "None is left of 0 rows"),
        (["a" * 10_000_001, "b"], ["x", "y"], "at most 10,000,000 characters. The longest has 10,000,001"),
        (
            [f"t{i}" for i in range(20)],
            [f"id{i}" for i in range(20)],
            "holds 20 different values in 20 rows, 20 of them once",
        ),
        (["a", "b", "c"], ["l" * 99, "y", "y"], f"class '{'l' * 59}…' has one"),
    ],
)
def test_labels_that_cannot_be_classified_are_refused(texts, labels, message):
    with pytest.raises(DataError, match=message):
        clean(texts, labels)


anything = st.text(st.characters(), max_size=6) | st.sampled_from(["\ud800", "\0", "\r", "e\u0301"])


@settings(deadline=None)
@given(st.lists(st.tuples(anything, st.sampled_from("xy")), max_size=12))
def test_any_rows_are_cleaned_or_refused(rows):
    try:
        dataset = clean([text for text, _ in rows], [label for _, label in rows])
    except DataError:
        return
    assert len(set(dataset.inputs)) == len(dataset) >= 4
    for text in dataset.inputs:
        assert text == text.strip() != ""
        assert "\r" not in text
        assert "\0" not in text
        text.encode("utf-8")


@pytest.mark.parametrize("blank", [" ", "", None, "\t\n", float("nan")])
def test_a_blank_label_is_missing(blank):
    dataset = clean(["a", "b", "c", "d", "e"], ["x", "y", blank, "x", "y"])
    assert dataset.classes == ("x", "y")
    assert [str(repair) for repair in dataset.repairs] == ["rows without a label dropped: 1"]


def test_a_published_test_part_stays_and_its_texts_leave_the_rest():
    texts = ["a", "b", "c", "A ", "d", "e", "b", "f", "f!", "f", "g", "g"]
    labels = ["x", "y", "x", "y", "x", "y", "y", "y", "y", "y", "x", "y"]
    test = [row in (3, 4, 8, 9, 10, 11) for row in range(12)]
    dataset = build_dataset("d", RawExamples([*texts], labels, test=test), "the file 'd'", "column 'label'")
    assert dataset.inputs == ("b", "c", "A", "d", "e", "f!", "f", "g", "g")
    assert dataset.test.tolist() == [False, False, True, True, False, True, True, True, True]
    assert [str(repair) for repair in dataset.repairs] == [
        "texts dropped that the published test part holds: 2",
        "duplicate texts dropped: 1",
    ]


def regress(texts, targets, **keywords):
    raw = RawExamples(list(texts), list(targets), **keywords)
    return build_dataset("d", raw, "the file 'd'", "column 'stars'", is_regression=True)


def test_numeric_targets_of_equal_texts_are_averaged():
    texts = ["a", "b", "A ", "c", "", "b", "d", "e!", "e"]
    targets = ["1", 2.5, " 4.0", "-1e1", "7", 2.5, None, 3, "3"]
    dataset = regress(texts, targets)
    assert dataset.inputs == ("a", "b", "c", "e!", "e")
    assert dataset.targets.tolist() == [2.5, 2.5, -10, 3, 3]
    assert dataset.targets.dtype == "float64"
    assert (dataset.classes, dataset.labels.tolist()) == ((), [])
    assert [str(repair) for repair in dataset.repairs] == [
        "rows without a label dropped: 1",
        "empty texts dropped: 1",
        "duplicate texts with an equal target dropped: 1",
        "texts merged with an equal one, whose targets were averaged: 1",
        "texts that differ from an earlier one only in punctuation, kept in one part with it (the first: 'e'): 1",
    ]


def test_signs_of_missing_numbers_are_no_targets():
    dataset = regress(["a", "b", "c", "d", "e"], ["1", "NA", "2.5", "none", "."])
    assert (dataset.inputs, dataset.targets.tolist()) == (("a", "c"), [1, 2.5])
    assert [str(repair) for repair in dataset.repairs] == ["rows without a label dropped: 3"]


def test_groups_of_a_regression():
    dataset = regress(["a", "b", "a"], [1, 3, 4], groups=["x", None, "z"])
    assert (dataset.groups, dataset.targets.tolist()) == (("x", None), [2.5, 3])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["1", "two", "3"], "targets of a regression must be numbers. Column 'stars' holds 'two'. Name the column"),
        ([1, True, 2], "Column 'stars' holds 'True'"),
        ([1.0, float("inf"), 2], "Column 'stars' holds 'inf'"),
        (["1e999", "1", "2"], "Column 'stars' holds '1e999'"),
        ([3, 3, "3.0"], "needs different targets. Column 'stars' holds only 3. Name"),
    ],
)
def test_targets_that_cannot_be_predicted(targets, message):
    with pytest.raises(DataError, match=message):
        regress(["a", "b", "c"], targets)
