"""A labelled data set in memory, and a record of what reading changed."""

from dataclasses import dataclass, field
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
    """Labelled examples in the order of their source. Texts are free of duplicates, but for those of a published test part.

    Args:
        name: A short name for titles and files.
        kind: `"text"` or `"series"`.
        inputs: For texts, strings (Unicode NFC, newlines as `\\n`, no white space around them). For series, float32
            arrays (length, channels), all with the same number of channels.
        labels: Indices into `classes`, int64, one for each input; none if there are `targets`.
        classes: The names of the classes, sorted (by value if all are numbers); none if there are `targets`.
        repairs: The changes that reading made, with their counts.
        source: Where the data came from, in words.
        test: True where an example belongs to the published test part, bool (examples,); None if there is none.
        groups: For each example the name of its group (a patient, an author), which a split keeps in one part, or None if it
            belongs to no group; None if there are no groups.
        targets: The numbers to predict in a regression, float64, one for each input; None for classes.

    Raises:
        ValueError: a field does not fit the inputs, or there are both classes and targets.

    Example:
        >>> dataset = Dataset("tiny", "text", ("good", "bad"), np.array([1, 0]), ("negative", "positive"))
        >>> len(dataset), dataset.classes[dataset.labels[0]]
        (2, 'positive')
        >>> Dataset("rated", "text", ("good", "bad"), targets=[4.5, 1])
        Dataset('rated', text, 2 examples with targets from 1 to 4.5)
    """

    name: str
    kind: Literal["text", "series"]
    inputs: tuple[Any, ...]
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    classes: tuple[str, ...] = ()
    repairs: tuple[Repair, ...] = ()
    source: str = ""
    test: np.ndarray | None = None
    groups: tuple[str | None, ...] | None = None
    targets: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("text", "series"):
            raise ValueError(f"`kind` must be 'text' or 'series'. Received: {self.kind!r}.")
        if self.targets is None:
            self._check_labels()
        else:
            self._check_targets(self.targets)
        count = len(self.inputs)
        if self.test is not None and np.shape(self.test) != (count,):
            raise ValueError(
                f"`test` must be one bool for each of the {count} inputs. Received: shape {np.shape(self.test)}."
            )
        if self.groups is not None and len(self.groups) != count:
            raise ValueError(
                f"`groups` must name a group, or be None, for each of the {count} inputs. Received: "
                f"{len(self.groups)} groups."
            )

    def _check_labels(self) -> None:
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

    def _check_targets(self, targets: Any) -> None:
        targets = np.asarray(targets, dtype=np.float64)
        if targets.shape != (len(self.inputs),) or not np.isfinite(targets).all():
            raise ValueError(
                f"`targets` must hold one finite number for each input. Received: {len(self.inputs)} inputs and targets of "
                f"shape {targets.shape}."
            )
        if len(self.labels) or self.classes:
            raise ValueError(
                f"A data set has `labels` and `classes`, or `targets`. Received: both, {len(self.labels)} labels and "
                f"{len(targets)} targets."
            )
        object.__setattr__(self, "targets", targets)

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        content = f"in {len(self.classes)} classes"
        if self.targets is not None:
            content = "with targets" + (f" from {self.targets.min():g} to {self.targets.max():g}" if len(self) else "")
        return f"Dataset({self.name!r}, {self.kind}, {len(self):,} examples {content})"

    def take(self, indices: Any) -> tuple[list[Any], np.ndarray]:
        """Return the inputs and their labels, or their targets, at `indices`, in that order."""
        indices = np.asarray(indices, dtype=np.int64)
        outputs = self.labels if self.targets is None else self.targets
        return [self.inputs[index] for index in indices], outputs[indices]
