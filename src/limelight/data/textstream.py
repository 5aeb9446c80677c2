"""Labelled texts of a file that does not fit in memory."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from limelight.data.readers import LABEL_COLUMNS, TEXT_COLUMNS
from limelight.data.rows import read_rows
from limelight.data.tables import Role, choose_column
from limelight.exceptions import DataError


class TextStream:
    """Pairs of a text and its label, read from a file row by row at each pass.

    Rows without a text or a label are left out. Nothing else is cleaned: `load` finds duplicates and contradictions, but holds
    everything in memory.

    Args:
        path: A .csv, .tsv, .jsonl or .parquet file, also compressed by gzip or zip.
        text: The column of the texts; by default the one with a usual name.
        label: The column of the labels; by default the one with a usual name.

    Raises:
        DataError: The file cannot be read, or a column is missing.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "reviews.csv")
        >>> _ = path.write_text("text,label\\nA dull film.,bad\\nGood acting.,good\\n")
        >>> list(TextStream(path))
        [('A dull film.', 'bad'), ('Good acting.', 'good')]
    """

    def __init__(self, path: str | os.PathLike[str], *, text: str | None = None, label: str | None = None) -> None:
        self.path, self._text = Path(path), Role("text", text, TEXT_COLUMNS, strings_only=True)
        self._label = Role("label", label, LABEL_COLUMNS)
        self._read()

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        text, label, rows = self._read()
        for number, row in enumerate(rows, start=1):
            if any(value is None or not str(value).strip() for value in (row[text], row[label])):
                continue
            if not isinstance(row[text], str):
                raise DataError(
                    f"Texts must be strings. Received: {type(row[text]).__name__} in row {number} of {str(self.path)!r}. Name "
                    "another column: text=."
                )
            yield row[text], row[label]

    def _read(self) -> tuple[int, int, Iterator[list[Any]]]:
        """Return the positions of both columns, and the rows."""
        columns, text, rows = read_rows(self.path, self._text)
        # Of two columns without a header, the other one is the label.
        other = {"1": "2", "2": "1"}.get(text) if columns == ["1", "2"] else None
        label = choose_column(columns, self._label, self._label.column or other, f"{str(self.path)!r}")
        if label == text:
            raise DataError(f"The label must be another column than the text. Received: {text!r} for both.")
        return columns.index(text), columns.index(label), rows

    def __repr__(self) -> str:
        return f"TextStream({str(self.path)!r})"
