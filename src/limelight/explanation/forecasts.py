"""The subject of an explanation of forecasts: the window before each forecast is an example, its steps are the tokens."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight.exceptions import AttentionError
from limelight.explanation.subjects import DeleteRows, Role, Subject, choose_perturbation, number_rows
from limelight.models.forecaster import count_test_folds, list_origins
from limelight.models.panels import add_future, as_panel


@dataclasses.dataclass(frozen=True)
class ReplaceSteps:
    """Replace steps of a window (T, C) by the mean of the window; the last column, the number of the example, stays."""

    name: str = "replaced by the mean of the window"

    def __call__(self, example: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Return the window with the mean of its steps at every place where `keep` (T,) is False."""
        perturbed = np.array(example)
        perturbed[~keep, :-1] = example[:, :-1].mean(0)
        return perturbed


class NaiveForecast(keras.layers.Layer):
    """The seasonal naive forecast of scaled windows: the last season again; the last value where there is less than a season.

    Args:
        horizon: the number of steps H.
        season: the number of steps in a season; 1 repeats the last value.

    Call arguments:
        values: (B, P), padded at the end.
        mask: bool (B, P), True at real steps.

    Returns:
        (B, H).
    """

    def __init__(self, horizon: int, season: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.horizon, self.season = horizon, season

    def call(self, values: Any, mask: Any) -> Any:
        lengths = ops.sum(ops.cast(mask, "int32"), axis=1)
        seasons = ops.expand_dims(ops.where(lengths >= self.season, self.season, 1), 1)
        steps = ops.expand_dims(ops.arange(self.horizon, dtype="int32"), 0)
        columns = ops.expand_dims(lengths, 1) - seasons + steps % seasons
        return ops.take_along_axis(values, ops.maximum(columns, 0), axis=1)

    def compute_output_spec(self, values: Any, mask: Any) -> Any:
        return keras.KerasTensor((values.shape[0], self.horizon), dtype=values.dtype)


def build_point_model(forecaster: Any, step: int | None = None) -> keras.Model:
    """Return the model of the point forecasts (B, H) of a `Forecaster`, in the scale of the window, from its inputs.

    What the forecaster adds to the output of its network, the naive forecast, is part of this model.

    Args:
        forecaster: a fitted `Forecaster`.
        step: one step of the horizon, from 0, whose forecast (B, 1) alone is returned.
    """
    model, inputs, quantiles = forecaster.model_, forecaster.inputs_, forecaster.target_.quantiles
    outputs = model.output
    if quantiles is not None:
        # The forecaster sorts its quantiles.
        outputs = ops.sort(outputs, axis=-1)[..., forecaster.target_.middle]
    if inputs.difference:
        naive = NaiveForecast(inputs.horizon, inputs.season, name="naive_forecast")
        outputs = outputs + naive(model.input["past"][..., 0], model.input["mask"])
    if step is not None:
        outputs = outputs[:, step : step + 1]
    return keras.Model(model.input, outputs, name="point_forecast")


def find_role(key: str) -> Role | None:
    """Return the role of the attention of a forecaster, by its key."""
    return None if "variable_selection" in key else Role(key, "self_attention" in key)


def make_subject(
    model: Any,
    data: Any,
    known: Any = None,
    *,
    perturbation: Any,
    sample: int | None,
    folds: int | None,
    horizon_step: int | None,
    seed: int,
) -> Subject:
    """Return the subject of a `Forecaster`: windows of the series, one horizon apart, the last ones whose future is known.

    Args:
        model: the forecaster.
        data: the series, as `predict` takes them.
        known: the known covariates after their ends, as `predict` takes them.
        perturbation: "replace", "delete" or None.
        sample: the largest number of windows, at random; None for all.
        folds: the number of windows of each series; `count_test_folds` by default.
        horizon_step: the step of the forecast that is explained, from 1; the whole forecast by default.
        seed: seed of the choice.

    Raises:
        AttentionError: the model has no temporal attention.
        ValueError: the series do not fit the model, or there is no such step.
    """
    inputs = model.inputs_
    if not model.temporal_attention:
        raise AttentionError(
            "The model must have attention. Received: a Forecaster with temporal_attention=False. Set temporal_attention=True "
            "and fit again."
        )
    if horizon_step is not None and not 1 <= horizon_step <= inputs.horizon:
        raise ValueError(f"`horizon_step` must be from 1 to {inputs.horizon}. Received: horizon_step={horizon_step}.")
    panel, form = as_panel(data, inputs.columns, inputs.grid)
    inputs.check(panel)
    if known is not None:
        panel = add_future(panel, known, inputs.columns, inputs.horizon, inputs.grid, form)
    series, origins, actual = _choose_origins(panel, inputs, folds)
    if sample is not None and sample < len(series):
        chosen = np.sort(np.random.default_rng(seed).choice(len(series), sample, replace=False))
        series, origins, actual = series[chosen], origins[chosen], None if actual is None else actual[chosen]
    windows = model._make_windows(panel, series, origins)
    batch, _, _ = windows.batch(np.arange(len(windows)), inputs.past)
    past, mask = batch.pop("past"), batch.pop("mask")
    lengths = mask.sum(1)
    level, scale = inputs.measure(*windows.read_past(np.arange(len(windows))))
    step = None if horizon_step is None else horizon_step - 1
    targets = None if actual is None else (actual - level) / scale
    sequences = [window[:length] for window, length in zip(past, lengths, strict=True)]
    return Subject(
        build_point_model(model, step),
        number_rows(sequences),
        choose_perturbation(perturbation, ReplaceSteps(), DeleteRows(), only_names=True),
        tokens=[
            [str(time) for time in panel.times[index][origin - length : origin]]
            for index, origin, length in zip(series, origins, lengths, strict=True)
        ],
        baseline=np.stack([sequence.mean(0, keepdims=True) for sequence in sequences]),
        output="values",
        name=type(model).__name__,
        length=inputs.past,
        # Windows of one series depend on each other; without another series they must do.
        groups=series if len(np.unique(series)) > 1 else None,
        origins=[int(index) for index in series],
        outputs=_name_outputs(panel, series, origins, inputs.horizon, step),
        steps=None if step is None else np.full(len(series), step),
        input_name="past",
        context=batch,
        find_role=find_role,
        explained="the forecast, all steps" if step is None else f"step {step + 1} of the forecast",
        query=step if inputs.num_covariates("known") else None,
        variables=_list_variables(model),
        targets=targets if step is None or targets is None else targets[:, step : step + 1],
    )


def measure_variables(subject: Subject) -> dict[str, np.ndarray]:
    """Return by how much each forecast moves (n,) without each variable, by its name; nothing if there is one variable.

    Past values are replaced by their mean over the window, known ones of the steps to forecast by that over these, and those
    of the series by the mean of the training.
    """
    if not subject.variables:
        return {}
    whole = subject.predict(subject.sequences)
    moved = {}
    for name, (source, column) in subject.variables.items():

        def remove(inputs: Any, mask: np.ndarray, source: str = source, column: int = column) -> Any:
            values = np.array(inputs[source])
            if values.ndim == 2:
                values[:, column] = 0
            else:
                weights = mask if source == subject.input_name else np.ones(values.shape[:2])
                means = (values[..., column] * weights).sum(1) / weights.sum(1)
                values[..., column] = np.where(weights > 0, means[:, None], 0)
            return {**inputs, source: values}

        moved[name] = np.abs(subject.predict_changed(remove) - whole).mean(1)
    return moved


def _list_variables(model: Any) -> dict[str, tuple[str, int]]:
    """Return the input of the model and the column of each variable of a forecaster, by its name."""
    inputs, names = model.inputs_, model._name_features()
    num_static = inputs.num_covariates("static")
    past = names[: len(names) - num_static]
    if len(names) == 1:
        return {}
    known = past[len(past) - inputs.num_covariates("known") :]
    return {
        **{name: ("past", column) for column, name in enumerate(past)},
        **{f"{name}, steps to forecast": ("future", column) for column, name in enumerate(known)},
        **{name: ("static", column) for column, name in enumerate(names[len(past) :])},
    }


def _choose_origins(panel: Any, inputs: Any, folds: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the series and the origin of each window, and the values after it (n, H) if all are known."""
    horizon = inputs.horizon
    if panel.test is not None:
        lengths = np.array([len(values) for values in panel.values])
        return np.arange(len(panel)), lengths, np.stack([values[:horizon] for values in panel.test]).astype(np.float64)
    series, origins = list_origins(panel, horizon, count_test_folds(panel, horizon) if folds is None else folds)
    actual = np.stack(
        [panel.values[index][origin : origin + horizon] for index, origin in zip(series, origins, strict=True)]
    )
    return series, origins, actual.astype(np.float64)


def _name_outputs(panel: Any, series: np.ndarray, origins: np.ndarray, horizon: int, step: int | None) -> list[str]:
    """Return the name of each forecast: its series, and its number of steps after the origin."""
    title = f"steps 1 to {horizon}" if step is None else f"step {step + 1}"
    return [
        f"{panel.ids[index]}, {title} after {panel.times[index][origin - 1]}"
        for index, origin in zip(series, origins, strict=True)
    ]
