"""JSON lines and Parquet."""

import json
from pathlib import Path
from typing import Any

from limelight.data import columns
from limelight.data.cleaning import Raw
from limelight.data.dataset import Repair
from limelight.data.decoding import read_text
from limelight.data.errors import DataError


def read_lines(path: Path, text: str | None, label: str | None) -> tuple[Raw, str]:
    """Read two keys of a .jsonl file: a JSON object on each line.

    Raises:
        DataError: a line is no JSON object, or a value is no plain text or label; the message names the line.
    """
    repairs: list[Repair] = []
    content = read_text(path, repairs)
    objects = [
        (number, _object(line, number, path))
        for number, line in enumerate(content.split("\n"), start=1)
        if line.strip()
    ]
    keys = list(dict.fromkeys(key for _, each in objects for key in each))
    text, label = columns.choose(keys, text, label, repr(str(path)))
    for number, each in objects:
        if not isinstance(each.get(text), str | None):
            raise DataError(_wrong(path, number, text, "a string", each[text]))
        if not isinstance(each.get(label), str | int | float | None):
            raise DataError(_wrong(path, number, label, "a string or a number", each[label]))
    return Raw([each.get(text) for _, each in objects], [each.get(label) for _, each in objects], repairs), label


def read_parquet(path: Path, text: str | None, label: str | None) -> tuple[Raw, str]:
    """Read two columns of a .parquet file.

    Raises:
        DataError: it is not a Parquet file, or a column is not text or labels.
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Reading .parquet needs `pyarrow`. It is not installed. Run: pip install 'limelight[study]'"
        ) from error
    _check_there(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            text, label = columns.choose(schema.names, text, label, repr(str(path)))
            _check_type(pyarrow, path, text, schema.field(text).type, strings_only=True)
            _check_type(pyarrow, path, label, schema.field(label).type, strings_only=False)
            table = file.read(columns=[text, label])
            return Raw(table.column(text).to_pylist(), table.column(label).to_pylist()), label
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} must be a whole Parquet file. It cannot be read: {error}.") from error


def _check_there(path: Path) -> None:
    """Raise where a file is not there or empty."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(1)
    except OSError as error:
        raise DataError(f"{str(path)!r} must be a file that can be read. {error.strerror or error}.") from error
    if not head:
        raise DataError(f"{str(path)!r} must hold data. The file is empty.")


def _object(line: str, number: int, path: Path) -> dict[str, Any]:
    """Parse one line."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"Every line of {str(path)!r} must be a JSON object. Line {number:,} is not JSON ({error}). Mend or remove it."
        ) from error
    if not isinstance(value, dict):
        raise DataError(
            f"Every line of {str(path)!r} must be a JSON object. Line {number:,} is {_kind(value)}. Mend or remove it."
        )
    return value


def _wrong(path: Path, number: int, key: str, must: str, value: Any) -> str:
    """Say that a value is of the wrong kind."""
    return (
        f"{key!r} must be {must} on every line of {str(path)!r}. On line {number:,} it is {_kind(value)}. "
        f"Mend the line, or name another key."
    )


def _kind(value: Any) -> str:
    """Name a value's kind as JSON does."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _check_type(pyarrow: Any, path: Path, column: str, kind: Any, *, strings_only: bool) -> None:
    """Raise where a column cannot be texts, or labels."""
    types = pyarrow.types
    inner = kind.value_type if types.is_dictionary(kind) else kind
    fits = types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner) or types.is_null(inner)
    if not strings_only:
        fits = fits or types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)
    if not fits:
        must = "strings" if strings_only else "strings, numbers or booleans"
        raise DataError(f"Column {column!r} of {str(path)!r} must hold {must}. It holds {kind}. Name another column.")
