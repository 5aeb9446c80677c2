"""Weights in the page: equal to those of the map up to the quantization error, and without padding."""

import base64
import dataclasses
import itertools
import zlib

import numpy as np
import pytest

from limelight import report
from limelight.maps import AttentionMap, AttentionMaps, StatisticsSource, WeightSource
from limelight.maps.sources import QKSource
from limelight.maps.statistics import find_finite_examples
from limelight.maps.stored_mask import StoredMask
from limelight.report import payload, views
from limelight.report.views import View

pytestmark = pytest.mark.backend_free


def unpack(text: str, dtype=np.uint8) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.dtype(dtype).newbyteorder("<"))


def unpack_level(level, name="maxima") -> np.ndarray:
    """Return the cells of a level (N, rows, columns), put together from its tiles."""
    tile, packed = level["tile"], level[name]
    cells = np.zeros((len(packed["scale"]), level["rows"], level["columns"]))
    for head, (scale, tiles) in enumerate(zip(packed["scale"], packed["tiles"], strict=True)):
        tiles = iter(tiles)
        for row, column in itertools.product(range(0, level["rows"], tile), range(0, level["columns"], tile)):
            part = cells[head, row : row + tile, column : column + tile]
            part[:] = scale * (unpack(next(tiles)).reshape(part.shape) / packed["steps"]) ** 2
        assert not list(tiles)
    return cells


def read_maps(maps):
    """Return the maps of a view with their tokens in place."""
    document = View(maps).to_document()
    entries = document["sets"][0]["maps"]
    for example in (example for entry in entries for example in entry["examples"]):
        example |= {
            side: None if example[side] is None else document["tokens"][example[side]] for side in ("queries", "keys")
        }
    return entries


def softmax(scores: np.ndarray) -> np.ndarray:
    held = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return held / held.sum(axis=-1, keepdims=True)


def test_quantization_error(random):
    held = softmax(random.normal(0, 3, (7, 11)))
    scale, levels = payload.quantize(held)
    assert levels.dtype == np.uint8
    assert scale == held.max()
    restored = scale * (levels / 255.0) ** 2
    # At most half of a quantization step of the square root, which is 1 / 255.
    assert np.all(np.abs(np.sqrt(restored / scale) - np.sqrt(held / scale)) <= 0.5 / 255 + 1e-9)


def test_invalid_weights_become_zero():
    scale, levels = payload.quantize(np.array([np.nan, np.inf, -0.5, 0.5]))
    assert (scale, levels.tolist()) == (0.5, [0, 0, 0, 255])
    assert payload.quantize(np.zeros(3))[0] == 0.0


def test_bytes_are_little_endian_and_deflated():
    assert unpack(payload.pack(np.array([1, 70_000], ">u4")), np.uint32).tolist() == [1, 70_000]


def test_self_attention_without_padding(random):
    batch, heads, length = 2, 3, 7
    counts = (5, 4)
    held = np.zeros((batch, heads, length, length), np.float32)
    for index, count in enumerate(counts):
        held[index, :, :, :count] = softmax(random.normal(0, 1, (heads, length, count)))
    tokens = [[f"{index}{place}" for place in range(count)] for index, count in enumerate(counts)]
    (entry,) = read_maps(AttentionMaps([AttentionMap.from_weights(held, path="encoder", tokens=tokens)]))
    assert (entry["name"], entry["heads"]) == ("encoder", heads)
    for index, (example, count) in enumerate(zip(entry["examples"], counts, strict=True)):
        assert (example["rows"], example["columns"]) == (count, count)
        assert (example["queries"], example["keys"]) == (None, tokens[index])
        shown = held[index, :, :count, :count]
        assert unpack_level(example["levels"][0]) == pytest.approx(shown, abs=4e-3)
        for head, row_range in itertools.product(range(heads), [range(count)]):
            entropy = np.mean([-sum(w * np.log(w) for w in shown[head, row]) for row in row_range])
            distance = np.mean(
                [sum(w * abs(row - column) for column, w in enumerate(shown[head, row])) for row in row_range]
            )
            assert example["entropy"][head] == pytest.approx(entropy, rel=1e-3)
            assert example["distance"][head] == pytest.approx(distance, rel=1e-3)


