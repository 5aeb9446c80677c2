"""axe-core finds no violation on the page of attention maps or on a study's report, at both widths, light and dark."""

from pathlib import Path

import numpy as np
import pytest

from browsing import find_violations
from limelight import report
from limelight.maps import AttentionMap
from limelight.report import View
from report.studies import FORECAST, TRANSLATION, make_maps, make_results

pytestmark = [pytest.mark.backend_free, pytest.mark.browser, pytest.mark.slow]

SIZES = pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page as `limelight show` writes it, and reports of studies of every task."""
    folder = tmp_path_factory.mktemp("pages")
    random = np.random.default_rng(0)
    maps = make_maps()
    labels = [f"Predicted: output {index + 1} of 3 (80%)" for index in range(3)]
    signed = {key: AttentionMap.from_weights(random.normal(size=each.shape)) for key, each in maps.items()}
    show = View(maps, rankings={"gradient × attention": signed}, labels=labels)
    weights = random.dirichlet(np.ones(9), (1, 2, 1))
    series = View(
        AttentionMap.from_weights(weights, path="pool"), series=[random.normal(size=9)], labels=["Predicted: 1"]
    )
    model = {"name": "attention", "title": "LSTM + attention", "coverage": 0.75, "steps": {"mase": [0.5, 1.0]}}
    tasks = {
        "schema_version": 1,
        "title": "Forecasts and translations",
        "command": "limelight study pairs.tsv",
        "models": [model],
        "forecasts": {"levels": [0.1, 0.5, 0.9], "entries": [FORECAST]},
        "translations": [TRANSLATION],
    }
    facts, notes = {"Model": "model.keras, 686 parameters", "Input": "a film"}, ["Not found: the layer `x`."]
    report.write(folder / "show.html", show, title="What model.keras reads", facts=facts, notes=notes)
    report.write(folder / "series.html", series, title="What series.keras reads", facts=facts)
    report.write(folder / "compare.html", View({"first": maps, "second": make_maps(seed=4)}), title="Two models")
    report.write(folder / "study.html", maps, results=make_results())
    report.write(folder / "tasks.html", results=tasks)
    return {path.stem: path for path in folder.iterdir()}


@SIZES
@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("show", ""),
        ("show", "view=text&row=3&held=1&zoom=2"),
        ("show", "view=arcs&map=1"),
        ("show", "map=3"),
        ("series", ""),
        ("compare", "measure=drift"),
        ("study", ""),
        ("tasks", ""),
    ],
)
def test_axe_finds_no_violation(tab, pages, width, scheme, name, state):
    tab.size(width, scheme=scheme)
    tab.reload(pages[name], state)
    tab.run("for (const each of document.querySelectorAll('details')) each.open = true")
    assert find_violations(tab.driver) == []


@SIZES
def test_axe_finds_no_violation_in_the_help(tab, pages, width, scheme):
    tab.size(width, scheme=scheme)
    tab.open(pages["show"])
    tab.keys("?")
    assert tab.one("#help").is_displayed()
    assert find_violations(tab.driver) == []
    tab.keys("?")
