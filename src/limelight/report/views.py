"""The data of an attention viewer: maps of one or several models or epochs, with tokens, rankings and series."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from limelight.maps import AttentionMap, StatisticsSource
from limelight.maps.statistics import find_finite_examples
from limelight.report.payload import pack, pack_signed, pack_tiles, quantize, round_digits

# Maps up to this length have every weight in the page, as long as there are at most so many weights in all: those of 12 layers
# of 12 heads.
MAX_EXACT = 512
MAX_WEIGHTS = 12 * 12 * MAX_EXACT**2
# Longer maps have means and maxima of blocks, each of them a cell, and the strongest keys of each query, and share so many cells.
MAX_CELLS = 20_000_000
NUM_TOP_KEYS = 16
# The room that a key takes, in cells.
_CELLS_PER_KEY = 6
# Up to so many weights and cells are stored in 255 steps, about 0.75 bytes each; more of them in 63 steps, about 0.45 bytes.
MAX_FINE = 16_000_000
# The sizes from which the finest level of a map is chosen.
_SIZES = (4096, 2048, 1024, MAX_EXACT, 256, 128, 64)
_TILE = 256


@dataclasses.dataclass(frozen=True)
class View:
    """The content of an attention viewer.

    Args:
        maps: A mapping from layer paths to attention maps, as `limelight.capture` returns; or one map; or to compare models or
            epochs, a mapping from their titles to such maps.
        rankings: Other rankings of the keys by their names, beside that by attention. Each is a mapping of signed maps, such as
            `limelight.inspection.gradient_times_attention` returns; or a list with the values (S,) of the tokens of each example.
        series: The values of each example over the keys, (S,) or (S, channels), which are drawn under the weights.
        labels: A line about each example, such as its prediction.
        importance: The importance (N,) of the heads by the path of their layer, from `limelight.inspection.head_importance`.
        epochs: True if the titles are those of epochs, between which a slider moves.

    Raises:
        TypeError: `maps` has no attention maps.
        ValueError: A ranking, a series or a label does not fit the examples.

    Example:
        >>> weights = AttentionMap.from_weights(np.eye(2), path="reader", tokens=["a", "film"])
        >>> view = View(weights, rankings={"gradient x input": [[0.1, -0.4]]})
        >>> [title for title, _ in view.sets]
        ['']
    """

    maps: Any
    rankings: Mapping[str, Any] | None = None
    series: Sequence[Any] | None = None
    labels: Sequence[str] | None = None
    importance: Mapping[str, Any] | None = None
    epochs: bool = False

    def __post_init__(self) -> None:
        _ = self.sets

    @property
    def sets(self) -> list[tuple[str, dict[str, AttentionMap]]]:
        """The maps by the title of their model or epoch; the title of the only one is empty."""
        maps = self.maps
        if isinstance(maps, Mapping) and maps and all(isinstance(each, Mapping) for each in maps.values()):
            return [(str(title), _check_maps(each)) for title, each in maps.items()]
        return [("", _check_maps(maps))]

    def __bool__(self) -> bool:
        """Return True if there is a map to show."""
        return any(maps for _, maps in self.sets)

    def estimate_bytes(self) -> int:
        """Return about how many bytes of the page the weights take; nothing is computed."""
        return int(_Reader(self).num_bytes)

    def to_document(self) -> dict[str, Any]:
        """Return the view as the script of the page reads it."""
        return _Reader(self).read()


def _check_maps(maps: Any) -> dict[str, AttentionMap]:
    if maps is None:
        return {}
    if isinstance(maps, AttentionMap):
        maps = {maps.key: maps}
    if not isinstance(maps, Mapping):
        raise TypeError(
            "`maps` must be a mapping from names to attention maps, as `limelight.capture` returns. Received: "
            f"{type(maps).__name__}. Make a map of weights with AttentionMap.from_weights(weights, tokens=...)."
        )
    for name, attention in maps.items():
        if not isinstance(attention, AttentionMap):
            raise TypeError(
                f"`maps` must hold attention maps. Received: {type(attention).__name__} under {name!r}. Make a map of "
                "weights with AttentionMap.from_weights(weights, tokens=...)."
            )
    return {str(name): attention for name, attention in maps.items() if 0 not in attention.shape}


@dataclasses.dataclass(frozen=True)
class _Example:
    """One example of a map: its tokens without padding, and its weights (N, t, s), or means and maxima of blocks of them."""

    index: tuple[int, ...]
    rows: int
    columns: int
    queries: Sequence[str] | None
    keys: Sequence[str] | None
    means: np.ndarray
    maxima: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Resolution:
    """The parts of a map that are stored in the page, and their sizes.

    Args:
        num_blocks: The number of blocks along the longer side of the finest level; the length itself for every weight.
        num_keys: The number of strongest keys of each query; 0 for none.
        num_cells: The number of weights, or of means and maxima at all levels, of each head.
    """

    num_blocks: int
    num_keys: int
    num_cells: int


class _Reader:
    """Reads a view; tokens that several maps share are stored once."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.tokens: dict[tuple[str, ...], int] = {}
        self.notes: list[str] = []
        self.sets = view.sets
        everything = [attention for _, maps in self.sets for attention in maps.values()]
        self.num_examples = self._limit_examples(everything)
        heads = {each: math.prod(each.shape[1:-2]) * min(self.num_examples, each.shape[0]) for each in everything}
        short = [each for each in everything if max(each.shape[-2:]) <= MAX_EXACT]
        weights = sum(heads[each] * math.prod(each.shape[-2:]) for each in short)
        self.has_every_weight = weights <= MAX_WEIGHTS
        if not self.has_every_weight:
            short, weights = [], 0
        blocked = [each for each in everything if each not in short]
        self.cells_per_head = MAX_CELLS // max(sum(heads[each] for each in blocked), 1)
        resolutions = {each: self._choose_resolution(each) for each in blocked}
        cells = sum(heads[each] * resolutions[each].num_cells for each in blocked)
        keys = sum(heads[each] * each.shape[-2] * resolutions[each].num_keys for each in blocked)
        self.steps = 255 if weights + cells <= MAX_FINE else 63
        # A key takes two bytes, its weight one, before they are deflated and become text.
        self.num_bytes = (weights + cells) * (0.75 if self.steps == 255 else 0.45) + 3.5 * keys

    def _limit_examples(self, maps: Sequence[AttentionMap]) -> int:
        """Return the number of examples of which the page can hold every weight of maps that are not long; at least one."""
        count = max((each.shape[0] for each in maps), default=0)
        weights = sum(math.prod(each.shape[1:]) for each in maps if max(each.shape[-2:]) <= MAX_EXACT)
        blocks = sum(2 * MAX_EXACT**2 * each.num_heads for each in maps if max(each.shape[-2:]) > MAX_EXACT)
        fitting = max(1, min(count, MAX_WEIGHTS // max(weights, 1), MAX_CELLS // max(blocks, 1)))
        if fitting < count:
            self.notes.append(f"Only the first {fitting} of {count} examples are in this page, for its size.")
        return fitting

    def read(self) -> dict[str, Any]:
        self._note_missing()
        sets = [
            {"title": title, "maps": [self._read_map(name, attention, number) for name, attention in maps.items()]}
            for number, (title, maps) in enumerate(self.sets)
        ]
        return {
            "epochs": self.view.epochs,
            "sets": sets,
            "tokens": [list(tokens) for tokens in self.tokens],
            "series": None
            if self.view.series is None
            else [_read_series(each) for each in self._per_example("series")],
            "labels": None if self.view.labels is None else [str(each) for each in self._per_example("labels")],
            "notes": self.notes,
        }

    def _note_missing(self) -> None:
        """Say of which maps weights are missing."""
        names: dict[str, None] = {}
        for title, maps in self.sets:
            for name, attention in maps.items():
                if not find_finite_examples(attention.source)[: self.num_examples].all():
                    names[f"{name} ({title})" if title else name] = None
        if names:
            self.notes.append(f"Weights that are NaN or infinity are missing, and not drawn, in: {', '.join(names)}.")

    def _per_example(self, name: str) -> Sequence[Any]:
        values = list(getattr(self.view, name))
        count = max((each.shape[0] for _, maps in self.sets for each in maps.values()), default=0)
        if len(values) != count:
            raise ValueError(
                f"`{name}` must have one entry for each example. Received: {len(values)} for {count} examples."
            )
        return values[: self.num_examples]

    def _read_map(self, name: str, attention: AttentionMap, number: int) -> dict[str, Any]:
        importance = (self.view.importance or {}).get(name)
        resolution = self._choose_resolution(attention)
        lengths = _find_lengths(attention)
        # Blocks of what is not padded are not those of the whole map.
        is_one_pass = lengths == attention.shape[-2:] and resolution.num_blocks < max(lengths)
        statistics = attention.statistics(
            top_k=max(1, resolution.num_keys), num_blocks=resolution.num_blocks if is_one_pass else 1
        )
        return {
            "name": name,
            "layer": attention.layer,
            "heads": attention.num_heads,
            "importance": None if importance is None else [round_digits(value) for value in np.ravel(importance)],
            "drift": None if number == 0 else _drift(self.sets[0][1].get(name), attention),
            "examples": [
                {
                    **self._read_example(attention, statistics, example, resolution),
                    "rankings": self._read_rankings(name, attention, example) if number == 0 else [],
                }
                for example in self._iter_examples(attention, statistics, resolution.num_blocks, is_one_pass)
            ],
        }

    def _iter_examples(
        self, attention: AttentionMap, statistics: Any, num_blocks: int, has_blocks: bool
    ) -> Iterator[_Example]:
        """Yield the examples of a map. `has_blocks`: the statistics have the blocks of the finest level."""
        rows, columns = attention.shape[-2:]
        blocks = None
        if has_blocks or isinstance(attention.source, StatisticsSource):
            blocks = statistics.block_means, statistics.block_max
        elif num_blocks < max(rows, columns):
            rows, columns = _find_lengths(attention)
            downsampled = attention.downsample(rows=slice(0, rows), columns=slice(0, columns), num_blocks=num_blocks)
            blocks = downsampled.means, downsampled.maxima
        for index in np.ndindex(attention.shape[:-3]):
            if index[0] >= self.num_examples:
                return
            queries, keys = _find_tokens(attention, index)
            if blocks is None:
                weights = attention.weights(examples=[index[0]])[(0, *index[1:])]
                rows, columns = _unpadded_shape(weights, queries, keys)
                means = maxima = weights[:, :rows, :columns]
            else:
                means, maxima = (each[index] for each in blocks)
            yield _Example(index, rows, columns, queries, keys, means, maxima)

    def _read_example(
        self, attention: AttentionMap, statistics: Any, example: _Example, resolution: _Resolution
    ) -> dict[str, Any]:
        queries, keys = self._store(example.queries, example.rows), self._store(example.keys, example.columns)
        is_square = attention.shape[-2] == attention.shape[-1]
        unpadded = slice(0, min(example.rows, len(example.queries or ())) or example.rows)
        entropy, distance, mass = (
            each[example.index][:, unpadded] for each in (statistics.entropy, statistics.distance, statistics.mass)
        )
        # Padding may stand anywhere, and may have tokens: such queries attend to nothing.
        attends = mass != 0
        entropy, distance = (_mean_where(each, attends) for each in (entropy, distance))
        grid = example.maxima.shape[-2:]
        levels = _read_levels(example, resolution.num_blocks, self.steps)
        is_exact = (levels[-1]["rows"], levels[-1]["columns"]) == (example.rows, example.columns)
        return {
            "rows": example.rows,
            "columns": example.columns,
            "grid": {"rows": grid[0], "columns": grid[1]},
            "queries": None if queries == keys else queries,
            "keys": keys,
            "permitted": _count_permitted(attention, example),
            "entropy": _round_finite(entropy),
            "distance": _round_finite(distance) if is_square else None,
            "levels": levels,
            "missing": _pack_missing(statistics.entropy[example.index][:, : example.rows]),
            "top": None if is_exact or not resolution.num_keys else _read_top(statistics, example),
        }

    def _choose_resolution(self, attention: AttentionMap) -> _Resolution:
        """Return the finest blocks and the most keys of each query that the page has room for; keys take half of it at most."""
        rows, columns = attention.shape[-2:]
        longest, room = max(rows, columns), self.cells_per_head
        captured = attention.source.top_keys.shape[-1] if isinstance(attention.source, StatisticsSource) else columns
        most, per_key = min(captured, NUM_TOP_KEYS), _CELLS_PER_KEY * rows
        # Of statistics not every weight is known, however short the map is.
        kept = most if isinstance(attention.source, StatisticsSource) else 0
        if self.has_every_weight and longest <= MAX_EXACT:
            return _Resolution(longest, kept, rows * columns)
        # The coarser levels take at most a third more.
        if MAX_EXACT < longest <= _SIZES[0] and 4 * rows * columns // 3 <= room:
            return _Resolution(longest, kept, 4 * rows * columns // 3)
        reserved = per_key * min(most, room // (2 * per_key))
        fits = (size for size in _SIZES if size < longest and _count_cells(size, rows, columns) <= room - reserved)
        size = next(fits, _SIZES[-1])
        cells = _count_cells(size, rows, columns)
        return _Resolution(size, min(most, max(0, room - cells) // per_key), cells)

    def _read_rankings(self, name: str, attention: AttentionMap, example: _Example) -> list[dict[str, Any]]:
        rankings = []
        for title, values in (self.view.rankings or {}).items():
            if isinstance(values, Mapping):
                if name in values:
                    rankings.append(_rank_pairs(title, values[name], attention, example))
                continue
            given = list(values)
            if len(given) != attention.shape[0]:
                raise ValueError(
                    f"`rankings` must have one entry for each example. Received: {len(given)} under {title!r} for "
                    f"{attention.shape[0]} examples."
                )
            scores = np.asarray(given[example.index[0]], np.float64).ravel()
            # Layers over other positions have other keys.
            if example.columns <= len(scores) <= attention.shape[-1] or len(scores) == example.columns:
                rankings.append(_rank(title, scores[: example.columns]))
        return rankings

    def _store(self, tokens: Sequence[str] | None, count: int) -> int | None:
        """Store `count` tokens, missing ones numbered from 1, and return their index; None without tokens."""
        if not tokens:
            return None
        complete = (*tokens[:count], *(f"#{index + 1}" for index in range(len(tokens), count)))
        return self.tokens.setdefault(complete, len(self.tokens))


def _count_cells(size: int, rows: int, columns: int) -> int:
    """Return the number of means and maxima of blocks at all levels, of which the finest has `size` blocks along an axis."""
    cells = 2 * min(size, rows) * min(size, columns)
    return cells if size <= MAX_EXACT else 4 * cells // 3


def _find_lengths(attention: AttentionMap) -> tuple[int, int]:
    """Return the numbers of queries and keys of the longest example."""
    rows, columns = (
        max((len(each) for each in tokens or ()), default=0) or length
        for tokens, length in zip((attention.query_tokens, attention.tokens), attention.shape[-2:], strict=True)
    )
    return rows, columns


def _find_tokens(attention: AttentionMap, index: tuple[int, ...]) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Return the query tokens and the key tokens of an example, or None where the map has none."""
    position = int(np.ravel_multi_index(index, attention.shape[:-3]))
    queries, keys = (tokens[position] if tokens else None for tokens in (attention.query_tokens, attention.tokens))
    return queries or None, keys or None


def _unpadded_shape(
    weights: np.ndarray, query_tokens: Sequence[str] | None, key_tokens: Sequence[str] | None
) -> tuple[int, int]:
    """Return the numbers of rows and columns of weights (N, T, S) that have a token or a weight."""
    _, used_rows, used_columns = (int(indices.max(initial=0)) + 1 for indices in np.nonzero(weights))
    columns = max(used_columns, len(key_tokens or ()))
    if query_tokens:
        # A padded query may have weights too; the tokens determine where the text ends.
        return len(query_tokens), columns
    return (columns if weights.shape[1] == weights.shape[2] else used_rows), columns


def _mean_where(values: np.ndarray, is_counted: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of the values that count; NaN where none does."""
    counts = is_counted.sum(axis=-1)
    sums = values.sum(axis=-1, dtype=np.float64, where=is_counted)
    return np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0)


def _count_permitted(attention: AttentionMap, example: _Example) -> list[str] | None:
    """Return the packed numbers of keys that each query may attend to, once if the heads agree, else for each head.

    None if a query may attend to all keys or to none, or if the mask is not known.
    """
    heads, columns = np.arange(attention.num_heads), slice(0, example.columns)
    size = max(1, MAX_CELLS // (example.columns * len(heads)))
    parts = []
    for start in range(0, example.rows, size):
        rows = np.arange(start, min(start + size, example.rows))
        mask = attention.source.mask.for_rows(example.index, heads, rows, attention.shape[-1], columns)
        if mask is None:
            return None
        parts.append(np.broadcast_to(mask, (len(mask), len(rows), example.columns)).sum(axis=-1))
    counts = np.concatenate(parts, axis=-1)
    if np.isin(counts, (0, example.columns)).all():
        return None
    return [pack(each.astype(np.uint32)) for each in (counts[:1] if (counts == counts[:1]).all() else counts)]


def _pack_missing(entropy: np.ndarray) -> list[str] | None:
    """Return for each head a packed byte for each query, 1 if not all of its weights are finite; None if all are."""
    is_missing = ~np.isfinite(entropy)
    return [pack(each.astype(np.uint8)) for each in is_missing] if is_missing.any() else None


def _drift(first: AttentionMap | None, second: AttentionMap) -> list[float] | None:
    """Return the divergence between the heads of the same index in two maps; None if they cannot be compared."""
    if first is None or first.shape != second.shape:
        return None
    if isinstance(first.source, StatisticsSource) or isinstance(second.source, StatisticsSource):
        return None
    return [round_digits(value) for value in first.diff(second).same_index]


def _read_levels(example: _Example, num_blocks: int, steps: int) -> list[dict[str, Any]]:
    """Return the weights at several zooms, from the coarsest to the finest, each with half as many cells along both axes.

    The finest has at most `num_blocks` cells along an axis. `shift` is how many times the blocks of the example were halved.
    """
    means, maxima = example.means, example.maxima
    sizes = np.outer(_block_sizes(example.rows, maxima.shape[-2]), _block_sizes(example.columns, maxima.shape[-1]))
    levels: list[dict[str, Any]] = []
    for shift in itertools.count():
        rows, columns = maxima.shape[-2:]
        is_exact = (rows, columns) == (example.rows, example.columns)
        tile = MAX_EXACT if is_exact and max(rows, columns) <= MAX_EXACT else _TILE
        is_coarsest = max(rows, columns) <= min(MAX_EXACT, num_blocks)
        if max(rows, columns) <= num_blocks:
            level = {
                "shift": shift,
                "rows": rows,
                "columns": columns,
                "tile": tile,
                "maxima": pack_tiles(maxima, tile, steps),
            }
            levels.append(level if is_exact else {**level, "means": pack_tiles(means, tile, steps)})
        if is_coarsest:
            break
        sums, maxima, sizes = _halve(means * sizes, np.add), _halve(maxima, np.maximum), _halve(sizes, np.add)
        means = sums / sizes
    return levels[::-1]


def _block_sizes(total: int, count: int) -> np.ndarray:
    return np.diff(np.arange(count + 1) * total // count)


def _halve(blocks: np.ndarray, combine: np.ufunc) -> np.ndarray:
    """Combine each two neighbours along the last two axes; a last one without a neighbour stays."""
    for axis in (-2, -1):
        starts = np.arange(0, blocks.shape[axis], 2)
        blocks = combine.reduceat(blocks, starts, axis=axis)
    return blocks


def _read_top(statistics: Any, example: _Example) -> dict[str, Any]:
    """Return the strongest keys of each query, and the mass of the others."""
    # A missing key has index -1 and weight 0, so any index will do.
    keys = np.maximum(statistics.top_keys[example.index][:, : example.rows], 0)
    weights = statistics.top_weights[example.index][:, : example.rows]
    rest = np.nan_to_num(np.clip(statistics.mass[example.index][:, : example.rows] - weights.sum(-1), 0, 1))
    quantized = [quantize(each) for each in weights]
    dtype = np.uint16 if example.columns <= 1 << 16 else np.uint32
    return {
        "count": keys.shape[-1],
        "wide": dtype is np.uint32,
        "keys": [pack(each.astype(dtype)) for each in keys],
        "scale": [scale for scale, _ in quantized],
        "weights": [pack(levels) for _, levels in quantized],
        "rest": [pack(np.rint(65535 * each).astype(np.uint16)) for each in rest],
    }


def _rank(title: Any, scores: np.ndarray) -> dict[str, Any]:
    """Return the strongest tokens by the size of their values, which are the same for every query."""
    title, scores = _drop_non_finite(title, scores)
    order = np.argsort(-np.abs(scores), kind="stable")[:NUM_TOP_KEYS]
    values = [round_digits(scores[index]) for index in order]
    return {"title": title, "shared": True, "keys": order.tolist(), "values": values}


def _drop_non_finite(title: Any, values: np.ndarray) -> tuple[str, np.ndarray]:
    """Return values with 0 for those that are not finite, and the title, which tells how many these are."""
    is_finite = np.isfinite(values)
    if is_finite.all():
        return str(title), values
    return f"{title}, {values.size - is_finite.sum():,} of {values.size:,} not finite", np.where(is_finite, values, 0.0)


def _rank_pairs(title: str, values: Any, attention: AttentionMap, example: _Example) -> dict[str, Any]:
    """Return the strongest keys of each query by the size of their signed values."""
    if not isinstance(values, AttentionMap) or values.shape != attention.shape:
        received = values.shape if isinstance(values, AttentionMap) else type(values).__name__
        raise ValueError(
            f"`rankings` must have maps of the shape of those of the attention. Received: {received} under {title!r}, for "
            f"{attention.key!r} of shape {attention.shape}."
        )
    weights = values.weights(
        examples=[example.index[0]], rows=slice(0, example.rows), columns=slice(0, example.columns)
    )[(0, *example.index[1:])]
    title, signed = _drop_non_finite(title, weights)
    count = min(NUM_TOP_KEYS, example.columns)
    keys = np.argsort(-np.abs(signed), axis=-1, kind="stable")[..., :count]
    packed = [pack_signed(each) for each in np.take_along_axis(signed, keys, axis=-1)]
    return {
        "title": title,
        "shared": False,
        "count": count,
        "keys": [pack(each.astype(np.uint16)) for each in keys],
        "scale": [scale for scale, _ in packed],
        "values": [levels for _, levels in packed],
    }


def _read_series(values: Any) -> list[list[float | None]]:
    """Return the channels of a series."""
    channels = np.atleast_2d(np.asarray(values, np.float64).T)
    return [_round_finite(channel) for channel in channels[:8]]


def _round_finite(values: np.ndarray) -> list[float | None]:
    """Return numbers of four significant digits, and None for those that are missing."""
    return [round_digits(value) if math.isfinite(value) else None for value in values]
