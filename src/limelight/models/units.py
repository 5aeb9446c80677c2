"""Units of texts that are translated: words, characters or subwords, which restore the text."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from limelight._optional import import_optional
from limelight.models.translation import END

KINDS = ("word", "character", "subword")
NUM_SPECIAL = END + 1
UNKNOWN = 1


class Units:
    """The units of one side of a translation, as ids.

    Texts are read in Unicode NFC. Words are what white space separates, and are joined by spaces; characters and subwords (BPE on
    bytes) restore a text exactly.

    Args:
        kind: "word", "character" or "subword".
        pieces: The words or characters, most frequent first; for subwords the tokenizer of `tokenizers` as JSON.

    Example:
        >>> units = Units.fit("word", ["jump twice", "jump left"], 10)
        >>> units.encode("jump right twice").tolist(), units.decode([4, 6])
        ([4, 1, 5], 'jump left')
    """

    def __init__(self, kind: str, pieces: Any) -> None:
        if kind not in KINDS:
            raise ValueError(f'A unit must be "word", "character" or "subword". Received: {kind!r}.')
        self.kind, self.pieces = kind, pieces
        self._ids: dict[str, int] = {}
        self._tokenizer: Any = None
        if kind == "subword":
            self._tokenizer = import_optional("tokenizers").Tokenizer.from_str(pieces)
            self.size = NUM_SPECIAL + self._tokenizer.get_vocab_size()
        else:
            self._ids = {piece: index for index, piece in enumerate(pieces, start=NUM_SPECIAL)}
            self.size = NUM_SPECIAL + len(pieces)

    @classmethod
    def fit(cls, kind: str, texts: Iterable[str], vocabulary: int) -> Self:
        """Learn at most `vocabulary` units from texts."""
        if kind != "subword":
            counts = Counter(piece for text in texts for piece in _split(kind, compose(text)))
            return cls(kind, [piece for piece, _ in counts.most_common(vocabulary)])
        library = import_optional("tokenizers")
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        alphabet = library.pre_tokenizers.ByteLevel.alphabet()
        trainer = library.trainers.BpeTrainer(vocab_size=vocabulary, show_progress=False, initial_alphabet=alphabet)
        tokenizer.train_from_iterator(map(compose, texts), trainer)
        return cls(kind, tokenizer.to_str())

    def split(self, text: str) -> list[str]:
        """Return the units of a text, as written."""
        text = compose(text)
        if self._tokenizer is None:
            return _split(self.kind, text)
        return [text[start:end] for start, end in self._tokenizer.encode(text).offsets]

    def encode(self, text: str) -> np.ndarray:
        """Return the ids of a text, int32 (length,); 1 is an unknown unit, and an empty text is one."""
        text = compose(text)
        if self._tokenizer is not None:
            ids = [index + NUM_SPECIAL for index in self._tokenizer.encode(text).ids]
        else:
            ids = [self._ids.get(piece, UNKNOWN) for piece in _split(self.kind, text)]
        return np.array(ids or [UNKNOWN], np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without the special ones."""
        kept = [int(index) - NUM_SPECIAL for index in ids if index >= NUM_SPECIAL]
        if self._tokenizer is not None:
            return self._tokenizer.decode(kept)
        return (" " if self.kind == "word" else "").join(self.pieces[index] for index in kept)

    def pieces_of(self, ids: Sequence[int]) -> list[str]:
        """Return each unit of ids without special ones, as written in a text of them."""
        if self._tokenizer is None:
            return [self.pieces[int(index) - NUM_SPECIAL] for index in ids]
        return [self.decode([index]) for index in ids]

    def to_dict(self) -> dict[str, Any]:
        """Return the kind and the pieces."""
        return {"kind": self.kind, "pieces": self.pieces}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Return the units that `to_dict` described."""
        return cls(document["kind"], document["pieces"])


def compose(text: str) -> str:
    """Return a text in Unicode NFC, so that a letter with a mark is one character, however it was typed."""
    return unicodedata.normalize("NFC", text)


def _split(kind: str, text: str) -> list[str]:
    return text.split() if kind == "word" else list(text)
