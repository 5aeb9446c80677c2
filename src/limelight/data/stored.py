"""Sequences in a temporary file, for data that do not fit in memory."""

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

# Bytes that are collected before they are written.
_BUFFER = 1 << 22


class StoredList(Sequence[Any]):
    """A list whose elements lie in a temporary file; of each, memory holds its place alone (8 bytes).

    Elements are appended, then read in any order. The file has no name and goes with the list; `TMPDIR` says where it is.

    Args:
        encode: Converts an element to bytes.
        decode: Converts the bytes back.

    Example:
        >>> texts = StoredList(str.encode, bytes.decode)
        >>> texts.extend(["a film", "a good film"])
        >>> len(texts), texts[1], list(texts.take([1, 0]))
        (2, 'a good film', ['a good film', 'a film'])
    """

    def __init__(self, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]) -> None:
        self._encode, self._decode = encode, decode
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the list
        weakref.finalize(self, self._file.close)
        self._buffer = bytearray()
        self._written = 0
        self._ends = np.zeros(1024, np.int64)
        self._count = 0

    def append(self, element: Any) -> None:
        """Add an element at the end."""
        if self._count == len(self._ends):
            self._ends = np.concatenate([self._ends, np.zeros_like(self._ends)])
        self._buffer += self._encode(element)
        self._ends[self._count] = self._written + len(self._buffer)
        self._count += 1
        if len(self._buffer) >= _BUFFER:
            self.flush()

    def extend(self, elements: Any) -> None:
        """Add elements at the end."""
        for element in elements:
            self.append(element)

    def flush(self) -> None:
        """Write what is still in memory."""
        self._file.seek(self._written)
        self._file.write(self._buffer)
        self._file.flush()
        self._written += len(self._buffer)
        self._buffer.clear()

    @property
    def sizes(self) -> np.ndarray:
        """The number of bytes of each element, int64 (n,)."""
        return np.diff(self._ends[: self._count], prepend=0)

    def take(self, indices: Sequence[int] | np.ndarray) -> "StoredPart":
        """Return some elements, which stay in the file."""
        return StoredPart(self, np.asarray(indices, np.int64))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.take(range(*index.indices(self._count)))
        if not -self._count <= index < self._count:
            raise IndexError(f"The list has {self._count} elements. Received: index {index}.")
        if self._buffer:
            self.flush()
        index = int(index) % self._count
        start = int(self._ends[index - 1]) if index else 0
        # Unlike a memory map, this leaves nothing of the file in the process's memory.
        return self._decode(os.pread(self._file.fileno(), int(self._ends[index]) - start, start))


class StoredPart(Sequence[Any]):
    """Some elements of a `StoredList`, read when they are asked for.

    Args:
        elements: The list.
        indices: Which of its elements, int64 (n,).
    """

    def __init__(self, elements: StoredList, indices: np.ndarray) -> None:
        self.elements, self.indices = elements, indices

    def take(self, indices: Sequence[int] | np.ndarray) -> "StoredPart":
        """Return some of these elements."""
        return StoredPart(self.elements, self.indices[np.asarray(indices, np.int64)])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return (
            self.take(np.arange(len(self))[index]) if isinstance(index, slice) else self.elements[self.indices[index]]
        )

    def __iter__(self) -> Iterator[Any]:
        return (self.elements[index] for index in self.indices)


Stored = StoredList | StoredPart


def store_texts() -> StoredList:
    """Return an empty list of texts in a temporary file. Lone surrogates, which files cannot hold, are kept."""
    return StoredList(
        lambda text: text.encode("utf-8", "surrogatepass"), lambda content: content.decode("utf-8", "surrogatepass")
    )


def store_ids() -> StoredList:
    """Return an empty list of arrays of ids (length,), int32, in a temporary file."""
    return StoredList(lambda ids: np.asarray(ids, np.int32).tobytes(), lambda content: np.frombuffer(content, np.int32))
