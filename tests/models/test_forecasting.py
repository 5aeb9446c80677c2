"""Forecasts: the Keras model against loops, windows by hand, and the estimator on arrays, panels and frames."""

import dataclasses
import datetime
import json
import zoneinfo

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from limelight import capture, models
from limelight.data import Panel
from limelight.data.timesteps import Grid
from limelight.exceptions import DataError
from limelight.models.objectives import AbsoluteError, Quantiles
from limelight.models.panels import Columns, as_panel, future_times
from limelight.models.windows import WindowInputs, Windows, compute_naive_errors, repeat_season

FAST = {"epochs": 1, "batch_size": 4, "units": 4, "training": {"epoch_steps": 1}, "random_state": 3, "verbose": False}
LEVELS = [0.1, 0.5, 0.9]


def make(**params):
    """Return a forecaster that trains in a moment."""
    return models.Forecaster(**{**FAST, "horizon": 3, "past": 7, "windows": 12, **params})


def make_series(lengths=(29, 23, 5, 2)):
    random = np.random.default_rng(5)
    return [10 + np.sin(np.arange(length) / 2) + random.normal(size=length) / 9 for length in lengths]


def to_numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


# The Keras model


def randomize(model):
    """Give all weights of a model random values, and return it."""
    random = np.random.default_rng(11)
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=variable.shape, scale=0.5))
    return model


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(steps, kernel, recurrent, bias, units):
    hidden, carry, states = np.zeros(units), np.zeros(units), []
    for step in steps:
        i, f, c, o = np.split(step @ kernel + hidden @ recurrent + bias, 4)
        carry = sigmoid(f) * carry + sigmoid(i) * np.tanh(c)
        hidden = sigmoid(o) * np.tanh(carry)
        states.append(hidden)
    return np.array(states)


def attend(query, states, weights):
    """Return the average of the states under an additive score."""
    hidden = np.tanh(query @ weights["query_kernel"] + states @ weights["key_kernel"] + weights["bias"])
    scores = hidden @ weights["readout"][:, 0]
    return np.exp(scores) @ states / np.exp(scores).sum()


def make_batch(model, random):
    shapes = {name: tensor.shape for name, tensor in model.input.items()}
    batch = {name: random.normal(size=(2, *shape[1:])).astype("float32") for name, shape in shapes.items()}
    past = shapes["mask"][1]
    return batch | {"mask": np.arange(past) < np.array([[past], [past - 2]])}


def named_weights(layer):
    return {variable.path.rsplit("/", 1)[1]: to_numpy(variable) for variable in layer.variables}


@pytest.mark.parametrize("num_known", [0, 2])
def test_the_last_state_attends_to_the_states_of_the_encoder(num_known, random):
    model = randomize(models.build_forecaster(7, 3, num_known=num_known, num_static=2, units=5))
    batch = make_batch(model, random)
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    for row, length in enumerate((7, 5)):
        features = np.concatenate([batch["past"][row], np.tile(batch["static"][row], (7, 1))], axis=1)
        states = lstm(features[:length], *weights["lstm"], 5)
        queries = states[-1:]
        if num_known:
            kernel, bias = weights["horizon"]
            future = np.concatenate([np.tile(states[-1], (3, 1)), batch["future"][row]], axis=1)
            queries = np.tanh(future @ kernel + bias)
        score = named_weights(model.get_layer("attention"))
        vectors = np.array([np.concatenate([query, attend(query, states, score)]) for query in queries])
        if num_known:
            kernel, bias = weights["output_hidden"]
            vectors = np.maximum(vectors @ kernel + bias, 0)
        kernel, bias = weights["outputs"]
        outputs = to_numpy(model(batch, training=False))[row]
        np.testing.assert_allclose(outputs, (vectors @ kernel + bias).ravel(), rtol=1e-4, atol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("architecture", ["lstm", "transformer"])
def test_padding_is_invisible_and_attention_causal(architecture, random):
    settings = {"num_known": 2, "num_observed": 1, "num_static": 2, "quantiles": LEVELS, "variable_selection": True}
    model = randomize(models.build_forecaster(7, 3, units=8, architecture=architecture, **settings))
    batch = make_batch(model, random)
    changed = {**batch, "past": np.where(batch["mask"][..., None], batch["past"], 99).astype("float32")}
    outputs = to_numpy(model(batch, training=False))
    assert outputs.shape == (2, 3, 3)
    np.testing.assert_allclose(to_numpy(model(changed, training=False)), outputs, rtol=1e-5, atol=1e-6)
    for key, attention_map in capture(model, batch).items():
        weights = attention_map.weights()
        if "self_attention" in key:
            assert not np.triu(weights, 1).any()
        if key == "variable_selection":
            assert weights.shape == (2, 7, 1, 1, 6)
            np.testing.assert_allclose(weights.sum(-1)[batch["mask"]], 1, rtol=1e-5)
        else:
            assert not weights[1, ..., 5:].any()


@pytest.mark.full
def test_without_attention_the_last_state_alone_predicts():
    with_attention, without = (models.build_forecaster(7, 3, units=5, attention=value) for value in (True, False))
    names = {layer.name for layer in with_attention.layers} - {layer.name for layer in without.layers}
    assert {"attention", "query_and_context"} <= names
    assert without.output_shape == with_attention.output_shape == (None, 3)


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"past": 0}, r"`past` must be a positive integer\. Received: past=0"),
        ({"architecture": "gru"}, r'`architecture` must be "lstm" or "transformer"\. Received: architecture=\'gru\''),
        ({"architecture": "transformer", "units": 5}, r"must be a multiple of 8\. Received: units=5"),
    ],
)
def test_builder_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.build_forecaster(**{"past": 5, "horizon": 2, **arguments})


