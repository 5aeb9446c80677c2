"""The interface of scores, and their sum."""

import dataclasses
import functools
from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import Component, LearnedComponent, deserialize, register
from limelight.core.precision import upcast
from limelight.core.shapes import static_shape


class Score(Component):
    """Base class of scores.

    A score is called with queries (b, n, t, H), keys (b, n, s, G) and the block that says where they are, and returns scores
    broadcastable to (b, n, t, s), in float32 or wider. Scores add with `+`.

    `prepare` and `project_keys` compute parts of a score in advance. They are not used for a subclass that inherits them and
    overrides `call` or `__call__`, because they belong to the score of its parent.
    """

    @property
    def cost(self) -> int:
        """The number of intermediate values per score, from which the block size is chosen."""
        return 1

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        """Return the scores of a block."""
        raise NotImplementedError

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, "Score"]:
        """Transform each query and each key once, before scores are computed block by block.

        A rotation or a projection is the same in every block. What remains is often a dot product, for which there are fused
        kernels.

        Args:
            query: All queries (B, N, T, H).
            key: All keys (B, K, S, G).
            block: The block of all queries and keys.

        Returns:
            Transformed queries, transformed keys, and the score that is left to compute between them, which gives the same
            scores as this one.
        """
        return query, key, self

    def project_keys(self, key: Any) -> Any:
        """Compute what the score needs of each key alone, once for a layer that calls it with one query after another.

        Args:
            key: Keys (..., S, G).

        Returns:
            (..., S, P), for `score_projected_keys`; the keys themselves if nothing is to be computed.
        """
        return key

    def score_projected_keys(self, query: Any, key: Any, *, block: Block) -> Any:
        """Return the scores of a block as `__call__` does, of keys that `project_keys` returned."""
        return self(query, key, block=block)

    def __add__(self, other: "Score") -> "Sum":
        if not isinstance(other, Score):
            raise TypeError(
                f"A score adds to another score. Received: {other!r} of type {type(other).__name__}. "
                "Wrap an additive bias as limelight.scores.Bias(array)."
            )
        return Sum(self, other)


@functools.cache
def _is_overridden(score_class: type, step: str, callers: tuple[str, ...]) -> bool:
    """Return True if a class inherits the method `step`, and overrides one of the methods `callers` below it in the hierarchy."""
    for owner in score_class.__mro__:
        if step in vars(owner):
            return False
        if owner is not LearnedComponent and any(name in vars(owner) for name in callers):
            return True
    return False


def prepare_score(score: Score, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, Score]:
    """Call `score.prepare`; return the arguments unchanged if it belongs to the score of a parent class (see `Score`)."""
    if _is_overridden(type(score), "prepare", ("call", "__call__", "score_projected_keys")):
        return query, key, score
    return score.prepare(query, key, block=block)


def project_keys(score: Score, key: Any) -> Any:
    """Call `score.project_keys`; return the keys unchanged if it belongs to the score of a parent class (see `Score`)."""
    return key if _is_overridden(type(score), "project_keys", ("call", "__call__")) else score.project_keys(key)


def score_projected_keys(score: Score, query: Any, key: Any, *, block: Block) -> Any:
    """Return the scores of keys that `project_keys` returned."""
    if _is_overridden(type(score), "score_projected_keys", ("call", "__call__")):
        return score(query, key, block=block)
    return score.score_projected_keys(query, key, block=block)


class Term(Score):
    """Base class of scores that depend on positions only, not on queries and keys."""


@register
class Sum(LearnedComponent, Score):
    r"""Sum of two scores, written as `left + right`.

    $$s_{ij} = a_{ij} + b_{ij}$$

    Args:
        left, right: The scores.

    Shapes: those of the scores.

    Example:
        >>> import limelight as ll
        >>> type(ll.scores.Dot() + ll.positions.ALiBi()).__name__
        'Sum'
    """

    def __init__(self, left: Score, right: Score, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.left, self.right = deserialize(left), deserialize(right)

    @property
    def cost(self) -> int:
        return max(self.left.cost, self.right.cost)

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        build(self.left, query_shape, key_shape)
        build(self.right, query_shape, key_shape)

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        # TensorFlow's `+` does not promote float32 to float64.
        return ops.add(self.left(query, key, block=block), self.right(query, key, block=block))

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, Score]:
        for first, second in ((self.left, self.right), (self.right, self.left)):
            if isinstance(second, Term):
                query, key, prepared = prepare_score(first, query, key, block=block)
                return query, key, self if prepared is first else Sum(prepared, second)
        return query, key, self


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Bias(Term):
    r"""Additive bias, given as an array for one call.

    $$s_{ij} = b_{ij}$$

    Args:
        array: float, broadcastable to (B, N, T, S). To forbid keys use a mask: a large negative bias can leak.

    Shapes: scores as `array`.

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.zeros((2, 3), "float32")
        >>> print(np.array(ll.attention_weights(x, x, score=ll.scores.Dot() + ll.scores.Bias(np.log([[1.0, 3.0]])))))
        [[0.25 0.75]
         [0.25 0.75]]
    """

    array: Any

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        array = upcast(ops.convert_to_tensor(self.array))
        array = ops.reshape(array, (1, -1)) if len(array.shape) < 2 else array
        return block.slice(array, "bnts" if len(array.shape) > 2 else "ts")


def build(score: Any, query_shape: tuple, key_shape: tuple) -> None:
    """Build a score that is a layer, for queries and keys of the given shapes."""
    if isinstance(score, keras.Layer) and not score.built:
        score.build(static_shape(query_shape), static_shape(key_shape))


def get_num_heads(shape: tuple) -> int:
    """Return the number of heads N of a shape (..., N, T, H); 1 if it has no axis of heads."""
    return shape[-3] if len(shape) > 3 else 1
