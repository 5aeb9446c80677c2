"""Read texts and labels from files: CSV, TSV, JSON lines, Parquet, and folders of text files."""

import codecs
import csv
import dataclasses
import difflib
import itertools
import json
import re
import shlex
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from limelight.data.cleaning import SERIES_ADVICE, RawExamples
from limelight.data.dataset import Repair
from limelight.exceptions import DataError

TEXT_COLUMNS = {"text", "review", "sentence", "content", "document", "body", "comment", "message", "tweet"}
LABEL_COLUMNS = {"label", "class", "sentiment", "category", "target", "topic"}

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_FIELD_BYTES = 16 * 2**20
# A few malformed rows are dropped and counted; with more than this share, the file is not what its suffix says.
_MAX_MALFORMED = 0.05
_SEPARATORS = ",;\t|"
_NUM_SAMPLE_ROWS = 1000
_CHUNK_BYTES = 2**20
# `csv.field_size_limit` is one limit for the whole process.
_field_limit_lock = threading.Lock()


def read_table(path: Path, text: str | None, label: str | None, group: str | None = None) -> tuple[RawExamples, str]:
    """Read two or three columns of a .csv or .tsv file, row by row.

    Python's csv module parses. pyarrow's reader reports the number of a row where users need the number of a line, and
    accepts a quote that is never closed or text after a closing quote, so broken files would be changed silently.

    Args:
        path: The file. Fields of a .tsv are separated by tabs. Fields of a .csv are separated by the mark that a first line
            `sep=;` names, or by commas, semicolons, tabs or vertical bars: the one that the header and the rows fit. A first
            line whose fields occur again in later rows is not a header: the columns are then called 1, 2, ...
        text: The name of the text column, or None to detect it.
        label: The name of the label column, or None to detect it.
        group: The name of the column of groups, or None for no groups.

    Returns:
        The examples, and the name of the label column.

    Raises:
        DataError: the file cannot be read, is not UTF-8, is not a table, or lacks a column.
    """
    repairs: list[Repair] = []
    _check_text_file(path, repairs)
    dialect = _detect_dialect(path, (text, label, group))
    sample = [row for _, row in itertools.islice(_iterate_rows(path, dialect), _NUM_SAMPLE_ROWS)]
    if not sample:
        raise DataError(f"{str(path)!r} must hold data. Every row is blank.")
    header, (text, label, group) = _choose_table_columns(sample, (text, label, group), repr(str(path)))
    has_header = header == sample[0]
    if not has_header:
        repairs.append(Repair("first line read as data, since it is no header", 1))
    indices = [header.index(column) for column in (text, label, group) if column is not None]
    raw = RawExamples([], [], repairs, None if group is None else [])
    malformed: list[tuple[int, int]] = []
    for line, row in itertools.islice(_iterate_rows(path, dialect), int(has_header), None):
        if len(row) != len(header):
            malformed.append((line, len(row)))
            continue
        fields = [row[index] for index in indices]
        raw.texts.append(fields[0])
        raw.labels.append(fields[1].strip())
        if raw.groups is not None:
            raw.groups.append(fields[2])
    _check_malformed(malformed, len(raw.texts), len(header), path, repairs)
    return raw, label


def read_json_lines(
    path: Path, text: str | None, label: str | None, group: str | None = None
) -> tuple[RawExamples, str]:
    """Read two or three keys of a .jsonl file: a JSON object on each line.

    Python's json module parses. pyarrow's reader infers one type per column: it refuses labels that are numbers on one line
    and strings on another, and escaped lone surrogates, and does not name the line.

    Raises:
        DataError: a line is not a JSON object, a text is not a string, or a label or a group is not a string or a number; the
            message names the line.
    """
    repairs: list[Repair] = []
    _check_text_file(path, repairs)
    # Two passes, so that only the chosen keys are kept in memory.
    keys = list(dict.fromkeys(key for _, record in _iterate_objects(path) for key in record))
    text, label, group = _choose_columns(keys, (text, label, group), repr(str(path)))
    texts, labels, groups = [], [], []
    for number, record in _iterate_objects(path):
        for key, allowed, expected in (
            (text, str | None, "a string"),
            (label, str | int | float | None, "a string or a number"),
            (group, str | int | float | None, "a string or a number"),
        ):
            if key is not None and not isinstance(record.get(key), allowed):
                raise DataError(
                    f"{key!r} must be {expected} on every line of {str(path)!r}. On line {number:,} it is "
                    f"{_json_type(record[key])}. Fix the line, or name another key."
                )
        texts.append(record.get(text))
        labels.append(record.get(label))
        if group is not None:
            groups.append(record.get(group))
    return RawExamples(texts, labels, repairs, None if group is None else groups), label


