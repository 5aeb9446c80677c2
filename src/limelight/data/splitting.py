"""Split a data set by hashes of its examples, so that everybody gets the same split."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from limelight.data.dataset import Dataset
from limelight.data.pairs import Pairs
from limelight.data.unicode import fold_words
from limelight.exceptions import DataError

_MAX_BINS = 10


@dataclass(frozen=True, eq=False)
class Split:
    """The indices of the train, validation and test parts.

    Args:
        train: Ascending indices into the data set.
        validation: The same for early stopping.
        test: The same for the final evaluation.
        fingerprint: A hash of contents, labels and parts that does not depend on the order of the rows: two people with
            the same fingerprint have the same split.
        order: A hash of contents, labels and parts in the order of the rows. If two data sets share it, arrays computed
            from them match row for row.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    fingerprint: str
    order: str


def split(dataset: Dataset | Pairs, *, validation: float = 0.1, test: float = 0.2) -> Split:
    """Split each class by the ranks of hashes of its examples' content.

    $$p = (r + h) / n$$

    where n is the size of the class, r in 0, 1, ..., n - 1 the rank of an example's hash in its class, and h in (0, 1) a hash
    of the class's name; test where p < `test`, validation where `test` <= p < `test + validation`, else train. So every class
    has its share in each part, up to one example. The split depends on the examples alone, neither on their order nor on a
    seed. Rows that are added to a class move only examples whose p is close to a limit, and none of another class.

    Examples of one group have one hash, that of the group's name, and so have texts without a group that differ only in case,
    white space and punctuation: they are never in two parts, and count as many ranks as there are. A class that would have no
    example in the train part gets those with its largest hash. If the data set has a published test part, that part is the test,
    `test` is ignored, and `validation` is a share of the rest.

    Examples with numeric targets are split like classes, in ten bins of equally many examples from low to high targets (fewer
    bins below 100 examples); pairs of texts as one class, by hashes of their sources.

    Args:
        dataset: The data set, as `load` or `load_pairs` returned it. A `Panel` has no split: a forecast is tested in time.
        validation: The share for early stopping, in [0, 1).
        test: The share for the final evaluation, in [0, 1).

    Returns:
        The indices of the three parts, with two hashes.

    Raises:
        ValueError: a share is out of range, or nothing is left to train on.
        TypeError: the data set is neither a `Dataset` nor `Pairs`.
        DataError: a class has no example outside the published test part, or a requested part is empty.

    Example:
        >>> texts = tuple(f"review number {i}" for i in range(100))
        >>> dataset = Dataset("tiny", "text", texts, np.arange(100) % 2, ("negative", "positive"))
        >>> parts = split(dataset)
        >>> len(parts.train), len(parts.validation), len(parts.test)
        (70, 10, 20)
    """
    if not isinstance(dataset, Dataset | Pairs):
        raise TypeError(
            f"`split` takes a Dataset or Pairs. Received: {type(dataset).__name__}. Series are split in time: hold out the "
            f"last steps of each."
        )
    has_test = dataset.test is not None
    if not (0 <= validation < 1 and 0 <= test < 1 and (has_test or validation + test < 1)):
        raise ValueError(
            f"`validation` and `test` must be shares in [0, 1) that leave examples to train on. Received: "
            f"validation={validation}, test={test}."
        )
    outside_test = np.ones(len(dataset), bool) if dataset.test is None else ~np.asarray(dataset.test, dtype=bool)
    test = 0.0 if has_test else test
    part = np.full(len(dataset), 2)
    examples = _stratify(dataset)
    part[outside_test] = _place(examples, np.flatnonzero(outside_test), test, validation)
    _check(examples, part, requested={"validation": validation > 0, "test": has_test or test > 0})
    indices = [np.flatnonzero(part == index) for index in range(3)]
    records = [
        bytes([part_id]) + _digest(content) + output
        for part_id, content, output in zip(part.tolist(), examples.contents, examples.outputs, strict=True)
    ]
    return Split(*indices, fingerprint=_hash(sorted(records)), order=_hash(records))


class _Examples(NamedTuple):
    """The examples of any data set: texts or series, their groups, and the stratum of each."""

    contents: Sequence[Any]
    groups: Sequence[str | None] | None
    # Each stratum has its share of every part.
    strata: np.ndarray
    names: tuple[str, ...]
    # What an example's record holds besides its content: its class, its target or its references.
    outputs: list[bytes]
    # True if every stratum must have an example in the train part.
    is_classification: bool


