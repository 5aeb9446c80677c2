"""Atomic writes: after kill -9 or on a full disk, a file is the old one or the new one, never half of one.

A file is written beside its destination, flushed to the disk, and renamed over it, which the file system does atomically.
"""

import contextlib
import errno
import json
import os
import shutil
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

# The prefix of temporary files, by which one that a killed process left is recognized.
_TEMPORARY = ".limelight-tmp-"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of a temporary file that replaces `path` if the block ends without an error.

    The temporary file is in the same folder and has the same suffix. On any error, including an interruption, it is removed and
    `path` stays as it was. If `path` is a link, it stays a link, and the file that it points to is replaced.

    Args:
        path: The file to write. Its folder is created if it does not exist.

    Yields:
        The path of the temporary file, which is empty, to be opened or overwritten by name.

    Raises:
        OSError: The disk is full, the folder is not writable, or `path` is a device, a pipe or a folder.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with atomic_write(f"{folder.name}/a.txt") as temporary:
        ...     _ = temporary.write_text("whole")
        >>> Path(f"{folder.name}/a.txt").read_text()
        'whole'
        >>> folder.cleanup()
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        # Renaming would replace the device by a file.
        raise OSError(errno.EINVAL, "An atomic write can only replace a regular file", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}{target.suffix}")
    try:
        # Mode 0666 less the user's umask, as `open` gives; `tempfile` would make the file private.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        if target.exists():
            shutil.copymode(target, temporary)
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        if isinstance(error, OSError) and error.strerror and error.filename in (None, str(temporary)):
            # A write to an open file that fails, on a full disk, does not say which.
            error.filename = os.fspath(path)
        raise
    _flush_folder(target.parent)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write bytes to a file atomically (see `atomic_write`)."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write text to a file as UTF-8, atomically (see `atomic_write`)."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: str | os.PathLike[str], document: Any) -> None:
    """Write a document to a file as JSON, atomically (see `atomic_write`).

    Raises:
        ValueError: The document holds a NaN or an infinity, which JSON cannot express.
    """
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    # A lone surrogate, as in a file name that is not UTF-8, becomes its JSON escape. It can only be inside a string.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def remove_temporary_files(folder: str | os.PathLike[str]) -> int:
    """Remove the temporary files that killed processes left in a folder, and return their number.

    Call it only while no other process writes there: a temporary file does not show whether its writer still runs.
    """
    stale = [path for path in Path(folder).glob(f"{_TEMPORARY}*") if path.is_file()]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def is_temporary(path: str | os.PathLike[str]) -> bool:
    """Return True if a path has the name of a temporary file of `atomic_write`."""
    return Path(path).name.startswith(_TEMPORARY)


def zip_directory_bytes(stream: IO[bytes]) -> int | None:
    """Return the declared size of a zip file's list of members, for which zipfile makes an object each as soon as it opens one.

    None if the file has no such list.
    """
    size = stream.seek(0, os.SEEK_END)
    tail_size = min(size, 22 + (1 << 16) + 20)
    stream.seek(size - tail_size)
    tail = stream.read(tail_size)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end < 22:
        return None
    locator = tail[max(0, end - 20) : end]
    if locator[:4] != b"PK\x06\x07":
        return struct.unpack("<L", tail[end + 12 : end + 16])[0]
    stream.seek(struct.unpack("<Q", locator[8:16])[0])
    record = stream.read(56)
    return struct.unpack("<Q", record[40:48])[0]


def _flush_folder(folder: Path) -> None:
    """Make a rename in a folder survive a loss of power, on systems that can open a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
