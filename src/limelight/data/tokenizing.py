"""Convert texts to word ids, with the offsets of each token in the text."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from limelight import _files
from limelight.data.unicode import SPACELESS, compose
from limelight.exceptions import DataError

PADDING, UNKNOWN = 0, 1
_FORMAT = "limelight.tokenizer"
_VERSION = 1
_MAX_FILE_BYTES = 64 * 2**20
_CHUNK = 1000
_SURROGATES = re.compile("[\ud800-\udfff]")

# A token is, first match wins: one character of a script that is written without spaces, with its marks; a word of at
# most 64 letters, digits and marks of other scripts, optionally with an apostrophe inside ("don't"); or any other grapheme
# (an emoji with all its parts, a punctuation mark). The limits keep every token short, whatever the text.
_SPACELESS = rf"[{SPACELESS}]\p{{M}}*"
_LETTERS = rf"[\p{{L}}\p{{M}}&&[^{SPACELESS}]]"
_WORD = rf"[\p{{L}}\p{{M}}\p{{N}}_\x{{200C}}\x{{200D}}&&[^{SPACELESS}]]{{1,64}}(?:'{_LETTERS}{{1,16}})?"
# White space for Python that \s does not match.
_SEPARATORS = r"\x{1C}-\x{1F}"
_TOKEN = rf"{_SPACELESS}|{_WORD}|(?![\s{_SEPARATORS}])\X"


@dataclass(frozen=True, eq=False, repr=False)
class Encoding:
    """A text as token ids.

    Args:
        ids: The tokens' ids, int32 (length,); 1 is a word outside the vocabulary, 0 (padding) never occurs.
        spans: The start and end of each token in the text, int32 (length, 2).
        text: The text.
        truncated: The number of tokens that were cut off at the end.
    """

    ids: np.ndarray
    spans: np.ndarray
    text: str
    truncated: int = 0

    @property
    def offsets(self) -> tuple[tuple[int, int], ...]:
        """The start and end of each token: `text[start:end]`."""
        return tuple((start, end) for start, end in self.spans.tolist())

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens as written in the text."""
        return tuple(self.text[start:end] for start, end in self.spans.tolist())

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        shown = " ".join(self.text[start:end] for start, end in self.spans[:8].tolist()) + (
            " …" if len(self) > 8 else ""
        )
        return f"Encoding({len(self)} tokens, {self.truncated} truncated: {shown[:80]!r})"


