"""Frames, lists and arrays of series as a `Panel`, and forecasts in the form of the data."""

import dataclasses
import datetime
import re
import zoneinfo
from collections.abc import Sequence
from typing import Any

import numpy as np

from limelight.data import Panel
from limelight.data.timesteps import Grid, TimeError, find_grid, parse_times
from limelight.exceptions import DataError

# The end of a text that says how far its time is from UTC.
_OFFSET = re.compile(r"(Z|UTC|[+-]\d{2}:?\d{2})\s*$")
_FORMS = "Series must be a Panel, a frame, an array, or a list of arrays of numbers."


@dataclasses.dataclass(frozen=True)
class Columns:
    """The roles of the columns of a frame.

    Args:
        time: The times.
        value: The values of a long frame.
        series: The names of the series of a long frame; without it, a frame with `value` holds one series.
        known, observed, static: The covariates.
    """

    time: str | None = None
    value: str | None = None
    series: str | None = None
    known: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    def check(self, frame: Any, label: str = "The frame") -> None:
        """Raise if a column is missing, or if its values cannot be told from others."""
        names = [str(name) for name in frame.columns]
        wanted = [self.time, self.value, self.series, *self.known, *self.observed, *self.static]
        for name in wanted:
            if name is not None and name not in names:
                raise DataError(f"{label} must have the column {name!r}. Received: {', '.join(names)}.")
        if self.series is not None and (self.value is None or self.time is None):
            raise DataError(
                f"A long frame needs `time` and `value`. Received: series={self.series!r}, time={self.time!r}, "
                f"value={self.value!r}."
            )


@dataclasses.dataclass(frozen=True)
class Form:
    """The form of the data, in which forecasts are returned.

    Args:
        layout: "array", "long" or "wide".
        library: "numpy", "pandas" or "polars".
        text_times: Times were texts.
        day: The day of the month of monthly dates, counted from 0; -1 for the last.
        zone: The time zone of the times, which are those of UTC inside; texts with an offset are texts of UTC.
        is_local: Times inside are those of the zone: all have one time of day, so that a step is a day even where summer time
            begins.
        dates: Times were dates of polars.
        integer_ids: The names of the series were integers.
    """

    layout: str = "array"
    library: str = "numpy"
    text_times: bool = False
    day: int = 0
    zone: str | None = None
    is_local: bool = False
    dates: bool = False
    integer_ids: bool = False

    def wrap(
        self, forecasts: np.ndarray, ids: Sequence[str], times: Sequence[np.ndarray], columns: Columns, levels: Any
    ) -> Any:
        """Return forecasts (n, H) or (n, H, Q) in the form of the data."""
        if self.layout == "array":
            return forecasts
        values = forecasts[..., None] if levels is None else forecasts
        suffixes = [""] if levels is None else [f" {level:g}" for level in levels]
        if self.layout == "long":
            table: dict[str, Any] = {}
            if columns.series is not None:
                names = np.array(ids, dtype=np.int64 if self.integer_ids else object)
                table[columns.series] = np.repeat(names, values.shape[1])
            table[columns.time or "time"] = self._restore_times(np.concatenate(list(times)))
            for index, suffix in enumerate(suffixes):
                table[f"{columns.value}{suffix}"] = values[..., index].ravel()
        else:
            # Series may end at different times.
            every = np.unique(np.concatenate(list(times)))
            table = {columns.time or "time": self._restore_times(every)}
            for name, own, steps in zip(ids, times, values, strict=True):
                rows = np.full((len(every), len(suffixes)), np.nan)
                rows[np.searchsorted(every, own)] = steps
                table |= {f"{name}{suffix}": rows[:, index] for index, suffix in enumerate(suffixes)}
        name = columns.time or "time"
        if self.library == "polars":
            import polars

            frame = polars.DataFrame({name: _to_polars(column) for name, column in table.items()})
            return (
                frame if self.zone is None or self.text_times else frame.with_columns(self._to_zone(polars.col(name)))
            )
        import pandas

        frame = pandas.DataFrame(table)
        if self.zone is not None and not self.text_times:
            frame[name] = self._to_zone(frame[name])
        return frame

    def _to_zone(self, times: Any) -> Any:
        """Return a column of pandas or an expression of polars in the time zone."""
        if self.library == "polars":
            if not self.is_local:
                return times.dt.replace_time_zone("UTC").dt.convert_time_zone(self.zone)
            local, later = (
                each.dt.replace_time_zone(self.zone, ambiguous="earliest", non_existent="null")
                for each in (times, times + datetime.timedelta(hours=1))
            )
            return local.fill_null(later)
        if not self.is_local:
            return times.dt.tz_localize("UTC").dt.tz_convert(self.zone)
        # A time that summer time skips is the next one; of one that occurs twice, the first.
        return times.dt.tz_localize(self.zone, ambiguous=np.ones(len(times), bool), nonexistent="shift_forward")

    def name_times(self, times: np.ndarray) -> list[str]:
        """Return times as tokens, in their time zone."""
        if self.zone is None or self.is_local:
            return [str(time) for time in times]
        try:
            zone = datetime.UTC if self.zone == "UTC" else zoneinfo.ZoneInfo(self.zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError):  # such as an offset
            zone = datetime.UTC
        moments = [moment.replace(tzinfo=datetime.UTC) for moment in times.astype("datetime64[us]").tolist()]
        return [moment.astimezone(zone).isoformat(timespec="auto").replace("+00:00", "Z") for moment in moments]

    def _restore_times(self, times: np.ndarray) -> np.ndarray:
        if self.text_times:
            names = times.astype(str).astype(object)
            return names if self.zone is None else names + "Z"
        if times.dtype.kind != "M":
            return times
        if np.datetime_data(times.dtype)[0] == "M":
            last = (times + 1).astype("datetime64[D]") - 1
            times = last if self.day < 0 else np.minimum(times.astype("datetime64[D]") + self.day, last)
        if self.dates:
            return times.astype("datetime64[D]")
        return times.astype("datetime64[us]")


