"""Bytes of a user's file to characters, with errors that name the place."""

from pathlib import Path

from limelight.data.dataset import Repair
from limelight.data.errors import DataError

_UTF8_MARK = b"\xef\xbb\xbf"


def read_bytes(path: Path) -> bytes:
    """Return the content of a file that must be there and not empty.

    Raises:
        DataError: it cannot be read, or is empty.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{str(path)!r} must be a file that can be read. {error.strerror or error}.") from error
    if not content.strip():
        raise DataError(f"{str(path)!r} must hold data. The file is empty.")
    return content


def decode(content: bytes, path: Path, repairs: list[Repair]) -> str:
    """Decode UTF-8, without its byte order mark.

    Raises:
        DataError: a byte is not UTF-8, or NUL; the message names its offset and line.
    """
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{str(path)!r} must be UTF-8. It is UTF-16 (its first two bytes say so). Save it as UTF-8.")
    if content.startswith(_UTF8_MARK):
        repairs.append(Repair("byte order mark removed", 1))
    nul = content.find(b"\0")
    if nul >= 0:
        raise DataError(
            f"{str(path)!r} must be a text file. A NUL byte stands {_place(content, nul)}. Save it as UTF-8 text without it."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts without the mark that it drops.
        start = error.start + (3 if content.startswith(_UTF8_MARK) and error.object is not content else 0)
        raise DataError(
            f"{str(path)!r} must be UTF-8. The byte 0x{content[start]:02x} {_place(content, start)} is not. Save it as UTF-8, "
            f"for example: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}"
        ) from error


def _place(content: bytes, offset: int) -> str:
    """Say where a byte stands."""
    return f"at byte offset {offset:,} (line {content.count(10, 0, offset) + 1:,})"
