"""Fonts that have the characters of a text, and visible replacements for characters without a glyph.

Matplotlib falls back from font to font for single characters, orders right-to-left scripts and joins Arabic letters (3.11 or
newer), but it does not choose the fonts: opening every installed font for each text would exceed the limit of open files.
"""

import functools
import logging
import unicodedata
from collections.abc import Iterable

from matplotlib import font_manager, get_data_path
from matplotlib.ft2font import FT2Font

_LOG = logging.getLogger("limelight.plot")

# Included in matplotlib. The last resort draws a box with the name of the script, without a warning for each character.
_DEFAULT = "DejaVu Sans"
_LAST_RESORT = "Last Resort High-Efficiency"

# Fonts made for reading, preferred to other installed fonts.
_PREFERRED = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Source Han Sans", "Hiragino Sans",
    "Yu Gothic", "Microsoft YaHei", "PingFang SC", "Malgun Gothic", "Apple SD Gothic Neo", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "IPAexGothic", "Arial Unicode MS", "Noto Sans",
)  # fmt: skip

_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "IDEOGRAPHIC")

_REPLACEMENTS = {"\n": "↵", "\r": "↵", "\t": "→"}

# Embeddings, overrides and isolates would change the order of the other tokens.
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

_advised_fonts: set[str] = set()


def families(texts: Iterable[str]) -> list[str]:
    """Return the font families that have the characters of these texts, for the `family` of matplotlib.

    If no installed font has a character, it is drawn as a box, and a warning in the log names the font to install, once for
    each font.
    """
    # Format characters and combining marks have no glyph of their own.
    characters = {c for text in texts for c in text if not c.isascii() and unicodedata.category(c) not in ("Cf", "Mn")}
    chosen = dict.fromkeys([_DEFAULT, *(_find_family(character) for character in sorted(characters))])
    installed = [family for family in chosen if family is not None]
    if len(installed) == len(chosen):
        return installed
    _advise([character for character in sorted(characters) if _find_family(character) is None])
    return [*installed, _LAST_RESORT]


def visible(text: object, max_length: int | None = None) -> str:
    r"""Return a text without control characters and lone surrogates, which are replaced by visible characters.

    Args:
        text: Any object; its `str` is used.
        max_length: Maximum number of characters; a longer text is cut and ends in "…".

    Example:
        >>> visible("a\nb"), visible("internationalisation", max_length=8)
        ('a↵b', 'interna…')
    """
    shown = "".join(_REPLACEMENTS.get(c, "\N{REPLACEMENT CHARACTER}") if _is_invisible(c) else c for c in str(text))
    return shown if max_length is None or len(shown) <= max_length else shown[: max_length - 1] + "…"


def is_right_to_left(text: str) -> bool | None:
    """Return True if the first character with a direction is right-to-left, or None if there is no such character."""
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return None


def display_width(text: str) -> int:
    """Return the width of a text in letters; East Asian wide characters count twice."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or character in _BIDI_CONTROLS


@functools.lru_cache(maxsize=4096)
def _find_family(character: str) -> str | None:
    """Return an installed family that has a character."""
    for family, path in _installed().items():
        try:
            if _open_font(*path).get_char_index(ord(character)):
                return family
        except (OSError, RuntimeError):  # FreeType cannot read the file
            continue
    return None


@functools.lru_cache(maxsize=32)
def _open_font(path: str, index: int) -> FT2Font:
    return FT2Font(path, face_index=index)


@functools.cache
def _installed() -> dict[str, tuple[str, int]]:
    """Return for each upright family its font file and face index, the preferred families first."""
    fonts: dict[str, tuple[str, int]] = {}
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: abs(_numeric_weight(entry.weight) - 400)):
        # The other fonts of matplotlib have symbols and formulas.
        is_symbol_font = entry.fname.startswith(get_data_path()) and entry.name != _DEFAULT
        if entry.style == "normal" and entry.size == "scalable" and not is_symbol_font and "Emoji" not in entry.name:
            fonts.setdefault(entry.name, (entry.fname, entry.index))
    preferred = [name for name in (_DEFAULT, *_PREFERRED) if name in fonts]
    return {name: fonts[name] for name in [*preferred, *sorted(fonts.keys() - set(preferred))]}


def _numeric_weight(weight: int | str) -> int:
    return weight if isinstance(weight, int) else font_manager.weight_dict.get(weight, 400)


def _advise(characters: list[str]) -> None:
    """Warn that no installed font has these characters, once for each font to install."""
    fonts: dict[str, list[str]] = {}
    for character in characters:
        is_cjk = unicodedata.name(character, "").split(" ")[0].split("-")[0] in _CJK
        font = "Noto Sans CJK (Debian: fonts-noto-cjk)" if is_cjk else "the Noto fonts (Debian: fonts-noto)"
        fonts.setdefault(font, []).append(character)
    for font, missing in fonts.items():
        if font in _advised_fonts:
            continue
        _advised_fonts.add(font)
        shown = ", ".join(f"U+{ord(character):04X}" for character in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        _LOG.warning("No installed font has %s%s: such characters are drawn as boxes. Install %s.", shown, more, font)
