"""HTML that cannot be broken out of: every string is escaped unless this module made it."""

import html
import json
import math
import re
from typing import Any

import numpy as np

# What HTML cannot hold as text: controls other than tab and line ends, and halves of a surrogate pair.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
# In a script element `<` can open `<!--` or `</script`, `>` and `&` matter to XML; U+2028 and U+2029 end a line in old scripts.
_JSON_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
_VOID = frozenset({"br", "col", "img", "input", "meta", "link"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: Any) -> Markup:
    """`value` as HTML text, with what HTML cannot hold replaced by U+FFFD; `Markup` stays as it is."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_UNPRINTABLE.sub("\ufffd", str(value)), quote=True))


def element(name: str, *children: Any, **attributes: Any) -> Markup:
    """An element with its children and attributes, everything escaped.

    Args:
        name: the tag.
        children: text, numbers, `Markup`, or lists of these; None is left out.
        attributes: `class_` and `aria_label` are written `class` and `aria-label`; None and False are left out, True
            stands alone.

    Example:
        >>> element("p", "a < b", class_="note", hidden=True)
        '<p class="note" hidden>a &lt; b</p>'
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written.append(f" {key}" if value is True else f' {key}="{escape(value)}"')
    opening = f"<{name}{''.join(written)}>"
    return Markup(opening if name in _VOID else f"{opening}{join(children)}</{name}>")


def join(children: Any) -> Markup:
    """Children one after another, lists among them flattened, None left out."""
    parts = []
    for child in children:
        if child is None:
            continue
        parts.append(join(child) if isinstance(child, list | tuple) else escape(child))
    return Markup("".join(parts))


def to_json(document: Any) -> Markup:
    """`document` as JSON that can stand in a `<script type="application/json">`.

    `<`, `>`, `&` and the two line separators become \\u escapes, halves of a surrogate pair U+FFFD, numbers that are not
    finite null, numpy values plain ones, and keys strings.
    """
    text = json.dumps(plain(document), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_JSON_ESCAPES))


def plain(value: Any) -> Any:
    """`value` made of nothing but dict, list, str, int, float, bool and None."""
    if value is None or (isinstance(value, bool | int) and not isinstance(value, np.generic)):
        return value
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if hasattr(value, "items"):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if hasattr(value, "__iter__"):
        return [plain(item) for item in value]
    return plain(str(value))
