"""Files that are whole or not there: an old file or a new one, never half of one, after kill -9 or a full disk.

A file is written beside its destination, flushed to the disk, and renamed over it, which the file system does at once.
"""

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Names a temporary file, so that one that a killed process left is known for what it is.
_TEMPORARY = ".limelight-tmp-"


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of a temporary file that takes the place of `path` when the block ends without an error.

    The temporary lies in the same folder and has the same suffix. On any error, an interruption among them, it is
    removed and `path` is as it was. A `path` that is a link stays one: what it points to is replaced.

    Args:
        path: The file to write. Its folder is made where it is missing.

    Yields:
        The temporary's path: an empty file, to be opened or overwritten by name.

    Raises:
        OSError: the disk is full, or the folder cannot be written, or `path` is a device, a pipe or a folder.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with replacing(f"{folder.name}/a.txt") as temporary:
        ...     _ = temporary.write_text("whole")
        >>> Path(f"{folder.name}/a.txt").read_text()
        'whole'
        >>> folder.cleanup()
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        # Renaming would put a file where the device was.
        raise OSError(errno.EINVAL, "A file is written whole, and can take the place of a file alone", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}{target.suffix}")
    try:
        # Mode 0666 less the user's umask, as `open` would give; `tempfile` would make the result private.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        if target.exists():
            shutil.copymode(target, temporary)
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    _flush_folder(target.parent)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path`, whole or not at all (see `replacing`)."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write `content` to `path` as UTF-8, whole or not at all (see `replacing`)."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: str | os.PathLike[str], document: Any) -> None:
    """Write `document` to `path` as JSON, whole or not at all (see `replacing`).

    Raises:
        ValueError: the document holds a NaN or an infinity, which JSON cannot say.
    """
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    # A lone surrogate, such as a file name that is no UTF-8 brings, becomes its JSON escape: it only stands in strings.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def sweep(folder: str | os.PathLike[str]) -> int:
    """Remove the temporaries that killed processes left in `folder`, and return how many there were.

    Call it only while nobody else writes there: a temporary does not show whether its writer lives.
    """
    stale = [path for path in Path(folder).glob(f"{_TEMPORARY}*") if path.is_file()]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def is_temporary(path: str | os.PathLike[str]) -> bool:
    """Tell whether `path` has the name of a temporary of `replacing`."""
    return Path(path).name.startswith(_TEMPORARY)


def _flush_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a loss of power, where the system can open a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