@pytest.mark.parametrize("is_left", [True, False])
@pytest.mark.parametrize("has_tokens", [True, False])
def test_padded_queries_count_in_no_mean(random, is_left, has_tokens):
    length, heads, count = 11, 2, 7
    real = np.arange(length) >= length - count if is_left else np.arange(length) < count
    mask = StoredMask(keys=real[None], queries=real[None])
    source = QKSource(*random.normal(size=(2, 1, heads, length, 3)).astype(np.float32), mask=mask)
    tokens = [f"t{place}" for place in range(length)] if has_tokens else None
    attention = AttentionMap("mha", source).with_tokens(tokens)
    ((example,),) = [entry["examples"] for entry in read_maps(attention)]
    held = softmax(source.query[0] @ source.key[0].swapaxes(-1, -2) - np.where(real, 0, 1e9))
    for head in range(heads):
        entropies, distances = [], []
        for row in np.flatnonzero(real):
            entropies.append(-sum(w * np.log(w) for w in held[head, row] if w > 0))
            distances.append(sum(w * abs(row - column) for column, w in enumerate(held[head, row])))
        assert example["entropy"][head] == pytest.approx(np.mean(entropies), rel=1e-3)
        assert example["distance"][head] == pytest.approx(np.mean(distances), rel=1e-3)
    if example["columns"] == count:
        assert example["permitted"] is None
    else:
        (packed,) = example["permitted"]
        assert unpack(packed, np.uint32).tolist() == [count if place else 0 for place in real[: example["rows"]]]


def test_head_that_attends_to_nothing_has_no_mean(random):
    mask = StoredMask(array=np.array([True, False]).reshape(1, 2, 1, 1))
    source = QKSource(*random.normal(size=(2, 1, 2, 5, 3)).astype(np.float32), mask=mask)
    ((example,),) = [entry["examples"] for entry in read_maps(AttentionMap("mha", source))]
    assert [value is None for value in example["entropy"]] == [False, True]
    assert report.render(AttentionMap("mha", source)).count("<td>–</td>") == 2


def test_weights_that_are_not_finite_are_missing(random):
    held = softmax(random.normal(0, 1, (2, 3, 5, 7)))
    held[1, 2, 3, 1], held[1, 2, 4, 6] = np.nan, np.inf
    view = View({"cross": AttentionMap.from_weights(held), "other": AttentionMap.from_weights(held[0])})
    document = view.to_document()
    whole, broken = document["sets"][0]["maps"][0]["examples"]
    assert whole["missing"] is None
    assert [unpack(packed).tolist() for packed in broken["missing"]] == [[0] * 5, [0] * 5, [0, 0, 0, 1, 1]]
    assert [value is None for value in broken["entropy"]] == [False, False, True]
    assert document["notes"] == ["Weights that are NaN or infinity are missing, and not drawn, in: cross."]


def test_rankings_tell_how_many_values_are_not_finite(random):
    signed, scores = random.normal(0, 1, (1, 3, 4)), random.normal(0, 1, 4)
    signed[0, 1, 2], scores[1], scores[3] = np.inf, np.nan, -np.inf
    maps = AttentionMap.from_weights(np.full((1, 3, 4), 0.25), path="cross")
    rankings = {"gradient": {"cross": AttentionMap.from_weights(signed)}, "occlusion": [scores]}
    document = View(maps, rankings=rankings).to_document()
    pairs, shared = document["sets"][0]["maps"][0]["examples"][0]["rankings"]
    assert pairs["title"] == "gradient, 1 of 12 not finite"
    assert pairs["scale"] == [pytest.approx(np.abs(signed[np.isfinite(signed)]).max())]
    assert shared["title"] == "occlusion, 2 of 4 not finite"
    order = sorted((0, 2), key=lambda key: -abs(scores[key]))
    assert shared["keys"][:2] == order
    assert shared["values"] == pytest.approx([*scores[order], 0, 0], rel=1e-3)


def test_statistics_that_are_not_finite_are_missing(random):
    held = softmax(random.normal(0, 1, (1, 2, 5, 7)))
    held[0, 1, 2] = np.nan
    statistics = AttentionMap.from_weights(held).statistics(top_k=3, num_blocks=4)
    fields = {name: getattr(statistics, name) for name in statistics._fields if name != "output"}
    ((example,),) = [entry["examples"] for entry in read_maps(AttentionMap("long", StatisticsSource(**fields)))]
    assert [unpack(packed).tolist() for packed in example["missing"]] == [[0] * 5, [0, 0, 1, 0, 0]]


@pytest.mark.parametrize("place", ["query", "key", "bias", "vector", "overflow", "masked", "minus infinity"])
def test_which_examples_are_finite(random, place):
    query, key = random.normal(size=(2, 3, 2, 5, 4)).astype(np.float32)
    bias = np.zeros((3, 1, 5, 5), np.float32)
    mask, vector = StoredMask(), None
    if place in ("query", "key"):
        (query if place == "query" else key)[1, 0, 2, 3] = np.nan
    elif place == "bias":
        bias[1, 0, 2, 3] = np.nan
    elif place == "vector":
        vector = np.full(4, np.nan)
    elif place == "overflow":
        query[1, 0, 2], key[1, 0, 3] = 1e20, 1e20
    elif place == "masked":
        query[1, 0, 2], key[1, 0, 2] = np.nan, np.inf
        real = np.arange(5)[None].repeat(3, 0) != 2
        mask = StoredMask(keys=real, queries=real)
    else:
        bias[1, 0, 2] = -np.inf
    source = QKSource(query, key, vector=vector, bias=bias, mask=mask)
    expected = {"vector": [False] * 3, "masked": [True] * 3, "minus infinity": [True] * 3}
    assert find_finite_examples(source).tolist() == expected.get(place, [True, False, True])
    with np.errstate(all="ignore"):
        weights = AttentionMap("mha", source).weights()
    assert np.isfinite(weights).all(axis=(1, 2, 3)).tolist() == expected.get(place, [True, False, True])


