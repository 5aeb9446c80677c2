"""Pairs of texts, a source and its targets, for translation: the data set, and its readers."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from limelight.data import tables, textfiles, tmx
from limelight.data.cleaning import add_repair, capitalize, name_group, normalize_texts
from limelight.data.dataset import Repair
from limelight.data.tables import Columns, Role, Roles
from limelight.exceptions import DataError

SOURCE_COLUMNS = frozenset(("source", "src", "input", "word", "command", "commands", "question"))
TARGET_COLUMNS = frozenset(
    ("target", "tgt", "trg", "output", "phones", "pronunciation", "translation", "action", "actions", "answer")
)
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet", ".tmx", ".ts")
# Codes of ISO 639 and names of languages: a first line of two of these is a header.
_LANGUAGES = """
af am ar az be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gl gu he hi hr hu hy id is it ja ka kk km kn ko
ku ky la lb lo lt lv mk ml mn mr ms mt my nb ne nl nn no pa pl ps pt ro ru sd si sk sl so sq sr sv sw ta te tg th tk
tl tr tt uk ur uz vi xh yi yo zh zu ara bul cat ces cmn dan deu ell eng est eus fas fin fra glg grc heb hin hun hye
ind isl ita jpn kat kor lat lit lav mkd mlt mon nld nob nor pol por ron rus slk slv spa sqi srp swe tam tel tha tur
ukr urd vie zho arabic bulgarian catalan chinese czech danish dutch english estonian finnish french german greek
hebrew hindi hungarian icelandic indonesian irish italian japanese korean latin latvian lithuanian norwegian persian
polish portuguese romanian russian serbian slovak slovenian spanish swahili swedish thai turkish ukrainian urdu
vietnamese welsh
"""


@dataclass(frozen=True, eq=False, repr=False)
class Pairs:
    """Texts with their translations, free of duplicates, in the order of their source.

    Args:
        name: A short name for titles and files.
        sources: The texts to translate, all different (Unicode NFC, newlines as `\\n`, no white space around them).
        targets: For each source its references, at least one; the first is the one to train on.
        repairs: The changes that reading made, with their counts.
        source: Where the data came from, in words.
        test: True where a pair belongs to the published test part, bool (pairs,); None if there is none.
        groups: For each pair the name of its group (a document, a speaker), which a split keeps in one part, or None if it
            belongs to no group; None if there are no groups.
        alignments: For each pair the links between the words of the source and of its first reference, int32 (links, 2):
            positions in the texts split at spaces; None if there are none.

    Raises:
        ValueError: a field does not have one value for each source, or a source has no target.

    Example:
        >>> pairs = Pairs("tiny", ("tomato", "cat"), (("T AH M EY T OW", "T AH M AA T OW"), ("K AE T",)))
        >>> len(pairs), pairs.take([1])
        (2, (['cat'], ['K AE T']))
    """

    name: str
    sources: tuple[str, ...]
    targets: tuple[tuple[str, ...], ...]
    repairs: tuple[Repair, ...] = ()
    source: str = ""
    test: np.ndarray | None = None
    groups: tuple[str | None, ...] | None = None
    alignments: tuple[np.ndarray, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("targets", "test", "groups", "alignments"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.sources):
                raise ValueError(
                    f"`{name}` must hold one value for each of the {len(self.sources)} sources. Received: {len(values)}."
                )
        bare = next((index for index, references in enumerate(self.targets) if not references), None)
        if bare is not None or any(isinstance(references, str) for references in self.targets):
            raise ValueError(
                "`targets` must hold a tuple of at least one reference for each source. Received: "
                + ("a string." if bare is None else f"none for {self.sources[bare][:60]!r}.")
            )

    def __len__(self) -> int:
        return len(self.sources)

    def __repr__(self) -> str:
        count = sum(map(len, self.targets))
        return f"Pairs({self.name!r}, {len(self):,} sources, {count:,} targets)"

    def take(self, indices: Any) -> tuple[list[str], list[str]]:
        """Return the sources and their first targets at `indices`, in that order."""
        indices = np.asarray(indices, dtype=np.int64).tolist()
        return [self.sources[index] for index in indices], [self.targets[index][0] for index in indices]


@dataclass
class RawPairs:
    """Sources, targets, groups and alignments as they were read, None where one is missing, and the repairs so far."""

    sources: list[str | None]
    targets: list[str | None]
    repairs: list[Repair] = field(default_factory=list)
    groups: list[Any] | None = None
    alignments: list[np.ndarray] | None = None
    test: list[bool] | None = None


def load_pairs(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    source: str | None = None,
    target: str | None = None,
    group: str | None = None,
) -> Pairs:
    """Load pairs of texts, clean them, and count what was changed.

    Pairs with an empty side and repeated pairs are dropped; further targets of a source become its references. Characters
    become Unicode NFC and line ends `\\n`.

    Args:
        path: The name of a data set of pairs (`limelight.data.NAMES`); the path of a .csv, .tsv, .jsonl, .parquet or .tmx
            file; or two paths of text files whose lines belong together, with any suffix: the sources and the targets. Each
            may be compressed (.gz, or .zip with one file).
        source: The column of the sources, or the language in a .tmx file. By default the only column with a usual name, such
            as "source" or "word"; or the first of two columns of texts.
        target: The same of the targets, such as "target" or "phones".
        group: The column of the groups (documents, speakers): `split` keeps the pairs of a group in one part.

    Returns:
        The pairs, with their repairs.

    Raises:
        DataError: the data cannot be used; the message says in one line what must hold, what was received, what to do.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name, "numbers.tsv")
        >>> _ = path.write_text("en\\tfr\\none\\tun\\ntwo\\tdeux\\none\\tune\\n")
        >>> pairs = load_pairs(path)
        >>> pairs.sources, pairs.targets
        (('one', 'two'), (('un', 'une'), ('deux',)))
        >>> folder.cleanup()
    """
    named = {"source": source, "target": target, "group": group}
    if isinstance(path, str | os.PathLike):
        return _load_file(path, named)
    paths = [Path(os.path.expanduser(each)) for each in path]
    if len(paths) != 2:
        raise DataError(f"Two files of sources and targets are read line by line. Received: {len(paths)} paths.")
    if any(value is not None for value in named.values()):
        raise DataError(f"Two files of lines have no columns. Received: {_list_arguments(named)}. Leave them out.")
    raw = RawPairs(*read_lines(*paths))
    return build_pairs(textfiles.stem_of(paths[0]), raw, f"the files {str(paths[0])!r} and {str(paths[1])!r}")


def _load_file(path: str | os.PathLike[str], named: dict[str, str | None]) -> Pairs:
    from limelight.data import registry

    if isinstance(path, str) and path in registry.NAMES:
        if any(value is not None for value in named.values()):
            raise DataError(
                f"The data set {path!r} has its own columns. Received: {_list_arguments(named)}. Leave them out."
            )
        pairs = registry.load(path)
        if not isinstance(pairs, Pairs):
            raise DataError(f"The data set must be pairs of texts. {path!r} is {pairs!r}. Read it with `load`.")
        return pairs
    path = Path(os.path.expanduser(path))
    where = f"the file {str(path)!r}"
    if textfiles.suffix_of(path) == ".tmx":
        if named["group"] is not None:
            raise DataError(f"A .tmx file has no groups. Received: group={named['group']!r}. Leave it out.")
        sources, targets, repairs = tmx.read_tmx(path, named["source"], named["target"])
        return build_pairs(textfiles.stem_of(path), RawPairs([*sources], [*targets], repairs), where)
    roles = (
        Role("source", named["source"], SOURCE_COLUMNS, strings_only=True),
        Role("target", named["target"], TARGET_COLUMNS, strings_only=True),
        Role("group", named["group"]),
    )
    match textfiles.suffix_of(path):
        case ".csv" | ".tsv":
            table = tables.read_csv(path, roles, choose_header)
        case ".jsonl":
            table = tables.read_json_lines(path, roles, any_two_texts=True)
        case ".parquet":
            table = tables.read_parquet(path, roles, any_two_texts=True)
        case _:
            raise DataError(
                f"Pairs must be a .csv, .tsv, .jsonl, .parquet or .tmx file, or two files of lines. Received: {str(path)!r}. "
                f"Give the file of the targets too."
            )
    return build_pairs(textfiles.stem_of(path), RawPairs(table.first, table.second, table.repairs, table.groups), where)


def _list_arguments(named: dict[str, str | None]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in named.items() if value is not None)


def read_lines(source: Path, target: Path) -> tuple[list[str | None], list[str | None], list[Repair]]:
    """Read two files whose lines belong together, as they are; blank lines that one file alone has at its end are left out.

    Raises:
        DataError: A file cannot be read or is a table, both are the same, or one has more lines.
    """
    if os.path.realpath(source) == os.path.realpath(target):
        raise DataError(f"The sources and the targets must be two files. Received: {str(source)!r} for both.")
    marks: list[Repair] = []
    sides: list[list[str | None]] = []
    for path in (source, target):
        if textfiles.suffix_of(path) in _TABLES:
            raise DataError(
                f"Two files must be text files with a line for each pair. {str(path)!r} is a table, which holds both sides. "
                "Give it alone."
            )
        textfiles.check_text_file(path, marks)
        # Only \n ends a line, as in the tools that write such files: U+2028 and \r may stand in a sentence.
        with textfiles.open_text(path, newline="\n") as stream:
            sides.append([line.removesuffix("\n").removesuffix("\r") for line in stream])
    counts = [len(side) for side in sides]
    first, second = sides
    longer = first if counts[0] > counts[1] else second
    while len(longer) > min(counts) and not (longer[-1] or "").strip():
        longer.pop()
    if len(first) != len(second):
        raise DataError(
            f"The files must have one line for each pair. {str(source)!r} has {counts[0]:,} lines, {str(target)!r} "
            f"{counts[1]:,}. Give two files that belong together."
        )
    repairs: list[Repair] = []
    add_repair(repairs, "byte order mark removed", len(marks))
    add_repair(repairs, "blank lines at the end of one file left out", abs(counts[0] - counts[1]))
    return first, second, repairs


def choose_header(sample: list[list[str]], roles: Roles, source: str) -> tuple[list[str], Columns]:
    """Return the names of all columns, and those of the source, the target and the group.

    If they are not found by their names and two columns are texts, not mostly numbers, these are the source and the target.
    The first line is then a header if it holds two languages, or a name above numbers.
    """
    first, *rows = sample
    numbers, explained = tables.number_columns(len(first), source, "it names no languages")
    group = roles[2].column
    if roles[0].column is not None or roles[1].column is not None:
        given = {role.column for role in roles} - {None}
        is_numbered = given <= set(numbers) and not given <= set(first)
        header, source = (numbers, explained) if is_numbered else (first, source)
        return header, tables.choose_columns(header, roles, source)
    rows = [row for row in rows if len(row) == len(first)]
    is_text = [
        group not in (number, name) and 2 * sum(tables.is_number(row[index]) for row in rows) <= len(rows)
        for index, (number, name) in enumerate(zip(numbers, first, strict=True))
    ]
    is_header = all(_is_language(name) for name, text in zip(first, is_text, strict=True) if text) or any(
        not text and not tables.is_number(name) for name, text in zip(first, is_text, strict=True)
    )
    try:
        return first, tables.choose_columns(first, roles, source)
    except DataError:
        if sum(is_text) != 2:
            raise
    header, source = (first, source) if is_header else (numbers, explained)
    return header, tables.choose_columns(
        header, roles, source, [name for name, text in zip(header, is_text, strict=True) if text]
    )


def _is_language(name: str) -> bool:
    """Return True for the name or the code of a language, also with a region: "en-US"."""
    return name.strip().casefold().replace("_", "-").split("-")[0] in _LANGUAGES.split()


def build_pairs(name: str, raw: RawPairs, source: str) -> Pairs:
    """Clean pairs, and collect the references of equal sources.

    Args:
        name: The data set's name.
        raw: The pairs, as a reader returned them.
        source: Where they came from, in words.

    Raises:
        DataError: no pair is left, or all sources are numbers.
    """
    repairs = list(raw.repairs)
    normalized = normalize_texts([*raw.sources, *raw.targets], repairs)
    sources, targets = normalized[: len(raw.sources)], normalized[len(raw.sources) :]
    references: dict[str, dict[str, None]] = {}
    kept: list[int] = []
    empty = repeated = further = 0
    for row, (text, target) in enumerate(zip(sources, targets, strict=True)):
        if not text or not target:
            empty += 1
        elif text not in references:
            references[text] = {target: None}
            kept.append(row)
        elif target in references[text]:
            repeated += 1
        else:
            references[text][target] = None
            further += 1
    add_repair(repairs, "pairs with an empty side dropped", empty)
    add_repair(repairs, "duplicate pairs dropped", repeated)
    add_repair(repairs, "targets that became further references of an equal source", further)
    if not kept or all(map(tables.is_number, references)):
        state = f"None is left of {len(sources)} rows" if not kept else f"All {len(kept):,} sources are numbers"
        raise DataError(
            f"{capitalize(source)} must hold pairs of texts. {state}"
            + "".join(f"; {repair}" for repair in repairs)
            + ". Check the file and the two columns."
        )
    groups = None if raw.groups is None else tuple(name_group(raw.groups[row]) for row in kept)
    alignments = None if raw.alignments is None else tuple(raw.alignments[row] for row in kept)
    test = None if raw.test is None else np.array([raw.test[row] for row in kept], dtype=bool)
    return Pairs(
        name,
        tuple(references),
        tuple(map(tuple, references.values())),
        tuple(repairs),
        source,
        test,
        groups,
        alignments,
    )