def _stratify(dataset: Dataset | Pairs) -> _Examples:
    if isinstance(dataset, Pairs):
        strata = np.zeros(len(dataset), np.int64)
        outputs = ["\0".join(references).encode("utf-8", "surrogatepass") for references in dataset.targets]
        return _Examples(dataset.sources, dataset.groups, strata, ("pairs",), outputs, False)
    if dataset.targets is None:
        outputs = [dataset.classes[label].encode("utf-8", "surrogatepass") for label in dataset.labels.tolist()]
        return _Examples(dataset.inputs, dataset.groups, dataset.labels, dataset.classes, outputs, True)
    num_bins = max(1, min(_MAX_BINS, len(dataset) // _MAX_BINS))
    limits = np.quantile(dataset.targets, np.arange(1, num_bins) / num_bins) if len(dataset) else []
    strata = np.searchsorted(limits, dataset.targets, side="right")
    outputs = [np.float64(target).astype("<f8").tobytes() for target in dataset.targets]
    return _Examples(dataset.inputs, dataset.groups, strata, tuple(map(str, range(num_bins))), outputs, False)


def _place(examples: _Examples, indices: np.ndarray, test: float, validation: float) -> np.ndarray:
    """Return the part of the examples at `indices`: 0 train, 1 validation, 2 test."""
    labels = examples.strata[indices]
    keys = np.array([_unit_key(examples, index) for index in indices], dtype=np.uint64)
    # A unit is a set of examples that stay together; units are sorted by their keys.
    _, unit, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    stratum = _most_frequent_class(unit, labels)
    offsets = np.array([_hash_to_fraction(name.encode("utf-8", "surrogatepass")) for name in examples.names])
    position = np.zeros(len(sizes))
    for label in np.unique(stratum):
        members = np.flatnonzero(stratum == label)
        starts = np.cumsum(sizes[members]) - sizes[members]
        position[members] = (starts + offsets[label] * sizes[members]) / sizes[members].sum()
    part_of_unit = np.where(position < test, 2, np.where(position < test + validation, 1, 0))
    if examples.is_classification:
        trained = np.isin(np.arange(len(examples.names)), labels[part_of_unit[unit] == 0])
        for label in np.unique(labels[~trained[labels]]):
            part_of_unit[unit[labels == label].max()] = 0
    return part_of_unit[unit]


def _most_frequent_class(unit: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each unit the class of most of its examples, the first of several."""
    num_classes = labels.max(initial=0) + 1
    pairs, counts = np.unique(unit * num_classes + labels, return_counts=True)
    units, classes = np.divmod(pairs, num_classes)
    order = np.lexsort((classes, -counts, units))
    _, first = np.unique(units[order], return_index=True)
    return classes[order][first]


def _unit_key(examples: _Examples, index: int) -> int:
    """Return the hash that decides the part of an example: of its group, or of its words, or of its series."""
    group = None if examples.groups is None else examples.groups[index]
    example = examples.contents[index]
    if group is not None:
        digest = hashlib.blake2b(
            group.encode("utf-8", "surrogatepass"), digest_size=16, person=b"limelight-group"
        ).digest()
    else:
        digest = _digest(" ".join(fold_words(example)) if isinstance(example, str) else example)
    return int.from_bytes(digest[:8], "big")


def _hash_to_fraction(content: bytes) -> float:
    """Hash to a number in (0, 1)."""
    digest = hashlib.blake2b(content, digest_size=16, person=b"limelight-class").digest()
    return (int.from_bytes(digest[:4], "big") + 0.5) / 2**32


def _digest(example: Any) -> bytes:
    """Hash the content of a text or of a series (its shape and its float32 values)."""
    if isinstance(example, str):
        content = example.encode("utf-8", "surrogatepass")
    else:
        values = np.ascontiguousarray(example, dtype="<f4")
        content = repr(values.shape).encode() + values.tobytes()
    return hashlib.blake2b(content, digest_size=16, person=b"limelight-split").digest()


def _hash(records: list[bytes]) -> str:
    """Hash the records in their order."""
    total = hashlib.blake2b(digest_size=16, person=b"limelight-parts")
    for record in records:
        # The length comes first, so that the end of one record cannot be mistaken for the start of the next.
        total.update(len(record).to_bytes(8, "big") + record)
    return total.hexdigest()


def _check(examples: _Examples, part: np.ndarray, requested: dict[str, bool]) -> None:
    """Raise if a class is missing from the train part, or a requested part is empty."""
    counts = np.bincount(examples.strata[part == 0], minlength=len(examples.names))
    missing = [name for name, count in zip(examples.names, counts, strict=True) if count == 0]
    if missing and examples.is_classification:
        raise DataError(
            f"Every class must have an example in the train part. Class {missing[0][:60]!r} has none (its "
            f"{int(np.sum(examples.strata == examples.names.index(missing[0])))} examples are all in the test part). "
            f"Add examples of it, or leave the class out."
        )
    for index, name in enumerate(("train", "validation", "test")):
        if requested.get(name, True) and not np.any(part == index):
            raise DataError(
                f"The {name} part must hold at least one example. {len(part)} examples are too few for the "
                f"requested share. Add examples, or request a larger share."
            )