def test_objectives_are_those_of_keras(random):
    targets, outputs = random.normal(size=(5, 3, 1)).astype("float32"), random.normal(size=(5, 3, 2)).astype("float32")
    loss, _ = Quantiles([0.1, 0.7]).evaluate(targets, outputs)
    errors = targets - outputs
    by_hand = [
        [np.where(e > 0, level * e, (level - 1) * e) for level, e in zip((0.1, 0.7), errors[row].T, strict=True)]
        for row in range(5)
    ]
    np.testing.assert_allclose(loss, np.mean(by_hand, axis=(1, 2)), rtol=1e-5)
    weights = np.array([1, 0, 2, 1, 1], "float32")
    for objective, y, p in (
        (Quantiles([0.1, 0.7]), targets, outputs),
        (AbsoluteError(), targets[..., 0], outputs[..., 0]),
    ):
        expected = np.average(objective.evaluate(y, p)[0], weights=weights)
        np.testing.assert_allclose(float(objective.loss()(y, p, sample_weight=weights)), expected, rtol=1e-5)


# Windows


def make_inputs(panel, **changes):
    settings = {"past": 4, "horizon": 3, "season": 2, "scaling": "mean", "difference": True}
    means = {"known": np.array([1.0]), "observed": np.array([2.0]), "static": np.array([0.0])}
    scales = {"known": np.array([2.0]), "observed": np.array([1.0]), "static": np.array([5.0])}
    return WindowInputs(
        **{**settings, **changes}, means=means, scales=scales, columns=Columns(), form=None, history=panel
    )


def make_panel():
    steps = np.arange(10.0)
    return Panel(
        "p",
        ("a", "b"),
        (np.arange(8), np.arange(3)),
        (steps[:8] + 1, np.array([5.0, -5.0, 6.0])),
        known=(steps[:, None], -steps[:6, None]),
        observed=(steps[:8, None] * 10, steps[:3, None]),
        static=np.array([[5.0], [10.0]]),
    )