def test_permitted_keys_of_each_query_and_head(random):
    source = QKSource(*random.normal(size=(2, 1, 3, 5, 2)).astype(np.float32), mask=StoredMask(right=0))
    ((example,),) = [entry["examples"] for entry in read_maps(AttentionMap("causal", source))]
    assert [unpack(packed, np.uint32).tolist() for packed in example["permitted"]] == [[1, 2, 3, 4, 5]]
    array = random.uniform(size=(1, 3, 5, 5)) < 0.6
    source = dataclasses.replace(source, mask=StoredMask(array=array))
    ((example,),) = [entry["examples"] for entry in read_maps(AttentionMap("own", source))]
    assert np.array([unpack(packed, np.uint32) for packed in example["permitted"]]).tolist() == [
        [sum(array[0, head, row, : example["columns"]]) for row in range(example["rows"])] for head in range(3)
    ]


def test_padding_is_left_out_without_tokens(random):
    held = np.zeros((1, 1, 5, 5), np.float32)
    held[0, 0, :, :3] = softmax(random.normal(0, 1, (5, 3)))
    ((example,),) = [entry["examples"] for entry in read_maps(AttentionMap.from_weights(held))]
    assert (example["rows"], example["columns"], example["keys"]) == (3, 3, None)


def test_key_with_weight_but_without_token_is_numbered():
    held = np.array([[0.5, 0.25, 0.25]])
    ((example,),) = [entry["examples"] for entry in read_maps(AttentionMap.from_weights(held, tokens=["a", "b"]))]
    assert example["keys"] == ["a", "b", "#3"]


def test_cross_attention_and_single_query(random):
    cross_map = AttentionMap.from_weights(
        softmax(random.normal(0, 1, (2, 3, 5))), path="cross", tokens=list("vwxyz"), query_tokens=list("abc")
    )
    pooling_map = AttentionMap.from_weights(softmax(random.normal(0, 1, (1, 5))), path="pool", tokens=list("vwxyz"))
    cross, pool = read_maps({"cross": cross_map, "pool": pooling_map})
    (example,) = cross["examples"]
    assert (example["queries"], example["keys"], example["distance"]) == (list("abc"), list("vwxyz"), None)
    (example,) = pool["examples"]
    assert (example["rows"], example["queries"], example["keys"]) == (1, None, list("vwxyz"))


def test_layer_that_ran_once_per_step():
    source = np.zeros((2, 3, 1, 1, 4), np.float32)
    for example, step in itertools.product(range(2), range(3)):
        source[example, step, 0, 0, : step + 2] = 1 / (step + 2)
    (entry,) = read_maps(AttentionMap("words", WeightSource(source)))
    assert [example["columns"] for example in entry["examples"]] == [2, 3, 4, 2, 3, 4]


