"""The maps of a model: an ordered mapping from layer path to map."""

import fnmatch
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from limelight.maps import concat, serialization
from limelight.maps._attention_map import AttentionMap
from limelight.maps.difference import Difference


class AttentionMaps(Mapping[str, AttentionMap]):
    """Maps by the path of their layer, in the order in which the layers ran.

    A layer that is called again has "#1" and so on behind its path from the second call on.

    Args:
        maps: the maps.

    Raises:
        ValueError: two maps with the same key.

    Example:
        >>> import numpy as np
        >>> from limelight import AttentionMap, AttentionMaps
        >>> maps = AttentionMaps([AttentionMap.of(np.eye(2), path="encoder/attention")])
        >>> list(maps)
        ['encoder/attention']
    """

    def __init__(self, maps: Iterable[AttentionMap] = ()) -> None:
        self._maps: dict[str, AttentionMap] = {}
        for one in maps:
            if one.key in self._maps:
                raise ValueError(f"Each map must have a path and call of its own. Received twice: {one.key!r}.")
            self._maps[one.key] = one

    def __getitem__(self, key: str) -> AttentionMap:
        if key not in self._maps:
            raise KeyError(f"There is no map {key!r}. There are: {', '.join(self._maps) or 'none'}.")
        return self._maps[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)

    def __repr__(self) -> str:
        return "\n".join(["AttentionMaps of:", *(f"  {one!r}" for one in self.values())])

    @property
    def nbytes(self) -> int:
        """Bytes that are held (not what all weights would take)."""
        return sum(one.nbytes for one in self.values())

    def select(self, *patterns: str) -> "AttentionMaps":
        """The maps whose key matches one of the patterns, such as "decoder/*".

        Raises:
            KeyError: a pattern that matches nothing.
        """
        for pattern in patterns:
            if not fnmatch.filter(self, pattern):
                raise KeyError(f"No map matches {pattern!r}. There are: {', '.join(self) or 'none'}.")
        return AttentionMaps(one for key, one in self.items() if any(fnmatch.fnmatchcase(key, p) for p in patterns))

    def with_tokens(self, tokens: Any, length: int | None = None) -> "AttentionMaps":
        """The same maps with tokens for each example, on the queries and on the keys of every map that has `length` of them.

        Args:
            tokens: a list of strings for each example, or for the only one.
            length: how many positions the tokens were padded to; the longest list's number where None.
        """
        return AttentionMaps(concat.labelled(one, tokens, length) for one in self.values())

    def diff(self, other: "AttentionMaps") -> dict[str, Difference]:
        """For each map that both have, how far its heads lie apart. See `Difference`.

        Raises:
            ValueError: no map in common, or maps of different shapes.
        """
        common = [key for key in self if key in other]
        if not common:
            raise ValueError(f"The maps have no key in common. Received: {list(self)} and {list(other)}.")
        return {key: self[key].diff(other[key]) for key in common}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all maps to a .npz file, whole or not at all. Nothing is pickled; `numpy.load` reads it too."""
        serialization.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "AttentionMaps":
        """Read maps that `save` wrote. A file of unknown origin runs no code and takes no more memory than its size allows.

        Raises:
            ArtifactError: a damaged file, or one that is something else.
            OSError: no such file.
        """
        return cls(serialization.load(path))

    @classmethod
    def joined(cls, parts: Iterable["AttentionMaps"]) -> "AttentionMaps":
        """The maps of several batches as those of one. Shorter batches are padded, and the padding is masked.

        Raises:
            ValueError: batches with other maps than the first.
        """
        return cls(concat.joined(list(parts)))
