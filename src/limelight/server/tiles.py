"""Exact squares of the weights of long maps, computed when they are looked at.

Rows are reduced in strips of 256, each in one pass over all keys: the logsumexp of its rows, and the sums and maxima of coarse
blocks. With the logsumexp, a square costs its own rows and columns alone; squares of coarse blocks, or coarser, cost nothing.

The first look at a square of many rows reads some of them only and comes at once; the exact one takes a pass for each strip.
"""

import collections
import functools
import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from limelight.maps import AttentionMap
from limelight.maps.sources import QKSource, StatisticsSource, WeightSource
from limelight.server.errors import InputError

# Cells of a tile along each axis, and rows of a strip.
TILE_SIZE = 256
MAX_ZOOM = 12
# Bytes of the coarse blocks of one head.
_MAX_BLOCK_BYTES = 96 << 20
# Scores that are computed for a square of which some rows are read: a quarter of a strip of 100,000 keys.
_MAX_SAMPLED_SCORES = 6 << 20


class AbandonedError(Exception):
    """Nobody waits for a tile any more."""


class WeightTile(NamedTuple):
    """The weights of a square region of a map in blocks of 2^zoom queries and keys; at the end of a map they are smaller.

    Args:
        means: (t, s), float32.
        maxima: (t, s), float32.
        share: The share of the queries that was read. Below 1, means are estimates and maxima are those of these queries.
    """

    means: np.ndarray
    maxima: np.ndarray
    share: float = 1.0


