"""Read a few columns of a table: CSV, TSV, JSON lines and Parquet."""

import csv
import dataclasses
import difflib
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from limelight.data import textfiles
from limelight.data.dataset import Repair
from limelight.exceptions import ColumnError, DataError

_MAX_FIELD_BYTES = 16 * 2**20
# A few malformed rows are dropped and counted; with more than this share, the file is not what its suffix says.
_MAX_MALFORMED = 0.05
_SEPARATORS = ",;\t|"
_NUM_SAMPLE_ROWS = 1000
# The signs of a missing number, in lower case.
MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "."))
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
# `csv.field_size_limit` is one limit for the whole process.
_field_limit_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Role:
    """A column that a reader looks for.

    Args:
        name: The role in messages, and the argument that names the column: "text".
        column: The column's name, or None to detect it.
        usual: The names, in lower case, by which it is detected; a role without any is left out unless it is named.
        strings_only: True if numbers are refused.
        has_option: True if an option of the command line names the column.
    """

    name: str
    column: str | None = None
    usual: frozenset[str] = frozenset()
    strings_only: bool = False
    has_option: bool = True


Roles = tuple[Role, Role, Role]
Columns = tuple[str, str, str | None]
# Returns the header of a table and its columns, from the first rows.
ChooseHeader = Callable[[list[list[str]], Roles, str], tuple[list[str], Columns]]


@dataclasses.dataclass
class Table:
    """The columns of two roles and of the groups, None where a value is missing, their names, and the repairs."""

    first: list[Any]
    second: list[Any]
    groups: list[Any] | None
    columns: Columns
    repairs: list[Repair] = dataclasses.field(default_factory=list)


def read_csv(path: Path, roles: Roles, choose_header: ChooseHeader) -> Table:
    """Read two or three columns of a .csv or .tsv file, row by row.

    Python's csv module parses. pyarrow's reader reports the number of a row where users need the number of a line, and
    accepts a quote that is never closed or text after a closing quote, so broken files would be changed silently.

    Args:
        path: The file. Fields of a .tsv are separated by tabs. Fields of a .csv are separated by the mark that a first line
            `sep=;` names, or by commas, semicolons, tabs or vertical bars: the one that the header and the rows fit.
        roles: The columns to read.
        choose_header: Returns the names of all columns, and those of the roles, from the first rows.

    Raises:
        DataError: the file cannot be read, is not UTF-8, is not a table, or lacks a column.
    """
    repairs: list[Repair] = []
    textfiles.check_text_file(path, repairs)
    dialect = detect_dialect(path, roles)
    sample = sample_rows(path, dialect)
    header, columns = choose_header(sample, roles, repr(str(path)))
    has_header = header == sample[0]
    if not has_header:
        repairs.append(Repair("first line read as data, since it is no header", 1))
    indices = [header.index(column) for column in columns if column is not None]
    table = Table([], [], None if columns[2] is None else [], columns, repairs)
    malformed: list[tuple[int, int]] = []
    for line, row in itertools.islice(iterate_rows(path, dialect), int(has_header), None):
        if len(row) != len(header):
            malformed.append((line, len(row)))
            continue
        table.first.append(row[indices[0]])
        table.second.append(row[indices[1]])
        if table.groups is not None:
            table.groups.append(row[indices[2]])
    check_malformed(malformed, len(table.first), len(header), path, repairs)
    if dialect.separator != "," and not roles[1].strings_only:
        table.second = _replace_decimal_commas(table.second, repairs)
    return table


def _replace_decimal_commas(values: list[str], repairs: list[Repair]) -> list[str]:
    """Write numbers with points if all values are numbers, and some have decimal commas."""
    is_decimal = [bool(_DECIMAL_COMMA.fullmatch(value.strip())) for value in values]
    others = (value for value, decimal in zip(values, is_decimal, strict=True) if not decimal)
    if not any(is_decimal) or not all(value.strip().casefold() in MISSING or is_number(value) for value in others):
        return values
    repairs.append(Repair("columns whose decimal commas became points", 1))
    return [value.replace(",", ".") for value in values]


