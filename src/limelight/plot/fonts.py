"""Which installed fonts can show a text, and how text that cannot be shown is made visible."""

import functools
import logging
import unicodedata
from collections.abc import Iterable

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

_LOG = logging.getLogger("limelight.plot")

# Matplotlib brings this family along, so that it is always there.
_FIRST = "DejaVu Sans"

# Tried in this order before any other installed font, because they are made for reading.
_PREFERRED = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Source Han Sans", "Hiragino Sans", "Yu Gothic",
    "Microsoft YaHei", "PingFang SC", "Malgun Gothic", "Apple SD Gothic Neo", "WenQuanYi Zen Hei", "IPAexGothic",
    "Arial Unicode MS", "Noto Sans",
)  # fmt: skip

_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "IDEOGRAPHIC")

_told: set[str] = set()


@functools.cache
def _characters(path: str, index: int = 0) -> frozenset[int]:
    return frozenset(FT2Font(path, face_index=index).get_charmap()) if index else frozenset(FT2Font(path).get_charmap())


@functools.cache
def _installed() -> dict[str, str]:
    """Return family to file of the upright regular fonts, the preferred ones first."""
    found: dict[str, str] = {}
    for entry in font_manager.fontManager.ttflist:
        if entry.style == "normal" and entry.weight in (400, "normal", "regular", "book"):
            found.setdefault(entry.name, entry.fname)
    first = [name for name in _PREFERRED if name in found]
    return {name: found[name] for name in [*first, *sorted(found.keys() - set(first))]}


@functools.cache
def _family_with(character: str) -> str | None:
    """Return an installed family that has a character."""
    for family, path in _installed().items():
        try:
            if ord(character) in _characters(path):
                return family
        except (OSError, RuntimeError):  # a font file that FreeType cannot read
            continue
    return None


def families(texts: Iterable[str]) -> list[str]:
    """Return the font families that show these texts, to be given to matplotlib as `family`.

    A character that no installed font has is told once for each script, with the font to install; it is drawn as a box.
    """
    basic = _characters(font_manager.findfont(_FIRST))
    chosen = [_FIRST]
    for character in sorted(
        {c for text in texts for c in text if ord(c) not in basic and unicodedata.category(c) not in ("Cf", "Mn")}
    ):
        family = _family_with(character)
        if family is None:
            _tell(character)
        elif family not in chosen:
            chosen.append(family)
    return chosen


def _tell(character: str) -> None:
    name = unicodedata.name(character, "an unnamed character").split(" ")[0]
    script = "CJK" if name in _CJK else name
    if script not in _told:
        _told.add(script)
        package = "Noto Sans CJK (Debian: fonts-noto-cjk)" if script == "CJK" else "the Noto fonts (Debian: fonts-noto)"
        _LOG.warning(
            "No installed font has %s characters such as U+%04X: they are drawn as boxes. Install %s.",
            script, ord(character), package,
        )  # fmt: skip


def visible(text: object, longest: int | None = None) -> str:
    """Return text that can be drawn: control characters and lone surrogates become signs, and long text ends in "…".

    Example:
        >>> visible("a\\nb"), visible("internationalisation", longest=8)
        ('a↵b', 'interna…')
    """
    signs = {"\n": "↵", "\t": "→", "\r": "↵"}
    shown = "".join(
        signs.get(c, "\N{REPLACEMENT CHARACTER}") if unicodedata.category(c) in ("Cc", "Cs") else c for c in str(text)
    )
    return shown if longest is None or len(shown) <= longest else shown[: longest - 1] + "…"


def right_to_left(text: str) -> bool | None:
    """Return whether the first letter with a direction runs from right to left; None where there is none."""
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return None
