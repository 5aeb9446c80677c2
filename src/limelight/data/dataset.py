"""A labelled data set in memory, and a record of what reading changed."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Repair:
    """One kind of change that reading made, and how often.

    Args:
        what: A phrase such as "empty texts dropped".
        count: The number of examples, rows or files that were changed.

    Example:
        >>> str(Repair("empty texts dropped", 3))
        'empty texts dropped: 3'
    """

    what: str
    count: int

    def __str__(self) -> str:
        return f"{self.what}: {self.count:,}"


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled examples, free of duplicates, in the order of their source.

    Args:
        name: A short name for titles and files.
        kind: `"text"` or `"series"`.
        inputs: For texts, strings (Unicode NFC, newlines as `\\n`, no white space around them). For series, float32
            arrays (length, channels), all with the same number of channels.
        labels: Indices into `classes`, int64, one for each input.
        classes: The names of the classes, sorted (by value if all are numbers).
        repairs: The changes that reading made, with their counts.
        source: Where the data came from, in words.
        test: True where an example belongs to the published test part, bool (examples,); None if there is none.
        groups: For each example the name of its group (a patient, an author), which a split keeps in one part, or None if it
            belongs to no group; None if there are no groups.

    Example:
        >>> dataset = Dataset("tiny", "text", ("good", "bad"), np.array([1, 0]), ("negative", "positive"))
        >>> len(dataset), dataset.classes[dataset.labels[0]]
        (2, 'positive')
    """

    name: str
    kind: Literal["text", "series"]
    inputs: tuple[Any, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    repairs: tuple[Repair, ...] = ()
    source: str = ""
    test: np.ndarray | None = None
    groups: tuple[str | None, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("text", "series"):
            raise ValueError(f"`kind` must be 'text' or 'series'. Received: {self.kind!r}.")
        labels = np.asarray(self.labels, dtype=np.int64)
        if labels.shape != (len(self.inputs),):
            raise ValueError(
                f"`labels` must hold one class index for each input. Received: {len(self.inputs)} inputs and labels of "
                f"shape {labels.shape}."
            )
        if labels.size and (labels.min() < 0 or labels.max() >= len(self.classes)):
            raise ValueError(
                f"`labels` must be indices into the {len(self.classes)} classes. Received: values from {labels.min()} "
                f"to {labels.max()}."
            )
        object.__setattr__(self, "labels", labels)
        if self.test is not None and np.shape(self.test) != labels.shape:
            raise ValueError(
                f"`test` must be one bool for each of the {len(labels)} inputs. Received: shape {np.shape(self.test)}."
            )

        if self.groups is not None and len(self.groups) != len(labels):
            raise ValueError(
                f"`groups` must name a group, or be None, for each of the {len(labels)} inputs. Received: "
                f"{len(self.groups)} groups."
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {self.kind}, {len(self):,} examples in {len(self.classes)} classes)"

    def take(self, indices: Any) -> tuple[list[Any], np.ndarray]:
        """Return the inputs and the labels at `indices`, in that order."""
        indices = np.asarray(indices, dtype=np.int64)
        return [self.inputs[index] for index in indices], self.labels[indices]


def describe(dataset: Dataset) -> dict[str, Any]:
    """Summarize a data set in values that can be written as JSON.

    Args:
        dataset: The data set, as `load` returned it.

    Returns:
        A dictionary with `name`, `kind`, `source`, `examples`, `classes` (name to count), `majority` (the largest class's share),
        `lengths` (`unit`, `minimum`, `quartile_1`, `median`, `quartile_3`, `percentile_95`, `maximum`; the unit of a text
        is the word), `channels` (series only, else None), `published_test` (the
        number of examples in the published test part, else None) and `repairs` (dictionaries of `what` and `count`).

    Example:
        >>> dataset = Dataset("tiny", "text", ("so good", "bad"), np.array([1, 0]), ("negative", "positive"))
        >>> describe(dataset)["classes"]
        {'negative': 1, 'positive': 1}
    """
    is_text = dataset.kind == "text"
    lengths = np.array([len(value.split()) if is_text else len(value) for value in dataset.inputs])
    points = np.quantile(lengths, [0, 0.25, 0.5, 0.75, 0.95, 1]) if len(lengths) else np.zeros(6)
    names = ("minimum", "quartile_1", "median", "quartile_3", "percentile_95", "maximum")
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    return {
        "name": dataset.name,
        "kind": dataset.kind,
        "source": dataset.source,
        "examples": len(dataset),
        "classes": {name: int(count) for name, count in zip(dataset.classes, counts, strict=True)},
        "majority": float(counts.max() / len(dataset)) if len(dataset) else 0.0,
        "lengths": {
            "unit": "words" if is_text else "steps",
            **{name: float(point) for name, point in zip(names, points, strict=True)},
        },
        "channels": None if is_text or not len(dataset) else int(dataset.inputs[0].shape[1]),
        "published_test": None if dataset.test is None else int(np.sum(dataset.test)),
        "repairs": [{"what": repair.what, "count": repair.count} for repair in dataset.repairs],
    }
