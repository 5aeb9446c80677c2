"""Maps: weights, statistics and tiles against loops in numpy."""

import math
import sys

import numpy as np
import pytest

from limelight.maps import AttentionMap, AttentionMaps, QKSource, StoredMask, Tokens, WeightSource, sources
from limelight.maps.tokens import as_tokens

pytestmark = pytest.mark.backend_free


def softmax_loop(scores, mask):
    """Weights of one row: a loop over the keys that the mask permits, in float64."""
    permitted = [j for j in range(len(scores)) if mask[j]]
    weights = np.zeros(len(scores))
    if permitted:
        maximum = max(scores[j] for j in permitted)
        exponentials = {j: math.exp(scores[j] - maximum) for j in permitted}
        for j in permitted:
            weights[j] = exponentials[j] / sum(exponentials.values())
    return weights


def weights_loop(query, key, score, permits):
    """Weights (B, N, T, S) of queries (B, N, T, H) and keys (B, K, S, H); `score` and `permits` are called for each pair."""
    batch, heads, rows, _ = query.shape
    groups = heads // key.shape[1]
    weights = np.zeros((batch, heads, rows, key.shape[2]))
    for b in range(batch):
        for n in range(heads):
            for i in range(rows):
                scores = [score(query[b, n, i], key[b, n // groups, j], (b, n, i, j)) for j in range(key.shape[2])]
                mask = [permits(b, n, i, j) for j in range(key.shape[2])]
                weights[b, n, i] = softmax_loop(scores, mask)
    return weights


@pytest.fixture
def query(random):
    return random.normal(size=(2, 6, 5, 3)).astype(np.float32)


@pytest.fixture
def key(random):
    return random.normal(size=(2, 3, 7, 3)).astype(np.float32)


def dot(q, k, _):
    return float(np.dot(q.astype(np.float64), k.astype(np.float64)))


def test_queries_and_keys_give_the_weights_of_grouped_heads(query, key):
    attention_map = AttentionMap("a", QKSource(query, key, 0.7))
    wanted = weights_loop(query, key, lambda *pair: 0.7 * dot(*pair), lambda *_: True)
    assert attention_map.shape == (2, 6, 5, 7)
    np.testing.assert_allclose(attention_map.weights(), wanted, atol=1e-6)


def test_all_parts_of_a_mask_are_anded(query, key, random):
    keys, queries = random.random((2, 7)) > 0.3, random.random((2, 5)) > 0.3
    array = random.random((1, 6, 5, 7)) > 0.2
    mask = StoredMask(keys, queries, array, left=3, right=1, offset=2)

    def permitted(b, n, i, j):
        near = -3 <= j - (i + 2) <= 1
        return bool(keys[b, j] and queries[b, i] and array[0, n, i, j] and near)

    wanted = weights_loop(query, key, dot, permitted)
    assert (wanted.sum(-1) == 0).any()
    np.testing.assert_allclose(AttentionMap("a", QKSource(query, key, mask=mask)).weights(), wanted, atol=1e-6)


def test_soft_cap_bias_and_additive_score(query, key, random):
    bias = random.normal(size=(1, 6, 5, 7)).astype(np.float32)
    vector = random.normal(size=3).astype(np.float32)
    capped = AttentionMap("a", QKSource(query, key, 2.0, softcap=1.5, bias=bias)).weights()
    added = AttentionMap("a", QKSource(query, key, 0.5, vector=vector)).weights()

    def cap(q, k, at):
        return 1.5 * math.tanh(2.0 * dot(q, k, at) / 1.5) + bias[0, at[1], at[2], at[3]]

    def additive(q, k, _):
        return 0.5 * sum(vector[h] * math.tanh(float(q[h]) + float(k[h])) for h in range(3))

    np.testing.assert_allclose(capped, weights_loop(query, key, cap, lambda *_: True), atol=1e-6)
    np.testing.assert_allclose(added, weights_loop(query, key, additive, lambda *_: True), atol=1e-6)


@pytest.mark.parametrize("vector", [None, np.ones(3, np.float32)])
def test_no_columns_are_no_weights(vector, query, key):
    attention_map = AttentionMap("a", QKSource(query, key, vector=vector))
    assert attention_map.weights(columns=[]).shape == (2, 6, 5, 0)


def test_selected_weights_equal_those_of_all(query, key, monkeypatch):
    attention_map = AttentionMap("a", QKSource(query, key, mask=StoredMask(right=0)))
    whole = attention_map.weights()
    # Blocks of a single row, so that the seams between blocks are gone through.
    monkeypatch.setattr(sources, "MAX_BLOCK_SIZE", 1)
    np.testing.assert_allclose(attention_map.weights(), whole, atol=1e-6)
    chosen = attention_map.weights(heads=2, rows=slice(1, 4), columns=[6, 0])
    np.testing.assert_allclose(chosen, whole[:, 2:3, 1:4][..., [6, 0]], atol=1e-6)
    np.testing.assert_allclose(
        attention_map.weights(heads=[5, -6], examples=[True, False]), whole[:1, [5, 0]], atol=1e-6
    )
    with pytest.raises(IndexError, match=r"`heads` must lie in 0 \.\. 5\. Received: 6"):
        attention_map.weights(heads=6)
    with pytest.raises(TypeError, match="`rows` must be an int, a slice"):
        attention_map.weights(rows=[0.5])


def test_statistics_equal_those_of_all_weights(query, key, monkeypatch):
    keys = np.ones((2, 7), bool)
    keys[1] = False
    attention_map = AttentionMap("a", QKSource(query, key, 1.3, mask=StoredMask(keys, offset=2)))
    monkeypatch.setattr(sources, "MAX_BLOCK_SIZE", 6 * 7 * 2)
    statistics, weights = attention_map.statistics(top_k=3, num_blocks=2), attention_map.weights().astype(np.float64)
    for b, n, i in np.ndindex(2, 6, 5):
        row = weights[b, n, i]
        order = sorted(range(7), key=lambda j: (-row[j], j))[:3]
        assert statistics.top_keys[b, n, i].tolist() == (order if b == 0 else [-1] * 3)
        np.testing.assert_array_equal(statistics.top_weights[b, n, i], row[order])
        assert statistics.entropy[b, n, i] == pytest.approx(-sum(w * math.log(w) for w in row if w > 0), abs=1e-6)
        assert statistics.distance[b, n, i] == pytest.approx(
            sum(w * abs(j - i - 2) for j, w in enumerate(row)), abs=1e-5
        )
        scores = [1.3 * dot(query[b, n, i], key[b, n // 2, j], None) for j in range(7)]
        total = math.log(sum(math.exp(s) for s in scores)) if b == 0 else -math.inf
        assert statistics.logsumexp[b, n, i] == pytest.approx(total, abs=1e-5)
    np.testing.assert_allclose(statistics.received, weights.sum(axis=2), atol=1e-6)
    assert statistics.row_edges.tolist() == [0, 2, 5]
    assert statistics.column_edges.tolist() == [0, 3, 7]
    np.testing.assert_allclose(statistics.block_sums[:, :, 1, 0], weights[:, :, 2:, :3].sum((-1, -2)), atol=1e-6)
    np.testing.assert_allclose(statistics.block_means[:, :, 1, 0], weights[:, :, 2:, :3].mean((-1, -2)), atol=1e-6)
    np.testing.assert_allclose(statistics.block_max[:, :, 1, 0], weights[:, :, 2:, :3].max((-1, -2)), atol=1e-6)
    np.testing.assert_allclose(statistics.tail_mass[0], 1 - statistics.top_weights[0].sum(-1), atol=1e-6)
    assert (statistics.tail_mass[1] == 0).all()


def test_weights_alone_have_no_logsumexp(random):
    attention_map = AttentionMap.from_weights(random.dirichlet(np.ones(4), size=3))
    assert np.isnan(attention_map.statistics().logsumexp).all()
    with pytest.raises(ValueError, match="must be at least 1"):
        attention_map.statistics(top_k=0)


def test_tile_holds_means_and_maxima_of_its_region(query, key, monkeypatch):
    attention_map = AttentionMap("a", QKSource(query, key))
    monkeypatch.setattr(sources, "MAX_BLOCK_SIZE", 6 * 7)
    downsampled, weights = (
        attention_map.downsample(rows=slice(1, 5), columns=slice(2, 7), heads=[4], num_blocks=3),
        attention_map.weights(heads=[4]),
    )
    assert downsampled.row_edges.tolist() == [1, 2, 3, 5]
    assert downsampled.column_edges.tolist() == [2, 3, 5, 7]
    for t, (top, bottom) in enumerate([(1, 2), (2, 3), (3, 5)]):
        for s, (left, right) in enumerate([(2, 3), (3, 5), (5, 7)]):
            block = weights[:, :, top:bottom, left:right]
            np.testing.assert_allclose(downsampled.means[:, :, t, s], block.mean((-1, -2)), atol=1e-6)
            # Sums over the keys of a row are taken in another order where only some keys are wanted.
            np.testing.assert_allclose(downsampled.maxima[:, :, t, s], block.max((-1, -2)), rtol=1e-6)
    with pytest.raises(ValueError, match="`rows` must be a non-empty slice of step 1"):
        attention_map.downsample(rows=slice(0, 5, 2))


def test_steps_add_one_axis(random):
    query, key = random.normal(size=(2, 3, 1, 4, 5)), random.normal(size=(2, 3, 1, 6, 5))
    keys = random.random((2, 3, 6)) > 0.2
    attention_map = AttentionMap("a", QKSource(query, key, mask=StoredMask(keys)))
    weights = attention_map.weights()
    assert weights.shape == (2, 3, 1, 4, 6)
    for step in range(3):
        alone = AttentionMap("a", QKSource(query[:, step], key[:, step], mask=StoredMask(keys[:, step])))
        np.testing.assert_array_equal(weights[:, step], alone.weights())
    assert attention_map.statistics(top_k=2).top_keys.shape == (2, 3, 1, 4, 2)


def test_a_row_of_a_long_map_needs_no_square_array(random):
    length = 65_536
    attention_map = AttentionMap("a", QKSource(*random.normal(size=(2, 1, 1, length, 2)).astype(np.float32)))
    row = attention_map.weights(rows=[length - 1])
    assert row.shape == (1, 1, 1, length)
    assert row.sum() == pytest.approx(1, abs=1e-4)


def test_shapes_that_do_not_fit_raise(query, key):
    with pytest.raises(ValueError, match=r"`query` must be \(B, N, T, H\)"):
        QKSource(query, key[:1])
    with pytest.raises(ValueError, match="must divide"):
        QKSource(query[:, :4], key)
    with pytest.raises(ValueError, match=r"`keys` of the mask must be bool and broadcast to \(2, 7\)"):
        QKSource(query, key, mask=StoredMask(keys=np.ones((2, 5), bool)))
    with pytest.raises(ValueError, match=r"`bias` must broadcast to \(2, 6, 5, 7\)"):
        QKSource(query, key, bias=np.zeros((2, 6, 4, 7)))
    with pytest.raises(ValueError, match=r"`vector` must have shape \(3,\)"):
        QKSource(query, key, vector=np.zeros(4))
    with pytest.raises(ValueError, match=r"Weights must have shape \(B, N, T, S\)"):
        WeightSource(np.zeros((2, 3)))


def test_tokens_go_to_axes_of_their_length(query, key):
    attention_map = AttentionMap("a", QKSource(query, key)).with_tokens([["a"] * 7, ["b"] * 2], [["c"] * 5, []])
    assert list(attention_map.tokens[1]) == ["b", "b"]
    assert list(attention_map.query_tokens[0]) == ["c"] * 5
    square = AttentionMap.from_weights(np.eye(3), tokens=["x", "y", "z"])
    assert square.query_tokens == square.tokens
    with pytest.raises(ValueError, match=r"at most 7 tokens. Received: 2 lists, the longest of 8"):
        attention_map.with_tokens([["a"] * 8, []])
    several = AttentionMaps(
        [AttentionMap("a", QKSource(query, key)), AttentionMap("b", QKSource(query, key[:, :, :5]))]
    )
    several = several.with_tokens([["t"] * 5, ["u"] * 4])
    assert several["a"].tokens is None
    assert list(several["a"].query_tokens[1]) == ["u"] * 4
    assert list(several["b"].tokens[0]) == ["t"] * 5
    padded = several.with_tokens([["t"] * 3, ["u"] * 4], length=7)
    assert list(padded["a"].tokens[0]) == ["t"] * 3
    assert padded["b"].tokens == several["b"].tokens


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (Tokens(("un", "##do", "it")), [("undo", 0, 2), ("it", 2, 3)]),
        (Tokens(("▁un", "do", "▁it")), [("undo", 0, 2), ("it", 2, 3)]),
        (Tokens(("un", "do", "Ġit")), [("undo", 0, 2), ("it", 2, 3)]),
        (Tokens(("[CLS]", "un", "do", "it"), ((0, 0), (0, 2), (2, 4), (5, 7)), "undo it"),
         [("[CLS]", 0, 1), ("undo", 1, 3), ("it", 3, 4)]),
        (Tokens(("un", "do", " it"), ((0, 2), (2, 4), (4, 7)), "undo it"), [("undo", 0, 2), ("it", 2, 3)]),
        (Tokens(("plain", "words")), [("plain", 0, 1), ("words", 1, 2)]),
        (Tokens(()), []),
    ],
)  # fmt: skip
def test_subwords_merge_into_words(tokens, words):
    assert [(word, places.start, places.stop) for word, places in tokens.words()] == words


def test_tokens_must_be_strings():
    with pytest.raises(TypeError, match=r"Tokens must be strings\. Received: 3 of type int"):
        as_tokens(["a", 3])
    with pytest.raises(TypeError, match="must be a list of strings"):
        as_tokens("text")
    with pytest.raises(ValueError, match=r"2 tokens need as many offsets\. Received: 1"):
        Tokens(("a", "b"), ((0, 1),))


def test_maps_form_an_ordered_mapping(query, key):
    first, again = AttentionMap("b/x", QKSource(query, key)), AttentionMap("b/x", QKSource(query, key), call_index=1)
    found = AttentionMaps([first, again, AttentionMap("a", QKSource(query, key))])
    assert list(found) == ["b/x", "b/x#1", "a"]
    assert found["b/x#1"] is again
    assert list(found.select("b/*")) == ["b/x", "b/x#1"]
    with pytest.raises(KeyError, match=r"There is no map 'c'\. There are: b/x, b/x#1, a"):
        found["c"]
    with pytest.raises(KeyError, match=r"No map matches 'z\*'"):
        found.select("z*")
    with pytest.raises(ValueError, match="Received twice: 'b/x'"):
        AttentionMaps([first, first])


def test_batches_of_different_lengths_are_padded_and_masked(random):
    def batch(size, rows, columns):
        query, key = random.normal(size=(size, 2, rows, 3)), random.normal(size=(size, 2, columns, 3))
        return AttentionMap("a", QKSource(query, key, mask=StoredMask(right=0, offset=columns - rows)))

    one, two = batch(2, 3, 5), batch(3, 4, 4)
    joined = AttentionMaps.concat([AttentionMaps([one]), AttentionMaps([two])])["a"]
    weights = joined.weights()
    assert weights.shape == (5, 2, 4, 5)
    np.testing.assert_array_equal(weights[:2, :, :3], one.weights())
    np.testing.assert_array_equal(weights[2:, :, :, :4], two.weights())
    assert (weights[:2, :, 3] == 0).all()
    assert (weights[2:, ..., 4] == 0).all()


def test_concatenated_biases_and_masks_keep_their_rows(random):
    def batch(size, length):
        bias = random.normal(size=(size, 1, length, length)).astype(np.float32)
        array = random.random((1, 1, length, length)) > 0.3
        return AttentionMap("a", QKSource(random.normal(size=(size, 2, length, 3)), random.normal(size=(size, 2, length, 3)),
                                       bias=bias, mask=StoredMask(array=array)))  # fmt: skip

    one, two = batch(2, 3), batch(1, 5)
    weights = AttentionMaps.concat([AttentionMaps([one]), AttentionMaps([two])])["a"].weights()
    np.testing.assert_array_equal(weights[:2, :, :3, :3], one.weights())
    np.testing.assert_array_equal(weights[2:], two.weights())
    kept = [AttentionMaps([AttentionMap.from_weights(random.random((1, 1, size, size)))]) for size in (2, 3)]
    weights = AttentionMaps.concat(kept)["attention"].weights()
    np.testing.assert_array_equal(weights[:1, :, :2, :2], kept[0]["attention"].weights())
    assert weights[0].sum() == pytest.approx(kept[0]["attention"].weights().sum())


def projected(query, key, bias, mask):
    return QKSource(query, key, bias=bias, mask=mask)


def captured(query, key, bias, mask):
    exponentials = np.exp(query @ np.swapaxes(key, -1, -2))
    return WeightSource(exponentials / exponentials.sum(-1, keepdims=True), mask)


@pytest.mark.parametrize("make", [projected, captured])
@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("steps", [((2,), (3,)), ((1,), (3,)), ((2, 1), (1, 3))])
def test_batches_of_different_numbers_of_steps_are_padded_and_masked(make, is_masked, steps, random):
    """Axes between examples and heads; the padded steps have no weight and no tokens, the others what they had."""

    def batch(size, lead):
        query, key = (random.normal(size=(size, *lead, 2, length, 3)) for length in (5, 7))
        bias = random.normal(size=(1, *lead, 1, 1, 7)).astype(np.float32)
        keys = random.random((size, *lead, 7)) > 0.3 if is_masked else None
        array = random.random((1, *(1 for _ in lead), 1, 5, 7)) > 0.2 if is_masked else None
        tokens = [[f"{size}{index}"] for index in range(size * math.prod(lead))]
        return AttentionMap("a", make(query, key, bias, StoredMask(keys, array=array)), tokens=tokens)

    batches = [batch(size, lead) for size, lead in zip((2, 4), steps, strict=True)]
    joined = AttentionMaps.concat(AttentionMaps([each]) for each in batches)["a"]
    lengths = tuple(map(max, *steps))
    weights, tokens = joined.weights(), np.empty((6, *lengths), dtype=object)
    assert weights.shape == (6, *lengths, 2, 5, 7)
    tokens.ravel()[:] = [list(each) for each in joined.tokens]
    for index in np.ndindex(6, *lengths):
        example, step = index[0], index[1:]
        which, example = (0, example) if example < 2 else (1, example - 2)
        is_real = all(place < length for place, length in zip(step, steps[which], strict=True))
        expected = batches[which].weights()[(example, *step)] if is_real else 0
        np.testing.assert_array_equal(weights[index], np.broadcast_to(expected, (2, 5, 7)))
        position = np.ravel_multi_index((example, *step), (4, *steps[which])) if is_real else 0
        assert tokens[index] == (list(batches[which].tokens[position]) if is_real else [])


def test_concat_requires_the_same_layers(query, key):
    one, two = AttentionMap("a", QKSource(query, key)), AttentionMap("b", QKSource(query, key))
    with pytest.raises(ValueError, match="Batches must have the same maps"):
        AttentionMaps.concat([AttentionMaps([one]), AttentionMaps([two])])
    other = AttentionMap("a", QKSource(query, key, 2.0))
    with pytest.raises(ValueError, match="sources that differ in their kind, scale"):
        AttentionMaps.concat([AttentionMaps([one]), AttentionMaps([other])])


def test_diff_matches_heads_before_comparing_them(random):
    weights = random.dirichlet(np.ones(5), size=(2, 3, 4))
    shuffled = weights[:, [2, 0, 1]]
    difference = AttentionMap.from_weights(weights).diff(AttentionMap.from_weights(shuffled))
    assert difference.pairs.tolist() == [[0, 1], [1, 2], [2, 0]]
    np.testing.assert_allclose(difference.divergence, 0, atol=1e-9)
    wanted = np.zeros(4 * 2)
    for place, (b, i) in enumerate(np.ndindex(2, 4)):
        p, q = weights[b, 0, i], shuffled[b, 0, i]
        middle = (p + q) / 2
        wanted[place] = (np.sum(p * np.log(p / middle)) + np.sum(q * np.log(q / middle))) / 2
    assert difference.same_index[0] == pytest.approx(wanted.mean(), abs=1e-7)
    apart = AttentionMap.from_weights(np.array([[1.0, 0.0]])).diff(AttentionMap.from_weights(np.array([[0.0, 1.0]])))
    assert apart.divergence == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="must have the same examples, queries and keys"):
        AttentionMap.from_weights(np.eye(2)).diff(AttentionMap.from_weights(np.eye(3)))
    both = AttentionMaps([AttentionMap.from_weights(weights)])
    assert list(both.diff(both)) == ["attention"]
    with pytest.raises(ValueError, match="no key in common"):
        both.diff(AttentionMaps([AttentionMap.from_weights(weights, path="b")]))


def test_dataframe_has_a_row_for_each_weight(random):
    weights = random.dirichlet(np.ones(3), size=(2, 2, 3))
    table = AttentionMap.from_weights(weights, tokens=[["a", "b", "c"], ["d"]]).to_pandas()
    assert list(table) == ["example", "head", "query", "key", "query_token", "key_token", "weight"]
    line = table[(table["example"] == 1) & (table["head"] == 0) & (table["query"] == 2) & (table["key"] == 0)]
    assert line["weight"].item() == pytest.approx(weights[1, 0, 2, 0])
    assert line["key_token"].item() == "d"
    assert table["key_token"].isna().sum() == 2 * 3 * 2


def test_missing_library_raises_with_its_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"needs xarray, which is not installed\. Run: pip install xarray"):
        AttentionMap.from_weights(np.eye(2)).to_xarray()


@pytest.mark.parametrize("columns", [slice(3, 6), [6, 0, 2], 4])
def test_some_columns_against_whole_rows(random, monkeypatch, columns):
    """A masked map with a bias, whose rows are summed a few keys at a time; the first row permits nothing."""
    monkeypatch.setattr(sources, "_MAX_SCORES", 1)
    query, key = (random.standard_normal((2, 3, length, 5)).astype(np.float32) * 9 for length in (7, 600))
    mask = random.random((2, 1, 7, 600)) < 0.3
    mask[0, 0, 0] = False
    source = QKSource(
        query,
        key,
        0.7,
        softcap=30.0,
        bias=random.standard_normal((1, 3, 1, 600)),
        mask=StoredMask(array=mask, right=400),
    )
    scores = np.einsum("bnth,bnsh->bnts", query.astype(float), key.astype(float)) * 0.7
    scores = 30 * np.tanh(scores / 30) + source.bias
    permitted = mask & (np.arange(600) - np.arange(7)[:, None] <= 400)
    exponentials = np.where(permitted, np.exp(scores - scores.max(-1, keepdims=True)), 0)
    total = exponentials.sum(-1, keepdims=True)
    expected = exponentials / np.where(total == 0, 1, total)
    weights = AttentionMap("a", source).weights(columns=columns)
    chosen = [columns] if isinstance(columns, int) else columns
    np.testing.assert_allclose(weights, expected[..., chosen], rtol=2e-4, atol=1e-7)
    assert not weights[0, :, 0].any()
