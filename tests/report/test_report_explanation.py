"""The section on whether the attention explains the predictions."""

import math
from typing import Any

import numpy as np
import pytest

from limelight import evaluate, report
from limelight.report import explanation

pytestmark = pytest.mark.backend_free


@pytest.fixture(scope="module")
def document():
    """A result as `Explanation.to_dict` writes it, of a model that reads the token 7."""

    def predict(batch):
        positive = np.array([0.1 + 0.8 * np.any(example == 7) for example in batch])
        return np.stack([1 - positive, positive], axis=1)

    random = np.random.default_rng(0)
    examples = [np.append(random.integers(7, size=9), 7) for _ in range(30)]
    rankings = {"attention": [np.arange(10)] * 30, "integrated_gradients": [np.arange(10)[::-1]] * 30}
    result = evaluate.faithfulness(predict, examples, rankings, resamples=100)
    rows = []
    for name, measures in result.measures.items():
        row: dict[str, Any] = {"ranking": name, "title": name.replace("_", " ")}
        for measure, estimate in measures.items():
            row |= {measure: estimate.value, f"{measure}_low": estimate.low, f"{measure}_high": estimate.high}
        for measure, against in result.against_random.get(name, {}).items():
            row[f"{measure}_better"] = against.better
        rows.append(row)
    estimate = {"value": -0.123, "low": -0.2, "high": 0.0}
    return {
        "n": 30, "tokens": 10.0, "layer": "pool <b>", "perturbation": "deleted", "output": "probabilities",
        "verdict": ["On 30 examples these tests support <i> it."],
        "table": rows, "faithfulness": result.to_dict(),
        "agreement": {"gradients": estimate, "leave_one_out": {"value": None, "low": None, "high": None}},
        "agreement_by_class": {"pos": {"gradients": estimate}}, "cost": {"forward": 1234, "seconds": 5.0},
    }  # fmt: skip


def test_the_section_shows_the_numbers(document):
    built = explanation.build({"explanation": document})
    assert [figure.title for figure in built["figures"]] == ["Tokens removed", "Tokens inserted", "Comprehensiveness"]
    rows = dict(built["rows"])
    assert [title for title, _ in built["measures"]][:2] == ["Comprehensiveness", "Sufficiency"]
    assert rows["attention"][0]["value"] == "0.800"
    assert rows["attention"][0]["is_better"]
    assert not rows["integrated gradients"][0]["is_better"]
    assert built["agreement"] == [
        ["All examples", "−0.12 (−0.20 to 0.00)", "–"],
        ["Predicted pos", "−0.12 (−0.20 to 0.00)", "–"],
    ]
    assert ("Forward passes", "1,234") in built["facts"]


def test_the_curves_are_those_of_the_results(document):
    drawing = str(explanation.build({"explanation": document})["figures"][0].drawing)
    curve = document["faithfulness"]["deletion"]["attention"]
    assert drawing.count("<polyline") == drawing.count("<polygon") == 3
    last = drawing.rindex('<polyline points="') + len('<polyline points="')
    points = [tuple(map(float, pair.split(","))) for pair in drawing[last : drawing.index('"', last)].split()]
    assert len(points) == len(curve["mean"])
    # The last line is that of attention: it falls at once, and stays.
    assert points[1][1] > points[0][1]
    assert all(math.isclose(y, points[1][1]) for _, y in points[1:])


def test_the_page_has_the_section(document):
    page = report.render(results={"schema_version": 1, "explanation": document})
    assert "Does the attention explain the predictions?" in page
    assert "these tests support &lt;i&gt; it." in page
    assert "pool &lt;b&gt;" in page


@pytest.mark.parametrize(
    "damaged", [None, [], {"verdict": None}, {"verdict": ["a"], "table": [None, {}], "faithfulness": 3}]
)
def test_missing_parts_are_left_out(damaged):
    built = explanation.build({"explanation": damaged})
    assert built["figures"] == []
    assert built["facts"] == []
    report.render(results={"schema_version": 1, "title": "x", "explanation": damaged})