def test_long_maps_are_stored_as_blocks_and_strongest_keys(random, monkeypatch):
    # Blocks of at most 1024 per side fit, every weight does not.
    monkeypatch.setattr(views, "MAX_CELLS", 2 * 1_440_000)
    monkeypatch.setattr(views, "_CELLS_PER_KEY", 1)
    queries, keys, heads = 521, 2111, 2
    held = softmax(random.normal(0, 4, (heads, queries, keys))).astype(np.float32)
    held[0, 100] = 0
    held[0, 100, 777] = 1.0
    ((example,),) = [entry["examples"] for entry in read_maps(AttentionMap.from_weights(held[None]))]
    coarse, fine = example["levels"]
    rows, columns = fine["rows"], fine["columns"]
    assert (example["rows"], example["columns"]) == (queries, keys)
    assert (rows, columns, coarse["rows"], coarse["columns"]) == (521, 1024, 261, 512)
    edges = [
        [index * total // count for index in range(count + 1)] for count, total in ((rows, queries), (columns, keys))
    ]
    means, maxima = unpack_level(fine, "means"), unpack_level(fine)
    for head, row, column in [(0, 0, 0), (1, rows - 1, columns - 1), (1, 200, 300)]:
        block = held[head, edges[0][row] : edges[0][row + 1], edges[1][column] : edges[1][column + 1]]
        assert maxima[head, row, column] == pytest.approx(block.max(), abs=5e-3)
        assert means[head, row, column] == pytest.approx(block.mean(), abs=5e-3)
    # The single large weight is in the maxima.
    column = next(index for index in range(columns) if edges[1][index] <= 777 < edges[1][index + 1])
    assert maxima[0, next(index for index in range(rows) if edges[0][index + 1] > 100), column] == pytest.approx(1.0)
    for row, column in [(0, 0), (100, 200), (260, 511)]:
        block = held[1, 2 * row : 2 * row + 2, edges[1][2 * column] : edges[1][2 * column + 2]]
        assert unpack_level(coarse)[1, row, column] == pytest.approx(block.max(), abs=5e-3)
        assert unpack_level(coarse, "means")[1, row, column] == pytest.approx(block.mean(), abs=5e-3)
    top, count = example["top"], example["top"]["count"]
    top_keys = np.stack([unpack(each, np.uint16).reshape(queries, count) for each in top["keys"]])
    top_weights = np.stack(
        [
            scale * (unpack(each).reshape(queries, count) / 255.0) ** 2
            for scale, each in zip(top["scale"], top["weights"], strict=True)
        ]
    )
    rest = np.stack([unpack(each, np.uint16) / 65535 for each in top["rest"]])
    assert rest == pytest.approx(1 - np.sort(held, axis=-1)[..., -count:].sum(-1), abs=2e-5)
    assert top_keys[0, 100, 0] == 777
    for head, row in [(0, 3), (1, 517)]:
        order = np.argsort(-held[head, row], kind="stable")[:16]
        assert top_keys[head, row].tolist() == order.tolist()
        assert top_weights[head, row] == pytest.approx(held[head, row, order], abs=5e-3)


def test_many_weights_are_stored_in_fewer_steps(random, monkeypatch):
    held = softmax(random.normal(0, 3, (2, 31, 31)))
    monkeypatch.setattr(views, "MAX_FINE", held.size - 1)
    (entry,) = read_maps(AttentionMap.from_weights(held))
    (level,) = entry["examples"][0]["levels"]
    assert level["maxima"]["steps"] == 63
    roots = [np.sqrt(weights / held.max(axis=(1, 2), keepdims=True)) for weights in (unpack_level(level), held)]
    # At most half of a step, and more than a byte would give.
    assert 0.5 / 255 < np.abs(roots[0] - roots[1]).max() <= 0.5 / 63 + 1e-6


@pytest.mark.parametrize(
    ("shapes", "every_weight", "blocks", "keys"),
    [
        # Twelve layers of twelve heads.
        ([(1, 12, 512, 512)] * 12, True, 512, 0),
        ([(1, 12, 4096, 4096)] * 12, True, 128, 4),
        ([(1, 12, 32_768, 32_768)] * 12, True, 256, 0),
        # One layer.
        ([(1, 8, 513, 513)], True, 513, 0),
        ([(1, 1, 32_768, 32_768)], True, 2048, 16),
        ([(1, 12, 32_768, 32_768)], True, 512, 5),
        # More than every weight of 512 tokens takes.
        ([(1, 12, 512, 512)] * 13, False, 128, 16),
    ],
)
def test_resolution_has_room(shapes, every_weight, blocks, keys):
    # Zeros that no memory holds: of statistics the page asks for the shapes alone.
    maps = {str(index): make_shape(shape) for index, shape in enumerate(shapes)}
    reader = views._Reader(View(maps))
    resolution = reader._choose_resolution(maps["0"])
    assert (reader.has_every_weight, resolution.num_blocks, resolution.num_keys) == (every_weight, blocks, keys)
    cells = sum(shape[1] for shape in shapes) * (
        resolution.num_cells + 6 * shapes[0][2] * keys * (blocks < shapes[0][2])
    )
    assert cells <= (views.MAX_WEIGHTS if blocks == shapes[0][2] and every_weight else views.MAX_CELLS)


def make_shape(shape) -> AttentionMap:
    query, key = (np.broadcast_to(np.float32(0), (*shape[:2], length, 1)) for length in shape[2:])
    return AttentionMap("attention", QKSource(query, key))


def test_twelve_heads_of_512_tokens_are_small(random):
    positions = np.arange(512)
    distances = np.abs(positions[:, None] - positions[None])
    held = np.stack([softmax(random.normal(0, 1, (512, 512)) - distances / (2.0 + 3 * head)) for head in range(12)])
    (entry,) = read_maps(AttentionMap.from_weights(held))
    size = sum(len(tile) for tiles in entry["examples"][0]["levels"][0]["maxima"]["tiles"] for tile in tiles)
    assert size < 2_000_000
