"""Read pairs of texts from TMX files (Translation Memory eXchange), without running their document types."""

import xml.parsers.expat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limelight.data import textfiles
from limelight.data.dataset import Repair
from limelight.exceptions import DataError

# Elements within a segment that hold codes of its original format, not text.
_CODES = frozenset(("bpt", "ept", "it", "ph", "ut"))
_LANGUAGE_ATTRIBUTES = ("xml:lang", "lang")
_MAX_SEGMENT_LENGTH = 10_000_000


@dataclass
class _Parser:
    """The state of a parser that reads one unit at a time: the languages and texts of its variants."""

    path: Path
    units: list[dict[str, str]] = field(default_factory=list)
    source_language: str | None = None
    variants: dict[str, str] = field(default_factory=dict)
    language: str = ""
    text: list[str] | None = None
    length: int = 0
    depth_of_codes: int = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Begin an element."""
        if tag == "header":
            self.source_language = attributes.get("srclang")
        elif tag == "tu":
            self.variants = {}
        elif tag == "tuv":
            language = next((attributes[name] for name in _LANGUAGE_ATTRIBUTES if name in attributes), "")
            self.language = language.strip().casefold().replace("_", "-")
        elif tag == "seg":
            self.text, self.length = [], 0
        elif tag in _CODES:
            self.depth_of_codes += 1

    def end(self, tag: str) -> None:
        """End an element."""
        if tag == "seg" and self.text is not None:
            self.variants.setdefault(self.language, "".join(self.text))
            self.text = None
        elif tag == "tu":
            self.units.append(self.variants)
        elif tag in _CODES:
            self.depth_of_codes -= 1

    def characters(self, content: str) -> None:
        """Take a piece of text."""
        if self.text is None or self.depth_of_codes:
            return
        self.text.append(content)
        self.length += len(content)
        if self.length > _MAX_SEGMENT_LENGTH:
            raise DataError(f"A segment of {str(self.path)!r} must have at most {_MAX_SEGMENT_LENGTH:,} characters.")

    def refuse_subset(self, name: str, system: Any, public: Any, has_internal_subset: int) -> None:
        """Raise for a document type that declares something itself; a mere reference to one is never followed."""
        if has_internal_subset:
            self.refuse_declaration()

    def refuse_declaration(self, *arguments: Any) -> None:
        """Raise for declarations of entities, which may expand without end or name other files."""
        raise DataError(
            f"{str(self.path)!r} must not declare entities or a document type of its own, which are unsafe. It does. Remove "
            f"the declaration."
        )

    def refuse_entity(self, name: str, is_parameter: bool) -> None:
        """Raise for an entity that only the document type explains, such as &nbsp;: its text would be lost."""
        raise DataError(f"{str(self.path)!r} must use no entities but XML's own five. It uses &{name};. Replace it.")


def read_tmx(path: Path, source: str | None, target: str | None) -> tuple[list[str], list[str], list[Repair]]:
    """Read the pairs of two languages of a .tmx file.

    Python's expat parses, piece by piece; `xml.etree` hides the declarations, which must be seen to be refused.

    Args:
        path: The file.
        source: The language of the sources ("en" is also "en-US"), or None for the file's source language, or the first.
        target: The language of the targets, or None for the other one.

    Returns:
        The sources, the targets and the repairs: units in which a language is missing are left out.

    Raises:
        DataError: the file is not XML, declares entities, or does not hold the two languages.
    """
    state = _Parser(path)
    parser = xml.parsers.expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = state.start
    parser.EndElementHandler = state.end
    parser.CharacterDataHandler = state.characters
    parser.StartDoctypeDeclHandler = state.refuse_subset
    parser.EntityDeclHandler = state.refuse_declaration
    parser.SkippedEntityHandler = state.refuse_entity
    try:
        with textfiles.open_bytes(path) as stream:
            parser.ParseFile(stream)
    except xml.parsers.expat.ExpatError as error:
        raise DataError(f"{str(path)!r} must be an intact TMX file. It cannot be read: {error}.") from error
    except textfiles.READ_ERRORS as error:
        raise DataError(textfiles.unreadable_message(path, error)) from error
    first, second = _choose_languages(state, source, target)
    pairs = [(unit[first], unit[second]) for unit in state.units if first in unit and second in unit]
    missing = len(state.units) - len(pairs)
    repairs = [Repair(f"units without {first!r} or {second!r} left out", missing)] if missing else []
    return [one for one, _ in pairs], [other for _, other in pairs], repairs


def _choose_languages(state: _Parser, source: str | None, target: str | None) -> tuple[str, str]:
    """Return the two languages as the file writes them, in lower case."""
    languages = list(dict.fromkeys(language for unit in state.units for language in unit))
    listed = f"{str(state.path)!r} holds the languages {', '.join(map(repr, languages)) or 'of no unit'}"
    chosen = [None if name is None else _find_language(languages, name, listed) for name in (source, target)]
    rest = [language for language in languages if language not in chosen]
    if chosen.count(None) > len(rest) or (None in chosen and len(languages) != 2):
        raise DataError(
            f"A .tmx file must hold two languages, or both must be named. {listed}. Name source and target."
        )
    if chosen == [None, None] and state.source_language is not None:
        matching = [language for language in rest if _matches(language, state.source_language)]
        rest.sort(key=lambda language: language not in matching)
    first = chosen[0] or rest.pop(0)
    second = chosen[1] or rest.pop(0)
    if first == second:
        raise DataError(f"The source and the target must be two languages. Received: {first!r} for both. {listed}.")
    return first, second


def _find_language(languages: list[str], name: str, listed: str) -> str:
    exact = [language for language in languages if language == name.casefold().replace("_", "-")]
    matching = exact or [language for language in languages if _matches(language, name)]
    if len(matching) != 1:
        raise DataError(f"A named language must be one of the file's. {listed}. Received: {name!r}.")
    return matching[0]


def _matches(language: str, name: str) -> bool:
    """Return True if a language is the named one, without regard to its region."""
    return language.split("-")[0] == name.strip().casefold().replace("_", "-").split("-")[0]