@pytest.mark.backend_free
def test_windows_by_hand():
    panel = make_panel()
    windows = Windows(make_inputs(panel), panel, np.array([0, 1]), np.array([5, 3]))
    batch, targets, weights = windows.batch(np.array([0, 1]), 4)
    # The first shows 2 3 4 5, whose mean size is 3.5; a season before are 4, 5 and 4 again.
    np.testing.assert_allclose(batch["past"][0, :, 0], np.array([2, 3, 4, 5]) / 3.5)
    np.testing.assert_allclose(batch["past"][0, :, 1], np.array([10, 20, 30, 40]) - 2)
    np.testing.assert_allclose(batch["past"][0, :, 2], (np.array([1, 2, 3, 4]) - 1) / 2)
    np.testing.assert_allclose(batch["future"][0, :, 0], (np.array([5, 6, 7]) - 1) / 2)
    np.testing.assert_allclose(targets[0], np.array([6 - 4, 7 - 5, 8 - 4]) / 3.5)
    # The second is shorter than the past, and padded at its end.
    np.testing.assert_allclose(batch["past"][1, :, 0], np.array([5, -5, 6, 0]) * 3 / 16)
    assert batch["mask"].tolist() == [[True] * 4, [True] * 3 + [False]]
    assert not batch["past"][1, 3].any()
    assert batch["static"].tolist() == [[1.0], [2.0]]
    assert weights.tolist() == [1, 1]
    relative = Windows(make_inputs(panel), panel, np.array([0]), np.array([5]), is_relative=True)
    assert relative.batch(np.array([0]), 4)[2].tolist() == pytest.approx([3.5 * (1 / 6 + 1 / 7 + 1 / 8) / 3])
    np.testing.assert_allclose(windows.decode(targets)[0], [6, 7, 8], rtol=1e-6)
    np.testing.assert_allclose(windows.decode(np.zeros((2, 3)))[1], [-5, 6, -5])


@pytest.mark.backend_free
def test_weights_of_relative_errors_are_limited():
    panel = dataclasses.replace(make_panel(), values=(np.array([1.0, 2, 3, 4, 5, 0, 0, 0]), np.array([1e-9, 5, 5])))
    _, _, weights = Windows(make_inputs(panel), panel, np.array([0, 1]), np.array([5, 1]), is_relative=True).batch(
        np.array([0, 1]), 4
    )
    assert weights.tolist() == pytest.approx([20, 1 / 20])
    assert all(
        windows.is_relative == (loss == "relative")
        for loss in ("absolute", "relative")
        for windows in make(loss=loss).encode(make_series(), 0)[2:]
    )


@pytest.mark.backend_free
@pytest.mark.parametrize("scaling", ["mean", "recent", "standard"])
@pytest.mark.parametrize("difference", [True, False])
def test_scaled_windows_are_the_same_for_a_thousandfold_series(scaling, difference):
    panel = make_panel()
    larger = dataclasses.replace(panel, values=tuple(1000 * values for values in panel.values))
    inputs = make_inputs(panel, scaling=scaling, difference=difference)
    first, second = (Windows(inputs, each, np.array([0, 1]), np.array([5, 3])) for each in (panel, larger))
    (batch, targets, _), (again, other_targets, _) = (each.batch(np.array([0, 1]), 4) for each in (first, second))
    np.testing.assert_allclose(again["past"], batch["past"], rtol=1e-6)
    np.testing.assert_allclose(other_targets[0], targets[0], rtol=1e-5)
    outputs = np.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(second.decode(outputs), 1000 * first.decode(outputs), rtol=1e-6)
    # A constant series has no spread; its size takes its place.
    constant = dataclasses.replace(panel, values=(np.full(8, 3.0), np.zeros(3)))
    windows = Windows(inputs, constant, np.array([0, 1]), np.array([5, 3]))
    assert windows.decode(np.zeros((2, 3))).tolist() == (
        [[3.0] * 3, [0.0] * 3] if difference or scaling == "standard" else [[0.0] * 3] * 2
    )


@pytest.mark.backend_free
def test_windows_never_read_what_follows_the_origin():
    panel = make_panel()
    inputs, rows = make_inputs(panel), (np.array([0]), np.array([5]))
    batch, _, _ = Windows(inputs, panel, *rows).batch(np.array([0]), 4)
    values, observed, known = (
        np.concatenate([each[0][:stop], np.full_like(each[0][stop:], 1e6)])
        for each, stop in ((panel.values, 5), (panel.observed, 5), (panel.known, 8))
    )
    changed = dataclasses.replace(
        panel, values=(values, panel.values[1]), observed=(observed, panel.observed[1]), known=(known, panel.known[1])
    )
    again, _, _ = Windows(inputs, changed, *rows).batch(np.array([0]), 4)
    for name, array in batch.items():
        np.testing.assert_array_equal(again[name], array)


