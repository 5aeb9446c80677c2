"""Tables of time series for forecasting: the data set, and its reader."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from limelight.data import tables, textfiles
from limelight.data.cleaning import add_repair
from limelight.data.dataset import Repair
from limelight.data.frame import SERIES_COLUMNS, TIME_COLUMNS, VALUE_COLUMNS, Frame, parse_number
from limelight.data.tables import Role
from limelight.data.timesteps import Grid, TimeError, find_grid
from limelight.exceptions import ColumnError, DataError

# Numbers of rows that other programs write beside a table.
_ROW_NUMBERS = frozenset(("", "index", "unnamed: 0"))
_MAX_CATEGORIES = 50


@dataclass(frozen=True, eq=False, repr=False)
class Panel:
    """Time series on one grid of steps, without gaps.

    Args:
        name: A short name for titles and files.
        ids: The name of each series.
        times: For each series its times (T,), datetime64 or int64, all one step apart.
        values: For each series its values (T,), float32, finite.
        known: For each series the covariates that are known in advance (T or more, F), float32: rows after the last value are
            those of the steps to forecast. None if there are none.
        observed: For each series the covariates that are known up to the present (T, F), float32. None if there are none.
        static: The covariates of the series themselves (series, F), float32. None if there are none.
        known_names: The names of the known covariates; of a column of categories, one `column=category` for each.
        observed_names: The names of the observed covariates.
        static_names: The names of the static covariates.
        repairs: The changes that reading made, with their counts.
        source: Where the data came from, in words.
        season: The number of steps in a season (12 for months), 1 where there is none; None if it is unknown.
        horizon: The number of steps to forecast; None if it is free.
        test: For each series the published values after its last one (horizon,), float32; None if there are none.

    Raises:
        ValueError: a field does not have one value for each series, or the lengths of a series differ.

    Example:
        >>> panel = Panel("sales", ("shop",), (np.arange(3),), (np.array([5, 7, 6]),), season=7)
        >>> panel, panel.values[0].dtype
        (Panel('sales', 1 series of 3 steps), dtype('float32'))
    """

    name: str
    ids: tuple[str, ...]
    times: tuple[np.ndarray, ...]
    values: tuple[np.ndarray, ...]
    known: tuple[np.ndarray, ...] | None = None
    observed: tuple[np.ndarray, ...] | None = None
    static: np.ndarray | None = None
    known_names: tuple[str, ...] = ()
    observed_names: tuple[str, ...] = ()
    static_names: tuple[str, ...] = ()
    repairs: tuple[Repair, ...] = ()
    source: str = ""
    season: int | None = None
    horizon: int | None = None
    test: tuple[np.ndarray, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("values", "known", "observed", "test"):
            series = getattr(self, name)
            if series is not None:
                object.__setattr__(self, name, tuple(np.asarray(each, dtype=np.float32) for each in series))
        for name in ("times", "values", "known", "observed", "static", "test"):
            series = getattr(self, name)
            if series is not None and len(series) != len(self.ids):
                raise ValueError(
                    f"`{name}` must hold one value for each of the {len(self.ids)} series. Received: {len(series)}."
                )
        for index, (times, values) in enumerate(zip(self.times, self.values, strict=True)):
            known = None if self.known is None else self.known[index]
            observed = None if self.observed is None else self.observed[index]
            fits = np.shape(times) == values.shape == (len(values),)
            fits = fits and (known is None or (known.ndim == 2 and len(known) >= len(values)))
            if not fits or (observed is not None and (observed.ndim != 2 or len(observed) != len(values))):
                shapes = {"times": np.shape(times), "values": values.shape}
                shapes |= {
                    name: np.shape(each)
                    for name, each in (("known", known), ("observed", observed))
                    if each is not None
                }
                received = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
                raise ValueError(
                    f"A series must have times and values (T,), known covariates (T or more, F) and observed ones (T, F). "
                    f"Received for {self.ids[index]!r}: {received}."
                )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def fingerprint(self) -> str:
        """A hash of the names, times, values and covariates of all series."""
        total = hashlib.blake2b(digest_size=16, person=b"limelight-panel")
        for name in ("ids", "times", "values", "known", "observed", "static", "test"):
            for each in getattr(self, name) if getattr(self, name) is not None else ():
                array = np.asarray(each)
                content = str(each).encode() if array.dtype.kind == "U" else np.ascontiguousarray(array).tobytes()
                total.update(f"{name} {array.shape} {len(content)} ".encode() + content)
        return total.hexdigest()

    def __repr__(self) -> str:
        lengths = [len(values) for values in self.values] or [0]
        steps = f"{lengths[0]:,}" if min(lengths) == max(lengths) else f"{min(lengths):,} to {max(lengths):,}"
        return f"Panel({self.name!r}, {len(self):,} series of {steps} steps)"


def load_panel(
    path: str | os.PathLike[str],
    *,
    time: str | None = None,
    value: str | None = None,
    series: str | None = None,
    known: Sequence[str] = (),
    observed: Sequence[str] = (),
    static: Sequence[str] = (),
    grid: Grid | None = None,
) -> Panel:
    """Load a table of time series, put it on a grid of equal steps, and count what was changed.

    A long table has a row for each time of each series; a wide one has a column for each series. Rows are sorted. The step is
    the most frequent difference between times; steps that are missing, and missing values within a series, are interpolated
    linearly; missing values at its ends are dropped.

    Args:
        path: The name of a data set (`limelight.data.NAMES`), or the path of a .csv, .tsv, .jsonl or .parquet file with a
            header, also compressed (.gz, or .zip with one file).
        time: The column of the times: ISO dates, months (1990-01), quarters (1990Q1), years or integers. By default the only
            one with a usual name, such as "date", or the only one that holds times.
        value: The column of the values. By default the one with a usual name, such as "value", or the only column of numbers.
            If there are several, each is a series.
        series: The column that names the series of a long table. By default one with a usual name, such as "series".
        known: Columns of covariates that are known in advance. Rows that have them, but no value, after the end of a series
            are the steps to forecast.
        observed: Columns of covariates that are known up to the present.
        static: Columns that are constant within each series. Covariates are numbers or categories, which become columns of 0
            and 1.
        grid: Steps that are taken for those of the table if its times fit them, such as the `inputs_.grid` of a `Forecaster`:
            a few times may fit several. A named data set has its own.

    Returns:
        The series in the order in which the table names them, with the repairs.

    Raises:
        DataError: the data cannot be used; the message says in one line what must hold, what was received, what to do.
        ImportError: pyarrow is not installed.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name, "shops.csv")
        >>> _ = path.write_text("month,north,south\\n2025-01,5,8\\n2025-02,,9\\n2025-04,11,9\\n")
        >>> panel = load_panel(path)
        >>> panel.ids, panel.values[0].tolist(), panel.season
        (('north', 'south'), [5.0, 7.0, 9.0, 11.0], 12)
        >>> folder.cleanup()
    """
    from limelight.data import registry

    columns = {"time": time, "value": value, "series": series}
    covariates = {"known": _names(known), "observed": _names(observed), "static": _names(static)}
    if isinstance(path, str) and path in registry.NAMES:
        given = [f"{name}={column!r}" for name, column in {**columns, **covariates}.items() if column]
        if given:
            raise DataError(f"The data set {path!r} has its own columns. Received: {', '.join(given)}. Leave them out.")
        panel = registry.load(path)
        if not isinstance(panel, Panel):
            raise DataError(f"The data set must be a table of series. {path!r} is {panel!r}. Read it with `load`.")
        return panel
    path = Path(os.path.expanduser(path))
    repairs: list[Repair] = []
    table = Frame(path, repairs)
    layout = _choose_layout(table, columns, covariates)
    return _build(textfiles.stem_of(path), table, layout, covariates, grid, repairs)


def _names(columns: Sequence[str]) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(columns)


class _Layout(NamedTuple):
    """The columns of the times, of the values (one for each series of a wide table), and of the series of a long one."""

    time: str
    values: tuple[str, ...]
    series: str | None


def _choose_layout(table: Frame, columns: dict[str, str | None], covariates: dict[str, tuple[str, ...]]) -> _Layout:
    """Return the columns to read: those given, those with a usual name, or the only ones of their kind."""
    given = [name for names in covariates.values() for name in names]
    for name in given:
        tables.choose_column(table.names, Role("covariate", name), name, table.label)
    taken = [name for name in (*columns.values(), *given) if name is not None]
    repeated = next((name for name in taken if taken.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"Each column of {table.label} can have one role. Received: {repeated!r} for two.")
    time = _choose_time(table, columns["time"], taken)
    rest = [name for name in table.names if name not in (time, *taken)]
    series = columns["series"]
    if series is not None:
        tables.choose_column(table.names, Role("series", series), series, table.label)
    else:
        candidates = [name for name in rest if name.strip().casefold() in SERIES_COLUMNS]
        repeating = [name for name in candidates if len(set(table.strings(name))) < len(table)]
        series = repeating[0] if len(repeating) == 1 else None
    rest = [name for name in rest if name != series and name.strip().casefold() not in _ROW_NUMBERS]
    if columns["value"] is not None:
        value = tables.choose_column(table.names, Role("value"), columns["value"], table.label)
        return _Layout(time, (value,), series)
    numeric = [name for name in rest if table.numbers(name) is not None]
    usual = [name for name in numeric if name.strip().casefold() in VALUE_COLUMNS]
    if len(usual) == 1:
        return _Layout(time, (usual[0],), series)
    if not numeric:
        raise ColumnError(_explain_no_numbers(table, rest))
    if series is not None and len(numeric) > 1:
        tables.choose_column(numeric, Role("value", None, VALUE_COLUMNS), None, f"The numbers of {table.label}")
    if len(numeric) > 1 and covariates["static"]:
        raise DataError(
            f"Static covariates need a long table, or one column of values. {table.label} has the numeric columns "
            f"{', '.join(map(repr, numeric[:20]))}. Name the value."
        )
    return _Layout(time, tuple(numeric), series)


def _explain_no_numbers(table: Frame, names: Sequence[str]) -> str:
    """Return an error that quotes the first value of each column that is no number."""
    quoted = []
    for name in names[:20]:
        texts = table.strings(name)
        row = next((row for row, text in enumerate(texts) if not _is_number(text)), None)
        if row is not None:
            quoted.append(f"{name!r} has {str(texts[row])[:60]!r} in row {row + 1:,}")
    state = f"None of its other columns is: {', '.join(quoted)}" if quoted else "It has no other columns"
    return (
        f"{table.label} must have a column of numbers beside the times. {state}. Write numbers as 1234.5, or name the column "
        f"of the values: value=... (--value on the command line)."
    )


def _is_number(text: str | None) -> bool:
    try:
        parse_number(text)
    except ValueError:
        return False
    return True


def _choose_time(table: Frame, time: str | None, taken: Sequence[str]) -> str:
    role = Role("time", time, TIME_COLUMNS)
    free = [name for name in table.names if name not in taken or name == time]
    try:
        return tables.choose_column(free, role, time, table.label)
    except DataError:
        if time is not None:
            raise
        usual = [name for name in free if name.strip().casefold() in TIME_COLUMNS]
        candidates = [name for name in usual or free if usual or table.numbers(name) is None]
        fitting = [name for name in candidates if _holds_times(table, name)]
        if len(fitting) != 1:
            raise
        return fitting[0]


def _holds_times(table: Frame, name: str) -> bool:
    try:
        return len(table.times(name)[1]) > 0
    except TimeError:
        return False


class _Series(NamedTuple):
    """A series before its gaps are filled: the rows of its table, sorted by their times, and its values."""

    name: str
    rows: np.ndarray
    times: np.ndarray
    values: np.ndarray


def _build(
    name: str,
    table: Frame,
    layout: _Layout,
    covariates: dict[str, tuple[str, ...]],
    preferred: Grid | None,
    repairs: list[Repair],
) -> Panel:
    """Build the panel: sort each series, fill its gaps, and encode the covariates."""
    try:
        times, rows = table.times(layout.time)
    except TimeError as error:
        value = table.strings(layout.time)[error.index]
        raise DataError(
            f"Column {layout.time!r} of {table.label} must hold times of one form: ISO dates such as 1990-01-31, months "
            f"(1990-01), quarters (1990Q1), years or integers. Row {error.index + 1:,} holds {str(value)[:60]!r}. Convert it."
        ) from None
    add_repair(repairs, "rows without a time dropped", len(table) - len(rows))
    series = list(_split_series(table, layout, times, rows, repairs))
    encoded = {role: _encode(table, names) for role, names in covariates.items()}
    grid = find_grid([each.times for each in series], preferred) if series else Grid("", 1)
    filled = _Filled()
    for each in series:
        _fill(each, grid, encoded, table, filled)
    for description, count in zip(_COUNTS.values(), filled.counts.values(), strict=True):
        add_repair(repairs, description, count)
    if not filled.ids:
        raise DataError(f"{table.label} must hold at least one series with values. It has none in {len(table):,} rows.")
    return Panel(
        name,
        tuple(filled.ids),
        tuple(filled.times),
        tuple(filled.values),
        tuple(filled.known) if covariates["known"] else None,
        tuple(filled.observed) if covariates["observed"] else None,
        np.array(filled.static, np.float32) if covariates["static"] else None,
        *(encoded[role][0] for role in ("known", "observed", "static")),
        repairs=tuple(repairs),
        source=f"the file {str(table.path)!r}",
        season=grid.season,
    )


_COUNTS = {
    "empty": "series without a value dropped",
    "ends": "rows without a value at the ends of a series dropped",
    "steps": "missing steps filled by interpolation",
    "values": "missing values filled by interpolation",
    "covariates": "missing values of covariates filled by interpolation",
}


@dataclass
class _Filled:
    """The fields of a panel, series by series, and how often each repair was made."""

    ids: list[str] = field(default_factory=list)
    times: list[np.ndarray] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    known: list[np.ndarray] = field(default_factory=list)
    observed: list[np.ndarray] = field(default_factory=list)
    static: list[np.ndarray] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))


def _split_series(
    table: Frame, layout: _Layout, times: np.ndarray, rows: np.ndarray, repairs: list[Repair]
) -> Iterator[_Series]:
    """Yield the series of a table, sorted by time, in the order in which the table names them."""
    columns = {name: _numbers(table, name)[rows] for name in layout.values}
    if layout.series is None:
        groups: dict[str | None, np.ndarray] = {None: np.arange(len(rows))}
    else:
        names = table.strings(layout.series)
        named = [row for row, index in enumerate(rows) if names[index] is not None]
        add_repair(repairs, "rows without a series dropped", len(rows) - len(named))
        collected: dict[str | None, list[int]] = {}
        for row in named:
            collected.setdefault(names[rows[row]], []).append(row)
        groups = {name: np.array(members) for name, members in collected.items()}
    for group, members in groups.items():
        order = members[np.argsort(times[members], kind="stable")]
        repeated = np.flatnonzero(times[order][1:] == times[order][:-1])
        if len(repeated):
            row = rows[order[repeated[0] + 1]]
            which = "" if group is None else f" of series {group!r}"
            advice = "Name the column of the series (series=...)." if group is None else "Keep one of the rows."
            raise DataError(
                f"A series must have one row for each time. In row {row + 1:,} of {table.label}, the time "
                f"{table.strings(layout.time)[row]!r}{which} occurs again. {advice}"
            )
        for column, values in columns.items():
            is_only = len(columns) == 1
            name = column if group is None else group if is_only else f"{group} {column}"
            yield _Series(name, rows[order], times[order], values[order])


def _numbers(table: Frame, name: str) -> np.ndarray:
    """Return a column of finite numbers or NaN."""
    numbers = table.numbers(name)
    if numbers is None or np.isinf(numbers).any():
        texts = table.strings(name)
        row = next((row for row, text in enumerate(texts) if text is not None and not _is_finite(text)), 0)
        raise DataError(
            f"Column {name!r} of {table.label} must hold finite numbers. Row {row + 1:,} holds {str(texts[row])[:60]!r}. "
            f"Convert it, or name another column."
        )
    return numbers


def _is_finite(text: str) -> bool:
    try:
        return not np.isinf(parse_number(text))
    except ValueError:
        return False


def _encode(table: Frame, names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names and the values (rows, F) of covariates; a column of categories becomes one of 0 and 1 for each."""
    encoded: dict[str, np.ndarray] = {}
    for name in names:
        if table.numbers(name) is not None:
            encoded[name] = _numbers(table, name)
            continue
        texts = table.strings(name)
        categories = sorted({text for text in texts if text is not None})
        if len(categories) > _MAX_CATEGORIES:
            raise DataError(
                f"A covariate must hold numbers, or at most {_MAX_CATEGORIES} categories. Column {name!r} of {table.label} "
                f"holds {len(categories):,} different texts. Name another column."
            )
        for category in categories:
            encoded[f"{name}={category}"] = np.array(
                [np.nan if text is None else text == category for text in texts], float
            )
    return tuple(encoded), np.stack(list(encoded.values()), axis=1) if encoded else np.zeros((len(table), 0))


