"""Turn rows as they were read into a data set: normalize texts, drop duplicates, number the classes."""

import contextlib
import hashlib
import math
import re
import typing
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from limelight.data.dataset import Dataset, Repair
from limelight.data.tables import MISSING
from limelight.data.unicode import fold, fold_words
from limelight.exceptions import DataError, NumericLabelsError

_SURROGATES = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"([+-]?\d+)\.0*", re.ASCII)
# With more distinct values than this, numeric labels are measurements rather than classes.
_MAX_INTEGER_CLASSES, _MAX_FRACTION_CLASSES = 100, 20
_MAX_TEXT_LENGTH = 10_000_000
SERIES_ADVICE = (
    "Tables of series are read by `limelight.data.load_panel`, labelled series from .ts files by `limelight.data.load` (see "
    "docs/data.md)."
)


@dataclass
class RawExamples:
    """Texts, labels and groups as they were read, None where one is missing, the repairs so far, and the published test part."""

    texts: list[str | None]
    labels: list[Any]
    repairs: list[Repair] = field(default_factory=list)
    groups: list[Any] | None = None
    test: list[bool] | None = None

    def take(self, rows: Sequence[int], repairs: list[Repair]) -> "RawExamples":
        """Return the examples of these rows, in this order, with other repairs."""
        groups = None if self.groups is None else [self.groups[row] for row in rows]
        test = None if self.test is None else [self.test[row] for row in rows]
        return RawExamples([self.texts[row] for row in rows], [self.labels[row] for row in rows], repairs, groups, test)


