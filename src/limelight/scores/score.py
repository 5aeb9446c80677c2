"""What a score is, and how scores add."""

import dataclasses
from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import Component, LearnedComponent, deserialize, register
from limelight.core.precision import upcast


class Score(Component):
    """Scores of queries against keys.

    It is called with a block of queries (b, n, t, H), a block of keys (b, n, s, H) and the tile that says where the block lies,
    and returns scores (b, n, t, s), or what broadcasts to them, in float32 or wider.
    """

    @property
    def cost(self) -> int:
        """How many numbers are held at a time for each score, so that a path can choose its blocks."""
        return 1

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        """Scores of one block."""
        raise NotImplementedError

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, "Score"]:
        """Whatever concerns queries and keys one by one, done once for all blocks.

        A rotation or a projection is the same in every block that a query or key takes part in. A path that goes by blocks, or
        that knows a kernel for plain dot products, calls this first on all queries (B, N, T, H) and all keys (B, K, S, H).

        Returns:
            New queries, new keys, and the score that is left to compute between them. Calling that one on the new queries and
            keys gives what calling this one on the old gives.
        """
        return query, key, self

    def __add__(self, other: "Score") -> "Sum":
        if not isinstance(other, Score):
            raise TypeError(
                f"A score adds to another score. Received: {other!r} of type {type(other).__name__}. "
                "Wrap an additive bias as limelight.scores.Bias(array)."
            )
        return Sum(self, other)


class Term(Score):
    """A score that looks only at places, never at queries and keys themselves, and so adds to another. Abstract."""


@register
class Sum(LearnedComponent, Score):
    r"""Two scores added.

    $$s_{ij} = a_{ij} + b_{ij}$$

    Written as `first + second`.

    Args:
        left, right: the scores.

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
        # Keras's function, since TensorFlow's own adds no float64 to float32.
        return ops.add(self.left(query, key, block=block), self.right(query, key, block=block))

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, Score]:
        for first, second in ((self.left, self.right), (self.right, self.left)):
            if isinstance(second, Term):
                query, key, rest = first.prepare(query, key, block=block)
                return query, key, self if rest is first else Sum(rest, second)
        return query, key, self


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Bias(Term):
    r"""A bias that is given for one call.

    $$s_{ij} = b_{ij}$$

    Args:
        array: float, broadcastable to (B, N, T, S). To forbid, use a mask: a large negative bias can leak.

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
        return block.align(array, "bnts" if len(array.shape) > 2 else "ts")


def build(score: Any, query_shape: tuple, key_shape: tuple) -> None:
    """Build a score that learns, for queries and keys of the given shapes; nothing for one that does not."""
    if isinstance(score, keras.Layer) and not score.built:
        score.build(query_shape, key_shape)


def head_count(shape: tuple) -> int:
    """The number of heads N in a shape (..., N, T, H); 1 in one without a heads axis."""
    return shape[-3] if len(shape) > 3 else 1
