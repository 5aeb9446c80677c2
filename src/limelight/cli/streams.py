"""Prepare stdin, stdout and stderr for any text, and for being closed."""

import codecs
import io
import os
import sys

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


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_REPLACEMENTS.get(character, "?") for character in missing), error.end
