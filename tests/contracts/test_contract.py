"""The contract of every component: values and gradients equal the numpy oracle, masked rows are zero, padding is invisible."""

import functools
import json
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
import oracles
from compiling import fast_compilation, run_together
from contracts.cases import CASES, ERRORS, PERMITTED, B, Case, N, S, T
from contracts.computing import TARGET, compute, inputs, numpy, randomize
from contracts.representative import full, parametrize
from gradients import compiled, gradients
from limelight import scores
from limelight.core.block import Block, Slice

# Each has its own operations: others that are compiled differ in the formula only.
COMPILED = {"defaults", "additive", "and", "learned sink", "monotonic", "relative bias", "top k of sparsemax"}
each_case = parametrize(CASES)
each_open_case = parametrize(case for case in CASES if not case.fixed)
each_half = pytest.mark.parametrize("dtype", [full("float16"), "bfloat16"])


@pytest.fixture
def _optimized() -> Iterator[None]:
    """Compile with the optimizations that users have."""
    with fast_compilation(False):
        yield


with_optimizations = pytest.mark.usefixtures("_optimized")


def compute_weights_and_output(arrays: Any, parts: dict[str, Any]) -> tuple[Any, np.ndarray]:
    """Compute the weights, a tensor, and the output for queries, keys and values."""
    weights, output = run_together(
        [lambda: ll.attention_weights(*arrays[:2], **parts), lambda: ll.attend(*arrays, **parts)]
    )
    return weights, numpy(output)


def attend_each(inputs: list[Any], parts: dict[str, Any]) -> list[np.ndarray]:
    """Compute `attend` for several queries, keys and values."""
    return [numpy(output) for output in run_together([functools.partial(ll.attend, *each, **parts) for each in inputs])]


def intersect_array(mask: Any, array: np.ndarray) -> Any:
    """Return the intersection of a mask, or None, and an array."""
    return ll.masks.ArrayMask(array) if mask is None else mask & ll.masks.ArrayMask(array)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("num_kv_heads", [N, pytest.param(1, marks=pytest.mark.full)])
def test_weights_and_output_equal_the_oracle(case: Case, num_kv_heads: int) -> None:
    query, key, value = inputs(case.size, num_kv_heads)
    results = compute(case, num_kv_heads)
    assert tuple(results.weights.shape) == (B, N, T, S)
    expected = oracles.attention_weights(query, key, **case.oracle, parameters=results.parameters)
    np.testing.assert_allclose(numpy(results.weights), expected, atol=1e-5)
    np.testing.assert_allclose(numpy(results.output), oracles.average(expected, value), atol=3e-5)


@pytest.mark.parametrize("case", [case for case in CASES if case.smooth], ids=lambda case: case.name)
def test_gradients_equal_the_oracle(case: Case) -> None:
    arrays, results = inputs(case.size), compute(case)
    parameters = results.parameters

    def expected(query: Any, key: Any, value: Any, *values: Any) -> float:
        named_values = dict(zip(parameters, values, strict=True))
        return float((oracles.attend(query, key, value, **case.oracle, parameters=named_values) * TARGET).sum())

    random = np.random.default_rng(31)
    points = [array.astype("float64") for array in (*arrays, *parameters.values())]
    for index, point in enumerate(points):
        directions = [np.zeros_like(other) for other in points]
        directions[index] = random.normal(size=point.shape)
        derivative = oracles.directional_derivative(expected, points, directions)
        slope = float((results.gradients[index] * directions[index]).sum())
        assert slope == pytest.approx(derivative, rel=2e-4, abs=2e-3), index


@each_case
@pytest.mark.parametrize("dtype", [full("float32"), "float16"])
def test_rows_without_permitted_keys_are_zero(case: Case, dtype: str) -> None:
    arrays = [ops.cast(array, dtype) for array in inputs(case.size)]
    parts = case.parts()
    permitted = PERMITTED.copy()
    permitted[:, :, 1] = False
    parts["mask"] = intersect_array(parts.get("mask"), permitted)
    variables, _ = randomize(parts, *arrays[:2])
    weights, output = compute_weights_and_output(arrays, parts)
    assert not numpy(weights)[:, :, 1].any()
    assert not output[:, :, 1].any()

    def loss(*arrays: Any) -> Any:
        return ops.sum(ops.cast(ll.attend(*arrays, **parts), "float32") ** 2)

    computed = gradients(loss, arrays, variables)
    assert all(np.isfinite(gradient).all() for gradient in computed)
    assert not computed[0][:, :, 1].any()


@each_case
@each_half
def test_half_precision_is_normalised_in_float32(case: Case, dtype: str) -> None:
    query, key, _ = (ops.cast(array, dtype) for array in inputs(case.size))
    parts = case.parts()
    _, parameters = randomize(parts, query, key)
    weights = ll.attention_weights(query, key, **parts)
    assert keras.backend.standardize_dtype(weights.dtype) == "float32"
    expected = oracles.attention_weights(numpy(query), numpy(key), **case.oracle, parameters=parameters)
    np.testing.assert_allclose(numpy(weights), expected, atol=1e-5)


