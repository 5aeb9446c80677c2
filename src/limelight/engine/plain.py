"""The formula itself: all scores at once. The reference for every other path, and the fastest for short inputs."""

from typing import Any

from keras import ops

from limelight.engine.block import mixture
from limelight.question import Question


def output(question: Question, value: Any, *, dropout: float = 0.0, seed: Any = None) -> Any:
    """The output (B, N, T, V) of a question for values (B, K, S, V)."""
    value = shared_between_heads(value, question.query)
    return ops.cast(mixture(weights(question), value, question.tile, dropout, seed), value.dtype)


def weights(question: Question) -> Any:
    """All weights, (B, N, T, S), in float32 or wider."""
    key = shared_between_heads(question.key, question.query)
    scores = question.score(question.query, key, tile=question.tile)
    mask = None if question.mask is None else question.mask(question.tile)
    scores = ops.broadcast_to(scores, full_shape(question, scores))
    return question.normalizer(scores, mask, tile=question.tile)


def shared_between_heads(tensor: Any, query: Any) -> Any:
    """Keys or values (B, K, S, H) repeated for N query heads; K = 1 and K = N stay as they are."""
    heads, kept = query.shape[1], tensor.shape[1]
    return tensor if kept in (1, heads) else ops.repeat(tensor, heads // kept, axis=1)


def full_shape(question: Question, scores: Any) -> tuple:
    """(B, N, T, S), from the tile, with B and N taken from whichever of query and scores has them."""
    shape = ops.shape(question.query)
    rows, columns = question.tile.rows.length, question.tile.columns.length
    batch = ops.shape(scores)[0] if scores.shape[0] != 1 else shape[0]
    heads = scores.shape[1] if scores.shape[1] != 1 else shape[1]
    return (batch, heads, rows, columns)
