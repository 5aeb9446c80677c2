"""Which column holds the texts and which the labels."""

import difflib
from collections.abc import Sequence

from limelight.data.errors import DataError

_TEXT = {"text", "review", "sentence", "content", "document", "body", "comment", "message", "tweet"}
_LABEL = {"label", "class", "sentiment", "category", "target", "topic"}


def choose(columns: Sequence[str], text: str | None, label: str | None, where: str) -> tuple[str, str]:
    """Return the names of the text and of the label column: those that were named, or the one obvious candidate of each.

    Raises:
        DataError: a named column is not there or there twice, no candidate or several are obvious, or both are the same.
    """
    if text is None and label is not None and len(columns) == 2 and label in columns:
        text = columns[1 - list(columns).index(label)]
    if label is None and text is not None and len(columns) == 2 and text in columns:
        label = columns[1 - list(columns).index(text)]
    text = _find(columns, text, "text", _TEXT, where)
    label = _find(columns, label, "label", _LABEL, where)
    if text == label:
        raise DataError(
            f"The text and the label must be two columns of {where}. Received: {text!r} for both. {_list(columns)}"
        )
    return text, label


def _find(columns: Sequence[str], name: str | None, role: str, known: set[str], where: str) -> str:
    """Return the column of a role."""
    if name is None:
        candidates = [column for column in columns if column.strip().casefold() in known]
        if len(candidates) != 1:
            found = f"{len(candidates)} look like it ({_quoted(candidates)})" if candidates else "None looks like it"
            raise DataError(
                f"{where} must have one obvious {role} column, or be read with its name. {found}. {_list(columns)} "
                f"Name it: {role}=... (--{role} on the command line)."
            )
        name = candidates[0]
    count = list(columns).count(name)
    if count != 1:
        near = difflib.get_close_matches(name, columns, n=1, cutoff=0.6)
        near = near or [column for column in columns if column.strip().casefold() == name.strip().casefold()]
        hint = f" Did you mean {near[0]!r}?" if near and not count else ""
        found = f"There are {count} columns" if count else "There is no column"
        raise DataError(f"{role!r} must name a column of {where}. {found} {name!r}.{hint} {_list(columns)}")
    return name


def _list(columns: Sequence[str]) -> str:
    """List the columns, at most 50 of them."""
    more = f" and {len(columns) - 50} more" if len(columns) > 50 else ""
    return f"It has the columns {_quoted(columns[:50])}{more}."


def _quoted(columns: Sequence[str]) -> str:
    """Quote column names, each cut to 40 characters."""
    return ", ".join(repr(column if len(column) <= 40 else column[:39] + "…") for column in columns)
