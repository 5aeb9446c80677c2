"""Read tables of numbers, times and names with pyarrow."""

from pathlib import Path
from typing import Any

import numpy as np

from limelight.data import tables, textfiles
from limelight.data.dataset import Repair
from limelight.data.tables import Role
from limelight.data.timesteps import TimeError, is_time, parse_times
from limelight.exceptions import DataError

TIME_COLUMNS = frozenset(
    ("time", "date", "datetime", "timestamp", "ds", "day", "week", "month", "quarter", "year", "period")
)
VALUE_COLUMNS = frozenset(("value", "values", "y", "target"))
SERIES_COLUMNS = frozenset(("series", "series_id", "unique_id", "item", "item_id", "id"))


class Frame:
    """The columns of a table of numbers, times and names, each converted when it is used.

    Args:
        path: A .csv, .tsv, .jsonl or .parquet file with a header, also compressed.
        repairs: Takes what reading changed.

    Raises:
        DataError: the file cannot be read, or is no table with a header and rows.
        ImportError: pyarrow is not installed.
    """

    def __init__(self, path: Path, repairs: list[Repair]) -> None:
        self.path = path
        self.label = repr(str(path))
        self._columns: dict[str, Any] = {}
        self._numbers: dict[str, np.ndarray | None] = {}
        self._pyarrow = tables.import_pyarrow("tables of series")
        match textfiles.suffix_of(path):
            case ".csv" | ".tsv":
                self._read_csv(repairs)
            case ".jsonl":
                self._read_json_lines(repairs)
            case ".parquet":
                self._read_parquet()
            case _:
                raise DataError(
                    f"A table of series must be a .csv, .tsv, .jsonl or .parquet file. Received: {str(path)!r}. Convert it; "
                    f"labelled series in a .ts file are read by `load`."
                )
        self.names: list[str] = list(self._columns)
        if not self.names or not len(self):
            raise DataError(f"{self.label} must hold a header and rows. It has {len(self)} rows.")

    def _read_csv(self, repairs: list[Repair]) -> None:
        textfiles.check_text_file(self.path, repairs)
        usual = Role("time", usual=TIME_COLUMNS | VALUE_COLUMNS | SERIES_COLUMNS)
        dialect = tables.detect_dialect(self.path, [usual])
        header, *rows = tables.sample_rows(self.path, dialect)
        # A wide table may have series called 1, 2, ..., and no name above the times.
        if all(name.strip() and (tables.is_number(name) or is_time(name)) for name in header):
            raise DataError(
                f"The first line of {self.label} must name the columns. It holds numbers. Add a header line."
            )
        if not rows:
            return
        repeated = next((name for name in header if header.count(name) > 1), None)
        if repeated is not None:
            raise DataError(f"The columns of {self.label} must have different names. There are several {repeated!r}.")
        csv, malformed = self._pyarrow.csv, []
        try:
            with textfiles.open_bytes(self.path) as stream:
                table = csv.read_csv(
                    stream,
                    csv.ReadOptions(
                        use_threads=False,  # only then are the lines of malformed rows counted
                        column_names=header,
                        skip_rows=tables.count_header_lines(self.path, dialect),
                    ),
                    csv.ParseOptions(
                        delimiter=dialect.separator,
                        quote_char='"' if dialect.has_quotes else False,
                        newlines_in_values=dialect.has_quotes,
                        invalid_row_handler=lambda row: malformed.append(row) or "skip",
                    ),
                    # Strings, so that a series called 007 stays one, and a message can quote the file.
                    csv.ConvertOptions(column_types=dict.fromkeys(header, self._pyarrow.string())),
                )
        except self._pyarrow.ArrowInvalid as error:
            reason = str(error).splitlines()[0][:200]
            raise DataError(f"{self.label} must be a table. It cannot be read: {reason}. Check it.") from error
        tables.check_malformed(
            [(row.number or 0, row.actual_columns) for row in malformed], len(table), len(header), self.path, repairs
        )
        self._columns = {name: table.column(name) for name in header}
        if dialect.separator != "," and self._replace_decimal_commas():
            repairs.append(
                Repair("columns whose decimal commas became points", self._replace_decimal_commas(apply=True))
            )

    def _replace_decimal_commas(self, apply: bool = False) -> int:
        """Count the columns whose numbers are written with decimal commas; convert them on request."""
        compute, count = self._pyarrow.compute, 0
        for name, column in self._columns.items():
            matching = compute.match_substring_regex(column, r"^\s*[+-]?\d*(,\d+)?\s*$")
            is_decimal = compute.all(matching).as_py() and compute.any(compute.match_substring(column, ",")).as_py()
            count += bool(is_decimal)
            if is_decimal and apply:
                self._columns[name] = compute.replace_substring(column, ",", ".")
        return count

    def _read_json_lines(self, repairs: list[Repair]) -> None:
        textfiles.check_text_file(self.path, repairs)
        records = [record for _, record in tables.iterate_objects(self.path)]
        for name in dict.fromkeys(key for record in records for key in record):
            values = [record.get(name) for record in records]
            if any(isinstance(value, dict | list) for value in values):
                continue
            # Lone surrogates cannot be encoded.
            texts = [None if value is None else str(value).encode("utf-8", "replace").decode() for value in values]
            self._columns[name] = self._pyarrow.chunked_array([self._pyarrow.array(texts, self._pyarrow.string())])

    def _read_parquet(self) -> None:
        if not textfiles.read_bytes(self.path, 1):
            raise DataError(f"{self.label} must hold data. The file is empty.")
        try:
            with textfiles.open_bytes(self.path) as stream:
                table = self._pyarrow.parquet.read_table(self._pyarrow.BufferReader(stream.read()))
        except (self._pyarrow.ArrowException, *textfiles.READ_ERRORS) as error:
            raise DataError(f"{self.label} must be an intact Parquet file. It cannot be read: {error}.") from error
        self._columns = {name: table.column(name) for name in table.column_names}

    def __len__(self) -> int:
        return len(next(iter(self._columns.values()))) if self._columns else 0

    def strings(self, name: str) -> list[str | None]:
        """Return a column as stripped strings, None where one is blank."""
        values = self._columns[name].to_pylist()
        return [None if value is None or not str(value).strip() else str(value).strip() for value in values]

    def numbers(self, name: str) -> np.ndarray | None:
        """Return a column as float64, NaN where a number is missing; None if it holds other values."""
        if name not in self._numbers:
            self._numbers[name] = self._convert(name)
        return self._numbers[name]

    def _convert(self, name: str) -> np.ndarray | None:
        types, column = self._pyarrow.types, self._columns[name]
        if types.is_integer(column.type) or types.is_floating(column.type) or types.is_decimal(column.type):
            return np.array([np.nan if value is None else float(value) for value in column.to_pylist()])
        if not (types.is_string(column.type) or types.is_large_string(column.type)):
            return None
        try:
            return np.array([parse_number(value) for value in column.to_pylist()])
        except ValueError:
            return None

    def times(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the times of a column, and the rows that have one.

        Raises:
            TimeError: a row holds no time.
        """
        types, column = self._pyarrow.types, self._columns[name]
        if types.is_timestamp(column.type) or types.is_date(column.type):
            # Nanoseconds would hold the years 1678 to 2262 only.
            moments = column.cast(self._pyarrow.timestamp("us"), safe=False).to_numpy()
            rows = np.flatnonzero(~np.isnat(moments))
            return parse_times(moments[rows]), rows
        texts = self.strings(name)
        rows = np.flatnonzero([text is not None for text in texts])
        present = [text for text in texts if text is not None]
        distinct = {text: index for index, text in enumerate(dict.fromkeys(present))}
        try:
            parsed = parse_times(list(distinct))
        except TimeError as error:
            row = present.index(list(distinct)[error.index]) if present else 0
            raise TimeError(int(rows[row]) if present else 0) from None
        return parsed[[distinct[text] for text in present]], rows


def parse_number(text: str | None) -> float:
    """Return a number, NaN for a blank or a usual sign of a missing one.

    Raises:
        ValueError: the text is another one.
    """
    if text is None or text.strip().casefold() in tables.MISSING:
        return np.nan
    return float(text)
