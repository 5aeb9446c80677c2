"""Parse times of tables, and put them on a grid of equal steps: years, months, business days, days, hours, integers."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_DATE = r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})"
_CLOCK = r"[T ](\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?\s*(Z|UTC|[+-]\d{2}:?\d{2})?"
_UNITS = {"Y": "year", "M": "month", "D": "day", "B": "business day", "s": "second"}
_DAY_SECONDS = 24 * 60 * 60


class TimeError(ValueError):
    """A value that is no time; `index` is its place."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


@dataclass(frozen=True)
class Grid:
    """Equal steps between times.

    Args:
        unit: The unit of `datetime64` ("M", "D", "s", ...), "B" for business days, or "" for integers.
        step: The number of units in a step.
    """

    unit: str
    step: int

    @property
    def season(self) -> int | None:
        """The usual number of steps in a season: 12 months, 4 quarters, 7 days, 5 business days, the steps in a day."""
        if self.unit in ("Y", "M"):
            units = 12 if self.unit == "M" else 1
            return max(1, units // self.step) if units % self.step == 0 or self.step % units == 0 else None
        if self.unit in ("D", "B"):
            return {("D", 1): 7, ("B", 1): 5, ("D", 7): 52}.get((self.unit, self.step))
        if self.unit == "s" and self.step < _DAY_SECONDS and _DAY_SECONDS % self.step == 0:
            return _DAY_SECONDS // self.step
        return None

    def __str__(self) -> str:
        """A step in words: "3 months"; an integer's size alone."""
        unit = _UNITS.get(self.unit, self.unit)
        return f"{self.step} {unit}{'s' if self.step > 1 else ''}" if unit else str(self.step)

    def positions(self, times: np.ndarray) -> np.ndarray:
        """Return the position of each time in steps after the first; a fraction if it lies between two steps."""
        if self.unit == "B":
            return np.busday_count(times[0], times) / self.step
        return (times - times[0]).astype(np.int64) / self.step

    def times(self, first: np.ndarray, count: int) -> np.ndarray:
        """Return `count` times from the only one in `first` (1,) on."""
        offsets = np.arange(count) * self.step
        if self.unit == "B":
            return np.busday_offset(first.astype("datetime64[D]"), offsets)
        return first + (offsets.astype(f"timedelta64[{self.unit}]") if self.unit else offsets)


def parse_times(values: Sequence[str] | np.ndarray) -> np.ndarray:
    """Parse times into the coarsest unit that holds them all.

    Args:
        values: Strings of one form: ISO dates with or without a time of day, days as 19900131, months (1990-01, 1990M1,
            199001), quarters (1990Q1, which become their first month), years, or other integers; or datetime64.

    Returns:
        datetime64 in years, months, days, or seconds (or a fraction of them), converted to UTC where there is an offset; int64
        for integers. Dates that have the same day in all months, or are all the last of their month, become months.

    Raises:
        TimeError: a value has no such form, or another one than the first.

    Example:
        >>> parse_times(["1990-01-31", "1990-02-28"])
        array(['1990-01', '1990-02'], dtype='datetime64[M]')
    """
    if isinstance(values, np.ndarray):
        return _coarsen(values)
    for pattern, parse in _FORMS:
        if not len(values) or not re.fullmatch(pattern, values[0].strip()):
            continue
        matches = [re.fullmatch(pattern, value.strip()) for value in values]
        parsed = _parse_all(matches, parse)
        if parsed is not None:
            return _coarsen(parsed)
    raise TimeError(_first_misfit(values))


def is_time(text: str) -> bool:
    """Return True for a text that is a time of any form."""
    try:
        return len(parse_times([text])) == 1
    except TimeError:
        return False


def _first_misfit(values: Sequence[str]) -> int:
    """Return the index of the first value that has not the form of those before it."""
    forms = [(pattern, parse) for pattern, parse in _FORMS if values and re.fullmatch(pattern, values[0].strip())]
    furthest = 0
    for pattern, parse in forms:
        for index, value in enumerate(values):
            if _parse_all([re.fullmatch(pattern, value.strip())], parse) is None:
                furthest = max(furthest, index)
                break
    return furthest


def _parse_all(matches: list[re.Match[str] | None], parse: Callable[[re.Match[str]], str]) -> np.ndarray | None:
    """Return the parsed values, or None if one of them cannot be."""
    try:
        texts = [parse(match) for match in matches if match is not None]
        if len(texts) < len(matches):
            return None
        if texts and texts[0].startswith("#"):
            return np.array([int(text[1:]) for text in texts], dtype=np.int64)
        return np.array(texts, dtype="datetime64")
    except (ValueError, OverflowError):
        return None


def _parse_date(match: re.Match[str]) -> str:
    year, month, day = match.groups()
    return f"{year}-{int(month):02}-{int(day):02}"


def _parse_month(match: re.Match[str]) -> str:
    return f"{match[1]}-{int(match[2]):02}"


def _parse_quarter(match: re.Match[str]) -> str:
    return f"{match[1]}-{int(match[2]) * 3 - 2:02}"


def _parse_year(match: re.Match[str]) -> str:
    if not 1000 <= int(match[1]) < 3000:
        raise ValueError(match[0])
    return match[1]


def _parse_moment(match: re.Match[str]) -> str:
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    date = f"{year}-{int(month):02}-{int(day):02}"
    time = f"{int(hour or 0):02}:{minute or '00'}:{second or '00'}" + (f".{fraction}" if fraction else "")
    if zone is None or zone in ("Z", "UTC"):
        return f"{date}T{time}"
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    moment = np.datetime64(f"{date}T{time}") - np.timedelta64(minutes if zone[0] == "+" else -minutes, "m")
    return str(moment)


# The first form that all values have; the dates of one form are never ambiguous.
_FORMS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"(\d{4})(?:\.0*)?", _parse_year),
    (r"(\d{4})[-/.](\d{1,2})", _parse_month),
    (r"(\d{4})[- ]?[mM](\d{1,2})", _parse_month),
    (r"(\d{4})[- ]?[qQ]([1-4])", _parse_quarter),
    (r"((?:1[5-9]|2[0-2])\d{2})(0[1-9]|1[0-2])(?:\.0*)?", _parse_month),
    (r"((?:1[5-9]|2[0-2])\d{2})(0[1-9]|1[0-2])([0-3]\d)(?:\.0*)?", _parse_date),
    (_DATE, _parse_date),
    (rf"{_DATE}(?:{_CLOCK})?", _parse_moment),
    (r"([+-]?\d{1,18})(?:\.0*)?", lambda match: f"#{match[1]}"),
)


