"""Analysis of maps against their definitions: sums over paths, linear programs and loops."""

import itertools
import math
import sys

import numpy as np
import pytest
from scipy.optimize import linprog

from limelight import analysis
from limelight.maps import AttentionMap, AttentionMaps, QKSource, StoredMask, WeightSource

pytestmark = pytest.mark.backend_free


@pytest.fixture
def weights(random):
    """Three layers of (B, N, T, T)."""
    return [random.dirichlet(np.ones(4), size=(2, 3, 4)) for _ in range(3)]


def residual_attention_loop(layer, residual):
    found = np.zeros(layer.shape[:1] + layer.shape[-2:])
    for b, i, j in np.ndindex(found.shape):
        found[b, i, j] = (1 - residual) * sum(layer[b, :, i, j]) / layer.shape[1] + residual * (i == j)
    return found / found.sum(-1, keepdims=True)


def test_rollout_sums_over_all_paths(weights):
    found = analysis.rollout(weights, residual=0.3)
    assert found.shape == (3, 2, 4, 4)
    one, two, three = (residual_attention_loop(layer, 0.3) for layer in weights)
    for b, i, j in np.ndindex(2, 4, 4):
        paths = itertools.product(range(4), repeat=2)
        total = sum(three[b, i, m] * two[b, m, k] * one[b, k, j] for m, k in paths)
        assert found[2, b, i, j] == pytest.approx(total, abs=1e-12)
    np.testing.assert_allclose(found.sum(-1), 1)
    maps = AttentionMaps(AttentionMap.from_weights(layer, path=str(place)) for place, layer in enumerate(weights))
    np.testing.assert_allclose(analysis.rollout(maps, residual=0.3), found, atol=1e-6)


def test_rollout_keeps_padding(random):
    layer = random.dirichlet(np.ones(4), size=(1, 2, 4))
    layer[..., 3, :] = 0
    for residual in (0.0, 0.5):
        assert analysis.rollout([layer, layer], residual)[-1, 0, 3].tolist() == [0, 0, 0, 1]


def flow_by_linear_program(layers, source, target):
    """The largest flow as a linear program: as much leaves each inner node as enters it."""
    edges = [(depth, j, i) for depth, layer in enumerate(layers) for i, j in np.ndindex(layer.shape)]
    capacities = [layers[depth][i, j] for depth, j, i in edges]
    inner = [(depth, token) for depth in range(1, len(layers)) for token in range(len(layers[0]))]
    balance = [[((d + 1, i) == node) * 1 - ((d, j) == node) * 1 for d, j, i in edges] for node in inner]
    # Nothing enters at other inputs, and only what arrives at the target counts.
    allowed = [c if d > 0 or j == source else 0 for (d, j, _), c in zip(edges, capacities, strict=True)]
    gain = [-1.0 if d == len(layers) - 1 and i == target else 0.0 for d, _, i in edges]
    return -linprog(gain, A_eq=balance, b_eq=np.zeros(len(inner)), bounds=[(0, c) for c in allowed]).fun


def test_flow_is_the_largest_flow(weights):
    found = analysis.flow(weights, targets=[0, 3])
    layers = [residual_attention_loop(layer, 0.5) for layer in weights]
    assert found.shape == (2, 2, 4)
    for b, row, source in np.ndindex(found.shape):
        wanted = flow_by_linear_program([layer[b] for layer in layers], source, [0, 3][row])
        assert found[b, row, source] == pytest.approx(wanted, abs=1e-9)


def test_a_path_carries_as_much_as_its_narrowest_edge():
    """Two tokens, two layers: rollout multiplies along paths, flow takes the narrowest edge of each."""
    layers = [np.array([[[[0.9, 0.1], [0.6, 0.4]]]]), np.array([[[[0.2, 0.8], [1.0, 0.0]]]])]
    assert analysis.rollout(layers, residual=0)[-1, 0, 0, 0] == pytest.approx(0.2 * 0.9 + 0.8 * 0.6)
    assert analysis.flow(layers, residual=0, targets=0, sources=0).item() == pytest.approx(0.2 + 0.6)