@each_case
def test_large_scores_stay_finite(case: Case) -> None:
    # Their products overflow float16. bfloat16 has the range of float32.
    arrays = [ops.cast(300.0 * array, "float16") for array in inputs(case.size)]
    parts = case.parts()
    variables, _ = randomize(parts, *arrays[:2])
    weights, output = compute_weights_and_output(arrays, parts)
    assert np.isfinite(numpy(weights)).all()
    assert np.isfinite(output).all()

    def loss(*arrays: Any) -> Any:
        return ops.mean(ops.cast(ll.attend(*arrays, **parts), "float32"))

    assert all(np.isfinite(gradient).all() for gradient in gradients(loss, arrays, variables))


@each_open_case
def test_padding_is_invisible(case: Case) -> None:
    arrays = inputs(case.size)
    parts = case.parts()
    variables, _ = randomize(parts, *arrays[:2])
    random = np.random.default_rng(37)
    paddings = [30 * random.normal(size=(B, N, 3, array.shape[-1])).astype("float32") for array in arrays]
    for padding in paddings:
        padding[:, :, 1] = np.nan
    padded_arrays = [np.concatenate(pair, axis=2) for pair in zip(arrays, paddings, strict=True)]
    real = np.zeros((B, S + 3), bool)
    real[:, :S] = True
    rows = np.zeros((B, T + 3), bool)
    rows[:, :T] = True
    padded = {**parts, "mask": ll.masks.intersect(parts.get("mask"), ll.masks.Padding(real, rows))}
    if case.align == "end":
        padded |= {"query_positions": np.arange(T + 3) + S - T, "key_positions": np.arange(S + 3)}
    weights, alone = run_together(
        [
            lambda: ll.attention_weights(*padded_arrays[:2], **padded),
            lambda: ll.attention_weights(*arrays[:2], **parts),
        ]
    )
    assert not numpy(weights)[..., S:].any()
    np.testing.assert_allclose(numpy(weights)[:, :, :T, :S], numpy(alone), atol=1e-6)

    def loss(*arrays: Any, given: dict[str, Any]) -> Any:
        return ops.sum(ll.attend(*arrays, **given)[:, :, :T] ** 2)

    computed = gradients(functools.partial(loss, given=padded), padded_arrays, variables)
    expected = gradients(functools.partial(loss, given=parts), arrays, variables)
    for index, (wider, narrow) in enumerate(zip(computed, expected, strict=True)):
        length = narrow.shape[2] if index < 3 else None
        scale = max(1.0, np.abs(narrow).max())
        np.testing.assert_allclose(
            wider[:, :, :length] / scale if index < 3 else wider / scale, narrow / scale, atol=2e-5
        )
        assert index >= 3 or not wider[:, :, length:].any()


@parametrize(case for case in CASES if not case.fixed and not case.linked)
def test_a_single_query_is_the_last_position(case: Case) -> None:
    query, key, _ = inputs(case.size)
    parts = case.parts()
    randomize(parts, query, key)
    given = {} if case.align == "end" else {"query_positions": np.array([T - 1])}
    alone = ll.attention_weights(query[:, :, -1:], key, **parts, **given)
    np.testing.assert_allclose(numpy(alone), numpy(ll.attention_weights(query, key, **parts))[:, :, -1:], atol=1e-6)


@each_open_case
def test_any_number_of_leading_axes(case: Case) -> None:
    query, key, value = inputs(case.size)
    parts = case.parts()
    randomize(parts, query, key)
    more = [array.reshape(1, B, *array.shape[1:]) for array in (query, key, value)]
    expected, output = attend_each([(query, key, value), more], parts)
    np.testing.assert_allclose(output[0], expected, atol=1e-6)
    single = case.parts()
    alone = [array[:, :1] for array in (query, key, value)]
    randomize(single, *alone[:2])
    no_heads, no_batch = ([array[index] for array in alone] for index in ((slice(None), 0), (1, 0)))
    expected, without_heads, without_batch = attend_each([alone, no_heads, no_batch], single)
    np.testing.assert_allclose(without_heads, expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(without_batch, expected[1, 0], atol=1e-6)


@pytest.mark.full
@each_open_case
def test_components_round_trip_through_their_config(case: Case) -> None:
    query, key, _ = inputs(case.size)
    parts = case.parts()
    variables, _ = randomize(parts, query, key)
    stored = json.loads(json.dumps({name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}))
    copies = {name: keras.saving.deserialize_keras_object(part) for name, part in stored.items()}
    assert {name: type(part) for name, part in copies.items()} == {name: type(part) for name, part in parts.items()}
    again = {name: keras.saving.serialize_keras_object(part) for name, part in copies.items()}
    assert json.loads(json.dumps(again)) == stored
    fresh, _ = randomize(copies, query, key)
    assert [variable.shape for variable in fresh] == [variable.shape for variable in variables]
    np.testing.assert_array_equal(
        numpy(ll.attention_weights(query, key, **copies)), numpy(ll.attention_weights(query, key, **parts))
    )


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="`compiled` does nothing on PyTorch")
@with_optimizations
@parametrize(CASES, COMPILED)
def test_compiled_equals_eager(case: Case) -> None:
    arrays = inputs(case.size)
    parts = case.parts()
    randomize(parts, *arrays[:2])
    run = compiled(
        lambda query, key, value: (ll.attend(query, key, value, **parts), ll.attention_weights(query, key, **parts))
    )
    output, weights = run(*(ops.convert_to_tensor(array) for array in arrays))
    np.testing.assert_allclose(numpy(output), numpy(ll.attend(*arrays, **parts)), atol=1e-5)
    np.testing.assert_allclose(numpy(weights), numpy(ll.attention_weights(*arrays[:2], **parts)), atol=1e-5)


