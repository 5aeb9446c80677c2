"""A study of series to forecast: its metrics against loops in numpy, its files, its report, and its errors."""

import json
import types

import numpy as np
import pytest

from limelight import models
from limelight.data import Panel, load_panel
from limelight.exceptions import DataError
from limelight.study import Settings, UsageError, job, run
from limelight.study.forecasting import Forecasting
from limelight.study.setup import Setup, prepare

pytestmark = pytest.mark.full

SMALL = {"epochs": 2, "epoch_steps": 1, "units": 3, "batch_size": 16, "learning_rate": 0.01, "seeds": 2, "explain": 0}
HORIZON, SEASON, PAST, FOLDS = 3, 4, 8, 2


def draw_shops(random):
    """Return the rows of a long table of three series of different lengths and sizes."""
    rows = []
    for index, length in enumerate((41, 47, 53)):
        promo = random.integers(0, 2, length)
        values = (index + 1) * (20 + 3 * np.sin(np.arange(length) * np.pi / 2) + promo) + random.normal(size=length)
        for step in range(length):
            rows.append(f"shop{index},{2000 + step // 4}Q{step % 4 + 1},{values[step]:.3f},{promo[step]}")
    return "shop,quarter,sales,promo\n" + "\n".join(rows) + "\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forecast")
    path = folder / "shops.csv"
    path.write_text(draw_shops(np.random.default_rng(7)))
    settings = Settings(
        data=str(path), series="shop", known=("promo",), horizon=HORIZON, past=PAST, folds=FOLDS, out=str(folder / "out"),
        examples=2, **{**SMALL, "explain": 4},
    )  # fmt: skip
    results, report = run(settings)
    return settings, results, report.parent


def load(settings):
    return load_panel(settings.data, series="shop", known=("promo",))


def test_the_attention_is_tested_on_test_forecasts(finished):
    _, results, _ = finished
    explanation = results["explanation"]
    assert explanation["num_outputs"] == 4
    assert explanation["output"] == "values"
    assert explanation["layer"] == "attention"
    assert explanation["uniform"]["metric"] == "mae"
    assert explanation["tokens"] == PAST


@pytest.mark.backend_free
def test_a_difference_is_that_of_the_metrics_where_a_series_has_fewer_forecasts():
    # Three forecasts of one step of the first series, one of the second.
    actual, errors = np.zeros((4, 1)), {"attention": np.array([1.0, 2, 1, 4]), "none": np.array([3.0, 2, 4, 5])}
    names = {"attention": "attention", "none": "no attention"}
    experiment = types.SimpleNamespace(
        units=np.array([0, 0, 0, 1]), actual=actual, naive_errors=np.array([2.0, 2, 2, 1]), names=names
    )
    points = {name: [each[:, None], each[:, None] + 0.1] for name, each in errors.items()}
    comparison = Forecasting._compare(experiment, points, "none")  # pyright: ignore[reportArgumentType]
    expected = np.mean((errors["attention"] - errors["none"]) / experiment.naive_errors)
    assert comparison.difference.value == pytest.approx(expected)


