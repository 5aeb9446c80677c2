"""Read labelled texts from tables and folders, and labelled series from .ts files."""

from collections.abc import Sequence
from pathlib import Path

from limelight.data import tables, textfiles
from limelight.data.cleaning import SERIES_ADVICE, RawExamples
from limelight.data.dataset import Repair
from limelight.data.tables import Columns, Role, Roles
from limelight.exceptions import ColumnError, DataError

TEXT_COLUMNS = frozenset(("text", "review", "sentence", "content", "document", "body", "comment", "message", "tweet"))
LABEL_COLUMNS = frozenset(("label", "class", "sentiment", "category", "target", "topic"))
_NO_HEADER = "its fields occur in later lines"
# The label of a regression may also have these names.
TARGET_COLUMNS = frozenset(("score", "rating", "stars", "value", "y"))


def read_examples(
    path: Path, text: str | None, label: str | None, group: str | None = None, is_regression: bool = False
) -> tuple[RawExamples, str]:
    """Read the texts, labels and groups of a .csv, .tsv, .jsonl or .parquet file, or one of these compressed.

    A first line of a .csv or .tsv file whose fields occur again in later rows is not a header: the columns are then called
    1, 2, ...

    Args:
        path: The file.
        text: The name of the text column, or None to detect it.
        label: The name of the label column, or None to detect it.
        group: The name of the column of groups, or None for no groups.
        is_regression: True if a column with a usual name of a measurement may be the label.

    Returns:
        The examples, and the name of the label column.

    Raises:
        DataError: the file cannot be read, is not UTF-8, is not a table, or lacks a column.
    """
    usual = LABEL_COLUMNS | TARGET_COLUMNS if is_regression else LABEL_COLUMNS
    roles = (Role("text", text, TEXT_COLUMNS, strings_only=True), Role("label", label, usual), Role("group", group))
    match textfiles.suffix_of(path):
        case ".jsonl":
            table = tables.read_json_lines(path, roles)
        case ".parquet":
            table = tables.read_parquet(path, roles)
        case _:
            table = tables.read_csv(path, roles, _choose_header)
            table.second = [label.strip() for label in table.second]
    return RawExamples(table.first, table.second, table.repairs, table.groups), table.columns[1]


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
                raw.texts.append(textfiles.decode(path.read_bytes(), path, byte_order_marks))
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


def _choose_header(sample: list[list[str]], roles: Roles, source: str) -> tuple[list[str], Columns]:
    """Return the names of all columns, and those of the text, the label and the group.

    The names are the first row's, or numbers if that row is data: its columns cannot be chosen by their names, and one of its
    fields occurs in at least two later rows.
    """
    first, *rows = sample
    try:
        return first, tables.choose_columns(first, roles, source)
    except DataError as error:
        rows = [row for row in rows if len(row) == len(first)]
        if _are_measurements(rows):
            raise DataError(f"{error} Its columns hold numbers. {SERIES_ADVICE}") from error
        if not _has_fields_again(first, rows):
            raise
    numbers, source = tables.number_columns(len(first), source, _NO_HEADER)
    text, label, group = roles
    if len(numbers) == 2 and text.column is None and label.column is None:
        order = _order_columns(rows)
        roles = (Role("text", order[0]), Role("label", order[1]), group)
    return numbers, tables.choose_columns(numbers, roles, source)


def choose_text_header(sample: list[list[str]], role: Role, source: str) -> tuple[list[str], str]:
    """Return the names of all columns, and that of the texts, as of labelled texts; the only column needs no usual name."""
    first, *rows = sample
    name = first[0] if len(first) == 1 and role.column is None else role.column
    numbers, explained = tables.number_columns(len(first), source, _NO_HEADER)
    try:
        return first, tables.choose_column(first, role, name, source)
    except ColumnError:
        rows = [row for row in rows if len(row) == len(first)]
        if name not in numbers and not _has_fields_again(first, rows):
            raise
    if len(numbers) == 2 and name is None:
        name, _ = _order_columns(rows)
    return numbers, tables.choose_column(numbers, role, name, explained)


def _has_fields_again(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Return True if a field of the first row occurs in at least two later ones, so that the first is no header."""
    counts = [sum(row[index].strip() == field.strip() for row in rows) for index, field in enumerate(first)]
    return any(count >= 2 and field.strip() for count, field in zip(counts, first, strict=True))


def _order_columns(rows: Sequence[Sequence[str]]) -> tuple[str, str]:
    """Return the numbers of the text and of the label: the column with fewer different values."""
    distinct = [len({row[index].strip() for row in rows}) for index in range(2)]
    return ("2", "1") if distinct[0] <= distinct[1] else ("1", "2")


def _are_measurements(rows: Sequence[Sequence[str]]) -> bool:
    """Return True if at least two columns hold only numbers, and no field is a text: none has more than two words."""
    numeric = sum(all(map(tables.is_number, column)) for column in zip(*rows, strict=True))
    return numeric >= 2 and all(len(field.split()) <= 2 for row in rows for field in row)
