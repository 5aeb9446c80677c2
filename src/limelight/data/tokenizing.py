"""Texts to word ids, with the place of each token in the text."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from limelight import _files
from limelight.data.errors import DataError
from limelight.data.unicode import compose

PADDING, UNKNOWN = 0, 1
_FORMAT = "limelight.tokenizer"
_VERSION = 1
_MAXIMUM_FILE = 64 * 2**20
_AT_ONCE = 1000
_SURROGATES = re.compile("[\ud800-\udfff]")

# A token is, first match wins: one character of a script that is written without spaces, with its marks; a word of at
# most 64 letters, digits and marks, perhaps with an apostrophe inside ("don't"); or any other one character as a reader
# sees it (a grapheme: an emoji with all its parts, a punctuation mark). The bounds keep every token short, whatever comes.
_SPACELESS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
_WORD = r"[\p{L}\p{M}\p{N}_\x{200C}\x{200D}]{1,64}(?:'[\p{L}\p{M}]{1,16})?"
# What Python takes for white space and the expression's \s does not.
_SEPARATORS = r"\x{1C}-\x{1F}"
_TOKEN = rf"{_SPACELESS}|{_WORD}|(?![\s{_SEPARATORS}])\X"


@dataclass(frozen=True, eq=False, repr=False)
class Encoding:
    """A text as token ids.

    Args:
        ids: The tokens' ids, int32 (length,); 1 is a word that the vocabulary lacks, 0 (padding) never occurs.
        spans: The characters of the text that each token spans, int32 (length, 2).
        text: The text.
        truncated: How many tokens were cut off the end.
    """

    ids: np.ndarray
    spans: np.ndarray
    text: str
    truncated: int = 0

    @property
    def offsets(self) -> tuple[tuple[int, int], ...]:
        """The characters that each token spans: `text[start:end]`."""
        return tuple((start, end) for start, end in self.spans.tolist())

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens as they stand in the text."""
        return tuple(self.text[start:end] for start, end in self.spans.tolist())

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        shown = " ".join(self.text[start:end] for start, end in self.spans[:8].tolist()) + (
            " …" if len(self) > 8 else ""
        )
        return f"Encoding({len(self)} tokens, {self.truncated} truncated: {shown[:80]!r})"


