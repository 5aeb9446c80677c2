"""Read files from archives in memory, by their exact names. Nothing is unpacked to disk."""

import io
import re
import tarfile
import zipfile
from collections.abc import Iterator

from limelight.exceptions import DataError

_MAX_MEMBER_BYTES = 64 * 2**20


def read_tar_member(archive: bytes, name: str) -> bytes:
    """Return a regular file of a .tar.gz archive by its exact name. Nothing is unpacked to disk.

    Raises:
        DataError: the file is missing, not a regular file, or larger than 64 MiB.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            member = tar.getmember(name)
            stream = tar.extractfile(member) if member.isreg() and member.size <= _MAX_MEMBER_BYTES else None
            if stream is not None:
                return stream.read()
    except (KeyError, tarfile.TarError, OSError, EOFError) as error:
        raise DataError(_damaged_message(name)) from error
    raise DataError(_damaged_message(name))


def read_zip_member(archive: bytes, name: str) -> bytes:
    """Return a file of a .zip archive by its exact name. Nothing is unpacked to disk.

    Raises:
        DataError: the file is missing, or larger than 64 MiB.
    """
    for _, content in iterate_zip_members(archive, re.compile(re.escape(name))):
        return content
    raise DataError(_damaged_message(name))


def iterate_zip_members(archive: bytes, pattern: re.Pattern[str]) -> Iterator[tuple[re.Match[str], bytes]]:
    """Yield the match and the content of each file of a .zip archive whose whole name matches `pattern`, sorted by name.

    Raises:
        DataError: the archive is damaged, or a file in it is larger than 64 MiB.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            for member in sorted(file.infolist(), key=lambda info: info.filename):
                match = pattern.fullmatch(member.filename)
                if match is None:
                    continue
                if member.file_size > _MAX_MEMBER_BYTES:
                    raise DataError(_damaged_message(member.filename))
                yield match, file.read(member)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise DataError(_damaged_message(pattern.pattern)) from error


def _damaged_message(name: str) -> str:
    return (
        f"The archive must hold the file {name!r}, whole and of at most {_MAX_MEMBER_BYTES >> 20} MiB. It does not. "
        f"Download it again."
    )
