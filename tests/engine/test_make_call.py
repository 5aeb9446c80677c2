"""Arguments that do not fit raise with every implementation; unusual but legal ones have the result of the formula."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from gradients import compiled, gradients
from limelight.engine import thresholds

BACKEND = keras.backend.backend()


def numpy(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


QUERY, KEY = normal(2, 3, 4, 8), normal(2, 3, 5, 8)


@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
@pytest.mark.parametrize(
    "parts",
    [
        {"mask": np.ones((2, 4, 5), bool)},  # (B, T, S) without an axis for heads
        {"mask": np.ones((4, 3, 4, 5), bool)},
        {"mask": np.ones((2, 3, 6, 5), bool)},
        {"mask": ll.masks.Padding(np.ones((2, 6), bool))},
        {"mask": ll.masks.Padding(np.ones((3, 5), bool))},
        {"mask": ll.masks.Segments(np.ones((2, 3), int), np.ones((2, 5), int))},
        {"score": ll.scores.Dot() + ll.scores.Bias(np.zeros((2, 4, 5), "float32"))},
        {"mask": "causal", "key_positions": np.arange(4)},
        {"score": ll.positions.Rotary(ll.scores.Dot()), "query_positions": np.arange(6)},
    ],
    ids=lambda parts: f"{next(iter(parts))}-{getattr(next(iter(parts.values())), 'shape', '')}",
)  # fmt: skip
def test_parts_that_do_not_fit_the_scores_raise(parts: dict[str, Any], implementation: str) -> None:
    with (
        thresholds.using(implementation=implementation),
        pytest.raises(ValueError, match=r"must fit the scores \(B, N, T, S\)"),
    ):
        ll.attend(QUERY, KEY, KEY, **parts)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 3, 1, 4, 8), (3, 2, 1, 5, 8), (3, 2, 1, 5, 8)], "must be of the same examples"),
        ([(2, 3, 4, 8), (3, 3, 5, 8), (3, 3, 5, 8)], "must be of the same examples"),
        ([(2, 4, 3, 8), (2, 2, 5, 8), (2, 4, 5, 8)], "must have the same leading axes"),
        ([(2, 3, 8), (2, 5, 8), (1, 5, 8)], "must have the same leading axes"),
    ],
)
def test_leading_axes_must_agree(shapes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ll.attend(*(normal(*shape) for shape in shapes))


def test_one_sequence_of_queries_broadcasts() -> None:
    query, key = normal(1, 4, 8), normal(3, 5, 8)
    together = numpy(ll.attend(query, key, key))
    assert together.shape == (3, 4, 8)
    np.testing.assert_allclose(together[2], numpy(ll.attend(query[0], key[2], key[2])), atol=1e-6)


def test_a_mask_of_many_axes_broadcasts() -> None:
    query, key = normal(2, 3, 1, 4, 8), normal(2, 3, 1, 5, 8)
    mask = np.random.default_rng(3).random((2, 1, 1, 4, 5)) < 0.7
    is_positive = numpy(ll.attention_weights(query, key, mask=mask)) > 0
    np.testing.assert_array_equal(is_positive, np.broadcast_to(mask, is_positive.shape))


@pytest.mark.parametrize("positions", [np.arange(4) / 2, np.zeros((1, 2, 4), int)])
def test_positions_must_be_integers(positions: np.ndarray) -> None:
    with pytest.raises(ValueError, match="`query_positions` must be integers"):
        ll.attention_weights(QUERY, KEY, score=ll.positions.Rotary(ll.scores.Dot()), query_positions=positions)


def test_key_positions_apply_to_a_single_query() -> None:
    parts = {"mask": "causal", "key_positions": np.array([0, 1, 10, 2, 3])}
    weights = numpy(ll.attention_weights(QUERY[:, :, :1], KEY, **parts))
    assert not weights[..., 2].any()
    np.testing.assert_allclose(numpy(ll.attend(QUERY[:, :, :1], KEY, KEY, **parts)), weights @ KEY, atol=1e-6)


@pytest.mark.parametrize("width", [1, 3])
def test_distances_far_from_zero_are_exact(width: int) -> None:
    # Times in seconds, for example.
    query, key = np.full((2, width), 100_000.0), 100_000.0 + np.arange(5.0)[:, None] * np.ones((1, width))
    scores = -((query[:, None] - key[None]) ** 2).sum(-1)
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    weights = ll.attention_weights(
        query.astype("float32"), key.astype("float32"), score=ll.scores.NegativeSquaredDistance()
    )
    np.testing.assert_allclose(numpy(weights), expected, atol=1e-6)


class BiasedDot(ll.scores.Dot):
    """A dot product with a bias against the first key."""

    def __call__(self, query: Any, key: Any, *, block: Any) -> Any:
        return super().__call__(query, key, block=block) - 5.0 * ops.cast(block.key_positions() == 0, "float32")


class OneAhead(ll.masks.Causal):
    """A causal mask that permits one more key."""

    def __call__(self, block: Any) -> Any:
        return block.key_positions() <= block.query_positions() + 1


@pytest.mark.parametrize("parts", [{"score": BiasedDot()}, {"mask": OneAhead()}])
def test_a_subclass_is_not_treated_as_its_base(parts: dict[str, Any]) -> None:
    expected = numpy(ll.attention_weights(KEY, KEY, **parts)) @ KEY
    np.testing.assert_allclose(numpy(ll.attend(KEY, KEY, KEY, **parts)), expected, atol=1e-6)
    assert np.abs(expected - numpy(ll.attend(KEY, KEY, KEY))).max() > 1e-2


@pytest.mark.parametrize("implementation", ["dense", "blockwise", None])
@pytest.mark.parametrize("invalid", [np.nan, np.inf])
def test_padding_does_not_propagate(implementation: str | None, invalid: float) -> None:
    is_real = np.array([[True, True, False, True, False], [True] * 5])
    padded = np.where(is_real[:, None, :, None], KEY, invalid)
    with thresholds.using(implementation=implementation):
        expected = numpy(ll.attend(QUERY, KEY, KEY, mask=ll.masks.Padding(is_real)))
        for key, value in ((padded, KEY), (KEY, padded), (padded, padded)):
            np.testing.assert_allclose(
                numpy(ll.attend(QUERY, key, value, mask=ll.masks.Padding(is_real))), expected, atol=1e-6
            )
    np.testing.assert_array_equal(
        numpy(ll.attention_weights(QUERY, padded, mask=ll.masks.Padding(is_real))),
        numpy(ll.attention_weights(QUERY, KEY, mask=ll.masks.Padding(is_real))),
    )


@pytest.mark.parametrize("normalizer", ["softmax", "sink", "sparsemax"])
def test_empty_axes(normalizer: str) -> None:
    for shapes in (((0, 4, 3, 8), (0, 2, 5, 8)), ((2, 4, 0, 8), (2, 2, 5, 8)), ((2, 4, 3, 8), (2, 2, 0, 8))):
        query, key = (normal(*shape) for shape in shapes)
        mask = ll.masks.Padding(np.ones((shapes[1][0], shapes[1][2]), bool))
        output = numpy(ll.attend(query, key, key, normalizer=normalizer, mask=mask))
        assert output.shape == shapes[0]
        assert not output.any()
        assert numpy(ll.attention_weights(query, key, normalizer=normalizer)).shape == (*shapes[0][:3], shapes[1][2])
        with pytest.raises(ValueError, match="at least one example, one query and one key"):
            ll.attention_statistics(query, key, normalizer=normalizer)


def test_integers_are_cast_to_floats() -> None:
    query = np.array([[1, 0], [0, 2]])
    value = np.array([[1, 2], [3, 4]])
    as_floats = [x.astype("float32") for x in (query, query, value)]
    for implementation in ("dense", None):
        with thresholds.using(implementation=implementation):
            output = numpy(ll.attend(query, query, value))
        np.testing.assert_allclose(output, numpy(ll.attend(*as_floats)))
        assert output.dtype == np.float32


def test_biases_and_masks_of_few_axes_broadcast() -> None:
    bias = np.log([1.0, 2.0, 3.0, 4.0, 5.0]).astype("float32")
    weights = numpy(ll.attention_weights(0 * QUERY, KEY, score=ll.scores.Dot() + ll.scores.Bias(bias)))
    np.testing.assert_allclose(weights, np.broadcast_to(np.arange(1, 6) / 15, weights.shape), atol=1e-6)
    np.testing.assert_array_equal(
        numpy(ll.attention_weights(QUERY, KEY, mask=np.True_)), numpy(ll.attention_weights(QUERY, KEY))
    )
    assert str(ll.masks.Padding()).count("■") == 64


def test_large_seeds_select_blocks() -> None:
    mask = ll.masks.BigBird(1, num_random_blocks=2, seed=2_024_060_711)
    assert "·" in str(mask)
    assert str(mask) == str(ll.masks.BigBird(1, num_random_blocks=2, seed=2_024_060_711 % 32_749))


@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
def test_a_nested_bias_has_a_gradient(implementation: str) -> None:
    bias = normal(1, 1, 1, 5)

    def loss(bias: Any) -> Any:
        score = ll.scores.SoftCap(ll.scores.Dot() + ll.scores.Bias(bias) + ll.positions.ALiBi(), 30.0)
        return ops.sum(ops.square(ll.attend(QUERY, KEY, KEY, score=score)))

    with thresholds.using(implementation="dense"):
        expected = gradients(loss, [bias], [])[0]
    with thresholds.using(implementation=implementation):
        actual = gradients(loss, [bias], [])[0]
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5)


SCORES = {
    "rotary": lambda: ll.positions.Rotary(ll.scores.Dot()),
    "alibi": lambda: ll.scores.Dot() + ll.positions.ALiBi(),
    "relative bias": lambda: ll.scores.Dot() + ll.positions.RelativePositionBias(8, 6, initializer="normal"),
    "shaw": lambda: ll.scores.Dot() + ll.positions.Shaw(2),
    "transformer xl": lambda: ll.positions.TransformerXL(),
    "gaussian": lambda: ll.scores.Dot() + ll.positions.GaussianWindow(3.0),
    "bias": lambda: ll.scores.Dot() + ll.scores.Bias(normal(3, 4, 5)),
    "cosine": lambda: ll.scores.Cosine(),
    "scaled": lambda: ll.scores.LearnedScale(ll.scores.Dot()),
    "normed": lambda: ll.scores.QKNorm(ll.scores.Dot()),
    "cap": lambda: ll.scores.SoftCap(ll.scores.Dot(), 3.0),
    "bilinear": lambda: ll.scores.Bilinear(),
    "additive": lambda: ll.scores.Additive(3),
    "distance": lambda: ll.scores.NegativeSquaredDistance(),
}


@pytest.mark.skipif(BACKEND == "jax", reason="JAX converts to 32 bits by default")
@pytest.mark.parametrize("name", SCORES)
def test_float64(name: str) -> None:
    score, query, key = SCORES[name](), QUERY.astype("float64"), KEY.astype("float64")
    expected = numpy(ll.attention_weights(QUERY, KEY, score=score))
    np.testing.assert_allclose(numpy(ll.attention_weights(query, key, score=score)), expected, atol=2e-6)
    with_sink = ll.attention_weights(query, key, score=score, normalizer=ll.normalizers.Sink(learned=True))
    assert np.isfinite(numpy(with_sink)).all()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow runs one graph on several lengths")
@pytest.mark.parametrize("name", [name for name in SCORES if name != "bias"])
def test_scores_of_unknown_length(name: str) -> None:
    import tensorflow as tf

    score = SCORES[name]()
    expected = numpy(ll.attention_weights(QUERY, QUERY, score=score))
    graph = tf.function(
        lambda x: ll.attention_weights(x, x, score=score),
        input_signature=[tf.TensorSpec((None, 3, None, 8), tf.float32)],
    )
    np.testing.assert_allclose(numpy(graph(ops.convert_to_tensor(QUERY))), expected, atol=1e-6)


def test_shapes_are_explained_like_tensors() -> None:
    if BACKEND == "jax":
        with thresholds.using(implementation="fused"):
            # The kernel's causal mask has the first query at the first key.
            assert ll.explain_implementation((1, 5, 4, 64), (1, 5, 9, 64), mask="causal").name != "fused"
            assert ll.explain_implementation((1, 5, 9, 64), (1, 5, 9, 64), mask="causal").name == "fused"
    with pytest.raises(ValueError, match=r"`dropout` must be in \[0, 1\)"):
        ll.explain_implementation((1, 5, 4, 64), (1, 5, 9, 64), dropout=2)


def test_a_mask_that_does_not_fit_raises_under_compilation() -> None:
    function = compiled(lambda query, key: ll.attend(query, key, key, mask=ll.masks.Padding(np.ones((2, 6), bool))))
    with pytest.raises(Exception, match="must fit the scores"):
        function(ops.convert_to_tensor(QUERY), ops.convert_to_tensor(KEY))


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX compiles implementations by itself")
def test_equal_scores_are_compiled_once() -> None:
    traced = []

    class Counted(ll.scores.SoftCap):
        def call(self, query: Any, key: Any, *, block: Any) -> Any:
            traced.append(self)
            return super().call(query, key, block=block)

    def attend(scale: float, cap: float) -> tuple[Any, int]:
        traced.clear()
        score = Counted(
            ll.positions.Rotary(ll.scores.Dot(scale=scale)) + ll.positions.ALiBi() + ll.scores.Bias(normal(3, 4, 5)),
            cap,
        )
        output = ll.attend(QUERY, KEY, KEY, score=score, normalizer=ll.normalizers.TopK(3))
        return numpy(output), len(traced)

    with thresholds.using(implementation="blockwise"):
        (first, compiled), (second, again), (other, anew) = attend(0.5, 20.0), attend(0.5, 20.0), attend(0.5, 2.0)
    assert again == 0
    assert anew == compiled > 0
    np.testing.assert_array_equal(first, second)
    assert np.abs(other - first).max() > 1e-3


class Amplified(ll.scores.SoftCap):
    """A user's score that does not store its constructor's argument under the same name."""

    def __init__(self, loudness: float) -> None:
        super().__init__(ll.scores.Dot(), 30.0)
        self.factor = 2 * loudness

    def call(self, query: Any, key: Any, *, block: Any) -> Any:
        return self.factor * super().call(query, key, block=block)

    def prepare(self, query: Any, key: Any, *, block: Any) -> Any:
        return query, key, self


def test_a_component_with_other_attribute_names_is_compiled_by_identity() -> None:
    for loudness in (1.0, 3.0):
        score = Amplified(loudness)
        expected = numpy(ll.attention_weights(QUERY, KEY, score=score)) @ KEY
        with thresholds.using(implementation="blockwise"):
            np.testing.assert_allclose(numpy(ll.attend(QUERY, KEY, KEY, score=score)), expected, atol=1e-5)
