"""Unicode: NFC with the offsets of each character in the original text, folded texts, scripts written without spaces."""

import re
import unicodedata

# The blocks of Han, Hiragana, Katakana, Thai, Lao, Khmer and Myanmar, as the inside of a character class that Python's `re`
# and the library `tokenizers` both read. Blocks rather than scripts: the Japanese long vowel mark belongs to no script.
SPACELESS = (
    "\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035"
    "\u3038-\u303c\u3041-\u3096\u3099-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f\U00016fe0-\U00016fff\U0001aff0-\U0001b16f"
    "\U00020000-\U0003ffff"
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_FOLDED_TOKEN = re.compile(rf"[{SPACELESS}]|[^\W{SPACELESS}]+|[^\w\s]")


def fold(text: str) -> list[str]:
    """Return the words, characters and punctuation marks of a text, without differences of case and white space.

    Texts that a `Tokenizer` converts to the same tokens have the same result, whatever its vocabulary. (The reverse holds
    but for words of more than 64 letters, and for case folding: "straße" and "strasse" are one.)

    Example:
        >>> fold("Don’t  STOP, 東京!") == fold("don't stop ,東 京!")
        True
    """
    composed = _SURROGATES.sub("\ufffd", unicodedata.normalize("NFC", text)).replace("\u2019", "'")
    return _FOLDED_TOKEN.findall(composed.casefold())


def fold_words(text: str) -> list[str]:
    """Return the same without punctuation marks and symbols; a text of nothing else is returned as `fold` returns it.

    Example:
        >>> fold_words("Good film!!"), fold_words(":-)")
        (['good', 'film'], [':', '-', ')'])
    """
    tokens = fold(text)
    return [token for token in tokens if token.isalnum() or "_" in token] or tokens


def compose(text: str) -> tuple[str, list[tuple[int, int]] | None]:
    """Normalize a text to NFC, and map each character of the result to the characters that it came from.

    Args:
        text: Any string.

    Returns:
        The text in NFC and, for each of its characters, the (start, end) in `text`; None instead of the list if nothing
        changed. A text that cannot be split into pieces that compose independently is returned unchanged.

    Example:
        >>> compose("e\\u0301a")
        ('éa', [(0, 2), (2, 3)])
    """
    if unicodedata.is_normalized("NFC", text):
        return text, None
    bounds = [index for index, character in enumerate(text) if index == 0 or not _may_compose(character)]
    pieces = [text[start:end] for start, end in zip(bounds, [*bounds[1:], len(text)], strict=True)]
    composed = [unicodedata.normalize("NFC", piece) for piece in pieces]
    result = "".join(composed)
    if result != unicodedata.normalize("NFC", text):
        return text, None
    offsets = [
        offset
        for start, before, after in zip(bounds, pieces, composed, strict=True)
        for offset in _map_offsets(start, len(before), len(after))
    ]
    return result, offsets


def _may_compose(character: str) -> bool:
    """Return True if a character may combine with the one before it: marks, and Hangul vowels and finals."""
    return unicodedata.category(character)[0] == "M" or "\u1160" <= character <= "\u11ff"


def _map_offsets(start: int, before: int, after: int) -> list[tuple[int, int]]:
    """Map `after` composed characters to the `before` characters from `start` on: one each, the last gets the rest.

    If composing made a piece longer, each of its characters maps to the whole piece.
    """
    if after > before:
        return [(start, start + before)] * after
    return [(start + i, start + (before if i == after - 1 else i + 1)) for i in range(after)]
