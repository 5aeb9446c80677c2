"""The experiment on series to forecast."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from limelight.data import Panel
from limelight.evaluate import Comparison, paired_over_seeds
from limelight.evaluate.estimates import Statistics, block_jackknife, clip_interval, widen_constant
from limelight.evaluate.metrics import regression_statistics, value_range
from limelight.exceptions import DataError, UsageError
from limelight.explanation import Explanation, explain
from limelight.models import Forecaster
from limelight.models._estimator import Estimator
from limelight.models.forecaster import count_test_folds, cut_ends, list_origins
from limelight.models.panels import future_times
from limelight.models.training import Trainer
from limelight.models.windows import Windows, compute_naive_errors, repeat_season
from limelight.study.evaluation import (
    Evaluation,
    Outcome,
    Samples,
    correct_p_values,
    mean_over_seeds,
    summarize_seeds,
)
from limelight.study.folder import Run
from limelight.study.pipelines import training_params
from limelight.study.settings import Settings
from limelight.study.targets import choose_by_error

ATTENTION, NONE, NAIVE, LAST = "attention", "none", "naive", "last"
METRICS = ("mase", "smape", "mape", "mae", "rmse", "pinball")
_DEFAULT_HORIZON = 12


class Forecasting:
    """An experiment on series: the same forecaster with and without attention to the past, and naive forecasts.

    The last `folds` horizons of each series are the test; a published test part takes their place. The models are trained once,
    on what lies before all of them.
    """

    architectures: tuple[str, ...] = (ATTENTION, NONE)
    baseline: str | None = None
    trivial, trivial_title = NAIVE, "naive forecast"

    def __init__(self, panel: Panel, settings: Settings) -> None:
        self.settings = settings
        self.season = settings.season or panel.season or 1
        self.horizon = settings.horizon or panel.horizon or (self.season if self.season > 1 else _DEFAULT_HORIZON)
        self.panel, self.folds = self._place_test(panel)
        self.models = {name: self._make_forecaster(name == ATTENTION) for name in self.architectures}
        try:
            trained = cut_ends(self.panel, self.folds * self.horizon)
            inputs, self.target, train, validation = self.models[ATTENTION].encode(trained, seed=0)
            self.series, self.origins = list_origins(self.panel, self.horizon, self.folds)
        except DataError:
            raise
        except ValueError as error:
            times = "once" if self.folds == 1 else f"{self.folds} times"
            raise DataError(
                f"{error} The study forecasts {self.horizon} steps, {times} for the test and once to stop the "
                f"training, from {settings.past or 2 * max(self.horizon, self.season)} past steps: lower --horizon, --folds, "
                "--past or --season."
            ) from error
        self.inputs = inputs
        self.subsets = {"train": train, "validation": validation}
        self.objective = self.target.objective
        self.windows = Windows(inputs, self.panel, self.series, self.origins, self.target.quantiles is not None)
        everything = np.arange(len(self.windows))
        self.actual = self.windows.read_future(everything).astype(np.float64)
        first = np.array([len(values) for values in self.panel.values])
        np.minimum.at(first, self.series, self.origins)
        # The errors of the naive forecast are those before the first forecast of the series.
        self.naive_errors = compute_naive_errors(self.panel, self.season, first)[self.series]
        # Forecasts of one series depend on each other, unless there is no other series.
        has_series = len(np.unique(self.series)) > 1
        self.units = np.unique(self.series if has_series else self.origins, return_inverse=True)[1]
        self.unit_title = "test series" if has_series else "test forecasts"
        self.repairs = list(panel.repairs)
        self.notes: list[str] = []
        name = "LSTM" if settings.architecture == "lstm" else "Transformer"
        self.titles = {
            ATTENTION: f"{name} + attention",
            NONE: f"{name} without attention",
            NAIVE: "Seasonal naive" if self.season > 1 else "Last value",
            LAST: "Last value",
        }
        self.names = {
            ATTENTION: "attention",
            NONE: "no attention",
            NAIVE: "the seasonal naive forecast" if self.season > 1 else "the last value",
        }

    @property
    def summary(self) -> str:
        """The sizes of the parts in words."""
        train, validation = (f"{len(each):,}" for each in self.subsets.values())
        return (
            f"{len(self.panel):,} series; {train} training and {validation} validation windows of {self.inputs.past} past steps; "
            f"{len(self.windows):,} test forecasts of {self.horizon} steps; season {self.season}"
        )

    def build(self, architecture: str) -> keras.Model:
        """Return a new network, not compiled."""
        return self.models[architecture]._build(self.inputs, self.target)

    def predict(self, architecture: str, trainer: Trainer, history: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return the forecasts of the test (n, H), or (n, H, Q)."""
        return {"test": self.windows.decode(trainer.predict(self.windows))}

    def fit_baseline(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Raise: there is no baseline to fit."""
        raise NotImplementedError

    def fixed_runs(self) -> list[Run]:
        """Return the run of the naive forecast, and that of the last value if there is a season."""
        values, mask = self.windows.read_past(np.arange(len(self.windows)))
        seasons = {NAIVE: self.season} | ({LAST: 1} if self.season > 1 else {})
        validation = self.subsets["validation"]
        _, targets, _ = validation.batch(np.arange(len(validation)), self.inputs.past)
        levels = len(self.target.quantiles or ())
        # The models forecast differences to the naive forecast.
        losses, _ = self.objective.evaluate(
            targets, np.zeros((*targets.shape[:2], levels) if levels else targets.shape)
        )
        runs = []
        for name, season in seasons.items():
            summary = {"seconds": 0.0, "epochs": None, "parameters": 0, "history": {}}
            if name == NAIVE:
                summary["validation"] = {"loss": float(losses.mean())}
            forecasts = repeat_season(values, mask.sum(1), self.horizon, season)
            runs.append(Run(name, 1, summary, {"test": forecasts}))
        return runs

    def make_estimator(self, architecture: str, model: keras.Model, history: dict[str, Any]) -> Estimator:
        """Return a forecaster that predicts with a trained model."""
        return self._make_forecaster(architecture == ATTENTION).restore(self.inputs, self.target, model, history)

    def describe_run(self, run: Run) -> str:
        """Return the loss of a run on the validation windows in words."""
        return f"validation loss {min(run.summary['history']['val_loss']):.3f}"

    def evaluate(self, runs: Mapping[str, Sequence[Run]]) -> Outcome:
        """Evaluate and compare all models on the test."""
        forecasts = {name: [run.predictions["test"] for run in each] for name, each in runs.items()}
        points = {name: [self._take_point(forecast) for forecast in each] for name, each in forecasts.items()}
        evaluations = {}
        for name, each in forecasts.items():
            statistics = [self._statistics(forecast) for forecast in each]
            intervals = block_jackknife(mean_over_seeds(statistics), self.units)
            count = len(np.unique(self.units))
            bounded = {metric: clip_interval(value, value_range(metric)) for metric, value in intervals.items()}
            estimates = {metric: widen_constant(value, value_range(metric), count) for metric, value in bounded.items()}
            details = self._describe_steps(each)
            evaluations[name] = summarize_seeds(statistics, estimates, len(self.units), METRICS, details=details)
        others = [name for name in self.names if name != ATTENTION]
        comparisons = [self._compare(points, other) for other in others]
        notes = []
        if self.unit_title == "test forecasts" and len(self.units) > 1:
            notes.append(
                f"The intervals take the {len(self.units)} forecasts of the one series, {self.horizon} steps apart, as "
                "independent."
            )
        return Outcome(evaluations, correct_p_values(comparisons), "mase", notes=notes, examples_title=self.unit_title)

    def capture(self, estimator: Estimator, run: Run) -> Samples:
        """Choose forecasts of the test, and capture what they attend to."""
        forecasts = run.predictions["test"]
        errors = np.abs(self._take_point(forecasts) - self.actual).mean(1) / self.naive_errors
        chosen = choose_by_error(errors, self.settings.examples)
        indices = [index for group in chosen.values() for index in group]
        if not indices:
            return Samples([], None)
        panel = self._cut_at_origins(indices)
        maps = estimator.attention(panel)
        weights = maps[ATTENTION].weights().mean((1, 2))  # (examples, past)
        times, naive = future_times(panel, self.horizon, self.inputs.grid), self._naive(indices)
        kinds = [kind for kind, group in chosen.items() for _ in group]
        past = self.inputs.past
        entries = [
            {
                "id": str(panel.ids[row]),
                "kind": kind,
                "error": float(errors[index]),
                "past_times": [str(time) for time in panel.times[row][-past:]],
                "past": panel.values[row][-past:].astype(float).tolist(),
                "weights": weights[row, : min(past, len(panel.values[row]))].astype(float).tolist(),
                "times": [str(time) for time in times[row]],
                "actual": self.actual[index].tolist(),
                "forecast": self._take_point(forecasts)[index].astype(float).tolist(),
                "low": forecasts[index, :, 0].astype(float).tolist() if forecasts.ndim == 3 else None,
                "high": forecasts[index, :, -1].astype(float).tolist() if forecasts.ndim == 3 else None,
                "naive": naive[row].astype(float).tolist(),
            }
            for row, (index, kind) in enumerate(zip(indices, kinds, strict=True))
        ]
        levels = list(self.target.quantiles or ())
        return Samples([], maps, {"forecasts": {"levels": levels, "entries": entries}})

    def explain(self, estimator: Any, sample: int, **settings: Any) -> Explanation:
        """Test on forecasts of the test whether the attention explains them."""
        return explain(estimator, self.panel, sample=sample, folds=self.folds, **settings)

    def describe_data(self) -> dict[str, Any]:
        """Return the sizes of the data, ready for JSON."""
        lengths = [len(values) for values in self.panel.values]
        return {
            "kind": "panel",
            "series": len(self.panel),
            "steps": {"minimum": min(lengths), "maximum": max(lengths)},
            "counts": {**{name: len(each) for name, each in self.subsets.items()}, "test": len(self.windows)},
            "horizon": self.horizon,
            "past": self.inputs.past,
            "season": self.season,
            "folds": self.folds,
        }

    def draw(self, folder: Path, evaluations: Mapping[str, Evaluation], samples: Samples) -> None:
        """Draw nothing further."""

    def _place_test(self, panel: Panel) -> tuple[Panel, int]:
        """Return the series with their published test values, if there are some, and the number of test forecasts of each."""
        if panel.test is not None:
            if self.settings.folds is not None or self.horizon > len(panel.test[0]):
                raise UsageError(
                    f"{panel.name} has a published test part of {len(panel.test[0])} steps. Leave --folds out, and a longer "
                    "--horizon."
                )
            tests = [test[: self.horizon] for test in panel.test]
            values = tuple(np.concatenate(pair) for pair in zip(panel.values, tests, strict=True))
            future = future_times(panel, self.horizon)
            times = tuple(np.concatenate(pair) for pair in zip(panel.times, future, strict=True))
            return dataclasses.replace(panel, values=values, times=times, test=None), 1
        if self.settings.folds is not None:
            return panel, self.settings.folds
        return panel, count_test_folds(panel, self.horizon)

    def _make_forecaster(self, temporal_attention: bool) -> Forecaster:
        settings = self.settings
        return Forecaster(
            horizon=self.horizon,
            past=settings.past,
            season=self.season,
            architecture=settings.architecture,
            temporal_attention=temporal_attention,
            units=settings.units,
            dropout=settings.dropout,
            quantiles=settings.quantiles or None,
            time=settings.time,
            value=settings.value,
            series=settings.series,
            known=settings.known,
            observed=settings.observed,
            static=settings.static,
            **training_params(settings),
        )

    def _take_point(self, forecasts: np.ndarray) -> np.ndarray:
        return self.target.take_point(forecasts) if forecasts.ndim == 3 else forecasts

    def _naive(self, indices: Sequence[int]) -> np.ndarray:
        values, mask = self.windows.read_past(np.array(indices))
        return repeat_season(values, mask.sum(1), self.horizon, self.season)

    def _statistics(self, forecasts: np.ndarray) -> Statistics:
        """Return the metrics of forecasts as a function of weights (R, n)."""
        points = self._take_point(forecasts)
        base = regression_statistics(self.actual, points)
        losses = {
            "mase": np.abs(self.actual - points).mean(1) / self.naive_errors,
            # One value is all quantiles of a forecast without a band.
            "pinball": self._pinball(forecasts if forecasts.ndim == 3 else points[..., None]),
        }
        return lambda weights: base(weights) | {name: weights @ loss / weights.sum(1) for name, loss in losses.items()}

    def _pinball(self, forecasts: np.ndarray) -> np.ndarray:
        levels, errors = np.array(self.target.quantiles or (0.5,)), self.actual[..., None] - forecasts
        return np.maximum(levels * errors, (levels - 1) * errors).mean((1, 2))

    def _describe_steps(self, forecasts: Sequence[np.ndarray]) -> dict[str, Any]:
        """Return the errors of each step of the horizon, and how often the band of quantiles holds the true value."""
        errors = np.mean([np.abs(self._take_point(each) - self.actual) for each in forecasts], axis=0)
        details: dict[str, Any] = {
            "steps": {
                "mae": errors.mean(0).tolist(),
                "mase": (errors / self.naive_errors[:, None]).mean(0).tolist(),
            }
        }
        if forecasts[0].ndim == 3 and len(self.target.quantiles or ()) > 1:
            inside = [(each[..., 0] <= self.actual) & (self.actual <= each[..., -1]) for each in forecasts]
            details["coverage"] = float(np.mean(inside))
        return details

    def _compare(self, points: Mapping[str, Sequence[np.ndarray]], other: str) -> Comparison:
        """Compare attention with another model by the MASE of each unit: a series, or a forecast of the only one.

        A series with fewer forecasts counts less, so that the difference is that of the mean errors of all forecasts.
        """
        counts = np.bincount(self.units)

        def errors_of_units(forecasts: np.ndarray) -> np.ndarray:
            scaled = np.abs(forecasts - self.actual).mean(1) / self.naive_errors
            return np.bincount(self.units, scaled) / counts.mean()

        first, second = ([errors_of_units(each) for each in points[name]] for name in (ATTENTION, other))
        second = second * (len(first) if len(second) == 1 else 1)
        names = (self.names[ATTENTION], self.names[other])
        # The errors themselves are compared: the mean absolute difference of each to zero is their mean.
        comparison = paired_over_seeds(np.zeros(len(counts)), first, second, metric="mae", names=names)
        return dataclasses.replace(comparison, metric="mase")

    def _cut_at_origins(self, indices: Sequence[int]) -> Panel:
        """Return a panel with the past of each of some test forecasts as a series."""
        panel, pairs = self.panel, [(self.series[index], self.origins[index]) for index in indices]

        def cut(series: Any, more: int = 0) -> Any:
            return None if series is None else tuple(series[index][: origin + more] for index, origin in pairs)

        return dataclasses.replace(
            panel,
            ids=tuple(panel.ids[index] for index, _ in pairs),
            times=cut(panel.times),
            values=cut(panel.values),
            known=cut(panel.known, self.horizon),
            observed=cut(panel.observed),
            static=None if panel.static is None else panel.static[[index for index, _ in pairs]],
        )
