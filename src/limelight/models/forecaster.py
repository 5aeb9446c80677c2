"""The estimator of forecasts: series in, their next values out."""

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np

from limelight import inspection
from limelight._optional import import_optional
from limelight.core.validation import check_positive_int
from limelight.data import Panel
from limelight.evaluate import RegressionResult, regression
from limelight.exceptions import AttentionError
from limelight.maps import AttentionMaps
from limelight.models._estimator import Estimator
from limelight.models.forecasting import build_forecaster
from limelight.models.objectives import AbsoluteError, Objective, Quantiles
from limelight.models.panels import Columns, add_future, as_panel, choose_grid, future_times, season_of
from limelight.models.training import predict
from limelight.models.windows import WindowInputs, Windows, compute_naive_errors, repeat_season

import_optional("sklearn")
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.validation import check_is_fitted  # noqa: E402

# With fewer validation windows than this, more of each series is held out.
_MIN_VALIDATED = 32
# From so many series on, one forecast of each tests enough.
_MANY_SERIES = 30
_TEST_SHARE = 0.2


class Levels:
    """Outputs of the model as forecasts.

    Args:
        quantiles: The levels of the quantiles, ascending; None for one value.
    """

    def __init__(self, quantiles: Sequence[float] | None) -> None:
        self.quantiles = None if quantiles is None else tuple(float(level) for level in quantiles)
        if self.quantiles is not None and (
            not self.quantiles
            or list(self.quantiles) != sorted(set(self.quantiles))
            or not all(0 < level < 1 for level in self.quantiles)
        ):
            raise ValueError(
                f"`quantiles` must be ascending levels in (0, 1). Received: {list(quantiles or ())}. Pass [0.1, 0.5, 0.9]."
            )

    @property
    def objective(self) -> Objective:
        """The objective of the training."""
        return AbsoluteError() if self.quantiles is None else Quantiles(self.quantiles)

    @property
    def middle(self) -> int:
        """The index of the level that is nearest to the median."""
        return int(np.abs(np.array(self.quantiles) - 0.5).argmin())

    def take_point(self, forecasts: np.ndarray) -> np.ndarray:
        """Return one value for each step (n, H): of quantiles the one nearest to the median."""
        return forecasts if self.quantiles is None else forecasts[..., self.middle]

    def to_dict(self) -> dict[str, Any]:
        """Return the levels."""
        return {"quantiles": None if self.quantiles is None else list(self.quantiles)}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Return the levels that `to_dict` described."""
        return cls(document["quantiles"])


@dataclasses.dataclass(frozen=True, eq=False)
class Backtest:
    """Forecasts from several origins beside the true values; `backtest["model"]["mase"]` is an `Estimate` with its interval.

    Args:
        results: "model", "naive" (the last value) and "seasonal_naive" (the last season; only if there is one), each with its
            metrics.
        actual: The true values (n, H).
        forecasts: The forecasts of the model (n, H), or (n, H, Q).
        series: The name of the series of each forecast (n,).
        origins: The number of values before each forecast (n,).
    """

    results: Mapping[str, RegressionResult]
    actual: np.ndarray
    forecasts: np.ndarray
    series: np.ndarray
    origins: np.ndarray

    def __getitem__(self, name: str) -> RegressionResult:
        return self.results[name]


class Forecaster(Estimator):
    """Forecast the next values of series, from their own past, several series with one model.

    The last state of the encoder attends to the past, as in `build_forecaster`. Each window is scaled by its own size, so that a
    series and its thousandfold have the same forecast, but for the factor.

    Data are a `Panel`; a frame of pandas or polars, long (`time`, `value` and `series` name its columns) or wide (every other
    column is a series); a list of arrays (T,); or an array (T,) or (n, T).

    Args:
        horizon: Number of steps to forecast; that of the panel when not given.
        past: Number of past steps that are read; twice the horizon or the season when not given, whichever is longer. A shorter
            series is padded.
        season: Number of steps in a season, 1 for none; that of the panel or of the times when not given.
        architecture, units, dropout, variable_selection: As in `build_forecaster`.
        temporal_attention: False for the same network with the last state alone.
        quantiles: Ascending levels to forecast, such as [0.1, 0.5, 0.9]; the median alone when not given.
        scaling: "mean" divides a window by its mean absolute value, "recent" by that of its last season (or last quarter, if that
            is longer); "standard" subtracts the mean and divides by the spread.
        loss: "absolute" for absolute errors in units of the scale of a window; "relative" also weighs each window by the mean of
            that scale over the sizes of the values to forecast (from 1/20 to 20), which suits MAPE and sMAPE. One horizon before
            the test part of tourism-quarterly its MAPE was 25.2 %, that of "absolute" 28.2 % (mean of two seeds).
        difference: Forecast the difference to a naive forecast: the value a season before, or the last one. On the validation
            windows of tourism-monthly its MASE was 1.80, that of the values themselves 2.53 (one seed, six epochs).
        time, value, series: Columns of a frame.
        known, observed, static: Columns of covariates: known in advance, known up to the present, and constant in each series.
        windows: Largest number of training windows, drawn from all series.
        validation: Hold out the last `horizon` values of each series for early stopping, and up to a tenth of the values before
            them where there are fewer than 32 series.
        epochs, batch_size, learning_rate, training, random_state, verbose: As in `TextClassifier`.

    Attributes:
        model_: The Keras model, from windows to scaled differences.
        history_: Summary of the training.

    Example:
        >>> import limelight as ll, numpy as np
        >>> series = [10 + np.sin(np.arange(length) / 2) for length in (40, 30)]
        >>> model = ll.models.Forecaster(horizon=3, past=8, units=4, epochs=1, random_state=0, verbose=False)
        >>> model.fit(series).predict().shape
        (2, 3)
    """

    # Windows are made from origins in series, not from inputs one by one as `Inputs` are.
    _inputs_class = WindowInputs  # pyright: ignore[reportAssignmentType]
    _target_class = Levels
    inputs_: WindowInputs
    target_: Levels

    def __init__(
        self,
        *,
        horizon: int | None = None,
        past: int | None = None,
        season: int | None = None,
        architecture: str = "lstm",
        temporal_attention: bool = True,
        units: int = 32,
        dropout: float = 0.1,
        quantiles: Sequence[float] | None = None,
        variable_selection: bool = False,
        scaling: str = "mean",
        loss: str = "absolute",
        difference: bool = True,
        time: str | None = None,
        value: str | None = None,
        series: str | None = None,
        known: Sequence[str] = (),
        observed: Sequence[str] = (),
        static: Sequence[str] = (),
        windows: int = 20_000,
        validation: bool = True,
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        training: dict[str, Any] | None = None,
        random_state: Any = None,
        verbose: bool = True,
    ) -> None:
        self.horizon, self.past, self.season = horizon, past, season
        self.architecture, self.temporal_attention = architecture, temporal_attention
        self.units, self.dropout = units, dropout
        self.quantiles, self.variable_selection = quantiles, variable_selection
        self.scaling, self.loss, self.difference = scaling, loss, difference
        self.time, self.value, self.series = time, value, series
        self.known, self.observed, self.static = known, observed, static
        self.windows, self.validation = windows, validation
        self.epochs, self.batch_size, self.learning_rate, self.training = epochs, batch_size, learning_rate, training
        self.random_state, self.verbose = random_state, verbose

    def fit(self, data: Any, y: None = None) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Train on windows of series.

        Args:
            data: The series.
            y: Nothing; scikit-learn passes it.

        Returns:
            The estimator.

        Raises:
            DataError: A value is missing, and which series has it; a step is missing, or a column.
            ValueError: The series are too short, or an argument is wrong.
            TrainingError: The loss is not finite.
        """
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        inputs, target, train, validation = self.encode(data, seed)
        model, history = self._train(functools.partial(self._build, inputs, target), train, validation, seed)
        return self.restore(inputs, target, model, history)

    def encode(self, data: Any, seed: int) -> tuple[WindowInputs, Levels, Windows, Windows]:
        """Return the encoding of series, and their windows to train on and for early stopping.

        Args:
            data: The series, as in `fit`.
            seed: Seed of the choice of windows, where there are more than `windows`.

        Raises:
            DataError, ValueError: As in `fit`.
        """
        columns = self._columns()
        panel, form = as_panel(data, columns)
        horizon = panel.horizon if self.horizon is None else self.horizon
        if horizon is None:
            raise ValueError("`horizon` must be given. Received: horizon=None, and data without one.")
        season = season_of(panel) if self.season is None else self.season
        past = 2 * max(horizon, season) if self.past is None else self.past
        for name, size in {"horizon": horizon, "season": season, "past": past, "windows": self.windows}.items():
            check_positive_int(name, size)
        if self.loss not in ("absolute", "relative"):
            raise ValueError(f'`loss` must be "absolute" or "relative". Received: loss={self.loss!r}.')
        target = Levels(self.quantiles)
        lengths = np.array([len(values) for values in panel.values])
        extra = _count_more_origins(lengths) if self.validation else np.zeros_like(lengths)
        stops = lengths - horizon - extra if self.validation else lengths
        means, scales = _measure_covariates(panel, stops)
        history, grid = _keep_end(panel, past), choose_grid(panel.times)
        inputs = WindowInputs(
            past, horizon, season, self.scaling, self.difference, means, scales, columns, form, history, grid
        )
        kind = {"has_levels": target.quantiles is not None, "is_relative": self.loss == "relative"}
        train = Windows(inputs, panel, *_sample(stops, horizon, season, self.windows, seed), **kind)
        if not self.validation:
            return inputs, target, train, train
        held_out = np.repeat(np.arange(len(panel)), extra + 1)
        origins = np.concatenate([np.arange(stop, stop + more + 1) for stop, more in zip(stops, extra, strict=True)])
        return inputs, target, train, Windows(inputs, panel, held_out[origins > 0], origins[origins > 0], **kind)

    def predict(self, data: Any = None, known: Any = None) -> Any:
        """Return the forecasts of the steps after the end of each series.

        Args:
            data: The series; those of the training when not given.
            known: The known covariates of these steps: an array (n, H, F), or (H, F) for all series, or a frame. They may also be
                in `data`: rows after the last value.

        Returns:
            (n, H), or (n, H, Q) with quantiles, which ascend; for a frame a frame like it. The columns of quantiles have their
            level behind their name, such as "value 0.9".

        Raises:
            DataError: A value is missing, and which series has it; a step is missing, or a column.
            ValueError: The covariates are not those of the training, or do not reach to the end of the forecast.
        """
        panel, form = self._read(data, known)
        forecasts = self._forecast(panel)
        times = future_times(panel, self.inputs_.horizon, self.inputs_.grid)
        return form.wrap(forecasts, panel.ids, times, self.inputs_.columns, self.target_.quantiles)

    def attention(self, data: Any = None, known: Any = None) -> AttentionMaps:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the attention of the forecasts after the end of each series.

        Keys are past steps, with their times as tokens. Queries of the map "attention" are the steps of the horizon if there are
        known covariates, else the one last state, whose token is the range of the forecast. With `variable_selection`, the keys
        of that map are the features of each step.

        Args:
            data, known: As in `predict`.

        Raises:
            AttentionError: The model has no attention.
        """
        panel, form = self._read(data, known)
        windows = self._windows_at_end(panel)
        batch, _, _ = windows.batch(np.arange(len(windows)), self.inputs_.past)
        with warnings.catch_warnings():
            # That nothing was captured is an error below.
            warnings.simplefilter("ignore", inspection.CaptureWarning)
            maps = inspection.capture(self.model_, batch)
        if not maps:
            raise AttentionError(
                "The model must have attention. Received: temporal_attention=False. Set temporal_attention=True and fit again."
            )
        past = [form.name_times(times[-self.inputs_.past :]) for times in panel.times]
        future = [form.name_times(times) for times in future_times(panel, self.inputs_.horizon, self.inputs_.grid)]
        if not self.inputs_.num_covariates("known"):
            future = [[f"{times[0]} to {times[-1]}" if len(times) > 1 else times[0]] for times in future]

        def name(attention_map: Any) -> Any:
            if attention_map.path.endswith("variable_selection"):
                return dataclasses.replace(attention_map, tokens=(self._name_features(),) * len(panel))
            queries = past if "self_attention" in attention_map.path else future
            return dataclasses.replace(attention_map, tokens=tuple(past), query_tokens=tuple(queries))

        return AttentionMaps(name(attention_map) for attention_map in maps.values())

    def evaluate(self, data: Any) -> RegressionResult:
        """Return the metrics of the next steps of each series, with intervals over series; `mase` is among them.

        Args:
            data: A `Panel` with published test values; or series, whose last `horizon` values are held out. (Those of the
                training data have chosen the epoch.)

        Raises:
            ValueError: A series is not longer than the horizon.
        """
        check_is_fitted(self)
        panel, _ = as_panel(data, self.inputs_.columns, self.inputs_.grid)
        horizon, lengths = self.inputs_.horizon, np.array([len(values) for values in panel.values])
        if panel.test is not None:
            self.inputs_.check(panel)
            if any(len(values) < horizon for values in panel.test):
                raise ValueError(f"The test values must hold the horizon. Received: fewer than {horizon}.")
            actual = np.stack([values[:horizon] for values in panel.test])
            return self._evaluate(panel, self._forecast(panel), actual, np.arange(len(panel)), lengths)
        series, origins = list_origins(panel, horizon, 1)
        windows = self._make_windows(panel, series, origins)
        actual = windows.read_future(np.arange(len(windows)))
        return self._evaluate(panel, self._predict_windows(windows), actual, series, origins)

    def score(self, data: Any, y: None = None) -> float:
        """Return the negative mean absolute scaled error (MASE) of `evaluate`: 0 is best, above -1 is better than naive."""
        return -self.evaluate(data)["mase"].value

    def backtest(self, data: Any, folds: int = 3, *, refit: bool = True) -> Backtest:
        """Forecast the last `folds` horizons of each series, each from the values before it, beside naive forecasts.

        Args:
            data: The series.
            folds: Number of origins, one horizon apart. A series that is too short for one of them has fewer.
            refit: Train a copy of this estimator on what lies before the first origin. With False, this fitted one forecasts;
                then `data` should not have been trained on.

        Returns:
            The metrics of the model and of naive forecasts, with intervals over series; of a single series, over folds.

        Raises:
            ValueError: No series is longer than the horizon, or too short to train on what is left.
        """
        check_positive_int("folds", folds)
        panel, _ = as_panel(data, self._columns())
        model = self
        if refit:
            horizon = panel.horizon if self.horizon is None else self.horizon
            if horizon is None:
                raise ValueError("`horizon` must be given. Received: horizon=None, and data without one.")
            season = season_of(panel) if self.season is None else self.season
            model = type(self)(**{**self.get_params(deep=False), "horizon": horizon, "season": season})
            model.fit(cut_ends(panel, folds * horizon))
        else:
            check_is_fitted(self)
        inputs, horizon = model.inputs_, model.inputs_.horizon
        inputs.check(panel)
        series, origins = list_origins(panel, horizon, folds)
        windows = model._make_windows(panel, series, origins)
        actual = windows.read_future(np.arange(len(windows)))
        forecasts = {"model": model._predict_windows(windows)}
        values, mask = windows.read_past(np.arange(len(windows)))
        forecasts["naive"] = repeat_season(values, mask.sum(1), horizon, 1)
        if inputs.season > 1:
            forecasts["seasonal_naive"] = repeat_season(values, mask.sum(1), horizon, inputs.season)
        results = {
            name: model._evaluate(panel, forecast, actual, series, origins) for name, forecast in forecasts.items()
        }
        return Backtest(results, actual, forecasts["model"], np.array(panel.ids)[series], origins)

    @property
    def _objective(self) -> Objective:
        return Levels(self.quantiles).objective

    def _columns(self) -> Columns:
        covariates = {
            role: (names,) if isinstance(names, str) else tuple(names)
            for role, names in (("known", self.known), ("observed", self.observed), ("static", self.static))
        }
        return Columns(self.time, self.value, self.series, **covariates)

    def _build(self, inputs: WindowInputs, target: Levels) -> keras.Model:
        return build_forecaster(
            inputs.past,
            inputs.horizon,
            num_known=inputs.num_covariates("known"),
            num_observed=inputs.num_covariates("observed"),
            num_static=inputs.num_covariates("static"),
            architecture=self.architecture,
            attention=self.temporal_attention,
            units=self.units,
            dropout=self.dropout,
            quantiles=target.quantiles,
            variable_selection=self.variable_selection,
        )

    def _read(self, data: Any, known: Any) -> tuple[Panel, Any]:
        """Return the series to forecast, and their form."""
        check_is_fitted(self)
        inputs = self.inputs_
        panel, form = (inputs.history, inputs.form) if data is None else as_panel(data, inputs.columns, inputs.grid)
        inputs.check(panel)
        if known is not None:
            panel = add_future(panel, known, inputs.columns, inputs.horizon, inputs.grid, form)
        return panel, form

    def _name_features(self) -> list[str]:
        """Return the names of the features of a past step, in their order in the model."""
        history, names = self.inputs_.history, [self.inputs_.columns.value or "value"]
        for role in ("observed", "known", "static"):
            count = self.inputs_.num_covariates(role)
            names += getattr(history, f"{role}_names") or [f"{role} {index}" for index in range(count)]
        return names

    def _make_windows(self, panel: Panel, series: np.ndarray, origins: np.ndarray) -> Windows:
        return Windows(self.inputs_, panel, series, origins, self.target_.quantiles is not None)

    def _windows_at_end(self, panel: Panel) -> Windows:
        return self._make_windows(panel, np.arange(len(panel)), np.array([len(values) for values in panel.values]))

    def _forecast(self, panel: Panel) -> np.ndarray:
        return self._predict_windows(self._windows_at_end(panel))

    def _predict_windows(self, windows: Windows) -> np.ndarray:
        rows = 1 << max(min(self.batch_size, len(windows)) - 1, 0).bit_length()
        return windows.decode(predict(self.model_, windows, rows))

    def _evaluate(
        self, panel: Panel, forecasts: np.ndarray, actual: np.ndarray, series: np.ndarray, origins: np.ndarray
    ) -> RegressionResult:
        points = self.target_.take_point(forecasts) if forecasts.ndim == 3 else forecasts
        # The errors of the naive forecast are those before the first forecast of the series.
        stops = np.array([len(values) for values in panel.values])
        np.minimum.at(stops, series, origins)
        naive_errors = compute_naive_errors(panel, self.inputs_.season, stops)[series]
        groups = np.array(panel.ids)[series] if len(panel) > 1 else origins
        return regression(actual, points, groups=groups, naive_error=naive_errors)


def _sample(stops: np.ndarray, horizon: int, season: int, limit: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the series and origins of training windows: all, or `limit` of them at random.

    A window shows at least a season, or two values where a series is shorter.
    """
    last = stops - horizon
    first = np.minimum(max(season, 2), last)
    counts = np.where(last >= 1, last - first + 1, 0)
    total = int(counts.sum())
    if not total:
        raise ValueError(
            f"A series must be longer than twice the horizon, or than the horizon with validation=False. Received: at most "
            f"{int(stops.max(initial=0))} values to train on, horizon={horizon}."
        )
    chosen = np.arange(total)
    if total > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(total, limit, replace=False))
    ends = np.cumsum(counts)
    series = np.searchsorted(ends, chosen, side="right")
    return series, first[series] + chosen - (ends - counts)[series]


