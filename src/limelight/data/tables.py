"""Comma and tab separated files."""

import csv
import io
import threading
from pathlib import Path

from limelight.data import columns
from limelight.data.cleaning import Raw
from limelight.data.dataset import Repair
from limelight.data.decoding import read_text
from limelight.data.errors import DataError

_LARGEST_FIELD = 16 * 2**20
# A few broken rows are dropped and counted; more of them mean that the file is not what it seems.
_MOST_BROKEN = 0.05
_limit = threading.Lock()


def read(path: Path, text: str | None, label: str | None) -> tuple[Raw, str]:
    """Read two columns of a .csv or .tsv file with a header line.

    Args:
        path: The file; tabs separate the fields of a .tsv, commas (or semicolons, where the header has no comma) those of
            a .csv.
        text: The name of the text column, or None for the obvious one.
        label: Likewise.

    Returns:
        The rows, and the name of the label column.

    Raises:
        DataError: the file cannot be read, is not UTF-8, is not such a table, or lacks a column.
    """
    repairs: list[Repair] = []
    content = read_text(path, repairs)
    if path.suffix.lower() == ".tsv":
        rows = _plain(content) or _parse(content, "\t", path)
    else:
        rows = _parse(content, _separator(content), path)
    if not rows:
        raise DataError(f"{str(path)!r} must hold data. Every row is blank.")
    header, body = rows[0][1], rows[1:]
    text, label = columns.choose(header, text, label, repr(str(path)))
    places = header.index(text), header.index(label)
    broken = [line for line, row in body if len(row) != len(header)]
    if len(broken) > _MOST_BROKEN * len(body):
        line, row = next((line, row) for line, row in body if len(row) != len(header))
        raise DataError(
            f"Every row of {str(path)!r} must have the {len(header)} fields of its header. Line {line:,} has {len(row)}; "
            f"{len(broken):,} of {len(body):,} rows do not fit. Put quotes around a field that holds a separator."
        )
    if broken:
        repairs.append(
            Repair(f"rows with too few or too many fields dropped (the first at line {broken[0]:,})", len(broken))
        )
    kept = [row for _, row in body if len(row) == len(header)]
    return Raw([row[places[0]] for row in kept], [row[places[1]].strip() for row in kept], repairs), label


def _separator(content: str) -> str:
    """Return the character between the fields of the header."""
    header = content.lstrip().split("\n", 1)[0]
    return next((mark for mark in ",;\t" if mark in header), ",")


def _plain(content: str) -> list[tuple[int, list[str]]] | None:
    """Split lines at tabs, as the TSV format has it (a quote is a character like any other), or None where rows differ."""
    lines = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    rows = [(number, line.split("\t")) for number, line in enumerate(lines, start=1) if line.strip(" ")]
    if len({len(row) for _, row in rows}) > 1:
        return None
    return [(number, [_unquoted(field) for field in row]) for number, row in rows]


def _unquoted(field: str) -> str:
    """Take away quotes that were put around a whole field, as spreadsheets do."""
    inner = field[1:-1]
    is_quoted = len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if is_quoted else field


def _parse(content: str, separator: str, path: Path) -> list[tuple[int, list[str]]]:
    """Parse quoted fields, and return each row that is not blank with the line that it begins at."""
    rows: list[tuple[int, list[str]]] = []
    # The limit is one for the whole process.
    with _limit:
        before = csv.field_size_limit(_LARGEST_FIELD)
        try:
            reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
            begin = 1
            for row in reader:
                if len(row) > 1 or any(field.strip() for field in row):
                    rows.append((begin, row))
                begin = reader.line_num + 1
        except csv.Error as error:
            raise DataError(_explain(str(error), begin, path)) from error
        finally:
            csv.field_size_limit(before)
    return rows


def _explain(error: str, line: int, path: Path) -> str:
    """Say what the csv module's error means for the file."""
    row = f"The row that begins at line {line:,}"
    if "field larger" in error:
        return (
            f"A field of {str(path)!r} must be at most {_LARGEST_FIELD >> 20} MiB. {row} has a larger one. Is a closing "
            f"quote missing?"
        )
    must = f"{str(path)!r} must be a table with its quotes in pairs"
    if "unexpected end" in error:
        return f'{must}. {row} opens a quote that is never closed. Close it, or write "" for a quote.'
    return f'{must}. {row} does not parse ({error}). Write "" for a quote inside a quoted field.'
