"""Prepare stdin, stdout and stderr for any text, and for being closed."""

import codecs
import io
import os
import re
import sys
from collections.abc import Iterator

from limelight.exceptions import DataError

# What `surrogateescape` makes of a byte that is not UTF-8.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")

# What a terminal of another encoding shows instead.
_REPLACEMENTS = {
    "\u2212": "-",
    "\u2013": "-",
    "\u2014": "-",
    "\u2026": "...",
    "\u202f": " ",
    "\u2018": "'",
    "\u2019": "'",
}


def prepare() -> None:
    """Make writing to stdout and stderr possible whatever they are.

    Characters that the encoding of a stream lacks are replaced, the minus sign by a hyphen. A stream that the shell closed
    (`>&-`) becomes the null device.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is this one; otherwise the next file that is opened would become stdout.
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            codecs.register_error("limelight.replace", _replace)
            stream.reconfigure(errors="limelight.replace")


def read_stdin() -> Iterator[str]:
    """Yield the lines of stdin, without their ends, as UTF-8 whatever the locale is.

    Raises:
        DataError: A line is not UTF-8.
    """
    buffer = getattr(sys.stdin, "buffer", None)
    lines = sys.stdin if buffer is None else io.TextIOWrapper(buffer, encoding="utf-8-sig", errors="surrogateescape")
    for number, line in enumerate(lines, start=1):
        if wrong := _NOT_UTF8.search(line):
            raise DataError(
                f"Standard input must be UTF-8. Line {number} has the byte 0x{ord(wrong[0]) - 0xDC00:02x}, which is not. "
                "Convert it first, for example with iconv."
            )
        yield line.rstrip("\n")


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_REPLACEMENTS.get(character, "?") for character in missing), error.end