@pytest.mark.backend_free
def test_naive_forecasts_and_their_errors_by_hand():
    values = np.array([[1.0, 4.0, 2.0, 5.0], [7.0, 0.0, 0.0, 0.0]])
    assert repeat_season(values, np.array([4, 1]), 5, 3).tolist() == [[4, 2, 5, 4, 2], [7, 7, 7, 7, 7]]
    assert repeat_season(values, np.array([4, 1]), 2, 1).tolist() == [[5, 5], [7, 7]]
    series = (np.array([1.0, 4.0, 2.0, 5.0, 90.0]), np.array([3.0, 3.0]), np.zeros(1))
    panel = Panel("p", ("a", "b", "c"), tuple(np.arange(len(each)) for each in series), series)
    # Two seasons of two steps before the stop: |2 - 1| and |5 - 4|.
    assert compute_naive_errors(panel, 2, np.array([4, 2, 1])).tolist() == [1.0, 3.0, 1.0]
    assert compute_naive_errors(panel, 1, np.array([4, 2, 1]))[0] == pytest.approx((3 + 2 + 3) / 3)


# The estimator


@pytest.fixture(scope="module")
def fitted():
    return make(season=2).fit(make_series())


def make_frame(count=24):
    """Return a long frame of two series of months with covariates, whose last 3 rows have no values."""
    months = pd.date_range("2020-01-31", periods=count, freq="ME")
    series = make_series((count, count))
    frames = [
        pd.DataFrame(
            {"month": months, "shop": name, "sales": values, "sun": np.arange(count) % 5, "rain": -values, "size": size}
        )
        for name, values, size in zip(("north", "south"), series, (1, 4), strict=True)
    ]
    frame = pd.concat(frames).sample(frac=1, random_state=0)
    frame.loc[frame.month > months[-4], ["sales", "rain"]] = np.nan, 0.0
    return frame


@pytest.fixture(scope="module")
def fitted_to_frame():
    roles = {
        "time": "month",
        "value": "sales",
        "series": "shop",
        "known": ["sun"],
        "observed": "rain",
        "static": ["size"],
    }
    return make(quantiles=LEVELS, variable_selection=True, season=1, **roles).fit(make_frame())


def test_forecasts_are_those_of_the_keras_model(fitted):
    series = make_series()
    windows = fitted._windows_at_end(as_panel(series, Columns())[0])
    batch, _, _ = windows.batch(np.arange(4), 7)
    outputs = to_numpy(fitted.model_(batch, training=False))
    forecasts = fitted.predict(series)
    for index, each in enumerate(series):
        shown = each[-7:]
        naive = shown[-2:][np.arange(3) % 2]
        np.testing.assert_allclose(forecasts[index], naive + np.abs(shown).mean() * outputs[index], rtol=1e-5)
    np.testing.assert_allclose(fitted.predict(), forecasts, rtol=1e-6)
    np.testing.assert_allclose(fitted.predict([1000 * each for each in series]), 1000 * forecasts, rtol=1e-4)
    np.testing.assert_allclose(fitted.predict(series[2]), forecasts[2:3], rtol=1e-5)
    np.testing.assert_allclose(fitted.predict(np.stack([series[0][:23], series[1]]))[1], forecasts[1], rtol=1e-5)


def test_a_long_frame_is_forecast_with_quantiles_that_ascend(fitted_to_frame):
    forecasts = fitted_to_frame.predict()
    assert list(forecasts.columns) == ["shop", "month", "sales 0.1", "sales 0.5", "sales 0.9"]
    assert sorted(set(forecasts.shop)) == ["north", "south"]
    assert [str(month.date()) for month in forecasts.month[:3]] == ["2021-10-31", "2021-11-30", "2021-12-31"]
    values = forecasts[["sales 0.1", "sales 0.5", "sales 0.9"]].to_numpy()
    assert (np.diff(values, axis=1) >= 0).all()
    # Known covariates may also be given apart, and others give another forecast.
    frame = make_frame()
    past, future = frame[frame.sales.notna()], frame[frame.sales.isna()]
    pd.testing.assert_frame_equal(
        fitted_to_frame.predict(past, known=future[["month", "shop", "sun"]]), fitted_to_frame.predict(frame)
    )
    other = fitted_to_frame.predict(past, known=np.full((3, 1), 9.0))
    assert np.abs(other["sales 0.5"] - fitted_to_frame.predict(frame)["sales 0.5"]).max() > 1e-6
    with pytest.raises(ValueError, match=r"must reach 3 steps beyond the values\. .*'(north|south)'.* Pass `known`"):
        fitted_to_frame.predict(past)
    with pytest.raises(DataError, match=r"must have a row for each step to forecast\. 2021-12"):
        fitted_to_frame.predict(past, known=future[future.month < "2021-12"])


