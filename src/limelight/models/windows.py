"""Windows of series: past values in, the next ones out, each window in units of its own size."""

import dataclasses
from typing import Any, Self

import numpy as np

from limelight.data import Panel
from limelight.data.timesteps import Grid
from limelight.models.panels import Columns, Form

SCALINGS = ("mean", "recent", "standard")
_ROLES = ("known", "observed", "static")
# The largest weight of a window under a relative loss, and the inverse of the smallest: a value of 0 would weigh without limit.
_MAX_WEIGHT = 20.0


@dataclasses.dataclass
class WindowInputs:
    r"""The encoding of series as windows.

    A window is scaled by what it shows, never by what follows: $x = (v - \mu) / s$. The target is the difference to a naive
    forecast, in the same units: $y = (v_{P + h} - n_h) / s$.

    Args:
        past, horizon: Number of steps P and H.
        season: Number of steps in a season; 1 if there is none.
        scaling: "mean" (s is the mean absolute value, and mu is 0), "recent" (the same of the last season, or of the
            last quarter of the past if that is longer), or "standard" (mean and standard deviation).
        difference: Targets are differences to a naive forecast: the value a season before, or the last one.
        means, scales: Of the known, observed and static covariates over the training part, by role.
        columns: The roles of the columns of a frame.
        form: The form of the training data.
        history: The ends of the training series.
        grid: The steps between their times, which the ends alone may not tell.
    """

    past: int
    horizon: int
    season: int
    scaling: str
    difference: bool
    means: dict[str, np.ndarray]
    scales: dict[str, np.ndarray]
    columns: Columns
    form: Form
    history: Panel
    grid: Grid | None = None

    def __post_init__(self) -> None:
        if self.scaling not in SCALINGS:
            raise ValueError(f'`scaling` must be "mean", "recent" or "standard". Received: scaling={self.scaling!r}.')
        if self.season > self.past:
            raise ValueError(
                f"`past` must be at least a season. Received: past={self.past}, season={self.season}. Raise it, or set season=1."
            )

    def num_covariates(self, role: str) -> int:
        """Return the number of known, observed or static covariates."""
        return len(self.means[role])

    def check(self, panel: Panel) -> None:
        """Raise if a panel has other covariates than the training data."""
        for role in _ROLES:
            series = getattr(panel, role)
            count = 0 if series is None else series[0].shape[-1]
            if count != self.num_covariates(role):
                raise ValueError(
                    f"The data must have the {self.num_covariates(role)} {role} covariates of the training. Received: {count}."
                )

    def measure(self, values: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the level and the scale (B, 1) of windows (B, P)."""
        count = mask.sum(1, keepdims=True)
        sizes = np.abs(values).sum(1, keepdims=True) / count
        sizes = np.where(sizes > 0, sizes, 1.0)
        if self.scaling == "mean":
            return np.zeros_like(sizes), sizes
        if self.scaling == "recent":
            recent = mask & (np.arange(self.past) >= count - max(self.season, self.past // 4))
            recent_sizes = np.where(recent, np.abs(values), 0.0).sum(1, keepdims=True) / recent.sum(1, keepdims=True)
            # A series that stopped has no recent size.
            return np.zeros_like(sizes), np.where(recent_sizes > 0.01 * sizes, recent_sizes, sizes)
        level = values.sum(1, keepdims=True) / count
        spread = np.sqrt((np.where(mask, values - level, 0.0) ** 2).sum(1, keepdims=True) / count)
        return level, np.where(spread > 1e-6 * sizes, spread, sizes)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs, ready for JSON."""
        fields = ("past", "horizon", "season", "scaling", "difference")
        return {
            **{name: getattr(self, name) for name in fields},
            "means": {role: values.tolist() for role, values in self.means.items()},
            "scales": {role: values.tolist() for role, values in self.scales.items()},
            "columns": dataclasses.asdict(self.columns),
            "form": dataclasses.asdict(self.form),
            "history": _panel_to_dict(self.history),
            "grid": None if self.grid is None else dataclasses.asdict(self.grid),
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Return the inputs that `to_dict` described."""
        columns: dict[str, Any] = {
            name: tuple(value) if name in _ROLES else value for name, value in document["columns"].items()
        }
        return cls(
            **{name: document[name] for name in ("past", "horizon", "season", "scaling", "difference")},
            means={role: np.array(values, float) for role, values in document["means"].items()},
            scales={role: np.array(values, float) for role, values in document["scales"].items()},
            columns=Columns(**columns),
            form=Form(**document["form"]),
            history=_panel_from_dict(document["history"]),
            grid=None if document["grid"] is None else Grid(**document["grid"]),
        )


class Windows:
    """Windows of a panel, as examples of a Keras model.

    Args:
        inputs: The encoding.
        panel: The series.
        series: The index of the series of each window (n,).
        origins: The number of values before each forecast (n,): the window ends there.
        has_levels: Targets have a last axis of 1, for quantiles.
        is_relative: Weigh a window by the mean of its scale over the size of the values to forecast.
    """

    def __init__(
        self,
        inputs: WindowInputs,
        panel: Panel,
        series: np.ndarray,
        origins: np.ndarray,
        has_levels: bool = False,
        is_relative: bool = False,
    ) -> None:
        self.inputs, self.series, self.origins = inputs, series, origins
        self.has_levels, self.is_relative = has_levels, is_relative
        self.lengths = np.full(len(series), inputs.past, np.int64)
        lengths = np.array([len(values) for values in panel.values])
        # The values of all series follow each other, and so do their covariates, which may be longer.
        self._starts = np.cumsum(lengths) - lengths
        self._values = np.concatenate(panel.values).astype(np.float64)
        self._observed = self._scale(panel, "observed")
        self._known = self._scale(panel, "known")
        self._static = self._scale(panel, "static")
        if panel.known is not None:
            known_lengths = np.array([len(rows) for rows in panel.known])
            self._known_starts = np.cumsum(known_lengths) - known_lengths
            short = np.flatnonzero(known_lengths[series] < origins + inputs.horizon)
            if len(short):
                name = panel.ids[series[short[0]]]
                raise ValueError(
                    f"The known covariates must reach {inputs.horizon} steps beyond the values. Those of series {name!r} end "
                    "before. Pass `known`."
                )

    def _scale(self, panel: Panel, role: str) -> np.ndarray | None:
        series = getattr(panel, role)
        if series is None:
            return None
        rows = np.asarray(series) if role == "static" else np.concatenate(series)
        return (rows - self.inputs.means[role]) / self.inputs.scales[role]

    def __len__(self) -> int:
        return len(self.series)

    def batch(self, indices: np.ndarray, length: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Return the inputs of `build_forecaster`, the targets (B, H) or (B, H, 1), and the weights (B,)."""
        inputs, series = self.inputs, self.series[indices]
        values, mask = self.read_past(indices)
        level, scale = inputs.measure(values, mask)
        features = [np.where(mask, (values - level) / scale, 0.0)[..., None]]
        batch = {}
        past_rows = np.maximum(self.origins[indices] - inputs.past, 0)[:, None] + np.arange(inputs.past)
        if self._observed is not None:
            features.append(_take(self._observed, self._starts[series], past_rows) * mask[..., None])
        if self._known is not None:
            features.append(_take(self._known, self._known_starts[series], past_rows) * mask[..., None])
            future_rows = self.origins[indices][:, None] + np.arange(inputs.horizon)
            batch["future"] = _take(self._known, self._known_starts[series], future_rows).astype(np.float32)
        if self._static is not None:
            batch["static"] = self._static[series].astype(np.float32)
        batch |= {"past": np.concatenate(features, axis=-1).astype(np.float32), "mask": mask}
        future = self.read_future(indices)
        targets = ((future - self._compute_naive(values, mask, level)) / scale).astype(np.float32)
        weights = np.ones(len(indices), np.float32)
        if self.is_relative:
            sizes = np.maximum(np.abs(future), np.finfo(np.float32).tiny)
            weights = np.clip((scale / sizes).mean(1), 1 / _MAX_WEIGHT, _MAX_WEIGHT).astype(np.float32)
        return batch, targets[..., None] if self.has_levels else targets, weights

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return forecasts in the units of the series, from outputs (n, H) or (n, H, Q) for all windows; quantiles ascend."""
        values, mask = self.read_past(np.arange(len(self)))
        level, scale = self.inputs.measure(values, mask)
        naive = self._compute_naive(values, mask, level)
        if outputs.ndim == 3:
            return np.sort(naive[..., None] + scale[..., None] * outputs, axis=-1)
        return naive + scale * outputs

    def read_future(self, indices: np.ndarray) -> np.ndarray:
        """Return the values (B, H) after windows; those beyond the end of a series mean nothing."""
        rows = self.origins[indices][:, None] + np.arange(self.inputs.horizon)
        return _take(self._values, self._starts[self.series[indices]], rows)

    def read_past(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the values (B, P) of windows, 0 at padding, and their mask; padding follows the real steps."""
        steps, origins = np.arange(self.inputs.past), self.origins[indices]
        mask = steps < np.minimum(origins, self.inputs.past)[:, None]
        rows = np.maximum(origins - self.inputs.past, 0)[:, None] + steps
        return np.where(mask, _take(self._values, self._starts[self.series[indices]], rows), 0.0), mask

    def _compute_naive(self, values: np.ndarray, mask: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Return what forecasts are differences to (B, H)."""
        if not self.inputs.difference:
            return np.repeat(level, self.inputs.horizon, axis=1)
        return repeat_season(values, mask.sum(1), self.inputs.horizon, self.inputs.season)


def repeat_season(values: np.ndarray, lengths: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Return the seasonal naive forecast: the last season again; the last value where less than a season is there.

    Args:
        values: (B, P), padded at the end.
        lengths: The number of real values (B,).
        horizon: Number of steps H.
        season: Number of steps in a season; 1 repeats the last value.

    Returns:
        Forecasts (B, H).

    Example:
        >>> repeat_season(np.array([[1.0, 2.0, 3.0, 0.0]]), np.array([3]), horizon=4, season=2).tolist()
        [[2.0, 3.0, 2.0, 3.0]]
    """
    seasons = np.where(lengths >= season, season, 1)[:, None]
    columns = lengths[:, None] - seasons + np.arange(horizon) % seasons
    return np.take_along_axis(values, columns, axis=1)


def compute_naive_errors(panel: Panel, season: int, stops: np.ndarray) -> np.ndarray:
    """Return for each series the mean absolute error of the naive forecast one season ahead, before a stop.

    It is the denominator of MASE. A series of less than a season is compared with the value before; one without change has the
    error of its mean size, or 1.

    References:
        Hyndman and Koehler 2006, International Journal of Forecasting 22, 679-688.
    """
    errors = np.empty(len(panel))
    for index, (values, stop) in enumerate(zip(panel.values, stops, strict=True)):
        values = values[:stop].astype(np.float64)
        lag = season if len(values) > season else 1
        error = np.abs(values[lag:] - values[:-lag]).mean() if len(values) > lag else 0.0
        errors[index] = error or np.abs(values).mean() or 1.0
    return errors


def _take(values: np.ndarray, starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the rows (B, n) of series that begin at `starts` (B,)."""
    return values[np.minimum(starts[:, None] + rows, len(values) - 1)]


def _panel_to_dict(panel: Panel) -> dict[str, Any]:
    fields = {
        name: None if getattr(panel, name) is None else [np.asarray(each).tolist() for each in getattr(panel, name)]
        for name in ("values", "known", "observed", "static")
    }
    return {
        **fields,
        **{f"{role}_names": list(getattr(panel, f"{role}_names")) for role in _ROLES},
        "ids": list(panel.ids),
        "times": [np.asarray(times).astype(np.int64).tolist() for times in panel.times],
        "time_dtype": str(np.asarray(panel.times[0]).dtype),
        "season": panel.season,
    }


def _panel_from_dict(document: dict[str, Any]) -> Panel:
    dtype = np.dtype(document["time_dtype"])
    if dtype.kind not in "iM":
        raise ValueError(f"Times must be dates or integers. Received: the type {document['time_dtype']!r}.")
    fields: dict[str, Any] = {
        name: None if document[name] is None else tuple(np.array(each, np.float32) for each in document[name])
        for name in ("values", "known", "observed", "static")
    }
    if fields["static"] is not None:
        fields["static"] = np.stack(fields["static"])
    times = tuple(np.array(each, np.int64).astype(dtype) for each in document["times"])
    names: dict[str, Any] = {f"{role}_names": tuple(document[f"{role}_names"]) for role in _ROLES}
    return Panel("series", tuple(document["ids"]), times, **fields, **names, season=document["season"])
