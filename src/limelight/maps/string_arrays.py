"""Tokens as arrays, for files: strings as bytes with the places where each ends."""

import itertools
from collections.abc import Sequence

import numpy as np

from limelight.maps.tokens import Tokens


def spelled(texts: Sequence[Tokens]) -> dict[str, np.ndarray]:
    """Arrays for the tokens of several examples. Lone surrogates, which UTF-8 does not have, travel too."""
    arrays = {"counts": np.array([len(one) for one in texts], "<i8")}
    arrays |= _strings("pieces", [piece for one in texts for piece in one])
    if all(one.offsets is not None for one in texts):
        offsets = [pair for one in texts for pair in one.offsets or ()]
        arrays["offsets"] = np.array(offsets, "<i8").reshape(-1, 2)
    if all(one.text is not None for one in texts):
        arrays |= _strings("texts", [one.text or "" for one in texts])
    return arrays


def unspelled(arrays: dict[str, np.ndarray]) -> tuple[Tokens, ...]:
    """The tokens of several examples from their arrays.

    Raises:
        ValueError: numbers that do not fit together.
    """
    pieces = _unstrung(arrays["pieces"], arrays["pieces_ends"])
    offsets = arrays.get("offsets")
    texts = _unstrung(arrays["texts"], arrays["texts_ends"]) if "texts" in arrays else None
    counts = arrays["counts"]
    if counts.ndim != 1 or (counts < 0).any() or counts.sum() != len(pieces) or (counts > len(pieces)).any():
        raise ValueError("the counts of the tokens do not fit the tokens")
    if offsets is not None and offsets.shape != (len(pieces), 2):
        raise ValueError("the offsets of the tokens do not fit the tokens")
    result, start = [], 0
    for number, count in enumerate(counts.tolist()):
        part = slice(start, start + count)
        pairs = None if offsets is None else tuple(map(tuple, offsets[part].tolist()))
        result.append(Tokens(tuple(pieces[part]), pairs, None if texts is None else texts[number]))
        start += count
    return tuple(result)


def _strings(name: str, values: list[str]) -> dict[str, np.ndarray]:
    coded = [value.encode("utf-8", "surrogatepass") for value in values]
    ends = np.cumsum([len(value) for value in coded], dtype="<i8") if coded else np.zeros(0, "<i8")
    return {name: np.frombuffer(b"".join(coded), np.uint8), f"{name}_ends": ends}


def _unstrung(coded: np.ndarray, ends: np.ndarray) -> list[str]:
    content = coded.tobytes()
    places = [0, *ends.tolist()]
    if coded.dtype != np.uint8 or ends.ndim != 1 or any(a > b for a, b in itertools.pairwise(places)):
        raise ValueError("the ends of the strings do not ascend")
    if places[-1] != len(content):
        raise ValueError("the ends of the strings do not fit their bytes")
    return [content[a:b].decode("utf-8", "surrogatepass") for a, b in itertools.pairwise(places)]
