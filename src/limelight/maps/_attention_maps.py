"""The maps of a model: an ordered mapping from layer path to map."""

import dataclasses
import fnmatch
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from limelight.maps import notebook, serialization
from limelight.maps._attention_map import AttentionMap
from limelight.maps.concat import concat_sources
from limelight.maps.statistics import Difference
from limelight.maps.tokens import Tokens, tokens_per_example


class AttentionMaps(Mapping[str, AttentionMap]):
    """Attention maps by the path of their layer, in the order in which the layers ran.

    The second call of a layer has the key "path#1", the third "path#2", and so on. In a notebook the maps show themselves as
    the page that `limelight.report.Report` makes of them.

    Args:
        maps: the maps.

    Raises:
        ValueError: two maps have the same key.

    Example:
        >>> import numpy as np
        >>> from limelight import AttentionMap, AttentionMaps
        >>> maps = AttentionMaps([AttentionMap.from_weights(np.eye(2), path="encoder/attention")])
        >>> list(maps)
        ['encoder/attention']
    """

    def __init__(self, maps: Iterable[AttentionMap] = ()) -> None:
        self._maps: dict[str, AttentionMap] = {}
        for attention_map in maps:
            if attention_map.key in self._maps:
                raise ValueError(f"Each map must have its own path and call. Received twice: {attention_map.key!r}.")
            self._maps[attention_map.key] = attention_map

    def __getitem__(self, key: str) -> AttentionMap:
        if key not in self._maps:
            raise KeyError(f"There is no map {key!r}. There are: {', '.join(self._maps) or 'none'}.")
        return self._maps[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)

    def __repr__(self) -> str:
        return "\n".join(["AttentionMaps of:", *(f"  {attention_map!r}" for attention_map in self.values())])

    def _repr_html_(self) -> str | None:
        return notebook.display(self) if self else None

    @property
    def nbytes(self) -> int:
        """Bytes that are held (not what all weights would take)."""
        return sum(attention_map.nbytes for attention_map in self.values())

    def select(self, *patterns: str) -> "AttentionMaps":
        """Return the maps whose key matches one of the patterns, such as "decoder/*".

        Raises:
            KeyError: a pattern matches nothing.
        """
        for pattern in patterns:
            if not fnmatch.filter(self, pattern):
                raise KeyError(f"No map matches {pattern!r}. There are: {', '.join(self) or 'none'}.")
        return AttentionMaps(
            attention_map
            for key, attention_map in self.items()
            if any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
        )

    def with_tokens(self, tokens: Any, length: int | None = None) -> "AttentionMaps":
        """Return these maps with tokens on the queries and keys of every map that has `length` of them.

        Maps of another number of examples stay as they are: those of heads that are part of the batch, for example.

        Args:
            tokens: a list of strings for each example, or for the only one; of documents, a list of sentences for each.
            length: the length that the tokens were padded to; by default the smallest number of keys that holds the longest list.

        Raises:
            ValueError: no map has as many examples as there are lists.
        """
        tokens = tokens_per_example(tokens) or ()
        matching = [attention_map for attention_map in self.values() if attention_map.takes_tokens(len(tokens))]
        if self and not matching:
            raise ValueError(
                "There must be one list of tokens for each example. "
                f"Received: {len(tokens)} lists for {sorted({each.shape[0] for each in self.values()})} examples."
            )
        if length is None:
            longest = max(map(len, tokens), default=0)
            fitting = (each.shape[-1] for each in matching if each.shape[-1] >= longest)
            length = min(fitting, default=longest)
        return AttentionMaps(
            dataclasses.replace(
                attention_map,
                tokens=tokens if attention_map.shape[-1] == length else attention_map.tokens,
                query_tokens=tokens if attention_map.shape[-2] == length else attention_map.query_tokens,
            )
            if attention_map in matching
            else attention_map
            for attention_map in self.values()
        )

    def diff(self, other: "AttentionMaps") -> dict[str, Difference]:
        """Compute how far the heads of each map that both have differ. See `Difference`.

        Raises:
            ValueError: no key is in both, or maps have different shapes.
        """
        common = [key for key in self if key in other]
        if not common:
            raise ValueError(f"The maps have no key in common. Received: {list(self)} and {list(other)}.")
        return {key: self[key].diff(other[key]) for key in common}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all maps to a .npz file, atomically. Nothing is pickled; `numpy.load` reads it too."""
        serialization.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "AttentionMaps":
        """Read maps that `save` wrote. A file of unknown origin runs no code and takes no more memory than its size.

        Raises:
            ArtifactError: the file is damaged, or no file of attention maps.
            OSError: there is no such file.
        """
        return cls(serialization.load(path))

    @classmethod
    def concat(cls, batches: Iterable["AttentionMaps"]) -> "AttentionMaps":
        """Concatenate the maps of several batches. Shorter batches are zero-padded, and the padding is masked.

        Raises:
            ValueError: the batches have different maps.
        """
        batches = list(batches)
        for batch in batches:
            if list(batch) != list(batches[0]):
                raise ValueError(
                    f"Batches must have the same maps to be concatenated. Received: {list(batches[0])} and {list(batch)}."
                )
        return cls(_concat([batch[key] for batch in batches]) for key in (batches[0] if batches else ()))


def _concat(maps: list[AttentionMap]) -> AttentionMap:
    if len(maps) == 1:
        return maps[0]
    source = concat_sources([attention_map.source for attention_map in maps])
    tokens, query_tokens = (
        _concat_tokens([getattr(each, name) for each in maps], [each.shape[:-3] for each in maps], source.shape[1:-3])
        for name in ("tokens", "query_tokens")
    )
    return dataclasses.replace(maps[0], source=source, tokens=tokens, query_tokens=query_tokens)


def _concat_tokens(
    per_batch: list[tuple[Tokens, ...] | None], lead_shapes: list[tuple[int, ...]], steps: tuple[int, ...]
) -> tuple[Tokens, ...] | None:
    """Concatenate the tokens of batches, of which each has a shape (B, ...) of lists; steps that are padding have none."""
    lists: list[Tokens] = []
    for tokens, lead_shape in zip(per_batch, lead_shapes, strict=True):
        if tokens is None:
            return None
        given = dict(zip(np.ndindex(*lead_shape), tokens, strict=True))
        lists += [given.get(index, Tokens(())) for index in np.ndindex(lead_shape[0], *steps)]
    return tuple(lists)
