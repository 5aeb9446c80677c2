"""Single members of archives, read in memory by their exact names: nothing is unpacked, so no path can lead astray."""

import io
import re
import tarfile
import zipfile
from collections.abc import Iterator

from limelight.data.errors import DataError

_LARGEST = 64 * 2**20


def tar_member(archive: bytes, name: str) -> bytes:
    """Return a regular file of a .tar.gz archive.

    Raises:
        DataError: it is not there, is no regular file, or is larger than 64 MiB.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            member = tar.getmember(name)
            stream = tar.extractfile(member) if member.isreg() and member.size <= _LARGEST else None
            if stream is not None:
                return stream.read()
    except (KeyError, tarfile.TarError, OSError, EOFError) as error:
        raise DataError(_damaged(name)) from error
    raise DataError(_damaged(name))


def zip_member(archive: bytes, name: str) -> bytes:
    """Return a file of a .zip archive.

    Raises:
        DataError: it is not there, or is larger than 64 MiB.
    """
    for _, content in zip_members(archive, re.compile(re.escape(name))):
        return content
    raise DataError(_damaged(name))


def zip_members(archive: bytes, pattern: re.Pattern[str]) -> Iterator[tuple[re.Match[str], bytes]]:
    """Yield the match and the content of each file of a .zip archive whose whole name matches, in order of name.

    Raises:
        DataError: the archive is damaged, or a file in it is larger than 64 MiB.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            for member in sorted(opened.infolist(), key=lambda each: each.filename):
                match = pattern.fullmatch(member.filename)
                if match is None:
                    continue
                if member.file_size > _LARGEST:
                    raise DataError(_damaged(member.filename))
                yield match, opened.read(member)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise DataError(_damaged(pattern.pattern)) from error


def _damaged(name: str) -> str:
    return f"The archive must hold the file {name!r}, whole and of at most {_LARGEST >> 20} MiB. It does not. Fetch it again."
