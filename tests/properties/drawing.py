"""What properties are examined on: parts, masks and numbers drawn at random, all of the same few shapes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from keras import ops

import limelight as ll
from contracts.cases import CASES, B, Case, N, S, T, V
from contracts.test_contract import learned
from limelight.masks import Mask

# A size that every score takes.
SIZE = 10
# Masks that hold data hold it for so many more queries and keys, so that sequences can be padded.
MORE = 3
LARGEST = (T + MORE, S + MORE)

# A hundred examples a property, the same in every run. None is slow by itself: JAX compiles when it first meets a shape.
examined = settings(
    max_examples=100, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

seeds = st.integers(0, 2**16)
SCORES = [case for case in CASES if "score" in case.parts() and not case.fixed]
# Without those that loop until they are near enough, and so are compiled anew by JAX at every call.
NORMALIZERS = [case for case in CASES if "normalizer" in case.parts() and not case.name.startswith("entmax ")]
scores, normalizers = st.sampled_from(SCORES), st.sampled_from(NORMALIZERS)


def part(case: Case) -> Any:
    """The one part of a case, with random values for what it learns."""
    return _part(case.name)


@functools.cache
def _part(name: str) -> Any:
    case = next(case for case in CASES if case.name == name)
    parts = case.parts()
    learned(parts, np.zeros((B, N, T, SIZE), "float32"), np.zeros((B, N, S, SIZE), "float32"))
    return next(iter(parts.values()))


def numbers(seed: int, *lengths: int, sizes: tuple[int, ...] = (SIZE, SIZE, V)) -> list[np.ndarray]:
    """Queries, keys and values: of T, S and S steps, or of the lengths that are given."""
    random = np.random.default_rng(seed)
    lengths = lengths or (T, S, S)
    return [
        random.normal(size=(B, N, length, size)).astype("float32") for length, size in zip(lengths, sizes, strict=False)
    ]


def numpy(tensor: Any) -> np.ndarray:
    """A tensor's values."""
    return np.asarray(ops.convert_to_numpy(tensor))


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A mask that can be made for any choice of queries and keys.

    Args:
        text: how it is shown when a property does not hold.
        make: makes it, from the indices of queries (T,) and of keys (S,) that the data it holds is taken at.
    """

    text: str
    make: Callable[[np.ndarray, np.ndarray], Mask]

    def __repr__(self) -> str:
        return self.text

    def __and__(self, other: "Pattern") -> "Pattern":
        return Pattern(f"({self} & {other})", lambda *picked: self.make(*picked) & other.make(*picked))

    def __or__(self, other: "Pattern") -> "Pattern":
        return Pattern(f"({self} | {other})", lambda *picked: self.make(*picked) | other.make(*picked))

    def __invert__(self) -> "Pattern":
        return Pattern(f"~{self}", lambda *picked: ~self.make(*picked))


def rule(mask: Mask, text: str = "") -> Pattern:
    """A mask of positions, which is the same whatever is picked."""
    return Pattern(text or repr(mask), lambda rows, columns: mask)


def allowed(seed: int) -> Pattern:
    """An array of permissions."""
    array = np.random.default_rng(seed).random((B, N, T + MORE, S + MORE)) < 0.6
    return Pattern(f"allowed({seed})", lambda rows, columns: ll.masks.ArrayMask(array[:, :, rows][..., columns]))


def padding(seed: int) -> Pattern:
    """Real and padded steps in any order, and padding where the sequences end."""
    random = np.random.default_rng(seed)
    queries, keys = random.random((B, T + MORE)) < 0.7, random.random((B, S + MORE)) < 0.7
    queries[:, T:] = keys[:, S:] = False
    return Pattern(f"padding({seed})", lambda rows, columns: ll.masks.Padding(keys[:, columns], queries[:, rows]))


def segments(seed: int) -> Pattern:
    """Sequences packed in one."""
    random = np.random.default_rng(seed)
    queries, keys = (np.sort(random.integers(0, 3, (B, length + MORE)), axis=1) for length in (T, S))
    return Pattern(f"segments({seed})", lambda rows, columns: ll.masks.Segments(queries[:, rows], keys[:, columns]))


def third(query: Any, key: Any) -> Any:
    """A rule of positions."""
    return (query + key) % 3 == 0


reach = st.none() | st.integers(0, 6)
rules = st.one_of(
    st.sampled_from([rule(ll.masks.Causal()), rule(ll.masks.MaskFunction(third), "where(third)")]),
    st.builds(ll.masks.SlidingWindow, reach, reach).map(rule),
    st.builds(ll.masks.Prefix, st.integers(0, 9)).map(rule),
    st.builds(ll.masks.Dilated, st.integers(1, 4)).map(rule),
    st.builds(ll.masks.BigBird, st.integers(1, 4), *[st.integers(0, 1)] * 3, st.integers(0, 3)).map(rule),
)
data = st.one_of(st.builds(allowed, seeds), st.builds(padding, seeds), st.builds(segments, seeds))


def combined(leaves: st.SearchStrategy[Pattern]) -> st.SearchStrategy[Pattern]:
    """What `&`, `|` and `~` make of patterns."""

    def more(inner: st.SearchStrategy[Pattern]) -> st.SearchStrategy[Pattern]:
        return st.one_of(
            st.builds(lambda left, right: left & right, inner, inner),
            st.builds(lambda left, right: left | right, inner, inner),
            st.builds(lambda pattern: ~pattern, inner),
        )

    return st.recursive(leaves, more, max_leaves=3)


starting = st.sampled_from([rule(ll.masks.Causal("start")), rule(ll.masks.SlidingWindow(2, 1, "start"))])
patterns = combined(rules | data | starting)
positional = combined(rules)
