"""One layer's attention in one call."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from limelight._attention_statistics import AttentionStatistics
from limelight._indexing import resolve_indices
from limelight._optional import import_optional
from limelight.maps import notebook
from limelight.maps.sources import QKSource, RowBlock, Source, StatisticsSource, WeightSource, iter_row_blocks
from limelight.maps.statistics import (
    Difference,
    DownsampledWeights,
    compute_difference,
    compute_downsampled,
    compute_statistics,
)
from limelight.maps.tokens import Tokens, as_tokens, tokens_per_example

_CONTENTS = {QKSource: "queries and keys", WeightSource: "weights", StatisticsSource: "statistics"}


@dataclasses.dataclass(frozen=True, eq=False)
class AttentionMap:
    r"""The attention of one layer in one call, as numpy. Weights are computed on demand, and only those asked for.

    Weights have shape (B, N, T, S): B examples, N heads, T queries, S keys. A layer that ran once for each step of a sequence
    (inside `TimeDistributed`, say) has one more axis after B. A query that may attend to nothing, or that is padding, has
    weights 0, whatever the layer's kernel computes for such a row.

    Args:
        path: the layer's path in the model, such as "decoder/cross_attention".
        source: the layer's queries and keys, its weights, or their statistics.
        call_index: which call of the layer this is, from 0: a shared layer may be called several times.
        layer: the class name of the layer.
        tokens: for each example the tokens of the keys, or None; for each step of each example if there is an axis of steps.
        query_tokens: the tokens of the queries, or None.

    Raises:
        ValueError: there are more tokens than positions, or not one list for each example.

    Example:
        >>> import numpy as np
        >>> from limelight import AttentionMap
        >>> attention_map = AttentionMap.from_weights(np.array([[0.25, 0.75]]), tokens=["a", "b"])
        >>> attention_map.shape
        (1, 1, 1, 2)
        >>> print(attention_map.weights(columns=[1]))
        [[[[0.75]]]]
    """

    path: str
    source: Source
    call_index: int = 0
    layer: str = ""
    tokens: tuple[Tokens, ...] | None = None
    query_tokens: tuple[Tokens, ...] | None = None

    def __post_init__(self) -> None:
        for name, length in (("tokens", self.shape[-1]), ("query_tokens", self.shape[-2])):
            value = getattr(self, name)
            if value is None:
                continue
            tokens = tuple(as_tokens(example) for example in value)
            longest = max(map(len, tokens), default=0)
            if len(tokens) == self.shape[0]:
                tokens = tuple(example for example in tokens for _ in range(math.prod(self.shape[1:-3])))
            if len(tokens) != self.num_token_lists or longest > length:
                raise ValueError(
                    f"`{name}` must be one list for each of the {self.num_token_lists} examples, of at most {length} tokens. "
                    f"Received: {len(tokens)} lists, the longest of {longest}."
                )
            object.__setattr__(self, name, tokens)

    @classmethod
    def from_weights(
        cls, weights: Any, *, path: str = "attention", tokens: Any = None, query_tokens: Any = None
    ) -> "AttentionMap":
        """Make a map of weights that you have.

        Args:
            weights: (T, S), (N, T, S) or (B, N, T, S).
            path: the map's path.
            tokens, query_tokens: as in `with_tokens`.

        Raises:
            ValueError: the weights have fewer than two axes.
        """
        weights = np.asarray(weights)
        if weights.ndim < 2:
            raise ValueError(f"Weights must have shape (T, S), (N, T, S) or (B, N, T, S). Received: {weights.shape}.")
        weights = weights.reshape((1,) * (4 - weights.ndim) + weights.shape)
        attention_map = cls(path, WeightSource(weights.astype(np.float32, copy=False)))
        return attention_map.with_tokens(tokens, query_tokens)

    def _repr_html_(self) -> str:
        return notebook.display(self)

    @property
    def key(self) -> str:
        """The key of this map in `AttentionMaps`: its path, with "#1" and so on after the layer's first call."""
        return f"{self.path}#{self.call_index}" if self.call_index else self.path

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all weights: (B, N, T, S)."""
        return self.source.shape

    @property
    def num_token_lists(self) -> int:
        """The number of lists of tokens: that of examples times that of steps."""
        return math.prod(self.shape[:-3])

    def takes_tokens(self, num_lists: int) -> bool:
        """Return True if there is one list of tokens for each example, or for each step of each example."""
        return num_lists in (self.shape[0], self.num_token_lists)

    @property
    def num_heads(self) -> int:
        """The number of heads N."""
        return self.shape[-3]

    @property
    def nbytes(self) -> int:
        """Bytes that are held (not what all weights would take)."""
        values = [*vars(self.source).values(), *vars(self.source.mask).values()]
        return sum(value.nbytes for value in values if isinstance(value, np.ndarray))

    def weights(self, heads: Any = None, rows: Any = None, columns: Any = None, examples: Any = None) -> np.ndarray:
        """Compute the weights of some heads, queries, keys and examples; by default of all.

        Args:
            heads, rows, columns, examples: an int, a slice, a list of ints or bools. An int keeps its axis, of length 1.

        Returns:
            (b, n, t, s) in float32. Nothing larger than the result and a block of rows is held.

        Raises:
            IndexError: an index lies outside its axis.
            ValueError: only statistics were captured.
        """
        heads, rows, columns, examples = (
            resolve_indices(selection, length, name)
            for name, selection, length in (
                ("heads", heads, self.shape[-3]),
                ("rows", rows, self.shape[-2]),
                ("columns", columns, self.shape[-1]),
                ("examples", examples, self.shape[0]),
            )
        )
        result = np.empty((len(examples), *self.shape[1:-3], len(heads), len(rows), len(columns)), np.float32)
        chosen = None if np.array_equal(columns, np.arange(self.shape[-1])) else columns
        for index in range(len(examples)):
            for block in iter_row_blocks(self.source, heads, rows, examples[index : index + 1], chosen):
                result[(index, *block.example[1:], slice(None), block.part)] = block.weights
        return result

    def statistics(self, top_k: int = 16, num_blocks: int = 64) -> AttentionStatistics:
        """Compute statistics of every row and column in one pass, without a T x S array. See `AttentionStatistics`.

        Args:
            top_k: how many keys of each query.
            num_blocks: the largest number of coarse blocks along an axis; ignored where only statistics were captured.

        Raises:
            ValueError: a number is below 1, or `top_k` is above the number of keys that were captured with statistics alone.
        """
        if isinstance(self.source, StatisticsSource):
            return self.source.statistics(top_k)
        return compute_statistics(self.source, top_k, num_blocks)

    def downsample(
        self, heads: Any = None, rows: Any = None, columns: Any = None, *, num_blocks: int = 256
    ) -> DownsampledWeights:
        """Compute a picture of a region at the zoom that makes it fit: means and maxima of blocks. See `DownsampledWeights`.

        Args:
            heads: as in `weights`.
            rows, columns: the region, as slices of step 1; all where None.
            num_blocks: the largest number of blocks along an axis.

        Raises:
            ValueError: a region is empty or no slice of step 1, or `num_blocks` is below 1.
        """
        return compute_downsampled(self.source, heads, rows, columns, num_blocks)

    def diff(self, other: "AttentionMap") -> Difference:
        """Compute how far the heads of two maps of the same examples, queries and keys differ. See `Difference`.

        Raises:
            ValueError: the examples, queries or keys differ.
        """
        if (*self.shape[:-3], *self.shape[-2:]) != (*other.shape[:-3], *other.shape[-2:]):
            raise ValueError(
                "Two maps must have the same examples, queries and keys to be compared. Received: "
                f"{self.key!r} of shape {self.shape} and {other.key!r} of shape {other.shape}."
            )
        return compute_difference(self.source, other.source)

    def iter_blocks(self, heads: Any = None, rows: Any = None) -> Iterator[RowBlock]:
        """Go through all weights in blocks of whole rows that fit in memory.

        Args:
            heads, rows: as in `weights`.

        Yields:
            A `RowBlock` with the fields `example`, `rows`, `weights` (n, r, S) and `logsumexp` (n, r).
        """
        return iter_row_blocks(
            self.source,
            resolve_indices(heads, self.shape[-3], "heads"),
            resolve_indices(rows, self.shape[-2], "rows"),
        )

    def with_tokens(self, tokens: Any = None, query_tokens: Any = None) -> "AttentionMap":
        """Return this map with tokens.

        Args:
            tokens: the tokens of the keys: a list of strings (for one example), or one list for each example, or for each of
                its steps, as of the sentences of a document. For T = S they are those of the queries too.
            query_tokens: the tokens of the queries.
        """
        tokens = tokens_per_example(tokens)
        if query_tokens is None and self.shape[-2] == self.shape[-1]:
            query_tokens = tokens
        return dataclasses.replace(self, tokens=tokens, query_tokens=tokens_per_example(query_tokens))

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with a row for each weight: example, head, query, key, their tokens, weight."""
        pandas = import_optional("pandas")
        names = self._axis_names()
        indices = np.indices(self.shape).reshape(len(names), -1)
        columns: dict[str, Any] = dict(zip(names, indices, strict=True))
        for name, tokens in (("query", self.query_tokens), ("key", self.tokens)):
            if tokens is not None:
                positions: Any = np.ravel_multi_index(indices[: len(names) - 3], self.shape[:-3])
                pairs = zip(positions, columns[name], strict=True)
                columns[f"{name}_token"] = [
                    tokens[example][index] if index < len(tokens[example]) else None for example, index in pairs
                ]
        return pandas.DataFrame({**columns, "weight": self.weights().reshape(-1)})

    def to_xarray(self) -> Any:
        """Return an `xarray.DataArray` of all weights with named axes."""
        return import_optional("xarray").DataArray(self.weights(), dims=self._axis_names(), name=self.key)

    def _axis_names(self) -> tuple[str, ...]:
        extra = len(self.shape) - 4
        steps = ["step"] if extra == 1 else [f"step_{index}" for index in range(extra)]
        return ("example", *steps, "head", "query", "key")

    def __repr__(self) -> str:
        return f"AttentionMap({self.key!r}, {self.layer or 'weights'}, {_CONTENTS[type(self.source)]} {self.shape})"