class Tokenizer:
    """A word-level tokenizer: lower-cased words and punctuation marks, numbered by frequency.

    Id 0 is padding and 1 any unknown word; the vocabulary starts at 2. Texts are normalized first (Unicode NFC, straight
    apostrophes). Scripts written without spaces are split into characters, also beside a digit or a Latin letter; an emoji
    stays whole.

    Args:
        words: The vocabulary in lower case, most frequent first.

    Raises:
        ValueError: a word occurs twice, is empty, or contains white space.
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
        invalid = next((word for word in self.words if word.split() != [word] or _clean(word) != word), None)
        if invalid is not None:
            raise ValueError(
                f"`words` must be tokens, without white space or lone surrogates. Received: {invalid[:60]!r}. Use "
                f"those of `Tokenizer.words`."
            )
        # No token of a text contains a space, so these two cannot occur in a text, unlike "[UNK]".
        self._tokenizer = _build_tokenizer({"[ padding ]": PADDING, "[ unknown ]": UNKNOWN, **vocabulary})

    @classmethod
    def train(cls, texts: Iterable[str], *, size: int = 20_000, minimum: int = 2) -> "Tokenizer":
        """Build the vocabulary from texts: those of the train part, so that the test part stays unseen.

        Args:
            texts: Strings.
            size: The maximum number of ids, including padding and unknown.
            minimum: The minimum number of occurrences of a word.

        Raises:
            ValueError: `size` is below 3.
            ImportError: `tokenizers` is not installed.
        """
        if size < 3:
            raise ValueError(f"`size` must be at least 3 (padding, unknown and one word). Received: {size}.")
        trainers = _tokenizers().trainers
        tokenizer = _build_tokenizer({"[ unknown ]": 0})
        # Special tokens would be matched inside the users' texts: there are none, and the two fixed ids are added in front.
        trainer = trainers.WordLevelTrainer(
            vocab_size=size - 2, min_frequency=minimum, show_progress=False, special_tokens=[]
        )
        tokenizer.train_from_iterator((compose(_clean(text))[0] for text in _check_texts(texts)), trainer)
        vocabulary = tokenizer.get_vocab()
        # A few signs form one grapheme with the space after them: these stay unknown.
        words = [word for word in vocabulary if word.split() == [word]]
        return cls(sorted(words, key=vocabulary.__getitem__))

    @property
    def size(self) -> int:
        """The number of ids: one more than the largest."""
        return len(self.words) + 2

    def encode(self, texts: Iterable[str], length: int | None = None) -> list[Encoding]:
        """Convert texts to ids.

        Args:
            texts: Any strings; lone surrogates become U+FFFD.
            length: The maximum number of tokens of a text, or None for all.

        Returns:
            An `Encoding` for each text; its `truncated` is the number of tokens that were cut off. A blank text becomes one
            unknown token, so that any text can be predicted.

        Raises:
            ValueError: `length` is not positive.
            TypeError: `texts` is one string.
        """
        if length is not None and length < 1:
            raise ValueError(f"`length` must be positive, or None for all tokens. Received: {length}.")
        cleaned = [_clean(text) for text in _check_texts(texts)]
        # In chunks: the library's encodings take many times the memory of ours.
        chunks = (cleaned[start : start + _CHUNK] for start in range(0, len(cleaned), _CHUNK))
        return [encoding for chunk in chunks for encoding in self._encode(chunk, length)]

    def _encode(self, texts: list[str], length: int | None) -> Iterator[Encoding]:
        """Encode texts without lone surrogates."""
        # The library's own NFC loses the offsets of combining marks.
        composed = [compose(text) for text in texts]
        encodings = self._tokenizer.encode_batch([text for text, _ in composed])
        for text, (_, offsets), encoding in zip(texts, composed, encodings, strict=True):
            ids = np.array(encoding.ids[:length], dtype=np.int32)
            spans = encoding.offsets[:length]
            if offsets is not None:
                spans = [(offsets[start][0], offsets[end - 1][1]) for start, end in spans]
            truncated = len(encoding.ids) - len(ids)
            if not len(ids):
                # A sequence must not be empty: a blank text is one unknown token.
                ids, spans = np.array([UNKNOWN], dtype=np.int32), [(0, 0)]
            yield Encoding(ids, np.array(spans, dtype=np.int32).reshape(-1, 2), text, truncated)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokenizer to a JSON file, atomically."""
        _files.write_json(path, {"format": _FORMAT, "version": _VERSION, "words": list(self.words)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """Read a tokenizer that `save` wrote.

        Raises:
            DataError: the file is missing, or is not a complete tokenizer file of this version.
        """
        path = Path(path)
        requirement = f"{str(path)!r} must be a tokenizer file that `Tokenizer.save` wrote"
        try:
            if path.stat().st_size > _MAX_FILE_BYTES:
                raise DataError(
                    f"{requirement}. It is larger than {_MAX_FILE_BYTES >> 20} MiB. Train and save it again."
                )
            document = json.loads(path.read_bytes())
        except OSError as error:
            raise DataError(f"{requirement}. {error.strerror or error}. Give the path of a tokenizer.") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{requirement}. It is not complete JSON ({error}). Train and save it again.") from error
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise DataError(f"{requirement}. It is another JSON document. Give the path of a tokenizer.")
        if document.get("version") != _VERSION:
            raise DataError(
                f"{requirement}, version {_VERSION}. Received: version {document.get('version')!r}. Train it again."
            )
        words = document.get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise DataError(f"{requirement}. Its `words` are not a list of strings. Train and save it again.")
        try:
            return cls(words)
        except ValueError as error:
            raise DataError(f"{requirement}. {error}") from error


def _tokenizers() -> Any:
    """Import `tokenizers`; an error names the command that installs it."""
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "Tokenizer needs `tokenizers`. It is not installed. Run: pip install 'limelight[study]'"
        ) from error
    return tokenizers


def _build_tokenizer(vocabulary: dict[str, int]) -> Any:
    """Build the tokenizer: normalize, split into tokens without white space, look up."""
    library = _tokenizers()
    tokenizer = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token="[ unknown ]"))
    tokenizer.normalizer = library.normalizers.Sequence(
        [library.normalizers.Replace("\u2019", "'"), library.normalizers.Lowercase()]
    )
    # Inverted: matches are kept, and the white space between them is removed.
    tokenizer.pre_tokenizer = library.pre_tokenizers.Split(library.Regex(_TOKEN), behavior="removed", invert=True)
    return tokenizer


def _clean(text: str) -> str:
    """Replace lone surrogates, which cannot be encoded, one for one: offsets stay valid."""
    return _SURROGATES.sub("\ufffd", text)


def _check_texts(texts: Iterable[str]) -> Iterable[str]:
    """Raise for a single string, which would be read as a list of characters."""
    if isinstance(texts, str):
        raise TypeError("`texts` must be a list of strings. Received: one string. Put it in a list.")
    return texts
