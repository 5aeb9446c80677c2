"""Read labelled series from .ts files, the format of aeon and sktime."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from limelight.data import textfiles
from limelight.data.cleaning import add_repair, choose_classes
from limelight.data.dataset import Dataset, Repair
from limelight.exceptions import DataError


@dataclass
class _Part:
    """The series of a file and their labels, as text, and whether these are numbers to predict."""

    series: list[np.ndarray] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    is_regression: bool = False
    num_missing: int = 0


def read_series(path: Path, is_regression: bool | None, classes: Sequence[str] | None = None) -> Dataset:
    """Read a .ts file; `X_TRAIN.ts` is read with the file `X_TEST.ts` beside it, the published test part.

    Args:
        path: The file.
        is_regression: True if the labels must be numbers to predict, False if they must be classes, None for what the file
            says.
        classes: The classes, in their order; those of the labels when not given.

    Raises:
        DataError: the file cannot be read, or does not hold labelled series.
    """
    repairs: list[Repair] = []
    parts = re.fullmatch(r"(.*)_TRAIN(\.ts(?:\.gz)?)", path.name, re.IGNORECASE)
    partner = None if parts is None else path.with_name(f"{parts[1]}_TEST{parts[2]}")
    paths = [path] if partner is None or not partner.exists() else [path, partner]
    texts = []
    for each in paths:
        textfiles.check_text_file(each, repairs)
        texts.append("".join(textfiles.iterate_lines(each)))
    name = textfiles.stem_of(path) if len(paths) == 1 or parts is None else parts[1]
    where = f"the file{'s' if len(paths) > 1 else ''} {' and '.join(repr(str(each)) for each in paths)}"
    dataset = build_series(name, texts, where, repairs, classes)
    if is_regression not in (None, dataset.targets is not None):
        holds, other = ("classes", "classify") if is_regression else ("numeric targets", "regress")
        raise DataError(
            f"The labels of {where} are {holds}. Received: another task. Pass task={other!r}, or leave it out."
        )
    return dataset


def build_series(
    name: str, texts: list[str], source: str, repairs: list[Repair], classes: Sequence[str] | None = None
) -> Dataset:
    """Build a data set from the content of one .ts file, or of two, the second being the published test part.

    Raises:
        DataError: the content is not that of labelled series.
    """
    parts = [_parse(text, source) for text in texts]
    series = [each for part in parts for each in part.series]
    labels = [label for part in parts for label in part.labels]
    add_repair(repairs, "missing values filled by interpolation", sum(part.num_missing for part in parts))
    if len({each.shape[1] for each in series}) > 1:
        raise DataError(
            f"The series of {source} must have equal channels. Received: {sorted({each.shape[1] for each in series})}."
        )
    test = np.arange(len(series)) >= len(parts[0].series) if len(parts) > 1 else None
    if parts[0].is_regression:
        targets = np.array([_parse_target(label, source) for label in labels])
        return Dataset(name, "series", tuple(series), repairs=tuple(repairs), source=source, test=test, targets=targets)
    classes = choose_classes(labels, source, classes)
    index = {label: position for position, label in enumerate(classes)}
    numbers = np.array([index[label] for label in labels], dtype=np.int64)
    return Dataset(name, "series", tuple(series), numbers, classes, tuple(repairs), source, test)


def _parse_target(label: str, source: str) -> float:
    try:
        target = float(label)
    except ValueError:
        target = np.nan
    if not np.isfinite(target):
        raise DataError(f"The targets of {source} must be finite numbers. Received: {label[:60]!r}.")
    return target


def _parse(text: str, source: str) -> _Part:
    """Parse a file: lines of `@key value`, and after @data a series on each line, its channels and its label between colons."""
    part, header, in_data = _Part(), {}, False
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith(("#", "%")):
            continue
        if in_data:
            _parse_series(line, f"Line {number:,} of {source}", part)
        elif line.startswith("@"):
            key, _, value = line[1:].partition(" ")
            header[key.casefold()] = value.strip().casefold()
            in_data = key.casefold() == "data"
            if in_data:
                part.is_regression = _check_header(header, source)
        else:
            raise DataError(
                f"{source} must be a .ts file. Line {number:,} precedes the line @data and begins without @."
            )
    if not part.series:
        raise DataError(f"{source} must hold series after a line @data. It has none.")
    return part


def _check_header(header: dict[str, str], source: str) -> bool:
    """Return True if the labels are numbers to predict."""
    if header.get("timestamps") == "true":
        raise DataError(f"Series must have equal steps. {source} holds time stamps. Write the values alone.")
    is_regression = header.get("targetlabel", "").startswith("true")
    if not is_regression and not header.get("classlabel", "true").startswith("true"):
        raise DataError(f"Series must be labelled. {source} has no class (@classLabel false). Add one to each line.")
    return is_regression


def _parse_series(line: str, where: str, part: _Part) -> None:
    *channels, label = line.split(":")
    try:
        rows = [
            [np.nan if value.strip() in ("?", "") else float(value) for value in each.split(",")] for each in channels
        ]
    except ValueError as error:
        raise DataError(f"{where} must hold numbers between commas. It does not: {error}.") from error
    lengths = sorted({len(row) for row in rows})
    values = np.array(rows).T if len(lengths) == 1 else np.zeros((0, 0))
    if not values.size or not label.strip() or np.isnan(values).all(axis=0).any() or np.isinf(values).any():
        raise DataError(
            f"{where} must hold channels of one length with finite values, and a label. It has the lengths {lengths} and the "
            f"label {label.strip()[:60]!r}."
        )
    missing = np.isnan(values)
    if missing.any():
        part.num_missing += int(missing.sum())
        steps = np.arange(len(values))
        for channel, gaps in zip(values.T, missing.T, strict=True):
            channel[gaps] = np.interp(steps[gaps], steps[~gaps], channel[~gaps])
    part.series.append(np.ascontiguousarray(values, dtype=np.float32))
    part.labels.append(label.strip())
