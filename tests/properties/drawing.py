"""Hypothesis strategies for components, masks and inputs, all of the same few shapes."""

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
from contracts.computing import randomize
from limelight.masks import Mask
from selection import is_full

# A size that every score takes.
SIZE = 10
# The number of additional queries and keys in masks that hold data, so that sequences can be padded.
MORE = 3
LARGEST = (T + MORE, S + MORE)

# The same examples in every run. There is no deadline, because JAX compiles at the first example of each shape.
examined = settings(
    max_examples=100 if is_full() else 15,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

seeds = st.integers(0, 2**16)
SCORES = [case for case in CASES if "score" in case.parts() and not case.fixed]
# Without those that use bisection, which JAX compiles again at every call.
NORMALIZERS = [case for case in CASES if "normalizer" in case.parts() and not case.name.startswith("entmax ")]
scores, normalizers = st.sampled_from(SCORES), st.sampled_from(NORMALIZERS)


def part(case: Case) -> Any:
    """Return the component of a case, with random weights."""
    return _part(case.name)


@functools.cache
def _part(name: str) -> Any:
    case = next(case for case in CASES if case.name == name)
    parts = case.parts()
    randomize(parts, np.zeros((B, N, T, SIZE), "float32"), np.zeros((B, N, S, SIZE), "float32"))
    return next(iter(parts.values()))


def numbers(seed: int, *lengths: int, sizes: tuple[int, ...] = (SIZE, SIZE, V)) -> list[np.ndarray]:
    """Return queries, keys and values, of T, S and S steps or of the given lengths."""
    random = np.random.default_rng(seed)
    lengths = lengths or (T, S, S)
    return [
        random.normal(size=(B, N, length, size)).astype("float32") for length, size in zip(lengths, sizes, strict=False)
    ]


def numpy(tensor: Any) -> np.ndarray:
    """Convert a tensor to numpy."""
    return np.asarray(ops.convert_to_numpy(tensor))


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A mask that can be built for any selection of queries and keys.

    Args:
        text: The representation in hypothesis's messages.
        make: Build the mask for the indices of queries (T,) and of keys (S,).
    """

    text: str
    make: Callable[[np.ndarray, np.ndarray], Mask]

    def __repr__(self) -> str:
        return self.text

    def __and__(self, other: "Pattern") -> "Pattern":
        return Pattern(f"({self} & {other})", lambda *indices: self.make(*indices) & other.make(*indices))

    def __or__(self, other: "Pattern") -> "Pattern":
        return Pattern(f"({self} | {other})", lambda *indices: self.make(*indices) | other.make(*indices))

    def __invert__(self) -> "Pattern":
        return Pattern(f"~{self}", lambda *indices: ~self.make(*indices))


def rule(mask: Mask, text: str = "") -> Pattern:
    """Return the pattern of a mask of positions, which is the same for all indices."""
    return Pattern(text or repr(mask), lambda rows, columns: mask)


def allowed(seed: int) -> Pattern:
    """Return the pattern of a random array mask."""
    array = np.random.default_rng(seed).random((B, N, T + MORE, S + MORE)) < 0.6
    return Pattern(f"allowed({seed})", lambda rows, columns: ll.masks.ArrayMask(array[:, :, rows][..., columns]))


def padding(seed: int) -> Pattern:
    """Return the pattern of random padding, with all steps at the end padded."""
    random = np.random.default_rng(seed)
    queries, keys = random.random((B, T + MORE)) < 0.7, random.random((B, S + MORE)) < 0.7
    queries[:, T:] = keys[:, S:] = False
    return Pattern(f"padding({seed})", lambda rows, columns: ll.masks.Padding(keys[:, columns], queries[:, rows]))


def segments(seed: int) -> Pattern:
    """Return the pattern of random packed sequences."""
    random = np.random.default_rng(seed)
    queries, keys = (np.sort(random.integers(0, 3, (B, length + MORE)), axis=1) for length in (T, S))
    return Pattern(f"segments({seed})", lambda rows, columns: ll.masks.Segments(queries[:, rows], keys[:, columns]))


def third(query: Any, key: Any) -> Any:
    """Permit pairs whose positions sum to a multiple of 3."""
    return (query + key) % 3 == 0


window_sizes = st.none() | st.integers(0, 6)
rules = st.one_of(
    st.sampled_from([rule(ll.masks.Causal()), rule(ll.masks.MaskFunction(third), "where(third)")]),
    st.builds(ll.masks.SlidingWindow, window_sizes, window_sizes).map(rule),
    st.builds(ll.masks.Prefix, st.integers(0, 9)).map(rule),
    st.builds(ll.masks.Dilated, st.integers(1, 4)).map(rule),
    st.builds(ll.masks.BigBird, st.integers(1, 4), *[st.integers(0, 1)] * 3, st.integers(0, 3)).map(rule),
)
data = st.one_of(st.builds(allowed, seeds), st.builds(padding, seeds), st.builds(segments, seeds))


def combined(leaves: st.SearchStrategy[Pattern]) -> st.SearchStrategy[Pattern]:
    """Combine patterns with `&`, `|` and `~`."""

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