def test_attention_has_the_times_of_the_past(fitted, fitted_to_frame):
    (attention_map,) = fitted.attention().values()
    assert attention_map.shape == (4, 1, 1, 7)
    assert [list(tokens) for tokens in attention_map.tokens][1:] == [
        [str(step) for step in range(16, 23)],
        ["0", "1", "2", "3", "4"],
        ["0", "1"],
    ]
    assert list(attention_map.query_tokens[0]) == ["29 to 31"]
    np.testing.assert_allclose(attention_map.weights().sum(-1), 1, rtol=1e-5)
    selection, attention_map = fitted_to_frame.attention().values()
    assert list(attention_map.query_tokens[0]) == ["2021-10", "2021-11", "2021-12"]
    assert attention_map.tokens[0][-1] == "2021-09"
    assert selection.shape == (2, 7, 1, 1, 4)
    assert list(selection.tokens[0]) == ["sales", "rain", "sun", "size"]


def test_a_saved_forecaster_forecasts_the_same(fitted, fitted_to_frame, tmp_path):
    fitted.save(tmp_path / "model.keras")
    loaded = models.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(), fitted.predict())
    np.testing.assert_array_equal(loaded.predict(make_series((9,))), fitted.predict(make_series((9,))))
    fitted_to_frame.save(tmp_path / "frame.keras")
    loaded = models.load(tmp_path / "frame.keras")
    pd.testing.assert_frame_equal(loaded.predict(), fitted_to_frame.predict())
    assert loaded.get_params() == fitted_to_frame.get_params()
    assert keras.models.load_model(tmp_path / "frame.keras").output_shape == (None, 3, 3)


@pytest.mark.full
def test_parameters_in_arrays_are_saved(tmp_path):
    model = make(quantiles=np.array(LEVELS), season=1, known=np.array([])).fit(make_series((20,)))
    model.save(tmp_path / "model.keras")
    loaded = models.load(tmp_path / "model.keras")
    assert (loaded.quantiles, loaded.known) == (LEVELS, [])


def test_metrics_are_those_of_the_held_out_steps(fitted):
    series = make_series()[:2]
    forecasts, actual = fitted.predict([each[:-3] for each in series]), np.stack([each[-3:] for each in series])
    result = fitted.evaluate(series)
    assert result["mae"].value == pytest.approx(np.abs(forecasts - actual).mean(), rel=1e-5)
    scales = [np.abs(each[2:-3] - each[:-5]).mean() for each in series]
    mase = np.mean([np.abs(forecasts[index] - actual[index]).mean() / scales[index] for index in range(2)])
    assert result["mase"].value == pytest.approx(mase, rel=1e-5)
    assert fitted.score(series) == -result["mase"].value
    steps = tuple(np.arange(len(each) - 3) for each in series)
    panel = Panel("p", ("a", "b"), steps, tuple(each[:-3] for each in series), test=tuple(actual))
    assert fitted.evaluate(panel)["mase"].value == pytest.approx(mase, rel=1e-5)


def test_backtest_has_several_origins_and_naive_forecasts(fitted):
    series = make_series()
    backtest = fitted.backtest(series, folds=2, refit=False)
    assert backtest.series.tolist() == ["0", "0", "1", "1", "2"]
    assert backtest.origins.tolist() == [23, 26, 17, 20, 2]
    np.testing.assert_allclose(backtest.actual[1], series[0][26:], rtol=1e-6)
    np.testing.assert_allclose(backtest.forecasts[0], fitted.predict(series[0][:23])[0], rtol=1e-5)
    assert list(backtest.results) == ["model", "naive", "seasonal_naive"]
    naive = [
        np.abs(series[int(name)][origin - 1] - each).mean()
        for name, origin, each in zip(backtest.series, backtest.origins, backtest.actual, strict=True)
    ]
    assert backtest["naive"]["mae"].value == pytest.approx(np.mean(naive), rel=1e-5)
    assert backtest["model"]["mase"].low < backtest["model"]["mase"].value < backtest["model"]["mase"].high


