"""Read pretrained word vectors from a text file of word2vec, GloVe or fastText."""

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from limelight.data import textfiles
from limelight.data.tables import is_number
from limelight.exceptions import DataError


def load_vectors(path: str | os.PathLike[str], words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read the vectors of some words; the file is read line by line, and no other vector is kept.

    Each line holds a word and its numbers, separated by spaces. A first line with the number of words and the width is skipped.
    A word in lower case is preferred to one with capitals.

    Args:
        path: A text file in UTF-8, also compressed by gzip or zip.
        words: The words to find, in lower case.

    Returns:
        The vectors, float32 (words, width), 0 for a word that the file lacks; and whether each word was found, bool (words,).

    Raises:
        DataError: The file cannot be read, or a line has another width.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> _ = Path(folder.name, "glove.txt").write_text("the 0.5 1\\nfilm 2 -1\\n")
        >>> vectors, found = load_vectors(f"{folder.name}/glove.txt", ["film", "plot"])
        >>> vectors.tolist(), found.tolist()
        ([[2.0, -1.0], [0.0, 0.0]], [True, False])
        >>> folder.cleanup()
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{str(path)!r} must be a file of word vectors. There is none. Check the path.")
    width = _find_width(path)
    rows = {word: row for row, word in enumerate(words)}
    vectors, found, exact = np.zeros((len(words), width), np.float32), np.zeros(len(words), bool), set()
    for number, word, values in _iterate(path, width):
        row = rows.get(word.lower())
        if row is None or row in exact or (found[row] and not word.islower()):
            continue
        try:
            vectors[row] = [float(value) for value in values]
        except ValueError as error:
            raise DataError(f"Line {number} of {str(path)!r} must hold a word and {width} numbers. {error}.") from error
        found[row] = True
        if word == word.lower():
            exact.add(row)
    return vectors, found


def _find_width(path: Path) -> int:
    """Return the width of the vectors: that of the header, or the number of numbers that end the first line."""
    try:
        line = next(textfiles.iterate_lines(path), "").split()
    except (*textfiles.READ_ERRORS, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} must be a text file of word vectors. It cannot be read: {error}") from error
    if len(line) == 2 and all(field.isdecimal() for field in line):
        return int(line[1])
    width = len(list(itertools.takewhile(is_number, reversed(line[1:]))))
    if width < 1:
        raise DataError(
            f"{str(path)!r} must hold a word and its numbers on each line. Received: {' '.join(line)[:60]!r}."
        )
    return width


def _iterate(path: Path, width: int) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the number of each line, its word and its numbers as text."""
    try:
        for number, line in enumerate(textfiles.iterate_lines(path), start=1):
            # A word of GloVe may hold spaces itself.
            word, *values = line.rstrip().rsplit(" ", width)
            if len(values) == width:
                yield number, word, values
            elif line.strip() and not (number == 1 and len(line.split()) == 2):
                raise DataError(
                    f"Line {number} of {str(path)!r} must hold a word and {width} numbers. Received: {len(values)} numbers."
                )
    except (*textfiles.READ_ERRORS, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} must be a text file of word vectors. It cannot be read: {error}") from error