def read_json_lines(path: Path, roles: Roles, any_two_texts: bool = False) -> Table:
    """Read two or three keys of a .jsonl file: a JSON object on each line.

    Python's json module parses. pyarrow's reader infers one type per column: it refuses labels that are numbers on one line
    and strings on another, and escaped lone surrogates, and does not name the line.

    Args:
        path: The file.
        roles: The keys to read.
        any_two_texts: True if the only two keys of strings are the first two roles, whatever they are called.

    Raises:
        DataError: a line is not a JSON object, or a value is not of the kind that its role takes; the message names the line.
    """
    repairs: list[Repair] = []
    textfiles.check_text_file(path, repairs)
    # Two passes, so that only the chosen keys are kept in memory.
    keys: dict[str, bool] = {}
    for _, record in iterate_objects(path):
        for key, value in record.items():
            keys[key] = keys.get(key, True) and isinstance(value, str | None)
    texts = [key for key, is_text in keys.items() if is_text] if any_two_texts else None
    columns = choose_columns(list(keys), roles, repr(str(path)), texts)
    values: list[list[Any]] = [[], [], []]
    for number, record in iterate_objects(path):
        for role, key, column in zip(roles, columns, values, strict=True):
            if key is None:
                continue
            value = record.get(key)
            if not isinstance(value, str | None if role.strings_only else str | int | float | None):
                raise DataError(
                    f"{key!r} must be {'a string' if role.strings_only else 'a string or a number'} on every line of "
                    f"{str(path)!r}. On line {number:,} it is {_json_type(value)}. Fix the line, or name another key."
                )
            column.append(value)
    return Table(values[0], values[1], None if columns[2] is None else values[2], columns, repairs)


def read_parquet(path: Path, roles: Roles, any_two_texts: bool = False) -> Table:
    """Read two or three columns of a .parquet file; arguments as of `read_json_lines`.

    Raises:
        DataError: the file is not a Parquet file, or a column is not of the kind that its role takes.
        ImportError: pyarrow is not installed.
    """
    pyarrow = import_pyarrow(".parquet")
    if not textfiles.read_bytes(path, 1):
        raise DataError(f"{str(path)!r} must hold data. The file is empty.")
    try:
        with textfiles.open_bytes(path) as stream, pyarrow.parquet.ParquetFile(stream) as file:
            schema = file.schema_arrow
            texts = [field.name for field in schema if _is_string(pyarrow.types, field.type)]
            columns = choose_columns(schema.names, roles, repr(str(path)), texts if any_two_texts else None)
            values: dict[str, list[Any]] = {}
            for role, column in zip(roles, columns, strict=True):
                if column is not None:
                    _check_type(pyarrow.types, path, column, schema.field(column).type, role.strings_only)
                    values[column] = []
            for batch in file.iter_batches(columns=list(values)):
                for column in values:
                    values[column] += batch.column(column).to_pylist()
            groups = None if columns[2] is None else values[columns[2]]
            return Table(values[columns[0]], values[columns[1]], groups, columns)
    except (pyarrow.ArrowException, UnicodeDecodeError, *textfiles.READ_ERRORS) as error:
        raise DataError(f"{str(path)!r} must be an intact Parquet file. It cannot be read: {error}.") from error


