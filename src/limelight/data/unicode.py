"""Unicode NFC with the place of each character in the text before."""

import unicodedata


def compose(text: str) -> tuple[str, list[tuple[int, int]] | None]:
    """Bring a text to NFC, and say which characters of the text each character of the result stands for.

    Args:
        text: Any string.

    Returns:
        The text in NFC and, for each of its characters, the (start, end) in `text`; None in place of the list where
        nothing changed. A text that cannot be cut into pieces that compose on their own is returned as it is.

    Example:
        >>> compose("e\\u0301a")
        ('éa', [(0, 2), (2, 3)])
    """
    if unicodedata.is_normalized("NFC", text):
        return text, None
    bounds = [index for index, character in enumerate(text) if index == 0 or not _may_compose(character)]
    pieces = [text[start:end] for start, end in zip(bounds, [*bounds[1:], len(text)], strict=True)]
    composed = [unicodedata.normalize("NFC", piece) for piece in pieces]
    whole = "".join(composed)
    if whole != unicodedata.normalize("NFC", text):
        return text, None
    places = [
        place
        for start, before, after in zip(bounds, pieces, composed, strict=True)
        for place in _places(start, len(before), len(after))
    ]
    return whole, places


def _may_compose(character: str) -> bool:
    """Tell whether a character may join the one before it: marks, and the vowels and finals of Hangul."""
    return unicodedata.category(character)[0] == "M" or "\u1160" <= character <= "\u11ff"


def _places(start: int, before: int, after: int) -> list[tuple[int, int]]:
    """Share the `before` characters from `start` on among `after` composed ones: one each, and the last takes the rest.

    Where composing made a piece longer, each of its characters stands for the whole piece.
    """
    if after > before:
        return [(start, start + before)] * after
    return [(start + i, start + (before if i == after - 1 else i + 1)) for i in range(after)]