def _fill(
    series: _Series, grid: Grid, encoded: dict[str, tuple[tuple[str, ...], np.ndarray]], table: Frame, filled: _Filled
) -> None:
    """Append a series on the grid, without gaps, to `filled`."""
    counts = filled.counts
    present = np.flatnonzero(np.isfinite(series.values))
    if not len(present):
        counts["empty"] += 1
        return
    first, last = present[0], present[-1]
    known = encoded["known"][1][series.rows]
    future = np.flatnonzero(np.isfinite(known).all(axis=1)) if known.shape[1] else present
    stop = max(last, future[-1] if len(future) else last) + 1
    counts["ends"] += int(len(series.times) - (stop - first))
    positions = _place(series, grid, table)[first:stop]
    positions = positions - positions[0]
    length, total = int(positions[last - first]) + 1, int(positions[-1]) + 1
    counts["steps"] += total - len(positions)
    counts["values"] += int(np.isnan(series.values[first : last + 1]).sum())
    steps = np.arange(total)
    filled.ids.append(series.name)
    filled.times.append(grid.times(series.times[first : first + 1], length))
    filled.values.append(_interpolate(steps[:length], positions, series.values[first:stop]))
    for role, size, target in (("known", total, filled.known), ("observed", length, filled.observed)):
        names, values = encoded[role]
        values = values[series.rows[first:stop]]
        counts["covariates"] += int(np.isnan(values[positions < size]).sum())
        columns = [
            _interpolate(steps[:size], positions, column, f"Covariate {name!r} of series {series.name!r}")
            for name, column in zip(names, values.T, strict=True)
        ]
        target.append(np.stack(columns, axis=1) if columns else np.zeros((size, 0), np.float32))
    filled.static.append(_constant(series, *encoded["static"], table))