@pytest.mark.full
def test_backtest_trains_on_what_lies_before():
    series = make_series((29, 23))
    changed = [np.concatenate([each[:-6], 1e3 + each[-6:]]) for each in series]
    first, second = (make(season=2).backtest(each, folds=2) for each in (series, changed))
    np.testing.assert_allclose(first.forecasts[::2], second.forecasts[::2], rtol=1e-6)


@pytest.mark.full
def test_wide_frames_and_one_series():
    series = make_series((20, 20))
    months = [f"2020-{month:02}" for month in range(1, 13)] + [f"2021-{month:02}" for month in range(1, 9)]
    frame = pd.DataFrame({"month": months, "a": series[0], "b": series[1]})
    model = make(time="month", season=1).fit(frame)
    forecasts = model.predict()
    assert list(forecasts.columns) == ["month", "a", "b"]
    assert forecasts["month"].tolist() == ["2021-09", "2021-10", "2021-11"]
    indexed = frame.drop(columns="month").set_index(pd.to_datetime(months))
    wide = model.set_params(time=None).fit(indexed).predict()
    assert list(wide.columns) == ["time", "a", "b"]
    assert str(wide.time[0].date()) == "2021-09-01"
    assert make(season=1).fit(series[0]).predict().shape == (1, 3)


@pytest.mark.full
def test_frames_of_polars():
    polars = pytest.importorskip("polars")
    steps, (values,) = np.arange(20) * 2, make_series((20,))
    model = make(time="step", season=1).fit(polars.DataFrame({"step": steps, "a": values}))
    forecasts = model.predict()
    assert isinstance(forecasts, polars.DataFrame)
    assert forecasts["step"].to_list() == [40, 42, 44]
    np.testing.assert_allclose(forecasts["a"].to_numpy(), model.predict([values])[0], rtol=1e-6)
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(days=day) for day in range(20)]
    table = {
        "id": [7] * 20 + [9] * 20,
        "day": [*days, *days[::-1]],
        "sold": [*values, *(2 * values[::-1])],
        "promo": [0, 1] * 20,
    }
    long = make(season=1, time="day", series="id", value="sold", known="promo").fit(polars.DataFrame(table))
    later = [datetime.date(2020, 1, 21) + datetime.timedelta(days=day) for day in range(3)]
    known = {"id": [7] * 3 + [9] * 3, "day": later * 2, "promo": [1, 0, 1] * 2}
    forecasts = long.predict(known=polars.DataFrame(known))
    assert forecasts.schema == {"id": polars.Int64, "day": polars.Date, "sold": polars.Float64}
    assert forecasts["id"].to_list() == [7, 7, 7, 9, 9, 9]
    assert forecasts["day"].to_list() == later * 2
    with pytest.raises(DataError, match=r"`known` must have the column 'promo'\. Received: id, day, Promo"):
        long.predict(known=polars.DataFrame(known).rename({"promo": "Promo"}))


@pytest.mark.full
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_times_of_forecasts_keep_their_zone(library):
    frame = pytest.importorskip(library).DataFrame
    zone, (values,) = zoneinfo.ZoneInfo("Europe/Berlin"), make_series((20,))
    # One hour after the last time, summer time begins.
    hours = [
        datetime.datetime(2020, 3, 28, 5, tzinfo=datetime.UTC) + datetime.timedelta(hours=hour) for hour in range(20)
    ]
    times = [hour.astimezone(zone) for hour in hours]
    forecasts = make(season=1, time="hour", value="a").fit(frame({"hour": times, "a": values})).predict()
    expected = [(hours[-1] + datetime.timedelta(hours=step)).astimezone(zone).isoformat() for step in (1, 2, 3)]
    assert expected[0] == "2020-03-29T03:00:00+02:00"
    assert [time.isoformat() for time in list(forecasts["hour"])] == expected


