"""Batch sequences of similar length, padded to few distinct lengths."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np


class PlannedBatch(NamedTuple):
    """The examples of a batch (indices into the inputs) and the length that they are padded to."""

    indices: np.ndarray
    padded_length: int


class Batch(NamedTuple):
    """A padded batch.

    Attributes:
        values: (rows, length) int32, or (rows, length, channels) float32.
        mask: (rows, length), False at padding.
        labels: (rows,); (rows, length), padded with zeros, if each label is a sequence; or None.
        indices: (rows,) into the inputs.
        label_mask: (rows, length), False at padding; None unless each label is a sequence.
    """

    values: np.ndarray
    mask: np.ndarray
    labels: np.ndarray | None
    indices: np.ndarray
    label_mask: np.ndarray | None = None


def padded_length(length: int) -> int:
    """Round a length up to the grid 16, 32, 48, 64, 96, 128, 192, 256, ...: every power of two and the middle to the next.

    The grid is the same for all data sets, so that few shapes are compiled. At most half of a padded sequence is padding,
    unless the sequence is shorter than 8.

    Example:
        >>> [padded_length(length) for length in (0, 7, 17, 50, 65, 1000)]
        [16, 16, 32, 64, 96, 1024]
    """
    if length <= 32:
        return 16 if length <= 16 else 32
    power = 1 << (int(length) - 1).bit_length()
    return power * 3 // 4 if length <= power * 3 // 4 else power


def pad(sequences: Sequence[np.ndarray], padded_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Stack sequences of different lengths, each padded with zeros at its end.

    Args:
        sequences: Ids (length,), or series (length, channels).
        padded_length: The length of the result, at least that of the longest sequence.

    Returns:
        The values, int32 (rows, padded_length) or float32 (rows, padded_length, channels), and the mask, bool
        (rows, padded_length), False at padding.

    Raises:
        ValueError: a sequence is longer than `padded_length`, or there are no sequences.

    Example:
        >>> values, mask = pad([np.array([5, 6]), np.array([7])], 3)
        >>> values.tolist(), mask.tolist()
        ([[5, 6, 0], [7, 0, 0]], [[True, True, False], [True, False, False]])
    """
    if not len(sequences):
        raise ValueError("`sequences` must hold at least one sequence. Received: none.")
    longest = max(len(sequence) for sequence in sequences)
    if longest > padded_length:
        raise ValueError(f"`padded_length` must be at least the longest length, {longest}. Received: {padded_length}.")
    first = np.asarray(sequences[0])
    dtype = np.float32 if first.ndim == 2 else np.int32
    values = np.zeros((len(sequences), padded_length, *first.shape[1:]), dtype)
    mask = np.zeros((len(sequences), padded_length), bool)
    for row, sequence in enumerate(sequences):
        values[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = True
    return values, mask


def plan_batches(
    lengths: np.ndarray, batch_size: int, shuffle_seed: int | None = None, epoch: int = 0
) -> list[PlannedBatch]:
    """Return batches of examples of similar length, in which each example occurs exactly once.

    Args:
        lengths: The padded length of each example (n,).
        batch_size: Examples in a batch; one batch may hold fewer.
        shuffle_seed: Seed of the order of batches, and of examples of equal length; None for an order from short to long.
        epoch: Number of the epoch: each one has an order of its own.

    Example:
        >>> [batch.indices.tolist() for batch in plan_batches(np.array([32, 16, 16]), 2)]
        [[1, 2], [0]]
    """
    count = len(lengths)
    random = None if shuffle_seed is None else np.random.default_rng((shuffle_seed, epoch))
    order = np.arange(count) if random is None else random.permutation(count)
    order = order[np.argsort(lengths[order], kind="stable")]
    chunks = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    batches = [PlannedBatch(chunk, int(lengths[chunk].max())) for chunk in chunks]
    return batches if random is None else [batches[index] for index in random.permutation(len(batches))]


def check_sequences(sequences: Sequence[np.ndarray], name: str) -> None:
    """Raise unless all sequences are ids (length,), or all are series (length, channels) with equal channels."""
    if any(sequence.ndim == 1 and sequence.dtype.kind not in "iu" and sequence.size for sequence in sequences):
        raise ValueError(
            f"`{name}` of one axis must be integer ids. Received: other numbers. A series has the shape (length, "
            "channels): add a last axis of 1 to a series of one channel."
        )
    shapes = sorted({sequence.shape[1:] for sequence in sequences})
    if len(shapes) > 1 or any(len(shape) > 1 for shape in shapes) or not all(s.ndim for s in sequences):
        raise ValueError(
            f"`{name}` must all be ids (length,), or all series (length, channels) with equal channels. Received: "
            f"shapes {shapes} after the length."
        )


class LengthBatches:
    """Batches of examples of similar length, in few shapes.

    Examples are sorted by their padded length and split every `batch_size`, so that only one batch is not full. With a
    seed, examples of equal length and the batches are shuffled, differently in each epoch; without one the order is from
    short to long. Each example occurs exactly once.

    Args:
        inputs: `Encoding`s, or arrays of ids (length,), or series (length, channels).
        labels: One label for each input, or None. An array (n, ...) is batched as it is. In a list, a label may be a
            sequence of its own length, such as the ids of a translation; inputs and labels are then padded to one length,
            that of the longer.
        batch_size: Rows in a batch.
        shuffle_seed: A seed, or None for no shuffling.

    Raises:
        ValueError: the inputs are of different kinds or channels, the labels do not match, or `batch_size` is not positive.

    Example:
        >>> batches = LengthBatches([np.array([5, 6, 7]), np.array([8])], np.array([0, 1]), batch_size=2)
        >>> len(batches), next(iter(batches)).values.shape
        (1, (2, 16))

        Pairs of sequences:

        >>> batch = next(iter(LengthBatches([[5, 6], [8]], [[1, 2, 3], [4]], batch_size=2)))
        >>> batch.labels.shape, batch.label_mask.sum(axis=1).tolist()
        ((2, 16), [3, 1])
    """

    def __init__(
        self, inputs: Sequence[Any], labels: Any = None, *, batch_size: int, shuffle_seed: int | None = None
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be positive. Received: {batch_size}.")
        try:
            self.sequences = [np.asarray(getattr(example, "ids", example)) for example in inputs]
        except ValueError as error:
            raise ValueError(
                "`inputs` must hold one sequence for each example. Received: one of several lengths, such as a pair. Give "
                "the second sequences as `labels`."
            ) from error
        check_sequences(self.sequences, "inputs")
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.labels: Any = labels
        if labels is not None and len(labels) != len(self.sequences):
            raise ValueError(
                f"`labels` must hold one label for each input. Received: {len(self.sequences)} inputs, {len(labels)} labels."
            )
        lengths = [len(sequence) for sequence in self.sequences]
        self._has_sequence_labels = (
            labels is not None and not isinstance(labels, np.ndarray) and any(np.ndim(label) for label in labels)
        )
        if self._has_sequence_labels:
            self.labels = [np.asarray(label) for label in labels or ()]
            check_sequences(self.labels, "labels")
            lengths = [max(length, len(label)) for length, label in zip(lengths, self.labels, strict=True)]
        elif labels is not None:
            self.labels = np.asarray(labels)
        self._lengths = np.array([padded_length(length) for length in lengths], dtype=np.int64)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return -(-len(self.sequences) // self.batch_size)

    def plan(self, epoch: int = 0) -> list[PlannedBatch]:
        """Return the batches of an epoch, which depend on the inputs' lengths, the seed and the epoch alone."""
        return plan_batches(self._lengths, self.batch_size, self.shuffle_seed, epoch)

    def pad(self, planned: PlannedBatch) -> Batch:
        """Return the padded arrays of a planned batch."""
        values, mask = pad([self.sequences[index] for index in planned.indices], planned.padded_length)
        labels, label_mask = None, None
        if self._has_sequence_labels:
            labels, label_mask = pad([self.labels[index] for index in planned.indices], planned.padded_length)
        elif self.labels is not None:
            labels = self.labels[planned.indices]
        return Batch(values, mask, labels, planned.indices, label_mask)

    def batches(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the padded batches of an epoch."""
        return (self.pad(planned) for planned in self.plan(epoch))

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def rows(self, outputs: Sequence[np.ndarray], epoch: int = 0) -> list[np.ndarray]:
        """Return one output for each example, in the order of the inputs, from one array for each batch.

        The rows of different batches may differ in shape, as attention weights over padded lengths do.

        Raises:
            ValueError: the number of outputs does not match the batches.
        """
        plan = self.plan(epoch)
        received = [len(output) for output in outputs]
        if received != [len(planned.indices) for planned in plan]:
            raise ValueError(
                f"`outputs` must hold one array for each of the {len(plan)} batches, with a row for each example. "
                f"Received: {len(received)} arrays of {sum(received)} rows for {len(self.sequences)} examples."
            )
        rows: list[Any] = [None] * len(self.sequences)
        for planned, output in zip(plan, outputs, strict=True):
            for index, row in zip(planned.indices, output, strict=True):
                rows[index] = np.asarray(row)
        return rows

    def restore(self, outputs: Sequence[np.ndarray], epoch: int = 0) -> np.ndarray:
        """Return the outputs (examples, ...) in the order of the inputs, from one array for each batch.

        Raises:
            ValueError: the rows differ in shape (use `rows`), or their number does not match the batches.
        """
        rows = self.rows(outputs, epoch)
        if len({row.shape for row in rows}) > 1:
            raise ValueError(
                f"`restore` needs outputs of one shape. Received: {sorted({row.shape for row in rows})}. Use `rows`."
            )
        return np.stack(rows) if rows else np.zeros((0,))