def test_layers_must_fit_together(weights, monkeypatch):
    with pytest.raises(ValueError, match="must be self-attention over the same tokens"):
        analysis.rollout([weights[0], weights[1][..., :3, :3]])
    with pytest.raises(ValueError, match="must be self-attention"):
        analysis.rollout([])
    with pytest.raises(ValueError, match=r"`residual` must be in \[0, 1\]"):
        analysis.flow(weights, residual=2)
    with pytest.raises(ValueError, match=r"must have shape \(B, N, T, S\)"):
        analysis.rollout([np.eye(3)])
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match="pip install networkx"):
        analysis.flow(weights)


@pytest.fixture
def causal(random):
    """A map with padding, whose queries are the last of its keys."""
    query, key = random.normal(size=(2, 3, 5, 4)), random.normal(size=(2, 3, 7, 4))
    keys = np.ones((2, 7), bool)
    keys[1, 5:] = False
    queries = np.ones((2, 5), bool)
    queries[1, 3:] = False
    return AttentionMap("a", QKSource(query, key, mask=StoredMask(keys, queries, right=0, offset=2)))


def real_rows(attention_map):
    weights = attention_map.weights().astype(float)
    for b, n, i in np.ndindex(weights.shape[:3]):
        if weights[b, n, i].sum() > 0:
            yield b, n, i, weights[b, n, i]


def test_entropy_and_distance(causal):
    entropies, shares, distances = ([[] for _ in range(3)] for _ in range(3))
    for _, n, i, row in real_rows(causal):
        value = -sum(w * math.log(w) for w in row if w > 0)
        entropies[n].append(value)
        shares[n].append(value / math.log((row > 0).sum()))
        distances[n].append(sum(w * abs(j - i - 2) for j, w in enumerate(row)))
    np.testing.assert_allclose(analysis.entropy(causal), np.mean(entropies, axis=1), atol=1e-6)
    np.testing.assert_allclose(analysis.entropy(causal, normalized=True), np.mean(shares, axis=1), atol=1e-6)
    np.testing.assert_allclose(analysis.distance(causal), np.mean(distances, axis=1), atol=1e-5)


def test_received_is_the_mean_over_queries_that_may_attend(causal):
    weights = causal.weights().astype(float)
    found = analysis.received(causal)
    for b, n, j in np.ndindex(2, 3, 7):
        received = [weights[b, n, i, j] for i in range(5) if weights[b, n, i, j] > 0]
        assert found[b, n, j] == pytest.approx(np.mean(received) if received else 0, abs=1e-6)


def test_sinks():
    weights = np.array([[1.0, 0, 0, 0], [0.8, 0.2, 0, 0], [0.6, 0.3, 0.1, 0], [0.5, 0.05, 0.05, 0.4]])
    attention_map = AttentionMap.from_weights(weights)
    # The last key has 0.4 of the only query that may look at it.
    assert analysis.sinks(attention_map)[0, 0].tolist() == [True, False, False, False]
    assert analysis.sinks(attention_map, threshold=0.15)[0, 0].tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match=r"`threshold` must be in \(0, 1\)"):
        analysis.sinks(attention_map, threshold=0)


def test_patterns(random):
    tokens = ["The", "cat", ",", "the", "▁Cat"]
    weights = random.dirichlet(np.ones(5), size=(1, 2, 5))
    weights[0, :, 4] = 0
    shares = analysis.patterns(AttentionMap.from_weights(weights, tokens=tokens))
    same = {0: [3], 1: [4], 3: [0], 2: []}
    for n in range(2):
        rows = weights[0, n, :4]
        assert shares["previous"][n] == pytest.approx(np.mean([0, *(rows[i, i - 1] for i in (1, 2, 3))]), abs=1e-6)
        assert shares["self"][n] == pytest.approx(np.mean([rows[i, i] for i in range(4)]), abs=1e-6)
        assert shares["next"][n] == pytest.approx(np.mean([rows[i, i + 1] for i in range(4)]), abs=1e-6)
        assert shares["first"][n] == pytest.approx(rows[:, 0].mean(), abs=1e-6)
        assert shares["punctuation"][n] == pytest.approx(rows[:, 2].mean(), abs=1e-6)
        assert shares["same"][n] == pytest.approx(
            np.mean([sum(rows[i, j] for j in same[i]) for i in range(4)]), abs=1e-6
        )
    assert list(analysis.patterns(AttentionMap.from_weights(weights))) == ["previous", "self", "next", "first"]