def build_dataset(
    name: str,
    raw: RawExamples,
    source: str,
    label: str,
    is_regression: bool = False,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """Clean the examples and number their classes.

    Args:
        name: The data set's name.
        raw: The examples, as a reader returned them.
        source: Where they came from, in words.
        label: What messages call the labels: "column 'sentiment'".
        is_regression: True if the labels are numbers to predict rather than classes.
        classes: The classes, in their order; those of the labels when not given.

    Raises:
        DataError: no example is left; a label is none of `classes`, or without them there are not two classes of at least two
            examples each; or, in a regression, a label is no number, or all are equal.
    """
    num_rows, repairs = len(raw.texts), list(raw.repairs)
    raw = _drop_unlabelled(raw, repairs, is_regression)
    raw = _normalize_texts(raw, repairs)
    if not raw.texts:
        raise DataError(
            f"{capitalize(source)} must hold at least one labelled text. None is left of {num_rows} rows"
            + "".join(f"; {repair}" for repair in repairs)
            + ". Check the file and the two columns."
        )
    if all(_NUMBER.fullmatch(text) for text in _texts(raw)):
        raise DataError(
            f"Texts must have words. All {len(raw.texts):,} texts of {source} are numbers. Name another column. {SERIES_ADVICE}"
        )
    if is_regression:
        return _build_regression(name, raw, source, label)
    raw.labels = _name_classes(raw.labels, label)
    raw = raw.take(_drop_duplicates(raw, repairs), repairs)
    test = None if raw.test is None else np.array(raw.test, dtype=bool)
    _count_near_duplicates(raw, repairs)
    classes = choose_classes(raw.labels, label, classes)
    index = {name: position for position, name in enumerate(classes)}
    class_ids = np.array([index[name] for name in raw.labels], dtype=np.int64)
    groups = None if raw.groups is None else tuple(name_group(group) for group in raw.groups)
    return Dataset(name, "text", tuple(raw.texts), class_ids, classes, tuple(repairs), source, test, groups)


def _build_regression(name: str, raw: RawExamples, source: str, label: str) -> Dataset:
    """Build a data set with numeric targets: the mean of the targets of texts with the same tokens."""
    repairs = raw.repairs
    targets = np.array([_parse_target(target, label) for target in raw.labels])
    texts = _texts(raw)
    keys = [_hash(fold(text)) for text in texts]
    rows: dict[bytes, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    equal = sum(len(group) - 1 for group in rows.values() if np.ptp(targets[group]) == 0)
    add_repair(repairs, "duplicate texts with an equal target dropped", equal)
    add_repair(repairs, "texts merged with an equal one, whose targets were averaged", len(texts) - len(rows) - equal)
    targets = np.array([targets[group].mean() for group in rows.values()])
    raw = raw.take([group[0] for group in rows.values()], repairs)
    _count_near_duplicates(raw, repairs)
    if np.ptp(targets) == 0:
        raise DataError(
            f"A regression needs different targets. {capitalize(label)} holds only {targets[0]:g}. Name the column of "
            f"measurements."
        )
    groups = None if raw.groups is None else tuple(name_group(group) for group in raw.groups)
    return Dataset(
        name, "text", tuple(_texts(raw)), repairs=tuple(repairs), source=source, groups=groups, targets=targets
    )


def _parse_target(target: Any, label: str) -> float:
    """Return a measurement, or raise if it is no finite number."""
    number = math.nan
    if not isinstance(target, bool | str) or _NUMBER.fullmatch(str(target).strip()):
        with contextlib.suppress(OverflowError):
            number = float(target)
    if not math.isfinite(number):
        raise DataError(
            f"The targets of a regression must be numbers. {capitalize(label)} holds {_quote(str(target))}. Name the column of "
            f"measurements, or classify."
        )
    return number


def _texts(raw: RawExamples) -> list[str]:
    return typing.cast("list[str]", raw.texts)


def name_group(group: Any) -> str | None:
    """Return a group as text, so that 7 in one file format is "7" in another; None if it is missing."""
    return None if _is_missing(group) else _class_name(group)


def _drop_unlabelled(raw: RawExamples, repairs: list[Repair], is_regression: bool) -> RawExamples:
    """Drop the examples without a label. Among numbers, "NA" and its like are the sign of a missing one."""
    rows = [row for row, label in enumerate(raw.labels) if not _is_missing(label)]
    # Among classes that are numbers, "none" may be one.
    signs = MISSING if is_regression else MISSING - {"none"}
    present = [
        row for row in rows if not (isinstance(raw.labels[row], str) and raw.labels[row].strip().casefold() in signs)
    ]
    if is_regression or all(_NUMBER.fullmatch(_class_name(raw.labels[row])) for row in present):
        rows = present
    add_repair(repairs, "rows without a label dropped", len(raw.labels) - len(rows))
    return raw.take(rows, repairs)


def _is_missing(label: Any) -> bool:
    return (
        label is None
        or (isinstance(label, str) and not label.strip())
        or (isinstance(label, float) and math.isnan(label))
    )


def _normalize_texts(raw: RawExamples, repairs: list[Repair]) -> RawExamples:
    """Normalize the texts, and drop those that are empty."""
    raw.texts = list[str | None](normalize_texts(raw.texts, repairs))
    rows = [row for row, text in enumerate(raw.texts) if text]
    add_repair(repairs, "empty texts dropped", len(raw.texts) - len(rows))
    return raw.take(rows, repairs)


def normalize_texts(texts: Sequence[str | None], repairs: list[Repair]) -> list[str]:
    """Bring texts to valid Unicode in NFC, without NUL, with \\n line ends, stripped; None becomes an empty text.

    Raises:
        DataError: a text has more than ten million characters.
    """
    normalized = [text or "" for text in texts]
    longest = max(map(len, normalized), default=0)
    if longest > _MAX_TEXT_LENGTH:
        raise DataError(
            f"A text must have at most {_MAX_TEXT_LENGTH:,} characters. The longest has {longest:,}. Split it into documents."
        )
    steps = (
        ("texts in which lone surrogates became U+FFFD", lambda text: _SURROGATES.sub("\ufffd", text)),
        ("texts from which NUL characters were removed", lambda text: text.replace("\0", "")),
        ("texts whose line ends became \\n", lambda text: text.replace("\r\n", "\n").replace("\r", "\n")),
        ("texts converted to Unicode form NFC", lambda text: unicodedata.normalize("NFC", text)),
    )
    for description, step in steps:
        changed = [step(text) for text in normalized]
        add_repair(repairs, description, sum(new != old for new, old in zip(changed, normalized, strict=True)))
        normalized = changed
    return [text.strip() for text in normalized]


def _drop_duplicates(raw: RawExamples, repairs: list[Repair]) -> list[int]:
    """Return the rows to keep: the first of texts with the same tokens, and none of those that occur with different labels.

    A tokenizer folds case and drops white space: to a model, texts that differ in nothing else are one text. A published test
    part stays as it is, so that results on it can be compared; its texts are dropped from the rest.
    """
    texts, labels = _texts(raw), raw.labels
    keys = [_hash(fold(text)) for text in texts]
    test = [False] * len(keys) if raw.test is None else raw.test
    published = [row for row, is_test in enumerate(test) if is_test]
    tested = {keys[row] for row in published}
    rows = [row for row, key in enumerate(keys) if key not in tested]
    add_repair(repairs, "texts dropped that the published test part holds", len(keys) - len(published) - len(rows))
    first_row: dict[bytes, int] = {}
    contradictory = set()
    for row in rows:
        key = keys[row]
        if labels[first_row.setdefault(key, row)] != labels[row]:
            contradictory.add(key)
    kept = [row for key, row in first_row.items() if key not in contradictory]
    repeated = [row for row in rows if keys[row] not in contradictory and first_row[keys[row]] != row]
    exact = sum(texts[row] == texts[first_row[keys[row]]] for row in repeated)
    add_repair(repairs, "duplicate texts dropped", exact)
    add_repair(repairs, "texts dropped that differ from another only in case or white space", len(repeated) - exact)
    add_repair(repairs, "texts dropped that occur with different labels", len(rows) - len(kept) - len(repeated))
    return sorted([*kept, *published])


def _count_near_duplicates(raw: RawExamples, repairs: list[Repair]) -> None:
    """Count the texts outside the test part that differ from an earlier one only in punctuation, and quote the first.

    A split keeps them in one part, but not if they belong to different groups.
    """
    texts = _texts(raw)
    seen: set[bytes] = set()
    seen_in_group: set[tuple[bytes, str | None]] = set()
    near, apart = [], 0
    for row, text in enumerate(texts):
        if raw.test is not None and raw.test[row]:
            continue
        key = _hash(fold_words(text))
        unit = (key, None if raw.groups is None else name_group(raw.groups[row]))
        if key in seen and (raw.groups is None or unit in seen_in_group):
            near.append(row)
        elif key in seen:
            apart += 1
        seen.add(key)
        if raw.groups is not None:
            seen_in_group.add(unit)
    add_repair(
        repairs, "texts that differ only in punctuation from one of another group, which may be in another part", apart
    )
    if near:
        example = texts[near[0]]
        shown = repr(example if len(example) <= 40 else example[:39] + "…")
        add_repair(
            repairs,
            f"texts that differ from an earlier one only in punctuation, kept in one part with it (the first: {shown})",
            len(near),
        )


def _hash(tokens: list[str]) -> bytes:
    # Hashes take less memory than folded copies of all texts.
    return hashlib.blake2b(" ".join(tokens).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _name_classes(labels: Sequence[Any], source: str) -> list[str]:
    """Turn labels into class names, and refuse numbers that are measurements."""
    names = [_class_name(label) for label in labels]
    if not all(_NUMBER.fullmatch(name) for name in names):
        return names
    distinct = sorted({float(name) for name in names})
    all_integers = all(value.is_integer() for value in distinct)
    if len(distinct) > (_MAX_INTEGER_CLASSES if all_integers else _MAX_FRACTION_CLASSES):
        raise NumericLabelsError(
            f"Labels must be classes. {capitalize(source)} holds {len(distinct):,} different numbers, from {distinct[0]:g} to "
            f"{distinct[-1]:g}. Predict the numbers themselves (task='regress'), group them into a few classes (such as low and "
            f"high), or name the column of classes."
        )
    return names


def _class_name(label: Any) -> str:
    """Return the name of a class: a stripped string, and a whole number without its fraction."""
    if isinstance(label, bool):
        return "true" if label else "false"
    name = unicodedata.normalize("NFC", _SURROGATES.sub("\ufffd", str(label))).strip()
    integer = _INTEGER.fullmatch(name)
    return integer[1] if integer else name


def choose_classes(labels: list[str], source: str, classes: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return `classes`, to which all labels must belong, or else the classes of the labels.

    Raises:
        DataError: a label is none of `classes`, or a classifier cannot be trained on the labels.
    """
    if classes is None:
        return sort_classes(labels, source)
    if unknown := sorted(set(labels) - set(classes)):
        raise DataError(
            f"The classes of the data must be those of the model: {', '.join(classes)}. {capitalize(source)} holds "
            f"{_quote(unknown[0])}. Name another column."
        )
    return tuple(classes)


def sort_classes(labels: list[str], source: str) -> tuple[str, ...]:
    """Return the sorted class names.

    Raises:
        DataError: a classifier cannot be trained on the labels.
    """
    counts = Counter(labels)
    if len(counts) < 2:
        received = f"only the class {_quote(labels[0])}" if labels else "no class"
        raise DataError(
            f"A classifier needs at least two classes. {capitalize(source)} holds {received}. Add examples of another "
            f"class, or name another column."
        )
    rare = [name for name, count in counts.items() if count < 2]
    if len(rare) > max(5, len(counts) // 2):
        raise DataError(
            f"Labels must be classes, each with several examples. {capitalize(source)} holds {len(counts):,} different values in "
            f"{len(labels):,} rows, {len(rare):,} of them once. Name the column of classes."
        )
    if rare:
        others = f", and so have {len(rare) - 1} other classes" if len(rare) > 2 else ""
        others = f", and so has {_quote(rare[1])}" if len(rare) == 2 else others
        raise DataError(
            f"Every class must have at least two different examples. In {source}, class {_quote(rare[0])} has one{others}. "
            f"Add examples of it, or leave the class out."
        )
    if all(_NUMBER.fullmatch(name) for name in counts):
        return tuple(sorted(counts, key=lambda name: (float(name), name)))
    return tuple(sorted(counts))


def _quote(name: str) -> str:
    """Quote a class name, shortened to 60 characters."""
    return repr(name if len(name) <= 60 else name[:59] + "…")


def capitalize(name: str) -> str:
    """Return a name as the first words of a sentence."""
    return name[:1].upper() + name[1:]


def add_repair(repairs: list[Repair], description: str, count: int) -> None:
    """Append a repair, unless it was never made."""
    if count:
        repairs.append(Repair(description, count))
