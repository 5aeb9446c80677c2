"""A survey says what there is to say of the weights that loops compute, whatever the parts and the sizes of blocks."""

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
import oracles
from contracts.cases import CASES, PERMITTED, B, Case, N, S, T, V
from contracts.test_contract import inputs, learned, numpy
from gradients import compiled
from limelight._attention_statistics import edges
from limelight.engine import thresholds
from limelight.engine.call import make_call
from limelight.engine.dense_block import block_weights
from limelight.engine.reductions import PASSES, logits_of, of_exponentials, of_softmax, of_weights, top_of_groups
from limelight.normalizers import LOWEST

BACKEND = keras.backend.backend()
K, CELLS = 4, 3

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def check(found: Any, weights: np.ndarray, distances: np.ndarray, top_k: int = K, cells: int = CELLS) -> None:
    """Compare a survey with what loops make of weights (B, N, T, S) and of the distances (T, S) of queries and keys."""
    found = ll.AttentionStatistics(*(None if one is None else numpy(one) for one in found))
    examples, heads, rows, columns = weights.shape
    for b, n, i in np.ndindex(examples, heads, rows):
        row = weights[b, n, i]
        entropy = -sum(w * math.log(w) for w in row if w > 0)
        assert found.entropy[b, n, i] == pytest.approx(entropy, abs=2e-5)
        assert found.mass[b, n, i] == pytest.approx(sum(row), abs=1e-5)
        assert found.distance[b, n, i] == pytest.approx(sum(row * distances[i]), abs=1e-4, rel=1e-6)
        largest = sorted((w for w in row if w > 1e-6), reverse=True)[:top_k]
        np.testing.assert_allclose(found.top_weights[b, n, i], largest + [0] * (top_k - len(largest)), atol=1e-5)
        keys = found.top_keys[b, n, i].astype(int)
        assert len(set(keys[keys >= 0])) == (keys >= 0).sum() >= len(largest)
        np.testing.assert_allclose(row[keys[keys >= 0]], found.top_weights[b, n, i][keys >= 0], atol=1e-5)
        assert (found.top_weights[b, n, i][keys < 0] == 0).all()
    np.testing.assert_allclose(found.received, weights.sum(axis=2), atol=5e-5)
    assert found.row_edges.tolist() == edges(rows, cells).tolist()
    assert found.column_edges.tolist() == edges(columns, cells).tolist()
    for t, s in np.ndindex(found.block_sums.shape[-2:]):
        top, bottom = found.row_edges.astype(int)[t : t + 2]
        left, right = found.column_edges.astype(int)[s : s + 2]
        block = weights[:, :, top:bottom, left:right]
        np.testing.assert_allclose(found.block_sums[:, :, t, s], block.sum(axis=(2, 3)), atol=5e-5)
        np.testing.assert_allclose(found.block_max[:, :, t, s], block.max(axis=(2, 3)), atol=1e-5)


def apart(rows: int = T, columns: int = S) -> np.ndarray:
    """How far each query is from each key, where the last query stands at the last key."""
    return np.array([[abs(i + columns - rows - j) for j in range(columns)] for i in range(rows)])


@each_case
def test_what_is_said_of_weights_equals_the_loops(case: Case) -> None:
    query, key, _ = inputs(case.size)
    parts = case.parts()
    _, parameters = learned(parts, query, key)
    call = make_call(query, key, **parts).prepared()
    found = block_weights(call, call.block, call.query, call.key)
    for weighed in weighed_in_each_way(call, found):
        weights = numpy(weighed.raised if weighed.share is None else weighed.raised * weighed.share)
        expected = oracles.attention_weights(query, key, **case.oracle, parameters=parameters)
        np.testing.assert_allclose(weights, expected, atol=1e-5)
        np.testing.assert_allclose(numpy(weighed.largest), np.sort(expected, axis=-1)[..., : -K - 1 : -1], atol=1e-5)
        np.testing.assert_allclose(numpy(weighed.mass), expected.sum(axis=-1), atol=1e-5)
        logs = np.log(expected, where=expected > 0, out=np.zeros_like(expected))
        np.testing.assert_allclose(numpy(weighed.entropy), -(expected * logs).sum(axis=-1), atol=3e-5)


def weighed_in_each_way(call: Any, found: Any) -> list[Any]:
    """The weights of a block, also in the way that other backends go."""
    if not call.normalizer.exponential:
        return [of_weights(found, K)]
    logits, empty = logits_of(call, found.block, call.query, call.key), None
    if found.permitted is not None:
        permitted = ops.broadcast_to(found.permitted, logits.shape)
        logits, empty = ops.where(permitted, logits, LOWEST), ops.logical_not(ops.any(permitted, -1, keepdims=True))
    return [of_exponentials(call, found, K), of_softmax(call, found.block, logits, empty, K)]


