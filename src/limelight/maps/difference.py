"""How far the heads of two maps lie apart."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from limelight.maps._attention_map import AttentionMap


@dataclasses.dataclass(frozen=True, eq=False)
class Difference:
    r"""Jensen-Shannon divergences between the heads of two maps, and which head of one is which of the other.

    $$D(p, q) = H\big(\tfrac{p + q}{2}\big) - \tfrac{H(p) + H(q)}{2}$$ in nats, at most $\ln 2$: the mean over all rows in
    which both have weights.

    Args:
        matrix: (N, N'), each head of the first map against each of the second.
        pairs: (n, 2), the matching of heads with the smallest sum of divergences: heads have no order of their own, and two
            trainings of a model put them in different places.
    """

    matrix: np.ndarray
    pairs: np.ndarray

    @property
    def divergence(self) -> np.ndarray:
        """The divergence of each matched pair of heads, (n,)."""
        return self.matrix[self.pairs[:, 0], self.pairs[:, 1]]

    @property
    def same_place(self) -> np.ndarray:
        """The divergence of heads with the same number, (min(N, N'),)."""
        return np.diagonal(self.matrix)


def between(first: "AttentionMap", second: "AttentionMap") -> Difference:
    """The difference of two maps whose shapes agree but for the number of heads.

    Raises:
        ValueError: other examples, queries or keys.
    """
    from scipy.optimize import linear_sum_assignment

    if (*first.shape[:-3], *first.shape[-2:]) != (*second.shape[:-3], *second.shape[-2:]):
        raise ValueError(
            "Two maps must have the same examples, queries and keys to be compared. Received: "
            f"{first.key!r} of shape {first.shape} and {second.key!r} of shape {second.shape}."
        )
    sums, count = np.zeros((first.heads, second.heads)), np.zeros((first.heads, second.heads))
    for example, rows, weights, _ in first.blocks():
        other = second.source.block(example, np.arange(second.heads), rows)  # (N', r, S)
        for head, own in enumerate(weights):
            divergence = jensen_shannon(own[None], other)  # (N', r)
            both = (own.sum(-1) > 0)[None] & (other.sum(-1) > 0)
            sums[head] += np.where(both, divergence, 0).sum(axis=-1)
            count[head] += both.sum(axis=-1)
    matrix = np.where(count > 0, sums / np.maximum(count, 1), 0.0)
    return Difference(matrix, np.stack(linear_sum_assignment(matrix), axis=-1))


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in nats along the last axis of two arrays of weights."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    divergence = -plogp((first + second) / 2) + (plogp(first) + plogp(second)) / 2
    return np.maximum(divergence, 0)


def plogp(weights: np.ndarray) -> np.ndarray:
    """Sum of w log w along the last axis."""
    return (weights * np.log(weights, out=np.zeros_like(weights), where=weights > 0)).sum(axis=-1)
