"""Read the rows of a table one after the other, as they are: nothing is cleaned, dropped or sorted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from limelight.data import tables, textfiles
from limelight.data.tables import Role
from limelight.exceptions import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")


def read_rows(path: Path, role: Role) -> tuple[list[str], str, Iterator[list[Any]]]:
    """Read a table in which one column is looked for.

    Args:
        path: A .csv, .tsv, .jsonl or .parquet file, or a .txt file with a text on each line; also compressed by gzip or zip.
        role: The column to find: by its name, by a usual name, or the only one.

    Returns:
        The names of the columns, the name of the column, and the rows.

    Raises:
        DataError: The file cannot be read, or the column is missing.
    """
    if not path.is_file():
        raise DataError(f"{str(path)!r} must be a file. There is none. Check the path.")
    suffix = textfiles.suffix_of(path)
    if suffix not in SUFFIXES:
        raise DataError(
            f"The input must be a {', '.join(SUFFIXES[:-1])} or .txt file. Received: {str(path)!r}. Convert it."
        )
    if suffix == ".parquet":
        columns, rows = _read_parquet(path)
    else:
        textfiles.check_text_file(path, [])
        columns, rows = {".jsonl": _read_objects, ".txt": _read_lines}.get(suffix, lambda path: _read_csv(path, role))(
            path
        )
    single = columns[0] if len(columns) == 1 and role.column is None else role.column
    return columns, tables.choose_column(columns, role, single, f"{str(path)!r}"), rows


def _read_csv(path: Path, role: Role) -> tuple[list[str], Iterator[list[Any]]]:
    dialect = tables.detect_dialect(path, (role,))
    rows = tables.iterate_rows(path, dialect)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{str(path)!r} must hold data. Every row is blank.")
    header = first[1]

    def remaining() -> Iterator[list[Any]]:
        for number, row in rows:
            if len(row) != len(header):
                raise DataError(
                    f"Every row of {str(path)!r} must have the {len(header)} fields of the header. Received: {len(row)} fields "
                    f"in line {number}. Correct the line."
                )
            yield row

    return header, remaining()


def _read_objects(path: Path) -> tuple[list[str], Iterator[list[Any]]]:
    first = next((each for _, each in tables.iterate_objects(path)), {})
    columns = list(first)
    return columns, ([each.get(name) for name in columns] for _, each in tables.iterate_objects(path))


def _read_lines(path: Path) -> tuple[list[str], Iterator[list[Any]]]:
    return ["text"], ([line.rstrip("\n")] for line in textfiles.iterate_lines(path))


def _read_parquet(path: Path) -> tuple[list[str], Iterator[list[Any]]]:
    pyarrow = tables.import_pyarrow(".parquet files")
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} must be a Parquet file. It cannot be read: {error}") from error
    batches = (batch.to_pydict() for batch in file.iter_batches(batch_size=1000))
    return file.schema_arrow.names, (list(row) for batch in batches for row in zip(*batch.values(), strict=True))