# What is narrow and moves, what is narrow and stands, what depends on the example, what learns, what needs whole rows, and what
# needs all of them.
@pytest.mark.parametrize("name", ["window", "segments", "padding of both", "learned sink", "sparsemax", "monotonic"])
def test_blocks_of_any_size_give_the_same(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    query, key, value = inputs(case.size, 1 if name == "window" else N)
    parts = case.parts()
    _, parameters = learned(parts, query, key)
    expected = oracles.attention_weights(query, key, **case.oracle, parameters=parameters)

    def run(query: Any, key: Any, value: Any) -> Any:
        return ll.attention_statistics(query, key, value, **parts, top_k=K, num_blocks=CELLS)

    # Two or so rows, and a last block that is not full.
    with thresholds.using(statistics_scores_per_block=17):
        found = (
            run(query, key, value)
            if name == "segments"
            else compiled(run)(*map(ops.convert_to_tensor, (query, key, value)))
        )
    check(found, expected, apart())
    np.testing.assert_allclose(numpy(found.output), expected @ value, atol=3e-5)


def test_few_keys_leave_places_empty() -> None:
    query, key, value = inputs(11)
    weights = oracles.attention_weights(
        query, key, score=oracles.dot(), mask=oracles.causal, normalizer=oracles.softmax()
    )
    found = ll.attention_statistics(query, key, value, mask="causal", top_k=11, num_blocks=30)
    assert tuple(found.top_keys.shape) == (B, N, T, 11)
    check(found, weights, apart(), top_k=11, num_blocks=30)


def test_a_row_that_permits_nothing() -> None:
    query, key, value = inputs(11)
    permitted = PERMITTED.copy()
    permitted[:, :, 2] = False
    for normalizer in ("softmax", "sparsemax", "sink"):
        found = ll.attention_statistics(query, key, value, mask=permitted, normalizer=normalizer, top_k=2, num_blocks=1)
        for name in ("entropy", "mass", "distance", "top_weights", "output"):
            assert not numpy(getattr(found, name))[:, :, 2].any(), name
        assert (numpy(found.top_keys)[:, :, 2] == -1).all()
    assert np.isneginf(numpy(found.logsumexp)[:, :, 2]).all()


def test_rows_of_many_keys_are_searched_by_groups(random: np.random.Generator) -> None:
    # Of three values only, so that most are equal, and one key that is no part of a whole group.
    weights = np.floor(3 * random.random((2, 5, 1031))).astype("float32")
    weights[0, 0] = 0
    weights[1, 4, -1] = 7
    values, places = map(numpy, top_of_groups(ops.convert_to_tensor(weights), 13, PASSES))
    np.testing.assert_array_equal(values, -np.sort(-weights, axis=-1)[..., :13])
    np.testing.assert_array_equal(np.take_along_axis(weights, places.astype(int), axis=-1), values)
    assert all(len(set(row)) == 13 for row in places.reshape(-1, 13))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow searches runs of neighbours")
@pytest.mark.parametrize("columns", [9, 600, 1031, 8192])
@pytest.mark.parametrize("known", [True, False])
def test_rows_of_many_keys_are_searched_by_runs(columns: int, known: bool, random: np.random.Generator) -> None:
    import tensorflow as tf

    from limelight.engine.tensorflow.reductions import TensorFlowPasses

    # Of seven values only, so that many are equal: the first of equals comes first.
    weights = np.floor(7 * random.random((2, 1, 3, columns))).astype("float32") + 1
    found = []

    def run(weights: Any) -> Any:
        *top, peaks = TensorFlowPasses().top(weights, 11)
        found.append(peaks is not None)
        return top if peaks is None else (*top, peaks)

    signature = tf.TensorSpec(weights.shape if known else [None] * 4)
    values, places, *peaks = map(numpy, tf.function(run, input_signature=[signature], autograph=False)(weights))
    order = np.argsort(-weights, axis=-1, kind="stable")[..., :11]
    some = order.shape[-1]
    np.testing.assert_array_equal(places[..., :some], order)
    np.testing.assert_array_equal(values[..., :some], np.take_along_axis(weights, order, axis=-1))
    assert not values[..., some:].any()
    assert found == [known and columns in (600, 8192)]
    for one in peaks:
        np.testing.assert_array_equal(one, weights.reshape(*one.shape, -1).max(axis=-1))


@pytest.mark.parametrize("name", ["none", "causal", "window", "sink"])
def test_long_rows_in_several_blocks(name: str, random: np.random.Generator) -> None:
    # Long enough for groups of groups, and for blocks beside which columns lie on both sides; neither length is even.
    rows, columns = 131, 1031
    query, key, value = (random.normal(size=(1, 2, length, 3)).astype("float32") for length in (rows, columns, columns))
    mask = {"causal": ll.masks.Causal(), "window": ll.masks.SlidingWindow(300, 7)}.get(name)
    normalizer = ll.normalizers.Sink(1.0) if name == "sink" else ll.normalizers.Softmax()
    ahead = np.arange(columns) - np.arange(columns - rows, columns)[:, None]
    permitted = {"causal": ahead <= 0, "window": (ahead <= 7) & (ahead >= -300)}.get(name, ahead == ahead)
    raised = np.exp(query.astype("float64") @ key.swapaxes(-1, -2).astype("float64") / 3**0.5) * permitted
    weights = raised / (raised.sum(axis=-1, keepdims=True) + (np.e if name == "sink" else 0.0))
    # PyTorch's blocks have eight times as many rows, and are gone over by strips of so many.
    with thresholds.using(statistics_scores_per_block=16 * columns):
        found = compiled(
            lambda *given: ll.attention_statistics(*given, mask=mask, normalizer=normalizer, top_k=5, num_blocks=CELLS)
        )(*map(ops.convert_to_tensor, (query, key, value)))
    check(found, weights, abs(ahead), top_k=5)
    np.testing.assert_allclose(numpy(found.output), weights @ value, atol=1e-5)
    np.testing.assert_allclose(numpy(found.logsumexp), np.log(raised.sum(axis=-1)), atol=1e-5)


def test_one_long_head(random: np.random.Generator) -> None:
    # More rows than columns beside which others lie.
    rows, columns = 300, 530
    query, key, value = (random.normal(size=(length, 3)).astype("float32") for length in (rows, columns, columns))
    raised = np.exp(query.astype("float64") @ key.T.astype("float64") / 3**0.5)
    weights = (raised / raised.sum(axis=-1, keepdims=True))[None, None]
    found = ll.attention_statistics(*(array[None, None] for array in (query, key, value)), top_k=5, num_blocks=CELLS)
    check(found, weights, apart(rows, columns), top_k=5)
    np.testing.assert_allclose(numpy(found.output), weights @ value, atol=1e-5)


def test_distances_are_those_of_positions() -> None:
    query, key = (array[:1] for array in inputs(11)[:2])
    rows, columns = np.array([2, 3, 5, 7, 11]), np.array([0, 1, 4, 9, 16, 25, 36])
    found = ll.attention_statistics(query, key, query_positions=rows, key_positions=columns, mask="causal")
    weights = oracles.attention_weights(
        query,
        key,
        score=oracles.dot(),
        mask=oracles.causal,
        normalizer=oracles.softmax(),
        query_positions=rows.tolist(),
        key_positions=columns.tolist(),
    )
    apart = np.abs(rows[:, None] - columns)
    np.testing.assert_allclose(numpy(found.distance), (weights * apart).sum(axis=-1), rtol=1e-4)


def test_sums_of_exponentials_and_leading_axes() -> None:
    query, key, value = (array[0, 0] for array in inputs(11))
    found = ll.attention_statistics(query, key, value, score=ll.scores.Dot(1.0), normalizer=ll.normalizers.Softmax(0.5))
    expected = np.log(np.exp(2 * query.astype("float64") @ key.T).sum(axis=-1))
    np.testing.assert_allclose(numpy(found.logsumexp), expected, atol=1e-5)
    assert [tuple(found.output.shape), tuple(found.received.shape), tuple(found.block_sums.shape)] == [
        (T, V),
        (S,),
        (T, S),
    ]
    assert np.isnan(numpy(ll.attention_statistics(query, key, normalizer="sparsemax").logsumexp)).all()
    deep = ll.attention_statistics(*(np.broadcast_to(array, (2, 3, 1, *array.shape)) for array in (query, key)))
    assert tuple(deep.top_keys.shape) == (2, 3, 1, T, 16)


def test_one_query_for_all_examples() -> None:
    query, key, value = inputs(11)
    found, expected = (
        ll.attention_statistics(one, key, value) for one in (query[:1], np.broadcast_to(query[:1], query.shape))
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(numpy(one), numpy(other), atol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow runs one graph on several lengths")
@pytest.mark.parametrize("jit", [False, True])
def test_lengths_that_are_not_known_before(jit: bool) -> None:
    import tensorflow as tf

    signature = [tf.TensorSpec((None, N, None, 4))] * 2
    parts = {"mask": ll.masks.Causal() & ll.masks.SlidingWindow(4), "top_k": K, "cells": CELLS}
    run = tf.function(
        lambda query, key: ll.attention_statistics(query, key, **parts), input_signature=signature, jit_compile=jit
    )
    for rows, columns in ((3, 5), (7, 11)):
        query, key = (np.random.default_rng(43).normal(size=(4, N, length, 4)) for length in (rows, columns))
        query, key = query.astype("float32"), key.astype("float32")
        with thresholds.using(statistics_scores_per_block=17):
            found = run(query, key)
        check(found, numpy(ll.attention_weights(query, key, mask=parts["mask"])), apart(rows, columns))


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"cells": 0}])
def test_numbers_that_make_no_survey(wrong: dict[str, int]) -> None:
    query, key, _ = inputs(11)
    with pytest.raises(ValueError, match=r"must be at least 1\. Received: top_k="):
        ll.attention_statistics(query, key, **wrong)