def read_parquet(path: Path, text: str | None, label: str | None, group: str | None = None) -> tuple[RawExamples, str]:
    """Read two or three columns of a .parquet file.

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
            text, label, group = _choose_columns(schema.names, (text, label, group), repr(str(path)))
            columns = [column for column in (text, label, group) if column is not None]
            for column in columns:
                _check_type(pyarrow.types, path, column, schema.field(column).type, strings_only=column == text)
            texts, labels, groups = [], [], []
            for batch in file.iter_batches(columns=columns):
                texts += batch.column(text).to_pylist()
                labels += batch.column(label).to_pylist()
                groups += [] if group is None else batch.column(group).to_pylist()
            return RawExamples(texts, labels, groups=None if group is None else groups), label
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


def _choose_columns(
    columns: Sequence[str], names: tuple[str | None, str | None, str | None], source: str
) -> tuple[str, str, str | None]:
    """Return the names of the text, of the label and of the group column, which is None if none is given."""
    text, label = choose_columns(columns, *names[:2], source)
    group = names[2]
    if group is not None:
        group = _choose_column(columns, group, "group", set(), source)
    if group in (text, label):
        raise DataError(
            f"The group must be a column of {source} of its own. Received: {group!r}, which is the text or the label. "
            f"{_list_columns(columns)}"
        )
    return text, label, group


def _choose_table_columns(
    sample: list[list[str]], names: tuple[str | None, str | None, str | None], source: str
) -> tuple[list[str], tuple[str, str, str | None]]:
    """Return the names of all columns, and those of the text, the label and the group.

    The names are the first row's, or numbers if that row is data: its columns cannot be chosen by their names, and one of its
    fields occurs in at least two later rows.
    """
    first, *rows = sample
    try:
        return first, _choose_columns(first, names, source)
    except DataError as error:
        rows = [row for row in rows if len(row) == len(first)]
        if _are_measurements(rows):
            raise DataError(f"{error} Its columns hold numbers. {SERIES_ADVICE}") from error
        counts = [sum(row[index].strip() == field.strip() for row in rows) for index, field in enumerate(first)]
        if not any(count >= 2 and field.strip() for count, field in zip(counts, first, strict=True)):
            raise
    numbers = [str(index + 1) for index in range(len(first))]
    if len(numbers) == 2 and names[:2] == (None, None):
        # The column with fewer different values is the label.
        distinct = [len({row[index].strip() for row in rows}) for index in range(2)]
        names = ("2", "1", names[2]) if distinct[0] <= distinct[1] else ("1", "2", names[2])
    source = f"{source}, whose first line is no header (its fields occur in later lines, so the columns are numbered),"
    return numbers, _choose_columns(numbers, names, source)


def _are_measurements(rows: list[list[str]]) -> bool:
    """Return True if at least two columns hold only numbers, and no field is a text: none has more than two words."""
    numeric = sum(all(map(_is_number, column)) for column in zip(*rows, strict=True))
    return numeric >= 2 and all(len(field.split()) <= 2 for row in rows for field in row)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return not field.strip()
    return True


def _check_malformed(
    malformed: list[tuple[int, int]], num_rows: int, width: int, path: Path, repairs: list[Repair]
) -> None:
    """Count the rows with another number of fields; raise if they are many."""
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


def _check_text_file(path: Path, repairs: list[Repair]) -> None:
    """Check that a file is UTF-8 without NUL, and not empty; count its byte order mark. It is read in pieces."""
    offset, line, blank = 0, 1, True
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open(path, "rb") as stream:
            chunk = b"first"
            while chunk:
                chunk = stream.read(_CHUNK_BYTES)
                blank = not _decode_chunk(chunk, decoder, path, offset, line, repairs).strip() and blank
                offset, line = offset + len(chunk), line + chunk.count(b"\n")
    except OSError as error:
        raise DataError(f"{str(path)!r} must be a file that can be read. {error.strerror or error}.") from error
    if blank:
        raise DataError(f"{str(path)!r} must hold data. The file is empty.")


def _decode(content: bytes, path: Path, repairs: list[Repair]) -> str:
    """Decode a whole UTF-8 file without its byte order mark. An error names the byte offset and the line."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    text = _decode_chunk(content, decoder, path, 0, 1, repairs)
    return text + _decode_chunk(b"", decoder, path, len(content), content.count(b"\n") + 1, repairs)


