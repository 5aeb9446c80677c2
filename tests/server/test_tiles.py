"""Tiles of long maps against all weights in float64: every zoom, every kind of mask and score, bounded memory."""

import threading
from typing import Any

import numpy as np
import pytest

from limelight.maps import AttentionMap, StoredMask
from limelight.maps.sources import QKSource, WeightSource

pytest.importorskip("starlette", reason="needs the extra limelight[serve]")
pytest.importorskip("uvicorn", reason="needs the extra limelight[serve]")

from limelight.server import tiles
from limelight.server.errors import InputError
from limelight.server.tiles import AbandonedError, TileCache, get_coarse_zoom

pytestmark = pytest.mark.backend_free

# Neither is a multiple of a block or of a tile.
ROWS, COLUMNS, HEAD = 707, 613, 2


def make_source(kind):
    """Return a source of four heads, of which two share the keys, and the additive part and mask of its scores."""
    random = np.random.default_rng(11)
    query = random.standard_normal((1, 4, ROWS, 5)).astype(np.float32)
    key = random.standard_normal((1, 2, COLUMNS, 5)).astype(np.float32)
    queries, keys = np.arange(ROWS)[:, None], np.arange(COLUMNS)[None]
    fields: dict[str, Any] = {"scale": 1.5}
    bias, allowed = 0.0, np.ones((ROWS, COLUMNS), bool)
    if kind == "large":  # Sums of exponentials overflow unless they are rescaled on the way.
        bias = np.where(keys % 200 == 150, 300.0, -300.0) + queries
        fields["bias"] = np.broadcast_to(bias, (1, 1, ROWS, COLUMNS)).astype(np.float32)
    elif kind == "causal":
        fields["mask"], allowed = StoredMask(right=0, offset=COLUMNS - ROWS), keys <= queries + COLUMNS - ROWS
    elif kind == "window":
        fields["mask"], allowed = StoredMask(left=40, right=3), (keys >= queries - 40) & (keys <= queries + 3)
    elif kind == "padding":
        real_keys, real_queries = random.random(COLUMNS) > 0.3, random.random(ROWS) > 0.3
        fields["mask"] = StoredMask(keys=real_keys[None], queries=real_queries[None])
        allowed = real_keys[None] & real_queries[:, None]
    elif kind == "array":
        allowed = random.random((ROWS, COLUMNS)) > 0.97
        allowed[100:140] = False
        heads = np.zeros((1, 4, ROWS, COLUMNS), bool)
        heads[0, HEAD] = allowed
        fields["mask"] = StoredMask(array=heads)
    elif kind == "softcap":
        fields["softcap"] = 2.0
    elif kind == "additive":
        fields["vector"] = random.standard_normal(5).astype(np.float32)
    return QKSource(query, key, **fields), bias, allowed


