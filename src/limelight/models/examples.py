"""Examples of a task, padded and batched for a Keras model."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from limelight.data import pad, padded_length
from limelight.data.stored import StoredList


class Examples(Protocol):
    """The examples that a model is trained or evaluated on.

    Attributes:
        lengths: For each example the length that it is padded to, int64 (n,); examples of equal length share batches.
    """

    lengths: np.ndarray

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def batch(self, indices: np.ndarray, length: int) -> tuple[Any, Any, np.ndarray]:
        """Return the inputs, targets and weights of some examples, padded to `length`, as Keras takes them."""
        ...


class Sequences:
    """Sequences with one target each: token ids, or series with a mask.

    Args:
        sequences: Ids (length,), also from `limelight.data.stored.store_ids`, or series (length, channels).
        targets: One target for each sequence (n, ...); zeros when not given, for prediction.
        weights: The weight of each example in the loss (n,); 1 when not given.
    """

    def __init__(self, sequences: Sequence[Any], targets: Any = None, weights: Any = None) -> None:
        self.sequences = sequences
        self.targets = np.zeros(len(sequences)) if targets is None else np.asarray(targets)
        self.weights = np.ones(len(sequences), np.float32) if weights is None else np.asarray(weights, np.float32)
        if isinstance(sequences, StoredList):
            # Reading every sequence for its length would take as long as encoding them; an id has 4 bytes.
            sizes, inverse = np.unique(sequences.sizes // 4, return_inverse=True)
            self.lengths = np.array([padded_length(size) for size in sizes], np.int64)[inverse]
        else:
            self.lengths = np.array([padded_length(len(sequence)) for sequence in sequences], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.sequences)

    def batch(self, indices: np.ndarray, length: int) -> tuple[Any, np.ndarray, np.ndarray]:
        """Return ids (B, T), or a dictionary of `steps` (B, T, C) and `mask` (B, T); the targets; and the weights (B,)."""
        values, mask = pad([self.sequences[index] for index in indices], length)
        inputs = values if values.ndim == 2 else {"steps": values, "mask": mask}
        return inputs, self.targets[indices], self.weights[indices]


class Documents:
    """Documents of sentences of words, with one target each.

    Args:
        documents: For each document its sentences, each of them ids (length,).
        targets, weights: As in `Sequences`.
        max_words: Largest length of a sentence, to which all are padded: one shape for all documents of one length.
    """

    def __init__(
        self, documents: Sequence[Sequence[Any]], targets: Any = None, weights: Any = None, max_words: int = 32
    ) -> None:
        self.documents = documents
        self.targets = np.zeros(len(documents)) if targets is None else np.asarray(targets)
        self.weights = np.ones(len(documents), np.float32) if weights is None else np.asarray(weights, np.float32)
        # The grid of lengths begins at 16; many documents have fewer sentences.
        self.lengths = np.array([_padded_sentences(len(document)) for document in documents], dtype=np.int64)
        self.max_words = max_words

    def __len__(self) -> int:
        return len(self.documents)

    def batch(self, indices: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ids (B, sentences, words), the targets, and the weights (B,)."""
        ids = np.zeros((len(indices), length, self.max_words), np.int32)
        for row, index in enumerate(indices):
            for position, sentence in enumerate(self.documents[index]):
                ids[row, position, : len(sentence)] = sentence
        return ids, self.targets[indices], self.weights[indices]


def _padded_sentences(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length() if count < 16 else padded_length(count)
