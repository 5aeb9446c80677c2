"""Statistics of every case equal those of the weights that loops compute, whatever the implementation and the block size."""

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
import oracles
from contracts.cases import CASES, PERMITTED, B, Case, N, S, T, V
from contracts.computing import inputs, numpy, randomize
from contracts.representative import full, parametrize
from gradients import compiled
from limelight._attention_statistics import AttentionStatistics, block_edges
from limelight.engine import thresholds
from limelight.engine.call import make_call
from limelight.engine.dense import BlockWeights, compute_block_weights
from limelight.engine.reductions import (
    ReducedBlock,
    compute_logits,
    find_top_k_by_groups,
    reduce_exponentials,
    reduce_softmax,
    reduce_weights,
)
from limelight.normalizers import MASK_VALUE

BACKEND = keras.backend.backend()
TOP_K, NUM_BLOCKS = 4, 3

each_case = parametrize(CASES)


def check(
    statistics: Any, weights: np.ndarray, distances: np.ndarray, top_k: int = TOP_K, num_blocks: int = NUM_BLOCKS
) -> None:
    """Compare statistics with loops over weights (B, N, T, S) and the distances (T, S) of queries and keys."""
    statistics = AttentionStatistics(*(None if field is None else numpy(field) for field in statistics))
    examples, heads, rows, columns = weights.shape
    for b, n, i in np.ndindex(examples, heads, rows):
        row = weights[b, n, i]
        entropy = -sum(w * math.log(w) for w in row if w > 0)
        assert statistics.entropy[b, n, i] == pytest.approx(entropy, abs=2e-5)
        assert statistics.mass[b, n, i] == pytest.approx(sum(row), abs=1e-5)
        assert statistics.distance[b, n, i] == pytest.approx(sum(row * distances[i]), abs=1e-4, rel=1e-6)
        largest = sorted((w for w in row if w > 1e-6), reverse=True)[:top_k]
        top_weights = statistics.top_weights[b, n, i]
        np.testing.assert_allclose(top_weights, largest + [0] * (top_k - len(largest)), atol=1e-5)
        keys = statistics.top_keys[b, n, i].astype(int)
        assert len(set(keys[keys >= 0])) == (keys >= 0).sum() >= len(largest)
        np.testing.assert_allclose(row[keys[keys >= 0]], top_weights[keys >= 0], atol=1e-5)
        assert (top_weights[keys < 0] == 0).all()
    np.testing.assert_allclose(statistics.received, weights.sum(axis=2), atol=5e-5)
    assert statistics.row_edges.tolist() == block_edges(rows, num_blocks).tolist()
    assert statistics.column_edges.tolist() == block_edges(columns, num_blocks).tolist()
    for t, s in np.ndindex(statistics.block_sums.shape[-2:]):
        top, bottom = statistics.row_edges.astype(int)[t : t + 2]
        left, right = statistics.column_edges.astype(int)[s : s + 2]
        block = weights[:, :, top:bottom, left:right]
        np.testing.assert_allclose(statistics.block_sums[:, :, t, s], block.sum(axis=(2, 3)), atol=5e-5)
        np.testing.assert_allclose(statistics.block_max[:, :, t, s], block.max(axis=(2, 3)), atol=1e-5)


def end_distances(rows: int = T, columns: int = S) -> np.ndarray:
    """The distance of each query from each key if the last query is at the last key."""
    return np.array([[abs(i + columns - rows - j) for j in range(columns)] for i in range(rows)])


@each_case
def test_reductions_equal_loops(case: Case) -> None:
    query, key, _ = inputs(case.size)
    parts = case.parts()
    _, parameters = randomize(parts, query, key)
    call = make_call(query, key, **parts).prepare()
    block = compute_block_weights(call, call.block, call.query, call.key)
    expected = oracles.attention_weights(query, key, **case.oracle, parameters=parameters)
    logs = np.log(expected, where=expected > 0, out=np.zeros_like(expected))
    for reduced in reduce_in_each_way(call, block):
        weights = numpy(reduced.rescale(reduced.unnormalized))
        np.testing.assert_allclose(weights, expected, atol=1e-5)
        largest = np.sort(expected, axis=-1)[..., : -TOP_K - 1 : -1]
        np.testing.assert_allclose(numpy(reduced.top_values), largest, atol=1e-5)
        np.testing.assert_allclose(numpy(reduced.mass), expected.sum(axis=-1), atol=1e-5)
        np.testing.assert_allclose(numpy(reduced.entropy), -(expected * logs).sum(axis=-1), atol=3e-5)