@pytest.mark.full
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_days_of_a_zone_stay_days_where_summer_time_begins(library):
    frame = pytest.importorskip(library).DataFrame
    zone, (values,) = zoneinfo.ZoneInfo("Europe/Athens"), make_series((20,))
    for first in (datetime.datetime(2024, 3, 10), datetime.datetime(2024, 3, 20, 9)):
        days = [first + datetime.timedelta(days=day) for day in range(23)]
        times = [day.replace(tzinfo=zone) for day in days]
        forecasts = make(season=1, time="day", value="a").fit(frame({"day": times[:20], "a": values})).predict()
        assert [time.isoformat() for time in list(forecasts["day"])] == [day.isoformat() for day in times[20:]]


@pytest.mark.full
def test_forecasts_of_an_index_and_of_texts_tell_their_zone():
    (values,) = make_series((20,))
    hours = pd.date_range("2024-03-30 03:00", periods=23, freq="h", tz="Europe/Athens")
    model = make(season=1, value="a").fit(pd.DataFrame({"a": values}, index=hours[:20]))
    assert model.predict()["time"].tolist() == hours[20:].tolist()
    (attention_map,) = model.attention().values()
    assert attention_map.tokens[0][-1] == hours[19].isoformat()
    assert attention_map.query_tokens[0][0] == f"{hours[20].isoformat()} to {hours[22].isoformat()}"
    texts = [str(hour) for hour in hours]
    forecasts = make(season=1, time="hour", value="a").fit(pd.DataFrame({"hour": texts[:20], "a": values})).predict()
    assert [pd.Timestamp(time) for time in forecasts["hour"]] == hours[20:].tolist()


@pytest.mark.full
def test_the_last_days_are_continued_on_the_grid_of_the_training():
    (values,) = make_series((23,))
    days = pd.bdate_range("2024-01-01", periods=23)
    frame = pd.DataFrame({"day": days, "a": values})
    model = make(season=1, time="day").fit(frame[:20])
    # Ten days or fewer do not tell that weekends are left out.
    for known in (None, frame[10:20], frame[17:20]):
        assert model.predict(known)["day"].tolist() == days[20:].tolist()
    restored = WindowInputs.from_dict(json.loads(json.dumps(model.inputs_.to_dict())))
    assert restored.grid == model.inputs_.grid == Grid("B", 1)


@pytest.mark.full
def test_series_of_a_wide_frame_may_end_at_different_times():
    first, second = make_series((20, 18))
    days = pd.date_range("2024-01-01", periods=23)
    columns = {"a": [*first, *[np.nan] * 3], "b": [*second, *[np.nan] * 5], "sun": np.arange(23) % 7}
    model = make(season=1, time="day", known="sun").fit(pd.DataFrame({"day": days, **columns}))
    forecasts = model.predict()
    assert forecasts["day"].tolist() == days[18:].tolist()
    panel, _ = model._read(None, None)
    expected = model._forecast(panel)
    np.testing.assert_array_equal(forecasts["a"], [np.nan, np.nan, *expected[0]])
    np.testing.assert_array_equal(forecasts["b"], [*expected[1], np.nan, np.nan])


@pytest.mark.backend_free
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_monthly_dates_keep_their_day(library):
    frame = pytest.importorskip(library).DataFrame
    for quarters, expected in (
        (["03-30", "06-30", "09-30", "12-30"], "2022-03-30"),
        (["03-31", "06-30", "09-30", "12-31"], "2022-03-31"),
        (["03-05", "06-05", "09-05", "12-05"], "2022-03-05"),
    ):
        days = [datetime.datetime.fromisoformat(f"{year}-{day}") for year in (2019, 2020, 2021) for day in quarters]
        columns = Columns(time="day")
        panel, form = as_panel(frame({"day": days, "a": np.arange(12.0)}), columns)
        forecasts = form.wrap(np.zeros((1, 1)), panel.ids, future_times(panel, 1), columns, None)
        assert str(forecasts["day"][0])[:10] == expected


@pytest.mark.backend_free
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_wrong_columns_of_frames_are_refused(library):
    frame = pytest.importorskip(library).DataFrame
    columns = {"day": [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)], "a": [1.0, 2.0]}
    for given, table, message in (
        (
            {},
            columns,
            r"'day' must hold numbers\. Received: .*such as '2020-01-01'\. If it holds the times, name it: time='day'",
        ),
        (
            {"time": "day"},
            {**columns, "shop": ["x", "y"]},
            r"'shop' must hold numbers\. Received: .*such as 'x'.*if it names the series of a long frame, series='shop'",
        ),
        (
            {"time": "day", "value": "a", "series": "id"},
            {**columns, "id": ["x", None]},
            r"name its series\. 'id' of row 1 is",
        ),
        ({"time": "day"}, {"day": [], "a": []}, r"at least one row\. Received: none"),
    ):
        with pytest.raises(DataError, match=message):
            as_panel(frame(table), Columns(**given))