def as_panel(data: Any, columns: Columns, grid: Grid | None = None) -> tuple[Panel, Form]:
    """Return series as a panel, and their form.

    Args:
        data: A `Panel`; a long frame (a row for each time of each series) or a wide one (a column for each series) of pandas or
            polars; a list of arrays (T,); an array (T,), or (n, T) of n series.
        columns: The roles of the columns of a frame.
        grid: The grid of the training, which the times of a frame have if they fit it: a few may fit several.

    Raises:
        DataError: A value is missing or infinite, a step is missing, a time occurs twice, or there is no series.
        TypeError: `data` is none of these.
    """
    if isinstance(data, Panel):
        panel, form = data, Form()
    elif hasattr(data, "columns") and hasattr(data, "to_numpy"):
        columns.check(data)
        if not len(data):
            raise DataError("A frame must hold at least one row. Received: none.")
        panel, form = _from_frame(data, columns, grid)
    else:
        panel, form = _from_arrays(data), Form()
    if not len(panel):
        raise DataError("The data must hold at least one series. Received: none.")
    for index, name in enumerate(panel.ids):
        if not len(panel.values[index]):
            raise DataError(f"A series must have at least one value. Series {name!r} has none.")
        for role in ("values", "known", "observed", "static"):
            series = getattr(panel, role)
            if series is not None and not np.isfinite(series[index]).all():
                what = "value" if role == "values" else f"{role} covariate"
                raise DataError(
                    f"Every {what} must be finite. Series {name!r} has NaN or infinity. Fill the gap, or drop the series."
                )
    return panel, form


def future_times(panel: Panel, horizon: int, grid: Grid | None = None) -> list[np.ndarray]:
    """Return the times of the steps after the end of each series, on a grid if their times fit it, or on their own."""
    grid = choose_grid(panel.times, grid)
    return [grid.times(times[-1:], horizon + 1)[1:] for times in panel.times]


