"""Exact squares of the weights of long maps, computed when they are looked at.

Rows are reduced in strips of 256, each in one pass over all keys: the logsumexp of its rows, and the sums and maxima of coarse
blocks. With the logsumexp, a square costs its own rows and columns alone; squares of coarse blocks, or coarser, cost nothing.
"""

import collections
import threading
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


class Tile(NamedTuple):
    """The weights of a square region of a map in blocks of 2^zoom queries and keys; at the end of a map they are smaller.

    Args:
        means: (t, s), float32.
        maxima: (t, s), float32.
    """

    means: np.ndarray
    maxima: np.ndarray


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


class TileCache:
    """Tiles of maps, and the strips that they are computed from. It may be used by several threads.

    Args:
        max_bytes: The largest size of all strips; those that have not been used for longest go first.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._strips: collections.OrderedDict[tuple[str, str, int, int], Strip] = collections.OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()
        # Threads that want the same strips shall not compute them twice.
        self._computing = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self._num_bytes

    def compute(self, run: str, attention_map: AttentionMap, head: int, row: int, column: int, zoom: int) -> Tile:
        """Compute the weights of a square of a map, exactly: the means and maxima of at most 256 x 256 blocks.

        Args:
            run: The name of the run that the map belongs to.
            attention_map: A map with queries and keys, or weights. Of several examples the first is shown.
            head: The head.
            row, column: The number of the tile along the queries and along the keys.
            zoom: A tile covers 256 * 2 ** `zoom` queries and keys; at zoom 0 each block is one weight.

        Raises:
            InputError: There is no such tile, head or zoom, only statistics were kept, or the layer ran once for each step.
        """
        source = _check_source(attention_map)
        heads, rows, columns = attention_map.shape[-3:]
        extent = TILE_SIZE << zoom
        if not 0 <= zoom <= MAX_ZOOM:
            raise InputError(f"`zoom` must be at most {MAX_ZOOM}.")
        if not 0 <= head < heads or row < 0 or row * extent >= rows or column < 0 or column * extent >= columns:
            raise InputError(f"There is no such tile in a map of {heads} heads, {rows} queries and {columns} keys.")
        coarse_zoom = get_coarse_zoom(attention_map)
        sums, maxima = [], []
        first = row << zoom
        keys = slice(column * extent, min((column + 1) * extent, columns))
        for index in range(first, min(first + (1 << zoom), -(-rows // TILE_SIZE))):
            strip = self._get_strip(run, attention_map.key, source, head, index, coarse_zoom)
            if zoom >= coarse_zoom:
                blocks = slice(keys.start >> coarse_zoom, -(-keys.stop >> coarse_zoom))
                sums.append(strip.sums[:, blocks])
                maxima.append(strip.maxima[:, blocks])
                continue
            selected = (np.array([head]), _strip_rows(index, rows))
            weights, _ = source.row_weights((0,), *selected, keys, strip.logsumexp[None])
            reduced = [_reduce(function, weights[0], 1 << zoom) for function in (np.add, np.maximum)]
            sums.append(reduced[0])
            maxima.append(reduced[1])
        factor = 1 << max(0, zoom - coarse_zoom)
        total = _reduce(np.add, np.concatenate(sums), factor)
        largest = _reduce(np.maximum, np.concatenate(maxima), factor)
        sizes = [
            np.minimum(1 << zoom, stop - np.arange(start, stop, 1 << zoom))
            for start, stop in ((row * extent, min((row + 1) * extent, rows)), (keys.start, keys.stop))
        ]
        means = total / np.multiply.outer(*sizes).astype(np.float32)
        return Tile(means.astype(np.float32), largest)

    def discard(self, run: str) -> None:
        """Forget the strips of a run."""
        with self._lock:
            for key in [key for key in self._strips if key[0] == run]:
                self._num_bytes -= self._strips.pop(key).nbytes

    def _get_strip(
        self, run: str, name: str, source: QKSource | WeightSource, head: int, index: int, coarse_zoom: int
    ) -> Strip:
        key = (run, name, head, index)
        strip = self._find(key)
        if strip is not None:
            return strip
        with self._computing:
            strip = self._find(key)
            if strip is None:
                strip = _reduce_strip(source, head, index, coarse_zoom)
                self._store(key, strip)
        return strip

    def _find(self, key: tuple[str, str, int, int]) -> Strip | None:
        with self._lock:
            if key in self._strips:
                self._strips.move_to_end(key)
            return self._strips.get(key)

    def _store(self, key: tuple[str, str, int, int], strip: Strip) -> None:
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
        raise InputError("Of this input only statistics are kept, because it is too long.")
    if len(attention_map.shape) > 4:
        raise InputError("The tiles of a layer that ran once for each step cannot be shown.")
    return attention_map.source


def _strip_rows(index: int, num_rows: int) -> np.ndarray:
    return np.arange(index * TILE_SIZE, min((index + 1) * TILE_SIZE, num_rows))


def _reduce_strip(source: QKSource | WeightSource, head: int, index: int, coarse_zoom: int) -> Strip:
    selected = (np.array([head]), _strip_rows(index, source.shape[-2]))
    logsumexp, sums, maxima = source.reduce_rows((0,), *selected, 1 << coarse_zoom)
    rows = 1 << coarse_zoom
    return Strip(logsumexp[0], _reduce_rows(np.add, sums[0], rows), _reduce_rows(np.maximum, maxima[0], rows))


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
