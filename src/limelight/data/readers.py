"""Read texts and labels from files: CSV, TSV, JSON lines, Parquet, and folders of text files."""

import csv
import difflib
import io
import json
import shlex
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limelight.data.cleaning import RawExamples
from limelight.data.dataset import Repair
from limelight.exceptions import DataError

TEXT_COLUMNS = {"text", "review", "sentence", "content", "document", "body", "comment", "message", "tweet"}
LABEL_COLUMNS = {"label", "class", "sentiment", "category", "target", "topic"}

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_FIELD_BYTES = 16 * 2**20
# A few malformed rows are dropped and counted; with more than this share, the file is not what its suffix says.
_MAX_MALFORMED = 0.05
# `csv.field_size_limit` is one limit for the whole process.
_field_limit_lock = threading.Lock()


def read_table(path: Path, text: str | None, label: str | None) -> tuple[RawExamples, str]:
    """Read two columns of a .csv or .tsv file with a header line.

    Python's csv module parses. pyarrow's reader reports the number of a row where users need the number of a line, and
    accepts a quote that is never closed or text after a closing quote, so broken files would be changed silently.

    Args:
        path: The file. Fields of a .tsv are separated by tabs; fields of a .csv by commas, or by semicolons or tabs if the
            header has no comma.
        text: The name of the text column, or None to detect it.
        label: The name of the label column, or None to detect it.

    Returns:
        The examples, and the name of the label column.

    Raises:
        DataError: the file cannot be read, is not UTF-8, is not a table, or lacks a column.
    """
    repairs: list[Repair] = []
    content = _read_text(path, repairs)
    if path.suffix.lower() == ".tsv":
        rows = _split_at_tabs(content) or _parse_quoted(content, "\t", path)
    else:
        rows = _parse_quoted(content, _detect_separator(content), path)
    if not rows:
        raise DataError(f"{str(path)!r} must hold data. Every row is blank.")
    header, body = rows[0][1], rows[1:]
    text, label = choose_columns(header, text, label, repr(str(path)))
    malformed = [(line, row) for line, row in body if len(row) != len(header)]
    if len(malformed) > _MAX_MALFORMED * len(body):
        line, row = malformed[0]
        raise DataError(
            f"Every row of {str(path)!r} must have the {len(header)} fields of its header. Line {line:,} has {len(row)}; "
            f"{len(malformed):,} of {len(body):,} rows do not fit. Put quotes around a field that contains a separator."
        )
    if malformed:
        first = malformed[0][0]
        repairs.append(
            Repair(f"rows with too few or too many fields dropped (the first at line {first:,})", len(malformed))
        )
    kept = [row for _, row in body if len(row) == len(header)]
    text_index, label_index = header.index(text), header.index(label)
    return RawExamples([row[text_index] for row in kept], [row[label_index].strip() for row in kept], repairs), label


def read_json_lines(path: Path, text: str | None, label: str | None) -> tuple[RawExamples, str]:
    """Read two keys of a .jsonl file: a JSON object on each line.

    Python's json module parses. pyarrow's reader infers one type per column: it refuses labels that are numbers on one line
    and strings on another, and escaped lone surrogates, and does not name the line.

    Raises:
        DataError: a line is not a JSON object, a text is not a string, or a label is not a string or a number; the message
            names the line.
    """
    repairs: list[Repair] = []
    content = _read_text(path, repairs)
    objects = [
        (number, _parse_object(line, number, path))
        for number, line in enumerate(content.split("\n"), start=1)
        if line.strip()
    ]
    keys = list(dict.fromkeys(key for _, record in objects for key in record))
    text, label = choose_columns(keys, text, label, repr(str(path)))
    for number, record in objects:
        for key, allowed, expected in (
            (text, str | None, "a string"),
            (label, str | int | float | None, "a string or a number"),
        ):
            if not isinstance(record.get(key), allowed):
                raise DataError(
                    f"{key!r} must be {expected} on every line of {str(path)!r}. On line {number:,} it is "
                    f"{_json_type(record[key])}. Fix the line, or name another key."
                )
    return RawExamples(
        [each.get(text) for _, each in objects], [each.get(label) for _, each in objects], repairs
    ), label


