"""Bytes of a user's file to characters, with errors that name the place."""

import shlex
from pathlib import Path

from limelight.data.dataset import Repair
from limelight.data.errors import DataError

_UTF8_MARK = b"\xef\xbb\xbf"


def read_text(path: Path, repairs: list[Repair]) -> str:
    """Return the content of a UTF-8 file that must be there and not empty.

    Raises:
        DataError: it cannot be read, is empty, or not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{str(path)!r} must be a file that can be read. {error.strerror or error}.") from error
    text = decode(content, path, repairs)
    if not text.strip():
        raise DataError(f"{str(path)!r} must hold data. The file is empty.")
    return text


def decode(content: bytes, path: Path, repairs: list[Repair]) -> str:
    """Decode UTF-8, without its byte order mark.

    Raises:
        DataError: a byte is not UTF-8, or NUL; the message names its offset and line.
    """
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(
            f"{str(path)!r} must be UTF-8. Its first bytes say that it is UTF-16 or UTF-32. Save it as UTF-8."
        )
    nul = content.find(b"\0")
    if nul >= 0:
        raise DataError(
            f"{str(path)!r} must be a text file. A NUL byte stands {_place(content, nul)}. Save it as UTF-8 without it."
        )
    body = content.removeprefix(_UTF8_MARK)
    if len(body) < len(content):
        repairs.append(Repair("byte order mark removed", 1))
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        start = error.start + len(content) - len(body)
        raise DataError(
            f"{str(path)!r} must be UTF-8. The byte 0x{content[start]:02x} {_place(content, start)} is not. Save it as "
            f"UTF-8, for example: iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(str(path))} > utf8-{shlex.quote(path.name)}"
        ) from error


def _place(content: bytes, offset: int) -> str:
    """Say where a byte stands."""
    return f"at byte offset {offset:,} (line {content.count(10, 0, offset) + 1:,})"