def season_of(panel: Panel) -> int:
    """Return the number of steps in a season; 1 where it is unknown."""
    season = panel.season if panel.season is not None else choose_grid(panel.times).season
    return season or 1


def choose_grid(series: Sequence[Any], grid: Grid | None = None) -> Grid:
    """Return a grid if the times of all series are successive steps of it, or that which they have themselves."""
    series = [np.asarray(times) for times in series]
    if not series:
        return Grid("", 1)
    kind = series[0].dtype
    unit = np.datetime_data(kind)[0] if kind.kind == "M" else ""
    if grid is None or {"B": "D"}.get(grid.unit, grid.unit) != unit:
        return find_grid(series)
    fits = all(np.array_equal(grid.positions(times), np.arange(len(times))) for times in series)
    return grid if fits else find_grid(series)


def add_future(
    panel: Panel, known: Any, columns: Columns, horizon: int, grid: Grid | None = None, form: Form | None = None
) -> Panel:
    """Return a panel with the known covariates of the steps after the end of each series.

    Args:
        panel: The series.
        known: An array (n, H, F), or (H, F) for all series; or a frame with the times, the covariates, and the names of the
            series if the data have them.
        columns: The roles of the columns of a frame.
        horizon: H.
        grid: As in `as_panel`.
        form: The form of the series.
    """
    if panel.known is None:
        raise ValueError("`known` needs a model with known covariates. Received: covariates, but none in the training.")
    num_known = panel.known[0].shape[1]
    if hasattr(known, "columns"):
        expected = future_times(panel, horizon, grid)
        rows = _select_future(panel, known, columns, expected, form)
    else:
        rows = np.asarray(known, np.float32)
        rows = np.broadcast_to(rows, (len(panel), *rows.shape)) if rows.ndim == 2 else rows
    if rows.shape != (len(panel), horizon, num_known):
        raise ValueError(
            f"`known` must be ({len(panel)}, {horizon}, {num_known}): series, steps, covariates. Received: {rows.shape}."
        )
    if not np.isfinite(rows).all():
        raise DataError("Every known covariate must be finite. `known` has NaN or infinity.")
    pasts = [each[: len(values)] for each, values in zip(panel.known, panel.values, strict=True)]
    return dataclasses.replace(
        panel, known=tuple(np.concatenate([past, future]) for past, future in zip(pasts, rows, strict=True))
    )


def _select_future(
    panel: Panel, known: Any, columns: Columns, times_after: Sequence[np.ndarray], form: Form | None
) -> np.ndarray:
    """Return the rows (n, H, F) of a frame at the times after the end of each series."""
    wanted = dataclasses.replace(columns, value=columns.series and columns.known[0], observed=(), static=())
    wanted.check(known, "`known`")
    times, _ = _parse_times(known, columns.time, None if form is None else form.is_local)
    names = None if columns.series is None else np.asarray(known[columns.series]).astype(str)
    values = _stack(known, columns.known, len(times))
    selected = []
    for name, expected in zip(panel.ids, times_after, strict=True):
        rows = np.arange(len(times)) if names is None else np.flatnonzero(names == name)
        row_of_time = dict(zip(times[rows].astype(expected.dtype).tolist(), rows, strict=True))
        missing = [str(time) for time in expected if time.tolist() not in row_of_time]
        if missing:
            raise DataError(
                f"`known` must have a row for each step to forecast. {missing[0]} of series {name!r} is missing."
            )
        selected.append(values[[row_of_time[time.tolist()] for time in expected]])
    return np.stack(selected)


