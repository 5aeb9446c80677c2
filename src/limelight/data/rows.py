"""Read the rows of a table one after the other, as they are: nothing is cleaned, dropped or sorted."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from limelight.data import pairs, readers, tables, textfiles, tmx
from limelight.data.readers import TEXT_COLUMNS
from limelight.data.tables import Role
from limelight.exceptions import ColumnError, DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")


def read_rows(path: Path, role: Role) -> tuple[list[str], str, Iterator[list[Any]]]:
    """Read a table in which one column is looked for.

    Args:
        path: A .csv, .tsv, .jsonl or .parquet file, or a .txt file with a text on each line; also compressed by gzip or zip.
        role: The column to find: by its name, by a usual name, or the only one. The columns of a .csv or .tsv file without a
            header are called 1, 2, ..., as `load` calls them.

    Returns:
        The names of the columns, the name of the column, and the rows.

    Raises:
        DataError: The file cannot be read, or the column is missing.
    """
    columns, name, rows = _read_table(path, (role,))
    if name is None:
        single = columns[0] if len(columns) == 1 and role.column is None else role.column
        name = tables.choose_column(columns, role, single, repr(str(path)))
    return columns, name, rows


def read_pair_rows(path: Path, column: str | None) -> tuple[list[str], str, Iterator[list[Any]]]:
    """Read texts to translate, which may have translations beside them.

    Args:
        path: As in `read_rows`; a .tmx file; or a file of lines with any other suffix.
        column: The column of the texts, or their language in a .tmx file; found as by `load_pairs` if not given.

    Returns:
        The names of the columns, the name of that of the texts, and the rows.

    Raises:
        DataError: The file cannot be read, or the column is missing.
    """
    suffix = textfiles.suffix_of(path)
    role = Role("text", column, pairs.SOURCE_COLUMNS | TEXT_COLUMNS, strings_only=True)
    if suffix == ".tmx":
        sources, targets, _ = tmx.read_tmx(path, column, None)
        return ["source", "target"], "source", map(list, zip(sources, targets, strict=True))
    if suffix not in SUFFIXES and path.is_file():
        textfiles.check_text_file(path, [])
        columns, rows = _read_lines(path)
        return columns, columns[0], rows
    roles = (role, Role("target", None, pairs.TARGET_COLUMNS, has_option=False), Role("group"))
    columns, _, rows = _read_table(path, roles)
    if len(columns) == 1:
        return columns, columns[0], rows
    try:
        return columns, tables.choose_column(columns, role, column, f"{str(path)!r}"), rows
    except DataError:
        if column is not None or len(columns) != 2:
            raise
    return columns, columns[0], rows


def _read_table(path: Path, roles: Sequence[Role]) -> tuple[list[str], str | None, Iterator[list[Any]]]:
    """Return the names of the columns, that of the only role if it was found, and the rows."""
    if not path.is_file():
        state = "It is a folder" if path.is_dir() else "There is none"
        raise DataError(f"{str(path)!r} must be a file. {state}. Check the path.")
    suffix = textfiles.suffix_of(path)
    if suffix not in SUFFIXES:
        raise DataError(
            f"The input must be a {', '.join(SUFFIXES[:-1])} or .txt file. Received: {str(path)!r}. Convert it."
        )
    if suffix == ".parquet":
        return _read_parquet(path)
    textfiles.check_text_file(path, [])
    if suffix in (".csv", ".tsv"):
        return _read_csv(path, roles)
    columns, rows = _read_objects(path) if suffix == ".jsonl" else _read_lines(path)
    return columns, None, rows


def _read_csv(path: Path, roles: Sequence[Role]) -> tuple[list[str], str | None, Iterator[list[Any]]]:
    """Return the header, the column of the only role, and the rows; if the first line is data, the columns are numbered."""
    dialect = tables.detect_dialect(path, roles)
    sample = tables.sample_rows(path, dialect)
    header, name = sample[0], None
    if len(roles) == 1:
        header, name = readers.choose_text_header(sample, roles[0], repr(str(path)))
    elif len(header) > 1:
        source, target, group = roles
        # Without a column of translations, the first line is a header as elsewhere.
        with contextlib.suppress(ColumnError):
            header, _ = pairs.choose_header(sample, (source, target, group), repr(str(path)))
        numbers, _ = tables.number_columns(len(header), "", "")
        header = numbers if source.column in numbers and source.column not in header else header
    rows = itertools.islice(tables.iterate_rows(path, dialect), int(header == sample[0]), None)

    def remaining() -> Iterator[list[Any]]:
        for number, row in rows:
            if len(row) != len(header):
                raise DataError(
                    f"Every row of {str(path)!r} must have as many fields as the first, {len(header)}. Line {number:,} "
                    f"has {len(row)}. Correct it."
                )
            yield row

    return header, name, remaining()


def _read_objects(path: Path) -> tuple[list[str], Iterator[list[Any]]]:
    columns = list(dict.fromkeys(key for _, each in tables.iterate_objects(path) for key in each))
    return columns, ([each.get(name) for name in columns] for _, each in tables.iterate_objects(path))


def _read_lines(path: Path) -> tuple[list[str], Iterator[list[Any]]]:
    return ["text"], ([line.rstrip("\n")] for line in textfiles.iterate_lines(path))


def _read_parquet(path: Path) -> tuple[list[str], None, Iterator[list[Any]]]:
    pyarrow = tables.import_pyarrow(".parquet files")
    try:
        with textfiles.open_bytes(path) as stream, pyarrow.parquet.ParquetFile(stream) as file:
            columns = file.schema_arrow.names
    except (pyarrow.ArrowException, *textfiles.READ_ERRORS) as error:
        raise DataError(f"{str(path)!r} must be a Parquet file. It cannot be read: {error}") from error

    def iterate() -> Iterator[list[Any]]:
        with textfiles.open_bytes(path) as stream, pyarrow.parquet.ParquetFile(stream) as file:
            for batch in file.iter_batches(batch_size=1000):
                yield from map(list, zip(*(column.to_pylist() for column in batch.columns), strict=True))

    return columns, None, iterate()