def test_patterns_of_short_examples_and_other_queries(causal):
    tokens = [["a", "b", "c", "d", "e", "f", "a"], ["a", "b", "c"]]
    shares = analysis.patterns(causal.with_tokens(tokens, [["c", "d", "e", "f", "a"], ["c"]]))
    same = [[] for _ in range(3)]
    for b, n, i, row in real_rows(causal):
        same[n].append(row[0] if b == 0 and i == 4 else 0)
    np.testing.assert_allclose(shares["same"], np.mean(same, axis=1), atol=1e-6)


def test_queries_of_unknown_tokens_are_the_same_as_none():
    """Cross-attention of one query, whose first key is no token of its own."""
    attention_map = AttentionMap.from_weights(np.array([[0.5, 0.25, 0.25]]), tokens=["a", ",", "a"])
    shares = analysis.patterns(attention_map)
    assert list(shares) == ["previous", "self", "next", "first", "punctuation"]
    assert shares["punctuation"].tolist() == [0.25]


def test_heads_that_attend_alike_form_a_cluster(random):
    base = random.dirichlet(np.ones(5) / 2, size=(2, 2, 1, 4))  # two kinds of head
    noise = random.dirichlet(np.ones(5), size=(2, 2, 3, 4))
    weights = (0.95 * base + 0.05 * noise)[:, :, :].reshape(2, 6, 4, 5)  # three of each kind
    maps = AttentionMaps(
        [AttentionMap.from_weights(weights[:, :4], path="one"), AttentionMap.from_weights(weights[:, 4:], path="two")]
    )
    heads, matrix = analysis.head_divergences(maps)
    assert heads == [("one", 0), ("one", 1), ("one", 2), ("one", 3), ("two", 0), ("two", 1)]
    for (x, _), (y, _) in itertools.combinations(enumerate(heads), 2):
        total = []
        for b, i in np.ndindex(2, 4):
            p, q = weights[b, x, i], weights[b, y, i]
            middle = (p + q) / 2
            total.append((np.sum(p * np.log(p / middle)) + np.sum(q * np.log(q / middle))) / 2)
        assert matrix[x, y] == pytest.approx(np.mean(total), abs=1e-6)
    assert analysis.cluster_heads(matrix, 2).tolist() == [0, 0, 0, 1, 1, 1]
    assert analysis.cluster_heads(matrix, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert analysis.cluster_heads(np.zeros((1, 1)), 1).tolist() == [0]
    with pytest.raises(ValueError, match=r"`num_clusters` must lie in 1 \.\. 6"):
        analysis.cluster_heads(matrix, 7)
    with pytest.raises(ValueError, match="must be a square matrix"):
        analysis.cluster_heads(matrix[:2], 1)


def test_drift_against_a_loop(random):
    epochs = [
        AttentionMaps([AttentionMap("a", WeightSource(random.dirichlet(np.ones(5), size=(2, 3, 4)).astype("float32")))])
        for _ in range(3)
    ]
    epochs[1]["a"].source.array[0, :, 0] = 0  # a padded query
    drift = analysis.drift(epochs)["a"]
    assert drift.shape == (2, 3)
    for step in range(2):
        first, second = (epochs[step + offset]["a"].weights().astype(float) for offset in (0, 1))
        for head in range(3):
            values = []
            for p, q in zip(first[:, head].reshape(-1, 5), second[:, head].reshape(-1, 5), strict=True):
                if p.sum() and q.sum():
                    middle = (p + q) / 2
                    values.append(sum(x * np.log(x / m) for a in (p, q) for x, m in zip(a, middle, strict=True)) / 2)
            assert drift[step, head] == pytest.approx(np.mean(values), rel=1e-4)


def test_drift_needs_epochs_of_the_same_examples():
    first, second = (AttentionMaps([AttentionMap.from_weights(np.ones((1, n)) / n)]) for n in (2, 3))
    with pytest.raises(ValueError, match=r"at least two epochs\. Received: 1"):
        analysis.drift([first])
    with pytest.raises(ValueError, match="must be of the same examples"):
        analysis.drift([first, second])
    with pytest.raises(ValueError, match="must share a map"):
        analysis.drift([first, AttentionMaps([AttentionMap.from_weights(np.ones((1, 2)) / 2, path="b")])])