def read_parquet(path: Path, text: str | None, label: str | None) -> tuple[RawExamples, str]:
    """Read two columns of a .parquet file.

    Raises:
        DataError: the file is not a Parquet file, or a column is not text or labels.
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Reading .parquet needs `pyarrow`. It is not installed. Run: pip install 'limelight[study]'"
        ) from error
    if not _read_bytes(path, 1):
        raise DataError(f"{str(path)!r} must hold data. The file is empty.")
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            text, label = choose_columns(schema.names, text, label, repr(str(path)))
            for column, strings_only in ((text, True), (label, False)):
                _check_type(pyarrow.types, path, column, schema.field(column).type, strings_only)
            table = file.read(columns=[text, label])
            return RawExamples(table.column(text).to_pylist(), table.column(label).to_pylist()), label
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} must be an intact Parquet file. It cannot be read: {error}.") from error


def read_folder(folder: Path) -> RawExamples:
    """Read the .txt files in each subfolder of `folder`, in the order of their names. The subfolder is the class.

    Hidden files are ignored; other files are left out and counted.

    Raises:
        DataError: there is no such subfolder, or a file cannot be read or is not UTF-8.
    """
    raw = RawExamples([], [])
    byte_order_marks: list[Repair] = []
    left_out = 0
    try:
        for subfolder in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            for path in sorted(path for path in subfolder.iterdir() if not path.name.startswith(".")):
                if path.suffix.lower() != ".txt" or not path.is_file():
                    left_out += 1
                    continue
                raw.texts.append(_decode(path.read_bytes(), path, byte_order_marks))
                raw.labels.append(subfolder.name)
    except OSError as error:
        raise DataError(
            f"{str(folder)!r} must be a folder that can be read. {error.strerror or error}: {error.filename!r}."
        ) from error
    if not raw.texts:
        raise DataError(
            f"{str(folder)!r} must hold one folder for each class, with .txt files directly inside. There are none. "
            f"Give the folder that holds the class folders."
        )
    if left_out:
        raw.repairs.append(Repair("files that are not .txt left out", left_out))
    if byte_order_marks:
        raw.repairs.append(Repair("byte order marks removed", len(byte_order_marks)))
    return raw


def choose_columns(columns: Sequence[str], text: str | None, label: str | None, source: str) -> tuple[str, str]:
    """Return the names of the text and of the label column: those given, or the only column with a usual name.

    Args:
        columns: The names of all columns.
        text: The name of the text column, or None to detect it.
        label: The name of the label column, or None to detect it.
        source: What to call the file in messages.

    Raises:
        DataError: a given column is missing or occurs twice, none or several have a usual name, or both are the same.
    """
    if text is None and label is not None and len(columns) == 2 and label in columns:
        text = columns[1 - list(columns).index(label)]
    if label is None and text is not None and len(columns) == 2 and text in columns:
        label = columns[1 - list(columns).index(text)]
    text = _choose_column(columns, text, "text", TEXT_COLUMNS, source)
    label = _choose_column(columns, label, "label", LABEL_COLUMNS, source)
    if text == label:
        raise DataError(
            f"The text and the label must be two columns of {source}. Received: {text!r} for both. {_list_columns(columns)}"
        )
    return text, label


def _choose_column(columns: Sequence[str], name: str | None, role: str, usual: set[str], source: str) -> str:
    if name is None:
        candidates = [column for column in columns if column.strip().casefold() in usual]
        if len(candidates) != 1:
            state = f"{len(candidates)} columns could be it ({_quote(candidates)})" if candidates else "No column is"
            raise DataError(
                f"{source} must have exactly one column with a usual name for the {role}, or the column must be named. "
                f"{state}. {_list_columns(columns)} Name it: {role}=... (--{role} on the command line)."
            )
        name = candidates[0]
    count = list(columns).count(name)
    if count != 1:
        similar = difflib.get_close_matches(name, columns, n=1, cutoff=0.6)
        similar = similar or [column for column in columns if column.strip().casefold() == name.strip().casefold()]
        hint = f" Did you mean {similar[0]!r}?" if similar and not count else ""
        state = f"There are {count} columns" if count else "There is no column"
        raise DataError(f"{role!r} must name a column of {source}. {state} {name!r}.{hint} {_list_columns(columns)}")
    return name


def _list_columns(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - 50} more" if len(columns) > 50 else ""
    return f"It has the columns {_quote(columns[:50])}{more}."


def _quote(columns: Sequence[str]) -> str:
    """Quote column names, each shortened to 40 characters."""
    return ", ".join(repr(column if len(column) <= 40 else column[:39] + "…") for column in columns)


def _read_bytes(path: Path, size: int = -1) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(size)
    except OSError as error:
        raise DataError(f"{str(path)!r} must be a file that can be read. {error.strerror or error}.") from error


def _read_text(path: Path, repairs: list[Repair]) -> str:
    """Return the content of a UTF-8 file, which must not be empty."""
    text = _decode(_read_bytes(path), path, repairs)
    if not text.strip():
        raise DataError(f"{str(path)!r} must hold data. The file is empty.")
    return text


def _decode(content: bytes, path: Path, repairs: list[Repair]) -> str:
    """Decode UTF-8 without its byte order mark. An error names the byte offset and the line."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{str(path)!r} must be UTF-8. It begins with the mark of UTF-16 or UTF-32. Save it as UTF-8.")
    nul = content.find(b"\0")
    if nul >= 0:
        raise DataError(
            f"{str(path)!r} must be a text file. It has a NUL byte {_locate(content, nul)}. Save it as UTF-8 without it."
        )
    body = content.removeprefix(_BYTE_ORDER_MARK)
    if len(body) < len(content):
        repairs.append(Repair("byte order mark removed", 1))
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        start = error.start + len(content) - len(body)
        raise DataError(
            f"{str(path)!r} must be UTF-8. The byte 0x{content[start]:02x} {_locate(content, start)} is not. Save it as "
            f"UTF-8, for example: iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(str(path))} > utf8-{shlex.quote(path.name)}"
        ) from error