def _count_more_origins(lengths: np.ndarray) -> np.ndarray:
    """Return for each series how many validation windows it has besides the last one.

    One window of each of a few series would be too few to tell one epoch from another: a tenth of their steps is held out too.
    """
    return np.minimum(max(-(-_MIN_VALIDATED // len(lengths)) - 1, 0), lengths // 10)


def list_origins(panel: Panel, horizon: int, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the series and origins of the last `folds` forecasts of each series, in the order of time."""
    pairs = [
        (index, len(values) - fold * horizon)
        for index, values in enumerate(panel.values)
        for fold in range(folds, 0, -1)
        if len(values) > fold * horizon
    ]
    if not pairs:
        raise ValueError(f"A series must be longer than the horizon, {horizon}. Received: none that is.")
    series, origins = np.array(pairs).T
    return series, origins


def count_test_folds(panel: Panel, horizon: int) -> int:
    """Return how many forecasts of each series, one horizon apart, test a model: one of many series, else the last fifth."""
    steps = float(np.median([len(values) for values in panel.values]))
    return 1 if len(panel) >= _MANY_SERIES else max(1, int(_TEST_SHARE * steps / horizon))


def cut_ends(panel: Panel, count: int) -> Panel:
    """Return a panel without the last `count` steps of its series, and without those that have no others."""
    kept = [index for index, values in enumerate(panel.values) if len(values) > count]
    if not kept:
        raise ValueError(f"A series must be longer than all folds, {count} steps. Received: none that is.")

    def cut(series: Any) -> Any:
        return None if series is None else tuple(series[index][: len(panel.values[index]) - count] for index in kept)

    return dataclasses.replace(
        panel,
        ids=tuple(panel.ids[index] for index in kept),
        times=cut(panel.times),
        values=cut(panel.values),
        known=cut(panel.known),
        observed=cut(panel.observed),
        static=None if panel.static is None else panel.static[kept],
        test=None,
    )


def _keep_end(panel: Panel, past: int) -> Panel:
    """Return the last `past` steps of each series, and the known covariates of the steps after them."""
    starts = [max(len(values) - past, 0) for values in panel.values]

    def cut(series: Any) -> Any:
        return None if series is None else tuple(each[start:] for each, start in zip(series, starts, strict=True))

    return dataclasses.replace(
        panel,
        times=cut(panel.times),
        values=cut(panel.values),
        known=cut(panel.known),
        observed=cut(panel.observed),
        test=None,
    )


def _measure_covariates(panel: Panel, stops: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the means and the spreads of the covariates, by role, over the steps to train on."""
    means: dict[str, np.ndarray] = {}
    scales: dict[str, np.ndarray] = {}
    for role in ("known", "observed", "static"):
        series = getattr(panel, role)
        if series is None:
            means[role], scales[role] = np.zeros(0), np.ones(0)
            continue
        # Of a series that only validates, the first step is taken: there may be no others.
        rows = (
            series
            if role == "static"
            else np.concatenate([each[: max(stop, 1)] for each, stop in zip(series, stops, strict=True)])
        )
        spread = np.asarray(rows, np.float64).std(0)
        means[role], scales[role] = np.asarray(rows, np.float64).mean(0), np.where(spread > 0, spread, 1.0)
    return means, scales