def _coarsen(times: np.ndarray) -> np.ndarray:
    """Return times in the coarsest unit of years, months, days and seconds that loses nothing a grid needs."""
    if times.dtype.kind != "M" or not len(times):
        return times
    if np.datetime_data(times.dtype)[0] not in ("Y", "M"):
        days = times.astype("datetime64[D]")
        seconds = times.astype("datetime64[s]")
        if not (days == times).all():
            return seconds if (seconds == times).all() else times
        times = days
        months = times.astype("datetime64[M]")
        distinct = np.unique(times)
        is_last = ((times + 1).astype("datetime64[M]") != months).all()
        has_one_day = len(np.unique((times - months).astype(np.int64))) == 1
        if (is_last or has_one_day) and 1 < len(distinct) == len(np.unique(months)):
            return months
    return times


def find_grid(series: Sequence[np.ndarray], preferred: Grid | None = None) -> Grid:
    """Return the grid of the most frequent step between sorted times, over all series.

    Daily times without a Saturday or Sunday over more than two weeks are business days.

    Args:
        series: The times of each series.
        preferred: A grid that is returned if at least half of its steps are there and no time is between them, because a few
            times may fit several grids.

    Example:
        >>> find_grid([np.array([10, 12, 14, 18])])
        Grid(unit='', step=2)
    """
    first = series[0]
    unit = np.datetime_data(first.dtype)[0] if first.dtype.kind == "M" else ""
    has_unit = preferred is not None and {"B": "D"}.get(preferred.unit, preferred.unit) == unit
    if preferred is not None and has_unit and all(_fits(preferred, times) for times in series):
        return preferred
    steps = Counter[int]()
    for times in series:
        differences, counts = np.unique(np.diff(times).astype(np.int64), return_counts=True)
        steps.update(dict(zip(differences.tolist(), counts.tolist(), strict=True)))
    step = min(steps, key=lambda size: (-steps[size], size)) if steps else 1
    if unit == "D" and step == 1:
        distinct = np.unique(np.concatenate(series))
        # 1970-01-01 was a Thursday.
        weekdays = (distinct.astype(np.int64) + 3) % 7
        if len(distinct) > 10 and (weekdays < 5).all():
            return Grid("B", 1)
    return Grid(unit, step)


def _fits(grid: Grid, times: np.ndarray) -> bool:
    """Return True if at least half of the steps of a grid are among the times, and no time is between them."""
    if not len(times):
        return True
    if grid.unit == "B" and not np.is_busday(times).all():
        return False
    positions = grid.positions(times)
    return bool((positions == np.floor(positions)).all() and positions[-1] + 1 <= 2 * len(times))
