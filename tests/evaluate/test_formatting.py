"""Numbers and names of metrics as strings: the same in sentences, tables, plots and pages."""

import math
import re

import pytest

from limelight import _formatting as formatting
from limelight import evaluate, plot, report

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize(
    ("value", "metric", "expected"),
    [
        (0.7691, "accuracy", "76.9\u202f%"),
        (0.7691, "macro_f1", "76.9\u202f%"),
        (0.7691, "f1_macro", "76.9\u202f%"),
        (1, "recall", "100.0\u202f%"),
        (0.123, "mape", "12.3\u202f%"),
        (0.8424, "roc_auc", "0.842"),
        (0.000421, "mse", "0.000421"),
        (12345.6, "mse", "1.235e+04"),
        (-0.25, "r2", "−0.250"),
        (None, "accuracy", "–"),
        (math.nan, "log_loss", "–"),
        ("high", "accuracy", "–"),
    ],
)
def test_values(value, metric, expected):
    assert formatting.format_value(value, metric) == expected
    assert formatting.format_value(value, metric, unit=False) == expected.removesuffix("\u202f%")


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
def test_differences(value, metric, expected):
    assert formatting.format_difference(value, metric) == expected


@pytest.mark.parametrize(("values", "digits", "expected"), [
    ((4.41e-5, -3.39e-4, 6.44e-4), 2, ["+0.00004", "−0.00034", "+0.00064"]),
    ((4.41e-5, -3.39e-4, 6.44e-4), 3, ["+0.000044", "−0.000339", "+0.000644"]),
    ((4.41e-5, -0.02, 0.51), 2, ["0.00", "−0.02", "+0.51"]),
    ((0.0, None), 2, ["0.00", "–"]),
    ((4.4e-9, -3.4e-8), 2, ["+4.4e−09", "−3.4e−08"]),
    ((12.345, -0.5), 2, ["+12.35", "−0.50"]),
    ((123.45, -0.5), 3, ["+123.5", "−0.5"]),
    ((12345.6, -1234.5), 3, ["+12,346", "−1,234"]),
])  # fmt: skip
def test_differences_beside_each_other_have_the_same_decimals(values, digits, expected):
    assert formatting.format_differences(values, "mae", digits) == expected
    assert formatting.format_differences([0.0151, -0.0001], "accuracy", digits) == ["+1.5", "0.0"]


@pytest.mark.parametrize(("p_value", "expected"), [
    (0.0, "p < .001"), (0.0004, "p < .001"), (0.00099, "p < .001"), (0.001, "p = .001"), (0.004, "p = .004"),
    (0.0094, "p = .009"), (0.0096, "p = .010"), (0.0099, "p = .010"), (0.049, "p = .049"), (0.0502, "p = .050"),
    (0.0213, "p = .02"), (0.5, "p = .50"), (0.999, "p = 1"), (1.0, "p = 1"), (math.nan, "–"), (None, "–"),
])  # fmt: skip
def test_p_values(p_value, expected):
    assert formatting.format_p_value(p_value) == expected


def test_counts_and_durations():
    assert formatting.format_count(1366273) == "1,366,273"
    assert formatting.format_count(None) == "–"
    assert [formatting.format_duration(seconds) for seconds in (4.23, 41.4, 200, None)] == [
        "4.2\u202fs",
        "41\u202fs",
        "3\u202fmin 20\u202fs",
        "–",
    ]


def test_names_and_directions_of_metrics():
    names = ("accuracy", "log_loss", "brier_score", "roc_auc", "rmse")
    lower = [name for name in names if not formatting.get_metric(name).higher_is_better]
    assert lower == ["log_loss", "brier_score", "rmse"]
    names = ("roc_auc", "f1", "log_loss", "f1_macro")
    assert [formatting.format_title(name) for name in names] == ["ROC AUC", "F1", "Log loss", "Macro F1"]
    assert [formatting.get_metric(name).label for name in names] == ["ROC AUC", "F1", "log loss", "macro F1"]


@pytest.mark.parametrize(("metric", "value", "difference", "p_value", "expected"), [
    ("accuracy", 0.7691, 0.0151, 0.049, ("76.9", "+1.5", "p = .049")),
    ("f1_macro", 0.7691, -0.0151, 0.0096, ("76.9", "−1.5", "p = .010")),
    ("log_loss", 0.0004, -0.0002, 0.2, ("0.0004", "−0.0002", "p = .20")),
    ("mape", 0.12, 0.01, 0.0502, ("12.0", "+1.0", "p = .050")),
])  # fmt: skip
def test_sentence_table_and_figure_agree(metric, value, difference, p_value, expected):
    """The sentence, the tables and figures of the page and the plot write the same numbers."""
    estimate = evaluate.Estimate(difference, difference - 0.1, difference + 0.1, "", 97)
    comparison = evaluate.Comparison(
        metric, ("a", "b"), evaluate.Estimate(value, None, None, "", 97), evaluate.Estimate(value, None, None, "", 97),
        estimate, p_value, "", 97, 3,
    )  # fmt: skip
    sentence = evaluate.sentence(comparison)
    plotted = plot.difference(comparison).texts[0].get_text()
    page = report.render(
        results={
            "models": [{"name": name, "metrics": {metric: {"value": value}}} for name in ("a", "b")],
            "comparisons": [
                {"first": "a", "second": "b", "metric": metric, "difference": difference, "low": estimate.low,
                 "high": estimate.high, "p_value": p_value, "sentence": ""}
            ],
        }
    )  # fmt: skip
    tables, figures = (
        re.sub("<svg.*?</svg>", "", page, flags=re.DOTALL),
        "".join(re.findall("<svg.*?</svg>", page, re.DOTALL)),
    )
    formatted_value, formatted_difference, formatted_p_value = expected
    for text in (sentence, plotted, tables):
        assert formatted_difference in text
        assert formatted_p_value in text
    for text in (sentence, tables, figures):
        assert re.search(rf"(?<![\d.]){formatted_value}(?![\d.])", text)
    assert formatted_difference in figures
    assert evaluate.METRICS[metric].label in sentence
    assert formatting.format_title(metric) in tables
