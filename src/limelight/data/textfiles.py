"""Open UTF-8 files, also compressed by gzip or zip, and name the position of a byte that is not UTF-8."""

import codecs
import gzip
import io
import re
import shlex
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from limelight.data.dataset import Repair
from limelight.exceptions import DataError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CHUNK_BYTES = 2**20
# What reading a file may raise, damaged compression included.
READ_ERRORS = (OSError, EOFError, zlib.error, zipfile.BadZipFile)


def suffix_of(path: Path) -> str:
    """Return the suffix of a file in lower case, without that of its compression; of a .zip that of the file in it.

    Raises:
        DataError: a .zip cannot be read, or does not hold one file.

    Example:
        >>> suffix_of(Path("reviews.CSV.gz"))
        '.csv'
    """
    if path.suffix.lower() == ".zip":
        path = Path(_find_zip_member(path))
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def stem_of(path: Path) -> str:
    """Return the name of a file without its suffix and that of its compression.

    Example:
        >>> stem_of(Path("data/reviews.csv.gz"))
        'reviews'
    """
    return (path.with_suffix("") if path.suffix.lower() in (".gz", ".zip") else path).stem


def open_bytes(path: Path) -> BinaryIO:
    """Open a file to read its bytes, decompressed if its name ends in .gz, or in .zip and it holds one file.

    Raises:
        DataError: a .zip does not hold one file without a password.
        OSError: the file cannot be read.
    """
    match path.suffix.lower():
        case ".gz":
            return cast(BinaryIO, gzip.open(path, "rb"))
        case ".zip":
            name = _find_zip_member(path)
            try:
                with zipfile.ZipFile(path) as archive:
                    return cast(BinaryIO, archive.open(name))  # stays open when the archive is closed
            except (RuntimeError, NotImplementedError) as error:
                raise DataError(unreadable_message(path, error)) from error
        case _:
            return open(path, "rb")


def _find_zip_member(path: Path) -> str:
    """Return the name of the only file in a .zip archive, without what macOS adds."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except READ_ERRORS as error:
        raise DataError(unreadable_message(path, error)) from error
    names = [name for name in names if not name.startswith("__MACOSX/") and not Path(name).name.startswith(".")]
    if len(names) != 1:
        raise DataError(
            f"A .zip must hold one file. {str(path)!r} holds {len(names)}. Unpack it, and give the path of one."
        )
    return names[0]


def open_text(path: Path, newline: str | None = None) -> TextIO:
    """Open a UTF-8 file that was checked, without its byte order mark; `newline` as in Python's `open`."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline=newline)


def read_bytes(path: Path, size: int = -1) -> bytes:
    """Return the first bytes of a file, or all of them.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open_bytes(path) as stream:
            return stream.read(size)
    except READ_ERRORS as error:
        raise DataError(unreadable_message(path, error)) from error


def iterate_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a checked file, each ended by \\n."""
    with open_text(path) as stream:
        yield from stream


def check_text_file(path: Path, repairs: list[Repair]) -> None:
    """Check that a file is UTF-8 without NUL, and not empty; count its byte order mark. It is read in pieces.

    Raises:
        DataError: the file cannot be read, is empty or is not UTF-8.
    """
    offset, line, blank = 0, 1, True
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open_bytes(path) as stream:
            chunk = b"first"
            while chunk:
                chunk = stream.read(_CHUNK_BYTES)
                blank = not _decode_chunk(chunk, decoder, path, offset, line, repairs).strip() and blank
                offset, line = offset + len(chunk), line + chunk.count(b"\n")
    except READ_ERRORS as error:
        raise DataError(unreadable_message(path, error)) from error
    if blank:
        raise DataError(f"{str(path)!r} must hold data. The file is empty.")


def unreadable_message(path: Path, error: Exception) -> str:
    """Return the message for a file that cannot be read, or not be decompressed."""
    reason = (isinstance(error, OSError) and error.strerror) or str(error).rstrip(".")
    return f"{str(path)!r} must be a file that can be read. {reason}."


def decode(content: bytes, path: Path, repairs: list[Repair]) -> str:
    """Decode a whole UTF-8 file without its byte order mark.

    Raises:
        DataError: the content is not UTF-8; the message names the byte offset and the line.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    text = _decode_chunk(content, decoder, path, 0, 1, repairs)
    return text + _decode_chunk(b"", decoder, path, len(content), content.count(b"\n") + 1, repairs)


def _decode_chunk(
    chunk: bytes, decoder: codecs.IncrementalDecoder, path: Path, offset: int, line: int, repairs: list[Repair]
) -> str:
    """Decode a piece of a UTF-8 file that begins at `offset` and `line`, without the file's mark; the last one is empty."""
    if offset == 0 and chunk[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{str(path)!r} must be UTF-8. It begins with the mark of UTF-16 or UTF-32. Save it as UTF-8.")
    nul = chunk.find(b"\0")
    if nul >= 0:
        where = _locate(offset + nul, line + chunk.count(b"\n", 0, nul))
        raise DataError(f"{str(path)!r} must be a text file. It has a NUL byte {where}. Save it as UTF-8 without it.")
    if offset == 0 and chunk.startswith(_BYTE_ORDER_MARK):
        repairs.append(Repair("byte order mark removed", 1))
        chunk, offset = chunk.removeprefix(_BYTE_ORDER_MARK), len(_BYTE_ORDER_MARK)
    # Bytes of a character that the last piece cut in two.
    pending = len(decoder.getstate()[0])
    try:
        return decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
        message = _explain_encoding(path, error.object, error.start, offset - pending, line)
        raise DataError(message) from error


def _explain_encoding(path: Path, content: bytes, position: int, offset: int, line: int) -> str:
    """Explain that the byte at `position` of a part of a file, which begins at `offset` and `line`, is not UTF-8."""
    where = _locate(offset + position, line + content.count(b"\n", 0, position))
    names = _guess_encodings(content)
    quoted = f"{shlex.quote(str(path))} > utf8-{shlex.quote(path.name)}"
    hint = f"for example: iconv -f {names[0]} -t UTF-8 {quoted}"
    if len(names) > 1:
        hint += f" (its bytes also fit {', '.join(names[1:])}: take the one that shows the right characters)"
    return f"{str(path)!r} must be UTF-8. The byte 0x{content[position]:02x} {where} is not. Save it as UTF-8, {hint}"


def _guess_encodings(content: bytes) -> list[str]:
    """Return the encodings that a text may have which is not UTF-8, by their names for iconv.

    In Western European languages, at most two letters beyond ASCII stand side by side. In East Asian and Cyrillic encodings
    such bytes form long runs; of those, the encodings are returned that can decode the bytes.
    """
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", content)]
    if sum(run for run in runs if run > 2) <= 0.3 * sum(runs):
        return ["WINDOWS-1252"]
    fitting = []
    for name in ("GB18030", "BIG5", "SHIFT_JIS", "EUC-KR", "EUC-JP", "WINDOWS-1251"):
        try:
            # The content may end in the middle of a character.
            codecs.getincrementaldecoder(name)().decode(content)
        except UnicodeDecodeError:
            continue
        fitting.append(name)
    return fitting or ["WINDOWS-1252"]


def _locate(offset: int, line: int) -> str:
    return f"at byte offset {offset:,} (line {line:,})"