class _Place(NamedTuple):
    """The place of a tile in a head of a map.

    Args:
        source: Queries and keys, or weights.
        head: The head.
        rows, columns: The queries and keys.
        zoom: Blocks have 2^zoom queries and keys.
        coarse_zoom: That of the blocks of strips.
    """

    source: QKSource | WeightSource
    head: int
    rows: range
    columns: range
    zoom: int
    coarse_zoom: int

    @property
    def strips(self) -> range:
        """The numbers of the strips that hold the rows."""
        return range(self.rows.start // TILE_SIZE, -(-self.rows.stop // TILE_SIZE))

    def select_blocks(self, zoom: int) -> slice:
        """Return the blocks of 2^zoom keys that hold the columns."""
        return slice(self.columns.start >> zoom, -(-self.columns.stop >> zoom))

    def compute_weights(self, rows: np.ndarray, logsumexp: np.ndarray) -> np.ndarray:
        """Compute the weights of some rows in the columns (r, s)."""
        columns = slice(self.columns.start, self.columns.stop)
        weights, _ = self.source.row_weights((0,), np.array([self.head]), rows, columns, logsumexp[None])
        return weights[0]

    def reduce_rows(self, rows: np.ndarray, zoom: int) -> "Strip":
        """Reduce some rows over blocks of 2^zoom keys of all keys."""
        reduced = self.source.reduce_rows((0,), np.array([self.head]), rows, 1 << zoom)
        return Strip(*(each[0] for each in reduced))


class Strip(NamedTuple):
    """Rows of one head, reduced.

    Args:
        logsumexp: That of the scores of each row, (r,); NaN where weights were captured.
        sums: The sums of weights over coarse blocks, (t, s).
        maxima: The largest weights of coarse blocks, (t, s).
    """

    logsumexp: np.ndarray
    sums: np.ndarray
    maxima: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return sum(array.nbytes for array in self)


# The name of the run, the key of the map, the head, the zoom of a sample or -1, and the number of the strip or the first row.
_Key = tuple[str, str, int, int, int]


class TileCache:
    """Tiles of maps, and the strips that they are computed from. It may be used by several threads.

    Args:
        max_bytes: The largest size of all strips; those that have not been used for longest go first.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._strips: collections.OrderedDict[_Key, Strip] = collections.OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()
        # Threads that want the same strip shall not compute it twice.
        self._computing: dict[_Key, threading.Lock] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self._num_bytes

    def compute(
        self,
        run: str,
        attention_map: AttentionMap,
        head: int,
        row: int,
        column: int,
        zoom: int,
        *,
        sampled: bool = False,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> WeightTile:
        """Compute the weights of a square of a map: the means and maxima of at most 256 x 256 blocks.

        Args:
            run: The name of the run that the map belongs to.
            attention_map: A map with queries and keys, or weights. Of several examples the first is shown.
            head: The head.
            row, column: The number of the tile along the queries and along the keys.
            zoom: A tile covers 256 * 2 ** `zoom` queries and keys; at zoom 0 each block is one weight.
            sampled: Read a sample of the queries if all would take several passes over the keys. At zoom 0, and where the rows
                have been read, tiles are exact.
            is_wanted: Called between passes; returns False if nobody waits for the tile any more.

        Raises:
            InputError: There is no such tile, head or zoom, only statistics were kept, or the layer ran once for each step.
            AbandonedError: `is_wanted` returned False.
        """
        place = _find_place(attention_map, head, row, column, zoom)
        name = (run, attention_map.key, head)
        missing = sum(self._find((*name, -1, index)) is None for index in place.strips)
        num_scores = missing * TILE_SIZE * place.source.shape[-1]
        if sampled and missing > 1 and num_scores > _MAX_SAMPLED_SCORES:
            return self._sample(name, place)
        sums, maxima = [], []
        for index in place.strips:
            if not is_wanted():
                raise AbandonedError
            strip = self._get((*name, -1, index), functools.partial(_reduce_strip, place, index))
            for parts, each in zip((sums, maxima), _read_strip(place, index, strip), strict=True):
                parts.append(each)
        factor = 1 << max(0, zoom - place.coarse_zoom)
        total = _reduce(np.add, np.concatenate(sums), factor)
        largest = _reduce(np.maximum, np.concatenate(maxima), factor)
        sizes = (_measure_blocks(each, zoom) for each in (place.rows, place.columns))
        means = total / np.multiply.outer(*sizes).astype(np.float32)
        return WeightTile(means.astype(np.float32), largest)

    def _sample(self, name: tuple[str, str, int], place: _Place) -> WeightTile:
        """Compute a tile from some of its queries; a query may stand for several rows of blocks."""
        rows, repeats = _sample_rows(place)
        key = (*name, place.zoom, place.rows.start)
        strip = self._get(key, lambda: place.reduce_rows(rows.ravel(), max(place.zoom, place.coarse_zoom)))
        if place.zoom >= place.coarse_zoom:
            blocks = place.select_blocks(place.zoom)
            sums, maxima = strip.sums[:, blocks], strip.maxima[:, blocks]
        else:
            weights = place.compute_weights(rows.ravel(), strip.logsumexp)
            sums, maxima = (_reduce_rows(each, weights.T, 1 << place.zoom).T for each in (np.add, np.maximum))
        shape = (*rows.shape, sums.shape[1])
        means = sums.reshape(shape).mean(axis=1) / _measure_blocks(place.columns, place.zoom)
        count = len(_measure_blocks(place.rows, place.zoom))
        means, largest = (
            np.repeat(each, repeats, axis=0)[:count].astype(np.float32)
            for each in (means, maxima.reshape(shape).max(axis=1))
        )
        return WeightTile(means, largest, rows.size / len(place.rows))

    def discard(self, run: str) -> None:
        """Forget the strips of a run."""
        with self._lock:
            for key in [key for key in self._strips if key[0] == run]:
                self._num_bytes -= self._strips.pop(key).nbytes

    def _get(self, key: _Key, compute: Callable[[], Strip]) -> Strip:
        """Return a strip, computed once."""
        strip = self._find(key)
        if strip is not None:
            return strip
        with self._lock:
            lock = self._computing.setdefault(key, threading.Lock())
        with lock:
            strip = self._find(key)
            if strip is None:
                strip = compute()
                self._store(key, strip)
        with self._lock:
            self._computing.pop(key, None)
        return strip

    def _find(self, key: _Key) -> Strip | None:
        with self._lock:
            if key in self._strips:
                self._strips.move_to_end(key)
            return self._strips.get(key)

    def _store(self, key: _Key, strip: Strip) -> None:
        with self._lock:
            self._strips[key] = strip
            self._num_bytes += strip.nbytes
            while self._num_bytes > self.max_bytes:
                self._num_bytes -= self._strips.popitem(last=False)[1].nbytes


def get_coarse_zoom(attention_map: AttentionMap) -> int:
    """Return the zoom of the coarse blocks of strips: the smallest at which those of one head take no more than 96 MiB."""
    rows, columns = attention_map.shape[-2:]
    fits = (zoom for zoom in range(8) if 8 * (rows >> zoom) * (columns >> zoom) <= _MAX_BLOCK_BYTES)
    return next(fits, 8)


def _check_source(attention_map: AttentionMap) -> QKSource | WeightSource:
    if isinstance(attention_map.source, StatisticsSource):
        raise InputError(
            "A tile must be of weights. Received: a map of which only statistics are kept, because the text is too long. Send a "
            "shorter text."
        )
    if len(attention_map.shape) > 4:
        raise InputError(
            f"A tile must be of a map (N, T, S). Received: a layer that ran more than once, {attention_map.shape[1:]}. Choose "
            "another map."
        )
    return attention_map.source


def _find_place(attention_map: AttentionMap, head: int, row: int, column: int, zoom: int) -> _Place:
    """Return the place of a tile.

    Raises:
        InputError: There is none.
    """
    source = _check_source(attention_map)
    heads, rows, columns = attention_map.shape[-3:]
    if not 0 <= zoom <= MAX_ZOOM:
        raise InputError(f"`zoom` must be at most {MAX_ZOOM}. Received: {zoom}. Choose a smaller one.")
    extent = TILE_SIZE << zoom
    limits = {"head": (head, heads), "row": (row, -(-rows // extent)), "column": (column, -(-columns // extent))}
    for name, (value, limit) in limits.items():
        if not 0 <= value < limit:
            raise InputError(
                f"`{name}` must be below {limit} in a map of {heads} heads, {rows} queries and {columns} keys at zoom {zoom}. "
                f"Received: {value}. Count from 0."
            )
    of_rows, of_columns = (
        range(index * extent, min((index + 1) * extent, length)) for index, length in ((row, rows), (column, columns))
    )
    return _Place(source, head, of_rows, of_columns, zoom, get_coarse_zoom(attention_map))


def _strip_rows(place: _Place, index: int) -> np.ndarray:
    return np.arange(index * TILE_SIZE, min((index + 1) * TILE_SIZE, place.source.shape[-2]))


def _reduce_strip(place: _Place, index: int) -> Strip:
    strip = place.reduce_rows(_strip_rows(place, index), place.coarse_zoom)
    size = 1 << place.coarse_zoom
    return Strip(strip.logsumexp, _reduce_rows(np.add, strip.sums, size), _reduce_rows(np.maximum, strip.maxima, size))


def _read_strip(place: _Place, index: int, strip: Strip) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums and maxima of a strip in the columns, over blocks of 2^zoom, or over coarse blocks if they are larger."""
    if place.zoom >= place.coarse_zoom:
        blocks = place.select_blocks(place.coarse_zoom)
        return strip.sums[:, blocks], strip.maxima[:, blocks]
    weights = place.compute_weights(_strip_rows(place, index), strip.logsumexp)
    return _reduce(np.add, weights, 1 << place.zoom), _reduce(np.maximum, weights, 1 << place.zoom)


def _sample_rows(place: _Place) -> tuple[np.ndarray, int]:
    """Choose rows for the first look at a tile: (groups, rows of a group), and the rows of blocks of a group.

    The rows of a group are one of each equal part of it, at random: fixed steps could always meet the same place of a pattern.
    """
    num_blocks = len(_measure_blocks(place.rows, place.zoom))
    count = min(max(16, _MAX_SAMPLED_SCORES // place.source.shape[-1]), TILE_SIZE)
    blocks_per_group = -(-num_blocks // count)
    size = blocks_per_group << place.zoom
    num_groups = -(-len(place.rows) // size)
    starts = place.rows.start + size * np.arange(num_groups)
    stops = np.minimum(starts + size, place.rows.stop)
    parts = max(1, count // num_groups)
    shares = (np.arange(parts) + np.random.default_rng(place.rows.start).random((num_groups, parts))) / parts
    return starts[:, None] + (shares * (stops - starts)[:, None]).astype(np.int64), blocks_per_group


def _measure_blocks(places: range, zoom: int) -> np.ndarray:
    """Return the lengths of the blocks of 2^zoom; the last one may be shorter."""
    return np.minimum(1 << zoom, places.stop - np.arange(places.start, places.stop, 1 << zoom))


def _reduce(function: np.ufunc, array: np.ndarray, size: int) -> np.ndarray:
    """Reduce (r, s) over blocks of size x size, of which the last may be smaller."""
    return _reduce_rows(function, _reduce_rows(function, array, size).T, size).T


def _reduce_rows(function: np.ufunc, array: np.ndarray, size: int) -> np.ndarray:
    """Reduce (r, s) over blocks of rows, of which the last may be smaller."""
    if size == 1:
        return array
    whole = len(array) // size * size
    blocks = function.reduce(array[:whole].reshape(-1, size, array.shape[1]), axis=1)
    if whole == len(array):
        return blocks
    return np.concatenate([blocks, function.reduce(array[whole:], axis=0, keepdims=True)])