def compute_weights(source, bias, allowed):
    """Compute all weights of one head in float64."""
    query, key = source.query[0, HEAD].astype(float), source.key[0, HEAD // 2].astype(float)
    scores = (
        np.tanh(query[:, None] + key[None]) @ source.vector.astype(float)
        if source.vector is not None
        else query @ key.T
    )
    scores = source.scale * scores
    if source.softcap is not None:
        scores = source.softcap * np.tanh(scores / source.softcap)
    scores = np.where(allowed, scores + bias, -np.inf)
    largest = scores.max(axis=1, keepdims=True, initial=-1e300)
    exponentials = np.exp(scores - largest)
    total = exponentials.sum(axis=1, keepdims=True)
    return exponentials / np.where(total > 0, total, 1)


def check_tile(tile, weights, row, column, zoom, rtol=1e-5):
    """Compare a tile with sums and maxima of all weights between the borders of its blocks."""
    extent, size = 256 << zoom, 1 << zoom
    region = weights[row * extent : (row + 1) * extent, column * extent : (column + 1) * extent]
    rows, columns = (np.arange(0, length, size) for length in region.shape)
    counts = np.outer(
        *(np.diff([*starts, length]) for starts, length in zip((rows, columns), region.shape, strict=True))
    )
    means = np.add.reduceat(np.add.reduceat(region, rows, axis=0), columns, axis=1) / counts
    maxima = np.maximum.reduceat(np.maximum.reduceat(region, rows, axis=0), columns, axis=1)
    assert tile.means.shape == tile.maxima.shape == counts.shape
    np.testing.assert_allclose(tile.means, means, rtol=rtol, atol=1e-9)
    np.testing.assert_allclose(tile.maxima, maxima, rtol=rtol, atol=1e-9)


@pytest.mark.parametrize("kind", ["plain", "large", "causal", "window", "padding", "array", "softcap", "additive"])
@pytest.mark.parametrize("coarse_zoom", [0, 3])
def test_tiles_against_all_weights(kind, coarse_zoom, monkeypatch):
    monkeypatch.setattr(tiles, "_MAX_BLOCK_BYTES", 8 * (ROWS >> coarse_zoom) * (COLUMNS >> coarse_zoom))
    source, *rest = make_source(kind)
    weights, cache = compute_weights(source, *rest), TileCache(1 << 30)
    attention_map = AttentionMap("a", source)
    assert get_coarse_zoom(attention_map) == coarse_zoom
    places = [(0, 0, 0), (0, 2, 2), (0, 1, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0), (12, 0, 0)]
    for zoom, row, column in places:
        tile = cache.compute("run", attention_map, HEAD, row, column, zoom)
        # A score of 1,000 is rounded to 3e-5 in float32.
        check_tile(tile, weights, row, column, zoom, rtol=2e-4 if kind == "large" else 1e-5)


@pytest.mark.parametrize("coarse_zoom", [0, 2])
def test_captured_weights_of_any_normalizer(coarse_zoom, monkeypatch):
    monkeypatch.setattr(tiles, "_MAX_BLOCK_BYTES", 8 * (ROWS >> coarse_zoom) * (COLUMNS >> coarse_zoom))
    scores = np.random.default_rng(2).standard_normal((1, 3, ROWS, COLUMNS))
    # Sparsemax: scores less a threshold of each row, where they are above it.
    ordered = np.sort(scores, axis=-1)[..., ::-1]
    sums, counts = np.cumsum(ordered, axis=-1) - 1, np.arange(1, COLUMNS + 1)
    support = (ordered * counts > sums).sum(axis=-1, keepdims=True)
    weights = np.maximum(scores - np.take_along_axis(sums, support - 1, -1) / support, 0)
    np.testing.assert_allclose(weights.sum(-1), 1)
    keys = np.arange(COLUMNS) < 600
    source = WeightSource(weights.astype(np.float32), StoredMask(keys=keys[None]))
    for zoom, row, column in [(0, 2, 2), (1, 1, 1), (2, 0, 0), (3, 0, 0)]:
        tile = TileCache(1 << 30).compute("run", AttentionMap("a", source), 1, row, column, zoom)
        check_tile(tile, weights[0, 1] * keys, row, column, zoom)


def test_rows_are_reduced_once(monkeypatch):
    reduced, original = [], QKSource.reduce_rows
    monkeypatch.setattr(
        QKSource, "reduce_rows", lambda self, *arguments: reduced.append(1) or original(self, *arguments)
    )
    monkeypatch.setattr(tiles, "_MAX_BLOCK_BYTES", 1 << 18)
    cache, attention_map = TileCache(1 << 30), AttentionMap("a", make_source("plain")[0])
    wanted = [(0, 0, 0), (0, 0, 1), (0, 0, 2), (1, 0, 0), (3, 0, 0)]
    threads = [
        threading.Thread(target=cache.compute, args=("run", attention_map, 0, row, column, zoom))
        for zoom, row, column in wanted
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reduced) == 3
    cache.compute("run", attention_map, 1, 0, 0, 0)
    cache.compute("another run", attention_map, 0, 0, 0, 0)
    assert len(reduced) == 5
    before = cache.nbytes
    cache.discard("run")
    assert 0 < cache.nbytes < before
    cache.discard("another run")
    assert cache.nbytes == 0


@pytest.mark.parametrize("kind", ["plain", "causal", "padding"])
@pytest.mark.parametrize("coarse_zoom", [0, 3])
@pytest.mark.parametrize(("zoom", "row", "column", "num_rows"), [(1, 0, 1, 24), (2, 0, 0, 96), (3, 0, 0, 24)])
def test_a_sampled_tile_is_that_of_some_queries(kind, coarse_zoom, zoom, row, column, num_rows, monkeypatch):
    monkeypatch.setattr(tiles, "_MAX_BLOCK_BYTES", 8 * (ROWS >> coarse_zoom) * (COLUMNS >> coarse_zoom))
    monkeypatch.setattr(tiles, "_MAX_SAMPLED_SCORES", num_rows * COLUMNS)
    source, *rest = make_source(kind)
    weights, cache, attention_map = compute_weights(source, *rest), TileCache(1 << 30), AttentionMap("a", source)
    read, original = [], QKSource.reduce_rows
    monkeypatch.setattr(
        QKSource, "reduce_rows", lambda self, *arguments: read.append(arguments[2]) or original(self, *arguments)
    )
    tile = cache.compute("run", attention_map, HEAD, row, column, zoom, sampled=True)
    extent, size = 256 << zoom, 1 << zoom
    (rows,) = read
    stop = min((row + 1) * extent, ROWS)
    assert row * extent <= rows.min() <= rows.max() < stop
    assert np.all(np.diff(rows) >= 0)
    assert len(rows) <= num_rows
    assert tile.share == len(rows) / (stop - row * extent)
    exact = cache.compute("run", attention_map, HEAD, row, column, zoom)
    assert exact.share == 1
    assert tile.means.shape == exact.means.shape
    # Rows of blocks stand together in groups, each with as many of the queries.
    num_blocks = tile.means.shape[0]
    blocks_per_group = -(-num_blocks // num_rows)
    num_groups = -(-num_blocks // blocks_per_group)
    columns = np.arange(column * extent, min((column + 1) * extent, COLUMNS), size)
    counts = np.diff([*columns, min((column + 1) * extent, COLUMNS)])
    for block in range(num_blocks):
        chosen = rows.reshape(num_groups, -1)[block // blocks_per_group]
        start = row * extent + block // blocks_per_group * blocks_per_group * size
        assert start <= chosen.min() <= chosen.max() < start + blocks_per_group * size
        region = weights[chosen, : columns[-1] + counts[-1]]
        means = np.add.reduceat(region, columns, axis=1).mean(0) / counts
        np.testing.assert_allclose(tile.means[block], means, rtol=1e-4, atol=1e-9)
        maxima = np.maximum.reduceat(region, columns, axis=1).max(0)
        np.testing.assert_allclose(tile.maxima[block], maxima, rtol=1e-4, atol=1e-9)
    # What has been read once is exact ever after.
    again = cache.compute("run", attention_map, HEAD, row, column, zoom, sampled=True)
    assert again.share == 1
    np.testing.assert_array_equal(again.means, exact.means)


def test_means_of_sampled_tiles_are_unbiased(monkeypatch):
    source, *rest = make_source("plain")
    weights = compute_weights(source, *rest)
    exact = TileCache(1 << 30).compute("run", AttentionMap("a", source), HEAD, 0, 0, 3)
    monkeypatch.setattr(tiles, "_MAX_SAMPLED_SCORES", 24 * COLUMNS)
    total, original = np.zeros_like(exact.means), np.random.default_rng
    for seed in range(200):
        monkeypatch.setattr(np.random, "default_rng", lambda _, seed=seed: original(seed))
        tile = TileCache(1 << 30).compute("run", AttentionMap("a", source), HEAD, 0, 0, 3, sampled=True)
        total = total + tile.means / 200
    assert exact.means.shape == total.shape
    # The mean of many samples, summed over queries, is what each block of keys receives.
    sizes = np.diff([*range(0, ROWS, 8), ROWS])
    expected = np.add.reduceat(weights.sum(0), np.arange(0, COLUMNS, 8)) / np.diff([*range(0, COLUMNS, 8), COLUMNS])
    received = sizes @ total
    assert np.corrcoef(received, expected)[0, 1] > 0.99
    assert received.sum() == pytest.approx(expected.sum(), rel=0.01)


def test_a_sample_is_taken_only_where_it_is_less_work():
    cache, attention_map = TileCache(1 << 30), AttentionMap("a", make_source("plain")[0])
    assert all(cache.compute("run", attention_map, HEAD, 0, 0, zoom, sampled=True).share == 1 for zoom in (0, 1, 2))


def test_a_tile_that_nobody_waits_for_is_not_finished(monkeypatch):
    reduced, original = [], QKSource.reduce_rows
    monkeypatch.setattr(
        QKSource, "reduce_rows", lambda self, *arguments: reduced.append(1) or original(self, *arguments)
    )
    cache, attention_map = TileCache(1 << 30), AttentionMap("a", make_source("plain")[0])
    with pytest.raises(AbandonedError):
        cache.compute("run", attention_map, 0, 0, 0, 3, is_wanted=lambda: len(reduced) < 2)
    assert len(reduced) == 2
    # What was read is not lost.
    cache.compute("run", attention_map, 0, 0, 0, 3)
    assert len(reduced) == 3


def test_memory_of_strips_is_bounded():
    attention_map = AttentionMap("a", make_source("plain")[0])
    whole = TileCache(1 << 30)
    whole.compute("run", attention_map, 0, 0, 0, 12)
    assert whole.nbytes == 8 * ROWS + 8 * ROWS * COLUMNS
    small = TileCache(whole.nbytes // 2)
    tile = small.compute("run", attention_map, 0, 0, 0, 12)
    assert 0 < small.nbytes <= whole.nbytes // 2
    np.testing.assert_array_equal(tile.maxima, whole.compute("run", attention_map, 0, 0, 0, 12).maxima)


def test_a_map_of_a_million_tokens_has_blocks_of_bounded_size():
    zooms = {}
    for length in (500, 2_000, 10_000, 100_000, 1_000_000):
        query = np.broadcast_to(np.zeros(1, np.float32), (1, 1, length, 4))
        zooms[length] = get_coarse_zoom(AttentionMap("a", QKSource(query, query)))
    assert zooms == {500: 0, 2_000: 0, 10_000: 2, 100_000: 5, 1_000_000: 8}


@pytest.mark.parametrize("place", [(4, 0, 0, 0), (0, 3, 0, 0), (0, 0, 3, 0), (0, 2, 0, 1), (0, 0, 0, 13)])
def test_tiles_that_do_not_exist(place):
    with pytest.raises(
        InputError, match=r"`(head|row|column)` must be below \d+ .* Received: \d|`zoom` must be at most 12"
    ):
        TileCache(1 << 20).compute("run", AttentionMap("a", make_source("plain")[0]), *place)
