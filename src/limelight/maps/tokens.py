"""The tokens of one text, where they lie in it, and the words that they make."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

# How tokenizers mark a piece that goes on with the word before it, and one that starts a new word.
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
        ValueError: another number of offsets than of tokens.

    Example:
        >>> tokens = Tokens(("un", "##believ", "##able", "story"))
        >>> [(word, list(places)) for word, places in tokens.words()]
        [('unbelievable', [0, 1, 2]), ('story', [3])]
    """

    pieces: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...] | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if self.offsets is not None and len(self.offsets) != len(self.pieces):
            raise ValueError(f"{len(self.pieces)} tokens need as many offsets. Received: {len(self.offsets)}.")

    @classmethod
    def of(cls, value: Any) -> "Tokens":
        """Tokens from a list of strings, or from an encoding of the `tokenizers` library.

        Raises:
            TypeError: a string, or something else than strings in the list.
        """
        if isinstance(value, Tokens):
            return value
        if hasattr(value, "tokens") and hasattr(value, "offsets"):
            return cls(tuple(value.tokens), tuple((int(a), int(b)) for a, b in value.offsets))
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise TypeError(f"Tokens must be a list of strings, such as ['a', 'story']. Received: {value!r}.")
        for piece in value:
            if not isinstance(piece, str):
                raise TypeError(f"Tokens must be strings. Received: {piece!r} of type {type(piece).__name__}.")
        return cls(tuple(value))

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: Any) -> Any:
        return self.pieces[index]

    def words(self) -> Iterator[tuple[str, range]]:
        """The words that the tokens make, each with the places of its tokens.

        With offsets, tokens that touch and stand between the same spaces of `text` make a word. Without, the marks of WordPiece
        ("##able"), SentencePiece ("▁story") and byte-level BPE ("Ġstory") tell; where there are none, each token is a word.
        """
        starts = [0, *(place for place in range(1, len(self)) if self._begins(place)), len(self)]
        for first, last in itertools.pairwise(starts):
            if last > first:
                yield self._joined(first, last), range(first, last)

    def _begins(self, place: int) -> bool:
        if self.offsets is not None:
            (_, before), (begin, end) = self.offsets[place - 1], self.offsets[place]
            letters = end > begin and self.offsets[place - 1][1] > self.offsets[place - 1][0]
            return begin != before or not letters or (self.text or "x" * end)[begin].isspace()
        if self._marked_starts:
            return self.pieces[place].startswith(_STARTS)
        return not self.pieces[place].startswith(_CONTINUES)

    @property
    def _marked_starts(self) -> bool:
        return any(piece.startswith(_STARTS) for piece in self.pieces)

    def _joined(self, first: int, last: int) -> str:
        if self.offsets is not None and self.text is not None and self.offsets[last - 1][1] > self.offsets[first][0]:
            return self.text[self.offsets[first][0] : self.offsets[last - 1][1]].strip()
        pieces = self.pieces[first:last]
        if self._marked_starts and self.offsets is None:
            return "".join(pieces).lstrip("".join(_STARTS))
        return pieces[0] + "".join(piece.removeprefix(_CONTINUES) for piece in pieces[1:])
