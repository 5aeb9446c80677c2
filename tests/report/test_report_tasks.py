"""The parts of the page on predicted numbers, forecasts and translations: what they draw, and that data is never markup."""

import re

import pytest

from limelight import report
from limelight.report import forecasts, regressions, translations
from report.studies import FORECAST, TRANSLATION

pytestmark = pytest.mark.backend_free


def rectangles(drawing):
    return re.findall(r"<rect ([^>]*)>", str(drawing))


def test_a_forecast_is_drawn_with_its_band_and_its_weights():
    models = [{"name": "attention", "coverage": 0.75, "steps": {"mase": [0.5, 1.0]}}]
    parts = forecasts.build({"models": models, "forecasts": {"levels": [0.1, 0.5, 0.9], "entries": [FORECAST]}})
    (figure,) = parts["figures"]
    drawing = str(figure.drawing)
    # Three bars, as high as the weights are large.
    heights = [float(re.search(r'height="([\d.]+)"', each)[1]) for each in rectangles(drawing)]
    assert [height / heights[-1] for height in heights] == pytest.approx([0.4, 0.6, 1.0], abs=0.01)
    polygon = re.search(r'<polygon points="([^"]+)"', drawing)[1]
    assert len(polygon.split()) == 4
    lines = [len(each.split()) for each in re.findall(r'<polyline points="([^"]+)"', drawing)]
    assert lines == [5, 3, 3]
    assert "<img" not in drawing
    assert figure.note == "mean absolute scaled error 0.500"
    assert parts["coverage"] == [("Attention", "75\u202f%")]
    (steps,) = parts["steps"]
    assert len(re.findall("<circle", str(steps.drawing))) == 2


def test_a_forecast_without_a_band():
    entry = {**FORECAST, "low": None, "high": None}
    (figure,) = forecasts.build({"forecasts": {"entries": [entry]}})["figures"]
    assert "polygon" not in str(figure.drawing)


def test_an_alignment_is_source_times_target():
    parts = translations.build({"translations": [TRANSLATION]})
    (entry,) = parts["entries"]
    cells = rectangles(entry["drawing"])
    assert len(cells) == 3 * 2
    opacities = [float(re.search(r'fill-opacity="([\d.]+)"', each)[1]) for each in cells]
    assert opacities == pytest.approx([0.04 + 0.96 * weight for weight in (0.9, 0.1, 0.25, 0.75, 0, 1)], abs=1e-3)
    assert entry["rows"] == [["50\u202f%", "the dog"], ["10\u202f%", "a dog"]]
    assert "<img" not in str(entry["drawing"])
    assert parts["note"] == ""


def test_predicted_numbers_are_drawn_against_the_true_ones():
    models = [{"name": "attention", "predictions": [[0.0, 1.0], [2.0, 2.0]]}, {"name": "mean", "predictions": []}]
    (figure,) = regressions.build({"models": models})
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', str(figure.drawing))
    (x1, y1), (x2, y2) = ((float(x), float(y)) for x, y in circles)
    assert x1 < x2
    assert y1 > y2


def test_the_page_escapes_the_data():
    results = {"models": [{"name": "attention"}], "forecasts": {"entries": [FORECAST]}, "translations": [TRANSLATION]}
    page = report.render(results={"schema_version": 1, **results})
    assert "<img" not in page
    assert page.count('role="img"') >= 2
    assert 'href="#forecasts"' in page
    assert 'href="#translations"' in page


@pytest.mark.parametrize(
    "section", [None, [], {}, "text", {"entries": None}, {"entries": [{}]}, [{}], [{"hypotheses": [{}]}]]
)
def test_every_part_may_be_missing(section):
    results = {"schema_version": 1, "title": "Nothing", "forecasts": section, "translations": section}
    assert "Nothing" in report.render(results=results)