def import_pyarrow(purpose: str) -> Any:
    """Import pyarrow with its readers; an error names the command that installs it."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            f"Reading {purpose} needs `pyarrow`. It is not installed. Run: pip install 'limelight[study]'"
        ) from error
    return pyarrow


def choose_columns(columns: Sequence[str], roles: Roles, source: str, texts: Sequence[str] | None = None) -> Columns:
    """Return the names of the columns of two roles and of the groups: those given, or the only one with a usual name.

    Args:
        columns: The names of all columns.
        roles: The columns to find.
        source: What to call the file in messages.
        texts: The columns that hold texts: if there are two and no role is named, they are the two roles. None if a role
            needs a usual name.

    Raises:
        DataError: a given column is missing or occurs twice, none or several have a usual name, or two roles are one column.
    """
    first, second, group = roles
    names = [first.column, second.column]
    if len(columns) == 2 and names.count(None) == 1:
        given = names.index(None) ^ 1
        if names[given] in columns:
            names[1 - given] = columns[1 - list(columns).index(str(names[given]))]
    try:
        chosen = tuple(
            choose_column(columns, role, name, source) for role, name in zip((first, second), names, strict=True)
        )
    except DataError:
        if texts is None or len(texts) != 2 or names != [None, None]:
            raise
        chosen = tuple(texts)
    if chosen[0] == chosen[1]:
        raise DataError(
            f"The {first.name} and the {second.name} must be two columns of {source}. Received: {chosen[0]!r} for both. "
            f"{_list_columns(columns)}"
        )
    group_column = None if group.column is None else choose_column(columns, group, group.column, source)
    if group_column in chosen:
        raise DataError(
            f"The group must be a column of {source} of its own. Received: {group_column!r}, which is the {first.name} or "
            f"the {second.name}. {_list_columns(columns)}"
        )
    return chosen[0], chosen[1], group_column


def choose_column(columns: Sequence[str], role: Role, name: str | None, source: str) -> str:
    """Return the name of one column: the given one, or the only one with a usual name.

    Raises:
        DataError: the given column is missing or occurs twice, or none or several have a usual name.
    """
    if name is None:
        candidates = [column for column in columns if column.strip().casefold() in role.usual]
        if len(candidates) != 1:
            state = f"{len(candidates)} columns could be it ({_quote(candidates)})" if candidates else "No column is"
            option = f" (--{role.name} on the command line)" if role.has_option else ""
            raise ColumnError(
                f"{source} must have exactly one column with a usual name for the {role.name}, or the column must be named. "
                f"{state}. {_list_columns(columns)} Name it: {role.name}=...{option}."
            )
        name = candidates[0]
    count = list(columns).count(name)
    if count != 1:
        similar = difflib.get_close_matches(name, columns, n=1, cutoff=0.6)
        similar = similar or [column for column in columns if column.strip().casefold() == name.strip().casefold()]
        hint = f" Did you mean {similar[0]!r}?" if similar and not count else ""
        state = f"There are {count} columns" if count else "There is no column"
        raise ColumnError(
            f"{role.name!r} must name a column of {source}. {state} {name!r}.{hint} {_list_columns(columns)}"
        )
    return name


def number_columns(width: int, source: str, reason: str) -> tuple[list[str], str]:
    """Return the names of columns without a header, and the name of the file that explains them in messages."""
    explanation = f"whose first line is no header ({reason}, so the columns are numbered)"
    return [str(index + 1) for index in range(width)], f"{source}, {explanation},"


def is_number(field: str) -> bool:
    """Return True for a field that is a number or blank."""
    try:
        float(field)
    except ValueError:
        return not field.strip()
    return True


def check_malformed(
    malformed: list[tuple[int, int]], num_rows: int, width: int, path: Path, repairs: list[Repair]
) -> None:
    """Count the rows with another number of fields, given as (line, fields).

    Raises:
        DataError: more than one row in twenty is malformed.
    """
    if not malformed:
        return
    line, fields = malformed[0]
    total = num_rows + len(malformed)
    if len(malformed) > _MAX_MALFORMED * total:
        raise DataError(
            f"Every row of {str(path)!r} must have the {width} fields of its header. Line {line:,} has {fields}; "
            f"{len(malformed):,} of {total:,} rows do not fit. Put quotes around a field that contains a separator."
        )
    repairs.append(Repair(f"rows with too few or too many fields dropped (the first at line {line:,})", len(malformed)))


def _list_columns(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - 50} more" if len(columns) > 50 else ""
    return f"It has the columns {_quote(columns[:50])}{more}."


def _quote(columns: Sequence[str]) -> str:
    """Quote column names, each shortened to 40 characters."""
    return ", ".join(repr(column if len(column) <= 40 else column[:39] + "…") for column in columns)


@dataclasses.dataclass(frozen=True)
class Dialect:
    """The delimiter of a table's fields, and whether quotes enclose fields or are ordinary characters."""

    separator: str
    has_quotes: bool = True
    has_separator_line: bool = False


def detect_dialect(path: Path, roles: Sequence[Role]) -> Dialect:
    """Return how the fields of a checked .csv or .tsv file are separated."""
    if textfiles.suffix_of(path) == ".tsv":
        widths = {line.rstrip("\n").count("\t") for line in textfiles.iterate_lines(path) if line.strip(" \n")}
        return Dialect("\t", has_quotes=len(widths) > 1)
    lines = list(itertools.islice(textfiles.iterate_lines(path), _NUM_SAMPLE_ROWS))
    lines = lines[next((index for index, line in enumerate(lines) if line.strip()), 0) :]
    separator_line = re.fullmatch(r'"?sep=(.)"?', lines[0].rstrip("\n"), re.IGNORECASE)
    if separator_line:
        return Dialect(separator_line[1], has_separator_line=True)
    given = {role.column.strip().casefold() for role in roles if role.column is not None}
    expected = given.union(*(role.usual for role in roles))

    def fit(separator: str) -> tuple[bool, int, float]:
        rows = [row for row in csv.reader(lines, delimiter=separator) if row]
        header = [name.strip().casefold() for name in rows[0]]
        matching = sum(len(row) == len(header) for row in rows) / len(rows)
        return len(header) > 1, len(expected & set(header)), round(matching, 1)

    candidates = [mark for mark in _SEPARATORS if mark in lines[0]]
    # The first of those that fit equally well.
    return Dialect(candidates[0] if len(candidates) == 1 else max(candidates or _SEPARATORS[:1], key=fit))


