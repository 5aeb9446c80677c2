"""Masks: what they permit, the kinds of their blocks, and their text rendering."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from limelight import masks
from limelight.core.block import Block, Slice
from limelight.engine import thresholds

PATTERNS = [
    ll.masks.Causal(),
    ll.masks.Causal("start"),
    ll.masks.SlidingWindow(3, 1),
    ll.masks.SlidingWindow(None, 2),
    ll.masks.Prefix(6),
    ll.masks.Dilated(1),
    ll.masks.Dilated(5),
    ll.masks.BigBird(3, 1, 1, 1, seed=4),
    ll.masks.BigBird(4, 0, 0, 1),
    ~ll.masks.Causal(),
    ll.masks.Causal() & ll.masks.SlidingWindow(4),
    ll.masks.Causal() | ll.masks.Prefix(7),
    ~(ll.masks.Causal() & ll.masks.SlidingWindow(2)) & ll.masks.Prefix(9),
    ll.masks.MaskFunction(lambda query, key: key < query),
]


def dense(mask: masks.Mask, rows: int, columns: int) -> np.ndarray:
    """Return the mask of all rows and columns."""
    array = ops.convert_to_numpy(mask(Block.full(1, 1, rows, columns)))
    return np.broadcast_to(array, (rows, columns))


@pytest.mark.full
@pytest.mark.parametrize("mask", PATTERNS, ids=lambda mask: repr(mask)[:60])
@pytest.mark.parametrize(("rows", "columns", "size"), [(13, 13, 4), (5, 17, 3), (17, 5, 4)])
def test_empty_and_full_blocks_agree_with_the_dense_mask(mask: masks.Mask, rows: int, columns: int, size: int) -> None:
    kinds, whole = mask.block_kinds(rows, columns, size), dense(mask, rows, columns)
    assert kinds.shape == (-(-rows // size), -(-columns // size))
    for (row, column), kind in np.ndenumerate(kinds):
        block = whole[row * size : (row + 1) * size, column * size : (column + 1) * size]
        assert kind != 0 or not block.any()
        assert kind != 2 or block.all()


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (ll.masks.Causal(), [[1, 0, 0], [2, 1, 0], [2, 2, 1]]),
        (ll.masks.Causal() & ll.masks.SlidingWindow(2), [[1, 0, 0], [1, 1, 0], [0, 1, 1]]),
        (ll.masks.Causal() | ll.masks.Prefix(3), [[2, 0, 0], [2, 1, 0], [2, 2, 1]]),
        (ll.masks.BigBird(3, 1, 0, 0), [[2, 2, 2], [2, 2, 0], [2, 0, 2]]),
        (~ll.masks.Causal(), [[1, 2, 2], [0, 1, 2], [0, 0, 1]]),
        (ll.masks.MaskFunction(lambda query, key: key >= 0), [[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
    ],
    ids=["causal", "window", "prefix", "blocks", "not", "where"],
)
def test_block_kinds(mask: masks.Mask, expected: list[list[int]]) -> None:
    np.testing.assert_array_equal(mask.block_kinds(9, 9, 3), expected)


def test_a_block_at_unknown_positions_is_partial() -> None:
    block = Block.full(1, 1, 8, 8, given_query_positions=np.arange(8))
    picked = Block.full(1, 1, 8, 8).replace(rows=Slice(8, indices=(1, 5)))
    for mask in PATTERNS:
        if not isinstance(mask, (ll.masks.Prefix, masks.Or, masks.And)):
            assert mask.block_kind(block) == mask.block_kind(picked) == "partial"
    assert ll.masks.Padding(np.ones((2, 8), bool)).block_kind(Block.full(2, 1, 8, 8)) == "partial"


@pytest.mark.full
def test_random_blocks_do_not_depend_on_the_length() -> None:
    mask = ll.masks.BigBird(2, 1, 1, 2, seed=3)
    np.testing.assert_array_equal(dense(mask, 40, 40)[:24, :24], dense(mask, 24, 24))
    assert dense(mask, 40, 40).sum() > dense(ll.masks.BigBird(2, 1, 1, 0), 40, 40).sum()
    assert (dense(mask, 40, 40) != dense(ll.masks.BigBird(2, 1, 1, 2, seed=4), 40, 40)).any()


def test_blocks_of_queries_before_the_first_key_are_not_global() -> None:
    # Queries 0 to 3 are at positions -4 to -1.
    nearest = np.arange(-4, 4)[:, None] == np.arange(4)
    np.testing.assert_array_equal(dense(ll.masks.BigBird(1, 0, 0, 0), 8, 4), nearest)
    expected = nearest | (np.arange(-4, 4)[:, None] == 0) | (np.arange(4) == 0)
    np.testing.assert_array_equal(dense(ll.masks.BigBird(1, 1, 0, 0), 8, 4), expected)


def test_given_positions_replace_implicit_ones() -> None:
    block = Block.full(1, 1, 2, 3, given_query_positions=np.array([[4, 9]]), given_key_positions=np.array([[4, 5, 9]]))
    expected = {
        ll.masks.Causal(): [[1, 0, 0], [1, 1, 1]],
        ll.masks.SlidingWindow(1, 1): [[1, 1, 0], [0, 0, 1]],
        ll.masks.Prefix(5): [[1, 0, 0]] * 2,
    }
    for mask, permitted in expected.items():
        array = np.broadcast_to(ops.convert_to_numpy(mask(block)), (1, 1, 2, 3))
        np.testing.assert_array_equal(array[0, 0], permitted)
        assert mask.kv_range(block) == (0, 3)


def test_str_renders_eight_rows_and_columns() -> None:
    assert str(ll.masks.Causal()).splitlines()[:2] == ["■ · · · · · · ·", "■ ■ · · · · · ·"]
    assert str(ll.masks.Padding(np.array([[1, 1, 0], [1, 0, 0]]))).splitlines() == ["■ ■ ·"] * 8
    assert str(ll.masks.Padding(queries=np.array([True, False]))) == "■ ■\n· ·"
    assert str(ll.masks.ArrayMask(np.eye(9, dtype=bool)[None, None])).splitlines()[7] == "· · · · · · · ■"
    assert str(~ll.masks.ArrayMask(np.eye(2, dtype=bool)) & ll.masks.Causal()) == "· ·\n■ ·"
    assert str(ll.masks.Segments(np.array([0, 1]), np.array([0, 0, 1]))) == "■ ■ ·\n· · ■"
    assert repr(ll.masks.SlidingWindow(2, 0)) == "SlidingWindow(left=2, right=0, align='end')"


def test_a_function_of_positions_is_a_mask() -> None:
    x = np.zeros((3, 4), "float32")
    weights = ll.attention_weights(x, x, mask=lambda query, key: key == query)
    np.testing.assert_array_equal(ops.convert_to_numpy(weights), np.eye(3))


def test_a_function_is_saved_by_its_registered_name(tmp_path: Any) -> None:
    @keras.saving.register_keras_serializable("tests", "nearby")
    def nearby(query: Any, key: Any) -> Any:
        return ops.abs(query - key) < 2

    x = np.random.default_rng(3).normal(size=(2, 5, 4)).astype("float32")
    steps = keras.Input((None, 4))
    model = keras.Model(steps, ll.layers.SelfAttention(3, mask=nearby)(steps))
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(copy.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: ll.masks.SlidingWindow(-1), ValueError, "non-negative integer or None.*left=-1"),
        (lambda: ll.masks.Prefix(2.5), ValueError, "non-negative integer.*2.5"),
        (lambda: ll.masks.Dilated(0), ValueError, "positive integer.*dilation=0"),
        (lambda: ll.masks.BigBird(0), ValueError, "positive integer.*block_size=0"),
        (lambda: ll.masks.BigBird(2, num_random_blocks=-1), ValueError, "non-negative integer.*num_random_blocks=-1"),
        (lambda: ll.masks.Segments(np.array([0.5])), TypeError, "array of integers"),
        (lambda: ll.masks.MaskFunction("causal"), TypeError, "function of query and key positions.*causal"),
        (lambda: ll.masks.MaskFunction(lambda query, key: key, "middle"), ValueError, '"end" or "start"'),
        (
            lambda: ll.masks.MaskFunction(lambda query, key: key).get_config(),
            ValueError,
            "not registered.*register_keras_serializable",
        ),
        (lambda: ll.masks.ArrayMask([[0.5]]), ValueError, "only True and False"),
    ],
)
def test_wrong_arguments_raise(wrong: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        wrong()


@pytest.mark.parametrize("num_examples", [2, pytest.param(5, marks=pytest.mark.full)])
@pytest.mark.parametrize(
    "implementation",
    ["blockwise", *(pytest.param(n, marks=pytest.mark.full) for n in ("dense", "online_softmax", "fused"))],
)
@pytest.mark.parametrize("kind", ["padding", pytest.param("segments", marks=pytest.mark.full)])
def test_one_element_stands_for_all_keys(
    random: np.random.Generator, kind: str, implementation: Any, num_examples: int
) -> None:
    query, key = (random.normal(size=(num_examples, length, 3)).astype("float32") for length in (4, 5))
    is_real = np.arange(num_examples) > 0
    if kind == "padding":
        mask = ll.masks.Padding(is_real[:, None])
    else:
        mask = ll.masks.Segments(np.ones((num_examples, 4), int), is_real[:, None].astype(int))
    with thresholds.using(implementation=implementation):
        output = ops.convert_to_numpy(ll.attend(query, key, key, mask=mask))
    scores = np.exp(query @ key.swapaxes(1, 2) / np.sqrt(3))
    expected = scores / scores.sum(axis=-1, keepdims=True) @ key * is_real[:, None, None]
    np.testing.assert_allclose(output, expected, atol=1e-5)


@pytest.mark.full
def test_one_element_for_all_keys_leaves_their_number(random: np.random.Generator) -> None:
    query, key = (random.normal(size=(3, length, 3)).astype("float32") for length in (4, 5))
    score = ll.positions.GaussianWindow(2.0, kernel_initializer="ones")
    is_real = np.array([[False], [True], [True]])
    one, all_keys = (
        ops.convert_to_numpy(ll.attention_weights(query, key, score=score, mask=ll.masks.Padding(keys)))
        for keys in (is_real, is_real.repeat(5, axis=1))
    )
    np.testing.assert_allclose(one, all_keys, atol=1e-6)
