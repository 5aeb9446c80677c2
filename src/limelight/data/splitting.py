"""A split that anyone gets again: by a hash of each example's content, never by its place."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from limelight.data.dataset import Dataset
from limelight.data.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """Which examples train, which stop the training, and which are kept for the test.

    Args:
        train: Ascending indices into the data set.
        validation: Likewise.
        test: Likewise.
        fingerprint: A hash of which content with which label is in which part, independent of the order of the rows:
            two people with the same fingerprint have the same split.
        order: A hash of the same in the order of the rows. Arrays that were made from two data sets with the same one
            belong to the same examples, row for row.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    fingerprint: str
    order: str


def split(dataset: Dataset, *, validation: float = 0.1, test: float = 0.2) -> Split:
    """Split by a hash of each example's content.

    u = blake2b(content) / 2^64; test where u < `test`, validation where `test` <= u < `test + validation`, else train.
    So added, removed or reordered rows never move another example, and the shares are met on average, not exactly.
    Where the set was published with a test part, that part is the test, `test` is not used, and `validation` is a share
    of the rest.

    Args:
        dataset: What `load` returned.
        validation: The share that stops the training, in [0, 1).
        test: The share kept for the test, in [0, 1).

    Returns:
        A `Split`.

    Raises:
        ValueError: a share is out of range, or none is left to train on.
        DataError: a class has no example in the train part, or a part that was asked for is empty.

    Example:
        >>> texts = tuple(f"review number {i}" for i in range(100))
        >>> dataset = Dataset("tiny", "text", texts, np.arange(100) % 2, ("negative", "positive"))
        >>> parts = split(dataset)
        >>> len(parts.train), len(parts.validation), len(parts.test)
        (54, 13, 33)
    """
    published = dataset.test is not None
    if not (0 <= validation < 1 and 0 <= test < 1 and (published or validation + test < 1)):
        raise ValueError(
            f"`validation` and `test` must be shares in [0, 1) that leave some examples to train on. Received: "
            f"validation={validation}, test={test}."
        )
    digests = [_digest(each) for each in dataset.inputs]
    place = np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in digests])
    if dataset.test is not None:
        is_test = np.asarray(dataset.test, dtype=bool)
        is_validation = ~is_test & (place < validation)
    else:
        is_test = place < test
        is_validation = ~is_test & (place < test + validation)
    part = np.where(is_test, 2, np.where(is_validation, 1, 0))
    _check(dataset, part, wanted={"validation": validation > 0, "test": published or test > 0})
    train, stop, final = (np.flatnonzero(part == index) for index in range(3))
    triples = _triples(dataset, digests, part)
    return Split(train, stop, final, _hash(sorted(triples)), _hash(triples))


def _digest(example: Any) -> bytes:
    """Hash the content of a text or of a series (its shape and its float32 values)."""
    if isinstance(example, str):
        content = example.encode("utf-8", "surrogatepass")
    else:
        values = np.ascontiguousarray(example, dtype="<f4")
        content = repr(values.shape).encode() + values.tobytes()
    return hashlib.blake2b(content, digest_size=16, person=b"limelight-split").digest()


def _triples(dataset: Dataset, digests: list[bytes], part: np.ndarray) -> list[bytes]:
    """Return part, content and class of each example."""
    return [
        bytes([which]) + digest + dataset.classes[label].encode("utf-8", "surrogatepass")
        for which, digest, label in zip(part.tolist(), digests, dataset.labels.tolist(), strict=True)
    ]


def _hash(triples: list[bytes]) -> str:
    """Hash triples in the order in which they come."""
    total = hashlib.blake2b(digest_size=16, person=b"limelight-parts")
    for triple in triples:
        # The length first: without it, the end of one triple could pass for the beginning of the next.
        total.update(len(triple).to_bytes(8, "big") + triple)
    return total.hexdigest()


def _check(dataset: Dataset, part: np.ndarray, wanted: dict[str, bool]) -> None:
    """Raise where a class is missing from the train part, or a part is empty."""
    counts = np.bincount(dataset.labels[part == 0], minlength=len(dataset.classes))
    missing = [name for name, count in zip(dataset.classes, counts, strict=True) if count == 0]
    if missing:
        raise DataError(
            f"Every class must have an example in the train part. Class {missing[0][:60]!r} has none (its "
            f"{int(np.sum(dataset.labels == dataset.classes.index(missing[0])))} examples all fell into other parts). "
            f"Add examples of it, or leave the class out."
        )
    for index, name in ((1, "validation"), (2, "test")):
        if wanted[name] and not np.any(part == index):
            raise DataError(
                f"The {name} part must hold at least one example. {len(dataset)} examples are too few for the share that "
                f"was asked for. Add examples, or ask for a larger share."
            )
