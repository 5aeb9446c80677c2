"""The tokens of a text, their places in it, and the words that they form."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

# How tokenizers mark a piece that continues a word, and one that starts a new word.
_CONTINUES = "##"
_STARTS = ("▁", "Ġ", "Ċ")


@dataclasses.dataclass(frozen=True)
class Tokens(Sequence[str]):
    """The tokens of one example: a sequence of strings.

    Args:
        pieces: the tokens.
        offsets: for each token where it begins and ends in `text`; (0, 0) for a token that is not in it.
        text: the text that the tokens were made from.

    Raises:
        ValueError: the number of offsets differs from that of tokens.

    Example:
        >>> tokens = Tokens(("un", "##believ", "##able", "story"))
        >>> [(word, list(indices)) for word, indices in tokens.words()]
        [('unbelievable', [0, 1, 2]), ('story', [3])]
    """

    pieces: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...] | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if self.offsets is not None and len(self.offsets) != len(self.pieces):
            raise ValueError(f"{len(self.pieces)} tokens need as many offsets. Received: {len(self.offsets)}.")

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: Any) -> Any:
        return self.pieces[index]

    def words(self) -> Iterator[tuple[str, range]]:
        """Merge the tokens into words, and yield each word with the indices of its tokens.

        With offsets, adjacent tokens of `text` without a space between them form a word. Without, the marks of WordPiece
        ("##able"), SentencePiece ("▁story") and byte-level BPE ("Ġstory") decide; without marks each token is a word.
        """
        starts = [0, *(index for index in range(1, len(self)) if self._starts_word(index)), len(self)]
        for start, stop in itertools.pairwise(starts):
            if stop > start:
                yield self._word(start, stop), range(start, stop)

    def _starts_word(self, index: int) -> bool:
        if self.offsets is not None:
            (previous_begin, previous_end), (begin, end) = self.offsets[index - 1], self.offsets[index]
            both_in_text = end > begin and previous_end > previous_begin
            return begin != previous_end or not both_in_text or (self.text or "x" * end)[begin].isspace()
        if self._has_start_marks:
            return self.pieces[index].startswith(_STARTS)
        return not self.pieces[index].startswith(_CONTINUES)

    @property
    def _has_start_marks(self) -> bool:
        return any(piece.startswith(_STARTS) for piece in self.pieces)

    def _word(self, start: int, stop: int) -> str:
        if self.offsets is not None and self.text is not None and self.offsets[stop - 1][1] > self.offsets[start][0]:
            return self.text[self.offsets[start][0] : self.offsets[stop - 1][1]].strip()
        pieces = self.pieces[start:stop]
        if self._has_start_marks and self.offsets is None:
            return "".join(pieces).lstrip("".join(_STARTS))
        return pieces[0] + "".join(piece.removeprefix(_CONTINUES) for piece in pieces[1:])


def as_tokens(value: Any) -> Tokens:
    """Convert a list of strings, or an encoding of the `tokenizers` library, to `Tokens`.

    Raises:
        TypeError: the value is a string, or a list with something else than strings.
    """
    if isinstance(value, Tokens):
        return value
    if hasattr(value, "tokens") and hasattr(value, "offsets"):
        return Tokens(tuple(value.tokens), tuple((int(begin), int(end)) for begin, end in value.offsets))
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"Tokens must be a list of strings, such as ['a', 'story']. Received: {value!r}.")
    for piece in value:
        if not isinstance(piece, str):
            raise TypeError(f"Tokens must be strings. Received: {piece!r} of type {type(piece).__name__}.")
    return Tokens(tuple(value))


def tokens_per_example(value: Any) -> tuple[Tokens, ...] | None:
    """Convert one list of tokens for each example, or those of the only example, to `Tokens`.

    Of documents, which have a list of lists each, the lists of all sentences follow each other.
    """
    if value is None:
        return None
    if _is_one_list(value):
        value = [value]
    elif are_nested(value):
        value = [sentence for document in value for sentence in document]
    return tuple(as_tokens(tokens) for tokens in value)


def are_nested(value: Any) -> bool:
    """Return True if tokens are those of documents: for each a list of sentences, which are lists of strings."""
    if _is_one_list(value) or not isinstance(value, Sequence):
        return False
    documents = [document for document in value if not _is_one_list(document)]
    return len(documents) == len(value) > 0 and any(_is_one_list(part) for document in documents for part in document)


def _is_one_list(value: Any) -> bool:
    is_list_of_strings = isinstance(value, Sequence) and bool(value) and isinstance(value[0], str)
    return isinstance(value, Tokens) or hasattr(value, "offsets") or is_list_of_strings
