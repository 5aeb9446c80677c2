"""Which installed fonts can show a text, and how text that cannot be shown is made visible.

Letters of right-to-left scripts are put in order, and Arabic ones joined, by matplotlib itself (3.11 or newer).
"""

import functools
import logging
import unicodedata
from collections.abc import Iterable

from matplotlib import font_manager, get_data_path
from matplotlib.ft2font import FT2Font

_LOG = logging.getLogger("limelight.plot")

# Matplotlib brings both along. The second draws a box that names the script, and so spares a warning for each letter.
_FIRST = "DejaVu Sans"
_LAST = "Last Resort High-Efficiency"

# Tried in this order before any other installed font, because they are made for reading.
_PREFERRED = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Source Han Sans", "Hiragino Sans",
    "Yu Gothic", "Microsoft YaHei", "PingFang SC", "Malgun Gothic", "Apple SD Gothic Neo", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "IPAexGothic", "Arial Unicode MS", "Noto Sans",
)  # fmt: skip

_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "IDEOGRAPHIC")

# Shown by the letters around them, not by themselves: joiners, variation selectors, combining marks.
_WITHOUT_SHAPE = ("Cf", "Mn")

_SIGNS = {"\n": "↵", "\r": "↵", "\t": "→"}

# Embeddings, overrides and isolates: with them a token could change the order in which its neighbours are read.
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

_told: set[str] = set()


def families(texts: Iterable[str]) -> list[str]:
    """Return the font families that show these texts, to be given to matplotlib as `family`.

    Where no installed font has a letter, the log says once for each script which font to install, and the letter is
    drawn as a box.
    """
    chosen = [_FIRST]
    for character in sorted({character for text in texts for character in text if not character.isascii()}):
        if unicodedata.category(character) in _WITHOUT_SHAPE:
            continue
        family = _family_with(character)
        if family is None:
            _tell(character)
            family = _LAST
        if family not in chosen:
            chosen.append(family)
    return sorted(chosen, key=_LAST.__eq__)


def visible(text: object, longest: int | None = None) -> str:
    r"""Return text that can be drawn: control characters and lone surrogates become signs; long text ends in "…".

    Args:
        text: Anything; `str` of it is shown.
        longest: Number of characters beyond which it is cut.

    Example:
        >>> visible("a\nb"), visible("internationalisation", longest=8)
        ('a↵b', 'interna…')
    """
    shown = "".join(_SIGNS.get(c, "\N{REPLACEMENT CHARACTER}") if _hidden(c) else c for c in str(text))
    return shown if longest is None or len(shown) <= longest else shown[: longest - 1] + "…"


def right_to_left(text: str) -> bool | None:
    """Return whether the first letter that has a direction runs from right to left; None where none has."""
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return None


def columns(text: str) -> int:
    """Return how many letters wide a text is; those of East Asia count twice."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _hidden(character: str) -> bool:
    """Return whether a character controls instead of being seen; those that turn the direction of text around do too."""
    return unicodedata.category(character) in ("Cc", "Cs") or character in _TURNS


@functools.lru_cache(maxsize=4096)
def _family_with(character: str) -> str | None:
    """Return an installed family that has a character."""
    for family, (path, index) in _installed().items():
        try:
            if _face(path, index).get_char_index(ord(character)):
                return family
        except (OSError, RuntimeError):  # a font file that FreeType cannot read
            continue
    return None


@functools.lru_cache(maxsize=32)
def _face(path: str, index: int) -> FT2Font:
    return FT2Font(path, face_index=index)


@functools.cache
def _installed() -> dict[str, tuple[str, int]]:
    """Return family to font file and face of what can be drawn upright, the preferred families first."""
    found: dict[str, tuple[str, int]] = {}
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: abs(_weight(entry.weight) - 400)):
        brought = entry.fname.startswith(get_data_path()) and entry.name != _FIRST  # fonts of symbols and formulas
        if entry.style == "normal" and entry.size == "scalable" and not brought and "Emoji" not in entry.name:
            found.setdefault(entry.name, (entry.fname, entry.index))
    first = [name for name in (_FIRST, *_PREFERRED) if name in found]
    return {name: found[name] for name in [*first, *sorted(found.keys() - set(first))]}


def _weight(weight: int | str) -> int:
    return weight if isinstance(weight, int) else font_manager.weight_dict.get(weight, 400)


def _tell(character: str) -> None:
    name = unicodedata.name(character, "UNKNOWN").split(" ")[0].split("-")[0]
    script = "CJK" if name in _CJK else name.capitalize()
    if script in _told:
        return
    _told.add(script)
    font = "Noto Sans CJK (Debian: fonts-noto-cjk)" if script == "CJK" else "the Noto fonts (Debian: fonts-noto)"
    _LOG.warning(
        "No installed font has the %s character U+%04X: such characters are drawn as boxes. To see them install %s.",
        script, ord(character), font,
    )  # fmt: skip