def sample_rows(path: Path, dialect: Dialect) -> list[list[str]]:
    """Return the first rows of a checked .csv or .tsv file that are not blank.

    Raises:
        DataError: there is none.
    """
    sample = [row for _, row in itertools.islice(iterate_rows(path, dialect), _NUM_SAMPLE_ROWS)]
    if not sample:
        raise DataError(f"{str(path)!r} must hold data. Every row is blank.")
    return sample


def count_header_lines(path: Path, dialect: Dialect) -> int:
    """Return the number of lines before the second row that is not blank."""
    rows = iterate_rows(path, dialect)
    next(rows)
    second = next(rows, None)
    return sum(1 for _ in textfiles.iterate_lines(path)) if second is None else second[0] - 1


def iterate_rows(path: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, with the line where it begins."""
    if dialect.has_quotes:
        yield from _parse_quoted(path, dialect)
        return
    for number, line in enumerate(textfiles.iterate_lines(path), start=1):
        line = line.removesuffix("\n")
        if line.strip(" "):
            yield number, [_unquote(field) for field in line.split(dialect.separator)]


def _unquote(field: str) -> str:
    """Remove quotes around a whole field, which spreadsheets add."""
    inner = field[1:-1]
    is_quoted = len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if is_quoted else field


def _parse_quoted(path: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Parse quoted fields."""
    line, skip = 1, dialect.has_separator_line
    with textfiles.open_text(path, newline="") as stream:
        reader = csv.reader(stream, delimiter=dialect.separator, strict=True)
        while True:
            try:
                row = _next_row(reader)
            except csv.Error as error:
                raise DataError(_explain_csv_error(str(error), line, path)) from error
            if row is None:
                return
            if len(row) > 1 or any(field.strip() for field in row):
                if not skip:
                    yield line, row
                skip = False
            line = reader.line_num + 1


def _next_row(reader: Any) -> list[str] | None:
    """Return the next row of a csv reader, or None at the end."""
    with _field_limit_lock:
        previous_limit = csv.field_size_limit(_MAX_FIELD_BYTES)
        try:
            return next(reader, None)
        finally:
            csv.field_size_limit(previous_limit)


def iterate_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the object on each line of a checked file that is not blank, with the number of the line."""
    # Only \n ends a line: U+2028 may stand inside a string.
    with textfiles.open_text(path, newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, _parse_object(line, number, path)


def _explain_csv_error(error: str, line: int, path: Path) -> str:
    row = f"The row that begins at line {line:,}"
    if "field larger" in error:
        return (
            f"A field of {str(path)!r} must be at most {_MAX_FIELD_BYTES >> 20} MiB. {row} has a larger one. Is a closing "
            f"quote missing?"
        )
    requirement = f"The quotes in {str(path)!r} must be in pairs"
    if "unexpected end" in error:
        return f'{requirement}. {row} opens a quote that is never closed. Close it, or write "" for a quote.'
    return f'{requirement}. {row} cannot be parsed ({error}). Write "" for a quote inside a quoted field.'


def _parse_object(line: str, number: int, path: Path) -> dict[str, Any]:
    requirement = f"Every line of {str(path)!r} must be a JSON object"
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{requirement}. Line {number:,} is not JSON ({error}). Fix or remove it.") from error
    if not isinstance(value, dict):
        raise DataError(f"{requirement}. Line {number:,} is {_json_type(value)}. Fix or remove it.")
    return value


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _is_string(types: Any, dtype: Any) -> bool:
    """Return True for a Parquet type of strings, or of nothing but nulls."""
    inner = dtype.value_type if types.is_dictionary(dtype) else dtype
    return types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner) or types.is_null(inner)


def _check_type(types: Any, path: Path, column: str, dtype: Any, strings_only: bool) -> None:
    """Raise if a Parquet column of this type cannot hold texts, or labels."""
    inner = dtype.value_type if types.is_dictionary(dtype) else dtype
    is_scalar = types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)
    if not (_is_string(types, dtype) or (is_scalar and not strings_only)):
        expected = "strings" if strings_only else "strings, numbers or booleans"
        raise DataError(
            f"Column {column!r} of {str(path)!r} must hold {expected}. It holds {dtype}. Name another column."
        )