def test_metrics_are_those_of_loops(finished):
    settings, results, out = finished
    panel = load(settings)
    assert results["data"]["season"] == SEASON
    for model in results["models"]:
        for run_entry in model["runs"]:
            if model["name"] in ("naive", "last"):
                season = SEASON if model["name"] == "naive" else 1
                stored = None
            else:
                archive = np.load(out / "runs" / f"{model['name']}-seed{run_entry['seed']}" / "predictions.npz")
                stored = archive["test"]
                assert stored.shape == (3 * FOLDS, HORIZON, 3)
                assert (np.diff(stored, axis=-1) >= 0).all()
            scaled, absolute, symmetric, row = [], [], [], 0
            for values in panel.values:
                values = values.astype(float)
                first = len(values) - FOLDS * HORIZON
                naive_error = np.mean([abs(values[step] - values[step - SEASON]) for step in range(SEASON, first)])
                for fold in range(FOLDS):
                    origin = first + fold * HORIZON
                    for step in range(HORIZON):
                        forecast = (
                            stored[row, step, 1] if stored is not None else values[origin - season + step % season]
                        )
                        error = abs(values[origin + step] - forecast)
                        scaled.append(error / naive_error)
                        absolute.append(error)
                        symmetric.append(2 * error / (abs(values[origin + step]) + abs(forecast)))
                    row += 1
            assert run_entry["metrics"]["mase"] == pytest.approx(np.mean(scaled), rel=1e-5)
            assert run_entry["metrics"]["mae"] == pytest.approx(np.mean(absolute), rel=1e-5)
            assert run_entry["metrics"]["smape"] == pytest.approx(np.mean(symmetric), rel=1e-5)
        means = {name: np.mean([each["metrics"][name] for each in model["runs"]]) for name in ("mase", "mae", "mape")}
        for name, mean in means.items():
            estimate = model["metrics"][name]
            assert estimate["value"] == pytest.approx(mean)
            assert estimate["low"] < mean < estimate["high"]
            assert estimate["method"] == "jackknife over 3 units, t"
        assert np.mean(model["steps"]["mae"]) == pytest.approx(means["mae"])
        assert np.mean(model["steps"]["mase"]) == pytest.approx(means["mase"])


def test_models_comparisons_and_verdict(finished):
    _, results, _ = finished
    assert results["task"] == "forecast"
    assert [(model["name"], len(model["runs"])) for model in results["models"]] == [
        ("attention", 2),
        ("none", 2),
        ("naive", 1),
        ("last", 1),
    ]
    pairs = [(each["first"], each["second"], each["metric"]) for each in results["comparisons"]]
    assert pairs == [("attention", "none", "mase"), ("attention", "naive", "mase")]
    means = {model["name"]: model["metrics"]["mase"]["value"] for model in results["models"]}
    for entry in results["comparisons"]:
        assert entry["difference"] == pytest.approx(means["attention"] - means[entry["second"]], rel=1e-6)
    # Two epochs are too few.
    assert results["verdict"][0].startswith("No claim about the mean absolute scaled error of attention can be made: ")
    assert 0 <= results["models"][0]["coverage"] <= 1


def test_forecasts_in_the_report_are_those_of_the_saved_model(finished):
    settings, results, out = finished
    estimator = models.load(out / "model.keras")
    panel = load(settings)
    entries = results["forecasts"]["entries"]
    assert results["forecasts"]["levels"] == [0.1, 0.5, 0.9]
    assert {entry["kind"] for entry in entries} == {"smallest error", "median error", "largest error"}
    for entry in entries:
        index = panel.ids.index(entry["id"])
        origin = [str(time) for time in panel.times[index]].index(entry["times"][0])
        past = Panel(
            "past",
            (entry["id"],),
            (panel.times[index][:origin],),
            (panel.values[index][:origin],),
            known=(panel.known[index][: origin + HORIZON],),
        )
        np.testing.assert_allclose(estimator.predict(past)[0, :, 1], entry["forecast"], rtol=1e-4)
        np.testing.assert_allclose(panel.values[index][origin : origin + HORIZON], entry["actual"])
        np.testing.assert_allclose(panel.values[index][origin - PAST : origin], entry["past"])
        assert len(entry["weights"]) == len(entry["past"]) == PAST
        assert sum(entry["weights"]) == pytest.approx(1, abs=1e-4)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Seasonal naive" in page
    assert page.count("Forecast of shop") == len(entries)
    assert "its band from 10" in page
    figures = {path.name for path in (out / "figures").iterdir()}
    assert {"loss.svg", "difference-mase.svg"} <= figures


def test_an_interrupted_study_gives_the_same_result(finished, tmp_path):
    settings, results, _ = finished
    other = Settings(**{**vars(settings), "out": str(tmp_path / "out"), "explain": 0})
    run(Settings(**{**vars(other), "seeds": 1}))
    (tmp_path / "out" / "runs" / "none-seed1" / "run.json").unlink()
    again, _ = run(other)
    assert [model["metrics"] for model in again["models"]] == [model["metrics"] for model in results["models"]]


