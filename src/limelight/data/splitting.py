"""Split a data set by a hash of each example's content, so that everybody gets the same split."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from limelight.data.dataset import Dataset
from limelight.exceptions import DataError


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


def split(dataset: Dataset, *, validation: float = 0.1, test: float = 0.2) -> Split:
    """Split by a hash of each example's content.

    u = blake2b(content) / 2^64; test where u < `test`, validation where `test` <= u < `test + validation`, else train.
    Added, removed or reordered rows never move another example. The shares are met on average, not exactly. If the data
    set has a published test part, that part is the test, `test` is ignored, and `validation` is a share of the rest.

    Args:
        dataset: The data set, as `load` returned it.
        validation: The share for early stopping, in [0, 1).
        test: The share for the final evaluation, in [0, 1).

    Returns:
        The indices of the three parts, with two hashes.

    Raises:
        ValueError: a share is out of range, or nothing is left to train on.
        DataError: a class has no example in the train part, or a requested part is empty.

    Example:
        >>> texts = tuple(f"review number {i}" for i in range(100))
        >>> dataset = Dataset("tiny", "text", texts, np.arange(100) % 2, ("negative", "positive"))
        >>> parts = split(dataset)
        >>> len(parts.train), len(parts.validation), len(parts.test)
        (54, 13, 33)
    """
    has_test = dataset.test is not None
    if not (0 <= validation < 1 and 0 <= test < 1 and (has_test or validation + test < 1)):
        raise ValueError(
            f"`validation` and `test` must be shares in [0, 1) that leave examples to train on. Received: "
            f"validation={validation}, test={test}."
        )
    digests = [_digest(example) for example in dataset.inputs]
    position = np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in digests])
    if dataset.test is not None:
        is_test = np.asarray(dataset.test, dtype=bool)
        is_validation = ~is_test & (position < validation)
    else:
        is_test = position < test
        is_validation = ~is_test & (position < test + validation)
    part = np.where(is_test, 2, np.where(is_validation, 1, 0))
    _check(dataset, part, requested={"validation": validation > 0, "test": has_test or test > 0})
    indices = [np.flatnonzero(part == index) for index in range(3)]
    records = _records(dataset, digests, part)
    return Split(*indices, fingerprint=_hash(sorted(records)), order=_hash(records))


def _digest(example: Any) -> bytes:
    """Hash the content of a text or of a series (its shape and its float32 values)."""
    if isinstance(example, str):
        content = example.encode("utf-8", "surrogatepass")
    else:
        values = np.ascontiguousarray(example, dtype="<f4")
        content = repr(values.shape).encode() + values.tobytes()
    return hashlib.blake2b(content, digest_size=16, person=b"limelight-split").digest()


def _records(dataset: Dataset, digests: list[bytes], part: np.ndarray) -> list[bytes]:
    """Return the part, content hash and class of each example as bytes."""
    return [
        bytes([part_id]) + digest + dataset.classes[label].encode("utf-8", "surrogatepass")
        for part_id, digest, label in zip(part.tolist(), digests, dataset.labels.tolist(), strict=True)
    ]


def _hash(records: list[bytes]) -> str:
    """Hash the records in their order."""
    total = hashlib.blake2b(digest_size=16, person=b"limelight-parts")
    for record in records:
        # The length comes first, so that the end of one record cannot be mistaken for the start of the next.
        total.update(len(record).to_bytes(8, "big") + record)
    return total.hexdigest()


def _check(dataset: Dataset, part: np.ndarray, requested: dict[str, bool]) -> None:
    """Raise if a class is missing from the train part, or a requested part is empty."""
    counts = np.bincount(dataset.labels[part == 0], minlength=len(dataset.classes))
    missing = [name for name, count in zip(dataset.classes, counts, strict=True) if count == 0]
    if missing:
        raise DataError(
            f"Every class must have an example in the train part. Class {missing[0][:60]!r} has none (its "
            f"{int(np.sum(dataset.labels == dataset.classes.index(missing[0])))} examples are all in other parts). "
            f"Add examples of it, or leave the class out."
        )
    for index, name in ((1, "validation"), (2, "test")):
        if requested[name] and not np.any(part == index):
            raise DataError(
                f"The {name} part must hold at least one example. {len(dataset)} examples are too few for the "
                f"requested share. Add examples, or request a larger share."
            )