def _place(series: _Series, grid: Grid, table: Frame) -> np.ndarray:
    """Return the positions of a series on the grid, or raise if its times do not fit."""
    positions = grid.positions(series.times)
    off = np.flatnonzero(positions != np.floor(positions))
    if len(off):
        raise DataError(
            f"The times of {table.label} must be whole steps of {grid} apart. In row {series.rows[off[0]] + 1:,}, "
            f"{series.times[off[0]]} of series {series.name!r} lies between two steps. Aggregate the values to equal steps."
        )
    missing = int(positions[-1]) + 1 - len(positions)
    if missing > len(positions):
        raise DataError(
            f"At most half of the steps of a series may be missing. The most frequent step of {table.label} is {grid}; of "
            f"series {series.name!r}, {missing:,} of {missing + len(positions):,} steps are missing. Aggregate the values."
        )
    return positions


def _interpolate(steps: np.ndarray, positions: np.ndarray, values: np.ndarray, name: str = "") -> np.ndarray:
    """Interpolate the values at the steps linearly, and repeat the nearest one at the ends."""
    present = np.isfinite(values)
    if not present.any():
        raise DataError(f"{name} must have a value. All are missing. Leave the column out.")
    return np.interp(steps, positions[present], values[present]).astype(np.float32)


def _constant(series: _Series, names: tuple[str, ...], values: np.ndarray, table: Frame) -> np.ndarray:
    """Return the static covariates of a series, or raise if one varies or is missing."""
    rows = values[series.rows]
    result = np.full(len(names), np.nan)
    for index, (name, column) in enumerate(zip(names, rows.T, strict=True)):
        distinct = np.unique(column[np.isfinite(column)])
        if len(distinct) != 1:
            state = f"{len(distinct):,} different values" if len(distinct) else "none"
            raise DataError(
                f"A static covariate must have one value in each series. {name!r} of series {series.name!r} in {table.label} "
                f"has {state}. Pass it as `known` or `observed`."
            )
        result[index] = distinct[0]
    return result.astype(np.float32)
