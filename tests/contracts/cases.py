"""The cases of the contract: each component with its oracle."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import limelight as ll
import oracles

B, N, T, S, H, V = 2, 3, 5, 7, 11, 13

DOT, SOFTMAX = oracles.dot(), oracles.softmax()

_random = np.random.default_rng(17)
REAL_KEYS = np.array([[True] * S, [True] * 4 + [False] * 3])
REAL_QUERIES = np.array([[True] * 3 + [False] * 2, [True] * T])
PERMITTED = _random.random((B, N, T, S)) < 0.6
PERMITTED[1, 2, 3] = False  # a row that permits nothing
BIAS = _random.normal(size=(N, T, S)).astype("float32")
QUERY_SEGMENTS = np.array([[0, 0, 1, 1, 2], [3, 1, 1, 2, 9]])
KEY_SEGMENTS = np.array([[0, 0, 0, 1, 1, 2, 2], [1, 1, 1, 1, 2, 2, 2]])


@keras.saving.register_keras_serializable("tests")
def positions_divisible_by_3(query: Any, key: Any) -> Any:
    """Permit pairs whose positions sum to a multiple of 3."""
    return (query + key) % 3 == 0


@dataclasses.dataclass(frozen=True)
class Case:
    """One part, or a few together, and the loops that they must equal.

    Args:
        name: what the test is called.
        parts: makes fresh keyword arguments for `attend`.
        score, mask, normalizer: the oracles.
        size: H, where the part asks for another than a prime.
        fixed: whether a part holds data of the shape of one call, so that it serves no other shape and is not saved.
        align: which end of the sequences the part's positions are counted from.
        linked: whether the weights of a query depend on the queries before it.
        smooth: whether the gradient is that of the function; it is another for what is straight through.
    """

    name: str
    parts: Callable[[], dict[str, Any]]
    score: Callable[..., Any] = DOT
    mask: Callable[..., bool] = oracles.everything
    normalizer: Callable[..., Any] = SOFTMAX
    size: int = H
    fixed: bool = False
    align: str = "end"
    linked: bool = False
    smooth: bool = True

    @property
    def oracle(self) -> dict[str, Any]:
        """The oracles as keyword arguments."""
        return {"score": self.score, "mask": self.mask, "normalizer": self.normalizer}


def score(name: str, make: Callable[[], Any], oracle: Any, **options: Any) -> Case:
    """A case of a score."""
    return Case(name, lambda: {"score": make()}, score=oracle, **options)


def mask(name: str, make: Callable[[], Any], oracle: Any, **options: Any) -> Case:
    """A case of a mask."""
    return Case(name, lambda: {"mask": make()}, mask=oracle, **options)


def normalizer(name: str, make: Callable[[], Any], oracle: Any, **options: Any) -> Case:
    """A case of a normalizer."""
    return Case(name, lambda: {"normalizer": make()}, normalizer=oracle, **options)


CASES = [
    Case("defaults", dict),
    score("dot unscaled", lambda: ll.scores.Dot(scale=1.0), oracles.dot(1.0)),
    score("bilinear", ll.scores.Bilinear, oracles.bilinear),
    score("additive", lambda: ll.scores.Additive(3), oracles.additive),
    mask("causal", ll.masks.Causal, oracles.causal),
    mask("causal from the start", lambda: ll.masks.Causal("start"), oracles.causal_from_start, align="start"),
    mask("padding of keys", lambda: ll.masks.Padding(REAL_KEYS), oracles.padding(REAL_KEYS), fixed=True),
    mask(
        "padding of both",
        lambda: ll.masks.Padding(REAL_KEYS, REAL_QUERIES),
        oracles.padding(REAL_KEYS, REAL_QUERIES),
        fixed=True,
    ),
    mask("allowed", lambda: ll.masks.ArrayMask(PERMITTED), oracles.allowed(PERMITTED), fixed=True),
    mask(
        "and",
        lambda: ll.masks.Causal() & ll.masks.ArrayMask(PERMITTED),
        lambda i, j, place: oracles.causal(i, j, place) and oracles.allowed(PERMITTED)(i, j, place),
        fixed=True,
    ),
    mask(
        "or",
        lambda: ll.masks.Causal() | ll.masks.Padding(REAL_KEYS),
        lambda i, j, place: oracles.causal(i, j, place) or oracles.padding(REAL_KEYS)(i, j, place),
        fixed=True,
    ),
    mask("not", lambda: ~ll.masks.Causal(), lambda i, j, place: not oracles.causal(i, j, place)),
    normalizer("softmax at a temperature", lambda: ll.normalizers.Softmax(temperature=0.5), oracles.softmax(0.5)),
    score("cosine", lambda: ll.scores.Cosine(scale=3.0), oracles.cosine),
    score("distance", lambda: ll.scores.NegativeSquaredDistance(0.3), oracles.distance(0.3)),
    score("sum", lambda: ll.scores.Dot(0.2) + ll.scores.Bilinear(), oracles.summed(oracles.dot(0.2), oracles.bilinear)),
    score("bias", lambda: ll.scores.Dot() + ll.scores.Bias(BIAS), oracles.summed(DOT, oracles.bias(BIAS)), fixed=True),
    score("soft cap", lambda: ll.scores.SoftCap(ll.scores.Dot(), 0.7), oracles.soft_cap(0.7, DOT)),
    score("scaled", lambda: ll.scores.LearnedScale(ll.scores.Dot(), 2.0), oracles.scaled(DOT)),
    score("rms normed", lambda: ll.scores.QKNorm(ll.scores.Dot()), oracles.normed("rms", DOT)),
    score("l2 normed", lambda: ll.scores.QKNorm(ll.scores.Dot(4.0), "l2"), oracles.normed("l2", oracles.dot(4.0))),
    score(
        "alibi",
        lambda: ll.scores.Dot() + ll.positions.ALiBi(),
        oracles.summed(DOT, oracles.alibi([2**-4, 2**-8, 2**-2])),
    ),
    score(
        "relative bias",
        lambda: ll.scores.Dot() + ll.positions.RelativePositionBias(8, 6),
        oracles.summed(DOT, oracles.relative_bias(8, 6)),
    ),
    score(
        "relative bias to the left",
        lambda: ll.scores.Dot() + ll.positions.RelativePositionBias(4, 5, bidirectional=False),
        oracles.summed(DOT, oracles.relative_bias(4, 5, False)),
    ),
    score("shaw", lambda: ll.scores.Dot() + ll.positions.Shaw(2), oracles.summed(DOT, oracles.shaw(2))),
    score("transformer-xl", lambda: ll.positions.TransformerXL(6), oracles.transformer_xl(6)),
    score(
        "gaussian",
        lambda: ll.scores.Dot() + ll.positions.GaussianWindow(3.0, 4),
        oracles.summed(DOT, oracles.gaussian(3.0, lambda place: S)),
    ),
    Case(
        "gaussian over padding",
        lambda: {"score": ll.positions.GaussianWindow(3.0, 4), "mask": ll.masks.Causal() & ll.masks.Padding(REAL_KEYS)},
        score=oracles.gaussian(3.0, lambda place: (S, 4)[place.example]),
        mask=lambda i, j, place: oracles.causal(i, j, place) and oracles.padding(REAL_KEYS)(i, j, place),
        fixed=True,
    ),
    score(
        "rotary",
        lambda: ll.positions.Rotary(ll.scores.Dot()),
        oracles.rotary(DOT, oracles.rotary_frequencies()),
        size=10,
    ),
    score(
        "rotary of neighbours and a part",
        lambda: ll.positions.Rotary(ll.scores.Dot(), base=100.0, rotary_dim=6, interleaved=True),
        oracles.rotary(DOT, oracles.rotary_frequencies(100.0), size=6, neighbours=True),
    ),
    score(
        "rotary scaled linearly",
        lambda: ll.positions.Rotary(ll.scores.Dot(), scaling=ll.positions.LinearScaling(4.0)),
        oracles.rotary(DOT, oracles.rotary_frequencies(divided=4.0)),
        size=10,
    ),
    score(
        "rotary scaled by NTK",
        lambda: ll.positions.Rotary(ll.scores.Dot(), scaling=ll.positions.NTKScaling(4.0)),
        oracles.rotary(DOT, oracles.rotary_frequencies(10000 * 4 ** (10 / 8))),
        size=10,
    ),
    score(
        "rotary scaled by YaRN",
        lambda: ll.positions.Rotary(ll.scores.Dot(), scaling=ll.positions.YaRNScaling(4.0, original_length=64)),
        oracles.rotary(DOT, oracles.yarn_frequencies(4.0, 64), magnitude=1.1386294361119891),
        size=10,
    ),
    score(
        "normed rotary plus alibi",
        lambda: ll.scores.QKNorm(ll.positions.Rotary(ll.scores.Dot())) + ll.positions.ALiBi(),
        oracles.summed(
            oracles.normed("rms", oracles.rotary(DOT, oracles.rotary_frequencies())),
            oracles.alibi([2**-4, 2**-8, 2**-2]),
        ),
        size=10,
    ),
    mask("window", lambda: ll.masks.SlidingWindow(2, 1), oracles.window(2, 1)),
    mask(
        "window from the start",
        lambda: ll.masks.SlidingWindow(2, 1, align="start"),
        lambda i, j, place: -2 <= j - i <= 1,
        align="start",
    ),
    mask("window to the right", lambda: ll.masks.SlidingWindow(None, 0), oracles.window(None, 0)),
    mask(
        "prefix",
        lambda: ll.masks.Causal() | ll.masks.Prefix(4),
        lambda i, j, place: oracles.causal(i, j, place) or oracles.prefix(4)(i, j, place),
    ),
    mask("dilated", lambda: ll.masks.Dilated(3), oracles.dilated(3)),
    mask("blocks", lambda: ll.masks.BigBird(1, 0, 0, 1, seed=5), oracles.block_pattern(1, 0, 0, 1, 5)),
    mask("blocks of two", lambda: ll.masks.BigBird(2, 1, 0, 2, seed=2), oracles.block_pattern(2, 1, 0, 2, 2)),
    mask(
        "segments",
        lambda: ll.masks.Segments(QUERY_SEGMENTS, KEY_SEGMENTS),
        oracles.segments(QUERY_SEGMENTS, KEY_SEGMENTS),
        fixed=True,
    ),
    mask(
        "where",
        lambda: ll.masks.MaskFunction(positions_divisible_by_3),
        lambda i, j, place: (place.queries[i] + place.keys[j]) % 3 == 0,
    ),
    normalizer("sink", ll.normalizers.Sink, oracles.sink()),
    normalizer("learned sink", lambda: ll.normalizers.Sink(0.5, learned=True), oracles.sink(None)),
    normalizer("sparsemax", ll.normalizers.Sparsemax, oracles.entmax(2.0)),
    normalizer("entmax", ll.normalizers.Entmax, oracles.entmax(1.5)),
    normalizer("entmax near softmax", lambda: ll.normalizers.Entmax(1.25), oracles.entmax(1.25)),
    # Beyond 2 the slope of a weight is without bound where it begins. With this size none of the keys is so near to there that
    # what is rounded off a score could be seen in a gradient.
    normalizer("entmax beyond sparsemax", lambda: ll.normalizers.Entmax(2.5), oracles.entmax(2.5), size=19),
    normalizer("sigmoid", ll.normalizers.Sigmoid, oracles.sigmoid(None)),
    normalizer("sigmoid with a bias", lambda: ll.normalizers.Sigmoid(-0.5), oracles.sigmoid(-0.5)),
    normalizer("top k", lambda: ll.normalizers.TopK(3), oracles.top_k(3, SOFTMAX)),
    normalizer(
        "top k of sparsemax",
        lambda: ll.normalizers.TopK(2, ll.normalizers.Sparsemax()),
        oracles.top_k(2, oracles.entmax(2.0)),
    ),
    normalizer("hardmax", ll.normalizers.Hardmax, oracles.hard, smooth=False),
    normalizer("gumbel at rest", lambda: ll.normalizers.GumbelSoftmax(0.5), oracles.softmax(0.5)),
    normalizer("hard gumbel at rest", lambda: ll.normalizers.GumbelSoftmax(hard=True), oracles.hard, smooth=False),
    normalizer("monotonic", lambda: ll.normalizers.Monotonic(-0.5), oracles.monotonic, linked=True),
]

X = np.ones((2, 3))

# A wrong use, the error it must raise, and what the message must say.
ERRORS: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    (
        "dot of two sizes",
        lambda: ll.attention_weights(X, np.ones((2, 5))),
        ValueError,
        "same size.*query size 3, key size 5",
    ),
    (
        "rotary of two sizes",
        lambda: ll.attention_weights(np.ones((2, 6)), np.ones((2, 4)), score=ll.positions.Rotary(ll.scores.Bilinear())),
        ValueError,
        "query size 6, key size 4. Use rotary_dim=4",
    ),
    (
        "heads that do not divide",
        lambda: ll.attention_weights(np.ones((1, 3, 2, 4)), np.ones((1, 2, 2, 4))),
        ValueError,
        "N=3, K=2",
    ),
    ("a vector for a sequence", lambda: ll.attention_weights(np.ones(3), X), ValueError, "Add a length axis"),
    ("ranks that differ", lambda: ll.attention_weights(np.ones((1, 2, 3)), X), ValueError, "same number of axes"),
    (
        "values of another length",
        lambda: ll.attend(X, X, np.ones((5, 3))),
        ValueError,
        "same length S",
    ),
    (
        "an additive mask",
        lambda: ll.attention_weights(X, X, mask=np.array([[0.0, -1e9], [0.0, 0.0]])),
        ValueError,
        "only True and False.*mask == 0",
    ),
    (
        "a mask with an axis too many",
        lambda: ll.attention_weights(X, X, mask=np.ones((1, 2, 2), bool)),
        ValueError,
        "Remove its leading axes",
    ),
    (
        "an unknown mask",
        lambda: ll.attention_weights(X, X, mask="casual"),
        ValueError,
        "one of.*causal",
    ),
    (
        "a score for a normalizer",
        lambda: ll.attention_weights(X, X, normalizer=ll.scores.Dot()),
        TypeError,
        "Normalizer",
    ),
    ("an unknown score", lambda: ll.attention_weights(X, X, score="dots"), ValueError, "one of.*dot"),
    ("dropout of one", lambda: ll.attend(*[X] * 3, dropout=1.0), ValueError, r"\[0, 1\)"),
    ("no units", lambda: ll.scores.Additive(0), ValueError, "positive integer.*units=0"),
    ("an unknown end", lambda: ll.masks.Causal("middle"), ValueError, '"end" or "start".*middle'),
    ("a temperature of zero", lambda: ll.normalizers.Softmax(temperature=0.0), ValueError, "positive.*0.0"),
    (
        "a mask and an array",
        lambda: ll.masks.Causal() & np.ones((2, 2), bool),
        TypeError,
        r"limelight.masks.ArrayMask\(array\)",
    ),
    ("padding that is no array", lambda: ll.masks.Padding("keys"), TypeError, "boolean array"),
    (
        "saving a mask that holds data",
        lambda: ll.masks.Padding(REAL_KEYS).get_config(),
        ValueError,
        "must not hold a tensor.*attention_mask",
    ),
]