def reduce_in_each_way(call: Any, block: BlockWeights) -> list[ReducedBlock]:
    """Reduce a block in the ways of all backends."""
    if not call.normalizer.exponential:
        return [reduce_weights(block, TOP_K)]
    logits, is_empty = compute_logits(call, block.block, call.query, call.key), None
    if block.mask is not None:
        mask = ops.broadcast_to(block.mask, logits.shape)
        logits, is_empty = ops.where(mask, logits, MASK_VALUE), ops.logical_not(ops.any(mask, -1, keepdims=True))
    return [reduce_exponentials(call, block, TOP_K), reduce_softmax(call, block.block, logits, is_empty, TOP_K)]


# A moving and a fixed band of columns, dependence on the example, learned parameters, whole rows, and all rows at once.
@pytest.mark.parametrize(
    "name", ["window", "segments", full("padding of both"), full("learned sink"), "sparsemax", full("monotonic")]
)
def test_statistics_do_not_depend_on_the_block_size(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    query, key, value = inputs(case.size, 1 if name == "window" else N)
    parts = case.parts()
    _, parameters = randomize(parts, query, key)
    expected = oracles.attention_weights(query, key, **case.oracle, parameters=parameters)

    def run(query: Any, key: Any, value: Any) -> Any:
        return ll.attention_statistics(query, key, value, **parts, top_k=TOP_K, num_blocks=NUM_BLOCKS)

    # About two rows, with a last block that is not full.
    with thresholds.using(statistics_scores_per_block=17):
        statistics = (
            run(query, key, value)
            if name == "segments"
            else compiled(run)(*map(ops.convert_to_tensor, (query, key, value)))
        )
    check(statistics, expected, end_distances())
    np.testing.assert_allclose(numpy(statistics.output), expected @ value, atol=3e-5)


def test_top_keys_are_padded() -> None:
    query, key, value = inputs(11)
    weights = oracles.attention_weights(
        query, key, score=oracles.dot(), mask=oracles.causal, normalizer=oracles.softmax()
    )
    statistics = ll.attention_statistics(query, key, value, mask="causal", top_k=11, num_blocks=30)
    assert tuple(statistics.top_keys.shape) == (B, N, T, 11)
    check(statistics, weights, end_distances(), top_k=11, num_blocks=30)


def test_empty_rows() -> None:
    query, key, value = inputs(11)
    permitted = PERMITTED.copy()
    permitted[:, :, 2] = False
    for normalizer in ("softmax", "sparsemax", "sink"):
        statistics = ll.attention_statistics(
            query, key, value, mask=permitted, normalizer=normalizer, top_k=2, num_blocks=1
        )
        for name in ("entropy", "mass", "distance", "top_weights", "output"):
            assert not numpy(getattr(statistics, name))[:, :, 2].any(), name
        assert (numpy(statistics.top_keys)[:, :, 2] == -1).all()
    assert np.isneginf(numpy(statistics.logsumexp)[:, :, 2]).all()


def test_top_k_by_groups_of_long_rows(random: np.random.Generator) -> None:
    # Only three values, so that most are equal, and a last key outside of the groups.
    weights = np.floor(3 * random.random((2, 5, 1031))).astype("float32")
    weights[0, 0] = 0
    weights[1, 4, -1] = 7
    values, indices = map(numpy, find_top_k_by_groups(ops.convert_to_tensor(weights), 13))
    np.testing.assert_array_equal(values, -np.sort(-weights, axis=-1)[..., :13])
    np.testing.assert_array_equal(np.take_along_axis(weights, indices.astype(int), axis=-1), values)
    assert all(len(set(row)) == 13 for row in indices.reshape(-1, 13))


@pytest.mark.parametrize("name", ["none", full("causal"), "window", full("sink")])
def test_long_rows_in_several_blocks(name: str, random: np.random.Generator) -> None:
    # Long enough for top-k by groups; neither length is a multiple of anything.
    rows, columns = 131, 1031
    query, key, value = (random.normal(size=(1, 2, length, 3)).astype("float32") for length in (rows, columns, columns))
    mask = {"causal": ll.masks.Causal(), "window": ll.masks.SlidingWindow(300, 7)}.get(name)
    normalizer = ll.normalizers.Sink(1.0) if name == "sink" else ll.normalizers.Softmax()
    distances = np.arange(columns) - np.arange(columns - rows, columns)[:, None]
    permitted = {"causal": distances <= 0, "window": (distances <= 7) & (distances >= -300)}.get(
        name, distances == distances
    )
    exponentials = np.exp(query.astype("float64") @ key.swapaxes(-1, -2).astype("float64") / 3**0.5) * permitted
    weights = exponentials / (exponentials.sum(axis=-1, keepdims=True) + (np.e if name == "sink" else 0.0))
    with thresholds.using(statistics_scores_per_block=16 * columns):
        statistics = compiled(
            lambda *given: ll.attention_statistics(
                *given, mask=mask, normalizer=normalizer, top_k=5, num_blocks=NUM_BLOCKS
            )
        )(*map(ops.convert_to_tensor, (query, key, value)))
    check(statistics, weights, abs(distances), top_k=5)
    np.testing.assert_allclose(numpy(statistics.output), weights @ value, atol=1e-5)
    np.testing.assert_allclose(numpy(statistics.logsumexp), np.log(exponentials.sum(axis=-1)), atol=1e-5)


@pytest.mark.full
def test_one_long_head(random: np.random.Generator) -> None:
    rows, columns = 300, 530
    query, key, value = (random.normal(size=(length, 3)).astype("float32") for length in (rows, columns, columns))
    exponentials = np.exp(query.astype("float64") @ key.T.astype("float64") / 3**0.5)
    weights = (exponentials / exponentials.sum(axis=-1, keepdims=True))[None, None]
    statistics = ll.attention_statistics(
        *(array[None, None] for array in (query, key, value)), top_k=5, num_blocks=NUM_BLOCKS
    )
    check(statistics, weights, end_distances(rows, columns), top_k=5)
    np.testing.assert_allclose(numpy(statistics.output), weights @ value, atol=1e-5)


def test_distances_use_given_positions() -> None:
    query, key = (array[:1] for array in inputs(11)[:2])
    rows, columns = np.array([2, 3, 5, 7, 11]), np.array([0, 1, 4, 9, 16, 25, 36])
    statistics = ll.attention_statistics(query, key, query_positions=rows, key_positions=columns, mask="causal")
    weights = oracles.attention_weights(
        query,
        key,
        score=oracles.dot(),
        mask=oracles.causal,
        normalizer=oracles.softmax(),
        query_positions=rows.tolist(),
        key_positions=columns.tolist(),
    )
    distances = np.abs(rows[:, None] - columns)
    np.testing.assert_allclose(numpy(statistics.distance), (weights * distances).sum(axis=-1), rtol=1e-4)


@pytest.mark.full
def test_logsumexp_and_leading_axes() -> None:
    query, key, value = (array[0, 0] for array in inputs(11))
    statistics = ll.attention_statistics(
        query, key, value, score=ll.scores.Dot(1.0), normalizer=ll.normalizers.Softmax(0.5)
    )
    expected = np.log(np.exp(2 * query.astype("float64") @ key.T).sum(axis=-1))
    np.testing.assert_allclose(numpy(statistics.logsumexp), expected, atol=1e-5)
    assert [tuple(statistics.output.shape), tuple(statistics.received.shape), tuple(statistics.block_sums.shape)] == [
        (T, V),
        (S,),
        (T, S),
    ]
    assert np.isnan(numpy(ll.attention_statistics(query, key, normalizer="sparsemax").logsumexp)).all()
    deep = ll.attention_statistics(*(np.broadcast_to(array, (2, 3, 1, *array.shape)) for array in (query, key)))
    assert tuple(deep.top_keys.shape) == (2, 3, 1, T, 16)


@pytest.mark.full
def test_one_query_for_all_examples() -> None:
    query, key, value = inputs(11)
    statistics, expected = (
        ll.attention_statistics(one, key, value) for one in (query[:1], np.broadcast_to(query[:1], query.shape))
    )
    for field, expected_field in zip(statistics, expected, strict=True):
        np.testing.assert_allclose(numpy(field), numpy(expected_field), atol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow runs one graph on several lengths")
@pytest.mark.parametrize("jit", [False, True])
def test_lengths_unknown_at_trace_time(jit: bool) -> None:
    import tensorflow as tf

    signature = [tf.TensorSpec((None, N, None, 4))] * 2
    parts = {"mask": ll.masks.Causal() & ll.masks.SlidingWindow(4), "top_k": TOP_K, "num_blocks": NUM_BLOCKS}
    run = tf.function(
        lambda query, key: ll.attention_statistics(query, key, **parts), input_signature=signature, jit_compile=jit
    )
    for rows, columns in ((3, 5), (7, 11)):
        query, key = (np.random.default_rng(43).normal(size=(4, N, length, 4)) for length in (rows, columns))
        query, key = query.astype("float32"), key.astype("float32")
        with thresholds.using(statistics_scores_per_block=17):
            statistics = run(query, key)
        check(statistics, numpy(ll.attention_weights(query, key, mask=parts["mask"])), end_distances(rows, columns))


@pytest.mark.full
@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"num_blocks": 0}])
def test_sizes_below_one_raise(wrong: dict[str, int]) -> None:
    query, key, _ = inputs(11)
    with pytest.raises(ValueError, match=r"must be at least 1\. Received: top_k="):
        ll.attention_statistics(query, key, **wrong)