@each_case
def test_a_block_equals_its_slice_of_the_whole(case: Case) -> None:
    query, key, _ = (ops.convert_to_tensor(array) for array in inputs(case.size))
    parts = case.parts()
    randomize(parts, query, key)
    score, mask = scores.get(parts.get("score")), parts.get("mask")
    blocks = [
        (Slice(B), Slice(N), Slice(T), Slice(S)),
        (Slice(B), Slice(N), Slice(T, 1, 2), Slice(S, 2, 3)),
        (Slice(B, 1, 1), Slice(N, 2, 1), Slice(T, 3, 2), Slice(S, 0, 5)),
        (Slice(B), Slice(N, indices=(2, 0)), Slice(T, indices=(4, 1)), Slice(S)),
        (Slice(B), Slice(N), Slice(T, ops.convert_to_tensor(2), 3), Slice(S, ops.convert_to_tensor(4), 3)),
    ]

    def compute_block(batch: Slice, heads: Slice, rows: Slice, columns: Slice) -> tuple[Any, ...]:
        block = Block(batch, heads, rows, columns)
        q = block.rows.take(block.heads.take(block.batch.take(query, 0), 1), 2)
        k = block.columns.take(block.heads.take(block.batch.take(key, 0), 1), 2)
        block_scores = score(q, k, block=block)
        return (block_scores,) if mask is None else (block_scores, mask(block), *mask.kv_range(block))

    computed = run_together([functools.partial(compute_block, *slices) for slices in blocks])
    full_scores, *full_mask = (np.broadcast_to(ops.convert_to_numpy(array), (B, N, T, S)) for array in computed[0][:2])
    for slices, (block_scores, *masked) in zip(blocks, computed, strict=True):
        indices = [ops.convert_to_numpy(part.to_indices()) for part in slices]
        expected = full_scores[np.ix_(*indices)]
        np.testing.assert_allclose(np.broadcast_to(numpy(block_scores), expected.shape), expected, atol=1e-5)
        if mask is not None:
            permitted = np.broadcast_to(ops.convert_to_numpy(masked[0]), expected.shape)
            np.testing.assert_array_equal(permitted, full_mask[0][np.ix_(*indices)])
            first, stop = (int(bound) for bound in masked[1:])
            assert not permitted[..., (indices[3] < first) | (indices[3] >= stop)].any()


@pytest.mark.full
@pytest.mark.parametrize(("wrong", "error", "message"), [case[1:] for case in ERRORS], ids=[case[0] for case in ERRORS])
def test_wrong_arguments_raise(wrong: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        wrong()


@pytest.mark.full
def test_cosine_of_short_vectors(random: np.random.Generator) -> None:
    query, key = random.normal(size=(2, 5)).astype("float32"), random.normal(size=(3, 5)).astype("float32")
    key[1] = 0
    weights = numpy(ll.attention_weights(1e-9 * query, 1e-7 * key, score=ll.scores.Cosine(scale=10.0)))
    lengths = np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(key, axis=1)
    scores = 10 * query @ key.T / np.where(lengths == 0, 1, lengths)
    expected = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(weights, expected, atol=1e-5)


@pytest.mark.full
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no float64 unless it is told to")
def test_monotonic_attention_in_float64(random: np.random.Generator) -> None:
    query, key = (ops.convert_to_tensor(random.normal(size=(length, 3)), "float64") for length in (2, 5))
    weights, expected = (
        ll.attention_weights(ops.cast(query, dtype), ops.cast(key, dtype), normalizer=ll.normalizers.Monotonic())
        for dtype in ("float64", "float32")
    )
    np.testing.assert_allclose(numpy(weights), numpy(expected), atol=1e-6)