@pytest.mark.trains
@pytest.mark.parametrize("architecture", ["lstm", pytest.param("transformer", marks=pytest.mark.full)])
def test_a_sine_wave_is_learned_better_than_naive(architecture):
    steps = np.arange(150)
    series = [size * (3 + np.sin(2 * np.pi * (steps + shift) / 11)) for size, shift in ((1, 0), (100, 4))]
    settings = {"horizon": 5, "past": 16, "season": 1, "units": 16, "epochs": 20, "learning_rate": 0.01, "dropout": 0.0}
    training = {"epoch_steps": 12, "averaging": 0.5, "patience": 20}
    model = make(architecture=architecture, windows=300, batch_size=16, **settings, training=training)
    backtest = model.backtest(series, folds=2)
    assert backtest["model"]["mase"].value < 0.3 * backtest["naive"]["mase"].value


def with_gap(values, at):
    return np.concatenate([values[:at], [np.nan], values[at + 1 :]])


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("data", "params", "error", "message"),
    [
        (lambda s: [s[0], with_gap(s[1], 4)], {}, DataError, r"Every value must be finite\. Series '1' has NaN"),
        (lambda s: s, {"horizon": None}, ValueError, r"`horizon` must be given\. Received: horizon=None"),
        (lambda s: s, {"season": 9}, ValueError, r"`past` must be at least a season\. Received: past=7, season=9"),
        (
            lambda s: [s[3]],
            {},
            ValueError,
            r"must be longer than twice the horizon.* Received: at most 0 values.*horizon=3",
        ),
        (
            lambda s: s,
            {"scaling": "max"},
            ValueError,
            r'`scaling` must be "mean", "recent" or "standard"\. Received: scaling=\'max\'',
        ),
        (lambda s: s, {"loss": "mse"}, ValueError, r'`loss` must be "absolute" or "relative"\. Received: loss=\'mse\''),
        (
            lambda s: s,
            {"quantiles": [0.5, 0.1]},
            ValueError,
            r"ascending levels in \(0, 1\)\. Received: \[0\.5, 0\.1\]",
        ),
        (lambda s: [], {}, DataError, r"at least one"),
        (lambda s: ["a", "b"], {}, TypeError, r"must be a Panel, a frame, an array"),
        (lambda s: None, {}, TypeError, r"must be a Panel, a frame, an array, or a list .*\. Received: NoneType\."),
        (lambda s: pd.DataFrame({"a": s[0]}), {"time": "t"}, DataError, r"must have the column 't'\. Received: a\."),
        (lambda s: make_frame(), {"series": "shop"}, DataError, r"needs `time` and `value`"),
        (
            lambda s: pd.DataFrame({"t": [1, 2, 4, 5, 6], "a": s[2]}),
            {"time": "t"},
            DataError,
            r"one step \(1\) apart\. Series 'a' has a gap before 4",
        ),
        (
            lambda s: pd.DataFrame({"t": [1, 2, 2], "a": s[2][:3]}),
            {"time": "t"},
            DataError,
            r"2 occurs twice in series 'a'",
        ),
        (
            lambda s: pd.DataFrame({"t": ["x", "y"], "a": s[3]}),
            {"time": "t"},
            DataError,
            r"must hold times.*Row 0 holds 'x'",
        ),
    ],
)
def test_errors(data, params, error, message):
    with pytest.raises(error, match=message):
        make(**params).fit(data(make_series()))


@pytest.mark.backend_free
def test_parameters_are_stored_as_given_and_cloned():
    model = make(units=7, quantiles=LEVELS)
    assert clone(model).get_params() == model.get_params()


@pytest.mark.backend_free
def test_future_times_continue_the_grid():
    months = np.arange("2020-11", "2021-02", dtype="datetime64[M]")
    panel = Panel("p", ("a",), (months,), (np.ones(3),))
    assert future_times(panel, 2)[0].astype(str).tolist() == ["2021-02", "2021-03"]