def _decode_chunk(
    chunk: bytes, decoder: codecs.IncrementalDecoder, path: Path, offset: int, line: int, repairs: list[Repair]
) -> str:
    """Decode a piece of a UTF-8 file that begins at `offset` and `line`, without the file's mark; the last one is empty."""
    if offset == 0 and chunk[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{str(path)!r} must be UTF-8. It begins with the mark of UTF-16 or UTF-32. Save it as UTF-8.")
    nul = chunk.find(b"\0")
    if nul >= 0:
        where = _locate(offset + nul, line + chunk.count(b"\n", 0, nul))
        raise DataError(f"{str(path)!r} must be a text file. It has a NUL byte {where}. Save it as UTF-8 without it.")
    if offset == 0 and chunk.startswith(_BYTE_ORDER_MARK):
        repairs.append(Repair("byte order mark removed", 1))
        chunk, offset = chunk.removeprefix(_BYTE_ORDER_MARK), len(_BYTE_ORDER_MARK)
    # Bytes of a character that the last piece cut in two.
    pending = len(decoder.getstate()[0])
    try:
        return decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
        message = _explain_encoding(path, error.object, error.start, offset - pending, line)
        raise DataError(message) from error


def _explain_encoding(path: Path, content: bytes, position: int, offset: int, line: int) -> str:
    """Explain that the byte at `position` of a part of a file, which begins at `offset` and `line`, is not UTF-8."""
    where = _locate(offset + position, line + content.count(b"\n", 0, position))
    names = _guess_encodings(content)
    quoted = f"{shlex.quote(str(path))} > utf8-{shlex.quote(path.name)}"
    hint = f"for example: iconv -f {names[0]} -t UTF-8 {quoted}"
    if len(names) > 1:
        hint += f" (its bytes also fit {', '.join(names[1:])}: take the one that shows the right characters)"
    return f"{str(path)!r} must be UTF-8. The byte 0x{content[position]:02x} {where} is not. Save it as UTF-8, {hint}"


def _guess_encodings(content: bytes) -> list[str]:
    """Return the encodings that a text may have which is not UTF-8, by their names for iconv.

    In Western European languages, at most two letters beyond ASCII stand side by side. In East Asian and Cyrillic encodings
    such bytes form long runs; of those, the encodings are returned that can decode the bytes.
    """
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", content)]
    if sum(run for run in runs if run > 2) <= 0.3 * sum(runs):
        return ["WINDOWS-1252"]
    fitting = []
    for name in ("GB18030", "BIG5", "SHIFT_JIS", "EUC-KR", "EUC-JP", "WINDOWS-1251"):
        try:
            # The content may end in the middle of a character.
            codecs.getincrementaldecoder(name)().decode(content)
        except UnicodeDecodeError:
            continue
        fitting.append(name)
    return fitting or ["WINDOWS-1252"]


def _locate(offset: int, line: int) -> str:
    return f"at byte offset {offset:,} (line {line:,})"


@dataclasses.dataclass(frozen=True)
class _Dialect:
    """The delimiter of a table's fields, and whether quotes enclose fields or are ordinary characters."""

    separator: str
    has_quotes: bool = True
    has_separator_line: bool = False


def _detect_dialect(path: Path, names: Sequence[str | None]) -> _Dialect:
    if path.suffix.lower() == ".tsv":
        widths = {line.rstrip("\n").count("\t") for line in _iterate_lines(path) if line.strip(" \n")}
        return _Dialect("\t", has_quotes=len(widths) > 1)
    lines = list(itertools.islice(_iterate_lines(path), _NUM_SAMPLE_ROWS))
    lines = lines[next((index for index, line in enumerate(lines) if line.strip()), 0) :]
    separator_line = re.fullmatch(r'"?sep=(.)"?', lines[0].rstrip("\n"), re.IGNORECASE)
    if separator_line:
        return _Dialect(separator_line[1], has_separator_line=True)
    known = {*TEXT_COLUMNS, *LABEL_COLUMNS, *(name.strip().casefold() for name in names if name is not None)}

    def fit(separator: str) -> tuple[bool, int, float]:
        rows = [row for row in csv.reader(lines, delimiter=separator) if row]
        header = [name.strip().casefold() for name in rows[0]]
        matching = sum(len(row) == len(header) for row in rows) / len(rows)
        return len(header) > 1, len(known & set(header)), round(matching, 1)

    candidates = [mark for mark in _SEPARATORS if mark in lines[0]]
    # The first of those that fit equally well.
    return _Dialect(candidates[0] if len(candidates) == 1 else max(candidates or _SEPARATORS[:1], key=fit))


def _iterate_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a checked file, each ended by \\n."""
    with open(path, encoding="utf-8-sig") as stream:
        yield from stream


def _iterate_rows(path: Path, dialect: _Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, with the line where it begins."""
    if dialect.has_quotes:
        yield from _parse_quoted(path, dialect)
        return
    for number, line in enumerate(_iterate_lines(path), start=1):
        line = line.removesuffix("\n")
        if line.strip(" "):
            yield number, [_unquote(field) for field in line.split(dialect.separator)]


def _unquote(field: str) -> str:
    """Remove quotes around a whole field, which spreadsheets add."""
    inner = field[1:-1]
    is_quoted = len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if is_quoted else field


def _parse_quoted(path: Path, dialect: _Dialect) -> Iterator[tuple[int, list[str]]]:
    """Parse quoted fields."""
    line, skip = 1, dialect.has_separator_line
    with open(path, encoding="utf-8-sig", newline="") as stream:
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


def _iterate_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the object on each line of a checked file that is not blank, with the number of the line."""
    # Only \n ends a line: U+2028 may stand inside a string.
    with open(path, encoding="utf-8-sig", newline="\n") as stream:
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