def _from_arrays(data: Any) -> Panel:
    if isinstance(data, list | tuple) and len(data) and not all(np.ndim(each) == 0 for each in data):
        values = [_as_numbers(each, f"series {index}") for index, each in enumerate(data)]
    else:
        array = _as_numbers(data, "`data`")
        if not array.ndim:
            raise TypeError(f"{_FORMS} Received: {type(data).__name__}.")
        values = list(array[None] if array.ndim == 1 else array)
    for index, each in enumerate(values):
        if each.ndim != 1:
            raise DataError(f"A series must be an array (T,). Received: shape {each.shape} for series {index}.")
    return Panel(
        "series", tuple(map(str, range(len(values)))), tuple(np.arange(len(each)) for each in values), tuple(values)
    )


def _as_numbers(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{_FORMS} Received: {type(values).__name__} for {name}.") from error


def _from_frame(frame: Any, columns: Columns, grid: Grid | None) -> tuple[Panel, Form]:
    times, form = _parse_times(frame, columns.time)
    roles = {role: _stack(frame, getattr(columns, role), len(times)) for role in ("known", "observed", "static")}
    if columns.value is None:
        used = {columns.time, *columns.known, *columns.observed, *columns.static}
        names = [name for name in frame.columns if str(name) not in used]
        groups = [(str(name), np.arange(len(times)), _read_numbers(frame, name)) for name in names]
        form = dataclasses.replace(form, layout="wide")
    else:
        values = _read_numbers(frame, columns.value)
        labels = np.zeros(len(times), int)
        if columns.series is not None:
            names = np.asarray(frame[columns.series])
            row = next((row for row, name in enumerate(names.tolist()) if name is None or name != name), None)
            if row is not None:
                raise DataError(
                    f"Every row must name its series. {columns.series!r} of row {row} is missing. Drop the row."
                )
            labels, form = names.astype(str), dataclasses.replace(form, integer_ids=names.dtype.kind in "iu")
        ids = ["series"] if columns.series is None else list(dict.fromkeys(labels.tolist()))
        members = (
            [np.flatnonzero(labels == name) for name in ids] if columns.series is not None else [np.arange(len(times))]
        )
        groups = [(name, rows, values[rows]) for name, rows in zip(ids, members, strict=True)]
        form = dataclasses.replace(form, layout="long")
    series = [_sort(name, times, rows, values) for name, rows, values in groups]
    grid = choose_grid([each[1] for each in series], grid)
    for name, sorted_times, *_ in series:
        steps = grid.positions(sorted_times)
        if not np.array_equal(steps, np.arange(len(steps))):
            gap = int(np.flatnonzero(steps != np.arange(len(steps)))[0])
            raise DataError(
                f"The times of a series must be one step ({grid}) apart. Series {name!r} has a gap before {sorted_times[gap]}. "
                "Fill it; `limelight.data.load_panel` interpolates."
            )
    fields: dict[str, list[np.ndarray]] = {"times": [], "values": [], "known": [], "observed": [], "static": []}
    for name, sorted_times, rows, values in series:
        # Rows with known covariates, but no value, are the steps to forecast.
        length = len(values)
        while columns.known and length and np.isnan(values[length - 1]):
            length -= 1
        fields["times"].append(sorted_times[:length])
        fields["values"].append(values[:length])
        fields["known"].append(roles["known"][rows])
        fields["observed"].append(roles["observed"][rows[:length]])
        static = roles["static"][rows]
        if len(static) and (static != static[0]).any():
            raise DataError(f"A static covariate must have one value in each series. It varies in series {name!r}.")
        fields["static"].append(static[0] if len(static) else np.zeros(roles["static"].shape[1]))
    panel = Panel(
        "series",
        tuple(each[0] for each in series),
        tuple(fields["times"]),
        tuple(fields["values"]),
        known=tuple(fields["known"]) if columns.known else None,
        observed=tuple(fields["observed"]) if columns.observed else None,
        static=np.array(fields["static"], np.float32) if columns.static else None,
        known_names=columns.known,
        observed_names=columns.observed,
        static_names=columns.static,
        season=grid.season,
    )
    return panel, form


def _stack(frame: Any, names: Sequence[str], count: int) -> np.ndarray:
    """Return columns as numbers (rows, F)."""
    if not names:
        return np.zeros((count, 0), np.float32)
    return np.stack([_read_numbers(frame, name) for name in names], axis=1)


def _read_numbers(frame: Any, name: str) -> np.ndarray:
    """Return a column of numbers; missing ones are NaN."""
    column = np.asarray(frame[name])
    try:
        if column.dtype.kind in "mM":
            raise TypeError
        return column.astype(np.float32)
    except (TypeError, ValueError) as error:
        kind = column.dtype if column.dtype.kind != "O" else type(column[0]).__name__
        raise DataError(
            f"Column {name!r} must hold numbers. Received: {kind}, such as {str(column[0])[:60]!r}. If it holds the times, "
            f"name it: time={name!r}; if it names the series of a long frame, series={name!r}; else convert it, or leave it out."
        ) from error


def _sort(
    name: str, times: np.ndarray, rows: np.ndarray, values: np.ndarray
) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """Return the name, times, rows and values of a series, in the order of time."""
    order = np.argsort(times[rows], kind="stable")
    times = times[rows][order]
    repeated = np.flatnonzero(times[1:] == times[:-1])
    if len(repeated):
        raise DataError(
            f"A series must have one row for each time. {times[repeated[0]]} occurs twice in series {name!r}."
        )
    return name, times, rows[order], values[order]


def _parse_times(frame: Any, name: str | None, is_local: bool | None = None) -> tuple[np.ndarray, Form]:
    """Return the times of a frame, and their form; the row numbers if no column is named and the index has no dates.

    Times of a zone are those of UTC inside, but local ones if all have one time of day, or `is_local`.
    """
    library = type(frame).__module__.split(".")[0]
    if name is not None:
        times = frame[name]
    elif library == "pandas" and (frame.index.dtype.kind == "M" or "period" in str(frame.index.dtype)):
        times = frame.index.to_series()
    else:
        return np.arange(len(frame)), Form(library=library)
    zone = getattr(times.dtype, "tz", None) or getattr(times.dtype, "time_zone", None)
    if zone is None:
        is_local = False
        column = np.asarray(times)
    else:
        local = times.dt.tz_localize(None) if library == "pandas" else times.dt.replace_time_zone(None)
        column = np.asarray(local)
        if is_local is None:
            is_local = len(np.unique(column - column.astype("datetime64[D]"))) == 1
        if not is_local:
            column = np.asarray(times.dt.tz_convert("UTC").dt.tz_localize(None) if library == "pandas" else times)
    if column.dtype.kind in "iu":
        return column.astype(np.int64), Form(library=library)
    is_text = column.dtype.kind != "M"
    texts = [str(time) for time in column] if is_text else []
    try:
        times = parse_times(texts if is_text else column)
    except TimeError as error:
        raise DataError(
            f"Column {name!r} must hold times, such as 1990-01. Row {error.index} holds {str(column[error.index])[:60]!r}."
        ) from None
    day = 0
    if times.dtype.kind == "M" and not is_text and len(times):
        dates = column.astype("datetime64[D]")
        is_last = ((dates + 1).astype("datetime64[M]") != dates.astype("datetime64[M]")).all()
        day = -1 if is_last else int((dates - times.astype("datetime64[M]")).astype(int)[0])
    if is_text and times.dtype.kind == "M" and np.datetime_data(times.dtype)[0] not in "YMD":
        zone = "UTC" if any(_OFFSET.search(text) for text in texts) else None
    return times, Form(
        library=library,
        text_times=is_text and times.dtype.kind == "M",
        day=day,
        zone=None if zone is None else str(zone),
        is_local=is_local,
        dates=library == "polars" and column.dtype == "datetime64[D]",
    )


def _to_polars(column: np.ndarray) -> Any:
    return column.tolist() if column.dtype.kind == "O" else column
