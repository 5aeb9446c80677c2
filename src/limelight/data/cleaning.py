"""From what a file holds to a data set: texts evened out, duplicates dropped, labels turned into classes."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from limelight.data.dataset import Dataset, Repair
from limelight.data.errors import DataError

_SURROGATES = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"([+-]?\d+)\.0*", re.ASCII)
# More classes than this of plain numbers, or of fractions, are measurements rather than names.
_MOST_WHOLE, _MOST_FRACTIONS = 100, 20
_LONGEST_TEXT = 10_000_000


@dataclass
class Raw:
    """Rows as they were read: texts and labels side by side, None where one is missing, and the repairs so far."""

    texts: list[str | None]
    labels: list[Any]
    repairs: list[Repair] = field(default_factory=list)


def assemble(name: str, raw: Raw, source: str, label: str) -> Dataset:
    """Clean the rows and number their classes.

    Args:
        name: The data set's name.
        raw: What a reader returned.
        source: Where it came from, in words.
        label: What the labels are called in messages: "column 'sentiment'".

    Raises:
        DataError: nothing is left, or the labels are not at least two classes of at least two examples.
    """
    repairs = list(raw.repairs)
    texts, labels = _present(raw, repairs)
    texts, labels = _evened(texts, labels, repairs)
    if not texts:
        raise DataError(
            f"{source} must hold at least one labelled text. None is left of {len(raw.texts)} rows"
            + "".join(f"; {repair}" for repair in repairs)
            + ". Check the file and the two columns."
        )
    labels = _named(labels, label)
    texts, labels = _distinct(texts, labels, repairs)
    classes = _classes(labels, label)
    index = {each: position for position, each in enumerate(classes)}
    numbers = np.array([index[each] for each in labels], dtype=np.int64)
    return Dataset(name, "text", tuple(texts), numbers, classes, tuple(repairs), source)


def _present(raw: Raw, repairs: list[Repair]) -> tuple[list[str], list[Any]]:
    """Drop the rows that lack a label."""
    missing = [_is_missing(label) for label in raw.labels]
    _note(repairs, "rows without a label dropped", sum(missing))
    rows = [row for row, is_missing in enumerate(missing) if not is_missing]
    return [raw.texts[row] or "" for row in rows], [raw.labels[row] for row in rows]


def _is_missing(label: Any) -> bool:
    """Tell whether a row has no label: none at all, a blank one, or a float that is not a number."""
    return (
        label is None
        or (isinstance(label, str) and not label.strip())
        or (isinstance(label, float) and math.isnan(label))
    )


def _evened(texts: list[str], labels: list[Any], repairs: list[Repair]) -> tuple[list[str], list[Any]]:
    """Bring texts to one form (valid Unicode, no NUL, \\n, NFC, nothing blank around), and drop those that are empty."""
    steps = (
        (
            "texts in which broken characters (lone surrogates) became U+FFFD",
            lambda text: _SURROGATES.sub("\ufffd", text),
        ),
        ("texts from which NUL characters were removed", lambda text: text.replace("\0", "")),
        ("texts whose line ends became \\n", lambda text: text.replace("\r\n", "\n").replace("\r", "\n")),
        ("texts brought to Unicode form NFC", lambda text: unicodedata.normalize("NFC", text)),
    )
    longest = max(map(len, texts), default=0)
    if longest > _LONGEST_TEXT:
        raise DataError(
            f"A text must have at most {_LONGEST_TEXT:,} characters. The longest has {longest:,}. Cut it into documents."
        )
    for what, step in steps:
        changed = [step(text) for text in texts]
        _note(repairs, what, sum(new != old for new, old in zip(changed, texts, strict=True)))
        texts = changed
    texts = [text.strip() for text in texts]
    _note(repairs, "empty texts dropped", sum(not text for text in texts))
    kept = [row for row, text in enumerate(texts) if text]
    return [texts[row] for row in kept], [labels[row] for row in kept]


def _distinct(texts: list[str], labels: list[str], repairs: list[Repair]) -> tuple[list[str], list[str]]:
    """Keep the first of equal texts; drop every text that occurs with different labels."""
    seen: dict[str, set[str]] = {}
    for text, label in zip(texts, labels, strict=True):
        seen.setdefault(text, set()).add(label)
    in_conflict = sum(len(seen[text]) > 1 for text in texts)
    kept: dict[str, str] = {}
    for text, label in zip(texts, labels, strict=True):
        if len(seen[text]) == 1:
            kept.setdefault(text, label)
    _note(repairs, "duplicate texts dropped", len(texts) - in_conflict - len(kept))
    _note(repairs, "texts dropped that occur with different labels", in_conflict)
    return list(kept), list(kept.values())


def _named(labels: Sequence[Any], what: str) -> list[str]:
    """Turn labels into class names, and refuse numbers that are measurements."""
    names = [_name(label) for label in labels]
    if not all(_NUMBER.fullmatch(name) for name in names):
        return names
    distinct = sorted({float(name) for name in names})
    whole = all(value.is_integer() for value in distinct)
    if len(distinct) > (_MOST_WHOLE if whole else _MOST_FRACTIONS):
        raise DataError(
            f"Labels must be classes. {what} holds {len(distinct):,} different numbers, from {distinct[0]:g} to "
            f"{distinct[-1]:g}. Group them into a few classes first (such as low and high), or name the column of classes."
        )
    return names


def _name(label: Any) -> str:
    """Return a class's name: a string without blanks around it, a whole number without its fraction."""
    if isinstance(label, bool):
        return "true" if label else "false"
    name = unicodedata.normalize("NFC", _SURROGATES.sub("\ufffd", str(label))).strip()
    whole = _WHOLE.fullmatch(name)
    return whole[1] if whole else name


def _classes(labels: list[str], what: str) -> tuple[str, ...]:
    """Return the sorted class names, or raise where they are no basis for a classifier."""
    counts = Counter(labels)
    if len(counts) < 2:
        found = f"only the class {_short(labels[0])}" if labels else "no class"
        raise DataError(
            f"A classifier needs at least two classes. {what} holds {found}. Add examples of another class, or name another "
            f"column."
        )
    rare = [name for name, count in counts.items() if count < 2]
    if len(rare) > max(5, len(counts) // 2):
        raise DataError(
            f"Labels must be classes, each with several examples. {what} holds {len(counts):,} different values in "
            f"{len(labels):,} rows, {len(rare):,} of them once. Name the column of classes."
        )
    if rare:
        others = f" (and {len(rare) - 1} other classes likewise)" if len(rare) > 1 else ""
        raise DataError(
            f"Every class must have at least two different examples. In {what}, class {_short(rare[0])} has one{others}. "
            f"Add examples of it, or leave the class out."
        )
    if all(_NUMBER.fullmatch(name) for name in counts):
        return tuple(sorted(counts, key=lambda name: (float(name), name)))
    return tuple(sorted(counts))


def _short(name: str) -> str:
    """Quote a class's name, cut to 60 characters."""
    return repr(name if len(name) <= 60 else name[:59] + "…")


def _note(repairs: list[Repair], what: str, count: int) -> None:
    """Add a repair where there was one."""
    if count:
        repairs.append(Repair(what, count))