def test_a_published_test_part_and_one_value(tmp_path, random):
    values = [10 + np.sin(np.arange(30) / 2) + random.normal(size=30) / 9 for _ in range(2)]
    tests = [random.normal(size=4) + 10 for _ in range(2)]
    times = (np.arange(30),) * 2
    panel = Panel("tiny", ("a", "b"), times, tuple(values), season=1, horizon=4, test=tuple(tests), source="drawn")
    out = tmp_path / "out"
    settings = Settings(out=str(out), quantiles=(), past=6, examples=0, **{**SMALL, "seeds": 1}).for_task("forecast")
    results, _ = job.run(Setup(settings, panel, None, out))
    assert [model["title"] for model in results["models"]] == [
        "LSTM + attention",
        "LSTM without attention",
        "Last value",
    ]
    forecasts = np.load(out / "runs" / "attention-seed1" / "predictions.npz")["test"]
    assert forecasts.shape == (2, 4)
    naive = results["models"][2]["metrics"]
    errors = [abs(test - value[-1]) for test, value in zip(tests, values, strict=True)]
    assert naive["mae"]["value"] == pytest.approx(np.mean(errors), rel=1e-5)
    scales = [np.mean(np.abs(np.diff(value.astype("float32").astype(float)))) for value in values]
    scaled = [error.mean() / scale for error, scale in zip(errors, scales, strict=True)]
    assert naive["mase"]["value"] == pytest.approx(np.mean(scaled), rel=1e-5)
    assert "coverage" not in results["models"][0]
    assert json.loads((out / "results.json").read_text())["data"]["folds"] == 1
    with pytest.raises(UsageError, match=r"tiny has a published test part of 4 steps\. Leave --folds out"):
        job.run(Setup(Settings(out=str(out), folds=2).for_task("forecast"), panel, None, out), fresh=True)


def test_one_series_is_tested_over_its_forecasts(tmp_path, random):
    path = tmp_path / "one.csv"
    rows = [f"{1990 + step // 12}-{step % 12 + 1:02d},{10 + random.normal():.3f}" for step in range(72)]
    path.write_text("month,value\n" + "\n".join(rows) + "\n")
    small = {**SMALL, "epochs": 1, "units": 8, "architecture": "transformer"}
    settings = Settings(data=str(path), out=str(tmp_path / "out"), past=12, horizon=6, examples=1, **small)
    results, _ = run(settings)
    assert results["models"][0]["title"] == "Transformer + attention"
    assert [entry["kind"] for entry in results["forecasts"]["entries"]] == ["smallest error"]
    # A fifth of 72 steps holds two horizons.
    assert results["data"]["folds"] == 2
    assert results["models"][0]["metrics"]["mase"]["method"] == "jackknife over 2 units, t"
    assert results["caveats"][-1] == (
        "The intervals take the 2 forecasts of the one series, 6 steps apart, as independent."
    )


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"horizon": 40},
            DataError,
            r"longer than twice the horizon.*40 steps, once for the test.*lower --horizon, --folds, --past or --season",
        ),
        ({"past": 3, "season": 12}, DataError, r"`past` must be at least a season\. Received: past=3, season=12"),
        ({"value": "price"}, DataError, r"'value' must name a column"),
        ({"known": ("weather",)}, DataError, r"no column 'weather'"),
    ],
)
def test_wrong_data_and_settings_are_one_line(tmp_path, random, given, error, message):
    path = tmp_path / "one.csv"
    rows = [f"{1990 + step // 12}-{step % 12 + 1:02d},{random.normal():.3f}" for step in range(48)]
    path.write_text("month,value\n" + "\n".join(rows) + "\n")
    with pytest.raises(error, match=message) as caught:
        job.run(prepare(Settings(data=str(path), out=str(tmp_path / "out"), **given)))
    assert "\n" not in str(caught.value)
