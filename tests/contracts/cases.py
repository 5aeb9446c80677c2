"""What must pass the contract: one line for each part, beside its oracle."""

import dataclasses
from collections.abc import Callable
from typing import Any

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
    """

    name: str
    parts: Callable[[], dict[str, Any]]
    score: Callable[..., Any] = DOT
    mask: Callable[..., bool] = oracles.everything
    normalizer: Callable[..., Any] = SOFTMAX
    size: int = H
    fixed: bool = False
    align: str = "end"

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
    score("dot unscaled", lambda: ll.Dot(scale=1.0), oracles.dot(1.0)),
    score("bilinear", ll.Bilinear, oracles.bilinear),
    score("additive", lambda: ll.Additive(3), oracles.additive),
    mask("causal", ll.Causal, oracles.causal),
    mask("causal from the start", lambda: ll.Causal("start"), oracles.causal_from_start, align="start"),
    mask("padding of keys", lambda: ll.Padding(REAL_KEYS), oracles.padding(REAL_KEYS), fixed=True),
    mask(
        "padding of both",
        lambda: ll.Padding(REAL_KEYS, REAL_QUERIES),
        oracles.padding(REAL_KEYS, REAL_QUERIES),
        fixed=True,
    ),
    mask("allowed", lambda: ll.Allowed(PERMITTED), oracles.allowed(PERMITTED), fixed=True),
    mask(
        "and",
        lambda: ll.Causal() & ll.Allowed(PERMITTED),
        lambda i, j, place: oracles.causal(i, j, place) and oracles.allowed(PERMITTED)(i, j, place),
        fixed=True,
    ),
    mask(
        "or",
        lambda: ll.Causal() | ll.Padding(REAL_KEYS),
        lambda i, j, place: oracles.causal(i, j, place) or oracles.padding(REAL_KEYS)(i, j, place),
        fixed=True,
    ),
    mask("not", lambda: ~ll.Causal(), lambda i, j, place: not oracles.causal(i, j, place)),
    normalizer("softmax at a temperature", lambda: ll.Softmax(temperature=0.5), oracles.softmax(0.5)),
]

X = np.ones((2, 3))

# A wrong use, the error it must raise, and what the message must say.
ERRORS: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    (
        "dot of two sizes",
        lambda: ll.weigh(X, np.ones((2, 5))),
        ValueError,
        "same size.*query size 3, key size 5",
    ),
    (
        "heads that do not divide",
        lambda: ll.weigh(np.ones((1, 3, 2, 4)), np.ones((1, 2, 2, 4))),
        ValueError,
        "N=3, K=2",
    ),
    ("a vector for a sequence", lambda: ll.weigh(np.ones(3), X), ValueError, "Add a length axis"),
    ("ranks that differ", lambda: ll.weigh(np.ones((1, 2, 3)), X), ValueError, "same number of axes"),
    (
        "values of another length",
        lambda: ll.attend(X, X, np.ones((5, 3))),
        ValueError,
        "same length S",
    ),
    (
        "an additive mask",
        lambda: ll.weigh(X, X, mask=np.array([[0.0, -1e9], [0.0, 0.0]])),
        ValueError,
        "only True and False.*mask == 0",
    ),
    (
        "a mask with an axis too many",
        lambda: ll.weigh(X, X, mask=np.ones((1, 2, 2), bool)),
        ValueError,
        "Remove its leading axes",
    ),
    (
        "an unknown mask",
        lambda: ll.weigh(X, X, mask="casual"),
        ValueError,
        "one of.*causal",
    ),
    (
        "a score for a normalizer",
        lambda: ll.weigh(X, X, normalizer=ll.Dot()),
        TypeError,
        "Normalizer",
    ),
    ("an unknown score", lambda: ll.weigh(X, X, score="dots"), ValueError, "one of.*dot"),
    ("dropout of one", lambda: ll.attend(*[X] * 3, dropout=1.0), ValueError, r"\[0, 1\)"),
    ("no units", lambda: ll.Additive(0), ValueError, "positive integer.*units=0"),
    ("an unknown end", lambda: ll.Causal("middle"), ValueError, '"end" or "start".*middle'),
    ("a temperature of zero", lambda: ll.Softmax(temperature=0.0), ValueError, "positive.*0.0"),
    ("a mask and an array", lambda: ll.Causal() & np.ones((2, 2), bool), TypeError, r"limelight.Allowed\(array\)"),
    ("padding that is no array", lambda: ll.Padding("keys"), TypeError, "boolean array"),
    (
        "saving a mask that holds data",
        lambda: ll.Padding(REAL_KEYS).get_config(),
        ValueError,
        "must not hold a tensor.*attention_mask",
    ),
]
