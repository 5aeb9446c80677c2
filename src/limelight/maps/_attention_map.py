"""One layer's attention in one call."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from limelight._attention_statistics import AttentionStatistics
from limelight.maps import difference, statistics, tables, tiles
from limelight.maps.sources import QKSource, Source, StatisticsSource, WeightSource
from limelight.maps.stored_mask import selection
from limelight.maps.tiles import Tile
from limelight.maps.tokens import Tokens

# Weights that are held at once while rows are gone through: 32 MiB of float32.
_BLOCK = 1 << 23


@dataclasses.dataclass(frozen=True, eq=False)
class AttentionMap:
    r"""What one layer asked in one call, as numpy. Weights are computed when they are wanted, and only those.

    Weights have shape (B, N, T, S): B examples, N heads, T queries, S keys. A layer that ran once for each step of a sequence
    (inside `TimeDistributed`, say) has one more axis after B. A query that may attend to nothing, or that is padding, has
    weights 0, whatever the layer's kernel makes of such a row.

    Args:
        path: the layer's path in the model, such as "decoder/cross_attention".
        source: what it asked, or its weights.
        call: which call of the layer this is, from 0: a shared layer may be called several times.
        layer: the class of the layer.
        tokens: for each example the tokens of the keys, or None.
        query_tokens: for each example the tokens of the queries, or None.

    Raises:
        ValueError: more tokens than positions, or not one list for each example.

    Example:
        >>> import numpy as np
        >>> from limelight import AttentionMap
        >>> seen = AttentionMap.of(np.array([[0.25, 0.75]]), tokens=["a", "b"])
        >>> seen.shape
        (1, 1, 1, 2)
        >>> print(seen.weights(columns=[1]))
        [[[[0.75]]]]
    """

    path: str
    source: Source
    call: int = 0
    layer: str = ""
    tokens: tuple[Tokens, ...] | None = None
    query_tokens: tuple[Tokens, ...] | None = None

    def __post_init__(self) -> None:
        for name, length in (("tokens", self.shape[-1]), ("query_tokens", self.shape[-2])):
            given = getattr(self, name)
            if given is None:
                continue
            given = tuple(Tokens.of(one) for one in given)
            longest = max((len(one) for one in given), default=0)
            if len(given) != self.shape[0] or longest > length:
                raise ValueError(
                    f"`{name}` must be one list for each of the {self.shape[0]} examples, of at most {length} tokens. "
                    f"Received: {len(given)} lists, the longest of {longest}."
                )
            object.__setattr__(self, name, given)

    @classmethod
    def of(
        cls, weights: Any, *, path: str = "attention", tokens: Any = None, query_tokens: Any = None
    ) -> "AttentionMap":
        """A map of weights that you have: (T, S), (N, T, S) or (B, N, T, S), with tokens for each example, or for the only one.

        For T = S the tokens of the keys serve the queries too.
        """
        weights = np.asarray(weights)
        if weights.ndim < 2:
            raise ValueError(f"Weights must have shape (T, S), (N, T, S) or (B, N, T, S). Received: {weights.shape}.")
        weights = weights.reshape((1,) * (4 - weights.ndim) + weights.shape)
        found = cls(path, WeightSource(weights.astype(np.float32, copy=False)))
        return found.with_tokens(tokens, query_tokens)

    @property
    def key(self) -> str:
        """The name of this map among others: its path, and "#1" and so on after the layer's first call."""
        return f"{self.path}#{self.call}" if self.call else self.path

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all weights: (B, N, T, S)."""
        return self.source.shape

    @property
    def heads(self) -> int:
        """How many heads there are."""
        return self.shape[-3]

    @property
    def nbytes(self) -> int:
        """Bytes that are held (not what all weights would take)."""
        parts = [*vars(self.source).values(), *vars(self.source.allowed).values()]
        return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))

    def weights(self, heads: Any = None, rows: Any = None, columns: Any = None, examples: Any = None) -> np.ndarray:
        """Weights of the chosen heads, queries, keys and examples; of all where nothing is chosen.

        Args:
            heads, rows, columns, examples: an int, a slice, a list of ints or bools. An int keeps its axis, of length 1.

        Returns:
            (b, n, t, s) in float32. Nothing larger than the result and a block of rows is held.

        Raises:
            IndexError: an index outside.
        """
        heads, rows, columns, examples = self._selected(heads, rows, columns, examples)
        lead = self.shape[:-3]
        result = np.empty((len(examples), *lead[1:], len(heads), len(rows), len(columns)), np.float32)
        everything = len(columns) == self.shape[-1] and (columns == np.arange(self.shape[-1])).all()
        for place, example in self._examples(examples):
            for part in self._parts(heads, rows):
                block = self._weighable().block(example, heads, rows[part])
                result[place][:, part] = block if everything else block[..., columns]
        return result

    def statistics(self, top_k: int = 16, num_blocks: int = 64) -> AttentionStatistics:
        """Statistics of every row and column in one pass, never holding T x S numbers. See `AttentionStatistics`.

        Args:
            top_k: how many keys of each query.
            num_blocks: how many coarse blocks there are at most along an axis; as many as were captured of a survey.

        Raises:
            ValueError: numbers below 1, or more keys than were captured in a survey.
        """
        if isinstance(self.source, StatisticsSource):
            return self.source.statistics(top_k)
        return statistics.taken(self, top_k, num_blocks)

    def tile(self, rows: Any = None, columns: Any = None, heads: Any = None, *, num_blocks: int = 256) -> Tile:
        """A picture of a region of the weights at whatever zoom makes it fit: means and maxima of blocks. See `Tile`.

        Args:
            rows, columns: the region, as slices of step 1; all where None.
            heads: the heads, as in `weights`.
            num_blocks: the largest number of blocks along an axis.
        """
        return tiles.taken(self, rows, columns, heads, num_blocks)

    def diff(self, other: "AttentionMap") -> difference.Difference:
        """How far the heads of two maps of the same shape lie apart. See `Difference`."""
        return difference.between(self, other)

    def blocks(
        self, heads: Any = None, rows: Any = None
    ) -> Iterator[tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray]]:
        """Go through all weights in blocks of whole rows that fit in memory.

        Yields:
            The example (its index along B and any axes after it), the rows (r,), the weights (n, r, S), and each row's log of
            the sum of exponentials (n, r), NaN where only weights were captured.
        """
        chosen, picked = selection(heads, self.heads, "heads"), selection(rows, self.shape[-2], "rows")
        for example in np.ndindex(*self.shape[:-3]):
            for part in self._parts(chosen, picked):
                yield example, picked[part], *self._weighable().logsumexp(example, chosen, picked[part])

    def with_tokens(self, tokens: Any = None, query_tokens: Any = None) -> "AttentionMap":
        """The same map with tokens: a list of strings (for one example), or one list for each example.

        For T = S the tokens of the keys serve the queries too.
        """
        tokens = per_example(tokens)
        if query_tokens is None and self.shape[-2] == self.shape[-1]:
            query_tokens = tokens
        return dataclasses.replace(self, tokens=tokens, query_tokens=per_example(query_tokens))

    def to_pandas(self) -> Any:
        """A table with one line for each weight: example, head, query, key, their tokens, weight. Needs pandas."""
        return tables.frame(self)

    def to_xarray(self) -> Any:
        """An `xarray.DataArray` of all weights with named axes. Needs xarray."""
        return tables.data_array(self)

    def __repr__(self) -> str:
        held = {WeightSource: "weights", StatisticsSource: "survey"}.get(type(self.source), "asked")
        return f"AttentionMap({self.key!r}, {self.layer or 'weights'}, {held} {self.shape})"

    def _selected(self, heads: Any, rows: Any, columns: Any, examples: Any) -> list[np.ndarray]:
        given = {"heads": heads, "rows": rows, "columns": columns, "examples": examples}
        lengths = (*self.shape[-3:], self.shape[0])
        return [selection(one, length, name) for (name, one), length in zip(given.items(), lengths, strict=True)]

    def _examples(self, examples: np.ndarray) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        for place in np.ndindex(len(examples), *self.shape[1:-3]):
            yield place, (int(examples[place[0]]), *place[1:])

    def _weighable(self) -> QKSource | WeightSource:
        """The source, where weights can be had from it."""
        if isinstance(self.source, StatisticsSource):
            self.source.block((), np.arange(0), np.arange(0))
        return self.source  # pyright: ignore[reportReturnType]

    def _parts(self, heads: np.ndarray, rows: np.ndarray) -> Iterator[slice]:
        step = max(1, _BLOCK // max(1, self._weighable().cost * len(heads)))
        for start in range(0, len(rows), step):
            yield slice(start, start + step)


def per_example(tokens: Any) -> tuple[Tokens, ...] | None:
    """Tokens for each example, from those or from the tokens of the only one."""
    if tokens is None:
        return None
    if (
        isinstance(tokens, Tokens)
        or hasattr(tokens, "offsets")
        or (isinstance(tokens, Sequence) and tokens and isinstance(tokens[0], str))
    ):
        tokens = [tokens]
    return tuple(Tokens.of(one) for one in tokens)
