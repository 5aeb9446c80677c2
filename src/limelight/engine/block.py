"""One block of whole rows, by the formula, on any backend."""

import dataclasses
from typing import Any

from keras import ops

from limelight.noise import keep
from limelight.product import wide, widened
from limelight.question import Question
from limelight.scores import Dot
from limelight.tile import Tile


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Scores and weights of a block of rows, over a run of columns that holds all that the rows may attend to.

    Args:
        tile: where it lies.
        scores: (b, n, t, s), before the mask.
        permitted: the mask, broadcastable to the scores, or None.
        weights: (b, n, t, s).
    """

    tile: Tile
    scores: Any
    permitted: Any
    weights: Any


def prepared(question: Question) -> Question:
    """A question prepared for blocks. What a dot product is multiplied by, its queries are: they are fewer than the scores."""
    question = question.prepared()
    score = question.score
    if type(score) is not Dot:
        return question
    query = widened(question.query) * score.factor(question.query.shape[-1])
    return dataclasses.replace(question, query=query, score=Dot(scale=1.0))


def block(question: Question, tile: Tile, query: Any, key: Any) -> Block:
    """The block at a tile, from its queries (b, n, t, H) and its keys (b, k, s, H), where k is n or 1."""
    scores = question.score(query, key, tile=tile)
    spans = (tile.batch, tile.heads, tile.rows, tile.columns)
    scores = ops.broadcast_to(scores, tuple(span.length for span in spans))
    permitted = None if question.mask is None else question.mask(tile)
    return Block(tile, scores, permitted, question.normalizer(scores, permitted, tile=tile))


def mixture(weights: Any, value: Any, tile: Tile, dropout: float = 0.0, seed: Any = None) -> Any:
    """The average of values (b, k, s, V) by weights (b, n, t, s), with dropout: (b, n, t, V) in float32 or wider."""
    if dropout:
        weights = weights * keep(seed, dropout, tile, weights.dtype)
    return ops.matmul(weights, ops.cast(value, wide(value.dtype)))