class Tokenizer:
    """Lower-cased words and punctuation marks, numbered by their frequency.

    Id 0 is padding and 1 any unknown word; the vocabulary follows from 2 on. Unicode forms (NFC) and curly apostrophes are
    evened out first. Scripts written without spaces are cut into characters, an emoji stays whole.

    Args:
        words: The vocabulary, most frequent first, as tokens come out of the text (lower case).

    Raises:
        ValueError: a word occurs twice, or is not a token (it holds white space or is empty).
        ImportError: `tokenizers` is not installed.

    Example:
        >>> tokenizer = Tokenizer.train(["A good film.", "Not a good film!"])
        >>> tokenizer.words
        ('a', 'film', 'good')
        >>> encoding = tokenizer.encode(["Good, it's a film"])[0]
        >>> encoding.ids.tolist(), encoding.tokens
        ([4, 1, 1, 2, 3], ('Good', ',', "it's", 'a', 'film'))
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        vocabulary = {word: index for index, word in enumerate(self.words, start=2)}
        if len(vocabulary) != len(self.words):
            raise ValueError(f"`words` must all differ. Received: {len(self.words)} with {len(vocabulary)} different.")
        impossible = next((word for word in self.words if word.split() != [word] or _clean(word) != word), None)
        if impossible is not None:
            raise ValueError(
                f"`words` must be tokens, without white space or lone surrogates. Received: {impossible[:60]!r}. Take them "
                f"from `Tokenizer.words`."
            )
        # No token of a text holds a space, so these two can never be met in a text, as "[UNK]" could.
        self._tokenizer = _pipeline({"[ padding ]": PADDING, "[ unknown ]": UNKNOWN, **vocabulary})

    @classmethod
    def train(cls, texts: Iterable[str], *, size: int = 20_000, minimum: int = 2) -> "Tokenizer":
        """Take the vocabulary from texts: those of the train part, so that the test part stays unseen.

        Args:
            texts: Strings.
            size: The largest number of ids, padding and unknown among them.
            minimum: How often a word must occur to get an id.

        Raises:
            ValueError: `size` is below 3.
            ImportError: `tokenizers` is not installed.
        """
        if size < 3:
            raise ValueError(f"`size` must be at least 3 (padding, unknown and one word). Received: {size}.")
        trainers = _tokenizers().trainers
        tokenizer = _pipeline({"[ unknown ]": 0})
        # Special tokens would be matched inside the users' texts: there are none, and the two fixed ids are put in front.
        trainer = trainers.WordLevelTrainer(
            vocab_size=size - 2, min_frequency=minimum, show_progress=False, special_tokens=[]
        )
        tokenizer.train_from_iterator((compose(_clean(text))[0] for text in _texts(texts)), trainer)
        vocabulary = tokenizer.get_vocab()
        # A few signs take the space after them in, as one grapheme: these stay unknown.
        words = [word for word in vocabulary if word.split() == [word]]
        return cls(sorted(words, key=vocabulary.__getitem__))

    @property
    def size(self) -> int:
        """The number of ids: one more than the largest."""
        return len(self.words) + 2

    def encode(self, texts: Iterable[str], length: int | None = None) -> list[Encoding]:
        """Turn texts into ids.

        Args:
            texts: Any strings; lone surrogates count as U+FFFD.
            length: The most tokens that are kept of a text, or None for all.

        Returns:
            An `Encoding` for each text; `truncated` says how many tokens were cut off.

        Raises:
            ValueError: `length` is not positive.
            TypeError: `texts` is one string.
        """
        if length is not None and length < 1:
            raise ValueError(f"`length` must be positive, or None for all tokens. Received: {length}.")
        cleaned = [_clean(text) for text in _texts(texts)]
        # In parts: what the library returns takes many times the memory of what is kept of it.
        parts = (cleaned[start : start + _AT_ONCE] for start in range(0, len(cleaned), _AT_ONCE))
        return [encoding for part in parts for encoding in self._encode(part, length)]

    def _encode(self, texts: list[str], length: int | None) -> Iterator[Encoding]:
        """Encode clean texts."""
        # The library's own NFC loses the place of combining marks.
        composed = [compose(text) for text in texts]
        found = self._tokenizer.encode_batch([text for text, _ in composed])
        for text, (_, places), whole in zip(texts, composed, found, strict=True):
            ids = np.array(whole.ids, dtype=np.int32)
            kept = ids[:length].copy()
            spans = np.array(whole.offsets[: len(kept)], dtype=np.int32).reshape(-1, 2)
            if places is not None:
                spans = np.array([(places[start][0], places[end - 1][1]) for start, end in spans], np.int32).reshape(
                    -1, 2
                )
            yield Encoding(kept, spans, text, len(ids) - len(kept))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokenizer to a JSON file, whole or not at all."""
        _files.write_json(path, {"format": _FORMAT, "version": _VERSION, "words": list(self.words)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """Read what `save` wrote.

        Raises:
            DataError: there is no such file, or it is not a whole tokenizer file of this format.
        """
        path = Path(path)
        must = f"{str(path)!r} must be a tokenizer file that `Tokenizer.save` wrote"
        try:
            if path.stat().st_size > _MAXIMUM_FILE:
                raise DataError(f"{must}. It is larger than {_MAXIMUM_FILE >> 20} MiB. Train and save it again.")
            document = json.loads(path.read_bytes())
        except OSError as error:
            raise DataError(f"{must}. {error.strerror or error}. Give the path of one.") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{must}. It is not whole JSON ({error}). Train and save it again.") from error
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise DataError(f"{must}. It is JSON of another kind. Give the path of one.")
        if document.get("version") != _VERSION:
            raise DataError(
                f"{must}, version {_VERSION}. Received: version {document.get('version')!r}. Train it again."
            )
        words = document.get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise DataError(f"{must}. Its `words` are not a list of strings. Train and save it again.")
        try:
            return cls(words)
        except ValueError as error:
            raise DataError(f"{must}. {error}") from error


def _tokenizers() -> Any:
    """Import `tokenizers`, or say how to install it."""
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "Tokenizer needs `tokenizers`. It is not installed. Run: pip install 'limelight[study]'"
        ) from error
    return tokenizers


def _pipeline(vocabulary: dict[str, int]) -> Any:
    """Build the tokenizer: normalise, drop white space, cut into tokens, look up."""
    library = _tokenizers()
    tokenizer = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token="[ unknown ]"))
    tokenizer.normalizer = library.normalizers.Sequence(
        [library.normalizers.Replace("\u2019", "'"), library.normalizers.Lowercase()]
    )
    # Inverted: what matches is kept, and what lies between, the white space, removed.
    tokenizer.pre_tokenizer = library.pre_tokenizers.Split(library.Regex(_TOKEN), behavior="removed", invert=True)
    return tokenizer


def _clean(text: str) -> str:
    """Replace lone surrogates, which no encoding can hold, one for one: offsets stay true."""
    return _SURROGATES.sub("\ufffd", text)


def _texts(texts: Iterable[str]) -> Iterable[str]:
    """Refuse a single string, which would be read as a list of characters."""
    if isinstance(texts, str):
        raise TypeError("`texts` must be a list of strings. Received: one string. Put it into a list.")
    return texts