def _locate(content: bytes, offset: int) -> str:
    return f"at byte offset {offset:,} (line {content.count(10, 0, offset) + 1:,})"


def _detect_separator(content: str) -> str:
    header = content.lstrip().split("\n", 1)[0]
    return next((mark for mark in ",;\t" if mark in header), ",")


def _split_at_tabs(content: str) -> list[tuple[int, list[str]]] | None:
    """Split lines at tabs; a quote is an ordinary character in TSV. Return None if the rows differ in their fields."""
    lines = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    rows = [(number, line.split("\t")) for number, line in enumerate(lines, start=1) if line.strip(" ")]
    if len({len(row) for _, row in rows}) > 1:
        return None
    return [(number, [_unquote(field) for field in row]) for number, row in rows]


def _unquote(field: str) -> str:
    """Remove quotes around a whole field, which spreadsheets add."""
    inner = field[1:-1]
    is_quoted = len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if is_quoted else field


def _parse_quoted(content: str, separator: str, path: Path) -> list[tuple[int, list[str]]]:
    """Parse quoted fields. Return each row that is not blank, with the line where it begins."""
    rows: list[tuple[int, list[str]]] = []
    with _field_limit_lock:
        previous_limit = csv.field_size_limit(_MAX_FIELD_BYTES)
        try:
            reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
            line = 1
            for row in reader:
                if len(row) > 1 or any(field.strip() for field in row):
                    rows.append((line, row))
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(_explain_csv_error(str(error), line, path)) from error
        finally:
            csv.field_size_limit(previous_limit)
    return rows


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


def _check_type(types: Any, path: Path, column: str, dtype: Any, strings_only: bool) -> None:
    """Raise if a Parquet column of this type cannot hold texts, or labels."""
    inner = dtype.value_type if types.is_dictionary(dtype) else dtype
    fits = types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner) or types.is_null(inner)
    if not strings_only:
        fits = fits or types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)
    if not fits:
        expected = "strings" if strings_only else "strings, numbers or booleans"
        raise DataError(
            f"Column {column!r} of {str(path)!r} must hold {expected}. It holds {dtype}. Name another column."
        )
